//! The keys of a fan-out's items: texts by which people, workers and targets distinguish them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use uuid::Uuid;

use super::decide::{TransitionBuilder, own_failure};
use super::scope::Use;
use super::state::WorkIndex;
use super::{BodyState, Run};
use crate::envelope::{self, VALUE_ENCRYPTED};
use crate::event::Slot;
use crate::expr::Memo;
use crate::id::{effect_key, in_round, keyed_effect_key};
use crate::protocol::Failure;
use crate::{Action, Expr, Payload};

/// Longest key of an item, in bytes.
const LONGEST: usize = 255;

impl Run {
    /// Returns the key of the item at `place`, if its fan-out gives keys.
    pub(super) fn item_key(&self, place: WorkIndex) -> Option<&Arc<str>> {
        self.items_of(place.step)?.keys.get(place.item? as usize)
    }

    /// Returns the index of the item with this key.
    #[must_use]
    pub fn item_with_key(&self, step: &str, key: &str) -> Option<u32> {
        let items = self.items_of(self.step_now(step)?)?;
        let at = items.keys.iter().position(|own| **own == *key)?;
        u32::try_from(at).ok()
    }

    /// Returns the key its targets deduplicate on: made of the item's key, where there is one, else of its index.
    pub(crate) fn effect_key(&self, place: WorkIndex, action: Action) -> Uuid {
        let round = match &self.steps[place.step].body {
            BodyState::Task(work) => work.round,
            BodyState::Map(items) => items.round,
        };
        let undo = action == Action::Compensate;
        let of = if undo { Action::Compensate } else { Action::Forward };
        let edition = self.work(place).map_or(0, |work| work.tries(of).edition);
        let path = self.effect_path(place);
        let first = match self.item_key(place) {
            Some(key) => keyed_effect_key(self.id, &path.step, key, action),
            None => effect_key(self.id, &path, action),
        };
        in_round(first, (round, edition))
    }
}

impl TransitionBuilder<'_> {
    /// Puts the keys of the items into the record.
    pub(super) fn keys_of(&mut self, expr: &Expr, elements: &[Payload]) -> Result<Slot, Failure> {
        let memo = Memo::default();
        let mut keys = Vec::with_capacity(elements.len());
        let mut first: HashMap<String, u32> = HashMap::with_capacity(elements.len());
        for (index, element) in (0..).zip(elements) {
            let value = self.value_for(expr, Some((element, index)), Use::Value, &memo)?;
            if value.is_envelope() {
                let what = format!("the key of item {index}");
                return Err(own_failure(VALUE_ENCRYPTED, envelope::refusal(&what)));
            }
            let key = value.to::<String>().ok().filter(|key| is_key(key)).ok_or_else(|| {
                let message = format!(
                    "the key of item {index} must be a text of 1 to {LONGEST} bytes without control characters"
                );
                own_failure("invalid_item_key", message)
            })?;
            match first.entry(key) {
                Entry::Occupied(other) => {
                    let message = format!(
                        "the items {} and {index} have the same key '{}'; nothing was done for any item",
                        other.get(),
                        other.key()
                    );
                    return Err(own_failure("duplicate_item_key", message));
                }
                Entry::Vacant(place) => {
                    keys.push(value);
                    place.insert(index);
                }
            }
        }
        let keys = Payload::of(&keys)
            .map_err(|error| own_failure("invalid_item_key", error.to_string()))?;
        Ok(self.slot(keys))
    }
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.len() <= LONGEST && !text.chars().any(char::is_control)
}

//! The key that a run was started with, and labels that it gets after its start. They mark it and decide nothing about it.

use std::sync::Arc;

use super::Run;
use super::decide::TransitionBuilder;
use crate::event::{By, Event};
use crate::protocol::Labels;
use crate::start::LABEL_LIMIT;
use crate::{Refusal, RefusalCode};

impl Run {
    /// The key that it was started with.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.header.origin.as_ref().and_then(|origin| origin.key.as_deref())
    }

    /// Gives labels and takes others away.
    pub(super) fn relabel(&mut self, set: &Labels, removed: &[Arc<str>]) {
        let Some(origin) = &mut self.header.origin else { return };
        origin.labels.retain(|name, _| !removed.iter().any(|gone| **gone == *name.as_str()));
        origin.labels.extend(set.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
}

impl TransitionBuilder<'_> {
    /// Sets the labels of `set` and removes those of `remove`. Unchanged labels are left alone, and a name that is in
    /// both is set.
    pub(super) fn label(
        &mut self,
        mut set: Labels,
        mut remove: Vec<Arc<str>>,
        by: By,
    ) -> Result<(), Refusal> {
        let labels = self.run.labels();
        remove.retain(|name| labels.contains_key(&**name) && !set.contains_key(&**name));
        remove.sort_unstable();
        remove.dedup();
        set.retain(|name, value| labels.get(name) != Some(value));
        if set.is_empty() && remove.is_empty() {
            return Ok(());
        }
        let new = set.keys().filter(|name| !labels.contains_key(*name)).count();
        let count = labels.len() - remove.len() + new;
        if new > 0 && count > LABEL_LIMIT {
            let message = format!("a run may have {LABEL_LIMIT} labels; it would have {count}");
            return Err(Refusal::new(RefusalCode::TooManyLabels, message));
        }
        self.emit(Event::Labelled { set, removed: remove, by });
        Ok(())
    }
}

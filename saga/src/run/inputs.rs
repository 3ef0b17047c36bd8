//! The documents that steps and items are given: where their bytes are, so that a document that many share is held and
//! kept once.

use serde::{Deserialize, Serialize};

use super::Run;
use super::scope::View;
use super::state::{Activity, BodyState, MapStage, WorkIndex};
use crate::event::Source;
use crate::{Action, Bindings, Payload, Time};

/// A document of the run that a work has as its input, whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Shared {
    /// The run's input.
    RunInput,
    /// The item that it is about.
    Item,
    /// The output of the step at this position.
    Output(u32),
}

impl Activity {
    /// Returns whether its input has been decided.
    pub(super) fn has_input(&self) -> bool {
        self.input.is_some() || self.shared.is_some()
    }
}

impl Run {
    /// Returns the input of the work at `place`; `None` before it was decided.
    pub(super) fn input_at(&self, place: WorkIndex) -> Option<Payload> {
        let work = self.work(place)?;
        work.input.clone().or_else(|| self.shared(work.shared?, place))
    }

    fn shared(&self, shared: Shared, place: WorkIndex) -> Option<Payload> {
        let view = View { run: self, item: self.item_at(place) };
        match shared {
            Shared::RunInput => Some(view.input()),
            Shared::Item => view.item(),
            Shared::Output(step) => self.output_of(step as usize),
        }
    }

    /// Returns the document at a root: `/input`, `/steps/a`, `/item`.
    fn root(&self, pointer: &str) -> Option<Shared> {
        match pointer {
            "/input" => Some(Shared::RunInput),
            "/item" => Some(Shared::Item),
            _ => {
                let step = self.graph.position(pointer.strip_prefix("/steps/")?)?;
                Some(Shared::Output(u32::try_from(step).ok()?))
            }
        }
    }

    pub(super) fn item_at(&self, place: WorkIndex) -> Option<(&Payload, u32)> {
        let index = place.item?;
        Some((self.items_of(place.step)?.list.get(index as usize)?, index))
    }

    /// Returns the elements of the list that a fan-out opens over; `None` when it is no list.
    pub(super) fn elements(
        &self,
        step: usize,
        list: &Source,
        documents: &[Payload],
    ) -> Option<Vec<Payload>> {
        if let Source::Same(pointer) = list
            && let Shared::Output(of) = self.root(pointer)?
            && let Some(items) = self.items_of(of as usize)
        {
            // Its outputs are at hand one by one.
            return Some(items.outputs().cloned().collect());
        }
        self.document(step, list, documents)?.elements()
    }

    /// Returns the document that a step is given.
    pub(super) fn document(
        &self,
        step: usize,
        source: &Source,
        documents: &[Payload],
    ) -> Option<Payload> {
        match source {
            Source::Slot(slot) => documents.get(slot.0 as usize).cloned(),
            Source::Same(pointer) => self.shared(self.root(pointer)?, WorkIndex::step(step)),
        }
    }

    /// Returns the bytes of a list with these elements.
    pub(super) fn bytes_of(elements: &[Payload]) -> u64 {
        elements.iter().map(|element| element.text().len() as u64 + 1).sum()
    }

    pub(super) fn open_map(
        &mut self,
        step: usize,
        list: &Source,
        keys: Option<&Payload>,
        (total, documents): (u32, &[Payload]),
    ) {
        let mut elements = self.elements(step, list, documents).unwrap_or_default();
        elements.resize_with(total as usize, Payload::null);
        self.header.built += Run::bytes_of(&elements);
        let BodyState::Map(items) = &mut self.steps[step].body else { return };
        items.stage = MapStage::Open;
        items.works = items.begin(elements.len());
        items.list = elements;
        items.keys = keys.and_then(|keys| keys.to().ok()).unwrap_or_default();
        items.tally.count_new(total);
        self.tally.count_new(total);
    }

    pub(super) fn offered_now(
        &mut self,
        place: WorkIndex,
        action: Action,
        attempt: u32,
        input: Option<&Source>,
        (at, documents): (Time, &[Payload]),
    ) {
        if let (Some(item), Some(items)) = (place.item, self.items_mut(place.step)) {
            items.next = items.next.max(item + 1);
        }
        let offered = self.offered_hand(at);
        let given = self.header.given_input.take_if(|(of, _)| *of == place.step && input.is_some());
        drop(given);
        let input = input.map(|source| match source {
            Source::Slot(slot) => {
                let own = documents.get(slot.0 as usize).cloned().unwrap_or_else(Payload::null);
                self.header.built += own.text().len() as u64;
                (Some(own), None)
            }
            Source::Same(pointer) => match self.root(pointer) {
                None => (Some(Payload::null()), None),
                shared => (None, shared),
            },
        });
        self.change(place, |work| {
            if let Some(input) = input {
                (work.input, work.shared) = input;
            }
            work.begun(action, at);
            work.tries_mut(action).attempt = attempt;
            super::apply::set_current(work, action, offered);
        });
    }

    /// Gives each work that shares the output of a step a document of its own, before the steps change places.
    pub(super) fn own_outputs(&mut self) {
        let shares = |place: &WorkIndex| {
            self.work(*place).is_some_and(|work| matches!(work.shared, Some(Shared::Output(_))))
        };
        for place in self.places().filter(shares).collect::<Vec<_>>() {
            let own = self.input_at(place);
            self.change(place, |work| (work.input, work.shared) = (own, None));
        }
    }
}

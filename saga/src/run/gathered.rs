//! The gathered outputs of a fan-out: those that its join saw, in the order of the items.

use std::sync::OnceLock;

use super::Run;
use super::state::{Activity, Items, MapStage};
use crate::{Gathered, Payload};

/// The places of the outputs of a fan-out. Made when its join fires, and again after a restore.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outputs {
    measures: Option<Gathered>,
    /// The items that have one; empty when all have.
    items: Vec<u32>,
    /// The list of them, once it was asked for.
    list: OnceLock<Payload>,
}

impl Items {
    pub(super) fn new() -> Items {
        Items {
            stage: MapStage::Waiting,
            list: Vec::new(),
            keys: Vec::new(),
            works: Vec::new(),
            next: 0,
            undo_next: 0,
            before: Vec::new(),
            floor: 0,
            round: 0,
            error: None,
            tally: super::tally::Tally::default(),
            due_without_place: std::collections::VecDeque::new(),
            outputs: Outputs::default(),
        }
    }

    /// Measures the outputs, now that the join has fired.
    pub(super) fn gather(&mut self) {
        let has = |work: &Activity| !work.late && work.output().is_some();
        let all = self.works.iter().all(has);
        let with = (0..).zip(&self.works).filter(|(_, work)| has(work)).map(|(item, _)| item);
        let items = if all { Vec::new() } else { with.collect() };
        self.outputs = Outputs { items, ..Outputs::default() };
        let (count, bytes) = self
            .outputs()
            .fold((0, 0), |(count, bytes), output| (count + 1, bytes + output.text().len() + 1));
        // The brackets, and a comma between two.
        let bytes = if count == 0 { 2 } else { bytes + 1 };
        self.outputs.measures = Some(Gathered { count, bytes });
    }

    /// Returns whether it succeeded, so that it has outputs.
    fn has_outputs(&self) -> bool {
        self.stage == MapStage::Succeeded
    }

    /// Returns the outputs in order.
    pub(super) fn outputs(&self) -> impl Iterator<Item = &Payload> {
        self.works
            .iter()
            .filter(|work| !work.late && self.has_outputs())
            .filter_map(Activity::output)
    }

    /// Returns the measures of the outputs; `None` unless it succeeded.
    pub(super) fn gathered(&self) -> Option<Gathered> {
        self.outputs.measures.filter(|_| self.has_outputs())
    }

    /// Returns one of the outputs.
    pub(super) fn output(&self, index: usize) -> Option<&Payload> {
        let Gathered { count, .. } = self.gathered()?;
        let item = if count == self.works.len() {
            index
        } else {
            *self.outputs.items.get(index)? as usize
        };
        self.works.get(item)?.output()
    }

    /// Returns the outputs as one list.
    fn list_of_outputs(&self) -> Option<Payload> {
        let Gathered { bytes, .. } = self.gathered()?;
        let list = self.outputs.list.get_or_init(|| {
            let mut text = String::with_capacity(bytes);
            text.push('[');
            for output in self.outputs() {
                if text.len() > 1 {
                    text.push(',');
                }
                text.push_str(output.text());
            }
            text.push(']');
            Payload::trusted(text).unwrap_or_else(|_| Payload::null())
        });
        Some(list.clone())
    }
}

impl Run {
    /// Returns the output of a step, of a fan-out the list of its outputs.
    pub(super) fn output_of(&self, step: usize) -> Option<Payload> {
        match self.items_of(step) {
            Some(items) => items.list_of_outputs(),
            None => self.work(super::WorkIndex::step(step))?.output().cloned(),
        }
    }
}

//! What expressions see of a run.

use super::Run;
use super::state::{BodyState, MapStage, Place};
use crate::Scope;
use crate::{Event, Expr, Payload, Source};

use super::decide::{Decider, own_failure};
use crate::protocol::Failure;

/// The largest list that a fan-out's outputs are gathered into, in bytes. Larger ones are read page by page.
const MAX_GATHERED: usize = 1024 * 1024;

/// A run as an expression sees it, perhaps from within a map.
pub(super) struct View<'a> {
    pub(super) run: &'a Run,
    pub(super) item: Option<(&'a Payload, u32)>,
}

impl Scope for View<'_> {
    fn input(&self) -> Payload {
        self.run.facts.origin.as_ref().map_or_else(Payload::null, |origin| origin.input.clone())
    }

    fn step(&self, id: &str) -> Option<Payload> {
        let step = self.run.graph.position(id)?;
        match &self.run.steps[step].body {
            BodyState::Task(work) => work.output().cloned(),
            BodyState::Map(_) => self.run.gathered(step),
        }
    }

    fn step_len(&self, id: &str) -> Option<usize> {
        let items = self.run.items_of(self.run.graph.position(id)?)?;
        (items.stage == MapStage::Succeeded).then(|| outputs(items).count())
    }

    fn item(&self) -> Option<Payload> {
        self.item.map(|(item, _)| item.clone())
    }

    fn index(&self) -> Option<u32> {
        self.item.map(|(_, index)| index)
    }
}

/// The outputs that a fan-out's join saw, in the order of the items.
fn outputs(items: &super::Items) -> impl Iterator<Item = &Payload> {
    items.works.iter().filter(|work| !work.late).filter_map(super::Work::output)
}

impl Run {
    /// The outputs of a fan-out as one list; `None` unless it succeeded and they are not too large for that.
    fn gathered(&self, step: usize) -> Option<Payload> {
        let items = self.items_of(step).filter(|items| items.stage == MapStage::Succeeded)?;
        let mut list = String::from("[");
        for output in outputs(items) {
            if list.len() > 1 {
                list.push(',');
            }
            list.push_str(output.text());
            if list.len() > MAX_GATHERED {
                return None;
            }
        }
        list.push(']');
        Payload::trusted(list).ok()
    }

    /// The document at a root: `/input`, `/steps/a`, `/item`.
    pub(super) fn root(&self, pointer: &str, place: Option<Place>) -> Option<Payload> {
        let item = place.and_then(|place| self.item_at(place));
        let view = View { run: self, item };
        match pointer {
            "/input" => Some(view.input()),
            "/item" => view.item(),
            _ => view.step(pointer.strip_prefix("/steps/")?),
        }
    }

    pub(super) fn item_at(&self, place: Place) -> Option<(&Payload, u32)> {
        let index = place.item?;
        Some((self.items_of(place.step)?.list.get(index as usize)?, index))
    }
}

impl Decider<'_> {
    /// Evaluates `expr` as seen from `place`, and says where its value is to be found from now on.
    pub(super) fn evaluate(&mut self, expr: &Expr, place: Place) -> Result<Source, Failure> {
        let view = View { run: self.run, item: self.run.item_at(place) };
        let value =
            expr.eval(&view).map_err(|error| own_failure("wiring_failed", error.to_string()))?;
        match expr.whole() {
            Some(pointer) => Ok(Source::Same(pointer.to_owned())),
            None => Ok(Source::Slot(self.slot(value))),
        }
    }

    /// Whether the guard of a step lets it through.
    pub(super) fn guard(&self, when: &Expr) -> Result<bool, Failure> {
        when.test(&View { run: self.run, item: None })
            .map_err(|error| own_failure("wiring_failed", error.to_string()))
    }

    /// Ends a run that went forward to its end.
    pub(super) fn conclude_forward(&mut self) {
        let mut output = None;
        if let Some(expr) = self.run.graph.definition.output.clone() {
            match expr.eval(&View { run: self.run, item: None }) {
                Ok(value) => output = Some(self.slot(value)),
                Err(error) => {
                    let error = own_failure("output_failed", error.to_string());
                    self.emit(Event::RunFailed { step: None, error });
                }
            }
        }
        let outcome = self.run.outcome_forward();
        self.end(outcome, output);
    }
}

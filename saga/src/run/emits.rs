//! Events of the log that steps emit: immediately, held until the run can no longer be undone, and retracted by an
//! undo.

use std::sync::Arc;

use super::Run;
use super::decide::{TransitionBuilder, own_failure};
use super::state::{Activity, BodyState, MapStage, Stage, Undo, WorkIndex};
use crate::definition::{Emit, Release, Retraction};
use crate::event::{Emission, Event, Slot};
use crate::protocol::{EventOp, Failure, Outcome};
use crate::{Class, Expr, Payload, StepPath};

/// The longest name of a stream, in bytes.
const LONGEST_STREAM: usize = 256;

/// An occasion on which an event may be released or retracted.
#[derive(Clone, Debug)]
pub(super) enum Occasion {
    /// A step or item succeeded, with this output.
    Succeeded(StepPath, Slot),
    /// A fan-out did.
    Joined,
    /// A step or item was undone.
    Undone(StepPath),
}

impl Occasion {
    pub(super) fn of(event: &Event) -> Option<Occasion> {
        match event {
            Event::Succeeded { step, output, .. } => {
                Some(Occasion::Succeeded(step.clone(), *output))
            }
            Event::Joined { succeeded: true, .. } => Some(Occasion::Joined),
            Event::Undone { step, .. } | Event::UndoMarked { step, .. } => {
                Some(Occasion::Undone(step.clone()))
            }
            _ => None,
        }
    }
}

/// A change that becomes an event of the log.
struct Told<'a> {
    event_type: &'a str,
    retracts: Option<&'a str>,
    entity: Option<&'a str>,
    stream: Option<&'a Expr>,
    op: Option<EventOp>,
    contract: Option<&'a str>,
    data: Option<&'a Expr>,
}

impl<'a> Told<'a> {
    fn of(emit: &'a Emit) -> Told<'a> {
        Told {
            event_type: &emit.event_type,
            retracts: None,
            entity: emit.entity.as_deref(),
            stream: emit.stream.as_ref(),
            op: emit.op,
            contract: emit.contract.as_deref(),
            data: emit.data.as_ref(),
        }
    }

    fn taking_back(emit: &'a Emit, retraction: &'a Retraction) -> Told<'a> {
        Told {
            event_type: &retraction.event_type,
            retracts: Some(&emit.event_type),
            entity: emit.entity.as_deref(),
            stream: emit.stream.as_ref(),
            op: retraction.op,
            contract: None,
            data: retraction.data.as_ref(),
        }
    }
}

impl Run {
    /// Notes that a step or item emitted an event, or took one back.
    pub(super) fn emitted(&mut self, emission: &Emission) {
        let Some(place) = self.place(&emission.path()) else { return };
        self.change(place, |work| {
            let emitted = &mut work.aside_mut().emitted;
            match &emission.retracts {
                Some(one) => emitted.retain(|known| known != one),
                None => emitted.push(Arc::clone(&emission.event_type)),
            }
        });
    }

    /// Returns whether the run has passed a pivot for certain.
    fn is_past_return(&self) -> bool {
        let mut nodes = self.graph.nodes.iter().zip(&self.steps);
        nodes.any(|(node, state)| {
            node.task().class() == Some(Class::Pivot)
                && match &state.body {
                    BodyState::Task(work) => matches!(work.stage, Stage::Succeeded(_)),
                    BodyState::Map(items) => items.stage == MapStage::Succeeded,
                }
        })
    }

    fn has_emitted(&self, place: WorkIndex, event_type: &str) -> bool {
        let aside = self.work(place).and_then(|work| work.aside.as_ref());
        aside.is_some_and(|aside| aside.emitted.iter().any(|known| **known == *event_type))
    }

    /// Returns whether a step was done and nothing undoes it.
    fn stands_done(&self, step: usize) -> bool {
        let done =
            |work: &Activity| matches!(work.stage, Stage::Succeeded(_)) && work.undo == Undo::None;
        self.work(WorkIndex::step(step)).is_some_and(done)
    }
}

impl TransitionBuilder<'_> {
    /// Emits what an event releases or takes back.
    pub(super) fn follow_up(&mut self, occasion: Occasion) {
        match occasion {
            Occasion::Succeeded(path, output) => {
                let Some(place) = self.run.place(&path) else { return };
                if place.item.is_none() {
                    self.release_at_pivot(Some((place.step, output)));
                }
                // The output of an item whose map has ended before it counts for nothing.
                if self.run.work(place).is_some_and(|work| !work.late) {
                    self.release(place, Some(output), |release| release == Release::AtOnce);
                }
            }
            Occasion::Joined => self.release_at_pivot(None),
            Occasion::Undone(path) => {
                if let Some(place) = self.run.place(&path) {
                    self.take_back(place);
                }
            }
        }
    }

    /// Emits what was held until the run succeeds, if it does.
    pub(super) fn release_at_end(&mut self, outcome: Outcome) {
        if !matches!(outcome, Outcome::Succeeded | Outcome::PartiallyCompleted) {
            return;
        }
        for step in self.run.graph.clone().order.iter().copied() {
            if self.run.stands_done(step) {
                self.release(WorkIndex::step(step), None, |_| true);
            }
        }
    }

    /// Emits what was held until the pivot, once the run has passed one. `own` is where the record has the output of a
    /// step.
    fn release_at_pivot(&mut self, own: Option<(usize, Slot)>) {
        if !self.run.graph.emits.1 || !self.run.is_past_return() {
            return;
        }
        for step in self.run.graph.clone().order.iter().copied() {
            if self.run.stands_done(step) {
                let output = own.filter(|(of, _)| *of == step).map(|(_, output)| output);
                let is_held = |release| release == Release::AtPivot;
                self.release(WorkIndex::step(step), output, is_held);
            }
        }
    }

    /// Emits those events of a step or item that are due and were not emitted. `output` is where the record has its
    /// output.
    fn release(&mut self, place: WorkIndex, output: Option<Slot>, due: impl Fn(Release) -> bool) {
        let graph = self.run.graph.clone();
        for emit in &graph.nodes[place.step].emits {
            if due(emit.release) && !self.run.has_emitted(place, &emit.event_type) {
                self.tell(place, &Told::of(emit), output);
            }
        }
    }

    /// Emits the events that take back those of a step or item.
    fn take_back(&mut self, place: WorkIndex) {
        let graph = self.run.graph.clone();
        for emit in &graph.nodes[place.step].emits {
            if let Some(retraction) = &emit.retract
                && self.run.has_emitted(place, &emit.event_type)
            {
                self.tell(place, &Told::taking_back(emit, retraction), None);
            }
        }
    }

    fn tell(&mut self, place: WorkIndex, told: &Told<'_>, output: Option<Slot>) {
        let found = self.stream_of(place, told).and_then(|stream| {
            let data = match (told.data, output) {
                (Some(expr), _) => self.value_of_event(expr, place)?,
                (None, Some(output)) => return Ok((stream, output)),
                (None, None) => {
                    let output = self.run.work(place).and_then(Activity::output);
                    output.cloned().unwrap_or_else(Payload::null)
                }
            };
            Ok((stream, self.slot(data)))
        });
        let (stream, data, error) = match found {
            Ok((stream, data)) => (stream, data, None),
            // The step is done, and its event must be emitted: a failing expression must not undo
            // it.
            Err(error) => (None, self.slot(Payload::null()), Some(error)),
        };
        let emission = Emission {
            step: Arc::clone(&self.run.graph.nodes[place.step].id),
            item: place.item,
            event_type: told.event_type.into(),
            retracts: told.retracts.map(Arc::from),
            op: told.op.filter(|_| stream.is_some()),
            contract: told.contract.map(Arc::from).filter(|_| error.is_none()),
            stream,
            data,
            error: error.map(|error| format!("{}: {}", error.code, error.message)),
        };
        self.emit(Event::Emitted(Box::new(emission)));
    }

    fn stream_of(&mut self, place: WorkIndex, told: &Told<'_>) -> Result<Option<String>, Failure> {
        let Some(expr) = told.stream else { return Ok(None) };
        let wrong = |message: String| Err(own_failure("wiring_failed", message));
        let value = self.value_of_event(expr, place)?;
        let Some(mut stream) = name_in(&value) else {
            return wrong("the stream of an event is a text or a whole number".to_owned());
        };
        if let Some(entity) = told.entity {
            stream.insert(0, ':');
            stream.insert_str(0, entity);
        }
        if !(1..=LONGEST_STREAM).contains(&stream.len()) || stream.chars().any(char::is_control) {
            return wrong(format!(
                "the stream of an event has 1 to {LONGEST_STREAM} bytes and no control characters"
            ));
        }
        Ok(Some(stream))
    }
}

/// Returns the name of a stream that a value is: a text, or the digits of a whole number.
fn name_in(value: &Payload) -> Option<String> {
    let text = value.text().trim();
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(text.to_owned());
    }
    value.to::<String>().ok().filter(|text| !text.is_empty())
}

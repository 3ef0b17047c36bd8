//! Bounds of one decision: the part that does not fit into a record begins with the next one.

use std::sync::Arc;

use super::decide::{TransitionBuilder, own_failure};
use super::state::{BodyState, MapStage};
use super::{Mode, Run};
use crate::Limits;
use crate::event::{Event, Record};
use crate::protocol::{Failure, TaskOutcome};
use crate::{Action, Payload};

/// Approximate size of an event beside its documents, in bytes.
const EVENT_BYTES: usize = 128;
/// An output of so many bytes has room in any run.
const SMALL: usize = 64;
/// The error of work whose output the run has no room for.
pub(super) const OUTPUTS_TOO_LARGE: &str = "outputs_too_large";

/// Fill level of the record that is being decided.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter {
    /// Number of its documents that are counted.
    documents: usize,
    /// Their bytes, and those of the errors that were found.
    bytes: usize,
    /// Amount of text that expressions have processed.
    looked_at: usize,
}

impl Run {
    /// Sets how large the documents inside the run may become, from the next decision on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Returns the total size in bytes of the inputs of its steps and items, and of the lists of
    /// its fan-outs.
    #[must_use]
    pub fn built_bytes(&self) -> u64 {
        self.header.built
    }

    /// Returns the total size in bytes of the outputs of its steps and items.
    #[must_use]
    pub fn output_bytes(&self) -> u64 {
        self.header.outputs
    }

    /// Returns the number of items of all its fan-outs.
    #[must_use]
    pub fn item_count(&self) -> u64 {
        let items = (0..self.steps.len()).filter_map(|step| self.items_of(step));
        items.map(|items| items.list.len() as u64).sum()
    }

    /// Begins a new record, or continues one.
    pub(super) fn begin_record(&mut self, record: &Record) {
        if record.events.is_empty() {
            self.meter = Meter::default();
        }
    }

    /// Remembers the steps that begin, or go on, with the next record, and forgets those that have.
    pub(super) fn note_deferred(&mut self, event: &Event) {
        let step = match event {
            Event::Deferred { step } => {
                self.header.deferred.insert(step.clone());
                return;
            }
            _ if self.header.deferred.is_empty() => return,
            Event::CompensationStarted { .. } | Event::Migrated { .. } | Event::Ended { .. } => {
                return self.header.deferred.clear();
            }
            Event::Offered { step, .. }
            | Event::GaveUp { step, .. }
            | Event::ChildAsked { step, .. }
            | Event::SignalAwaited { step, .. }
            | Event::SleepBegan { step, .. }
            | Event::Succeeded { step, .. } => &step.step,
            Event::Opened { step, .. }
            | Event::Skipped { step, .. }
            | Event::Joined { step, .. } => step,
            _ => return,
        };
        self.header.deferred.remove(step);
    }

    /// Returns the time at which steps begin that did not fit into the last record: immediately.
    pub(super) fn deferred_due(&self) -> Option<crate::Time> {
        let waits = self.header.mode == Mode::Forward && !self.header.deferred.is_empty();
        waits.then_some(self.header.at)
    }
}

impl TransitionBuilder<'_> {
    /// Returns whether another step or item may begin in this record.
    pub(super) fn has_room(&mut self) -> bool {
        let Run { meter, limits, .. } = &mut *self.run;
        let new = self.record.payloads.get(meter.documents..).unwrap_or_default();
        meter.bytes += new.iter().map(|document| document.text().len()).sum::<usize>();
        meter.documents = self.record.payloads.len();
        let bytes = meter.bytes + self.record.events.len() * EVENT_BYTES;
        bytes < limits.record && meter.looked_at < limits.record_looked_at
    }

    /// Counts what an evaluation went through, and the error that it ended in.
    pub(super) fn count_evaluation(&mut self, looked_at: usize, error: Option<&Failure>) {
        let meter = &mut self.run.meter;
        meter.looked_at += looked_at;
        meter.bytes += error.map_or(0, |error| error.message.len());
    }

    /// Lets a step begin, or a fan-out go on, with the next record.
    pub(super) fn defer(&mut self, step: usize) {
        let step = Arc::clone(&self.run.graph.nodes[step].id);
        self.emit(Event::Deferred { step });
    }

    /// Begins what did not fit into the last record.
    pub(super) fn resume_deferred(&mut self) {
        if self.run.header.mode != Mode::Forward {
            return;
        }
        for id in self.run.header.deferred.clone() {
            let Some(step) = self.run.graph.position(&id) else { continue };
            match &self.run.steps[step].body {
                BodyState::Map(items) if items.stage == MapStage::Open => self.fill(step),
                _ => self.ready.push_back(step),
            }
        }
    }

    /// Checks that the run may hold `more` bytes of inputs.
    pub(super) fn may_hold(&self, more: u64) -> Result<(), Failure> {
        let (held, limit) = (self.run.header.built, self.run.limits.run);
        if held.saturating_add(more) <= limit {
            return Ok(());
        }
        let message = format!(
            "the inputs of the steps and items of this run have {held} bytes together, and this one has {more}; {limit} \
             are allowed in all. Pass on references, or split the work into runs of its own"
        );
        Err(own_failure("inputs_too_large", message))
    }

    /// Checks that the run has room for another output.
    pub(super) fn may_keep(&self, output: &Payload) -> Result<(), Failure> {
        let (held, limit, more) =
            (self.run.header.outputs, self.run.limits.outputs, output.text().len());
        if more <= SMALL || held.saturating_add(more as u64) <= limit {
            return Ok(());
        }
        let message = format!(
            "the work was done, but its output cannot be kept: the outputs of this run have {held} bytes together, and this one has \
             {more}; {limit} are allowed in all. Keep large results elsewhere and give references, or split the work into runs of its own"
        );
        Err(own_failure(OUTPUTS_TOO_LARGE, message))
    }

    /// Returns the outcome to record for a report: if the run has no room for the output, the work
    /// is done without one.
    pub(super) fn kept(&self, action: Action, outcome: TaskOutcome) -> TaskOutcome {
        let output = match &outcome {
            TaskOutcome::Succeeded { output, .. } if action != Action::Compensate => output,
            _ => return outcome,
        };
        match self.may_keep(output) {
            Ok(()) => outcome,
            Err(Failure { code, message, .. }) => TaskOutcome::DoneWithoutOutput { code, message },
        }
    }
}

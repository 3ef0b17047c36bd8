//! The part of a journal that remains when a run is erased: ids, steps, instants, codes and outcomes. Documents become
//! `null`, and texts that may contain a part of a document are emptied. The records fold as before.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::event::{Begun, By, Event, Record};
use crate::protocol::{Failure, Labels};
use crate::{Hold, HoldKind, Payload};

/// Erases the records of one run, in their order. Names that may contain values of documents are replaced, the same
/// name by the same word, so that references to them stay valid.
#[derive(Debug, Default)]
pub struct Eraser {
    names: BTreeMap<Arc<str>, Arc<str>>,
}

impl Eraser {
    /// Returns the part of a record that stays.
    pub fn record(&mut self, record: &Record) -> Record {
        Record {
            at: record.at,
            events: record.events.iter().map(|event| self.event(event)).collect(),
            payloads: vec![Payload::null(); record.payloads.len()],
        }
    }

    fn name(&mut self, name: &Arc<str>) -> Arc<str> {
        if name.starts_with("erased-") {
            return Arc::clone(name);
        }
        let next = self.names.len() + 1;
        Arc::clone(
            self.names.entry(Arc::clone(name)).or_insert_with(|| format!("erased-{next}").into()),
        )
    }

    fn hold(&mut self, hold: &Hold) -> Hold {
        let name = match hold.kind {
            HoldKind::WorkflowPaused | HoldKind::ParentPaused | HoldKind::StartDelayed => {
                Arc::clone(&hold.name)
            }
            HoldKind::Paused | HoldKind::KeyBlocked | HoldKind::DependencyUnmet => {
                self.name(&hold.name)
            }
        };
        Hold { kind: hold.kind, name }
    }

    /// Returns the part of an event that remains. Every kind of event is listed here, so that a new one must say what
    /// may be kept of it.
    fn event(&mut self, event: &Event) -> Event {
        let mut kept = event.clone();
        match &mut kept {
            Event::Started(begun) => forget_start(begun),
            Event::Labelled { set, removed, by } => {
                *set = Labels::new();
                removed.clear();
                forget_reason(by);
            }
            Event::Opened { keys, .. } => *keys = None,
            Event::Succeeded { external_id, .. } => *external_id = None,
            Event::Failed { error, .. }
            | Event::Lost { error, .. }
            | Event::RunFailed { error, .. } => forget_failure(error),
            Event::GaveUp { error, .. } => error.iter_mut().for_each(forget_failure),
            Event::RetryRequested { by }
            | Event::SkippedByHand { by, .. }
            | Event::ResolvedByHand { by, .. }
            | Event::UndoMarked { by, .. }
            | Event::RerunRequested { by, .. }
            | Event::Migrated { by, .. }
            | Event::CancelRequested { by }
            | Event::Killed { by } => forget_reason(by),
            Event::SignalAwaited { assignee, .. } => *assignee = None,
            Event::Signalled { by, .. } => forget_sender(by),
            Event::SignalRefused { by, message, .. } => {
                forget_sender(by);
                message.clear();
            }
            Event::ParentHeard { reason, .. } => reason.clear(),
            Event::FactWithdrawn { fact, message, .. } => {
                *fact = self.name(fact);
                message.clear();
            }
            Event::FactRestored { fact, by } => {
                *fact = self.name(fact);
                by.iter_mut().for_each(forget_reason);
            }
            Event::CompensationStarted { by, .. } => by.iter_mut().for_each(forget_reason),
            Event::Held { hold, by, message } => {
                *hold = self.hold(hold);
                by.iter_mut().for_each(forget_reason);
                message.clear();
            }
            Event::Unheld { hold, by } => {
                *hold = self.hold(hold);
                by.iter_mut().for_each(forget_reason);
            }
            Event::IncidentOpened { message, .. } => message.clear(),
            Event::Emitted(emission) => {
                emission.stream = None;
                emission.error = None;
            }
            // Who erased it, and why, is the proof that it was done.
            Event::Erased(_)
            | Event::Skipped { .. }
            | Event::Deferred { .. }
            | Event::Offered { .. }
            | Event::Leased { .. }
            | Event::Released { .. }
            | Event::Beat { .. }
            | Event::RetryScheduled { .. }
            | Event::NotHappened { .. }
            | Event::Happened { .. }
            | Event::Parked { .. }
            | Event::Resumed { .. }
            | Event::InputEdited { .. }
            | Event::SleepBegan { .. }
            | Event::ChildAsked { .. }
            | Event::ChildTold { .. }
            | Event::ChildHeard { .. }
            | Event::WentForward { .. }
            | Event::Joined { .. }
            | Event::UndoRequested { .. }
            | Event::Undone { .. }
            | Event::UndoBlocked { .. }
            | Event::TimedOut
            | Event::IncidentResolved { .. }
            | Event::LateResult { .. }
            | Event::OutputUnchecked { .. }
            | Event::Ended { .. } => {}
        }
        kept
    }
}

fn forget_start(begun: &mut Begun) {
    begun.key = None;
    begun.correlation_id = None;
    begun.causation_id = None;
    begun.labels = Labels::new();
    begun.requires.clear();
}

fn forget_failure(failure: &mut Failure) {
    failure.message.clear();
    failure.details = None;
}

fn forget_reason(by: &mut By) {
    by.reason.clear();
}

/// Removes the sender: signals come from anyone, also from the person that the run concerns.
fn forget_sender(by: &mut By) {
    by.actor = "erased".into();
    by.reason.clear();
}

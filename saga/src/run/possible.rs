//! Checks an event that was read back against the run: existing steps, offered attempts, open and finished work. An
//! event that does not was never written; the journal is damaged.

use super::forward::MAX_ITEMS;
use super::state::{Activity, BodyState, MapStage, Stage, TaskState};
use super::{Mode, Run};
use crate::event::{Event, Source};
use crate::{Action, Payload, StepPath};

/// The attempts that an event may name.
#[derive(Clone, Copy)]
enum Attempts {
    /// One that is on offer, or is to be: that of now or the next.
    Coming,
    /// That of now.
    Now,
    /// An attempt that was offered; 0 for a person or a verification.
    Known,
}

/// The attempt that an event names.
struct Named<'a> {
    step: &'a StepPath,
    action: Action,
    attempt: u32,
    which: Attempts,
}

impl Run {
    /// Returns why an event cannot have happened now; `None` if it can.
    pub(super) fn contradiction(&self, event: &Event, payloads: &[Payload]) -> Option<String> {
        if let Some(path) = step_of(event).filter(|path| self.place(path).is_none())
            && !(is_of_whole_steps(event) && path.item.is_none() && self.is_map(&path.step))
            && !(matches!(event, Event::UndoMarked { .. }) && self.was_dropped(path))
        {
            return Some(format!("it names '{path}', which the workflow does not have"));
        }
        if let Some(unknown) = steps_of(event).iter().find(|id| self.step_now(id).is_none()) {
            return Some(format!("it names '{unknown}', which the workflow does not have"));
        }
        if let Some(why) = attempt_of(event).and_then(|named| self.contradicts_attempts(&named)) {
            return Some(why);
        }
        match event {
            Event::Leased { step, action, .. } => {
                let is_offered = |hand: &TaskState| matches!(hand, TaskState::Offered { .. });
                (!self.has_current(step, *action, is_offered))
                    .then(|| format!("'{step}' is handed out and is not on offer"))
            }
            Event::Released { step, action, .. } => {
                let is_leased = |hand: &TaskState| matches!(hand, TaskState::Leased { .. });
                (!self.has_current(step, *action, is_leased))
                    .then(|| format!("'{step}' is given back and is in nobody's hands"))
            }
            Event::Failed { step, action, .. } | Event::Lost { step, action, .. } => {
                let is_open = |hand: &TaskState| {
                    !matches!(hand, TaskState::Nobody | TaskState::Backoff { .. })
                };
                (!self.has_current(step, *action, is_open))
                    .then(|| format!("an attempt of '{step}' ends that is not under way"))
            }
            Event::Succeeded { step, .. } => {
                let work = self.place(step).and_then(|place| self.work(place));
                work.is_some_and(|work| matches!(work.stage, Stage::Succeeded(_)))
                    .then(|| format!("'{step}' succeeds twice"))
            }
            Event::Skipped { step, .. } => {
                let settled = self.step_now(step).is_some_and(|step| self.is_settled(step));
                settled.then(|| format!("'{step}' is skipped and is over"))
            }
            Event::Ended { outcome, .. } => {
                // A person may settle what was left, and the outcome follows.
                let twice =
                    self.header.mode == Mode::Ended && self.header.outcome == Some(*outcome);
                twice.then(|| "the run ends twice".to_owned())
            }
            Event::Opened { step, items, total, .. } => {
                self.contradicts_list(step, items, *total, payloads)
            }
            Event::Joined { step, .. } => {
                let open = self.graph.position(step).and_then(|step| self.items_of(step));
                let is_open = open.is_some_and(|items| items.stage == MapStage::Open);
                (!is_open).then(|| format!("the fan-out '{step}' is joined and is not open"))
            }
            Event::IncidentOpened { incident, .. } => {
                let next = self.header.incidents_opened.checked_add(1);
                (Some(*incident) != next)
                    .then(|| format!("incident {incident} does not follow the one before"))
            }
            Event::IncidentResolved { incident } => {
                let open = self.header.incidents.iter().any(|open| open.number == *incident);
                (!open).then(|| format!("incident {incident} is resolved and is not open"))
            }
            _ => None,
        }
    }

    /// Returns whether a step or item has a current task of this action in such a state.
    fn has_current(
        &self,
        step: &StepPath,
        action: Action,
        hand: impl Fn(&TaskState) -> bool,
    ) -> bool {
        let work = self.place(step).and_then(|place| self.work(place));
        let current = work.and_then(Activity::current);
        current.is_some_and(|(of, current)| of == action && hand(current))
    }

    fn is_map(&self, id: &str) -> bool {
        let step = self.step_now(id).and_then(|step| self.steps.get(step));
        step.is_some_and(|step| matches!(step.body, BodyState::Map(_)))
    }

    fn contradicts_attempts(&self, named: &Named<'_>) -> Option<String> {
        let Named { step, action, attempt, which } = named;
        let place = self.place(step)?;
        let work = self.work(place)?;
        let now = work.tries(*action).attempt;
        let floor = self.items_of(place.step).map_or(0, |items| items.floor);
        let possible = match which {
            Attempts::Coming => (now.max(1)..=now.max(floor).saturating_add(1)).contains(attempt),
            Attempts::Now => now == *attempt && *attempt > 0,
            Attempts::Known => *attempt <= now.max(floor),
        };
        if !possible {
            return Some(format!(
                "attempt {attempt} of '{step}' ({}) was never offered",
                action.as_str()
            ));
        }
        None
    }

    fn contradicts_list(
        &self,
        step: &str,
        list: &Source,
        total: u32,
        payloads: &[Payload],
    ) -> Option<String> {
        let position = self.graph.position(step)?;
        let Some(items) = self.items_of(position) else {
            return Some(format!("it opens '{step}', which is no fan-out"));
        };
        if items.stage != MapStage::Waiting {
            return Some(format!("the fan-out '{step}' is opened twice"));
        }
        // An erased list is no list any more; only this event has its number of items.
        let elements = self.elements(position, list, payloads).map(|elements| elements.len());
        let counted = elements.is_none_or(|elements| elements == total as usize);
        (!counted || total as usize > MAX_ITEMS)
            .then(|| format!("it opens '{step}' with {total} items, and the list has others"))
    }
}

/// Returns the step or item that must be there for an event to have happened.
fn step_of(event: &Event) -> Option<&StepPath> {
    match event {
        Event::Offered { step, .. }
        | Event::Leased { step, .. }
        | Event::Released { step, .. }
        | Event::Beat { step, .. }
        | Event::Succeeded { step, .. }
        | Event::Failed { step, .. }
        | Event::Lost { step, .. }
        | Event::RetryScheduled { step, .. }
        | Event::NotHappened { step, .. }
        | Event::Happened { step, .. }
        | Event::GaveUp { step, .. }
        | Event::Parked { step, .. }
        | Event::Resumed { step, .. }
        | Event::InputEdited { step, .. }
        | Event::SkippedByHand { step, .. }
        | Event::ResolvedByHand { step, .. }
        | Event::SignalAwaited { step, .. }
        | Event::SleepBegan { step, .. }
        | Event::ChildAsked { step, .. }
        | Event::ChildTold { step, .. }
        | Event::ChildHeard { step, .. }
        | Event::UndoRequested { step, .. }
        | Event::Undone { step, .. }
        | Event::UndoBlocked { step, .. }
        | Event::UndoMarked { step, .. }
        | Event::LateResult { step, .. } => Some(step),
        _ => None,
    }
}

/// Returns whether an event may concern a fan-out as a whole.
fn is_of_whole_steps(event: &Event) -> bool {
    matches!(
        event,
        Event::GaveUp { .. } | Event::SkippedByHand { .. } | Event::ResolvedByHand { .. }
    )
}

/// Returns the steps that must be there for an event to have happened.
fn steps_of(event: &Event) -> &[std::sync::Arc<str>] {
    match event {
        Event::Skipped { step, .. } | Event::Opened { step, .. } | Event::Joined { step, .. } => {
            std::slice::from_ref(step)
        }
        Event::Emitted(emission) => std::slice::from_ref(&emission.step),
        Event::WentForward { steps } | Event::CompensationStarted { steps, .. } => steps,
        _ => &[],
    }
}

fn attempt_of(event: &Event) -> Option<Named<'_>> {
    let (step, action, attempt, which) = match event {
        Event::Offered { step, action, attempt, .. }
        | Event::ChildAsked { step, action, attempt, .. }
        | Event::RetryScheduled { step, action, attempt, .. } => {
            (step, *action, *attempt, Attempts::Coming)
        }
        Event::Leased { step, action, attempt, .. }
        | Event::Released { step, action, attempt }
        | Event::Beat { step, action, attempt, .. } => (step, *action, *attempt, Attempts::Now),
        Event::Failed { step, action, attempt, .. }
        | Event::Lost { step, action, attempt, .. }
        | Event::LateResult { step, action, attempt, .. } => {
            (step, *action, *attempt, Attempts::Known)
        }
        Event::Succeeded { step, attempt, .. } => {
            (step, Action::Forward, *attempt, Attempts::Known)
        }
        Event::NotHappened { step, attempt } | Event::Happened { step, attempt } => {
            (step, Action::Verify, *attempt, Attempts::Known)
        }
        Event::Undone { step, attempt, .. } => {
            (step, Action::Compensate, *attempt, Attempts::Known)
        }
        _ => return None,
    };
    Some(Named { step, action, attempt, which })
}

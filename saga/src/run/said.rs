//! Reports by attempts that no worker holds any more: said again, too late, or said otherwise than the first time. The
//! first report of an attempt counts; none of these changes what a run does.

use serde::{Deserialize, Serialize};

use super::attempt::{INVALID_VERDICT, VERDICT_CONTRADICTED};
use super::decide::{TransitionBuilder, lease_lost};
use super::state::{Activity, Stage, Undo, WorkIndex};
use crate::event::Event;
use crate::protocol::{FailureKind, TaskOutcome, Verdict};
use crate::{Action, Payload, Refusal, RefusalCode, TaskKey};

/// Number of reports of one step or item that are remembered; of earlier ones, only what follows from its
/// state.
const REMEMBERED: usize = 16;
/// The code of a failure that is not remembered.
const FORGOTTEN: &str = "";

/// The report that ended an attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Said {
    action: Action,
    attempt: u32,
    what: What,
    /// A report that contradicts it came and was recorded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    contradicted: bool,
}

/// The part of a report that another report of the same attempt must not contradict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    Succeeded,
    Failed { kind: FailureKind, code: String },
    Happened,
    NotHappened,
}

impl Activity {
    /// Remembers the report that ended an attempt.
    pub(super) fn note_report(&mut self, action: Action, attempt: u32, what: What) {
        let said = &mut self.aside_mut().said;
        if said.len() >= REMEMBERED {
            said.remove(0);
        }
        // Most have one report to remember.
        said.reserve_exact(usize::from(said.is_empty()));
        said.push(Said { action, attempt, what, contradicted: false });
    }

    /// Remembers that a report was contradicted, so that it is recorded once.
    pub(super) fn note_contradiction(&mut self, action: Action, attempt: u32) {
        let this = |said: &&mut Said| (said.action, said.attempt) == (action, attempt);
        match self.aside_mut().said.iter_mut().rev().find(this) {
            Some(said) => said.contradicted = true,
            None => {
                let what = if self.succeeded_last(action, attempt) {
                    What::Succeeded
                } else {
                    let kind = FailureKind::Retryable;
                    What::Failed { kind, code: FORGOTTEN.to_owned() }
                };
                self.note_report(action, attempt, what);
                self.note_contradiction(action, attempt);
            }
        }
    }

    /// Notes that its last attempts succeeded, before it is repeated and the state no longer shows it.
    pub(super) fn note_success(&mut self) {
        let undo = self.tries(Action::Compensate).attempt;
        if self.undo == Undo::Done && self.was_said(Action::Compensate, undo).is_none() {
            self.note_report(Action::Compensate, undo, What::Succeeded);
        }
        let attempt = self.tries.attempt;
        let is_other = self.was_said(Action::Forward, attempt).is_some()
            || self.lost(Action::Forward, attempt).is_some();
        if attempt > 0 && matches!(self.stage, Stage::Succeeded(_)) && !is_other {
            self.note_report(Action::Forward, attempt, What::Succeeded);
        }
    }

    /// Returns whether an attempt whose report is not remembered by itself is the last one and succeeded.
    fn succeeded_last(&self, action: Action, attempt: u32) -> bool {
        match action {
            Action::Forward => {
                attempt == self.tries.attempt && matches!(self.stage, Stage::Succeeded(_))
            }
            Action::Verify | Action::Compensate => true,
        }
    }

    fn was_said(&self, action: Action, attempt: u32) -> Option<&Said> {
        let said = &self.aside.as_ref()?.said;
        said.iter().rev().find(|said| (said.action, said.attempt) == (action, attempt))
    }

    /// Returns, if an attempt was lost or revoked, whether its late report was recorded; `None`
    /// otherwise.
    fn lost(&self, action: Action, attempt: u32) -> Option<bool> {
        let lost = &self.aside.as_ref()?.lost;
        let found = lost.iter().find(|(a, n, _)| (*a, *n) == (action, attempt));
        found.map(|(_, _, recorded)| *recorded)
    }

    /// Returns whether a report agrees with the one that ended its attempt. If that is no longer known, it does.
    fn says_the_same(&self, task: &TaskKey, outcome: &TaskOutcome) -> bool {
        let said = self.was_said(task.action, task.attempt).map(|said| &said.what);
        let stands = |output: &Payload| match &self.stage {
            Stage::Succeeded(first) => first.is_same_as(output),
            _ => true,
        };
        match (said, outcome) {
            (Some(What::Failed { kind, code }), TaskOutcome::Failed(error)) => {
                code == FORGOTTEN || (*kind, code) == (error.kind, &error.code)
            }
            (
                Some(What::Failed { code: first, .. }),
                TaskOutcome::DoneWithoutOutput { code, .. },
            ) => first == FORGOTTEN || first == code,
            // A verification whose answer says neither has failed by what it says, as one that denies what was done;
            // and work that is done by what its output would have made of the run.
            (Some(What::Failed { code, .. }), TaskOutcome::Succeeded { output, .. }) => {
                let by_verdict = task.action == Action::Verify
                    && match output.to::<Verdict>() {
                        Ok(Verdict::NotHappened) => code == VERDICT_CONTRADICTED,
                        Ok(Verdict::Happened(_)) => false,
                        Err(_) => code == INVALID_VERDICT,
                    };
                by_verdict || code == super::bounds::OUTPUTS_TOO_LARGE
            }
            (Some(_), TaskOutcome::Failed(_) | TaskOutcome::DoneWithoutOutput { .. }) => false,
            (Some(What::Succeeded), TaskOutcome::Succeeded { output, external_id }) => {
                let current = task.action == Action::Forward
                    && task.attempt == self.tries.attempt
                    && matches!(self.stage, Stage::Succeeded(_));
                !current || (stands(output) && self.same_id(external_id.as_ref()))
            }
            (Some(What::Happened), TaskOutcome::Succeeded { output, .. }) => {
                match output.to::<Verdict>() {
                    // Once the step was repeated, the output may be that of a later attempt.
                    Ok(Verdict::Happened(output)) => self.round > 0 || stands(&output),
                    _ => false,
                }
            }
            (Some(What::NotHappened), TaskOutcome::Succeeded { output, .. }) => {
                matches!(output.to::<Verdict>(), Ok(Verdict::NotHappened))
            }
            (None, outcome) => self.says_what_stands(task, outcome),
        }
    }

    /// Returns the same for an attempt whose report is not remembered by itself: the output shows that an
    /// attempt succeeded forward, and the state that one undid it.
    fn says_what_stands(&self, task: &TaskKey, outcome: &TaskOutcome) -> bool {
        let last = task.attempt == self.tries(task.action).attempt;
        match (task.action, &self.stage, outcome) {
            (
                Action::Forward,
                Stage::Succeeded(first),
                TaskOutcome::Succeeded { output, external_id },
            ) if last => first.is_same_as(output) && self.same_id(external_id.as_ref()),
            (
                Action::Forward,
                Stage::Succeeded(_),
                TaskOutcome::Failed(_) | TaskOutcome::DoneWithoutOutput { .. },
            ) => !last,
            // Neither lost nor the one that succeeded: it failed, unless that was before the step was repeated.
            (Action::Forward, _, TaskOutcome::Succeeded { .. }) => self.round > 0,
            (Action::Compensate, _, TaskOutcome::Failed(_)) => !(last && self.undo == Undo::Done),
            _ => true,
        }
    }

    /// Returns whether a report names the same external id. A report that names none contradicts
    /// none.
    fn same_id(&self, other: Option<&String>) -> bool {
        let first = self.aside.as_ref().and_then(|aside| aside.external_id.as_ref());
        other.is_none() || first == other
    }

    /// Describes the report that ended an attempt.
    fn said_words(&self, task: &TaskKey) -> String {
        match self.was_said(task.action, task.attempt).map(|said| &said.what) {
            Some(What::Failed { code, .. }) if code == FORGOTTEN => "failed".to_owned(),
            Some(What::Failed { kind, code }) => {
                let kind = serde_json::to_value(kind).unwrap_or_default();
                format!("failed ({}, {code})", kind.as_str().unwrap_or_default())
            }
            Some(What::Happened) => "happened".to_owned(),
            Some(What::NotHappened) => "not happened".to_owned(),
            Some(What::Succeeded) => "succeeded".to_owned(),
            None if self.succeeded_last(task.action, task.attempt) => "succeeded".to_owned(),
            None => "failed".to_owned(),
        }
    }
}

impl TransitionBuilder<'_> {
    /// Answers a report by an attempt that is not leased: a repeat, a contradiction, or too late.
    pub(super) fn report_out_of_turn(
        &mut self,
        place: WorkIndex,
        task: TaskKey,
        outcome: &TaskOutcome,
    ) -> Result<(), Refusal> {
        let refusal = lease_lost(&task);
        let Some(work) = self.work(place) else { return Err(refusal) };
        let last = work.tries(task.action).attempt;
        let floor = self.run.items_of(place.step).map_or(0, |items| items.floor);
        if task.attempt <= floor || task.attempt > last || self.run.is_unclaimed(&task) {
            return Err(refusal);
        }
        let succeeded = matches!(outcome, TaskOutcome::Succeeded { .. });
        match work.lost(task.action, task.attempt) {
            Some(true) => return Err(refusal),
            Some(false) => {
                let blamed = work.is_blamed(task.action, task.attempt);
                let TaskKey { step, action, attempt } = task;
                let contradicts = false;
                self.emit(Event::LateResult { step, action, attempt, succeeded, contradicts });
                if blamed {
                    self.acquitted(place, action);
                }
                return Err(refusal);
            }
            None if work.says_the_same(&task, outcome) => return Ok(()),
            None => {}
        }
        let first = work.said_words(&task);
        let refusal = Refusal::new(
            RefusalCode::AlreadyReported,
            format!(
                "{task} was reported as {first} before, and the first report counts; this one changes nothing"
            ),
        );
        let recorded =
            work.was_said(task.action, task.attempt).is_some_and(|said| said.contradicted);
        if !recorded {
            let TaskKey { step, action, attempt } = task;
            let contradicts = true;
            self.emit(Event::LateResult { step, action, attempt, succeeded, contradicts });
        }
        Err(refusal)
    }
}

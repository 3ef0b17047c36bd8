//! The end of an attempt: reported, lost, late, to be retried, or given up.

use super::decide::{TransitionBuilder, own_failure};
use super::state::{Activity, MapStage, Stage, TaskState, Undo, WorkIndex};
use super::{Mode, retry};
use crate::event::{Event, Fate, IncidentKind};
use crate::protocol::{Failure, FailureKind, TaskOutcome, Verdict};
use crate::{
    Action, Body, Class, Compensate, OnFailure, OnTimeout, OnUnknown, Payload, Refusal, Retry,
    TaskKey, Time,
};

/// The error of a step whose attempt no worker claimed in time.
const START_TIMEOUT: &str = "start_timeout";
/// The error of a step that took too long.
const STEP_TIMEOUT: &str = "step_timeout";
/// The error of a run that took too long, and of a step whose next attempt would come after its end.
const RUN_TIMEOUT: &str = "run_timeout";
/// The error of a verification whose answer says neither.
pub(super) const INVALID_VERDICT: &str = "invalid_verdict";
/// The error of a verification that denies what a worker said it did.
pub(super) const VERDICT_CONTRADICTED: &str = "verdict_contradicted";
/// The error of an attempt whose worker fell silent.
pub(super) const LEASE_EXPIRED: &str = "lease_expired";

impl TransitionBuilder<'_> {
    /// Records the report of a worker about a task.
    pub(super) fn report(&mut self, task: TaskKey, outcome: TaskOutcome) -> Result<(), Refusal> {
        let place = self.place(&task.step)?;
        #[cfg(feature = "planted-bugs")]
        let task = self.without_fence(place, task);
        let outcome = match outcome {
            // The output of an undo is ignored.
            TaskOutcome::DoneWithoutOutput { .. } if task.action == Action::Compensate => {
                TaskOutcome::Succeeded { output: Payload::null(), external_id: None }
            }
            outcome => outcome,
        };
        let leased = self.work(place).is_some_and(|work| work.is_leased(task.action, task.attempt));
        if !leased {
            return self.report_out_of_turn(place, task, &outcome);
        }
        let TaskKey { step, action, attempt } = task;
        match (action, self.kept(action, outcome)) {
            (_, TaskOutcome::Failed(error)) => {
                self.failed(TaskKey { step, action, attempt }, place, &error);
            }
            (_, TaskOutcome::DoneWithoutOutput { code, message }) => {
                let error = own_failure(&code, message);
                self.done_without_output(TaskKey { step, action, attempt }, place, error);
            }
            (Action::Forward, TaskOutcome::Succeeded { output, external_id }) => {
                let output = self.slot(output);
                self.resolve_incidents(&step);
                self.emit(Event::Succeeded { step, attempt, output, external_id });
                self.item_settled(place);
            }
            (Action::Verify, TaskOutcome::Succeeded { output, external_id }) => {
                match output.to::<Verdict>() {
                    Ok(verdict) => self.verified(place, attempt, verdict, external_id),
                    Err(error) => {
                        let error = invalid_verdict(&error.to_string());
                        self.failed(TaskKey { step, action, attempt }, place, &error);
                    }
                }
            }
            (Action::Compensate, TaskOutcome::Succeeded { .. }) => {
                self.emit(Event::Undone { step: step.clone(), attempt, by_hand: false });
                self.resolve_incidents(&step);
            }
        }
        Ok(())
    }

    /// Ends the attempt without success.
    fn failed(&mut self, task: TaskKey, place: WorkIndex, error: &Failure) {
        let TaskKey { step, action, attempt } = task;
        self.emit(Event::Failed { step, action, attempt, error: error.clone(), done: false });
        self.attempt_failed(place, action, error);
    }

    /// Records that a worker did a task whose result cannot be the output. The effect exists and a retry would give
    /// the same: the attempt stays in doubt, unless it has no effect. A verification may still give the output.
    fn done_without_output(&mut self, task: TaskKey, place: WorkIndex, mut error: Failure) {
        let spec = self.run.spec(place.step);
        let read_only = !self.run.has_effects(place.step);
        let asks = !read_only && spec.on_unknown == OnUnknown::Verify;
        error.kind = match task.action {
            Action::Forward if read_only => FailureKind::Permanent,
            Action::Forward => FailureKind::Unknown,
            Action::Verify | Action::Compensate => FailureKind::Retryable,
        };
        if task.action == Action::Verify {
            return self.failed(task, place, &error);
        }
        let TaskKey { step, action, attempt } = task;
        self.emit(Event::Failed { step, action, attempt, error, done: true });
        match asks {
            true => self.offer(place, Action::Verify),
            false => self.give_up(place, None),
        }
        self.place_freed(place);
    }

    /// Returns the task as a planted bug takes it: any attempt for the leased one, or for one that is not leased.
    #[cfg(feature = "planted-bugs")]
    fn without_fence(&mut self, place: WorkIndex, task: TaskKey) -> TaskKey {
        let Some(work) = self.work(place) else { return task };
        let Some((action, hand)) = work.current() else { return task };
        let attempt = work.tries(action).attempt;
        let leased = matches!(hand, TaskState::Leased { .. });
        let offered = matches!(hand, TaskState::Offered { .. });
        let now = TaskKey { attempt, ..task.clone() };
        if action == task.action && leased && crate::planted!("no-fence") {
            return now;
        }
        if action == task.action && offered && crate::planted!("no-lease") {
            let worker = "nobody/00000000-0000-0000-0000-000000000000".into();
            let _ = self.hand_out(now.clone(), worker);
            return now;
        }
        task
    }

    fn verified(
        &mut self,
        place: WorkIndex,
        attempt: u32,
        verdict: Verdict,
        external_id: Option<String>,
    ) {
        let step = self.run.path(place);
        match verdict {
            Verdict::Happened(output) => {
                self.emit(Event::Happened { step: step.clone(), attempt });
                let output = self.slot(output);
                self.resolve_incidents(&step);
                self.emit(Event::Succeeded { step, attempt: 0, output, external_id });
                self.item_settled(place);
            }
            Verdict::NotHappened if self.work(place).is_some_and(Activity::was_done) => {
                let message = "a worker said that it was done, and its verification says that it did not happen";
                let error = own_failure(VERDICT_CONTRADICTED, message.to_owned());
                let action = Action::Verify;
                self.emit(Event::Failed { step, action, attempt, error, done: false });
                self.give_up(place, None);
            }
            Verdict::NotHappened => {
                self.emit(Event::NotHappened { step, attempt });
                let policy = self.run.spec(place.step).retry.clone();
                let error = self.last_error(place);
                self.try_again_or_give_up(place, Action::Forward, &policy, &error);
            }
        }
    }

    /// Decides what comes after an attempt that failed or was lost, as the record says.
    fn attempt_failed(&mut self, place: WorkIndex, action: Action, error: &Failure) {
        let spec = self.run.spec(place.step);
        match action {
            Action::Forward => {
                let (policy, on_unknown) = (spec.retry.clone(), spec.on_unknown);
                match on_unknown {
                    OnUnknown::Verify if error.kind == FailureKind::Unknown => {
                        self.offer(place, Action::Verify);
                    }
                    OnUnknown::Compensate | OnUnknown::Incident
                        if error.kind == FailureKind::Unknown =>
                    {
                        self.give_up(place, None);
                    }
                    _ => self.try_again_or_give_up(place, action, &policy, error),
                }
            }
            Action::Verify => {
                let policy =
                    spec.verify.as_ref().map_or_else(Retry::default, |verify| verify.retry.clone());
                self.try_again_or_give_up(place, action, &policy, error);
            }
            Action::Compensate => self.undo_failed(place, error),
        }
        self.place_freed(place);
    }

    fn try_again_or_give_up(
        &mut self,
        place: WorkIndex,
        action: Action,
        policy: &Retry,
        error: &Failure,
    ) {
        match self.next_retry(place, action, policy, error) {
            None => self.give_up(place, None),
            Some(at) => match self.limit_before(place, at) {
                Some(limit) => self.give_up(place, Some(limit)),
                None => {
                    let bounded = error.kind.counts() && policy.max_attempts.is_some();
                    if !bounded {
                        self.tell_if_put_off(place, action, at, error);
                    }
                    self.try_again(place, action, at);
                }
            },
        }
    }

    /// Tells a person of a work whose next attempt is due at `at`, long after its first, when no number of attempts
    /// ends it.
    fn tell_if_put_off(&mut self, place: WorkIndex, action: Action, at: Time, error: &Failure) {
        let since = self.work(place).map(|work| work.tries(action).since);
        if since.is_none_or(|since| at <= since.after(Compensate::default_slow_after())) {
            return;
        }
        let step = self.run.path(place);
        let what = if action == Action::Verify { "verifying " } else { "" };
        let message =
            format!("{what}{step} is put off until {at}: {}: {}", error.code, error.message);
        self.open_incident_of(IncidentKind::TaskSlow, step, &error.code, message);
    }

    /// Returns the time limit that an attempt at `at` would come too late for, forward: the step's, or the run's when
    /// that ends the run. There is no use in waiting for it.
    fn limit_before(&self, place: WorkIndex, at: Time) -> Option<Failure> {
        let (run, began) = (&self.run, self.work(place)?.tries.since);
        let step = run.spec(place.step).timeouts.step.filter(|limit| at >= began.after(*limit));
        let due = |what: String| format!("the next attempt would be due at {at}, and {what}");
        if let Some(limit) = step {
            let message = due(format!("the step may take no longer than {limit}"));
            return Some(self.limit_passed(place, STEP_TIMEOUT, message));
        }
        let definition = &run.graph.definition;
        let ends = definition.on_timeout == OnTimeout::Compensate && !run.past_pivot();
        let deadline = run.forward_until().filter(|deadline| ends && at >= *deadline)?;
        let message = due(format!("the run must be done by {deadline}"));
        Some(self.limit_passed(place, RUN_TIMEOUT, message))
    }

    /// Returns the failure of a work that a time limit ends, with that of its last attempt beside it.
    fn limit_passed(&self, place: WorkIndex, code: &str, message: String) -> Failure {
        let limit = own_failure(code, message);
        match self.work(place).and_then(Activity::error).filter(|cause| cause.code != code) {
            None => limit,
            Some(cause) => with_cause(limit, cause, "the last attempt"),
        }
    }

    /// Returns the failure of a run that its time limit ends, with that of the last attempt of the first work under way
    /// that has failed.
    pub(super) fn run_limit_passed(&self, message: String) -> Failure {
        let run = &self.run;
        let mut under_way = run.places().filter_map(|place| {
            let work = self.work(place)?;
            let open = matches!(work.stage, Stage::Active(..) | Stage::Parked);
            Some((place, work.error().filter(|_| open)?))
        });
        let limit = own_failure(RUN_TIMEOUT, message);
        match under_way.next() {
            None => limit,
            Some((place, cause)) => {
                let whose = format!("the last attempt of {}", run.path(place));
                with_cause(limit, cause, &whose)
            }
        }
    }

    /// Returns the time of the next attempt by `policy`; `None` if there is none.
    pub(super) fn next_retry(
        &self,
        place: WorkIndex,
        action: Action,
        policy: &Retry,
        error: &Failure,
    ) -> Option<Time> {
        let tries = self.work(place)?.tries(action);
        if error.kind == FailureKind::Permanent || policy.final_errors.contains(&error.code) {
            return None;
        }
        if error.kind.counts() && policy.max_attempts.is_some_and(|max| tries.spent() >= max) {
            return None;
        }
        let chance = retry::chance(self.run.id, &self.run.path(place), action, tries.attempt);
        let delay = retry::delay(policy, tries.spent().max(1), tries.delay, chance);
        let asked = retry::asked(policy, error.retry_after.unwrap_or_default(), chance);
        let at = self.now().after(delay.max(asked));
        match policy.total {
            Some(total) if at > tries.since.after(total) => None,
            _ => Some(at),
        }
    }

    /// Schedules the next attempt of `action` for `at`, or offers it if that is now.
    pub(super) fn try_again(&mut self, place: WorkIndex, action: Action, at: Time) {
        let (step, attempt) = (self.run.path(place), self.next_attempt(place, action));
        self.emit(Event::RetryScheduled { step, action, attempt, at });
        if at <= self.now() {
            self.due_now(place);
        }
    }

    /// Puts the next attempt of `action` on offer.
    pub(super) fn offer(&mut self, place: WorkIndex, action: Action) {
        if !matches!(self.run.graph.nodes[place.step].body, Body::Task(_) | Body::Map(_)) {
            return self.wait_again(place, action);
        }
        let (step, attempt) = (self.run.path(place), self.next_attempt(place, action));
        self.emit(Event::Offered { step, action, attempt, input: None });
    }

    /// Does what the timer of a work was set for, now that it has run out.
    pub(super) fn due_now(&mut self, place: WorkIndex) {
        if self.told_again(place) {
            return;
        }
        let Some((action, hand)) = self.work(place).and_then(|work| work.current()) else { return };
        let (hand, now) = (hand.clone(), self.now());
        if action == Action::Compensate && self.tell_if_slow(place) {
            return;
        }
        let spec = self.run.spec(place.step);
        let began = self.work(place).map_or(now, |work| work.tries.since);
        let limit = spec
            .timeouts
            .step
            .filter(|&limit| action != Action::Compensate && began.after(limit) <= now);
        if let Some(limit) = limit {
            let message = format!("the step took longer than {limit}");
            let error = self.limit_passed(place, STEP_TIMEOUT, message);
            if matches!(hand, TaskState::Leased { .. }) {
                self.lose(place, action, &error);
            }
            self.give_up(place, Some(error));
            self.place_freed(place);
            return;
        }
        match hand {
            TaskState::Nobody | TaskState::Held => {}
            TaskState::Signal { .. } | TaskState::Timer { .. } | TaskState::Child { .. } => {
                self.wait_over(place, &hand);
            }
            TaskState::Offered { .. } => {
                let message = "no worker claimed the task in time".to_owned();
                let error = self.limit_passed(place, START_TIMEOUT, message);
                self.give_up(place, Some(error));
                self.place_freed(place);
            }
            TaskState::Backoff { .. } if self.has_place(place, action) => self.offer(place, action),
            TaskState::Backoff { .. } => self.run.wait_for_place(place),
            TaskState::Leased { since, .. } => {
                let limit = spec.timeouts.attempt;
                let error = if since.after(limit) <= now {
                    unknown_failure(
                        "attempt_timeout",
                        format!("the attempt took longer than {limit}"),
                    )
                } else {
                    unknown_failure(LEASE_EXPIRED, "the worker gave no sign of life".to_owned())
                };
                self.lose(place, action, &error);
                if !self.quarantine(place, action) {
                    self.attempt_failed(place, action, &error);
                }
            }
        }
    }

    fn lose(&mut self, place: WorkIndex, action: Action, error: &Failure) {
        let attempt = self.work(place).map_or(0, |work| work.tries(action).attempt);
        let step = self.run.path(place);
        self.emit(Event::Lost { step, action, attempt, error: error.clone() });
    }

    /// Ends the forward part of a work without success. `error` when no attempt has said why.
    pub(super) fn give_up(&mut self, place: WorkIndex, error: Option<Failure>) {
        let Some(work) = self.work(place) else { return };
        let doubt = work.in_doubt();
        let spec = self.run.spec(place.step);
        let joined =
            self.run.items_of(place.step).is_some_and(|items| items.stage != MapStage::Open);
        let parks = match spec.on_failure {
            OnFailure::Incident => true,
            OnFailure::Compensate => {
                spec.class() == Some(Class::Retriable) || self.run.past_pivot()
            }
            OnFailure::Continue => spec.class() == Some(Class::Pivot) && doubt,
        } || (doubt && spec.on_unknown == OnUnknown::Incident);
        let step = self.run.path(place);
        self.resolve_incidents(&step);
        if parks && !joined && self.run.header.mode == Mode::Forward {
            let why = error.unwrap_or_else(|| self.last_error(place));
            let kind = if doubt { IncidentKind::TaskUnknown } else { IncidentKind::TaskExhausted };
            self.emit(Event::Parked { step: step.clone() });
            let message = format!("{}: {}", why.code, why.message);
            self.open_incident_of(kind, step, &why.code, message);
            return;
        }
        let fate = if doubt { Fate::Unknown } else { Fate::Failed };
        self.emit(Event::GaveUp { step: step.clone(), fate, error });
        if place.item.is_some() {
            self.item_settled(place);
        } else {
            let why = self.last_error(place);
            self.step_failed(place.step, Some(step), why);
        }
    }

    /// Parks a work over which one worker after the other was lost. Returns whether it was.
    fn quarantine(&mut self, place: WorkIndex, action: Action) -> bool {
        let gone = self.work(place).and_then(|work| work.aside.as_ref()).map(|aside| &aside.gone);
        let limit = self.run.spec(place.step).max_losses as usize;
        let Some(gone) = gone.filter(|gone| gone.len() >= limit) else { return false };
        let joined =
            self.run.items_of(place.step).is_some_and(|items| items.stage != MapStage::Open);
        if action != Action::Compensate && (joined || self.run.header.mode != Mode::Forward) {
            return false;
        }
        let step = self.run.path(place);
        let message = format!("workers were lost over it: {}", gone.join(", "));
        self.resolve_incidents(&step);
        match action {
            Action::Compensate => self.emit(Event::UndoBlocked { step: step.clone() }),
            Action::Forward | Action::Verify => self.emit(Event::Parked { step: step.clone() }),
        }
        self.open_incident(IncidentKind::Poison, Some(step), message);
        self.place_freed(place);
        true
    }

    /// Handles a report or heartbeat of a worker whose attempt counted as lost. If the task was called poison for that
    /// and no longer is, it goes on.
    pub(super) fn acquitted(&mut self, place: WorkIndex, action: Action) {
        let limit = self.run.spec(place.step).max_losses as usize;
        let Some(work) = self.work(place) else { return };
        let guilty = work.aside.as_ref().is_some_and(|aside| aside.gone.len() >= limit);
        let stopped = match action {
            Action::Compensate => work.undo == Undo::Blocked,
            Action::Forward | Action::Verify => {
                work.stage == Stage::Parked && self.run.header.mode == Mode::Forward
            }
        };
        let step = self.run.path(place);
        let mut open = self.run.header.incidents.iter();
        let poison = open
            .find(|open| open.kind == IncidentKind::Poison && open.step.as_ref() == Some(&step));
        let Some(incident) = poison.map(|open| open.number).filter(|_| stopped && !guilty) else {
            return;
        };
        let error = self.last_error(place);
        self.emit(Event::IncidentResolved { incident });
        self.attempt_failed(place, action, &error);
    }

    pub(super) fn last_error(&self, place: WorkIndex) -> Failure {
        self.work(place)
            .and_then(|work| work.error().cloned())
            .unwrap_or_else(|| own_failure("failed", "the step failed".to_owned()))
    }
}

/// Returns the failure `limit` with what failed before it.
fn with_cause(limit: Failure, cause: &Failure, whose: &str) -> Failure {
    let Failure { kind, code, message: words, .. } = cause;
    let message = format!("{}; {whose}: {code}: {words}", limit.message);
    let cause = serde_json::json!({
        "last_attempt": { "kind": kind, "code": code, "message": words }
    });
    Failure { message, details: Payload::of(&cause).ok(), ..limit }
}

/// Returns the failure of a verification whose answer says neither.
fn invalid_verdict(error: &str) -> Failure {
    let message =
        format!("a verification answers {{\"happened\": OUTPUT}} or \"not_happened\": {error}");
    Failure { kind: FailureKind::Retryable, ..own_failure(INVALID_VERDICT, message) }
}

/// Returns a failure that leaves open whether the attempt happened.
fn unknown_failure(code: &str, message: String) -> Failure {
    Failure { kind: FailureKind::Unknown, ..own_failure(code, message) }
}

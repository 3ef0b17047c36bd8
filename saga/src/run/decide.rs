//! Decides which events a command causes. Each event is applied as it is decided, so that later decisions
//! build on it.

use std::collections::VecDeque;

use super::emits::Occasion;
use super::erased::of_erased;
use super::hold::delay_hold;
use super::state::{Activity, WorkIndex};
use super::{Mode, Run};
use crate::effect::{Effect, Transition};
use crate::event::{Begun, By, Event, IncidentKind, Record, Slot};
use crate::protocol::{Failure, FailureKind, Outcome};
use crate::{
    Action, Cause, Command, OnTimeout, Payload, Refusal, RefusalCode, Reply, Start, StepPath,
    TaskKey, Time,
};

/// Decides `command` at the instant `at`: applies the events that it causes to `run`, and appends them with their
/// effects to `transition`.
///
/// The instant of the record is set to `at`, or to the run's last instant if that is later. An accepted command may be
/// decided again: it gets the same answer and appends nothing. A refused command may still append an event for
/// information (`late_result`).
///
/// # Errors
/// A [`Refusal`] when the rules do not allow it.
pub fn decide(
    run: &mut Run,
    command: Command,
    at: Time,
    transition: &mut Transition,
) -> Result<Reply, Refusal> {
    let Transition { record, effects } = transition;
    record.at = record.at.max(at).max(run.header.at);
    run.begin_record(record);
    let mut decider = TransitionBuilder { run, record, effects, ready: VecDeque::new() };
    let ticks = matches!(command, Command::Tick);
    let reply = decider.command(command);
    loop {
        decider.advance();
        decider.advance_undo();
        let turned_back = decider.conclude();
        // A step that began just now may have something due as well.
        let was_due = ticks && reply.is_ok() && decider.do_due();
        if decider.ready.is_empty() && !turned_back && !was_due {
            return reply;
        }
    }
}

/// One decision in progress.
pub(super) struct TransitionBuilder<'a> {
    pub(super) run: &'a mut Run,
    pub(super) record: &'a mut Record,
    effects: &'a mut Vec<Effect>,
    /// Steps whose last need was just settled.
    pub(super) ready: VecDeque<usize>,
}

impl TransitionBuilder<'_> {
    /// Adds `event` to the record and applies it.
    pub(super) fn emit(&mut self, event: Event) {
        let settled = self.run.apply_event(&event, self.record.at, &self.record.payloads);
        event.effects(self.run, self.effects);
        let occasion = if self.run.graph.emits() { Occasion::of(&event) } else { None };
        self.record.events.push(event);
        if let Some(step) = settled {
            let feeds = &self.run.graph.nodes[step].feeds;
            self.ready.extend(feeds.iter().filter(|&&fed| self.run.steps[fed].missing == 0));
        }
        if let Some(occasion) = occasion {
            self.follow_up(occasion);
        }
    }

    /// Adds a document to the record.
    pub(super) fn slot(&mut self, payload: Payload) -> Slot {
        let slot = u32::try_from(self.record.payloads.len()).unwrap_or(u32::MAX);
        self.record.payloads.push(payload);
        Slot(slot)
    }

    pub(super) fn now(&self) -> Time {
        self.record.at
    }

    fn command(&mut self, command: Command) -> Result<Reply, Refusal> {
        match command {
            command @ Command::Start(_) if self.run.header.erased.is_some() => {
                return of_erased(&command);
            }
            Command::Start(start) => return self.start(start),
            _ if self.run.header.origin.is_none() => {
                return Err(Refusal::new(RefusalCode::NotStarted, "the run has not been started"));
            }
            command if self.run.header.erased.is_some() => return of_erased(&command),
            Command::HandOut { task, worker } => self.hand_out(self.run.by_now(task), worker)?,
            Command::Report { task, outcome } => self.report(self.run.by_now(task), outcome)?,
            Command::OutputChecked { violation } => self.output_checked(violation),
            Command::Beat { task, details } => self.beat(self.run.by_now(task), details)?,
            Command::GiveBack { task, session, since } => {
                self.give_back(self.run.by_now(task), &session, since)?;
            }
            Command::Listen { since } => self.listen(since),
            Command::Tick => self.tick(),
            Command::Compensate { scope, force, by } => {
                self.compensate_by_hand(&scope, force, by)?;
            }
            Command::CompensateAsPlanned { scope, force, mark, by } => {
                self.compensate_as_planned(&scope, force, mark, by)?;
            }
            Command::UndoForParent { by } => self.undo_for_parent(by),
            Command::Cancel { by } => self.cancel(by)?,
            Command::Kill { by } => self.kill(by)?,
            Command::Retry { step, input, by } => self.retry(step.as_ref(), input, by)?,
            Command::Skip { step, output, by } => self.skip(&step, output, by)?,
            Command::Resolve { step, output, external_id, by } => {
                self.resolve(&step, output, external_id, by)?;
            }
            Command::Rerun { from, input, only_failed, force, by } => {
                self.rerun(&from, input, only_failed, force, by)?;
            }
            Command::Signal { name, data, by, checked } => {
                self.signal(&name, &data, by, checked)?;
            }
            Command::RefuseSignal { name, by, message } => {
                self.refuse_signal(name, by, message, false);
            }
            Command::ChildEnded { step, child, answers, end } => {
                self.child_ended(&step, child, answers, end)?;
            }
            Command::ChildHeard { step, child, order } => self.child_heard(&step, child, order)?,
            Command::FromParent { word, order, by } => self.parent_says(word, order, by)?,
            Command::Hold { hold, by, message } => self.hold(hold, by, message)?,
            Command::Unhold { hold, by } => self.unhold(hold.as_ref(), by.as_ref())?,
            Command::SkipRequirements { by } => self.skip_requirements(&by)?,
            Command::FactWithdrawn { hold, policy, message } => {
                self.fact_withdrawn(hold, policy, message);
            }
            Command::FactRestored { hold } => self.fact_restored(&hold.name, None),
            Command::Overdue { hold, message } => self.overdue(&hold, message),
            Command::MarkUndone { step, by } => self.mark_undone(&step, by)?,
            Command::MarkLeft { by } => self.mark_all_left(&by)?,
            Command::Label { set, remove, by } => self.label(set, remove, by)?,
            Command::Erase { by } => self.erase(by)?,
            Command::Migrate(migration) => self.migrate(migration)?,
        }
        Ok(Reply::Done)
    }

    fn start(&mut self, start: Start) -> Result<Reply, Refusal> {
        if let Some(origin) = &self.run.header.origin {
            let same = origin.input.is_same_as(&start.input);
            return if same && origin.key == start.key {
                Ok(Reply::Done)
            } else {
                Err(Refusal::new(RefusalCode::AlreadyStarted, "a run with this id exists already"))
            };
        }
        let input = self.slot(start.input);
        let definition = &self.run.graph.definition;
        let (workflow, version) = (definition.name.as_str().into(), definition.version);
        let begun = Begun {
            namespace: start.namespace,
            workflow,
            version,
            definition: start.definition,
            key: start.key,
            correlation_id: start.correlation_id,
            causation_id: start.causation_id,
            labels: start.labels,
            input,
            parent: start.parent,
            descent: start.descent,
            start_at: start.start_at,
            requires: start.requires,
            end_by: start.end_by,
        };
        self.emit(Event::Started(Box::new(begun)));
        if let Some(at) = start.start_at.filter(|at| *at > self.now()) {
            let message = format!("it begins at {at}");
            self.emit(Event::Held { hold: delay_hold(at), by: None, message });
        }
        for (hold, message) in start.holds {
            self.emit(Event::Held { hold, by: None, message });
        }
        self.end_in_time();
        self.begin_in_turn();
        Ok(Reply::Done)
    }

    /// Does everything that is due.
    fn tick(&mut self) {
        self.resume_deferred();
        let now = self.now();
        if self.run.delayed_until().is_some_and(|until| until <= now) {
            self.end_delay();
        }
        self.do_due();
        self.check_again();
        if self.run.deadline_due().is_some_and(|deadline| deadline <= now) {
            self.timed_out();
        }
        self.end_in_time();
        self.tell_if_stuck();
    }

    /// Does what is due at places of the run. Returns whether anything was.
    fn do_due(&mut self) -> bool {
        let (now, mut any) = (self.now(), false);
        while let Some(&(_, place)) = self.run.due.first().filter(|(due, _)| *due <= now) {
            self.due_now(place);
            any = true;
        }
        any
    }

    fn timed_out(&mut self) {
        self.emit(Event::TimedOut);
        let limit = self.run.graph.definition.timeout;
        let error = self.run_limit_passed(format!("the run took longer than {limit}"));
        if self.run.graph.definition.on_timeout == OnTimeout::Incident || self.run.past_pivot() {
            self.open_incident(IncidentKind::DeadlineMissed, None, error.message);
            return;
        }
        self.emit(Event::RunFailed { step: None, error });
        self.compensate(Cause::Timeout);
    }

    pub(super) fn cancel(&mut self, by: By) -> Result<(), Refusal> {
        match self.run.header.mode {
            // The rest of the undo joins the undo in progress, and nothing goes forward after it.
            Mode::Backward if self.run.is_undone_in_part() => {}
            Mode::Backward | Mode::Ended if self.run.header.cancelled_by.is_some() => return Ok(()),
            Mode::Ended => return Err(Refusal::new(RefusalCode::RunEnded, "the run has ended")),
            Mode::Backward => {
                return Err(Refusal::new(
                    RefusalCode::AlreadyCompensating,
                    "the run is being undone already",
                ));
            }
            Mode::Forward => {}
        }
        need_reason(&by)?;
        if self.run.past_pivot() {
            return Err(Refusal::new(
                RefusalCode::PastPivot,
                "the run has passed, or may have passed, its point of no return; \
                 compensate it with force, or kill it to leave things as they are",
            ));
        }
        self.emit(Event::CancelRequested { by });
        self.compensate(Cause::Cancel);
        Ok(())
    }

    pub(super) fn kill(&mut self, by: By) -> Result<(), Refusal> {
        if self.run.header.mode == Mode::Ended {
            return if self.run.header.killed_by.as_ref() == Some(&by) {
                Ok(())
            } else {
                Err(Refusal::new(RefusalCode::RunEnded, "the run has ended"))
            };
        }
        need_reason(&by)?;
        let children = self.run.children_at_work();
        self.revoke_all();
        self.emit(Event::Killed { by });
        self.tell_killed(children);
        let outcome =
            if self.run.something_stands() { Outcome::FailedDirty } else { Outcome::Cancelled };
        self.end(outcome, None);
        Ok(())
    }

    /// Ends the run if nothing is left to do. Returns whether it is undone instead, because its output cannot be
    /// made.
    fn conclude(&mut self) -> bool {
        let went_forward = self.run.header.mode == Mode::Forward;
        self.conclude_as_it_goes();
        went_forward && self.run.header.mode == Mode::Backward
    }

    fn conclude_as_it_goes(&mut self) {
        let tally = &self.run.tally;
        match self.run.header.mode {
            _ if self.run.header.origin.is_none() => {}
            Mode::Forward
                if self.run.unsettled == 0 && tally.active() == 0 && tally.undo_open() == 0 =>
            {
                self.conclude_forward();
            }
            Mode::Backward if self.run.steps.iter().all(|step| step.undo_settled) => {
                if let Some(from) = self.run.header.rerun.as_ref().map(|rerun| rerun.from) {
                    return self.went_forward(from);
                }
                let outcome = self.run.outcome_of_undo();
                self.end(outcome, None);
            }
            Mode::Forward | Mode::Backward | Mode::Ended => {}
        }
    }

    /// Ends the run. All incidents are over except those about effects that are left.
    pub(super) fn end(&mut self, outcome: Outcome, output: Option<Slot>) {
        self.resolve_all();
        self.tell_what_is_left(outcome, output.is_some());
        if self.run.graph.emits() {
            self.release_at_end(outcome);
        }
        self.emit(Event::Ended { outcome, output });
    }

    fn resolve_all(&mut self) {
        let open: Vec<u32> =
            self.run.header.incidents.iter().map(|incident| incident.number).collect();
        for incident in open {
            self.emit(Event::IncidentResolved { incident });
        }
    }

    /// Opens an incident that no error of an attempt has caused.
    pub(super) fn open_incident(
        &mut self,
        kind: IncidentKind,
        step: Option<StepPath>,
        message: String,
    ) {
        self.open_incident_with(kind, step, None, message);
    }

    /// Opens an incident about a step that failed with the error `code`.
    pub(super) fn open_incident_of(
        &mut self,
        kind: IncidentKind,
        step: StepPath,
        code: &str,
        message: String,
    ) {
        self.open_incident_with(kind, Some(step), Some(code.to_owned()), message);
    }

    /// Opens an incident, unless the same is open.
    fn open_incident_with(
        &mut self,
        kind: IncidentKind,
        step: Option<StepPath>,
        code: Option<String>,
        message: String,
    ) {
        let known =
            self.run.header.incidents.iter().any(|open| open.kind == kind && open.step == step);
        if !known {
            let incident = self.run.header.incidents_opened + 1;
            self.emit(Event::IncidentOpened { incident, kind, step, code, message });
        }
    }

    pub(super) fn resolve_incidents(&mut self, step: &StepPath) {
        let about = |open: &&super::Incident| open.step.as_ref() == Some(step);
        let open: Vec<u32> =
            self.run.header.incidents.iter().filter(about).map(|open| open.number).collect();
        for incident in open {
            self.emit(Event::IncidentResolved { incident });
        }
    }

    pub(super) fn resolve_kind(&mut self, kind: IncidentKind) {
        let of_kind = |open: &&super::Incident| open.kind == kind;
        let open: Vec<u32> =
            self.run.header.incidents.iter().filter(of_kind).map(|open| open.number).collect();
        for incident in open {
            self.emit(Event::IncidentResolved { incident });
        }
    }

    pub(super) fn place(&self, path: &StepPath) -> Result<WorkIndex, Refusal> {
        self.run.place(path).ok_or_else(|| {
            let message = match self.run.graph.position(&path.step) {
                None => self.run.graph.no_step(&path.step),
                Some(_) => format!("the run has no work at '{path}'"),
            };
            Refusal::new(RefusalCode::UnknownStep, message)
        })
    }

    pub(super) fn work(&self, place: WorkIndex) -> Option<&Activity> {
        self.run.work(place)
    }

    /// Returns the next attempt of `action` at `place`.
    pub(super) fn next_attempt(&self, place: WorkIndex, action: Action) -> u32 {
        let floor = self.run.items_of(place.step).map_or(0, |items| items.floor);
        self.work(place).map_or(0, |work| work.tries(action).attempt).max(floor) + 1
    }
}

/// Returns a failure that the engine itself found.
pub(super) fn own_failure(code: &str, message: String) -> Failure {
    Failure {
        kind: FailureKind::Permanent,
        code: code.to_owned(),
        message,
        details: None,
        retry_after: None,
    }
}

pub(super) fn lease_lost(task: &TaskKey) -> Refusal {
    Refusal::new(
        RefusalCode::LeaseLost,
        format!("{task} is no longer this worker's: it timed out or was revoked"),
    )
}

pub(super) fn need_reason(by: &By) -> Result<(), Refusal> {
    if by.reason.trim().is_empty() {
        return Err(Refusal::new(
            RefusalCode::ReasonMissing,
            "say why: a reason is kept in the history",
        ));
    }
    Ok(())
}

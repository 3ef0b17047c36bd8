//! The instant by which a run is to be over, its undo included. Undoing begins while there is time for it: what was
//! begun is undone in the reverse order of the dependencies, so the longest way through it is the time to reserve.

use super::decide::TransitionBuilder;
use super::state::{BodyState, Stage};
use super::{Mode, Run};
use crate::event::{EndBy, Event, IncidentKind};
use crate::protocol::EndByView;
use crate::{Cause, OnTimeout, Span, Time, Timestamp};

/// Time reserved for undoing a step without a recent undo.
const UNKNOWN_UNDO: Span = Span::secs(60);

fn before(at: Time, span: Span) -> Time {
    Time(at.0.saturating_sub(i64::try_from(span.0).unwrap_or(i64::MAX)))
}

impl Run {
    /// Returns the instant by which it is to be over, as long as that holds: not any more once it has ended or a person
    /// had it go forward again.
    fn end_by(&self) -> Option<&EndBy> {
        self.header.origin.as_ref()?.end_by.as_deref().filter(|_| !self.header.end_over)
    }

    /// Returns the time to reserve for undoing what has begun, and `next` beside it.
    fn reserved(&self, end: &EndBy, next: Option<usize>) -> Span {
        if let Some(budget) = end.budget {
            return budget;
        }
        let (mut after, mut longest) = (vec![0_u64; self.steps.len()], 0);
        for &step in self.graph.order.iter().rev() {
            let own = self.undo_takes(end, step, next == Some(step));
            let whole = after[step].saturating_add(own);
            for &need in &self.graph.nodes[step].needs {
                after[need] = after[need].max(whole);
            }
            longest = longest.max(whole);
        }
        Span(longest)
    }

    /// Returns the milliseconds that undoing a step takes, as far as it has begun or is about to.
    fn undo_takes(&self, end: &EndBy, step: usize, next: bool) -> u64 {
        if self.spec(step).compensate.is_none() {
            return 0;
        }
        let (begun, at_once) = match &self.steps[step].body {
            BodyState::Task(work) => {
                let open = matches!(work.stage, Stage::Active(..) | Stage::Parked);
                (u32::from(open || work.may_stand()), 1)
            }
            BodyState::Map(items) => {
                let tally = &items.tally;
                let begun = tally.active() + tally.succeeded() + tally.unknown;
                (begun, self.graph.nodes[step].map().map_or(1, |map| map.max_concurrency))
            }
        };
        let one = end.undo.get(&self.graph.nodes[step].id).copied().unwrap_or(UNKNOWN_UNDO);
        let rounds = begun.max(u32::from(next)).div_ceil(at_once.max(1));
        one.0.saturating_mul(u64::from(rounds))
    }

    /// Returns whether the run is undone before its deadline. Otherwise a person hears that its
    /// time is over.
    fn is_undone_in_time(&self) -> bool {
        let incident = self.graph.definition.on_timeout == OnTimeout::Incident;
        self.header.mode == Mode::Forward
            && !self.header.timed_out
            && !incident
            && !self.past_pivot()
    }

    /// Returns the time from which it must be undone, or at which a person is informed that it is
    /// not over.
    pub(super) fn end_due(&self) -> Option<Time> {
        let end = self.end_by()?;
        if self.header.mode == Mode::Ended || self.has_told_deadline() {
            return None;
        }
        let reserved = if self.is_undone_in_time() { self.reserved(end, None) } else { Span::ZERO };
        Some(before(end.at, reserved))
    }

    fn has_told_deadline(&self) -> bool {
        self.header.incidents.iter().any(|open| open.kind == IncidentKind::DeadlineMissed)
    }

    /// Returns the latest instant at which it may go forward, as long as it does and that ends it.
    pub(super) fn forward_until(&self) -> Option<Time> {
        if self.end_by().is_none() || !self.is_undone_in_time() {
            return self.deadline_due();
        }
        self.deadline_due().into_iter().chain(self.end_due()).min()
    }

    /// Returns the instant by which it must be done going forward, in the last tenth of the time before it.
    pub(super) fn deadline_near(&self, at: Time) -> Option<Time> {
        if self.header.mode != Mode::Forward {
            return None;
        }
        let until = self.forward_until().unwrap_or_else(|| self.deadline());
        let begins = self.started_at().max(self.start_at().unwrap_or_default());
        let since = self.header.forward_since.unwrap_or(begins);
        (at.since(since).0 > until.since(since).0 / 10 * 9).then_some(until)
    }

    /// Returns the reason why a step that is about to begin, or the steps that have begun, leave
    /// too little time for the undo.
    fn out_of_time(&self, next: Option<usize>, now: Time) -> Option<String> {
        let end = self.end_by().filter(|_| self.is_undone_in_time())?;
        let reserved = self.reserved(end, next);
        (now >= before(end.at, reserved)).then(|| {
            let what =
                next.map_or(String::new(), |step| format!(" with {}", self.graph.nodes[step].id));
            format!(
                "the run is to be over by {}, and {reserved} are reserved for undoing it{what}",
                end.at
            )
        })
    }

    /// Notes that a person was informed of a missed deadline, at `at`.
    pub(super) fn told_deadline(&mut self, at: Time) {
        if self.end_by().is_some_and(|end| end.at <= at) {
            self.header.end_over = true;
        }
    }

    /// Drops the time limit, as the run has ended: what is done to it later is not in its time.
    pub(super) fn end_by_is_over(&mut self) {
        self.header.end_over |= self.end_by().is_some();
    }

    /// Returns the limit for views.
    pub(super) fn end_by_view(&self) -> Option<EndByView> {
        let end = self.header.origin.as_ref()?.end_by.as_deref()?;
        let undone = self.end_by().is_some() && self.is_undone_in_time();
        let reserved = undone.then(|| self.reserved(end, None));
        let undo_at = reserved.map(|reserved| Timestamp(before(end.at, reserved)));
        Some(EndByView { at: Timestamp(end.at), reserved, undo_at })
    }
}

impl TransitionBuilder<'_> {
    /// Undoes the run while there is time for it. Returns whether it did, instead of beginning `next`.
    pub(super) fn undone_in_time(&mut self, next: Option<usize>) -> bool {
        let Some(message) = self.run.out_of_time(next, self.now()) else { return false };
        let error = self.run_limit_passed(message);
        self.emit(Event::TimedOut);
        self.emit(Event::RunFailed { step: None, error });
        self.compensate(Cause::Timeout);
        true
    }

    /// Undoes the run while there is time for it, or informs a person that it is not over.
    pub(super) fn end_in_time(&mut self) {
        let due = self.run.end_due().is_some_and(|due| due <= self.now());
        if !due || self.undone_in_time(None) {
            return;
        }
        let at = self.run.end_by().map_or_else(String::new, |end| end.at.to_string());
        let state = self.run.state().as_str();
        let message = format!("the run was to be over by {at}, and it is {state}");
        self.open_incident(IncidentKind::DeadlineMissed, None, message);
    }
}

//! Tasks that workers hold: handed out, revoked or given back, kept by heartbeats.

use super::decide::{TransitionBuilder, lease_lost};
use super::lease_span;
use super::state::{Activity, TaskState, WorkIndex};
use crate::event::Event;
use crate::{Payload, Refusal, RefusalCode, Span, TaskKey, Time};

impl TransitionBuilder<'_> {
    pub(super) fn hand_out(
        &mut self,
        task: TaskKey,
        worker: std::sync::Arc<str>,
    ) -> Result<(), Refusal> {
        let place = self.place(&task.step)?;
        let held_by_same = self.work(place).is_some_and(|work| {
            work.is_leased(task.action, task.attempt)
                && matches!(work.current(), Some((_, TaskState::Leased { worker: holder, .. })) if *holder == worker)
        });
        if held_by_same {
            return Ok(());
        }
        if !self.run.is_offered(&task) {
            return Err(Refusal::new(RefusalCode::NotOffered, format!("{task} is not on offer")));
        }
        let until = self.now().after(lease_span(self.run.spec(place.step)));
        let TaskKey { step, action, attempt } = task;
        self.emit(Event::Leased { step, action, attempt, worker, until });
        Ok(())
    }

    pub(super) fn beat(&mut self, task: TaskKey, details: Option<Payload>) -> Result<(), Refusal> {
        let place = self.place(&task.step)?;
        let span = lease_span(self.run.spec(place.step));
        let until = self.now().after(span);
        let held = self.work(place).filter(|work| work.is_leased(task.action, task.attempt));
        let Some(TaskState::Leased { until: current, .. }) =
            held.and_then(Activity::current).map(|(_, hand)| hand)
        else {
            return Err(lease_lost(&task));
        };
        let known = held.and_then(|work| work.aside.as_ref()?.details.as_ref());
        // A heartbeat without new details that would hardly move the lease is not worth a record.
        if (details.is_none() || details.as_ref() == known) && until.since(*current).0 < span.0 / 4
        {
            return Ok(());
        }
        let details = details.map(|details| self.slot(details));
        let TaskKey { step, action, attempt } = task;
        self.emit(Event::Beat { step, action, attempt, until, details, unheard: false });
        Ok(())
    }

    /// Puts a task on offer again that `session` has not begun.
    pub(super) fn give_back(
        &mut self,
        task: TaskKey,
        session: &str,
        since: Option<Time>,
    ) -> Result<(), Refusal> {
        let place = self.place(&task.step)?;
        if self.run.is_unclaimed(&task) {
            return Ok(());
        }
        let held = self.work(place).filter(|work| work.is_leased(task.action, task.attempt));
        let Some((_, TaskState::Leased { worker, since: leased, .. })) =
            held.and_then(Activity::current)
        else {
            return Err(lease_lost(&task));
        };
        // Another session holds it, or the same one holds it again by now: this lease is not given
        // back.
        if worker.rsplit('/').next() != Some(session) || since.is_some_and(|at| at != *leased) {
            return Err(lease_lost(&task));
        }
        let TaskKey { step, action, attempt } = task;
        self.emit(Event::Released { step, action, attempt });
        Ok(())
    }

    /// Prolongs the leases whose workers had no time to be heard since servers can hear again: all when that is just
    /// now, otherwise those that are over.
    pub(super) fn listen(&mut self, since: Time) {
        let now = self.now();
        let until = if since >= now { Time(i64::MAX) } else { now };
        let since = since.min(now);
        let due = self.run.due.iter().take_while(|(at, _)| *at <= until);
        let places: Vec<WorkIndex> = due.map(|(_, place)| *place).collect();
        for place in places {
            let span: Span = lease_span(self.run.spec(place.step));
            let heard = since.after(span);
            let Some(work) = self.work(place) else { continue };
            let Some((action, TaskState::Leased { until, .. })) = work.current() else { continue };
            if heard <= *until {
                continue;
            }
            let (step, attempt) = (self.run.path(place), work.tries(action).attempt);
            let (until, details) = (heard, None);
            self.emit(Event::Beat { step, action, attempt, until, details, unheard: true });
        }
    }
}

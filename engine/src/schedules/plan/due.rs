//! Instants that have come, and the times at which starts put off by jitter are due. An instant is taken up when it has
//! come and then waits for its own start, so that none waits for another, and a change of the schedule loses none.

use backstitch_saga::protocol::{ScheduleSpec, ScheduleStart, StartOrigin, StartOutcome};
use backstitch_saga::{Span, Time, Timestamp};

use super::{MOST_OPEN, POLL, Plan, State, Told};
use crate::schedules::instants::Calendar;

/// The most instants that one turn passes over as missed.
const MOST_MISSED: usize = 10_000;
/// Largest number of starts that are put off at the same time.
const MOST_PUT_OFF: usize = 200;
/// Largest number of instants that are examined to count those that jitter puts off at the same
/// time.
const LOOKED_AT: usize = 5_000;

impl State {
    /// Takes up the instants that have come. Returns when to go on, where there are too many for one turn.
    pub(super) fn take_up(
        &mut self,
        plan: &Plan<'_>,
        now: Time,
        told: &mut Vec<Told>,
    ) -> Option<Time> {
        let mut missed = Vec::new();
        let mut put_off = self.put_off().count();
        let mut open = self.open();
        let mut again = None;
        while let Some(instant) = plan.calendar.next(self.considered).filter(|at| *at <= now) {
            let starts_at = plan.starts_at(instant);
            let later = starts_at > now;
            if missed.len() == MOST_MISSED {
                again = Some(now);
                break;
            }
            if later && put_off >= MOST_PUT_OFF || open >= MOST_OPEN {
                // Those that are going leave room.
                again = Some(now.after(POLL));
                break;
            }
            let catch_up = self.catch_up(instant, plan.spec.catch_up);
            let early = self.is_started_early(instant);
            self.considered = instant;
            if early {
                continue;
            }
            if now.since(starts_at) > catch_up {
                if !self.is_told_missed(instant) {
                    missed.push(instant);
                }
                continue;
            }
            let overlap = plan.spec.overlap;
            self.add(plan.key(instant), StartOrigin::Cron, instant, overlap, now, None);
            let one = self.waiting.last_mut();
            one.into_iter().for_each(|one| one.starts_at = Some(starts_at));
            if later { put_off += 1 } else { open += 1 }
        }
        self.tell_missed(&missed, now, told);
        again
    }

    /// Returns the time of the next start, of those that are put off and of those whose instants have
    /// not come.
    pub(super) fn look_again(&self, plan: &Plan<'_>) -> Option<Time> {
        let mut first = self.put_off().map(|(_, starts_at)| starts_at).min();
        for instant in self.instants(plan.calendar, self.considered).take(MOST_PUT_OFF) {
            // None that comes later starts earlier.
            if first.is_some_and(|first| first <= instant) {
                break;
            }
            let starts_at = plan.starts_at(instant);
            first = Some(first.map_or(starts_at, |first| first.min(starts_at)));
        }
        first
    }

    /// Returns the time at which a schedule in this state must be looked at again.
    pub(crate) fn next_look(&self, plan: &Plan<'_>, now: Time) -> Option<Time> {
        let calendar = if self.paused.is_none() { self.look_again(plan) } else { None };
        let waits = self.waiting.iter().any(|one| one.going || one.is_open() && !self.is_held(one));
        let soon = (waits || !self.backfills.is_empty()).then_some(now);
        calendar.into_iter().chain(soon).min()
    }

    /// Moves starts that were put off and have become due to the waiting ones; those too late by
    /// `catch_up` are missed.
    pub(super) fn ripen(&mut self, catch_up: Span, now: Time, told: &mut Vec<Told>) {
        let mut missed: Vec<Time> = Vec::new();
        self.waiting.retain_mut(|one| {
            let Some(starts_at) = one.starts_at.filter(|at| *at <= now) else { return true };
            one.starts_at = None;
            let late = now.since(starts_at) > catch_up;
            if late {
                missed.push(one.instant);
            }
            !late
        });
        missed.retain(|instant| !self.is_told_missed(*instant));
        missed.iter().for_each(|instant| self.tell_missed(&[*instant], now, told));
    }

    /// Leaves out what became due while the schedule was paused since `since`.
    pub(super) fn leave_out_paused(&mut self, since: Time, now: Time, told: &mut Vec<Told>) {
        let counts = &mut self.counts;
        self.waiting.retain(|one| {
            let paused = one.starts_at.is_some_and(|at| at > since && at <= now);
            if paused {
                counts.skipped += 1;
                told.push(one.left_out(now, "the schedule was paused when it was due"));
            }
            !paused
        });
    }

    /// Passes over the instants up to now that could not be taken up, as they are too many.
    pub(super) fn pass_over(&mut self, plan: &Plan<'_>, now: Time, told: &mut Vec<Told>) {
        let come = plan.calendar.instants(self.considered).take_while(|at| *at <= now);
        let passed: Vec<Time> = come.take(MOST_MISSED).collect();
        self.tell_missed(&passed, now, told);
    }

    /// Counts instants as missed, and records them in one line.
    fn tell_missed(&mut self, missed: &[Time], now: Time, told: &mut Vec<Told>) {
        let (Some(first), Some(last)) = (missed.first(), missed.last()) else { return };
        let count = u32::try_from(missed.len()).unwrap_or(u32::MAX);
        self.counts.missed += u64::from(count);
        told.push(Told {
            key: None,
            start: ScheduleStart {
                at: now.into(),
                origin: StartOrigin::Cron,
                scheduled_for: (*first).into(),
                outcome: StartOutcome::Missed,
                run: None,
                count,
                until: Some(Timestamp(*last)).filter(|_| count > 1),
                code: None,
                message: None,
                actor: None,
            },
        });
    }
}

/// Returns the largest number of starts that the jitter of a schedule puts off at the same time, counted up
/// to `limit` + 1.
pub(crate) fn most_put_off(
    spec: &ScheduleSpec,
    calendar: &Calendar,
    now: Time,
    limit: usize,
) -> usize {
    let mut window = std::collections::VecDeque::new();
    let mut most = 0;
    for instant in calendar.instants(now).take(LOOKED_AT) {
        window.push_back(instant);
        while window.front().is_some_and(|first| instant.since(*first) >= spec.jitter) {
            window.pop_front();
        }
        most = most.max(window.len());
        if most > limit {
            break;
        }
    }
    most
}

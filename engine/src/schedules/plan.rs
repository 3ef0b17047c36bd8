//! What a schedule does at a moment: which instants it takes up, which starts go, wait, or are left out. Pure: the time, and
//! whether the last run has ended, are arguments. What it decides is durable before any of it is carried out.

use backstitch_saga::protocol::{
    Overlap, Paused, RunningBackfill, ScheduleCounts, ScheduleSpec, ScheduleStart, StartOrigin,
    StartOutcome, WaitingStart,
};
use backstitch_saga::{By, RunId, Span, Time, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::instants::Calendar;

/// How soon a start that waits for a run to end is looked at again.
pub(super) const POLL: Span = Span::secs(1);
/// The most instants that one turn passes over as missed.
const MOST_MISSED: usize = 10_000;
/// The most starts that are open at once. More than may wait in a queue, so that those that go leave room.
const MOST_OPEN: usize = 200;

/// A schedule with its pattern read.
pub(crate) struct Plan<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) spec: &'a ScheduleSpec,
    pub(crate) calendar: &'a Calendar,
}

/// Everything that changes about a schedule but its spec.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    created_at: Time,
    /// All instants of the calendar up to this one have been taken up.
    considered: Time,
    paused: Option<Paused>,
    last_run: Option<RunId>,
    waiting: Vec<Waiting>,
    backfills: Vec<Backfill>,
    counts: ScheduleCounts,
}

/// A start that has not been made yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Waiting {
    /// The key of its run.
    pub(crate) key: String,
    pub(crate) origin: StartOrigin,
    pub(crate) instant: Time,
    overlap: Overlap,
    since: Time,
    actor: Option<String>,
    /// It was decided that it is made.
    pub(crate) going: bool,
    /// The run that was cancelled for it.
    cancelled: Option<RunId>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Backfill {
    done_until: Time,
    to: Time,
    overlap: Overlap,
    actor: String,
}

/// A line for the history, with the key of its start.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) key: Option<String>,
    pub(crate) start: ScheduleStart,
}

/// What a turn came to.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    pub(crate) told: Vec<Told>,
    /// The run to be cancelled for a start that replaces it.
    pub(crate) cancel: Option<RunId>,
    /// When to look again.
    pub(crate) due: Option<Time>,
}

impl Plan<'_> {
    /// When the start for `instant` is made: put off by a share of the jitter that is a hash of schedule and instant.
    pub(crate) fn starts_at(&self, instant: Time) -> Time {
        let text = format!("{}\0{}\0{}", self.namespace, self.name, instant.0);
        let digest = Sha256::digest(text);
        let hash = digest.iter().take(8).fold(0_u64, |hash, byte| hash << 8 | u64::from(*byte));
        instant.after(Span::millis(hash % self.spec.jitter.0.saturating_add(1)))
    }

    fn key(&self, instant: Time) -> String {
        format!("schedule/{}/{instant}", self.name)
    }
}

impl State {
    /// A schedule made now: instants count from now on.
    pub(crate) fn new(now: Time) -> State {
        State {
            created_at: now,
            considered: now,
            paused: None,
            last_run: None,
            waiting: Vec::new(),
            backfills: Vec::new(),
            counts: ScheduleCounts::default(),
        }
    }

    /// Takes up what is due at `now` and decides what waits. `active`: the last run has not ended.
    pub(crate) fn turn(&mut self, plan: &Plan<'_>, now: Time, active: bool) -> Turn {
        let mut turn = Turn::default();
        turn.due = self.take_up(plan, now, &mut turn.told);
        self.supersede(now, &mut turn.told);
        let busy = self.decide(plan, now, active, &mut turn);
        let blocked = self.take_up_backfills(plan, now, busy);
        let waits = self.waiting.iter().any(|one| !one.going && !self.is_held(one));
        let again = (waits || blocked).then(|| now.after(POLL));
        let going = self.going().next().map(|_| now);
        turn.due = [turn.due, again, going].into_iter().flatten().min();
        turn
    }

    /// Takes up the instants whose time has come. Answers when the next one comes.
    fn take_up(&mut self, plan: &Plan<'_>, now: Time, told: &mut Vec<Told>) -> Option<Time> {
        if self.paused.is_some() {
            return None;
        }
        let mut missed = Vec::new();
        let due = loop {
            let Some(instant) = plan.calendar.next(self.considered) else { break None };
            let starts_at = plan.starts_at(instant);
            if starts_at > now {
                break Some(starts_at);
            }
            if missed.len() == MOST_MISSED || self.waiting.len() >= MOST_OPEN {
                break Some(now);
            }
            self.considered = instant;
            if now.since(starts_at) > plan.spec.catch_up {
                missed.push(instant);
            } else {
                let origin = StartOrigin::Cron;
                self.add(plan.key(instant), origin, instant, plan.spec.overlap, now, None);
            }
        };
        if let (Some(first), Some(last)) = (missed.first(), missed.last()) {
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
        due
    }

    fn add(
        &mut self,
        key: String,
        origin: StartOrigin,
        instant: Time,
        overlap: Overlap,
        since: Time,
        actor: Option<String>,
    ) {
        let going = false;
        let one = Waiting { key, origin, instant, overlap, since, actor, going, cancelled: None };
        self.waiting.push(one);
    }

    /// Of several starts that replace the last run only the newest is made.
    fn supersede(&mut self, now: Time, told: &mut Vec<Told>) {
        let replaces = |one: &Waiting| one.overlap == Overlap::Replace && !one.going;
        let Some(newest) = self.waiting.iter().rposition(replaces) else { return };
        let mut place = 0;
        let counts = &mut self.counts;
        self.waiting.retain(|one| {
            place += 1;
            let stays = !replaces(one) || place > newest;
            if !stays {
                counts.skipped += 1;
                told.push(one.left_out(now, "a newer start takes its place"));
            }
            stays
        });
    }

    /// Whether a start is held back because the schedule is paused. What a person asked for is not.
    fn is_held(&self, one: &Waiting) -> bool {
        self.paused.is_some() && one.origin == StartOrigin::Cron
    }

    /// Lets starts go, wait or fall away, in order. Answers whether a run of this schedule is in the way of the next.
    fn decide(&mut self, plan: &Plan<'_>, now: Time, active: bool, turn: &mut Turn) -> bool {
        let mut busy = active || self.going().next().is_some();
        let mut queued = 0;
        for mut one in std::mem::take(&mut self.waiting) {
            let (waits, full) =
                (!one.going && !self.is_held(&one), queued >= plan.spec.queue_limit);
            if waits && (!busy || one.overlap == Overlap::Allow) {
                (one.going, busy) = (true, true);
            } else if waits && one.overlap == Overlap::Skip
                || waits && one.overlap == Overlap::Queue && full
            {
                let why = match one.overlap {
                    Overlap::Queue => "as many starts wait as may wait",
                    _ => "the last run has not ended",
                };
                self.counts.skipped += 1;
                turn.told.push(one.left_out(now, why));
                continue;
            } else if waits && one.overlap == Overlap::Queue {
                queued += 1;
            } else if waits && one.overlap == Overlap::Replace {
                turn.cancel = self.last_run.filter(|run| active && one.cancelled != Some(*run));
            }
            self.waiting.push(one);
        }
        busy
    }

    /// Lets the next instants of backfills go. Answers whether any has to wait.
    fn take_up_backfills(&mut self, plan: &Plan<'_>, now: Time, mut busy: bool) -> bool {
        let mut blocked = false;
        for mut backfill in std::mem::take(&mut self.backfills) {
            let mut next = plan.calendar.next(backfill.done_until);
            while let Some(instant) = next.filter(|instant| *instant <= backfill.to) {
                if self.waiting.len() >= MOST_OPEN || busy && backfill.overlap != Overlap::Allow {
                    blocked = true;
                    self.backfills.push(backfill);
                    break;
                }
                backfill.done_until = instant;
                let (origin, actor) = (StartOrigin::Backfill, Some(backfill.actor.clone()));
                self.add(plan.key(instant), origin, instant, backfill.overlap, now, actor);
                if let Some(one) = self.waiting.last_mut() {
                    one.going = true;
                }
                busy = true;
                next = plan.calendar.next(instant);
            }
        }
        blocked
    }

    /// The starts that are to be made.
    pub(crate) fn going(&self) -> impl Iterator<Item = &Waiting> {
        self.waiting.iter().filter(|one| one.going)
    }

    /// A start has come to an end: there is a run, or it was refused with a code and a message.
    pub(crate) fn settle(
        &mut self,
        key: &str,
        result: Result<RunId, (String, String)>,
        now: Time,
    ) -> Option<Told> {
        let place = self.waiting.iter().position(|one| one.key == key)?;
        let one = self.waiting.remove(place);
        let told = match result {
            Ok(run) => {
                self.counts.started += 1;
                // Ids rise with time: an instant that was started long before is not the last run again.
                self.last_run = self.last_run.max(Some(run));
                one.told(now, StartOutcome::Started, Some(run), None, None)
            }
            Err((code, message)) => {
                self.counts.refused += 1;
                one.told(now, StartOutcome::Refused, None, Some(code), Some(message))
            }
        };
        Some(told)
    }

    /// The run was cancelled, or cannot be: starts that replace it now wait for its end.
    pub(crate) fn cancelled(&mut self, run: RunId) {
        let replacing = |one: &&mut Waiting| one.overlap == Overlap::Replace && !one.going;
        self.waiting.iter_mut().filter(replacing).for_each(|one| one.cancelled = Some(run));
    }

    /// Its spec was replaced. Another pattern counts from now on; the same one goes on where it was.
    pub(crate) fn respecify(&mut self, old: &ScheduleSpec, new: &ScheduleSpec, now: Time) {
        if (&old.cron, &old.time_zone) != (&new.cron, &new.time_zone) {
            self.considered = self.considered.max(now);
        }
    }

    /// Nothing starts by the calendar from now on.
    pub(crate) fn pause(&mut self, by: &By, now: Time) {
        self.paused.get_or_insert_with(|| Paused {
            since: Timestamp(now),
            actor: by.actor.to_string(),
            reason: by.reason.clone(),
        });
    }

    /// Instants count again from now on; those of the pause are passed over.
    pub(crate) fn resume(&mut self, now: Time) {
        if self.paused.take().is_some() {
            self.considered = self.considered.max(now);
        }
    }

    /// A start now, with the key `key`. One that waits already is not doubled: answers whether it is new.
    pub(crate) fn trigger(&mut self, key: &str, overlap: Overlap, actor: &str, now: Time) -> bool {
        let new = self.waiting.iter().all(|one| one.key != key);
        if new {
            let actor = Some(actor.to_owned());
            self.add(key.to_owned(), StartOrigin::Trigger, now, overlap, now, actor);
        }
        new
    }

    /// Starts for the instants from `from` to `to`.
    pub(crate) fn backfill(&mut self, from: Time, to: Time, overlap: Overlap, actor: &str) {
        let (done_until, actor) = (Time(from.0.saturating_sub(1)), actor.to_owned());
        self.backfills.push(Backfill { done_until, to, overlap, actor });
    }

    pub(crate) fn created_at(&self) -> Time {
        self.created_at
    }

    /// All instants of the calendar up to this one have been taken up.
    pub(crate) fn considered(&self) -> Time {
        self.considered
    }

    pub(crate) fn paused(&self) -> Option<&Paused> {
        self.paused.as_ref()
    }

    pub(crate) fn last_run(&self) -> Option<RunId> {
        self.last_run
    }

    pub(crate) fn counts(&self) -> ScheduleCounts {
        self.counts
    }

    pub(crate) fn open_backfills(&self) -> usize {
        self.backfills.len()
    }

    /// What waits, as it is shown.
    pub(crate) fn waiting(&self) -> Vec<WaitingStart> {
        let shown = self.waiting.iter().map(|one| WaitingStart {
            origin: one.origin,
            scheduled_for: one.instant.into(),
            overlap: one.overlap,
            since: one.since.into(),
        });
        shown.collect()
    }

    /// What is being backfilled, as it is shown.
    pub(crate) fn backfills(&self) -> Vec<RunningBackfill> {
        let shown = self.backfills.iter().map(|one| RunningBackfill {
            done_until: one.done_until.into(),
            to: one.to.into(),
            overlap: one.overlap,
        });
        shown.collect()
    }
}

impl Waiting {
    fn left_out(&self, now: Time, why: &str) -> Told {
        self.told(now, StartOutcome::Skipped, None, None, Some(why.to_owned()))
    }

    fn told(
        &self,
        now: Time,
        outcome: StartOutcome,
        run: Option<RunId>,
        code: Option<String>,
        message: Option<String>,
    ) -> Told {
        Told {
            key: Some(self.key.clone()),
            start: ScheduleStart {
                at: now.into(),
                origin: self.origin,
                scheduled_for: self.instant.into(),
                outcome,
                run,
                count: 1,
                until: None,
                code,
                message,
                actor: self.actor.clone(),
            },
        }
    }
}

#[cfg(test)]
mod tests;

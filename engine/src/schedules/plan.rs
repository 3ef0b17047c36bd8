//! Decisions of a schedule at a moment: the instants that come due, and the starts that go, wait, or are skipped. Pure:
//! the time, and whether the last run has ended, are arguments. What it decides is durable before any of it is carried
//! out.

use std::collections::BTreeMap;

use backstitch_saga::protocol::{
    Overlap, Paused, RunningBackfill, ScheduleCounts, ScheduleSpec, ScheduleStart, StartOrigin,
    StartOutcome, WaitingStart,
};
use backstitch_saga::{By, RunId, Span, Time, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::instants::{Calendar, When};
use crate::StartedRun;
use crate::store::schedules::ScheduleRow;

mod due;
mod set_back;
mod waiting;

pub(crate) use due::most_put_off;
pub(crate) use set_back::{Known, SetBack};

/// Interval at which a start that waits for a run to end is checked.
pub(super) const POLL: Span = Span::secs(1);
/// Largest number of open starts, beside those that jitter puts off. More than may wait in a queue, so that starts in
/// progress leave room.
pub(crate) const MOST_OPEN: usize = 200;

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
    /// The specs under which starts in progress were decided, if the schedule was replaced since.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    replaced: BTreeMap<u32, ScheduleSpec>,
    /// The clock was corrected, and instants come again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    set_back: Option<SetBack>,
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
    /// Jitter puts it off until then; none once that has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    starts_at: Option<Time>,
    /// The version that it starts, where the schedule names none: the newest when it was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    /// Number of the replaced spec that it follows; the one in force without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replaced: Option<u32>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Backfill {
    done_until: Time,
    to: Time,
    overlap: Overlap,
    actor: String,
    /// The calendar of the schedule when the backfill was requested, if it was changed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    when: Option<When>,
}

/// A line for the history, with the key of its start.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) key: Option<String>,
    pub(crate) start: ScheduleStart,
}

/// Result of a turn.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    pub(crate) told: Vec<Told>,
    /// The run to be cancelled for a start that replaces it.
    pub(crate) cancel: Option<RunId>,
    /// Time of the next look.
    pub(crate) due: Option<Time>,
}

impl<'a> Plan<'a> {
    /// Returns the plan of a schedule whose pattern was read.
    pub(crate) fn of(row: &'a ScheduleRow, calendar: &'a Calendar) -> Plan<'a> {
        Plan { namespace: &row.namespace, name: &row.name, spec: &row.spec, calendar }
    }

    /// Returns the time of the start for `instant`: put off by a share of the jitter that is a hash of schedule and
    /// instant.
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
    /// Returns a schedule made now: instants count from now on.
    pub(crate) fn new(now: Time) -> State {
        State {
            created_at: now,
            considered: now,
            paused: None,
            last_run: None,
            waiting: Vec::new(),
            backfills: Vec::new(),
            counts: ScheduleCounts::default(),
            replaced: BTreeMap::new(),
            set_back: None,
        }
    }

    /// Takes up what is due at `now` and decides what waits. `active`: the last run has not ended.
    pub(crate) fn turn(&mut self, plan: &Plan<'_>, now: Time, active: bool) -> Turn {
        let mut turn = Turn::default();
        if self.paused.is_none() {
            let more = self.take_up(plan, now, &mut turn.told);
            self.ripen(plan.spec.catch_up, now, &mut turn.told);
            self.forget_set_back();
            turn.due = more.or_else(|| self.look_again(plan));
        }
        self.supersede(now, &mut turn.told);
        let busy = self.decide(plan, now, active, &mut turn);
        let blocked = self.take_up_backfills(plan, now, busy);
        let waits = self.waiting.iter().any(|one| one.is_open() && !self.is_held(one));
        let again = (waits || blocked).then(|| now.after(POLL));
        let going = self.going().next().map(|_| now);
        turn.due = [turn.due, again, going].into_iter().flatten().min();
        turn
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
        self.waiting.push(Waiting {
            key,
            origin,
            instant,
            overlap,
            since,
            actor,
            going: false,
            cancelled: None,
            starts_at: None,
            version: None,
            replaced: None,
        });
    }

    /// Drops all but the newest of several starts that replace the last run.
    fn supersede(&mut self, now: Time, told: &mut Vec<Told>) {
        let replaces = |one: &Waiting| one.overlap == Overlap::Replace && one.is_open();
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

    /// Returns whether a start is held back because the schedule is paused. What a person asked for
    /// is not.
    fn is_held(&self, one: &Waiting) -> bool {
        self.paused.is_some() && one.origin == StartOrigin::Cron
    }

    /// Lets starts go, wait or fall away, in order. Returns whether a run of this schedule is in the way of the next.
    fn decide(&mut self, plan: &Plan<'_>, now: Time, active: bool, turn: &mut Turn) -> bool {
        let mut busy = active || self.going().next().is_some();
        let mut queued = 0;
        for mut one in std::mem::take(&mut self.waiting) {
            let (waits, full) =
                (one.is_open() && !self.is_held(&one), queued >= plan.spec.queue_limit);
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

    /// Lets the next instants of backfills go. Returns whether any has to wait.
    fn take_up_backfills(&mut self, plan: &Plan<'_>, now: Time, mut busy: bool) -> bool {
        let mut blocked = false;
        for mut backfill in std::mem::take(&mut self.backfills) {
            // A stored form can be read again.
            let own = backfill.when.as_ref().and_then(|when| Calendar::read(when).ok());
            let calendar = own.as_ref().unwrap_or(plan.calendar);
            let mut next = calendar.next(backfill.done_until);
            while let Some(instant) = next.filter(|instant| *instant <= backfill.to) {
                if self.open() >= MOST_OPEN || busy && backfill.overlap != Overlap::Allow {
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
                next = calendar.next(instant);
            }
        }
        blocked
    }

    /// Returns the starts that are to be made.
    pub(crate) fn going(&self) -> impl Iterator<Item = &Waiting> {
        self.waiting.iter().filter(|one| one.going)
    }

    /// Returns the number of open starts, except those that are put off.
    fn open(&self) -> usize {
        self.waiting.iter().filter(|one| one.starts_at.is_none()).count()
    }

    /// Returns what a start that is going goes by: the spec under which it was decided.
    pub(crate) fn spec_of<'a>(&'a self, one: &Waiting, spec: &'a ScheduleSpec) -> &'a ScheduleSpec {
        one.replaced.and_then(|number| self.replaced.get(&number)).unwrap_or(spec)
    }

    /// Fixes the version of starts that are going and have none: whatever is registered later, they go by `version`.
    pub(crate) fn fix_version(&mut self, version: u32) {
        let open =
            |one: &&mut Waiting| one.going && one.version.is_none() && one.replaced.is_none();
        self.waiting.iter_mut().filter(open).for_each(|one| one.version = Some(version));
    }

    /// Returns whether a start is going whose version is not fixed.
    pub(crate) fn needs_version(&self) -> bool {
        self.going().any(|one| one.version.is_none() && one.replaced.is_none())
    }

    /// Notes that a start has come to an end: there is a run, made for it or not, or it was refused with a code and
    /// a message.
    pub(crate) fn settle(
        &mut self,
        key: &str,
        result: Result<StartedRun, (String, String)>,
        now: Time,
    ) -> Option<Told> {
        let place = self.waiting.iter().position(|one| one.key == key)?;
        let one = self.waiting.remove(place);
        let waiting = &self.waiting;
        self.replaced.retain(|number, _| waiting.iter().any(|one| one.replaced == Some(*number)));
        let told = match result {
            Ok(StartedRun { id: run, created: false }) if one.had_its_run(run) => {
                self.counts.skipped += 1;
                let why = "the instant has its run already".to_owned();
                one.told(now, StartOutcome::Skipped, Some(run), None, Some(why))
            }
            Ok(StartedRun { id: run, .. }) => {
                self.counts.started += 1;
                // Ids rise with time: an instant that was started long before is not the last run again. One that was
                // started by a clock that was ahead is not for longer than that.
                let last = self.last_run.filter(|last| State::is_past(last.began_at(), now));
                self.last_run = last.max(Some(run));
                one.told(now, StartOutcome::Started, Some(run), None, None)
            }
            Err((code, message)) => {
                self.counts.refused += 1;
                one.told(now, StartOutcome::Refused, None, Some(code), Some(message))
            }
        };
        Some(told)
    }

    /// Notes that the run was cancelled, or cannot be: starts that replace it now wait for its end.
    pub(crate) fn cancelled(&mut self, run: RunId) {
        let replacing = |one: &&mut Waiting| one.overlap == Overlap::Replace && one.is_open();
        self.waiting.iter_mut().filter(replacing).for_each(|one| one.cancelled = Some(run));
    }

    /// Replaces its spec. Starts that are going keep the one that they were decided under, and so do the instants that
    /// have come and those of a backfill; another pattern counts from now on. `old` is none when its pattern cannot be
    /// read any more.
    pub(crate) fn respecify(
        &mut self,
        (old, before): (&ScheduleSpec, Option<&Plan<'_>>),
        new: &ScheduleSpec,
        now: Time,
    ) -> Vec<Told> {
        let mut told = Vec::new();
        if let Some(plan) = before.filter(|_| self.paused.is_none()) {
            self.take_up(plan, now, &mut told);
        }
        let number = self.replaced.keys().last().map_or(0, |last| last + 1);
        let mut keeps = false;
        for one in self.waiting.iter_mut().filter(|one| one.going && one.replaced.is_none()) {
            (one.replaced, keeps) = (Some(number), true);
        }
        if keeps {
            self.replaced.insert(number, old.clone());
        }
        let when = When::from(old);
        if when != When::from(new) {
            if let Some(plan) = before.filter(|_| self.paused.is_none()) {
                self.pass_over(plan, now, &mut told);
            }
            self.considered = self.considered.max(now);
            self.set_back = None;
            let open = self.backfills.iter_mut().filter(|one| one.when.is_none());
            open.for_each(|one| one.when = Some(when.clone()));
        }
        told
    }

    /// Stops starts by the calendar from now on. Instants that have come stay, to be processed when it is resumed.
    pub(crate) fn pause(&mut self, plan: Option<&Plan<'_>>, by: &By, now: Time) -> Vec<Told> {
        let mut told = Vec::new();
        if self.paused.is_some() {
            return told;
        }
        if let Some(plan) = plan {
            self.take_up(plan, now, &mut told);
        }
        self.paused = Some(Paused {
            since: Timestamp(now),
            actor: by.actor.to_string(),
            reason: by.reason.clone(),
        });
        told
    }

    /// Counts instants again from now on; those of the pause are passed over.
    pub(crate) fn resume(&mut self, catch_up: Span, now: Time) -> Vec<Told> {
        let mut told = Vec::new();
        if let Some(paused) = self.paused.take() {
            self.considered = self.considered.max(now);
            self.leave_out_paused(paused.since.0, now, &mut told);
            self.ripen(catch_up, now, &mut told);
        }
        told
    }

    /// Deletes the schedule: what waits is not started.
    pub(crate) fn delete(&mut self, now: Time) -> Vec<Told> {
        let waiting = std::mem::take(&mut self.waiting);
        waiting.iter().map(|one| one.left_out(now, "the schedule was deleted")).collect()
    }

    /// Adds a start now, with the key `key`. One that waits already is not doubled. Returns whether it is
    /// new.
    pub(crate) fn trigger(&mut self, key: &str, overlap: Overlap, actor: &str, now: Time) -> bool {
        let new = self.waiting.iter().all(|one| one.key != key);
        if new {
            let actor = Some(actor.to_owned());
            self.add(key.to_owned(), StartOrigin::Trigger, now, overlap, now, actor);
        }
        new
    }

    /// Adds starts for the instants from `from` to `to`.
    pub(crate) fn backfill(&mut self, from: Time, to: Time, overlap: Overlap, actor: &str) {
        let (done_until, actor) = (Time(from.0.saturating_sub(1)), actor.to_owned());
        self.backfills.push(Backfill { done_until, to, overlap, actor, when: None });
    }

    pub(crate) fn created_at(&self) -> Time {
        self.created_at
    }

    /// Returns all instants of the calendar up to this one have been taken up.
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

    /// Returns the instants whose starts are put off, and until when.
    pub(crate) fn put_off(&self) -> impl Iterator<Item = (Time, Time)> {
        self.waiting.iter().filter_map(|one| Some((one.instant, one.starts_at?)))
    }

    /// Returns the waiting starts, for views, without those that jitter puts off.
    pub(crate) fn waiting(&self) -> Vec<WaitingStart> {
        let come = self.waiting.iter().filter(|one| one.starts_at.is_none());
        let shown = come.map(|one| WaitingStart {
            origin: one.origin,
            scheduled_for: one.instant.into(),
            overlap: one.overlap,
            since: one.since.into(),
        });
        shown.collect()
    }

    /// Returns the backfills in progress, for views.
    pub(crate) fn backfills(&self) -> Vec<RunningBackfill> {
        let shown = self.backfills.iter().map(|one| RunningBackfill {
            done_until: one.done_until.into(),
            to: one.to.into(),
            overlap: one.overlap,
        });
        shown.collect()
    }
}

#[cfg(test)]
mod tests;

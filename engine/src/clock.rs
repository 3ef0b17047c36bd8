//! The one door to time and chance: the database's clock as this node knows it, and the ids of new runs.
//!
//! One answer of the database is not believed when it contradicts what this node measured since the last one: a clock
//! that is set wrong for a moment must not end leases and wake runs. The node keeps its own time until the answers have
//! agreed with each other for a while, and steps then.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use backstitch_saga::{RunId, Span, Time};
use uuid::{ContextV7, Uuid};

pub(crate) use crate::store::moment::AHEAD;

/// Milliseconds by which the two clocks may drift apart between two settings.
const DRIFT: i64 = 1;
/// An answer that is further off than this is doubted, in milliseconds.
const TOLERANCE: i64 = 1_000;
/// A step ahead that is longer than this makes ages doubtful, in milliseconds.
const LONG: i64 = 60_000;
/// Time for which nothing is deleted for its age after such a step.
const AGE_DOUBTED_FOR: Duration = Duration::from_secs(86_400);
/// Milliseconds by which the id of a run may be ahead of its start without a search.
const LEAD: i64 = 60_000;
/// A slower answer says too little, in milliseconds.
const SLOW: u128 = 200;

/// The database's clock: a monotonic clock of this process and a measured offset. It goes backwards only by a step.
#[derive(Debug)]
pub(crate) struct Clock {
    origin: Instant,
    /// Time of the database's clock at `origin`, in milliseconds.
    offset: AtomicI64,
    /// The same by the newest answer, believed or not.
    shown: AtomicI64,
    last: AtomicI64,
    /// Largest number of milliseconds by which the id of a run was ahead of its start.
    lead: AtomicI64,
    /// Time for which responses that contradict the clock must agree with each other to be trusted.
    doubt_for: Duration,
    belief: Mutex<Belief>,
    /// Counts the runs of one millisecond.
    runs: Mutex<ContextV7>,
}

#[derive(Debug, Default)]
struct Belief {
    doubt: Option<Doubt>,
    /// The last step ahead.
    step: Option<Step>,
    /// The last step, ahead or back: milliseconds, and time.
    last: Option<(i64, Instant)>,
    /// Time of the last step ahead that was longer than [`LONG`].
    leapt_at: Option<Instant>,
}

/// Answers that contradict the clock.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    since: Instant,
    offset: i64,
    ahead: i64,
}

/// The clock of another node at its last heartbeat.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Elsewhere {
    pub(crate) believed: Time,
    /// Time since then by the database's clock, in milliseconds.
    pub(crate) silent: i64,
    pub(crate) stopped: bool,
}

/// Returns what a node that starts takes for now, where it does not believe what the database shows: when that is ahead
/// of what a node that lives believes, or, when none lives, of the machine's clock, and nothing says that the machine's
/// is behind. A clock that is behind makes late, one that is ahead makes early what must never be early.
pub(crate) fn unlike_shown(
    shown: Time,
    machine: Time,
    elsewhere: &[Elsewhere],
    dead_after: i64,
) -> Option<Time> {
    let lives = |one: &&Elsewhere| !one.stopped && one.silent.abs() < dead_after;
    if let Some(peer) = elsewhere.iter().filter(lives).min_by_key(|one| one.silent.abs()) {
        let theirs = Time(peer.believed.0.saturating_add(peer.silent));
        return (shown.0.saturating_sub(theirs.0) > TOLERANCE).then_some(theirs);
    }
    let last = elsewhere.iter().map(|one| one.believed).max()?;
    let is_ahead = shown.0.saturating_sub(machine.0) > LONG;
    (is_ahead && machine.0 >= last.0.saturating_sub(TOLERANCE)).then_some(machine)
}

/// Returns the machine's clock.
pub(crate) fn of_machine() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Time(i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX))
}

/// A step of the clock ahead: no time passed between the two instants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) from: Time,
    pub(crate) to: Time,
}

/// Effect of a response of the database on the clock. Numbers are milliseconds that the database is
/// ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Set {
    /// It agrees. `doubted`: the ones before did not.
    Agreed { doubted: bool },
    /// It contradicts the clock, which goes on as before. `first`: the previous one did not.
    Doubted { ahead: i64, first: bool },
    /// It and those before it are believed.
    Stepped { ahead: i64 },
}

impl Clock {
    /// Returns a clock that is to be set before it is read.
    pub(crate) fn new(doubt_for: Duration) -> Clock {
        Clock {
            origin: Instant::now(),
            offset: AtomicI64::new(0),
            shown: AtomicI64::new(0),
            last: AtomicI64::new(0),
            lead: AtomicI64::new(LEAD),
            doubt_for,
            belief: Mutex::new(Belief::default()),
            runs: Mutex::new(ContextV7::new()),
        }
    }

    /// Begins with an instant that the database has not shown: what it shows is doubted until it has lasted.
    pub(crate) fn begin_with(&self, now: Time) {
        self.offset.store(now.0 - self.elapsed(Instant::now()), Ordering::Relaxed);
    }

    /// Notes that a run with this id began at `started`: the id may have been made by a clock that was ahead.
    pub(crate) fn note_start(&self, run: RunId, started: Time) {
        let lead = run.began_at().0.saturating_sub(started.0);
        if lead > LEAD {
            self.lead.fetch_max(lead, Ordering::Relaxed);
        }
    }

    /// Returns the largest time by which ids of runs are ahead of their starts, as far as this node
    /// has seen.
    pub(crate) fn lead(&self) -> Span {
        Span::millis(self.lead.load(Ordering::Relaxed).unsigned_abs())
    }

    fn belief(&self) -> std::sync::MutexGuard<'_, Belief> {
        self.belief.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn elapsed(&self, at: Instant) -> i64 {
        let millis = at.saturating_duration_since(self.origin).as_millis();
        i64::try_from(millis).unwrap_or(i64::MAX)
    }

    /// Sets the clock: the database answered `shown` to a question asked at `asked` and answered just now. Taken as
    /// given just now, the answer makes a clock that is never ahead, but behind by as long as the answer took to come.
    /// So the latest setting stays while it may be true: a clock that is now more behind and now less makes short what
    /// lies between. A slow answer says little and changes nothing once the clock is set.
    pub(crate) fn set(&self, shown: Time, asked: Instant) -> Set {
        self.set_at(shown, asked, Instant::now())
    }

    fn set_at(&self, shown: Time, asked: Instant, now: Instant) -> Set {
        let trip = now.saturating_duration_since(asked);
        let before = self.offset.load(Ordering::Relaxed);
        let mut belief = self.belief();
        if before != 0 && trip.as_millis() > SLOW {
            return Set::Agreed { doubted: false };
        }
        #[cfg(feature = "planted-bugs")]
        let shown = crate::planted::shown(shown);
        let (least, most) = (shown.0 - self.elapsed(now), shown.0 - self.elapsed(asked));
        self.shown.store(least, Ordering::Relaxed);
        // The two clocks may go apart by a little between two answers.
        let kept = before - DRIFT;
        let agreed = if (least..=most).contains(&kept) { kept } else { least };
        let ahead = if kept < least { least - kept } else { (most - kept).min(0) };
        if before == 0 || ahead.abs() <= TOLERANCE {
            self.offset.store(agreed, Ordering::Relaxed);
            return Set::Agreed { doubted: belief.doubt.take().is_some() };
        }
        let doubt = belief.doubt.filter(|doubt| (doubt.offset - least).abs() <= TOLERANCE);
        let since = doubt.map_or(now, |doubt| doubt.since);
        if now.saturating_duration_since(since) < self.doubt_for {
            belief.doubt = Some(Doubt { since, offset: least, ahead });
            return Set::Doubted { ahead, first: doubt.is_none() };
        }
        self.step(&mut belief, least, now);
        Set::Stepped { ahead }
    }

    /// Believes another offset from now on.
    fn step(&self, belief: &mut Belief, offset: i64, now: Instant) {
        let from = self.now_at(now);
        self.offset.store(offset, Ordering::Relaxed);
        let to = Time(self.elapsed(now) + offset);
        belief.doubt = None;
        belief.step = (from < to).then_some(Step { from, to });
        belief.last = Some((to.0 - from.0, now));
        if to.0 - from.0 > LONG {
            belief.leapt_at = Some(now);
        }
        if to < from {
            self.last.store(to.0, Ordering::Relaxed);
            *self.runs.lock().unwrap_or_else(PoisonError::into_inner) = ContextV7::new();
        }
    }

    /// Returns the milliseconds by which the database contradicts this clock, and since when.
    pub(crate) fn doubt(&self) -> Option<(i64, Duration)> {
        self.belief().doubt.map(|doubt| (doubt.ahead, doubt.since.elapsed()))
    }

    /// Returns the last step ahead.
    pub(crate) fn stepped(&self) -> Option<Step> {
        self.belief().step
    }

    /// Returns the milliseconds of the last step, and the time since.
    pub(crate) fn last_step(&self) -> Option<(i64, Duration)> {
        self.belief().last.map(|(ahead, at)| (ahead, at.elapsed()))
    }

    /// Returns whether the clock was stepped ahead recently, so that rows may seem older than they are: nothing is
    /// deleted for its age.
    pub(crate) fn leapt_lately(&self) -> bool {
        self.belief().leapt_at.is_some_and(|at| at.elapsed() < AGE_DOUBTED_FOR)
    }

    /// Returns the time now, by the database's clock.
    pub(crate) fn now(&self) -> Time {
        self.now_at(Instant::now())
    }

    fn now_at(&self, instant: Instant) -> Time {
        let now = self.elapsed(instant) + self.offset.load(Ordering::Relaxed);
        Time(self.last.fetch_max(now, Ordering::Relaxed).max(now))
    }

    /// Returns the time that the database itself shows at the instant `at`, trusted or not: for columns
    /// that it fills in.
    pub(crate) fn as_shown(&self, at: Time) -> Time {
        let apart = self.shown.load(Ordering::Relaxed) - self.offset.load(Ordering::Relaxed);
        Time(at.0.saturating_add(apart))
    }

    /// Returns the instant on this process's own clock at which the database's clock shows `at`.
    pub(crate) fn instant(&self, at: Time) -> Instant {
        let millis = at.0 - self.offset.load(Ordering::Relaxed);
        let millis = u64::try_from(millis).unwrap_or_default().min(1_000 * 86_400 * 365);
        self.origin + std::time::Duration::from_millis(millis)
    }

    /// Returns the id of a run that starts now. The ids of one node only rise, also within a millisecond: lists show
    /// runs in the order of their starts, and indexes grow at their ends.
    pub(crate) fn new_run(&self) -> RunId {
        let millis = u64::try_from(self.now().0).unwrap_or_default();
        let nanos = u32::try_from(millis % 1_000).unwrap_or_default() * 1_000_000;
        let at = uuid::Timestamp::from_unix(&self.runs, millis / 1_000, nanos);
        RunId(Uuid::new_v7(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOUBT: Duration = Duration::from_secs(60);
    const HOUR: i64 = 3_600_000;
    const START: i64 = 1_767_700_000_123;

    /// A clock, and the time that passes for it.
    struct Stage {
        clock: Clock,
        now: Instant,
    }

    impl Stage {
        fn new() -> Stage {
            let clock = Clock::new(DOUBT);
            let mut stage = Stage { now: clock.origin, clock };
            assert_eq!(stage.answer(START), Set::Agreed { doubted: false });
            stage
        }

        fn pass(&mut self, millis: u64) {
            self.now += Duration::from_millis(millis);
        }

        /// Sets the clock as if the database had answered immediately.
        fn answer(&mut self, shown: i64) -> Set {
            self.clock.set_at(Time(shown), self.now, self.now)
        }

        fn now(&self) -> i64 {
            self.clock.now_at(self.now).0
        }
    }

    #[test]
    fn a_clock_that_is_off_by_little_is_followed_and_does_not_go_back() {
        let mut stage = Stage::new();
        stage.pass(10_000);
        stage.answer(START + 10_000 - 900);
        assert_eq!(stage.now(), START + 10_000 - 900);
        stage.answer(START + 10_000 - 1_500);
        assert_eq!(stage.now(), START + 10_000 - 900);
        stage.answer(START + 10_000 - 600);
        assert_eq!(stage.now(), START + 10_000 - 600);
    }

    #[test]
    fn a_clock_that_jumps_for_a_moment_is_not_followed() {
        for jump in [HOUR, -HOUR, 1_500, -1_500] {
            let mut stage = Stage::new();
            for (second, first) in [(1, true), (2, false), (50, false)] {
                stage.pass(second * 1_000);
                let right = stage.now();
                let Set::Doubted { ahead, first: said } = stage.answer(right + jump) else {
                    panic!("{jump} was believed")
                };
                assert!((ahead - jump).abs() <= DRIFT && said == first, "{ahead} {said}");
            }
            assert_eq!(stage.now(), START + 53_000);
            assert!(stage.clock.doubt().is_some());
            let shown = stage.clock.as_shown(Time(stage.now())).0;
            assert!((shown - stage.now() - jump).abs() <= DRIFT);
            let right = stage.now();
            assert_eq!(stage.answer(right), Set::Agreed { doubted: true });
            assert!(stage.clock.doubt().is_none() && stage.clock.stepped().is_none());
        }
    }

    #[test]
    fn answers_that_contradict_the_clock_and_each_other_are_not_followed() {
        let mut stage = Stage::new();
        for round in 1..4 {
            stage.pass(60_000);
            let wild = stage.now() + round * HOUR;
            assert!(matches!(stage.answer(wild), Set::Doubted { first: true, .. }));
        }
        assert_eq!(stage.now(), START + 180_000);
    }

    #[test]
    fn a_clock_that_stays_ahead_is_followed_by_a_step() {
        let mut stage = Stage::new();
        stage.answer(START + HOUR);
        stage.pass(60_000);
        assert!(matches!(stage.answer(START + HOUR + 60_000), Set::Stepped { .. }));
        assert_eq!(stage.now(), START + HOUR + 60_000);
        let step = Step { from: Time(START + 60_000), to: Time(START + HOUR + 60_000) };
        assert_eq!(stage.clock.stepped(), Some(step));
        assert!(stage.clock.leapt_lately(), "nothing is deleted for its age now");
        assert_eq!(stage.clock.last_step().map(|(ahead, _)| ahead), Some(HOUR));
    }

    #[test]
    fn a_clock_that_stays_behind_is_followed_by_a_step_back() {
        let mut stage = Stage::new();
        stage.clock.new_run();
        stage.answer(START - HOUR);
        stage.pass(60_000);
        assert!(matches!(stage.answer(START - HOUR + 60_000), Set::Stepped { .. }));
        assert_eq!(stage.now(), START - HOUR + 60_000);
        assert!(!stage.clock.leapt_lately(), "nothing seems older than it is");
        assert_eq!(stage.clock.last_step().map(|(ahead, _)| ahead), Some(-HOUR));
        let at = stage.clock.new_run().0.as_u128() >> 80;
        assert!(at < u128::try_from(START).unwrap(), "ids tell the time again");
    }

    #[test]
    fn an_answer_that_was_long_on_its_way_does_not_set_the_clock_back() {
        let mut stage = Stage::new();
        stage.pass(1_000);
        let (asked, shown) = (stage.now, stage.now());
        stage.pass(50);
        stage.clock.set_at(Time(shown), asked, stage.now);
        assert!(stage.now() - shown >= 50 - DRIFT);
        stage.pass(300);
        stage.clock.set_at(Time(shown + HOUR), asked, stage.now);
        assert!(stage.clock.doubt().is_none(), "one that took so long says nothing");
    }

    #[test]
    fn a_node_that_starts_in_a_jump_keeps_the_time_of_the_others() {
        let (now, jumped) = (Time(START), Time(START + HOUR));
        let peer =
            |believed, silent, stopped| Elsewhere { believed: Time(believed), silent, stopped };
        let begins =
            |shown, machine, peers: &[Elsewhere]| unlike_shown(shown, machine, peers, 5_000);
        // Nothing is known of others: the database counts.
        assert_eq!(begins(jumped, now, &[]), None);
        // One lives, and believes what the database shows, or not.
        let lives = peer(START - 800, 800, false);
        assert_eq!(begins(now, jumped, &[lives]), None);
        assert_eq!(begins(jumped, jumped, &[lives]), Some(now));
        // A clock that is behind makes nothing early.
        assert_eq!(begins(Time(START - HOUR), now, &[lives]), None);
        // All are dead: the machine's clock counts, unless one of them knew better.
        for gone in [peer(START - 9_000, HOUR, false), peer(START - 900, 900, true)] {
            assert_eq!(begins(jumped, now, &[gone]), Some(now));
            assert_eq!(begins(now, now, &[gone]), None);
            assert_eq!(begins(now, Time(START - HOUR), &[gone]), None);
        }
        assert_eq!(begins(jumped, now, &[peer(START + HOUR, 0, true)]), None);
    }

    #[test]
    fn a_clock_that_begins_with_another_instant_doubts_what_is_shown() {
        let clock = Clock::new(DOUBT);
        clock.begin_with(Time(START));
        let shown = Time(START + HOUR);
        assert!(matches!(clock.set(shown, Instant::now()), Set::Doubted { first: true, .. }));
        assert!((START..START + 60_000).contains(&clock.now().0));
    }

    #[test]
    fn runs_are_numbered_in_the_order_of_their_starts() {
        let clock = Clock::new(DOUBT);
        clock.set_at(Time(START), clock.origin, clock.origin);
        let runs: Vec<RunId> = (0..10_000).map(|_| clock.new_run()).collect();
        assert!(runs.is_sorted_by(|a, b| a < b));
        assert!(runs[0].0.as_u128() >> 80 >= u128::try_from(START).unwrap());
    }
}

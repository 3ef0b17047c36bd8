//! Decisions of a schedule, moment by moment.

use uuid::Uuid;

use super::*;

mod set_back;

/// 2026-05-01T00:00:00Z, a Friday.
const DAY: i64 = 1_777_593_600_000;
const MINUTE: i64 = 60_000;

struct Bench {
    spec: ScheduleSpec,
    calendar: Calendar,
    state: State,
    runs: u128,
}

impl Bench {
    /// Makes a schedule of every minute, at the beginning of the day.
    fn new(overlap: Overlap, change: impl FnOnce(&mut ScheduleSpec)) -> Bench {
        let text = r#"{"cron":"* * * * *","workflow":"w"}"#;
        let mut spec: ScheduleSpec = serde_json::from_str(text).unwrap();
        spec.overlap = overlap;
        change(&mut spec);
        let calendar = Calendar::parse(&spec.cron, &spec.time_zone).unwrap();
        Bench { spec, calendar, state: State::new(Time(DAY)), runs: 0 }
    }

    /// Returns a turn so many seconds into the day.
    fn turn(&mut self, second: i64, active: bool) -> Turn {
        let Bench { spec, calendar, .. } = self;
        let plan = Plan { namespace: "n", name: "s", spec, calendar };
        // Everything that a turn leaves is durable: it survives the way to the table and back.
        let text = serde_json::to_string(&self.state).unwrap();
        let mut state: State = serde_json::from_str(&text).unwrap();
        let turn = state.turn(&plan, Time(DAY + second * 1_000), active);
        self.state = state;
        turn
    }

    /// Replaces the spec so many seconds into the day. Returns what is recorded.
    fn edit(&mut self, second: i64, change: impl FnOnce(&mut ScheduleSpec)) -> Turn {
        let Bench { spec, calendar, state, .. } = self;
        let plan = Plan { namespace: "n", name: "s", spec, calendar };
        let mut new = spec.clone();
        change(&mut new);
        let told = state.respecify((spec, Some(&plan)), &new, Time(DAY + second * 1_000));
        (self.calendar, self.spec) = (Calendar::read(&When::from(&new)).unwrap(), new);
        Turn { told, ..Turn::default() }
    }

    /// Sets the clock back to so many seconds into the day.
    fn set_back(&mut self, second: i64, known: Known) {
        let Bench { spec, calendar, state, .. } = self;
        let plan = Plan { namespace: "n", name: "s", spec, calendar };
        state.set_back(&plan, Time(DAY + second * 1_000), known);
    }

    /// Makes the starts that are going; answers their minutes.
    fn make(&mut self, second: i64) -> Vec<i64> {
        let going: Vec<Waiting> = self.state.going().cloned().collect();
        for one in &going {
            self.runs += 1;
            let run = RunId(Uuid::from_u128(self.runs));
            let made = Ok(StartedRun { id: run, created: true });
            let told = self.state.settle(&one.key, made, Time(DAY + second * 1_000)).unwrap();
            assert_eq!(told.start.run, Some(run));
        }
        going.iter().map(|one| (one.instant.0 - DAY) / MINUTE).collect()
    }
}

/// Returns outcomes with the minutes of their instants.
fn told(turn: &Turn) -> Vec<(StartOutcome, i64)> {
    let line = |one: &Told| (one.start.outcome, (one.start.scheduled_for.0.0 - DAY) / MINUTE);
    turn.told.iter().map(line).collect()
}

fn due(turn: &Turn) -> Option<i64> {
    turn.due.map(|at| (at.0 - DAY) / 1_000)
}

#[test]
fn an_instant_is_taken_up_once_and_when_it_has_come() {
    let mut bench = Bench::new(Overlap::Skip, |_| {});
    assert_eq!(due(&bench.turn(0, false)), Some(60));
    assert_eq!(due(&bench.turn(59, false)), Some(60));
    let turn = bench.turn(60, false);
    assert_eq!((due(&turn), turn.told.len()), (Some(60), 0), "there is something to do at once");
    assert_eq!(bench.make(60), [1]);
    assert_eq!(due(&bench.turn(61, false)), Some(120));
    assert!(bench.make(61).is_empty());
}

#[test]
fn what_is_going_stays_so_until_it_is_settled() {
    let mut bench = Bench::new(Overlap::Skip, |_| {});
    bench.turn(60, false);
    // The node that was to make it died; the next minute has come.
    let turn = bench.turn(120, false);
    assert_eq!(told(&turn), [(StartOutcome::Skipped, 2)]);
    assert_eq!(bench.make(120), [1]);
}

#[test]
fn skip_leaves_out_what_comes_while_a_run_is_active() {
    let mut bench = Bench::new(Overlap::Skip, |_| {});
    bench.turn(60, false);
    bench.make(60);
    assert_eq!(told(&bench.turn(120, true)), [(StartOutcome::Skipped, 2)]);
    bench.turn(180, false);
    assert_eq!(bench.make(180), [3]);
    let counts = bench.state.counts();
    assert_eq!((counts.started, counts.skipped), (2, 1));
}

#[test]
fn queue_keeps_as_many_as_it_may() {
    let mut bench = Bench::new(Overlap::Queue, |spec| spec.queue_limit = 2);
    bench.turn(60, false);
    bench.make(60);
    let turn = bench.turn(4 * 60, true);
    assert_eq!(told(&turn), [(StartOutcome::Skipped, 4)]);
    assert_eq!(due(&turn), Some(4 * 60 + 1), "the end of the run is looked for");
    assert_eq!(bench.state.waiting().len(), 2);
    bench.turn(4 * 60 + 1, false);
    assert_eq!(bench.make(4 * 60 + 1), [2]);
    assert!(bench.turn(4 * 60 + 2, true).told.is_empty());
    bench.turn(4 * 60 + 3, false);
    assert_eq!(bench.make(4 * 60 + 3), [3]);
}

#[test]
fn replace_cancels_the_last_run_and_waits_for_its_end() {
    let mut bench = Bench::new(Overlap::Replace, |_| {});
    bench.turn(60, false);
    bench.make(60);
    let last = bench.state.last_run();
    assert_eq!(bench.turn(120, true).cancel, last);
    assert_eq!(bench.turn(121, true).cancel, last, "asked again until it is known to be done");
    bench.state.cancelled(last.unwrap());
    assert_eq!(bench.turn(122, true).cancel, None);
    // A newer start takes the place of the one that waits.
    let turn = bench.turn(180, true);
    assert_eq!(told(&turn), [(StartOutcome::Skipped, 2)]);
    bench.turn(190, false);
    assert_eq!(bench.make(190), [3]);
}

#[test]
fn allow_starts_whatever_is_active() {
    let mut bench = Bench::new(Overlap::Allow, |_| {});
    let turn = bench.turn(3 * 60, true);
    assert!(turn.told.is_empty());
    assert_eq!(bench.make(180), [1, 2, 3]);
}

#[test]
fn what_is_too_late_is_missed_and_told_in_one_line() {
    let mut bench = Bench::new(Overlap::Allow, |spec| spec.catch_up = Span::secs(90));
    let turn = bench.turn(10 * 60, false);
    assert_eq!(told(&turn), [(StartOutcome::Missed, 1)]);
    let line = &turn.told[0].start;
    assert_eq!((line.count, line.until), (8, Some(Timestamp(Time(DAY + 8 * MINUTE)))));
    assert_eq!(bench.make(600), [9, 10]);
    assert_eq!(bench.state.counts().missed, 8);
}

#[test]
fn a_long_absence_is_worked_off_in_bounded_turns() {
    let mut bench = Bench::new(Overlap::Skip, |_| {});
    let day = 86_400;
    let turn = bench.turn(10 * day, false);
    assert_eq!((turn.told[0].start.count, due(&turn)), (10_000, Some(10 * day)));
    let turn = bench.turn(10 * day, false);
    assert_eq!(turn.told[0].start.count, 10 * 24 * 60 - 10_000 - 61);
    assert_eq!(turn.told.len(), 1 + 60, "of the last hour one goes and sixty are left out");

    let mut bench = Bench::new(Overlap::Allow, |spec| spec.catch_up = Span::days(9));
    bench.turn(day, false);
    let mut made = bench.make(day);
    assert_eq!(made.len(), 200);
    while !made.is_empty() {
        bench.turn(day, false);
        made = bench.make(day);
    }
    assert_eq!(bench.state.counts().started, 24 * 60);
}

#[test]
fn jitter_puts_off_within_its_bound_and_always_alike() {
    let mut bench = Bench::new(Overlap::Allow, |spec| spec.jitter = Span::secs(300));
    let Bench { spec, calendar, .. } = &bench;
    let plan = Plan { namespace: "n", name: "s", spec, calendar };
    let off: Vec<i64> = calendar
        .instants(Time(DAY))
        .take(1_000)
        .map(|instant| plan.starts_at(instant).0 - instant.0)
        .collect();
    assert!(off.iter().all(|off| (0..=300_000).contains(off)));
    assert!(off.iter().any(|off| *off < 15_000) && off.iter().any(|off| *off > 285_000));
    let other = Plan { name: "other", ..plan };
    assert_ne!(other.starts_at(Time(DAY)), plan.starts_at(Time(DAY)));
    let starts_at = plan.starts_at(Time(DAY + MINUTE));
    let second = (starts_at.0 - DAY).div_euclid(1_000);
    assert!(bench.turn(second - 1, false).told.is_empty());
    assert_eq!(bench.make(second - 1).first(), None);
    bench.turn(second + 1, false);
    assert_eq!(bench.make(second + 1).first(), Some(&1));
}

#[test]
fn a_pause_is_passed_over_but_what_a_person_wants_is_done() {
    let mut bench = Bench::new(Overlap::Queue, |_| {});
    bench.turn(60, false);
    bench.make(60);
    bench.turn(120, true);
    let by = By { actor: "ann".into(), reason: "moving house".to_owned() };
    bench.state.pause(None, &by, Time(DAY + 130_000));
    // The waiting start is held back, and nothing will move it.
    assert_eq!(due(&bench.turn(200, false)), None);
    assert!(bench.make(200).is_empty());
    assert!(bench.state.trigger("t", Overlap::Skip, "ann", Time(DAY + 210_000)));
    assert!(!bench.state.trigger("t", Overlap::Skip, "ann", Time(DAY + 210_000)));
    bench.turn(210, false);
    assert_eq!(bench.make(210), [3]);
    bench.state.resume(Span::secs(3_600), Time(DAY + 600_000));
    bench.turn(600, false);
    assert_eq!(bench.make(600), [2]);
    assert_eq!(due(&bench.turn(601, false)), Some(660));
}

#[test]
fn a_backfill_goes_one_after_the_other_or_all_at_once() {
    let mut bench = Bench::new(Overlap::Skip, |_| {});
    let (from, to) = (Time(DAY - 10 * MINUTE), Time(DAY - 7 * MINUTE));
    bench.state.backfill(from, to, Overlap::Queue, "ann");
    let mut made = Vec::new();
    while bench.state.open_backfills() > 0 || bench.state.going().next().is_some() {
        let before = made.len();
        assert_eq!(due(&bench.turn(1, true)), Some(2), "the end of the run is looked for");
        bench.turn(1, false);
        made.extend(bench.make(1));
        assert!(made.len() <= before + 1, "one after the other");
        bench.turn(1, false);
        made.extend(bench.make(1));
    }
    assert_eq!(made, [-10, -9, -8, -7]);
    bench.state.backfill(Time(DAY - 240 * MINUTE), Time(DAY - MINUTE), Overlap::Allow, "ann");
    bench.turn(2, true);
    assert_eq!(bench.make(2).len(), 200, "as many as may be open");
    bench.turn(2, true);
    assert_eq!(bench.make(2).len(), 40);
    assert_eq!(bench.state.open_backfills(), 0);
}

#[test]
fn the_same_instant_has_the_same_key_wherever_it_comes_from() {
    let mut bench = Bench::new(Overlap::Allow, |_| {});
    bench.turn(60, false);
    let key = bench.state.going().next().unwrap().key.clone();
    assert_eq!(key, "schedule/s/2026-05-01T00:01:00.000Z");
    bench.make(60);
    let at = Time(DAY + MINUTE);
    bench.state.backfill(at, at, Overlap::Allow, "ann");
    bench.turn(61, false);
    assert_eq!(bench.state.going().next().unwrap().key, key);
}

#[test]
fn another_pattern_counts_from_now_on() {
    let mut bench = Bench::new(Overlap::Allow, |_| {});
    let (old, now) = (bench.spec.clone(), Time(DAY + 10 * MINUTE));
    let mut new = ScheduleSpec { jitter: Span::secs(1), ..old.clone() };
    bench.state.respecify((&old, None), &new, now);
    assert_eq!(bench.state.considered(), Time(DAY), "the pattern is the same");
    new.time_zone = "Europe/Berlin".to_owned();
    bench.state.respecify((&old, None), &new, now);
    assert_eq!(bench.state.considered(), now);
}

/// Looks at the schedule each second for so many seconds from the first on, and makes what goes. Returns at which
/// second each minute was started.
fn watch(bench: &mut Bench, seconds: std::ops::Range<i64>) -> BTreeMap<i64, i64> {
    let mut started = BTreeMap::new();
    for second in seconds {
        let turn = bench.turn(second, false);
        assert_eq!(told(&turn), [], "at second {second}");
        started.extend(bench.make(second).into_iter().map(|minute| (minute, second)));
    }
    started
}

#[test]
fn jitter_longer_than_the_distance_of_instants_puts_each_off_for_itself() {
    // So short that a start which waited for another would be missed.
    let mut bench = Bench::new(Overlap::Allow, |spec| {
        (spec.jitter, spec.catch_up) = (Span::secs(1_200), Span::secs(10));
    });
    let Bench { spec, calendar, .. } = &bench;
    let plan = Plan { namespace: "n", name: "s", spec, calendar };
    let promised: Vec<(i64, i64)> = calendar
        .instants(Time(DAY))
        .take(60)
        .map(|at| ((at.0 - DAY) / MINUTE, (plan.starts_at(at).0 - DAY + 999) / 1_000))
        .collect();
    assert!(!promised.is_sorted_by_key(|(_, second)| *second), "some overtake others");
    let started = watch(&mut bench, 0..60 * 60 + 1_300);
    for (minute, second) in promised {
        assert_eq!(started.get(&minute), Some(&second), "minute {minute}");
    }
    assert_eq!(bench.state.counts().missed, 0);
}

#[test]
fn a_schedule_is_looked_at_when_the_next_start_is_due_and_not_before() {
    let mut bench = Bench::new(Overlap::Allow, |spec| spec.jitter = Span::secs(600));
    let mut second = 0;
    let mut looks = 0;
    while second < 3_600 {
        let turn = bench.turn(second, false);
        bench.make(second);
        let at = turn.due.filter(|at| at.0 > DAY + second * 1_000).unwrap_or_else(|| {
            let turn = bench.turn(second, false);
            turn.due.unwrap()
        });
        second = (at.0 - DAY + 999) / 1_000;
        looks += 1;
    }
    let counts = bench.state.counts();
    assert_eq!((counts.missed, counts.skipped), (0, 0));
    assert!(counts.started >= 50 && looks <= counts.started + 1, "{looks} looks, {counts:?}");
}

#[test]
fn what_nobody_was_there_for_in_time_is_missed_with_jitter_too() {
    let mut bench = Bench::new(Overlap::Allow, |spec| {
        (spec.jitter, spec.catch_up) = (Span::secs(1_200), Span::secs(10));
    });
    let mut outcomes = bench.turn(600, false).told;
    let mut made = bench.make(600).len();
    outcomes.extend(bench.turn(3_600, false).told);
    made += bench.make(3_600).len();
    assert!(outcomes.iter().all(|one| one.start.outcome == StartOutcome::Missed));
    let late: u32 = outcomes.iter().map(|one| one.start.count).sum();
    let put_off = bench.state.put_off().count();
    assert_eq!(late as usize + made + put_off, 60, "{late} {made} {put_off}");
    assert!(late > 30, "{late}");
}

#[test]
fn a_start_that_is_going_keeps_the_request_that_it_was_decided_with() {
    let mut bench = Bench::new(Overlap::Allow, |_| {});
    bench.turn(60, false);
    bench.state.fix_version(3);
    bench.edit(61, |spec| spec.workflow = "other".to_owned());
    bench.turn(120, false);
    bench.state.fix_version(7);
    bench.edit(121, |spec| spec.cron = "*/5 * * * *".to_owned());
    let going: Vec<(String, Option<u32>)> = bench
        .state
        .going()
        .map(|one| (bench.state.spec_of(one, &bench.spec).workflow.clone(), one.version()))
        .collect();
    assert_eq!(going, [("w".to_owned(), Some(3)), ("other".to_owned(), Some(7))]);
    assert_eq!(bench.state.replaced.len(), 2);
    assert_eq!(bench.make(122), [1, 2]);
    assert!(bench.state.replaced.is_empty(), "what nothing goes by any more is dropped");
}

#[test]
fn an_edit_between_an_instant_and_its_jittered_start_loses_nothing() {
    let edits: [fn(&mut ScheduleSpec); 4] = [
        |spec| spec.cron = "30 4 * * *".to_owned(),
        |spec| spec.time_zone = "Asia/Kathmandu".to_owned(),
        |spec| spec.jitter = Span::secs(1),
        |spec| spec.end = Some(Timestamp(Time(DAY + 100 * MINUTE))),
    ];
    for edit in edits {
        let mut bench = Bench::new(Overlap::Allow, |spec| spec.jitter = Span::secs(3_000));
        let second = 600;
        assert!(bench.edit(second, edit).told.is_empty());
        let mut made = Vec::new();
        for second in second..second + 3_100 {
            bench.turn(second, false);
            made.extend(bench.make(second).into_iter().filter(|minute| *minute <= 10));
        }
        made.sort_unstable();
        assert_eq!(made, (1..=10).collect::<Vec<_>>());
    }
}

#[test]
fn a_backfill_keeps_the_instants_that_it_was_asked_for() {
    let mut bench = Bench::new(Overlap::Skip, |_| {});
    bench.state.backfill(Time(DAY - 5 * MINUTE), Time(DAY - 3 * MINUTE), Overlap::Allow, "ann");
    bench.edit(1, |spec| spec.cron = "0 4 * * *".to_owned());
    bench.turn(2, false);
    assert_eq!(bench.make(2), [-5, -4, -3]);
    assert_eq!(bench.state.open_backfills(), 0);
}

#[test]
fn what_becomes_due_during_a_pause_is_left_out_with_a_line() {
    let bench = Bench::new(Overlap::Allow, |spec| spec.jitter = Span::secs(3_000));
    let by = By { actor: "ann".into(), reason: "moving house".to_owned() };
    let Bench { spec, calendar, .. } = &bench;
    let plan = Plan { namespace: "n", name: "s", spec, calendar };
    let mut state = bench.state.clone();
    assert!(state.pause(Some(&plan), &by, Time(DAY + 600_000)).is_empty());
    let (come, all) = (state.put_off().filter(|(_, at)| at.0 <= DAY + 600_000).count(), 10);
    let told = state.resume(Span::secs(10), Time(DAY + 100 * MINUTE));
    let of = |outcome| told.iter().filter(|one| one.start.outcome == outcome).count();
    assert_eq!(of(StartOutcome::Missed), come, "due before the pause, and too late now");
    assert_eq!(of(StartOutcome::Skipped), all - come);
    assert_eq!(state.put_off().count(), 0);
}

#[test]
fn an_instant_that_has_its_run_is_not_counted_as_started_again() {
    let began = |second: i64| {
        let at = u128::try_from(DAY + second * 1_000).unwrap();
        RunId(Uuid::from_u128(at << 80))
    };
    let settled = |made: StartedRun| {
        let id = made.id;
        let mut bench = Bench::new(Overlap::Queue, |_| {});
        bench.turn(30, false);
        bench.state.backfill(Time(DAY - MINUTE), Time(DAY - MINUTE), Overlap::Queue, "ann");
        bench.turn(45, false);
        let key = bench.state.going().next().unwrap().key.clone();
        let told = bench.state.settle(&key, Ok(made), Time(DAY + 46_000)).unwrap();
        assert_eq!(told.start.run, Some(id));
        (told.start.outcome, bench.state.counts().started, bench.state.counts().skipped)
    };
    let made = |id, created| StartedRun { id, created };
    assert_eq!(settled(made(began(46), true)), (StartOutcome::Started, 1, 0));
    // Made by a node that died before it could say so.
    assert_eq!(settled(made(began(46), false)), (StartOutcome::Started, 1, 0));
    assert_eq!(settled(made(began(43), false)), (StartOutcome::Skipped, 0, 1));
}

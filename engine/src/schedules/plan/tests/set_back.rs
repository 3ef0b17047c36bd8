//! A schedule whose instants were taken up by a clock that was ahead.

use super::*;

/// Returns the instant so many minutes into the day.
fn minute(minute: i64) -> Time {
    Time(DAY + minute * MINUTE)
}

#[test]
fn an_instant_of_a_clock_that_was_ahead_comes_again_unless_it_was_started() {
    let mut bench = Bench::new(Overlap::Allow, |spec| spec.catch_up = Span::secs(600));
    bench.turn(60, false);
    assert_eq!(bench.make(60), [1]);
    // Two hours ahead: what is not too old is started, the rest is missed.
    bench.turn(60 + 7_200, false);
    assert_eq!(bench.make(60 + 7_200), (111..=121).collect::<Vec<_>>());
    let now = minute(2);
    assert!(bench.state.is_ahead(now));
    let known = Known { started: (111..=121).map(minute).collect(), ..Known::default() };
    bench.set_back(120, known);
    assert!(!bench.state.is_ahead(now));
    assert_eq!(bench.turn(120, false).due, Some(minute(3)), "the next is the next by this clock");
    for second in (180..=110 * 60).step_by(60) {
        bench.turn(second, false);
        assert_eq!(bench.make(second), [second / 60]);
    }
    let turn = bench.turn(110 * 60 + 1, false);
    assert_eq!(turn.due, Some(minute(122)), "those that were started too early are passed over");
    for second in (111 * 60..=121 * 60).step_by(60) {
        bench.turn(second, false);
        assert!(bench.make(second).is_empty());
    }
    bench.turn(122 * 60, false);
    assert_eq!(bench.make(122 * 60), [122]);
    assert!(bench.state.was_set_back().is_none());
}

#[test]
fn an_instant_of_which_nothing_is_known_does_not_come_again() {
    let mut bench = Bench::new(Overlap::Allow, |_| {});
    bench.turn(7_200, false);
    bench.make(7_200);
    bench.set_back(60, Known { from: Some(minute(100)), ..Known::default() });
    assert_eq!(bench.turn(120, false).due, Some(minute(101)));
}

#[test]
fn an_instant_that_comes_again_all_at_once_is_missed_and_not_started() {
    let mut bench = Bench::new(Overlap::Allow, |_| {});
    bench.turn(7_200, false);
    bench.make(7_200);
    bench.set_back(60, Known::default());
    // The clock was right before, and is again.
    let turn = bench.turn(7_200 + 60, false);
    assert_eq!(bench.make(7_260), [120, 121]);
    assert_eq!(turn.told.iter().map(|one| one.start.count).sum::<u32>(), 118);
}

#[test]
fn an_instant_that_was_told_as_missed_is_not_told_again() {
    let mut bench = Bench::new(Overlap::Allow, |spec| spec.catch_up = Span::secs(600));
    let turn = bench.turn(7_200, false);
    assert_eq!(bench.make(7_200), (110..=120).collect::<Vec<_>>());
    assert_eq!(bench.state.counts().missed, 109);
    let line = &turn.told[0].start;
    let missed = vec![(line.scheduled_for.0, line.until.unwrap().0)];
    assert_eq!(missed, [(minute(1), minute(109))]);
    let started = (110..=120).map(minute).collect();
    bench.set_back(60, Known { started, missed, from: None });
    // One of them comes at its own time and is started.
    bench.turn(120, false);
    assert_eq!(bench.make(120), [2]);
    // Another node is still ahead, or the clock goes forward again: all but the last were recorded.
    let turn = bench.turn(7_200 + 3_600, false);
    assert_eq!(told(&turn), [(StartOutcome::Missed, 121)]);
    assert_eq!(bench.state.counts().missed, 109 + 49);
    assert_eq!(bench.make(7_200 + 3_600), (170..=180).collect::<Vec<_>>());
}

#[test]
fn a_start_that_waits_for_an_instant_yet_to_come_is_left_for_then() {
    let mut bench = Bench::new(Overlap::Queue, |spec| spec.queue_limit = 3);
    bench.turn(7_200, true);
    assert!(bench.state.waiting().len() > 1);
    bench.set_back(60, Known::default());
    assert_eq!(bench.state.waiting().len(), 0);
    bench.turn(120, false);
    assert_eq!(bench.make(120), [2]);
}

#[test]
fn the_last_run_is_not_one_that_began_by_a_clock_that_was_ahead() {
    let mut bench = Bench::new(Overlap::Skip, |_| {});
    let began = |at: Time| RunId(Uuid::from_u128(u128::try_from(at.0).unwrap() << 80));
    let mut start = |second: i64, run: RunId| {
        bench.turn(second, false);
        let key = bench.state.going().next().unwrap().key.clone();
        let made = Ok(StartedRun { id: run, created: true });
        bench.state.settle(&key, made, Time(DAY + second * 1_000)).unwrap();
        if second > 7_000 {
            bench.set_back(60, Known::default());
        }
        bench.state.last_run()
    };
    start(60, began(minute(1)));
    let ahead = began(minute(121));
    assert_eq!(start(7_260, ahead), Some(ahead));
    let after = began(minute(2));
    assert_eq!(start(120, after), Some(after));
}

//! The program for users has nothing of the chaos harness in it.

use backstitch_engine::Options;

const PROGRAM: &str = env!("CARGO_BIN_EXE_backstitch-under-test");

#[test]
fn the_program_has_no_crash_points_and_no_planted_bugs() {
    let program = std::fs::read(PROGRAM).expect("the program under test");
    let text = String::from_utf8_lossy(&program);
    let has = |mark: &str| text.contains(mark);
    assert!(has("BACKSTITCH_TUNING"), "a text that is there is found");
    for mark in ["BACKSTITCH_CRASH", "batch.answered", "BACKSTITCH_BUG", "forward-order-undo"] {
        assert!(!has(mark), "{mark} is in the program");
    }
    assert_eq!(Options::new("postgres://").tuning.first_snapshot, 10_000);
}

#[test]
fn trials_set_what_they_name_and_nothing_else() {
    let mut tuning = Options::new("postgres://").tuning;
    tuning.set("dead_after=1500ms").unwrap();
    tuning.set("shards=3").unwrap();
    assert_eq!((tuning.dead_after.as_millis(), tuning.shards), (1_500, 3));
    for wrong in ["dead_after", "dead_after=soon", "shards=-1", "colour=red"] {
        assert!(tuning.set(wrong).is_err(), "{wrong}");
    }
}

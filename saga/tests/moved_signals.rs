//! Signals of runs that move to another version: each is held to what the steps of that ask for, whenever it comes.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use backstitch_saga::protocol::Outcome;
use backstitch_saga::{
    By, CheckedSignal, Command, Event, Graph, Migration, Payload, Refusal, RefusalCode, Run, RunId,
    Start, Time, Transition, decide,
};
use serde_json::{Value, json};
use uuid::Uuid;

fn by() -> By {
    By { actor: "ann".into(), reason: "a test".to_owned() }
}

fn version(number: u32, steps: &Value) -> Arc<Graph> {
    let definition = json!({ "name": "ask", "version": number, "steps": steps });
    Arc::new(Graph::parse(&definition.to_string()).unwrap())
}

fn asked(run: &mut Run, command: Command) -> (Result<(), Refusal>, Vec<Event>) {
    let mut transition = Transition::default();
    let answer = decide(run, command, Time(1_000), &mut transition).map(drop);
    let record = transition.record;
    if !record.events.is_empty() {
        run.mark_appended();
    }
    (answer, record.events)
}

/// Begins a run of version 1: `a` waits for `go`, and `b` for `typo` after it.
fn begun() -> Run {
    let one = version(
        1,
        &json!([{ "id": "a", "wait": { "signal": "go" } },
            { "id": "b", "after": ["a"], "wait": { "signal": "typo" } }]),
    );
    let mut run = Run::new(RunId(Uuid::from_u128(7)), one);
    let start = Start {
        namespace: "default".into(),
        definition: "hash-1".into(),
        key: None,
        correlation_id: None,
        causation_id: None,
        labels: Default::default(),
        input: Payload::null(),
        holds: Vec::new(),
        parent: None,
        descent: None,
        start_at: None,
        requires: Vec::new(),
        end_by: None,
    };
    asked(&mut run, Command::Start(start)).0.unwrap();
    run
}

fn send(run: &mut Run, data: &Value, checked: Option<u32>) -> Result<(), Refusal> {
    let data = Payload::of(data).unwrap();
    asked(run, Command::Signal { name: "go".into(), data, by: by(), checked }).0
}

fn migrate(
    run: &mut Run,
    to: &Arc<Graph>,
    checked: Vec<CheckedSignal>,
) -> (Result<(), Refusal>, Vec<Event>) {
    let migration = Migration {
        from: 1,
        graph: to.clone(),
        definition: "hash-2".into(),
        mapping: Default::default(),
        by: by(),
        checked,
    };
    asked(run, Command::Migrate(migration))
}

fn names(run: &Run, to: &Graph) -> Vec<(String, usize)> {
    let found = run.signals_to_check(to, &Default::default()).into_iter();
    found.map(|(name, _, schemas)| (name.to_string(), schemas.len())).collect()
}

#[test]
fn a_wait_of_the_new_version_takes_the_signal_that_came_before_the_move() {
    for new in [json!({ "signal": "go" }), json!({ "signals": ["stop", "go"] })] {
        let two = version(
            2,
            &json!([{ "id": "a", "wait": { "signal": "go" } }, { "id": "b", "after": ["a"], "wait": new }]),
        );
        let mut run = begun();
        send(&mut run, &json!(null), Some(1)).unwrap();
        assert_eq!(run.outcome(), None);
        migrate(&mut run, &two, Vec::new()).0.unwrap();
        assert_eq!(run.outcome(), Some(Outcome::Succeeded), "{new}");
    }
}

#[test]
fn a_signal_that_comes_while_its_run_is_about_to_be_moved_is_checked_before() {
    let two = version(
        2,
        &json!([{ "id": "a", "wait": { "signal": "go" } },
            { "id": "b", "after": ["a"], "wait": { "signal": "go", "schema": { "type": "integer" } } }]),
    );
    let mut run = begun();
    assert_eq!(names(&run, &two), []);
    // It came after whoever moves the run has looked.
    send(&mut run, &json!("seven"), Some(1)).unwrap();
    let (refused, events) = migrate(&mut run, &two, Vec::new());
    assert_eq!((refused.unwrap_err().code, events.len()), (RefusalCode::SignalUnchecked, 0));
    assert_eq!((run.version(), names(&run, &two)), (1, vec![("go".to_owned(), 1)]));
    let other = CheckedSignal { name: "go".into(), data: Payload::of(&7).unwrap(), wrong: None };
    let refused = migrate(&mut run, &two, vec![other.clone()]).0.unwrap_err();
    assert_eq!(refused.code, RefusalCode::SignalUnchecked, "another one was checked");
    let data = Payload::of(&"seven").unwrap();
    let wrong = CheckedSignal { data, wrong: Some("it is no integer".to_owned()), ..other };
    let (moved, events) = migrate(&mut run, &two, vec![wrong]);
    moved.unwrap();
    assert!(events.iter().any(|event| matches!(event, Event::SignalRefused { .. })), "{events:?}");
    assert!(run.conditions().contains(&"SignalRefused"));
    send(&mut run, &json!(7), Some(2)).unwrap();
    assert_eq!(run.outcome(), Some(Outcome::Succeeded));
}

#[test]
fn a_signal_that_a_step_took_which_is_over_is_held_to_nothing_more() {
    let two = version(
        2,
        &json!([{ "id": "a", "wait": { "signal": "go", "schema": { "type": "integer" } } },
            { "id": "b", "after": ["a"], "wait": { "signal": "typo" } }]),
    );
    let mut run = begun();
    send(&mut run, &json!("seven"), Some(1)).unwrap();
    assert_eq!(names(&run, &two), []);
    let (moved, events) = migrate(&mut run, &two, Vec::new());
    moved.unwrap();
    assert!(!events.iter().any(|event| matches!(event, Event::SignalRefused { .. })), "{events:?}");
}

#[test]
fn a_signal_that_was_held_to_another_version_is_held_to_that_of_its_run() {
    let two = version(
        2,
        &json!([{ "id": "a", "wait": { "signal": "go", "schema": { "type": "integer" } } }]),
    );
    let mut run = begun();
    migrate(&mut run, &two, Vec::new()).0.unwrap();
    let refused = send(&mut run, &json!("seven"), Some(1)).unwrap_err();
    assert_eq!(refused.code, RefusalCode::SignalUnchecked);
    send(&mut run, &json!(7), Some(2)).unwrap();
    assert_eq!(run.outcome(), Some(Outcome::Succeeded));
    send(&mut run, &json!(7), Some(1)).expect("it came, and is asked again");
}

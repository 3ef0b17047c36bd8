//! Runs from their start to their end, for those who count what that costs.

#![expect(clippy::unwrap_used, reason = "tests and benchmarks may panic")]

use std::sync::Arc;

use backstitch_saga::protocol::TaskOutcome;
use backstitch_saga::{
    Command, Effect, Graph, Payload, Record, Run, RunId, Start, Time, Transition, decide,
};
use serde_json::json;
use uuid::Uuid;

/// Makes so many steps, one after the other.
pub(crate) fn sequence(steps: usize) -> Arc<Graph> {
    let steps: Vec<_> = (0..steps)
        .map(|i| {
            let input = i.checked_sub(1).map_or("/input".to_owned(), |before| format!("/steps/s{before}"));
            json!({"id": format!("s{i}"), "task": {"name": "work", "input": {"path": input}, "class": "read_only"}})
        })
        .collect();
    Arc::new(
        Graph::parse(&json!({"name": "bench", "version": 1, "steps": steps}).to_string()).unwrap(),
    )
}

/// Makes a task for each element of the input.
pub(crate) fn fan_out() -> Arc<Graph> {
    let map = json!({"items": {"path": "/input"}, "join": "all", "empty": "succeed",
        "task": {"name": "work", "input": {"path": "/item"}, "class": "read_only"}});
    Arc::new(
        Graph::parse(
            &json!({"name": "bench", "version": 1, "steps": [{"id": "m", "map": map}]}).to_string(),
        )
        .unwrap(),
    )
}

/// Returns 200 bytes.
pub(crate) fn payload() -> Payload {
    Payload::of(&"x".repeat(198)).unwrap()
}

/// Makes a run that has not begun.
pub(crate) fn run_of(graph: &Arc<Graph>) -> Run {
    Run::new(RunId(Uuid::from_u128(1)), graph.clone())
}

fn start(run: &mut Run, input: Payload, effects: &mut Vec<Effect>) -> Record {
    let start = Start {
        namespace: "default".into(),
        definition: "hash".into(),
        key: None,
        correlation_id: None,
        causation_id: None,
        labels: Default::default(),
        input,
        holds: Vec::new(),
        parent: None,
        descent: None,
        start_at: None,
        requires: Vec::new(),
        end_by: None,
    };
    let mut transition = with(effects);
    decide(run, Command::Start(start), Time(0), &mut transition).unwrap();
    *effects = transition.effects;
    transition.record
}

/// Makes an empty transition. As in the engine, lists of effects are used again.
fn with(effects: &mut Vec<Effect>) -> Transition {
    effects.clear();
    Transition { record: Record::default(), effects: std::mem::take(effects) }
}

/// Runs `graph` from its start to its end: everything is handed out and completed, a record per round. Returns the
/// journal.
pub(crate) fn whole(
    graph: &Arc<Graph>,
    input: &Payload,
    output: &Payload,
    effects: &mut Vec<Effect>,
) -> Vec<Record> {
    let run = &mut run_of(graph);
    let mut records = Vec::new();
    records.push(start(run, input.clone(), effects));
    let mut offered = run.offered();
    while !offered.is_empty() {
        let mut transition = with(effects);
        for task in &offered {
            decide(
                run,
                Command::HandOut { task: task.clone(), worker: "w".into() },
                Time(1),
                &mut transition,
            )
            .unwrap();
        }
        for task in offered.drain(..) {
            let outcome = TaskOutcome::Succeeded { output: output.clone(), external_id: None };
            decide(run, Command::Report { task, outcome }, Time(2), &mut transition).unwrap();
        }
        records.push(transition.record);
        *effects = transition.effects;
        offered = run.offered();
    }
    assert!(run.outcome().is_some());
    records
}

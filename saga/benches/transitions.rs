//! What a transition of the pure core costs: time and allocations. `cargo bench -p backstitch-saga`.
//!
//! A transition is one step done: its task handed out and reported, and the next one offered.

#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::sync::Arc;

use backstitch_saga::protocol::TaskOutcome;
use backstitch_saga::{Command, Graph, Payload, Record, Run, RunId, Start, Time, decide};
use divan::counter::ItemsCount;
use serde_json::json;
use uuid::Uuid;

#[global_allocator]
static ALLOCATIONS: divan::AllocProfiler = divan::AllocProfiler::system();

fn main() {
    divan::main();
}

fn sequence(steps: usize) -> Arc<Graph> {
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

fn fan_out() -> Arc<Graph> {
    let map = json!({"items": {"path": "/input"}, "join": "all", "empty": "succeed",
        "task": {"name": "work", "input": {"path": "/item"}, "class": "read_only"}});
    Arc::new(
        Graph::parse(
            &json!({"name": "bench", "version": 1, "steps": [{"id": "m", "map": map}]}).to_string(),
        )
        .unwrap(),
    )
}

fn payload() -> Payload {
    Payload::of(&"x".repeat(198)).unwrap()
}

fn start(run: &mut Run, input: Payload) -> Record {
    let start = Start {
        namespace: "default".into(),
        definition: "hash".into(),
        key: None,
        correlation_id: None,
        labels: Default::default(),
        input,
        holds: Vec::new(),
        parent: None,
    };
    let mut record = Record::default();
    decide(run, Command::Start(start), Time(0), &mut record).unwrap();
    record
}

/// Hands out and completes everything, a record per round, until the run has ended.
fn drive(run: &mut Run, output: &Payload) -> Vec<Record> {
    let mut records = Vec::new();
    let mut offered = run.offered();
    while !offered.is_empty() {
        let mut record = Record::default();
        for task in &offered {
            decide(
                run,
                Command::HandOut { task: task.clone(), worker: "w".into() },
                Time(1),
                &mut record,
            )
            .unwrap();
        }
        for task in offered.drain(..) {
            let outcome = TaskOutcome::Succeeded { output: output.clone(), external_id: None };
            decide(run, Command::Report { task, outcome }, Time(2), &mut record).unwrap();
        }
        records.push(record);
        offered = run.offered();
    }
    assert!(run.outcome().is_some());
    records
}

/// Five steps in sequence, 200-byte payloads.
#[divan::bench]
fn decide_sequence(bencher: divan::Bencher<'_, '_>) {
    let (graph, payload) = (sequence(5), payload());
    bencher.counter(ItemsCount::new(5_usize)).bench(|| {
        let mut run = Run::new(RunId(Uuid::from_u128(1)), graph.clone());
        start(&mut run, payload.clone());
        drive(&mut run, &payload)
    });
}

/// The same, folded from its journal.
#[divan::bench]
fn apply_sequence(bencher: divan::Bencher<'_, '_>) {
    let (graph, payload) = (sequence(5), payload());
    let mut run = Run::new(RunId(Uuid::from_u128(1)), graph.clone());
    let mut journal = vec![start(&mut run, payload.clone())];
    journal.extend(drive(&mut run, &payload));
    bencher.counter(ItemsCount::new(5_usize)).bench(|| {
        let mut run = Run::new(RunId(Uuid::from_u128(1)), graph.clone());
        journal.iter().for_each(|record| run.apply(record));
        run
    });
}

/// A fan-out: its cost per item must not grow with the number of items.
#[divan::bench(args = [1_000, 10_000, 100_000], sample_count = 5)]
fn decide_fan_out(bencher: divan::Bencher<'_, '_>, items: usize) {
    let (graph, output) = (fan_out(), Payload::null());
    let input = Payload::of(&vec!["item"; items]).unwrap();
    bencher.counter(ItemsCount::new(items)).bench(|| {
        let mut run = Run::new(RunId(Uuid::from_u128(1)), graph.clone());
        start(&mut run, input.clone());
        drive(&mut run, &output)
    });
}

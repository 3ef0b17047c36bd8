//! Journals that are valid JSON and were never written: whatever was changed in one is an error when it is read back,
//! or makes another run that can be; never a panic, and never more memory than there is.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::sync::Arc;

use backstitch_saga::protocol::{Failure, FailureKind, Outcome, TaskOutcome};
use backstitch_saga::{
    Command, Event, Graph, Limits, Payload, Record, Run, RunId, Start, TaskKey, Time, Transition,
    decide,
};
use serde_json::{Value, json};
use uuid::Uuid;

/// Makes a fan-out that succeeds, and a step after it that is tried twice, fails, waits for a person and has all
/// undone.
fn definition() -> Value {
    let task = json!({"name": "t", "input": {"const": 1}, "compensate": {"name": "u"},
        "on_failure": "incident", "retry": {"max_attempts": 2, "first_delay": "1ms", "jitter": "none"}});
    let map = json!({"items": {"path": "/input"}, "join": "all", "empty": "succeed",
        "task": {"name": "i", "input": {"path": "/item"}, "compensate": {"name": "u"}}});
    json!({"name": "w", "version": 1, "steps": [
        {"id": "each", "map": map},
        {"id": "no", "when": {"const": false}, "task": {"name": "t", "input": {"const": 1}, "class": "read_only"}},
        {"id": "last", "after": ["each"], "task": task}]})
}

struct Journal {
    graph: Arc<Graph>,
    records: Vec<(Time, Vec<Value>, Vec<Payload>)>,
}

fn journal() -> Journal {
    let graph = Arc::new(Graph::parse(&definition().to_string()).unwrap());
    let mut run = Run::new(RunId(Uuid::from_u128(1)), graph.clone());
    run.set_limits(Limits::default());
    let mut records = Vec::new();
    let mut now = Time(1);
    let start = Start {
        namespace: "default".into(),
        definition: "hash".into(),
        key: None,
        correlation_id: None,
        causation_id: None,
        labels: Default::default(),
        input: Payload::of(&json!([1, 2])).unwrap(),
        holds: Vec::new(),
        parent: None,
        descent: None,
        start_at: None,
        requires: Vec::new(),
        end_by: None,
    };
    let mut commands = vec![Command::Start(start)];
    let mut cancelled = false;
    while run.outcome().is_none() {
        let mut transition = Transition::default();
        transition.record.at = now;
        for command in commands.drain(..) {
            decide(&mut run, command, now, &mut transition).unwrap();
        }
        let record = transition.record;
        if !record.events.is_empty() {
            run.mark_appended();
            let events = record.events.iter().map(|event| serde_json::to_value(event).unwrap());
            records.push((now, events.collect(), record.payloads));
        }
        now = Time(now.0 + 1_000);
        let leased = run.leased();
        commands = if leased.is_empty() {
            run.offered().into_iter().map(|task| hand_out(&task)).collect()
        } else {
            leased.into_iter().map(report).collect()
        };
        commands.push(Command::Tick);
        if run.conditions().contains(&"IncidentOpen") && !cancelled {
            cancelled = true;
            let by = backstitch_saga::By { actor: "ann".into(), reason: "enough".to_owned() };
            commands = vec![Command::Cancel { by }];
        }
        assert!(records.len() < 50, "it does not end: {:#?}", run.view(now));
    }
    assert_eq!(run.outcome(), Some(Outcome::Compensated));
    Journal { graph, records }
}

fn hand_out(task: &TaskKey) -> Command {
    Command::HandOut { task: task.clone(), worker: "w".into() }
}

fn report(task: TaskKey) -> Command {
    let fails = &*task.step.step == "last";
    let outcome = if fails && task.action == backstitch_saga::Action::Forward {
        TaskOutcome::Failed(Failure {
            kind: FailureKind::Retryable,
            code: "no".to_owned(),
            message: "no".to_owned(),
            details: None,
            retry_after: None,
        })
    } else {
        TaskOutcome::Succeeded { output: Payload::of(&json!(7)).unwrap(), external_id: None }
    };
    Command::Report { task, outcome }
}

impl Journal {
    /// Reads the journal back, with one record changed. Every number of what comes of it can be told.
    fn read(&self, at: usize, changed: &[Value]) -> Result<(), String> {
        let mut run = Run::new(RunId(Uuid::from_u128(1)), self.graph.clone());
        for (number, (now, events, payloads)) in self.records.iter().enumerate() {
            let events = if number == at { changed } else { events };
            let events = serde_json::from_value::<Vec<Event>>(json!(events));
            let events = events.map_err(|error| error.to_string())?;
            let record = Record { at: *now, events, payloads: payloads.clone() };
            if let Err(why) = run.try_apply(&record) {
                assert!(
                    !why.contains("contradicts the events before"),
                    "a panic was caught: {why}"
                );
                return Err(why);
            }
        }
        let _told = (run.view(Time(1)), run.why(), run.conditions(), run.snapshot());
        Ok(())
    }

    /// Returns each event of each record.
    fn events(&self) -> impl Iterator<Item = (usize, usize, &Value)> {
        self.records.iter().enumerate().flat_map(|(record, (_, events, _))| {
            events.iter().enumerate().map(move |(place, event)| (record, place, event))
        })
    }

    fn changed(&self, record: usize, place: usize, event: Value) -> Result<(), String> {
        let mut events = self.records[record].1.clone();
        events[place] = event;
        self.read(record, &events)
    }
}

fn tag(event: &Value) -> &str {
    match event {
        Value::String(tag) => tag,
        other => other.as_object().unwrap().keys().next().unwrap(),
    }
}

fn field<'a>(event: &'a Value, name: &str) -> Option<&'a Value> {
    event.as_object()?.values().next()?.get(name)
}

fn with(event: &Value, name: &str, value: Value) -> Value {
    let mut changed = event.clone();
    changed.as_object_mut().unwrap().values_mut().next().unwrap()[name] = value;
    changed
}

#[test]
fn a_journal_as_it_was_written_is_read_back() {
    let journal = journal();
    journal.read(usize::MAX, &[]).unwrap();
    let told: BTreeSet<&str> = journal.events().map(|(_, _, event)| tag(event)).collect();
    for needed in ["opened", "joined", "leased", "failed", "incident_opened", "undone", "ended"] {
        assert!(told.contains(needed), "{needed} is not in {told:?}");
    }
}

#[test]
fn a_count_that_is_negative_or_was_never_reached_is_an_error() {
    let journal = journal();
    for (record, place, event) in journal.events() {
        for name in ["attempt", "total", "incident"] {
            let Some(was) = field(event, name).and_then(Value::as_u64) else { continue };
            let mut wrong =
                vec![json!(-1), json!(1.5), json!(u32::MAX), json!(u64::MAX), json!(was + 2)];
            wrong.extend((name != "attempt").then(|| json!(0)));
            for wrong in wrong {
                let changed = with(event, name, wrong);
                let read = journal.changed(record, place, changed.clone());
                assert!(read.is_err(), "{changed} was read in the place of {event}");
            }
        }
    }
}

#[test]
fn a_step_or_item_that_is_not_there_is_an_error() {
    let journal = journal();
    for (record, place, event) in journal.events() {
        let Some(step) = field(event, "step").and_then(Value::as_str) else { continue };
        if tag(event) == "run_failed" || tag(event) == "incident_opened" {
            // They say where for people.
            continue;
        }
        let item = step.split('/').next().map(|step| format!("{step}/4294967295"));
        for wrong in [Some("nowhere".to_owned()), item].into_iter().flatten() {
            let changed = with(event, "step", json!(wrong));
            let read = journal.changed(record, place, changed.clone());
            assert!(read.is_err(), "{changed} was read in the place of {event}");
        }
    }
}

#[test]
fn what_begins_or_ends_twice_is_an_error() {
    let journal = journal();
    let once = [
        "started",
        "skipped",
        "opened",
        "leased",
        "failed",
        "succeeded",
        "joined",
        "incident_opened",
        "incident_resolved",
        "gave_up",
        "ended",
    ];
    for (record, place, event) in journal.events().filter(|one| once.contains(&tag(one.2))) {
        let mut events = journal.records[record].1.clone();
        events.insert(place, event.clone());
        assert!(journal.read(record, &events).is_err(), "{event} was read twice");
    }
}

#[test]
fn whatever_is_changed_is_read_or_refused() {
    let journal = journal();
    let (mut read, mut refused) = (0, 0);
    let mut count = |answer: Result<(), String>| {
        *(if answer.is_ok() { &mut read } else { &mut refused }) += 1;
    };
    for (record, place, event) in journal.events() {
        let mut events = journal.records[record].1.clone();
        events.remove(place);
        count(journal.read(record, &events));
        // Another event of the journal in its place, and beside it.
        for (_, _, other) in journal.events() {
            count(journal.changed(record, place, other.clone()));
            let mut events = journal.records[record].1.clone();
            events.insert(place, other.clone());
            count(journal.read(record, &events));
        }
        let Some(fields) = event.as_object().and_then(|event| event.values().next()) else {
            continue;
        };
        for name in fields.as_object().into_iter().flat_map(|fields| fields.keys()) {
            for wrong in
                [json!(0), json!(i64::MAX), json!(i64::MIN), json!(null), json!(""), json!([])]
            {
                count(journal.changed(record, place, with(event, name, wrong)));
            }
        }
    }
    assert!(refused > read && read > 0, "{refused} were refused, {read} were read");
}

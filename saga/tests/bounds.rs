//! Bounds of the documents inside a run: gathered outputs, inputs that expressions build, records. Each run here is
//! also checked by the laws: its journal folds to it, and so does a snapshot of it.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::needless_pass_by_value, reason = "tests pass values that they just made")]

use std::sync::Arc;

use backstitch_saga::protocol::{Outcome, TaskOffer, TaskOutcome};
use backstitch_saga::{
    Command, Event, Graph, Limits, Payload, Record, Run, RunId, Source, Start, StepPath, Time,
    Transition, decide,
};
use serde_json::{Value, json};
use uuid::Uuid;

/// A run that is driven by hand.
struct Trial {
    graph: Arc<Graph>,
    run: Run,
    records: Vec<Record>,
}

impl Trial {
    fn new(definition: &Value, limits: Limits) -> Trial {
        let mut definition = definition.clone();
        (definition["name"], definition["version"]) = (json!("w"), json!(1));
        let graph = Arc::new(Graph::parse(&definition.to_string()).unwrap());
        let mut run = Run::new(RunId(Uuid::from_u128(1)), graph.clone());
        run.set_limits(limits);
        Trial { graph, run, records: Vec::new() }
    }

    fn begun(definition: &Value, limits: Limits, input: &Value) -> Trial {
        let mut trial = Trial::new(definition, limits);
        let start = Start {
            namespace: "default".into(),
            definition: "hash".into(),
            key: None,
            correlation_id: None,
            causation_id: None,
            labels: Default::default(),
            input: Payload::of(input).unwrap(),
            holds: Vec::new(),
            parent: None,
            descent: None,
            start_at: None,
            requires: Vec::new(),
            end_by: None,
        };
        trial.record(vec![Command::Start(start)]);
        trial
    }

    fn record(&mut self, commands: Vec<Command>) {
        let mut transition = Transition::default();
        for command in commands {
            decide(&mut self.run, command, Time(0), &mut transition).unwrap();
        }
        self.records.push(transition.record);
    }

    /// Lets begin what was deferred, and hands everything out. What was on offer.
    fn claim(&mut self) -> Vec<TaskOffer> {
        while self.run.next_due().is_some_and(|due| due <= Time(0)) {
            self.record(vec![Command::Tick]);
        }
        let offered = self.run.offered();
        let worker = Arc::from("w");
        let hand_out = |task| Command::HandOut { task, worker: Arc::clone(&worker) };
        self.record(offered.iter().cloned().map(hand_out).collect());
        offered.iter().map(|task| self.run.offer(task).unwrap()).collect()
    }

    /// Does everything until the run ends: a step or item gives what `output` says.
    fn finish(&mut self, output: impl Fn(&TaskOffer) -> Value) {
        while self.run.outcome().is_none() {
            let claimed = self.claim();
            assert!(!claimed.is_empty() || self.run.outcome().is_some(), "the run stands still");
            let report = |offer: TaskOffer| Command::Report {
                outcome: TaskOutcome::Succeeded {
                    output: Payload::of(&output(&offer)).unwrap(),
                    external_id: None,
                },
                task: backstitch_saga::TaskKey {
                    step: offer.step,
                    action: offer.action,
                    attempt: offer.attempt,
                },
            };
            self.record(claimed.into_iter().map(report).collect());
        }
        self.holds_to_the_laws();
    }

    fn holds_to_the_laws(&self) {
        let mut folded = Run::new(self.run.id(), self.graph.clone());
        self.records
            .iter()
            .filter(|record| !record.events.is_empty())
            .for_each(|record| folded.try_apply(record).unwrap());
        let seq = |snapshot: String| snapshot.split_once("\"folded\"").unwrap().1.to_owned();
        let snapshot = self.run.snapshot();
        assert!(
            seq(folded.snapshot()) == seq(snapshot.clone()),
            "the journal folds to another run"
        );
        let restored = Run::restore(self.run.id(), self.graph.clone(), &snapshot).unwrap();
        assert!(restored.snapshot() == snapshot, "a snapshot gives another run back");
    }

    /// Returns the code and the message of what the run, or one of its steps, failed of.
    fn error(&self) -> (String, String) {
        let view = self.run.view(Time(0));
        let steps = view.steps.into_iter().filter_map(|step| step.error);
        let error = view.error.map(|error| error.failure).into_iter().chain(steps).next();
        error.map(|error| (error.code, error.message)).unwrap_or_default()
    }

    fn count(&self, wanted: fn(&Event) -> bool) -> usize {
        self.records.iter().flat_map(|record| &record.events).filter(|event| wanted(event)).count()
    }

    fn largest_record(&self) -> usize {
        let bytes = |record: &Record| -> usize {
            record.payloads.iter().map(|document| document.text().len()).sum()
        };
        self.records.iter().map(bytes).max().unwrap_or_default()
    }
}

fn small() -> Limits {
    Limits { built: 500, whole: 2_000, record: 4_000, list: 4_000, ..Limits::default() }
}

fn map(items: &str, input: Value) -> Value {
    json!({"items": {"path": items}, "join": "all", "empty": "succeed",
        "task": {"name": "i", "input": input, "class": "read_only"}})
}

fn task(input: Value) -> Value {
    json!({"name": "t", "input": input, "class": "read_only"})
}

/// Makes a fan-out `m` over the input, undone when the run fails, and a step `n` after it.
fn gather_into(n: Value) -> Value {
    let mut m = map("/input", json!({"path": "/item"}));
    m["task"] = json!({"name": "i", "input": {"path": "/item"}, "compensate": {"name": "u"}});
    json!({"steps": [{"id": "m", "map": m}, n]})
}

/// Returns `bytes` bytes of JSON.
fn text(bytes: usize) -> Value {
    json!("x".repeat(bytes - 2))
}

#[test]
fn gathered_outputs_of_more_than_a_mebibyte_are_the_input_of_a_step() {
    let n = json!({"id": "n", "after": ["m"], "task": task(json!({"path": "/steps/m"}))});
    let input: Vec<u32> = (0..12).collect();
    let mut trial = Trial::begun(&gather_into(n), Limits::default(), &json!(input));
    trial.finish(|offer| match offer.step.item {
        Some(_) => text(100_000),
        None => json!(offer.input.elements().unwrap().len()),
    });
    assert_eq!(trial.run.outcome(), Some(Outcome::Succeeded));
    assert_eq!(trial.run.step_view(&StepPath::step("n")).unwrap().output.unwrap().text(), "12");
}

#[test]
fn gathered_outputs_too_large_for_what_they_become_are_an_error_with_sizes() {
    let whole = json!({"path": "/steps/m"});
    let limited = "the 12 outputs of 'm' have 2413 bytes together; 2000 are allowed here";
    for (n, expected, message) in [
        (json!({"task": task(whole.clone())}), "outputs_too_large", limited),
        (
            json!({"task": task(json!({"default": [whole, {"const": []}]}))}),
            "outputs_too_large",
            limited,
        ),
        (
            json!({"when": {"eq": [whole, {"const": []}]}, "task": task(json!({"const": 1}))}),
            "outputs_too_large",
            limited,
        ),
        (
            json!({"task": task(json!({"object": {"all": whole}}))}),
            "outputs_too_large",
            "2413 bytes together; 493 are allowed here",
        ),
        (
            json!({"task": task(json!({"array": [{"path": "/steps/m/0"}, {"path": "/steps/m/1"}, {"path": "/steps/m/2"}]}))}),
            "input_too_large",
            "500 are allowed",
        ),
        (
            json!({"child": {"workflow": "other", "input": whole}}),
            "outputs_too_large",
            "500 are allowed here",
        ),
    ] {
        let mut n = n;
        (n["id"], n["after"]) = (json!("n"), json!(["m"]));
        let input: Vec<u32> = (0..12).collect();
        let mut trial = Trial::begun(&gather_into(n.clone()), small(), &json!(input));
        trial.finish(|_| text(200));
        let (code, said) = trial.error();
        assert_eq!(code, expected, "{n}");
        assert!(said.contains(message), "{said}");
        assert_eq!(trial.run.outcome(), Some(Outcome::Compensated), "{n}");
        let offered =
            |event: &Event| matches!(event, Event::Offered { step, .. } if &*step.step == "n");
        assert_eq!(trial.count(offered), 0, "nothing was asked of a worker: {n}");
    }
}

#[test]
fn gathered_outputs_too_large_for_the_output_of_a_run_are_an_error_of_their_own() {
    let mut definition = gather_into(json!({"id": "n", "task": task(json!({"const": 1}))}));
    definition["output"] = json!({"path": "/steps/m"});
    let mut trial = Trial::begun(&definition, small(), &json!([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]));
    trial.finish(|_| text(200));
    assert_eq!(trial.error().0, "outputs_too_large");
    let mut trial = Trial::begun(&definition, small(), &json!([0, 1, 2, 3]));
    trial.finish(|_| text(200));
    assert_eq!(trial.run.outcome(), Some(Outcome::Succeeded));
    assert_eq!(trial.run.view(Time(0)).output.unwrap().elements().unwrap().len(), 4);
}

#[test]
fn one_output_of_many_is_found_whatever_all_of_them_have() {
    let input = json!({"object": {
        "first": {"path": "/steps/m/0/n"},
        "last": {"path": "/steps/m/99/n"},
        "beyond": {"default": [{"path": "/steps/m/100"}, {"const": "none"}]},
        "count": {"length": {"path": "/steps/m"}},
        "there": {"exists": "/steps/m"},
        "more": {"exists": "/steps/m/100"},
    }});
    let n = json!({"id": "n", "after": ["m"], "when": {"lt": [{"path": "/steps/m/3/n"}, {"const": 4}]},
        "task": task(input)});
    let input: Vec<u32> = (0..100).collect();
    let mut trial = Trial::begun(&gather_into(n), small(), &json!(input));
    let expected = json!({"beyond": "none", "count": 100, "first": 0, "last": 99, "more": false, "there": true});
    trial.finish(|offer| match offer.step.item {
        Some(item) => json!({"n": item, "text": text(200)}),
        None => {
            assert_eq!(offer.input.to::<Value>().unwrap(), expected);
            Value::Null
        }
    });
    assert_eq!(trial.run.outcome(), Some(Outcome::Succeeded));
}

#[test]
fn a_fan_out_goes_over_the_gathered_outputs_of_another() {
    let m = map("/input", json!({"path": "/index"}));
    let n = map("/steps/m", json!({"path": "/item"}));
    let definition = json!({"steps": [{"id": "m", "map": m}, {"id": "n", "map": n}]});
    let items = 100_000;
    let mut trial = Trial::begun(&definition, Limits::default(), &json!(vec![0; items]));
    trial.finish(|_| json!("elevenbyt"));
    assert_eq!(trial.run.outcome(), Some(Outcome::Succeeded));
    let opened = |event: &Event| {
        matches!(event, Event::Opened { total: 100_000, items: Source::Same(_), .. })
    };
    assert_eq!(trial.count(opened), 2);
    // Nothing of the list stands in the journal a second time.
    assert!(trial.largest_record() < 300_000, "{}", trial.largest_record());
}

#[test]
fn outputs_that_a_join_did_not_see_do_not_count() {
    let mut m = map("/input", json!({"path": "/item"}));
    (m["join"], m["max_concurrency"]) = (json!({"quorum": 2}), json!(2));
    let n = json!({"id": "n", "task": task(json!({"object": {
        "all": {"path": "/steps/m"}, "last": {"path": "/steps/m/1"}, "count": {"length": {"path": "/steps/m"}}}}))});
    let definition = json!({"steps": [{"id": "m", "map": m}, n]});
    let mut trial = Trial::begun(&definition, Limits::default(), &json!(["a", "b", "c"]));
    trial.finish(|offer| match offer.step.item {
        Some(_) => offer.input.to().unwrap(),
        None => {
            assert_eq!(offer.input.text(), r#"{"all":["a","b"],"count":2,"last":"b"}"#);
            Value::Null
        }
    });
}

#[test]
fn an_input_that_grows_too_large_fails_its_item_before_anything_is_written() {
    let eight = vec![json!({"path": "/input/b"}); 8];
    let mut m = map("/input/list", json!({"array": eight}));
    m["join"] = json!("best_effort");
    let definition = json!({"steps": [{"id": "m", "map": m}]});
    let input = json!({"list": vec![0; 10_000], "b": "x".repeat(200_000)});
    let mut trial = Trial::begun(&definition, Limits::default(), &input);
    trial.finish(|_| Value::Null);
    let error = trial.run.items("m", None, 9_999, 1).unwrap().pop().unwrap().error.unwrap();
    assert_eq!(error.code, "input_too_large");
    assert!(error.message.contains("262144 are allowed"), "{}", error.message);
    assert!(trial.largest_record() < 300_000);
}

#[test]
fn what_does_not_fit_into_a_record_begins_with_the_next() {
    let built = json!({"array": [{"path": "/input/b"}]});
    let mut steps: Vec<Value> = (0..20)
        .map(|step| json!({"id": format!("s{step}"), "task": task(built.clone())}))
        .collect();
    steps.push(json!({"id": "m", "map": map("/input/list", built)}));
    let limits = Limits { record: 10_000, built: 2_000, ..Limits::default() };
    let input = json!({"list": vec![0; 50], "b": "x".repeat(1_000)});
    let mut trial = Trial::begun(&json!({"steps": steps}), limits, &input);
    assert!(trial.run.offered().len() < 20, "not all at once");
    trial.finish(|_| Value::Null);
    assert_eq!(trial.run.outcome(), Some(Outcome::Succeeded));
    assert!(trial.count(|event| matches!(event, Event::Deferred { .. })) > 5);
    assert!(trial.largest_record() < 12_000, "{}", trial.largest_record());
}

#[test]
fn a_record_of_the_largest_items_is_small_and_the_rest_begins_with_the_next() {
    let eight = json!({"array": vec![json!({"path": "/input/b"}); 8]});
    let definition = json!({"steps": [{"id": "m", "map": map("/input/list", eight)}]});
    let input = json!({"list": vec![0; 40], "b": "x".repeat(30_000)});
    let mut trial = Trial::begun(&definition, Limits::default(), &input);
    assert_eq!(trial.claim().len(), 40);
    assert!(trial.count(|event| matches!(event, Event::Deferred { .. })) >= 6);
    assert!(trial.largest_record() < 1_310_720, "{}", trial.largest_record());
}

#[test]
fn events_fill_a_record_as_documents_do() {
    let definition = json!({"steps": [{"id": "m", "map": map("/input", json!({"const": 0}))}]});
    let limits = Limits { record: 10_000, ..Limits::default() };
    let mut trial = Trial::begun(&definition, limits, &json!(vec![0; 500]));
    assert_eq!(trial.claim().len(), 500);
    let events = |record: &Record| {
        record.events.iter().filter(|event| matches!(event, Event::Offered { .. })).count()
    };
    assert!(trial.records.iter().all(|record| events(record) < 100));
}

#[test]
fn a_run_that_was_deferred_goes_on_after_it_was_folded_anew() {
    let m = map("/input/list", json!({"array": [{"path": "/input/b"}]}));
    let definition = json!({"steps": [{"id": "m", "map": m}]});
    let limits = Limits { record: 10_000, built: 2_000, ..Limits::default() };
    let input = json!({"list": vec![0; 50], "b": "x".repeat(1_000)});
    let mut trial = Trial::begun(&definition, limits, &input);
    assert_eq!(trial.run.next_due(), Some(Time(0)));
    let mut folded = Run::new(trial.run.id(), trial.graph.clone());
    trial.records.iter().for_each(|record| folded.try_apply(record).unwrap());
    assert_eq!(folded.next_due(), Some(Time(0)));
    let snapshot = trial.run.snapshot();
    trial.run = Run::restore(trial.run.id(), trial.graph.clone(), &snapshot).unwrap();
    trial.run.set_limits(limits);
    assert_eq!(trial.claim().len(), 50);
    assert_ne!(trial.run.next_due(), Some(Time(0)));
}

#[test]
fn the_inputs_of_a_run_are_bounded_in_all() {
    let mut m = map("/input/list", json!({"array": [{"path": "/input/b"}]}));
    m["task"]["on_failure"] = json!("compensate");
    let definition = json!({"steps": [{"id": "m", "map": m}]});
    let limits = Limits { record: 10_000, built: 2_000, run: 30_000, ..Limits::default() };
    let input = json!({"list": vec![0; 50], "b": "x".repeat(1_000)});
    let mut trial = Trial::begun(&definition, limits, &input);
    trial.finish(|_| Value::Null);
    let (code, message) = trial.error();
    assert_eq!(code, "inputs_too_large");
    assert!(message.contains("30000 are allowed in all"), "{message}");
    assert!(trial.run.built_bytes() <= 30_000);
}

#[test]
fn the_outputs_of_a_run_are_bounded_in_all_and_small_ones_have_always_room() {
    let mut m = map("/input/list", json!({"path": "/item"}));
    m["join"] = json!("best_effort");
    let definition = json!({"steps": [{"id": "m", "map": m}]});
    let limits = Limits { outputs: 5_500, ..Limits::default() };
    let input = json!({"list": (0..10).collect::<Vec<_>>()});
    let mut trial = Trial::begun(&definition, limits, &input);
    let offers = trial.claim();
    assert_eq!(offers.len(), 10);
    let report = |offer: &TaskOffer, bytes: usize| Command::Report {
        task: backstitch_saga::TaskKey {
            step: offer.step.clone(),
            action: offer.action,
            attempt: offer.attempt,
        },
        outcome: TaskOutcome::Succeeded {
            output: Payload::of(&"y".repeat(bytes - 2)).unwrap(),
            external_id: None,
        },
    };
    let (large, small) = offers.split_at(8);
    trial.record(large.iter().map(|offer| report(offer, 1_000)).collect());
    assert_eq!(trial.run.output_bytes(), 5_000);
    let done = |event: &Event| matches!(event, Event::Failed { done: true, error, .. } if error.code == "outputs_too_large");
    assert_eq!(trial.count(done), 3);
    // Said once more, it is the same.
    let events = trial.count(|_| true);
    trial.record(vec![report(&large[7], 1_000)]);
    assert_eq!(trial.count(|_| true), events);
    trial.record(small.iter().map(|offer| report(offer, 60)).collect());
    assert_eq!(trial.run.output_bytes(), 5_120);
    trial.holds_to_the_laws();
}

#[test]
fn a_shared_input_is_kept_once() {
    let definition = json!({"steps": [
        {"id": "a", "task": task(json!({"path": "/input"}))},
        {"id": "m", "map": map("/input/list", json!({"path": "/input"})), "after": ["a"]},
        {"id": "n", "map": map("/input/list", json!({"path": "/steps/a"}))},
    ]});
    let input = json!({"list": vec![0; 1_000], "b": "x".repeat(100_000)});
    let mut trial = Trial::begun(&definition, Limits::default(), &input);
    trial.claim();
    let report = Command::Report {
        task: trial.run.leased().pop().unwrap(),
        outcome: TaskOutcome::Succeeded {
            output: Payload::of(&"y".repeat(100_000)).unwrap(),
            external_id: None,
        },
    };
    trial.record(vec![report]);
    let offers = trial.claim();
    assert_eq!(offers.len(), 2_000);
    let snapshot = trial.run.snapshot();
    assert!(snapshot.len() < 1_500_000, "{}", snapshot.len());
    let restored = Run::restore(trial.run.id(), trial.graph.clone(), &snapshot).unwrap();
    for task in restored.leased() {
        let (here, there) = (trial.run.offer(&task).unwrap(), restored.offer(&task).unwrap());
        assert!(here.input == there.input && !here.input.is_null());
    }
}

#[test]
fn a_snapshot_of_the_first_format_is_read() {
    let definition = json!({"steps": [{"id": "a", "task": task(json!({"path": "/input"}))}]});
    let mut trial = Trial::begun(&definition, Limits::default(), &json!("in"));
    trial.claim();
    let snapshot = trial.run.snapshot();
    let first = snapshot
        .replace("\"format\":2", "\"format\":1")
        .replace("\"shared\":\"run_input\"", "\"input\":\"in\"");
    assert_ne!(first, snapshot);
    let restored = Run::restore(trial.run.id(), trial.graph.clone(), &first).unwrap();
    let task = restored.leased().pop().unwrap();
    assert_eq!(restored.offer(&task).unwrap().input.text(), r#""in""#);
}

#[test]
fn a_condition_that_compares_too_much_is_an_error() {
    let (a, b) = (json!({"path": "/input/a"}), json!({"path": "/input/b"}));
    let many = vec![json!({"ne": [a, b]}); 150];
    let definition =
        json!({"steps": [{"id": "a", "when": {"and": many}, "task": task(json!({"const": 1}))}]});
    let list = |last: u32| (0..15_000).map(|_| 0).chain([last]).collect::<Vec<u32>>();
    let trial = Trial::begun(&definition, Limits::default(), &json!({"a": list(1), "b": list(2)}));
    assert_eq!(trial.error().0, "expression_too_costly");
    let compared = json!({"ne": [{"path": "/input/a"}, {"path": "/input/b"}]});
    let steps: Vec<Value> = (0..200)
        .map(|step| json!({"id": format!("s{step}"), "when": compared, "task": task(json!({"const": 1}))}))
        .collect();
    let mut trial = Trial::begun(
        &json!({"steps": steps}),
        Limits::default(),
        &json!({"a": list(1), "b": list(2)}),
    );
    assert!(trial.count(|event| matches!(event, Event::Deferred { .. })) > 0);
    assert_eq!(trial.claim().len(), 200);
    let eight = vec![json!({"path": "/input/a"}); 8];
    let equal = json!({"eq": [{"array": eight}, {"array": eight}]});
    let definition =
        json!({"steps": [{"id": "a", "when": equal, "task": task(json!({"const": 1}))}]});
    let trial = Trial::begun(
        &definition,
        Limits { built: 100_000, ..Limits::default() },
        &json!({"a": list(1)}),
    );
    assert_eq!(trial.error().0, "result_too_large");
}

#[test]
fn items_too_large_for_a_record_are_an_error_of_their_own() {
    let m = json!({"items": {"array": vec![json!({"path": "/input"}); 6]}, "join": "all", "empty": "succeed",
        "task": {"name": "i", "input": {"path": "/item"}, "class": "read_only"}});
    let definition = json!({"steps": [{"id": "m", "map": m}]});
    let trial = Trial::begun(&definition, small(), &text(1_000));
    assert_eq!(trial.error().0, "items_too_large");
}

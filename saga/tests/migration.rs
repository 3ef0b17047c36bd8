//! Runs that move to another version, told one by one and at random; `PROPTEST_CASES=20000` tries more of the latter.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use backstitch_saga::protocol::{
    Failure, FailureKind, Mapping, ObstacleKind, Outcome, RunView, State, TaskOutcome,
};
use backstitch_saga::{
    Action, By, Command, Event, Graph, Migration, Payload, Record, Refusal, RefusalCode, Run,
    RunId, Start, TaskKey, Time, Transition, decide,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

/// A run with its journal; whatever is asked of it is held to the laws.
struct Trial {
    run: Run,
    now: Time,
    first: Arc<Graph>,
    graphs: Vec<Arc<Graph>>,
    journal: Vec<Record>,
}

impl Trial {
    fn new(definition: &Value, input: &Value) -> Trial {
        let first = graph(definition);
        let run = Run::new(RunId(Uuid::from_u128(7)), first.clone());
        let mut trial =
            Trial { run, now: Time(1_000), first, graphs: Vec::new(), journal: Vec::new() };
        trial
            .ask(Command::Start(Start {
                namespace: "default".into(),
                definition: "hash-1".into(),
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
            }))
            .unwrap();
        trial
    }

    fn ask(&mut self, command: Command) -> Result<(), Refusal> {
        let mut transition = Transition::default();
        let answer = decide(&mut self.run, command.clone(), self.now, &mut transition);
        let record = transition.record;
        if let (Command::Migrate(migration), Ok(_)) = (&command, &answer) {
            self.graphs.push(migration.graph.clone());
        }
        if !record.events.is_empty() {
            self.run.mark_appended();
            self.journal.push(record);
        }
        assert_eq!(self.folded().snapshot(), self.run.snapshot(), "folding gives another run");
        let graph = self.run.graph().clone();
        let restored = Run::restore(self.run.id(), graph, &self.run.snapshot()).unwrap();
        // An item that waits for a place has no timer, and is found again by one after a restore.
        let told = |run: &Run| RunView { next_at: None, ..run.view(self.now) };
        let text = |view: RunView| serde_json::to_value(view).unwrap();
        assert_eq!(
            text(told(&restored)),
            text(told(&self.run)),
            "a restored run tells another story"
        );
        assert_eq!(restored.offered(), self.run.offered());
        if answer.is_ok() {
            let before = self.run.snapshot();
            let mut again = Transition::default();
            decide(&mut self.run, command, self.now, &mut again).unwrap();
            assert_eq!(
                (again.record.events.len(), before),
                (0, self.run.snapshot()),
                "twice is not once"
            );
        }
        self.check_sound();
        answer.map(|_| ())
    }

    /// Folds the run from its journal, told of each definition before the record that names it.
    fn folded(&self) -> Run {
        let mut run = Run::new(self.run.id(), self.first.clone());
        for record in &self.journal {
            for event in &record.events {
                if let Event::Migrated { version, .. } = event {
                    let known = |graph: &&Arc<Graph>| graph.definition.version == *version;
                    run.learn(self.graphs.iter().find(known).unwrap().clone());
                }
            }
            run.try_apply(record).unwrap();
        }
        run
    }

    fn check_sound(&self) {
        let view = self.run.view(self.now);
        assert_eq!(view.progress.steps.values().sum::<u32>(), view.progress.steps_total);
        assert_eq!(view.progress.items.values().sum::<u32>(), view.progress.items_total);
        let moves =
            !self.run.offered().is_empty() || self.run.in_flight() || self.run.next_due().is_some();
        let person = self.run.conditions().contains(&"IncidentOpen");
        assert!(
            view.state == State::Ended || moves || person,
            "nothing will ever move it: {view:#?}"
        );
    }

    fn migrate(&mut self, definition: &Value, mapping: Value) -> Result<(), Refusal> {
        let graph = graph(definition);
        let mapping: Mapping = serde_json::from_value(mapping).unwrap();
        assert_eq!(mapping.check(self.run.graph(), &graph), vec![]);
        let version = graph.definition.version;
        self.ask(Command::Migrate(Migration {
            from: self.run.version(),
            graph,
            definition: format!("hash-{version}").into(),
            mapping,
            by: by(),
            checked: Vec::new(),
        }))
    }

    /// Returns the obstacles to its move.
    fn obstacles(&self, definition: &Value, mapping: Value) -> Vec<(ObstacleKind, String)> {
        let mapping: Mapping = serde_json::from_value(mapping).unwrap();
        let found = self.run.obstacles(&graph(definition), &mapping);
        found.into_iter().map(|one| (one.kind, one.step.unwrap_or_default())).collect()
    }

    fn take(&mut self, step: &str) -> TaskKey {
        let task = self.run.offered().into_iter().find(|task| task.step.to_string() == step);
        let task =
            task.unwrap_or_else(|| panic!("{step} is not on offer: {:?}", self.run.offered()));
        self.ask(Command::HandOut { task: task.clone(), worker: "w".into() }).unwrap();
        task
    }

    fn report(&mut self, task: &TaskKey, outcome: TaskOutcome) {
        self.ask(Command::Report { task: task.clone(), outcome }).unwrap();
    }

    fn succeed(&mut self, step: &str) {
        let task = self.take(step);
        self.report(&task, success());
    }

    fn offered(&self) -> Vec<String> {
        self.run.offered().iter().map(ToString::to_string).collect()
    }

    /// Ends the run: everything works from now on, and a person does their part.
    fn heal(&mut self) -> Outcome {
        for _ in 0..2_000 {
            if let Some(outcome) = self.run.outcome() {
                return outcome;
            }
            if let Some(task) = self.run.leased().into_iter().next() {
                self.report(&task, success());
            } else if let Some(task) = self.run.offered().into_iter().next() {
                self.ask(Command::HandOut { task, worker: "healer".into() }).unwrap();
            } else if let Some(due) = self.run.next_due() {
                self.now = due.max(self.now);
                self.ask(Command::Tick).unwrap();
            } else {
                // Undoing was blocked when one worker after the other was lost over it.
                self.ask(Command::Retry { step: None, input: None, by: by() }).unwrap();
            }
        }
        panic!("the run does not end: {:#?}", self.run.view(self.now));
    }
}

fn by() -> By {
    By { actor: "ann".into(), reason: "the new card service".into() }
}

fn success() -> TaskOutcome {
    TaskOutcome::Succeeded { output: Payload::of(&1).unwrap(), external_id: None }
}

fn failure(kind: FailureKind) -> TaskOutcome {
    TaskOutcome::Failed(Failure {
        kind,
        code: "broken".into(),
        message: "it broke".into(),
        details: None,
        retry_after: None,
    })
}

fn graph(definition: &Value) -> Arc<Graph> {
    let parsed = Graph::parse(&definition.to_string());
    Arc::new(parsed.unwrap_or_else(|errors| panic!("{errors:?}\n{definition:#}")))
}

fn task(id: &str, after: &[&str]) -> Value {
    json!({"id": id, "after": after, "task": {
        "name": format!("do_{id}"), "input": {"path": "/input"}, "compensate": {"name": format!("undo_{id}")},
        "retry": {"first_delay": "1s", "jitter": "none", "max_attempts": 3}, "timeouts": {"heartbeat": "10s"}}})
}

fn map(id: &str, after: &[&str], places: u32) -> Value {
    json!({"id": id, "after": after, "map": {
        "items": {"path": "/input"}, "join": "all", "empty": "succeed", "max_concurrency": places,
        "task": {"name": format!("do_{id}"), "input": {"path": "/item"}, "compensate": {"name": "undo"},
            "retry": {"first_delay": "1s", "jitter": "none"}, "timeouts": {"heartbeat": "10s"}}}})
}

fn version(version: u32, steps: &[Value]) -> Value {
    json!({"name": "order", "version": version, "timeout": "1h", "steps": steps})
}

#[test]
fn what_is_done_is_kept_and_what_is_new_is_done() {
    let mut trial = Trial::new(&version(1, &[task("a", &[]), task("b", &["a"])]), &json!(null));
    trial.succeed("a");
    let longer = version(2, &[task("a", &[]), task("b", &["a"]), task("c", &["b"])]);
    trial.migrate(&longer, json!({})).unwrap();
    assert_eq!((trial.run.version(), trial.run.definition()), (2, "hash-2"));
    assert_eq!(trial.offered(), ["forward b #1"]);
    trial.succeed("b");
    let c = trial.take("c");
    trial.report(&c, failure(FailureKind::Permanent));
    assert_eq!(trial.heal(), Outcome::Compensated);
    let undone =
        trial.journal.iter().flat_map(|record| &record.events).filter_map(|event| match event {
            Event::Undone { step, .. } => Some(step.to_string()),
            _ => None,
        });
    assert_eq!(undone.collect::<Vec<_>>(), ["b", "a"]);
}

#[test]
fn a_fan_out_goes_on_in_the_middle() {
    let mut trial = Trial::new(&version(1, &[map("each", &[], 2)]), &json!([1, 2, 3, 4, 5]));
    trial.succeed("each/0");
    let leased = trial.take("each/1");
    // More places: the items that wait for one are offered at once.
    trial.migrate(&version(2, &[map("each", &[], 4), task("last", &["each"])]), json!({})).unwrap();
    assert_eq!(trial.offered(), ["forward each/2 #1", "forward each/3 #1", "forward each/4 #1"]);
    assert_eq!(trial.run.leased(), std::slice::from_ref(&leased));
    trial.report(&leased, success());
    for item in ["each/2", "each/3", "each/4", "last"] {
        trial.succeed(item);
    }
    assert_eq!(trial.run.outcome(), Some(Outcome::Succeeded));
}

#[test]
fn a_join_that_is_met_in_the_new_version_fires() {
    let mut trial = Trial::new(&version(1, &[map("each", &[], 9)]), &json!([1, 2, 3]));
    trial.succeed("each/1");
    let mut any = version(2, &[map("each", &[], 9)]);
    any["steps"][0]["map"]["join"] = json!("any");
    trial.migrate(&any, json!({})).unwrap();
    assert_eq!(trial.run.outcome(), Some(Outcome::Succeeded));
}

#[test]
fn a_step_in_backoff_keeps_its_attempts_and_its_time() {
    let mut trial = Trial::new(&version(1, &[task("a", &[])]), &json!(null));
    let first = trial.take("a");
    trial.report(&first, failure(FailureKind::Retryable));
    let due = trial.run.next_due().unwrap();
    let key = trial.run.view(trial.now).steps[0].effect_key;
    trial.migrate(&version(2, &[task("pay", &[])]), json!({"steps": {"a": "pay"}})).unwrap();
    assert_eq!((trial.run.next_due(), trial.offered().len()), (Some(due), 0));
    trial.now = due;
    trial.ask(Command::Tick).unwrap();
    assert_eq!(trial.offered(), ["forward pay #2"]);
    // It is the same effect, whatever it is called.
    let offer = trial.run.offer(&trial.run.offered()[0]).unwrap();
    assert_eq!((offer.effect_key, offer.name.as_str()), (key, "do_pay"));
    assert_eq!(trial.heal(), Outcome::Succeeded);
}

#[test]
fn a_worker_may_report_under_the_old_name() {
    let mut trial = Trial::new(&version(1, &[task("a", &[])]), &json!(null));
    let task_in_hand = trial.take("a");
    trial.migrate(&version(2, &[task("pay", &[])]), json!({"steps": {"a": "pay"}})).unwrap();
    trial.ask(Command::Beat { task: task_in_hand.clone(), details: None }).unwrap();
    let old = TaskKey { attempt: 0, ..task_in_hand.clone() };
    let refused = trial.ask(Command::Report { task: old, outcome: success() }).unwrap_err();
    assert_eq!(refused.code, RefusalCode::LeaseLost);
    trial.report(&task_in_hand, success());
    assert_eq!(trial.run.outcome(), Some(Outcome::Succeeded));
    assert_eq!(trial.run.view(trial.now).steps[0].step.to_string(), "pay");
}

#[test]
fn a_task_on_offer_is_offered_anew_where_the_new_version_wants_it() {
    let mut trial = Trial::new(&version(1, &[task("a", &[]), task("b", &[])]), &json!(null));
    let before = trial.run.offered();
    let mut moved = version(2, &[task("a", &[]), task("b", &[])]);
    moved["steps"][0]["task"]["queue"] = json!("slow");
    trial.migrate(&moved, json!({})).unwrap();
    assert_eq!(trial.offered(), ["forward a #2", "forward b #1"]);
    let stale = Command::HandOut { task: before[0].clone(), worker: "w".into() };
    assert_eq!(trial.ask(stale).unwrap_err().code, RefusalCode::NotOffered);
    assert_eq!(trial.run.route(&trial.run.offered()[0]), Some(("slow", "do_a")));
}

#[test]
fn each_obstacle_is_told() {
    let old = version(1, &[task("a", &[]), task("b", &["a"]), task("c", &["b"])]);
    let mut trial = Trial::new(&old, &json!([]));
    trial.succeed("a");
    let b = trial.take("b");
    let expect =
        |trial: &Trial, steps: &[Value], mapping: Value, expected: &[(ObstacleKind, &str)]| {
            let new = version(2, steps);
            let expected: Vec<_> =
                expected.iter().map(|(kind, step)| (*kind, (*step).to_owned())).collect();
            assert_eq!(trial.obstacles(&new, mapping), expected, "{new:#}");
        };
    use ObstacleKind::*;
    // Steps that have not begun may go, change and come as they like.
    expect(&trial, &[task("a", &[]), task("b", &["a"]), map("c", &["b"], 1)], json!({}), &[]);
    expect(&trial, &[task("a", &[]), task("b", &["a"])], json!({}), &[]);
    expect(&trial, &[task("c", &[])], json!({}), &[(NeedsMapping, "a"), (NeedsMapping, "b")]);
    let dropped = json!({"steps": {"a": null, "b": null}});
    expect(&trial, &[task("c", &[])], dropped, &[(CompensationGone, "a"), (InFlight, "b")]);
    let accepted = json!({"steps": {"a": null}, "without_undo": ["a"]});
    expect(&trial, &[task("b", &[])], accepted, &[]);
    expect(&trial, &[map("a", &[], 1), task("b", &["a"])], json!({}), &[(KindChanged, "a")]);
    let mut gone = task("a", &[]);
    gone["task"].as_object_mut().unwrap().remove("compensate");
    gone["task"]["class"] = json!("read_only");
    expect(&trial, &[gone, task("b", &["a"])], json!({}), &[(CompensationGone, "a")]);
    let reused = json!({"steps": {"a": "z"}});
    expect(
        &trial,
        &[task("z", &[]), task("a", &[]), task("b", &["z"])],
        reused,
        &[(IdReused, "a")],
    );
    let inserted = [task("a", &[]), task("x", &["a"]), task("b", &["x"])];
    expect(&trial, &inserted, json!({}), &[(OrderChanged, "x")]);
    expect(&trial, &inserted, json!({"skip": ["x"]}), &[]);
    expect(
        &trial,
        &[task("a", &["b"]), task("b", &[])],
        json!({"skip": ["b"]}),
        &[(OrderChanged, "b")],
    );
    let refused = trial.migrate(&version(2, &[task("c", &[])]), json!({})).unwrap_err();
    assert_eq!(refused.code, RefusalCode::CannotMigrate);
    assert!(refused.message.contains("needs_mapping"), "{refused}");
    trial.migrate(&version(2, &inserted), json!({"skip": ["x"]})).unwrap();
    trial.report(&b, success());
    assert_eq!(trial.run.outcome(), Some(Outcome::Succeeded));
    assert_eq!(trial.run.view(trial.now).steps[1].state, "skipped");
}

#[test]
fn a_run_that_is_undone_or_over_stays_where_it_is() {
    let two = version(2, &[task("a", &[]), task("b", &["a"])]);
    let mut trial = Trial::new(&version(1, &[task("a", &[])]), &json!(null));
    let Err(wrong) = trial.ask(Command::Migrate(Migration {
        from: 3,
        graph: graph(&two),
        definition: "hash-2".into(),
        mapping: Mapping::default(),
        by: by(),
        checked: Vec::new(),
    })) else {
        panic!("moved from a version that it is not on")
    };
    assert_eq!(wrong.code, RefusalCode::WrongVersion);
    trial.take("a");
    trial.ask(Command::Cancel { by: by() }).unwrap();
    assert_eq!(trial.obstacles(&two, json!({})), [(ObstacleKind::BeingUndone, String::new())]);
    assert_eq!(trial.migrate(&two, json!({})).unwrap_err().code, RefusalCode::CannotMigrate);
    trial.heal();
    assert_eq!(trial.migrate(&two, json!({})).unwrap_err().code, RefusalCode::RunEnded);
}

/// Returns the next version of a definition, and how its steps become those.
fn next(definition: &Value, how: u8, which: u8) -> (Value, Value) {
    let mut next = definition.clone();
    let number = next["version"].as_u64().unwrap() + 1;
    next["version"] = json!(number);
    let steps = next["steps"].as_array_mut().unwrap();
    let at = usize::from(which) % steps.len();
    let id = steps[at]["id"].as_str().unwrap().to_owned();
    let body = if steps[at]["task"].is_null() { "map" } else { "task" };
    match how % 6 {
        0 => {
            let last = steps.last().unwrap()["id"].as_str().unwrap().to_owned();
            steps.push(task(&format!("n{number}"), &[&last]));
            (next, json!({}))
        }
        1 => {
            let renamed = format!("r{number}");
            let text = next.to_string().replace(&format!("\"{id}\""), &format!("\"{renamed}\""));
            (serde_json::from_str(&text).unwrap(), json!({"steps": {id: renamed}}))
        }
        2 if steps.len() > 1 => {
            let last = steps.pop().unwrap()["id"].as_str().unwrap().to_owned();
            for step in steps {
                step["after"].as_array_mut().unwrap().retain(|id| *id != last.as_str());
            }
            (next, json!({"steps": {last.clone(): null}, "without_undo": [last]}))
        }
        3 => {
            let fresh = format!("x{number}");
            let after = steps[at]["after"].clone();
            steps[at]["after"].as_array_mut().unwrap().push(json!(fresh));
            let mut step = task(&fresh, &[]);
            step["after"] = after;
            steps.push(step);
            (next, json!({"skip": [fresh]}))
        }
        4 if body == "task" => {
            steps[at]["task"]["queue"] = json!(format!("q{number}"));
            (next, json!({}))
        }
        _ if body == "map" => {
            steps[at]["map"]["max_concurrency"] = json!(1 + which % 7);
            steps[at]["map"]["join"] =
                [json!("all"), json!("any"), json!("best_effort")][usize::from(which) % 3].clone();
            (next, json!({}))
        }
        _ => (next, json!({})),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn at_any_moment_a_run_moves_or_says_why_not(
        drawn in prop::collection::vec(any::<(u8, bool)>(), 1..6),
        history in prop::collection::vec(any::<(u8, u8, u8)>(), 0..50),
    ) {
        let steps: Vec<Value> = drawn.iter().enumerate().map(|(i, &(after, is_map))| {
            let after: Vec<String> =
                (0..i).filter(|before| after >> before & 1 == 1).map(|before| format!("s{before}")).collect();
            let after: Vec<&str> = after.iter().map(String::as_str).collect();
            let id = format!("s{i}");
            if is_map { map(&id, &after, 2) } else { task(&id, &after) }
        }).collect();
        let mut definition = version(1, &steps);
        let mut trial = Trial::new(&definition, &json!([1, 2, 3, 4]));
        for (what, which, how) in history {
            let pick = |tasks: Vec<TaskKey>| {
                (!tasks.is_empty()).then(|| tasks[usize::from(which) % tasks.len()].clone())
            };
            let (offered, leased) = (pick(trial.run.offered()), pick(trial.run.leased()));
            match what % 10 {
                0..=3 => if let Some(task) = offered {
                    trial.ask(Command::HandOut { task, worker: "w".into() }).unwrap();
                },
                4..=6 => if let Some(task) = leased {
                    let kinds = [FailureKind::Retryable, FailureKind::Unknown, FailureKind::Permanent];
                    let kind = kinds.get(usize::from(how) % 12).filter(|_| task.action == Action::Forward);
                    trial.report(&task, kind.map_or_else(success, |kind| failure(*kind)));
                },
                7 => {
                    trial.now = trial.run.next_due().filter(|_| how % 2 == 0).unwrap_or(trial.now);
                    trial.ask(Command::Tick).unwrap();
                }
                _ => {
                    let (wanted, mapping) = next(&definition, how, which);
                    let clean = trial.obstacles(&wanted, mapping.clone()).is_empty();
                    let over = trial.run.state() == State::Ended;
                    let moved = trial.migrate(&wanted, mapping).is_ok();
                    prop_assert_eq!(moved, clean && !over);
                    if moved {
                        definition = wanted;
                    }
                }
            }
        }
        trial.heal();
    }
}

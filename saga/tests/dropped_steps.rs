//! Steps that are done when a move to another version drops them: what they did is told unless the run succeeds.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use backstitch_saga::protocol::{
    Failure, FailureKind, Mapping, ObstacleKind, Outcome, Scope, TaskOutcome,
};
use backstitch_saga::{
    By, Command, Graph, Migration, Payload, Record, Refusal, Run, RunId, Start, Time, Transition,
    decide,
};
use serde_json::{Value, json};
use uuid::Uuid;

/// A run with its journal.
struct Trial {
    run: Run,
    first: Arc<Graph>,
    second: Arc<Graph>,
    journal: Vec<Record>,
}

fn by() -> By {
    By { actor: "ann".into(), reason: "a test".to_owned() }
}

fn task(id: &str, after: &[&str]) -> Value {
    json!({ "id": id, "after": after, "task": { "name": "do", "input": { "path": "/input" },
        "compensate": { "name": "undo" }, "on_unknown": "compensate" } })
}

fn map(id: &str) -> Value {
    json!({ "id": id, "map": { "items": { "path": "/input" }, "join": "best_effort", "empty": "succeed",
        "task": { "name": "do", "input": { "path": "/item" }, "compensate": { "name": "undo" },
            "on_unknown": "compensate" } } })
}

fn version(number: u32, steps: &[Value]) -> Arc<Graph> {
    let definition = json!({ "name": "order", "version": number, "steps": steps });
    Arc::new(Graph::parse(&definition.to_string()).unwrap())
}

fn failure(kind: FailureKind) -> TaskOutcome {
    let (code, message) = ("broken".into(), "it broke".into());
    TaskOutcome::Failed(Failure { kind, code, message, details: None, retry_after: None })
}

impl Trial {
    /// Makes a run of `a` and `b`, of which `a` is done as it is moved to a version without it.
    fn moved() -> Trial {
        let mut trial = Trial::begun(task("a", &[]), "1");
        trial.report("a", success());
        trial.drop_a().unwrap();
        trial
    }

    fn begun(a: Value, input: &str) -> Trial {
        let first = version(1, &[a, task("b", &["a"])]);
        let second = version(2, &[task("b", &[])]);
        let run = Run::new(RunId(Uuid::from_u128(7)), first.clone());
        let mut trial = Trial { run, first, second, journal: Vec::new() };
        let start = Start {
            namespace: "default".into(),
            definition: "hash-1".into(),
            key: None,
            correlation_id: None,
            causation_id: None,
            labels: Default::default(),
            input: Payload::trusted(input.to_owned()).unwrap(),
            holds: Vec::new(),
            parent: None,
            descent: None,
            start_at: None,
            end_by: None,
            requires: Vec::new(),
        };
        trial.ask(Command::Start(start)).unwrap();
        trial
    }

    fn drop_a(&mut self) -> Result<(), Refusal> {
        self.migrate(json!({ "steps": { "a": null }, "without_undo": ["a"] }))
    }

    fn migrate(&mut self, mapping: Value) -> Result<(), Refusal> {
        let mapping: Mapping = serde_json::from_value(mapping).unwrap();
        self.ask(Command::Migrate(Migration {
            from: 1,
            graph: self.second.clone(),
            definition: "hash-2".into(),
            mapping,
            by: by(),
            checked: Vec::new(),
        }))
    }

    fn ask(&mut self, command: Command) -> Result<(), Refusal> {
        let mut transition = Transition::default();
        let answer = decide(&mut self.run, command, Time(1_000), &mut transition).map(drop);
        if !transition.record.events.is_empty() {
            self.run.mark_appended();
            self.journal.push(transition.record);
        }
        let mut folded = Run::new(self.run.id(), self.first.clone());
        folded.learn(self.second.clone());
        self.journal.iter().for_each(|record| folded.try_apply(record).unwrap());
        assert_eq!(folded.snapshot(), self.run.snapshot(), "folding gives another run");
        answer
    }

    fn report(&mut self, step: &str, outcome: TaskOutcome) {
        let offered = self.run.offered();
        let task = offered.into_iter().find(|task| task.step.to_string() == step).unwrap();
        self.ask(Command::HandOut { task: task.clone(), worker: "w".into() }).unwrap();
        self.ask(Command::Report { task, outcome }).unwrap();
    }

    /// Returns the messages of its open incidents.
    fn told(&self) -> Vec<String> {
        let conditions = self.run.view(Time(1_000)).conditions.into_iter();
        let open = conditions.filter(|condition| condition.kind == "IncidentOpen");
        open.map(|condition| condition.message).collect()
    }

    fn effects(&self) -> Value {
        json!(self.run.view(Time(1_000)).progress.effects)
    }

    fn open_effects(&self) -> Vec<(String, u32, u32)> {
        let open = self.run.open_effects().into_iter();
        open.map(|open| (open.step, open.standing, open.unknown)).collect()
    }
}

fn success() -> TaskOutcome {
    TaskOutcome::Succeeded { output: Payload::of(&1).unwrap(), external_id: None }
}

#[test]
fn what_a_dropped_step_did_is_told_when_the_run_fails() {
    let mut trial = Trial::moved();
    trial.report("b", failure(FailureKind::Permanent));
    assert_eq!(trial.run.outcome(), Some(Outcome::FailedDirty));
    let told = "effects_left: the run ends failed_dirty: 'a' was done, and nothing undoes it: version 2 has no such step";
    assert_eq!(trial.told(), [told]);
    assert_eq!(trial.effects()["applied"], json!(1));
    assert_eq!(trial.open_effects(), [("a".to_owned(), 1, 0)]);
    // A person puts it right, and says so.
    let mark = Command::MarkUndone { step: "a".parse().unwrap(), by: by() };
    trial.ask(mark.clone()).unwrap();
    assert_eq!(trial.run.outcome(), Some(Outcome::CompensatedWithManualSteps));
    assert_eq!((trial.told(), trial.open_effects()), (Vec::new(), Vec::new()));
    assert_eq!(trial.effects()["reverted"], json!(1));
    let records = trial.journal.len();
    trial.ask(mark).unwrap();
    assert_eq!(trial.journal.len(), records, "asked twice it is done once");
}

#[test]
fn what_a_dropped_step_did_is_told_when_the_run_is_cancelled_or_killed() {
    for command in [Command::Cancel { by: by() }, Command::Kill { by: by() }] {
        let mut trial = Trial::moved();
        let plan = trial.run.plan(&Scope::All, Time(1_000)).unwrap();
        assert_eq!(plan.irreversible, ["a"]);
        trial.ask(command).unwrap();
        assert_eq!(trial.run.outcome(), Some(Outcome::FailedDirty));
        assert_eq!(trial.told().len(), 1);
        trial.ask(Command::MarkLeft { by: by() }).unwrap();
        assert_eq!((trial.told(), trial.open_effects()), (Vec::new(), Vec::new()));
        assert_ne!(trial.run.outcome(), Some(Outcome::FailedDirty));
    }
}

#[test]
fn what_dropped_items_may_have_done_is_told_though_the_run_succeeds() {
    let mut trial = Trial::begun(map("a"), "[1, 2, 3]");
    trial.report("a/0", success());
    trial.report("a/1", failure(FailureKind::Unknown));
    trial.report("a/2", failure(FailureKind::Unknown));
    trial.drop_a().unwrap();
    assert_eq!(trial.open_effects(), [("a".to_owned(), 0, 2)]);
    trial.report("b", success());
    assert_eq!(trial.run.outcome(), Some(Outcome::PartiallyCompleted));
    let told = "effects_left: the run ends partially_completed: 2 items of 'a' may have happened, and nothing undoes it: \
                version 2 has no such step";
    assert_eq!(trial.told(), [told]);
}

#[test]
fn a_dropped_step_troubles_no_run_that_succeeds_and_keeps_its_id() {
    let mut trial = Trial::moved();
    let again = version(3, &[task("b", &[]), task("a", &["b"])]);
    let obstacles = trial.run.obstacles(&again, &Mapping::default());
    let obstacles: Vec<_> = obstacles.iter().map(|one| (one.kind, one.step.as_deref())).collect();
    assert_eq!(obstacles, [(ObstacleKind::IdReused, Some("a"))]);
    trial.report("b", success());
    assert_eq!(trial.run.outcome(), Some(Outcome::Succeeded));
    assert_eq!((trial.told(), trial.open_effects()), (Vec::new(), Vec::new()));
}

#[test]
fn what_a_step_did_that_only_reads_by_now_is_told() {
    let mut reads = task("a", &[]);
    reads["task"].as_object_mut().unwrap().remove("compensate");
    reads["task"].as_object_mut().unwrap().remove("on_unknown");
    reads["task"]["class"] = json!("read_only");
    for is_done in [true, false] {
        let mut trial = Trial::begun(task("a", &[]), "1");
        trial.second = version(2, &[reads.clone(), task("b", &["a"])]);
        if is_done {
            trial.report("a", success());
        }
        trial.migrate(json!({ "without_undo": ["a"] })).unwrap();
        if !is_done {
            trial.report("a", success());
        }
        trial.report("b", failure(FailureKind::Permanent));
        // What begins in the new version has no effect.
        let expected = if is_done { Outcome::FailedDirty } else { Outcome::FailedClean };
        assert_eq!(
            (trial.run.outcome(), trial.told().len()),
            (Some(expected), usize::from(is_done))
        );
    }
}

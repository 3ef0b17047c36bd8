//! Views of acts of people on a run: attempts, errors, instants, acts, and whether an act has helped.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use backstitch_saga::protocol::{
    Failure, FailureKind, OnWithdrawn, Outcome, StepView, TaskOutcome,
};
use backstitch_saga::{
    By, Command, Event, Graph, Hold, HoldKind, IncidentKind, Limits, Payload, PlanPage, Proof,
    Record, Refusal, Run, RunId, Span, Start, StepPath, TaskKey, Time, Transition, decide,
};
use serde_json::{Value, json};
use uuid::Uuid;

/// A run that is driven by hand, with all its records.
struct Trial {
    run: Run,
    now: Time,
    records: Vec<Record>,
}

impl Trial {
    fn new(steps: &Value, input: &str) -> Trial {
        Trial::with(steps, Limits::default(), input)
    }

    fn with(steps: &Value, limits: Limits, input: &str) -> Trial {
        let definition = json!({"name": "w", "version": 1, "steps": steps});
        let graph = Arc::new(Graph::parse(&definition.to_string()).unwrap());
        let mut run = Run::new(RunId(Uuid::from_u128(1)), graph);
        run.set_limits(limits);
        let mut trial = Trial { run, now: Time(0), records: Vec::new() };
        let start = Start {
            namespace: "default".into(),
            definition: "hash".into(),
            key: None,
            correlation_id: None,
            causation_id: None,
            labels: Default::default(),
            input: Payload::trusted(input.to_owned()).unwrap(),
            holds: Vec::new(),
            parent: None,
            descent: None,
            start_at: None,
            requires: Vec::new(),
            end_by: None,
        };
        trial.ask(Command::Start(start)).unwrap();
        trial
    }

    fn ask(&mut self, command: Command) -> Result<(), Refusal> {
        let mut transition = Transition::default();
        decide(&mut self.run, command, self.now, &mut transition).map(drop)?;
        if !transition.record.events.is_empty() {
            self.run.mark_appended();
            self.records.push(transition.record);
        }
        Ok(())
    }

    fn task(&self, step: &str) -> TaskKey {
        let step: StepPath = step.parse().unwrap();
        self.run.offered().into_iter().find(|task| task.step == step).unwrap()
    }

    fn work(&mut self, step: &str, outcome: TaskOutcome) {
        let task = self.task(step);
        self.ask(Command::HandOut { task: task.clone(), worker: "w1".into() }).unwrap();
        self.ask(Command::Report { task, outcome }).unwrap();
    }

    fn fail(&mut self, step: &str, kind: FailureKind, code: &str) {
        let failure = Failure {
            kind,
            code: code.to_owned(),
            message: "it broke".to_owned(),
            details: None,
            retry_after: None,
        };
        self.work(step, TaskOutcome::Failed(failure));
    }

    fn succeed(&mut self, step: &str) {
        self.work(step, TaskOutcome::Succeeded { output: Payload::null(), external_id: None });
    }

    fn after(&mut self, span: Span) {
        self.now = self.now.after(span);
        self.ask(Command::Tick).unwrap();
    }

    fn step(&self, step: &str) -> StepView {
        self.run.step_view(&step.parse().unwrap()).unwrap()
    }

    fn acts(&self) -> Vec<&'static str> {
        let events = self.records.iter().flat_map(|record| &record.events);
        events.filter_map(|event| event.act()).map(|act| act.verb).collect()
    }
}

fn by() -> By {
    By { actor: "ann".into(), reason: "because".to_owned() }
}

/// Makes a step that waits for a person when it fails for good.
fn parking(id: &str, after: &[&str]) -> Value {
    json!({"id": id, "after": after, "task": {
        "name": "do", "input": {"const": 1}, "on_failure": "incident",
        "retry": {"first_delay": "1s", "jitter": "none", "max_attempts": 3},
        "compensate": {"name": "undo", "slow_after": "10s",
            "retry": {"first_delay": "5s", "jitter": "none"}}}})
}

#[test]
fn a_step_that_a_person_resolves_has_no_attempt_more() {
    let mut trial = Trial::new(&json!([parking("a", &[])]), "null");
    trial.fail("a", FailureKind::Permanent, "refused");
    assert_eq!(trial.step("a").attempts, 1);
    let resolve = Command::Resolve {
        step: "a".parse().unwrap(),
        output: Payload::null(),
        external_id: None,
        by: by(),
    };
    trial.ask(resolve).unwrap();
    let step = trial.step("a");
    assert_eq!((step.state.as_str(), step.attempts), ("succeeded", 1));
    assert_eq!(step.error, None, "what it failed of is over");
}

#[test]
fn a_step_that_is_done_shows_no_error_of_before() {
    let mut trial = Trial::new(&json!([parking("a", &[]), parking("b", &["a"])]), "null");
    trial.fail("a", FailureKind::Retryable, "busy");
    assert_eq!(trial.step("a").error.unwrap().code, "busy");
    trial.after(Span::secs(1));
    trial.succeed("a");
    assert_eq!((trial.step("a").attempts, trial.step("a").error), (2, None));
    // Neither does one that is undone.
    trial.ask(Command::Cancel { by: by() }).unwrap();
    trial.fail("a", FailureKind::Retryable, "busy");
    assert_eq!(trial.step("a").error.unwrap().code, "busy");
    trial.after(Span::secs(5));
    trial.succeed("a");
    let step = trial.step("a");
    assert_eq!((step.compensation.as_deref(), step.error), (Some("compensated"), None));
}

#[test]
fn an_undo_that_is_retried_tells_when_and_not_when_it_takes_long() {
    let mut trial = Trial::new(&json!([parking("a", &[]), parking("b", &["a"])]), "null");
    trial.succeed("a");
    trial.ask(Command::Cancel { by: by() }).unwrap();
    assert_eq!(trial.step("a").next_at, None, "it is on offer");
    trial.fail("a", FailureKind::Retryable, "busy");
    let at = trial.now.after(Span::secs(5));
    assert_eq!(trial.step("a").next_at.map(|at| at.0), Some(at));
    trial.after(Span::secs(5));
    assert_eq!(trial.step("a").next_at, None, "it is on offer again");
    assert_eq!(trial.run.next_due(), Some(Time(10_000)), "a person is told");
}

#[test]
fn a_rerun_is_one_act() {
    for only_failed in [false, true] {
        let steps = json!([{"id": "m", "map": {"items": {"path": "/input"}, "join": "best_effort",
            "empty": "succeed", "task": {"name": "do", "input": {"path": "/item"},
                "compensate": {"name": "undo"}}}}]);
        let mut trial = Trial::new(&steps, "[1,2]");
        trial.succeed("m/0");
        trial.fail("m/1", FailureKind::Permanent, "refused");
        let rerun =
            Command::Rerun { from: "m".into(), input: None, only_failed, force: false, by: by() };
        trial.ask(rerun).unwrap();
        assert_eq!(trial.acts(), ["rerun"], "{only_failed}");
    }
}

#[test]
fn an_act_on_an_item_is_judged_by_that_item() {
    let steps = json!([{"id": "m", "map": {"items": {"path": "/input"}, "join": "all",
        "empty": "succeed", "task": {"name": "do", "input": {"path": "/item"},
            "on_failure": "incident", "class": "read_only"}}}]);
    let mut trial = Trial::new(&steps, "[1,2,3]");
    for item in 0..3 {
        trial.fail(&format!("m/{item}"), FailureKind::Permanent, "refused");
    }
    let first: StepPath = "m/0".parse().unwrap();
    let retry = Command::Retry { step: Some(first.clone()), input: None, by: by() };
    trial.ask(retry).unwrap();
    let proof = |trial: &Trial| trial.run.proof(Some(1), Some(&first), trial.now);
    assert_eq!(proof(&trial), Proof::Open, "the others wait for a person as before");
    trial.fail("m/0", FailureKind::Permanent, "refused");
    assert_eq!(proof(&trial), Proof::Failed);
    let retry = Command::Retry { step: Some(first.clone()), input: None, by: by() };
    trial.now = trial.now.after(Span::secs(60));
    trial.ask(retry).unwrap();
    trial.succeed("m/0");
    assert_eq!(trial.run.proof(Some(4), Some(&first), trial.now), Proof::Proven);
    assert_eq!(trial.task_states(), ["succeeded", "parked", "parked"]);
}

impl Trial {
    fn task_states(&self) -> Vec<String> {
        let items = self.run.items("m", None, 0, 10).unwrap();
        items.into_iter().map(|item| item.state.to_string()).collect()
    }
}

#[test]
fn an_item_whose_turn_has_not_come_is_not_skipped_whatever_it_waits_for() {
    let steps = json!([{"id": "m", "map": {"items": {"path": "/input"}, "join": "all",
        "empty": "succeed", "max_concurrency": 1,
        "task": {"name": "do", "input": {"path": "/item"}, "class": "read_only"}}}]);
    let mut wide = steps.clone();
    wide[0]["map"]["max_concurrency"] = json!(10);
    // The first has one place; in the record of the second there is room for one item.
    let small = Limits { record: 900, ..Limits::default() };
    for (steps, limits) in [(&steps, Limits::default()), (&wide, small)] {
        let input = format!("[{0},{0}]", json!("x".repeat(300)));
        let mut trial = Trial::with(steps, limits, &input);
        assert_eq!(trial.run.offered().len(), 1);
        let item: StepPath = "m/1".parse().unwrap();
        let skip = Command::Skip { step: item.clone(), output: None, by: by() };
        let refused = trial.ask(skip).unwrap_err();
        assert_eq!(refused.message, "'m/1': its turn has not come");
        let resolve =
            Command::Resolve { step: item, output: Payload::null(), external_id: None, by: by() };
        assert_eq!(trial.ask(resolve).unwrap_err().code.as_str(), "nothing_to_resolve");
    }
}

#[test]
fn a_lease_that_is_given_back_late_is_not_taken_from_who_has_the_task_again() {
    let steps = json!([{"id": "a", "task": {"name": "do", "input": {"path": "/input"}, "class": "read_only"}}]);
    let mut trial = Trial::new(&steps, "1");
    let task = trial.task("a");
    let give_back = |since: i64| Command::GiveBack {
        task: task.clone(),
        session: "s".into(),
        since: Some(Time(since)),
    };
    let hand_out = || Command::HandOut { task: task.clone(), worker: "w/s".into() };
    trial.now = Time(10);
    trial.ask(hand_out()).unwrap();
    trial.ask(give_back(10)).unwrap();
    trial.now = Time(20);
    trial.ask(hand_out()).unwrap();
    let refused = trial.ask(give_back(10)).unwrap_err();
    assert_eq!(refused.code, backstitch_saga::RefusalCode::LeaseLost);
    assert_eq!(&**trial.run.holder(&task).unwrap(), "w/s");
}

#[test]
fn a_run_that_goes_on_without_its_only_step_has_not_failed() {
    for output in [None, Some(Payload::trusted("{}".to_owned()).unwrap())] {
        let mut trial = Trial::new(&json!([parking("a", &[])]), "null");
        trial.fail("a", FailureKind::Permanent, "refused");
        trial.ask(Command::Skip { step: "a".parse().unwrap(), output, by: by() }).unwrap();
        assert_eq!(trial.run.outcome(), Some(Outcome::PartiallyCompleted));
    }
}

#[test]
fn the_same_retry_said_twice_is_one_and_another_input_is_another() {
    let mut trial = Trial::new(&json!([parking("a", &[])]), "null");
    trial.fail("a", FailureKind::Permanent, "refused");
    let retry = |input: &str| Command::Retry {
        step: Some("a".parse().unwrap()),
        input: Some(Payload::trusted(input.to_owned()).unwrap()),
        by: by(),
    };
    trial.ask(retry("55")).unwrap();
    let records = trial.records.len();
    trial.ask(retry("55.0")).unwrap();
    assert_eq!(trial.records.len(), records, "the same document");
    let refused = trial.ask(retry("56")).unwrap_err();
    assert_eq!(refused.code.as_str(), "nothing_to_retry");
    // What waits for its next attempt is tried by whoever asks, though another step was just asked for by the same
    // words.
    let mut trial = Trial::new(&json!([parking("a", &[]), parking("b", &[])]), "null");
    trial.fail("a", FailureKind::Retryable, "busy");
    trial.fail("b", FailureKind::Retryable, "busy");
    for step in ["a", "b"] {
        let step = Some(step.parse().unwrap());
        trial.ask(Command::Retry { step, input: None, by: by() }).unwrap();
    }
    assert_eq!(trial.run.offered().len(), 2);
}

#[test]
fn the_plan_of_a_rerun_says_whether_it_needs_force() {
    let lasting = json!({"id": "b", "after": ["a"], "task": {"name": "do", "input": {"const": 1}}});
    let mut trial = Trial::new(&json!([parking("a", &[]), lasting]), "null");
    trial.succeed("a");
    trial.succeed("b");
    let page = PlanPage::whole();
    for (from, only_failed, force) in [("a", false, true), ("b", false, true)] {
        let plan = trial.run.rerun_plan(from, only_failed, trial.now, &page).unwrap();
        assert_eq!(plan.undo.past_pivot, force, "{from}");
        let rerun =
            Command::Rerun { from: from.into(), input: None, only_failed, force: false, by: by() };
        assert_eq!(trial.ask(rerun).unwrap_err().code.as_str(), "past_pivot");
    }
}

#[test]
fn a_fact_that_is_withdrawn_while_a_rerun_undoes_is_heard() {
    for (policy, outcome) in [
        (OnWithdrawn::Cancel, Some(Outcome::Compensated)),
        (OnWithdrawn::Incident, None),
        (OnWithdrawn::Ignore, None),
    ] {
        let mut trial = Trial::new(&json!([parking("a", &[])]), "null");
        trial.succeed("a");
        let from = "a".into();
        let rerun =
            Command::Rerun { from, input: None, only_failed: false, force: false, by: by() };
        trial.ask(rerun).unwrap();
        let hold = Hold::new(HoldKind::DependencyUnmet, "paid");
        let message = "it was withdrawn".to_owned();
        trial.ask(Command::FactWithdrawn { hold, policy, message }).unwrap();
        let told = trial.records.iter().flat_map(|record| &record.events).any(|event| {
            matches!(event, Event::IncidentOpened { kind: IncidentKind::DependencyWithdrawn, .. })
        });
        assert_eq!(told, policy == OnWithdrawn::Incident);
        trial.succeed("a");
        assert_eq!(trial.run.outcome(), outcome, "{policy:?}");
    }
}

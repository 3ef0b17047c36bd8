//! The keys by which targets deduplicate: the same as long as an effect may be the same, another once it is known not
//! to have happened or was undone.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use backstitch_saga::protocol::{Failure, FailureKind, TaskOutcome};
use backstitch_saga::{
    Action, By, Command, Graph, Payload, Run, RunId, Start, StepPath, TaskKey, Time, Transition,
    decide,
};
use serde_json::{Value, json};
use uuid::Uuid;

struct Trial {
    run: Run,
    now: Time,
    acts: u32,
}

impl Trial {
    fn new(definition: &Value, input: &Value) -> Trial {
        let graph = Arc::new(Graph::parse(&definition.to_string()).unwrap());
        let run = Run::new(RunId(Uuid::from_u128(7)), graph);
        let mut trial = Trial { run, now: Time(0), acts: 0 };
        trial.ask(Command::Start(Start {
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
        }));
        trial
    }

    fn ask(&mut self, command: Command) {
        decide(&mut self.run, command, self.now, &mut Transition::default()).unwrap();
    }

    fn by(&mut self) -> By {
        self.acts += 1;
        By { actor: "ann".into(), reason: format!("act {}", self.acts) }
    }

    /// Hands out the task that is on offer at `step`, and answers it with the keys that its worker gets.
    fn claim(&mut self, step: &str) -> (TaskKey, Uuid, Option<Uuid>) {
        let path: StepPath = step.parse().unwrap();
        let task = self.run.offered().into_iter().find(|task| task.step == path).unwrap();
        self.ask(Command::HandOut { task: task.clone(), worker: "w1".into() });
        let offer = self.run.offer(&task).unwrap();
        (task, offer.effect_key, offer.forward_key)
    }

    fn fail(&mut self, task: TaskKey, kind: FailureKind) {
        let (code, message) = ("refused".to_owned(), "refused".to_owned());
        let failure = Failure { kind, code, message, details: None, retry_after: None };
        self.ask(Command::Report { task, outcome: TaskOutcome::Failed(failure) });
    }

    fn succeed(&mut self, task: TaskKey) {
        let outcome = TaskOutcome::Succeeded { output: Payload::null(), external_id: None };
        self.ask(Command::Report { task, outcome });
    }

    fn retry(&mut self, step: &str, input: Option<&Value>) {
        let (step, by) = (Some(step.parse().unwrap()), self.by());
        let input = input.map(|input| Payload::of(input).unwrap());
        self.ask(Command::Retry { step, input, by });
    }
}

fn pay(more: &Value) -> Value {
    let mut task = json!({"name": "pay", "input": {"path": "/input"}, "compensate":
        {"name": "refund", "retry": {"max_attempts": 1}}, "on_failure": "incident"});
    task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    task
}

fn one_step(more: &Value) -> Value {
    json!({"name": "w", "version": 1, "steps": [{"id": "pay", "task": pay(more)}]})
}

#[test]
fn a_better_input_after_a_permanent_failure_gets_another_key() {
    let mut trial = Trial::new(&one_step(&json!({})), &json!({"iban": "wrong"}));
    let (task, first, _) = trial.claim("pay");
    trial.fail(task, FailureKind::Permanent);
    trial.retry("pay", Some(&json!({"iban": "wrong"})));
    let (task, same, _) = trial.claim("pay");
    assert_eq!(same, first, "the same input is the same effect");
    trial.fail(task, FailureKind::Permanent);
    trial.retry("pay", None);
    let (task, again, _) = trial.claim("pay");
    assert_eq!(again, first, "no input is the same input");
    trial.fail(task, FailureKind::Permanent);
    trial.retry("pay", Some(&json!({"iban": "right"})));
    let (task, other, _) = trial.claim("pay");
    assert_ne!(other, first);
    assert_eq!(trial.run.view(trial.now).steps[0].effect_key, other, "it is shown");
    trial.succeed(task);
    let by = trial.by();
    trial.ask(Command::Compensate {
        scope: backstitch_saga::protocol::Scope::All,
        force: false,
        by,
    });
    let (_, undo, forward) = trial.claim("pay");
    assert_eq!(forward, Some(other), "the undo is told the key under which it happened");
    assert_ne!(undo, other);
}

#[test]
fn what_may_have_happened_keeps_its_key_and_what_did_not_has_another() {
    for kind in [FailureKind::Unknown, FailureKind::Retryable] {
        let more = json!({"on_unknown": "incident", "retry": {"max_attempts": 1}});
        let mut trial = Trial::new(&one_step(&more), &json!(1));
        let (task, first, _) = trial.claim("pay");
        trial.fail(task, kind);
        trial.retry("pay", Some(&json!(2)));
        let (task, second, _) = trial.claim("pay");
        assert_eq!(second == first, kind == FailureKind::Unknown, "{kind:?}");
        if kind == FailureKind::Unknown {
            // What came after says nothing of the attempt in doubt.
            trial.fail(task, FailureKind::Permanent);
            trial.retry("pay", Some(&json!(3)));
            assert_eq!(trial.claim("pay").1, first);
        }
    }
}

#[test]
fn an_item_and_an_undo_get_other_keys_by_themselves() {
    let definition = json!({"name": "w", "version": 1, "steps": [{"id": "m", "map": {
        "items": {"path": "/input"}, "join": "all", "empty": "fail",
        "task": pay(&json!({"input": {"path": "/item"}})),
    }}]});
    let mut trial = Trial::new(&definition, &json!([1, 2]));
    let (zero, first, _) = trial.claim("m/0");
    let (one, other, _) = trial.claim("m/1");
    trial.fail(zero, FailureKind::Permanent);
    trial.succeed(one);
    trial.retry("m/0", Some(&json!(3)));
    let (zero, second, _) = trial.claim("m/0");
    assert_ne!(second, first);
    trial.succeed(zero);
    let by = trial.by();
    trial.ask(Command::Compensate {
        scope: backstitch_saga::protocol::Scope::All,
        force: false,
        by,
    });
    let (undo, undo_key, forward) = trial.claim("m/1");
    assert_eq!(forward, Some(other), "the key of another item stays");
    trial.fail(undo, FailureKind::Permanent);
    trial.retry("m/1", Some(&json!(4)));
    let (undo, undo_again, forward) = trial.claim("m/1");
    assert_eq!(undo.action, Action::Compensate);
    assert_ne!(undo_again, undo_key, "the refused undo did not happen");
    assert_eq!(forward, Some(other), "what is to be undone is the same");
    trial.fail(undo, FailureKind::Unknown);
    trial.retry("m/1", Some(&json!(5)));
    assert_eq!(trial.claim("m/1").1, undo_again, "this one may have happened");
}

#[test]
fn failed_items_executed_again_keep_the_key_of_what_is_in_doubt() {
    let definition = json!({"name": "w", "version": 1, "steps": [{"id": "m", "map": {
        "items": {"path": "/input"}, "join": "best_effort", "empty": "fail",
        "task": {"name": "i", "input": {"path": "/item"}, "compensate": {"name": "u"},
            "on_unknown": "compensate"},
    }}]});
    let mut trial = Trial::new(&definition, &json!([1, 2, 3]));
    let keys: Vec<_> = ["m/0", "m/1", "m/2"].map(|item| trial.claim(item)).into();
    trial.succeed(keys[0].0.clone());
    trial.fail(keys[1].0.clone(), FailureKind::Permanent);
    trial.fail(keys[2].0.clone(), FailureKind::Unknown);
    let by = trial.by();
    trial.ask(Command::Rerun {
        from: "m".into(),
        input: None,
        only_failed: true,
        force: false,
        by,
    });
    assert_ne!(trial.claim("m/1").1, keys[1].1, "it did not happen");
    assert_eq!(trial.claim("m/2").1, keys[2].1, "it may have happened");
    let stands = trial.run.view(trial.now).steps[0].items["succeeded"];
    assert_eq!(stands, 1, "what succeeded is not done again");
}

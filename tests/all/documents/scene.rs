//! Runs in the states that examples need, and what stands for their ids.

use backstitch_saga::protocol::{Failure, FailureKind, StartRun, TaskOffer, TaskOutcome};
use backstitch_saga::{Action, RunId, Span};
use backstitch_tests::node::{Hand, NS, report, start};
use backstitch_tests::server::{Server, send, with_json};
use serde_json::{Value, json};

/// The workflow of most examples, in two versions.
const VERSIONS: [&str; 2] = [
    r#"{"name":"WORKFLOW","version":1,"steps":[
        {"id":"stock","map":{"items":{"path":"/input/lines"},"join":"all","empty":"succeed",
            "task":{"name":"do","input":{"path":"/item"},"compensate":{"name":"undo"}}}},
        {"id":"payment","after":["stock"],"task":{"name":"do","input":{"path":"/input"},"on_failure":"incident",
            "compensate":{"name":"undo","retry":{"max_attempts":1}}}},
        {"id":"approve","after":["payment"],"wait":{"signal":"approval","timeout":"30d"}},
        {"id":"mail","after":["approve"],"task":{"name":"do","class":"retriable","input":{"path":"/input"}}}],
        "timeout":"60d"}"#,
    r#"{"name":"WORKFLOW","version":2,"steps":[
        {"id":"fraud-check","task":{"name":"do","class":"read_only","input":{"path":"/input"}}},
        {"id":"stock","after":["fraud-check"],"map":{"items":{"path":"/input/lines"},"join":"all","empty":"succeed",
            "task":{"name":"do","input":{"path":"/item"},"compensate":{"name":"undo"}}}},
        {"id":"charge","after":["stock"],"task":{"name":"do","input":{"path":"/input"},"compensate":{"name":"undo"}}},
        {"id":"approve","after":["charge"],"wait":{"signal":"approval","timeout":"30d"}}],"timeout":"60d"}"#,
];

/// Returns the text of `workflow` in `version`.
pub(super) fn definition(workflow: &str, version: usize) -> String {
    VERSIONS[version - 1].replace("WORKFLOW", workflow)
}

/// A server with what examples take for granted.
pub(super) struct Scene {
    pub(super) server: Server,
    hand: Hand,
}

impl Scene {
    pub(super) fn new(server: Server) -> Scene {
        let hand = Hand::new(&server.engine);
        Scene { server, hand }
    }

    pub(super) async fn register(&self, definition: &str) {
        self.server.engine.register(NS, definition).await.unwrap();
    }

    /// Starts a run of `workflow` version 1, which nobody works on.
    pub(super) async fn start(&self, workflow: &str) -> RunId {
        let start = StartRun {
            version: Some(1),
            ..start(workflow, r#"{"customer":"c-7","lines":["chai","tofu"]}"#)
        };
        self.server.engine.start_run(NS, start).await.unwrap().id
    }

    /// Works on everything until `over` says of a task of `run`, which it also says the end of.
    async fn work(&self, run: RunId, over: impl Fn(&TaskOffer) -> (bool, bool)) {
        loop {
            for offer in self.hand.claim(100, Span::secs(5)).await {
                let (last, fails) = if offer.run == run { over(&offer) } else { (false, false) };
                let answers = match fails {
                    true => self.hand.engine.complete(NS, vec![report(&offer, refused())]).await,
                    false => self.hand.succeed(&[offer]).await,
                };
                if last {
                    assert_eq!(answers[0].status, 200, "{answers:?}");
                    return;
                }
            }
        }
    }

    /// Returns a run whose payment was refused and waits for a person.
    pub(super) async fn parked(&self, workflow: &str) -> RunId {
        let run = self.start(workflow).await;
        self.work(run, |offer| {
            let payment = offer.step.to_string() == "payment";
            (payment, payment)
        })
        .await;
        run
    }

    /// Returns a run that waits for its approval.
    pub(super) async fn paid(&self, workflow: &str) -> RunId {
        let run = self.start(workflow).await;
        self.work(run, |offer| (offer.step.to_string() == "payment", false)).await;
        run
    }

    /// Returns a run whose payment cannot be undone.
    pub(super) async fn blocked(&self, workflow: &str) -> RunId {
        let run = self.paid(workflow).await;
        self.act(&format!("/v1/runs/{run}/cancel"), json!({"reason": "r"})).await;
        self.work(run, |offer| {
            let undo = offer.action == Action::Compensate && offer.step.to_string() == "payment";
            (undo, undo)
        })
        .await;
        run
    }

    /// Posts, which must succeed.
    pub(super) async fn act(&self, path: &str, body: Value) -> Value {
        let answer = self.server.post(path, body).await;
        assert!(answer.status < 300, "{path} {answer:?}");
        if answer.text.is_empty() { Value::Null } else { answer.json() }
    }

    /// Puts, which must succeed.
    pub(super) async fn put(&self, path: &str, body: Value) {
        let answer = send(with_json(self.server.request("PUT", path), body)).await;
        assert!(answer.status < 300, "{path} {answer:?}");
    }

    /// Returns a member of the first element of a list, or of what is there.
    pub(super) async fn first(&self, path: &str, member: &str) -> Option<String> {
        let answer = self.server.get(path).await.json();
        let one = answer.get("items").map_or(answer.clone(), |items| items[0].clone());
        one.get(member).and_then(Value::as_str).map(str::to_owned)
    }
}

fn refused() -> TaskOutcome {
    TaskOutcome::Failed(Failure {
        kind: FailureKind::Permanent,
        code: "refused".to_owned(),
        message: "the bank said no".to_owned(),
        details: None,
        retry_after: None,
    })
}

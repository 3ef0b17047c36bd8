//! Nodes for tests, and a worker that is told what to do.

use std::collections::BTreeMap;

use backstitch_engine::{Engine, Options};
use backstitch_saga::protocol::{
    ClaimTasks, Failure, FailureKind, HeldTask, StartRun, TaskAnswer, TaskOffer, TaskOutcome,
    TaskReport,
};
use backstitch_saga::{By, Payload, RunId, Span};
use backstitch_sdk::StartInTransaction;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::postgres::as_server;

/// The namespace of most tests.
pub const NS: &str = "test";

/// Returns a node on the database of `url`, changed by `change`. It connects as a role that owns nothing.
///
/// # Panics
/// When it does not start.
pub async fn node(url: &str, change: impl FnOnce(&mut Options)) -> Engine {
    let mut options = Options::new(as_server(url));
    // What a busy node on a large machine does, with few runs and on a small one.
    options.tuning.shards = 2;
    options.tuning.batch_beside = 2;
    change(&mut options);
    Engine::start(options).await.expect("a node")
}

/// Returns a payload from text that is JSON.
///
/// # Panics
/// When it is not.
#[must_use]
pub fn json(text: &str) -> Payload {
    Payload::trusted(text.to_owned()).expect("JSON")
}

/// Asks for a start on this connection, in whatever transaction it is in.
///
/// # Panics
/// When the database refuses it.
pub async fn ask(connection: &mut PgConnection, start: &StartInTransaction) -> RunId {
    let mut query = sqlx::query_scalar::<_, Uuid>(StartInTransaction::SQL);
    for parameter in start.parameters() {
        query = query.bind(parameter);
    }
    RunId(query.fetch_one(connection).await.expect("a start that is kept"))
}

/// Ann, for a reason.
#[must_use]
pub fn by(reason: &str) -> By {
    By { actor: "ann".into(), reason: reason.to_owned() }
}

/// Returns a start request.
#[must_use]
pub fn start(workflow: &str, input: &str) -> StartRun {
    StartRun {
        workflow: workflow.to_owned(),
        version: None,
        key: None,
        input: json(input),
        correlation_id: None,
        causation_id: None,
        labels: BTreeMap::new(),
        sequence: None,
        start_at: None,
        delay: None,
        end_by: None,
        undo_budget: None,
    }
}

/// Returns a definition of task steps in a row, each compensated, with short timeouts.
#[must_use]
pub fn chain(name: &str, steps: &[&str]) -> String {
    let mut before = None;
    let steps: Vec<String> = steps
        .iter()
        .map(|step| {
            let after = before.map_or(String::new(), |id| format!(r#""after":["{id}"],"#));
            before = Some(*step);
            format!(
                r#"{{"id":"{step}",{after}"task":{{"name":"do","input":{{"path":"/input"}},
                "compensate":{{"name":"undo","retry":{{"first_delay":"10ms","jitter":"none"}}}},
                "retry":{{"first_delay":"20ms","jitter":"none","max_attempts":3}},
                "timeouts":{{"heartbeat":"1s","attempt":"10s"}}}}}}"#
            )
        })
        .collect();
    format!(r#"{{"name":"{name}","version":1,"steps":[{}]}}"#, steps.join(","))
}

/// Returns a definition with one fan-out over `/input`.
#[must_use]
pub fn fan(name: &str, max_concurrency: u32, join: &str) -> String {
    format!(
        r#"{{"name":"{name}","version":1,"steps":[
        {{"id":"each","map":{{"items":{{"path":"/input"}},"join":{join},"empty":"succeed",
          "max_concurrency":{max_concurrency},
          "task":{{"name":"do","input":{{"path":"/item"}},"compensate":{{"name":"undo","retry":{{"first_delay":"10ms","jitter":"none"}}}},
            "retry":{{"first_delay":"10ms","jitter":"none","max_attempts":2}},
            "timeouts":{{"heartbeat":"1s","attempt":"10s"}}}}}}}},
        {{"id":"last","after":["each"],"task":{{"name":"do","input":{{"const":null}},"class":"retriable",
          "timeouts":{{"heartbeat":"1s","attempt":"10s"}}}}}}]}}"#
    )
}

/// A worker at one node, that claims and reports by hand.
pub struct Hand {
    /// The engine that it works for.
    pub engine: Engine,
    session: Uuid,
    names: Vec<&'static str>,
}

impl Hand {
    /// Returns a worker for the handlers `do` and `undo`.
    #[must_use]
    pub fn new(engine: &Engine) -> Hand {
        Hand { engine: engine.clone(), session: Uuid::new_v4(), names: vec!["do", "undo"] }
    }

    /// Claims at most `max` tasks within `wait`.
    ///
    /// # Panics
    /// When claiming fails.
    pub async fn claim(&self, max: u32, wait: Span) -> Vec<TaskOffer> {
        let names = self.names.iter().map(|name| (*name).to_owned()).collect();
        let claim = ClaimTasks {
            worker: "hand".to_owned(),
            session: self.session,
            queues: BTreeMap::from([("default".to_owned(), names)]),
            max,
            wait,
            holding: None,
        };
        self.engine.claim(NS, claim).await.expect("tasks").tasks
    }

    /// Claims one task, which must come within half a minute.
    ///
    /// # Panics
    /// When none comes.
    pub async fn one(&self) -> TaskOffer {
        self.claim(1, Span::secs(30)).await.pop().expect("a task within half a minute")
    }

    /// Reports success.
    pub async fn succeed(&self, offers: &[TaskOffer]) -> Vec<TaskAnswer> {
        let reports = offers.iter().map(|offer| {
            let outcome = TaskOutcome::Succeeded { output: offer.input.clone(), external_id: None };
            report(offer, outcome)
        });
        self.engine.complete(NS, reports.collect()).await
    }

    /// Reports a failure.
    pub async fn fail(&self, offer: &TaskOffer, kind: FailureKind) -> Vec<TaskAnswer> {
        let failure = Failure {
            kind,
            code: "refused".to_owned(),
            message: "as told".to_owned(),
            details: None,
            retry_after: None,
        };
        self.engine.complete(NS, vec![report(offer, TaskOutcome::Failed(failure))]).await
    }

    /// Gives a task back.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn release(&self, offer: &TaskOffer) -> TaskAnswer {
        let held = HeldTask {
            run: offer.run,
            step: offer.step.clone(),
            action: offer.action,
            attempt: offer.attempt,
            lease: offer.lease.clone(),
        };
        self.engine.release(NS, self.session, vec![held]).await.remove(0)
    }
}

/// Returns the report that `offer` came to `outcome`.
#[must_use]
pub fn report(offer: &TaskOffer, outcome: TaskOutcome) -> TaskReport {
    TaskReport {
        run: offer.run,
        step: offer.step.clone(),
        action: offer.action,
        attempt: offer.attempt,
        lease: offer.lease.clone(),
        outcome,
    }
}

/// One of the node's numbers.
///
/// # Panics
/// When it has no such number.
#[must_use]
pub fn metric(engine: &Engine, name: &str) -> f64 {
    let name = format!("backstitch_{name}");
    let found = engine.metrics().into_iter().find(|(known, ..)| *known == name);
    found.expect("a number of that name").3
}

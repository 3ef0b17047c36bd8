//! Start requests: what is checked at the edge before a run begins.

use std::sync::Arc;

use backstitch_saga::protocol::{StartAnswer, StartRun};
use backstitch_saga::{Hold, Parent, RunId, Start, Violation};
use sha2::{Digest, Sha256};

use crate::executor::envelope::{Answered, Answers, Envelope, Order, StartKey, StartOrder};
use crate::node::Node;
use crate::{Engine, Error, StartedRun};

/// The longest key, correlation id, label name or label value, in bytes.
const TEXT_LIMIT: usize = 255;
/// The most labels of one run.
const LABEL_LIMIT: usize = 32;

impl Engine {
    /// Starts a run with an id that the caller made, a UUIDv7 of about now. Asked again with the same id and the same
    /// input it is the same run, and answered the same.
    ///
    /// # Errors
    /// As [`Engine::start_run`]; [`Error::Refused`] when the id belongs to another run.
    pub async fn start_run_as(
        &self,
        namespace: &str,
        id: RunId,
        start: StartRun,
    ) -> Result<StartedRun, Error> {
        let started = start_runs(self.node(), namespace, vec![(id, start)]).await.pop();
        started.unwrap_or_else(|| Err(Error::Bug("a start was not answered".to_owned())))
    }

    /// Starts many runs as [`Engine::start_run_as`] does; each is answered for itself, in order.
    pub async fn start_runs_as(
        &self,
        namespace: &str,
        starts: Vec<(RunId, StartRun)>,
    ) -> Vec<StartAnswer> {
        let started = start_runs(self.node(), namespace, starts).await;
        let answers = started.into_iter().map(|started| match started {
            Ok(StartedRun { id, created }) => {
                let status = if created { 201 } else { 200 };
                StartAnswer { status, id: Some(id), code: None, message: None }
            }
            Err(error) => error.task_answer().into(),
        });
        answers.collect()
    }
}

/// Starts runs, or finds those that their ids or keys started; each is answered for itself, in order.
pub(crate) async fn start_runs(
    node: &Node,
    namespace: &str,
    requests: Vec<(RunId, StartRun)>,
) -> Vec<Result<StartedRun, Error>> {
    let namespace: Arc<str> = namespace.into();
    let answers = Answers::new(requests.len());
    let mut runs = Vec::with_capacity(requests.len());
    let mut envelopes = Vec::with_capacity(requests.len());
    for (slot, (run, request)) in requests.into_iter().enumerate() {
        runs.push(run);
        let mut ticket = answers.ticket(slot);
        match order(node, &namespace, request).await {
            Ok(order) => {
                let order = Order::Start(Box::new(order));
                envelopes.push(Envelope::asked(run, namespace.clone(), order, ticket));
            }
            Err(error) => ticket.answer(Err(error)),
        }
    }
    if let Err((_, refused)) = node.submit(envelopes) {
        refused.into_iter().for_each(|mut envelope| envelope.answer(Err(Error::Busy)));
    }
    let answered = answers.wait().await.into_iter().zip(runs).map(|(answer, run)| match answer? {
        Answered::Started(started) => Ok(started),
        Answered::Reply(_) => Ok(StartedRun { id: run, created: true }),
    });
    answered.collect()
}

/// Checks a request as starting it would; nothing is started.
pub(crate) async fn check_request(
    node: &Node,
    namespace: &str,
    request: StartRun,
) -> Result<(), Error> {
    order(node, &namespace.into(), request).await.map(drop)
}

/// Starts a run that is a step of another, unless it was started before.
pub(crate) async fn start_child(
    node: &Arc<Node>,
    namespace: &Arc<str>,
    child: RunId,
    request: StartRun,
    parent: Parent,
    holds: Vec<(Hold, String)>,
) -> Result<(), Error> {
    let mut order = order(node, namespace, request).await?;
    (order.start.parent, order.start.holds) = (Some(parent), holds);
    let answers = Answers::new(1);
    let order = Order::Start(Box::new(order));
    let envelope = Envelope::asked(child, namespace.clone(), order, answers.ticket(0));
    node.submit_own(vec![envelope]);
    answers.wait().await.pop().unwrap_or(Err(Error::Busy)).map(drop)
}

/// What a run begins with, checked.
async fn order(node: &Node, namespace: &Arc<str>, request: StartRun) -> Result<StartOrder, Error> {
    check(&request, node.options.payload_limit)?;
    let StartRun { workflow, version, key, input, correlation_id, labels } = request;
    let workflow =
        node.definitions.resolve(&node.database.readers, namespace, &workflow, version).await?;
    workflow.check_input(&input)?;
    let key = key.map(|key| {
        let name = workflow.graph.definition.name.clone();
        let start = StartKey {
            key: (namespace.to_string(), key.clone(), name),
            input_digest: Sha256::digest(input.canonical()).into(),
        };
        (key, start)
    });
    let start = Start {
        namespace: namespace.clone(),
        definition: workflow.hash.clone(),
        key: key.as_ref().map(|(key, _)| key.as_str().into()),
        correlation_id: correlation_id.map(Arc::from),
        labels,
        input,
        parent: None,
        holds: node.pauses.holds(namespace, &workflow.graph.definition.name),
    };
    Ok(StartOrder { start, workflow, key: key.map(|(_, start)| start) })
}

/// What PostgreSQL could not hold, or nobody could read, is refused here.
fn check(request: &StartRun, payload_limit: usize) -> Result<(), Error> {
    let mut violations = Vec::new();
    let mut text = |pointer: &str, text: &str| {
        if text.is_empty() || text.len() > TEXT_LIMIT {
            let message = format!("between 1 and {TEXT_LIMIT} bytes, not {}", text.len());
            violations.push(Violation::new(pointer, "length", message));
        }
        if text.contains('\0') {
            let message = "the character U+0000 cannot be stored; leave it out";
            violations.push(Violation::new(pointer, "nul_character", message));
        }
    };
    text("/workflow", &request.workflow);
    if let Some(key) = &request.key {
        text("/key", key);
    }
    if let Some(id) = &request.correlation_id {
        text("/correlation_id", id);
    }
    for (name, value) in &request.labels {
        let pointer = format!("/labels/{}", name.replace('~', "~0").replace('/', "~1"));
        text(&pointer, name);
        text(&pointer, value);
    }
    if request.labels.len() > LABEL_LIMIT {
        let message = format!("at most {LABEL_LIMIT} labels, not {}", request.labels.len());
        violations.push(Violation::new("/labels", "too_many", message));
    }
    if !violations.is_empty() {
        return Err(Error::Invalid { code: "invalid_request", violations });
    }
    request.input.check(payload_limit).map_err(|violation| {
        let pointer = format!("/input{}", violation.pointer);
        Error::invalid("invalid_input", Violation { pointer, ..violation })
    })
}

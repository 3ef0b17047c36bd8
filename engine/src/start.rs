//! Start requests: what is checked at the edge before a run begins.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstitch_saga::protocol::{CREATED, DONE, StartAnswer, StartRun};
use backstitch_saga::{
    Descent, EndBy, Hold, Parent, RunId, Span, Start, Time, Violation, check_start,
};

use crate::cooperation::Pieces;
use crate::executor::digest::InputDigest;
use crate::executor::request::{
    Answer, Answered, Answers, Request, ShardCommand, StartKey, StartOrder,
};
use crate::node::Node;
use crate::sequence::{self, Wanted};
use crate::{Engine, Error, StartedRun, undo_times};

/// The furthest that the instant at which a run begins may lie ahead.
pub(crate) const START_WITHIN: Span = Span::days(366);

/// Time for which the starts of one request are checked; the rest is answered [`Error::Busy`].
const CHECK_WITHIN: Duration = Duration::from_secs(5);

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

    /// Starts many runs as [`Engine::start_run_as`] does; each has its own result, in order.
    pub async fn start_runs_as(
        &self,
        namespace: &str,
        starts: Vec<(RunId, StartRun)>,
    ) -> Vec<StartAnswer> {
        let started = start_runs(self.node(), namespace, starts).await;
        let answers = started.into_iter().map(|started| match started {
            Ok(StartedRun { id, created }) => {
                let status = if created { CREATED } else { DONE };
                StartAnswer { status, id: Some(id), code: None, message: None }
            }
            Err(error) => error.task_answer().into(),
        });
        answers.collect()
    }
}

/// Starts runs, or finds those that their ids or keys started; each has its own result, in order.
pub(crate) async fn start_runs(
    node: &Node,
    namespace: &str,
    requests: Vec<(RunId, StartRun)>,
) -> Vec<Result<StartedRun, Error>> {
    let namespace: Arc<str> = namespace.into();
    let answers = Answers::new(requests.len());
    let mut runs = Vec::with_capacity(requests.len());
    let mut envelopes = Vec::with_capacity(requests.len());
    let mut later = Vec::new();
    let (until, mut pieces) = (Instant::now() + CHECK_WITHIN, Pieces::default());
    for (slot, (run, request)) in requests.into_iter().enumerate() {
        let mut ticket = answers.ticket(slot);
        let mut placed = false;
        if Instant::now() > until {
            ticket.answer(Err(Error::Busy));
            runs.push((run, placed));
            continue;
        }
        pieces.done(request.input.text().len()).await;
        match admit(node, &namespace, run, request).await {
            Ok(Admitted::Begins(order, has_place)) => {
                placed = has_place;
                let order = ShardCommand::Start(order);
                envelopes.push(Request::asked(run, namespace.clone(), order, ticket));
            }
            Ok(Admitted::After(other, twin)) => {
                later.push((slot, other, twin));
                ticket.answer(Err(Error::Busy));
            }
            Err(error) => ticket.answer(Err(error)),
        }
        runs.push((run, placed));
    }
    if let Err((_, refused)) = node.submit(envelopes) {
        refused.into_iter().for_each(|mut envelope| envelope.answer(Err(Error::Busy)));
    }
    let mut answered = Vec::with_capacity(runs.len());
    for (answer, (run, placed)) in answers.wait().await.into_iter().zip(&runs) {
        let answer = started(answer, *run);
        let begins = match &answer {
            Ok(started) => started.id == *run,
            // It is not known whether it began; sweeping will find out.
            Err(error) => matches!(error, Error::Store(_)),
        };
        if *placed && !begins {
            sequence::abandon(node, &namespace, *run).await;
        }
        answered.push(answer);
    }
    for (slot, other, twin) in later {
        answered[slot] = after(node, &namespace, runs[slot].0, other, twin).await;
    }
    answered
}

fn started(answer: Answer, run: RunId) -> Result<StartedRun, Error> {
    answer.map(|answer| match answer {
        Answered::Started(started) => started,
        Answered::Reply(_) => StartedRun { id: run, created: true },
    })
}

/// Answers a start by another run. With that, once it has begun; if it is the same start, as its own key says then. A
/// twin that does not begin, because the node died that let it in, begins by this start.
async fn after(
    node: &Node,
    namespace: &Arc<str>,
    run: RunId,
    other: RunId,
    twin: Option<(Box<StartOrder>, Wanted)>,
) -> Result<StartedRun, Error> {
    let Some(twin) = twin else {
        sequence::begun(node, other, sequence::BEGUN_WITHIN).await?;
        return Ok(StartedRun { id: other, created: false });
    };
    let (mut order, wanted) = twin;
    let run = match sequence::begun(node, other, sequence::TWIN_WITHIN).await {
        Ok(()) => {
            // If the other does not exist any more by then, a sweep finds this one its place.
            order.start.holds.extend(wanted.serial.iter().map(|(key, _)| sequence::key_hold(key)));
            run
        }
        Err(Error::Busy) => {
            order.start.holds.extend(sequence::as_twin(node, other, &wanted).await?);
            other
        }
        Err(error) => return Err(error),
    };
    let answers = Answers::new(1);
    let order = ShardCommand::Start(order);
    let envelope = Request::asked(run, namespace.clone(), order, answers.ticket(0));
    if let Err((_, refused)) = node.submit(vec![envelope]) {
        refused.into_iter().for_each(|mut envelope| envelope.answer(Err(Error::Busy)));
    }
    started(answers.wait().await.pop().unwrap_or(Err(Error::Busy)), run)
}

/// The next step of a start.
enum Admitted {
    /// It becomes a run; `true` when it has a place among others, to be given back if it does not.
    Begins(Box<StartOrder>, bool),
    /// It is answered when this run has begun: with it, or, if it is the same start, when it is asked for then.
    After(RunId, Option<(Box<StartOrder>, Wanted)>),
}

/// Checks a start, and gives it its place among others if it wants one.
async fn admit(
    node: &Node,
    namespace: &Arc<str>,
    run: RunId,
    request: StartRun,
) -> Result<Admitted, Error> {
    let (mut order, wanted) = order(node, namespace, request).await?;
    let Some(wanted) = wanted else { return Ok(Admitted::Begins(order, false)) };
    if let Some(holds) = sequence::holds_of_delayed(&wanted, order.start.start_at) {
        order.start.holds.extend(holds);
        return Ok(Admitted::Begins(order, false));
    }
    let key = order.key.as_ref().map(|key| &key.key);
    match sequence::admit(node, namespace, run, key, &wanted).await? {
        sequence::Admitted::Start { holds, placed } => {
            order.start.holds.extend(holds);
            Ok(Admitted::Begins(order, placed))
        }
        sequence::Admitted::Existing(other) => Ok(Admitted::After(other, None)),
        sequence::Admitted::Twin(other) => Ok(Admitted::After(other, Some((order, wanted)))),
    }
}

/// Checks a request as starting it would; nothing is started.
pub(crate) async fn check_request(
    node: &Node,
    namespace: &str,
    request: StartRun,
) -> Result<(), Error> {
    order(node, &namespace.into(), request).await.map(drop)
}

/// The beginning of a child run.
pub(crate) struct ChildStart {
    /// Its id.
    pub(crate) child: RunId,
    pub(crate) request: StartRun,
    pub(crate) parent: Parent,
    pub(crate) descent: Descent,
    /// The hold that it begins with.
    pub(crate) hold: Option<(Hold, String)>,
    /// It is to end before it does anything, and takes no place among others.
    pub(crate) doomed: bool,
}

/// Starts a run that is a step of another, unless it was started before.
pub(crate) async fn start_child(
    node: &Arc<Node>,
    namespace: &Arc<str>,
    start: ChildStart,
) -> Result<(), Error> {
    let ChildStart { child, request, parent, descent, hold, doomed } = start;
    let (mut order, wanted) = order(node, namespace, request).await?;
    let wanted = wanted.filter(|_| !doomed);
    if doomed {
        order.start.requires.clear();
    }
    order.start.parent = Some(parent.clone());
    order.start.descent = Some(descent);
    order.start.holds.extend(hold);
    if let Some(wanted) = wanted {
        let more = sequence::admit_child(node, namespace, child, parent.run, wanted).await?;
        order.start.holds.extend(more);
    }
    let answers = Answers::new(1);
    let order = ShardCommand::Start(order);
    let envelope = Request::asked(child, namespace.clone(), order, answers.ticket(0));
    node.submit_own(vec![envelope.urgent_if(doomed)]);
    answers.wait().await.pop().unwrap_or(Err(Error::Busy)).map(drop)
}

/// Returns the checked start of a run.
async fn order(
    node: &Node,
    namespace: &Arc<str>,
    request: StartRun,
) -> Result<(Box<StartOrder>, Option<Wanted>), Error> {
    check(&request, node.options.payload_limit)?;
    let now = node.clock.now();
    let start_at = start_at(now, &request)?;
    let (end_by, undo_budget) = (request.end_by, request.undo_budget);
    let StartRun { workflow, version, key, input, labels, sequence, .. } = request;
    let (correlation_id, causation_id) = (request.correlation_id, request.causation_id);
    let workflow = node.definitions.resolve(&node.database, namespace, &workflow, version).await?;
    if let Some(schema) = &workflow.graph.definition.input_schema {
        node.schemas.check(namespace, schema, &input, "/input", "invalid_input").await?;
    }
    let wanted = Wanted::of(&workflow.graph.definition, sequence, &input)?;
    let key = key.map(|key| {
        let name = workflow.graph.definition.name.clone();
        let start = StartKey {
            key: (namespace.to_string(), key.clone(), name),
            input_digest: InputDigest::of(&input),
        };
        (key, start)
    });
    let definition = &workflow.graph.definition;
    let within = definition.end_within.map(|within| start_at.unwrap_or(now).after(within));
    let end_by = match end_by.map(|at| at.0).or(within) {
        Some(at) => {
            let budget = undo_budget.or(definition.undo_budget);
            Some(ends(node, (namespace, &definition.name), at, budget).await)
        }
        None => None,
    };
    let start = Start {
        namespace: namespace.clone(),
        definition: workflow.hash.clone(),
        key: key.as_ref().map(|(key, _)| key.as_str().into()),
        correlation_id: correlation_id.map(Arc::from),
        causation_id: causation_id.map(Arc::from),
        labels,
        input,
        parent: None,
        descent: (workflow.graph.children() > 0)
            .then_some(Descent { depth: 0, budget: node.options.descendant_limit }),
        holds: node.pauses.holds(namespace, &workflow.graph.definition.name),
        start_at,
        requires: wanted.as_ref().map_or(Vec::new(), Wanted::required),
        end_by,
    };
    let key = key.map(|(_, start)| start);
    Ok((Box::new(StartOrder { start, workflow, key }), wanted))
}

/// Returns when a run is to be over, and what is to be reserved for undoing it.
async fn ends(
    node: &Node,
    (namespace, workflow): (&str, &str),
    at: Time,
    budget: Option<Span>,
) -> Box<EndBy> {
    let undo = match budget {
        Some(_) => BTreeMap::new(),
        None => match undo_times::of(node, namespace, workflow).await {
            Ok(times) => BTreeMap::clone(&times),
            // The time reserved for steps without a recent undo is better than no start.
            Err(error) => {
                tracing::debug!(%error, namespace, workflow, "the time of undos is not known");
                BTreeMap::new()
            }
        },
    };
    Box::new(EndBy { at, budget, undo })
}

/// Returns the later instant at which a run is to begin; `None` if it begins immediately.
fn start_at(now: Time, request: &StartRun) -> Result<Option<Time>, Error> {
    let (pointer, at) = match (request.start_at, request.delay) {
        (Some(at), _) => ("/start_at", at.0),
        (None, Some(delay)) => ("/delay", now.after(delay)),
        (None, None) => return Ok(None),
    };
    if at > now.after(START_WITHIN) {
        let message = format!("a run begins within {START_WITHIN} from now, not at {at}");
        let violation = Violation::new(pointer, "out_of_range", message);
        return Err(Error::invalid("invalid_request", violation));
    }
    Ok(Some(at).filter(|at| *at > now))
}

/// Refuses values that PostgreSQL could not hold, or that cannot be read.
fn check(request: &StartRun, payload_limit: usize) -> Result<(), Error> {
    let violations = check_start(request);
    if !violations.is_empty() {
        return Err(Error::Invalid { code: "invalid_request", violations });
    }
    request.input.check(payload_limit).map_err(|violation| {
        let pointer = format!("/input{}", violation.pointer);
        Error::invalid("invalid_input", Violation { pointer, ..violation })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_lies_ahead_by_a_year_at_most_and_not_in_the_past() {
        let now = Time(1_777_593_600_000);
        let at = |text: &str| {
            let request: StartRun = serde_json::from_str(text).unwrap();
            start_at(now, &request).map_err(|error| match error {
                Error::Invalid { violations, .. } => violations[0].pointer.clone(),
                other => other.to_string(),
            })
        };
        let later = |span| Ok(Some(now.after(span)));
        assert_eq!(at(r#"{"workflow":"w"}"#), Ok(None));
        assert_eq!(at(r#"{"workflow":"w","delay":"0s"}"#), Ok(None));
        assert_eq!(at(r#"{"workflow":"w","delay":"15m"}"#), later(Span::secs(900)));
        assert_eq!(at(r#"{"workflow":"w","delay":"366d"}"#), later(Span::days(366)));
        assert_eq!(at(r#"{"workflow":"w","delay":"367d"}"#), Err("/delay".to_owned()));
        assert_eq!(
            at(r#"{"workflow":"w","start_at":"2026-05-01T01:00:00Z"}"#),
            later(Span::secs(3_600))
        );
        assert_eq!(at(r#"{"workflow":"w","start_at":"2026-04-30T23:59:59Z"}"#), Ok(None));
        assert_eq!(
            at(r#"{"workflow":"w","start_at":"2028-05-01T00:00:00Z"}"#),
            Err("/start_at".to_owned())
        );
    }
}

//! Reasons why a run does not go on: those in its journal, and those that this node knows.

use std::sync::Arc;

use backstitch_saga::protocol::{Condition, RunView, WaitKind, WaitsFor, Why};
use backstitch_saga::{Run, RunId, Span, StepPath, Time, Timestamp};
use sqlx::postgres::PgConnection;

use crate::background::millis;
use crate::flow;
use crate::node::Node;
use crate::reads::read;
use crate::sequence;
use crate::store::runs;
use crate::store::workers::{self, Serving};
use crate::{Engine, Error};

/// Returns the time such that tasks offered since then or longer are compared with the present
/// workers.
pub(crate) fn long_ago(node: &Node) -> Time {
    let span = Span::from(node.options.tuning.no_worker_after);
    Time(node.clock.now().0.saturating_sub_unsigned(span.0))
}

impl Engine {
    /// Returns what would have to happen for a run to go on.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn why(&self, namespace: &str, id: RunId) -> Result<Why, Error> {
        let node = self.node();
        let (governed, now) = (node.flow.governed(), node.clock.now());
        let look = move |run: &Run| {
            let governed = governed.as_ref();
            let limits = governed.map(|governed| flow::conditions(governed, run, now));
            (run.why(), limits.unwrap_or_default())
        };
        let (mut why, limits) = read(node, namespace, id, look).await?;
        let mut connection = node.database.reader(namespace).await?;
        name_workers(node, &mut connection, namespace, &mut why).await?;
        name_limits(limits, &mut why);
        name_paused_children(node, &mut connection, namespace, &mut why).await?;
        sequence::name_others(&mut connection, namespace, &mut why).await?;
        why.summarize();
        Ok(why)
    }
}

/// Says of children that have not begun that their workflow is paused. There is no such run yet that could be asked for.
async fn name_paused_children(
    node: &Arc<Node>,
    connection: &mut PgConnection,
    namespace: &str,
    why: &mut Why,
) -> Result<(), Error> {
    for wait in why.waits_for.iter_mut().filter(|wait| wait.kind == WaitKind::Child) {
        let (Some(workflow), Some(child)) = (&wait.named, wait.other) else { continue };
        if node.pauses.is_paused(namespace, workflow)
            && runs::ended(connection, child).await?.is_none()
        {
            let step = wait.step.as_ref().map(StepPath::to_string).unwrap_or_default();
            wait.other = None;
            wait.message = format!(
                "{step}: its child, which starts when the workflow '{workflow}' goes on: it is paused"
            );
        }
    }
    Ok(())
}

/// Adds the limits of their queues to offered tasks that a worker could do. For tasks that no worker could do, adds
/// that their queue is paused.
fn name_limits(limits: Vec<Condition>, why: &mut Why) {
    for limit in limits {
        let undone = |wait: &&mut WaitsFor| {
            wait.kind == WaitKind::NoWorker
                && wait.step == limit.step
                && matches!(limit.kind.as_str(), "QueuePaused" | "QueueDamaged")
        };
        if let Some(wait) = why.waits_for.iter_mut().find(undone) {
            wait.message = format!("{}; and {}", wait.message, limit.message);
            continue;
        }
        let same = |wait: &&mut WaitsFor| wait.kind == WaitKind::OnOffer && wait.step == limit.step;
        if let Some(wait) = why.waits_for.iter_mut().find(same) {
            let step = wait.step.as_ref().map(StepPath::to_string).unwrap_or_default();
            wait.kind = match limit.kind.as_str() {
                "QueuePaused" | "QueueDamaged" => WaitKind::QueuePaused,
                "DestinationUnavailable" => WaitKind::DestinationUnavailable,
                "RetryBudgetExhausted" => WaitKind::RetryBudgetExhausted,
                _ => WaitKind::QueueLimited,
            };
            wait.since = wait.since.max(limit.since);
            wait.message = format!("{step}: {}", limit.message);
        }
    }
}

/// Determines whether offered tasks have a worker with a handler.
async fn name_workers(
    node: &Arc<Node>,
    connection: &mut PgConnection,
    namespace: &str,
    why: &mut Why,
) -> Result<(), Error> {
    let mut offered: Vec<_> =
        why.waits_for.iter_mut().filter(|wait| wait.kind == WaitKind::OnOffer).collect();
    if offered.is_empty() {
        return Ok(());
    }
    let routes: Vec<(String, String)> = offered.iter().map(|wait| route(wait)).collect();
    let known = serving(node, connection, namespace, &routes).await?;
    for ((wait, known), (queue, handler)) in offered.iter_mut().zip(known).zip(&routes) {
        let step = wait.step.as_ref().map(StepPath::to_string).unwrap_or_default();
        match known {
            Serving { sessions: 0, last_gone } => {
                wait.kind = WaitKind::NoWorker;
                let since = last_gone.map_or(wait.since, |at| wait.since.max(Timestamp(at)));
                wait.since = since;
                wait.message = no_worker(&step, queue, handler, last_gone);
            }
            Serving { sessions, .. } => {
                // Of the workers at other servers it is not known.
                let idle = node.dispatcher.is_wanted(namespace, queue, handler);
                let state = if idle {
                    "one waits for work and gets it within seconds"
                } else {
                    "all are busy"
                };
                wait.message = format!(
                    "{step}: one of the {sessions} workers that do '{handler}' on queue '{queue}'; {state}"
                );
            }
        }
    }
    Ok(())
}

async fn serving(
    node: &Arc<Node>,
    connection: &mut PgConnection,
    namespace: &str,
    routes: &[(String, String)],
) -> Result<Vec<Serving>, Error> {
    let queues: Vec<&str> = routes.iter().map(|(queue, _)| queue.as_str()).collect();
    let handlers: Vec<&str> = routes.iter().map(|(_, handler)| handler.as_str()).collect();
    let dead_after = millis(node.options.tuning.dead_after);
    Ok(workers::serving(connection, namespace, &queues, &handlers, dead_after).await?)
}

fn no_worker(step: &str, queue: &str, handler: &str, last_gone: Option<Time>) -> String {
    let last = last_gone.map_or(String::new(), |at| format!("; the last one went at {at}"));
    format!("{step}: no worker does '{handler}' on queue '{queue}'{last}; start one")
}

/// Adds the condition `NoWorker` to a run with tasks that were offered for a while and that no
/// worker has a handler for.
pub(crate) async fn add_no_worker(
    node: &Arc<Node>,
    waits: Vec<WaitsFor>,
    view: &mut RunView,
) -> Result<(), Error> {
    if waits.is_empty() {
        return Ok(());
    }
    let routes: Vec<(String, String)> = waits.iter().map(route).collect();
    let mut connection = node.database.reader(&view.namespace).await?;
    let known = serving(node, &mut connection, &view.namespace, &routes).await?;
    for ((wait, known), (queue, handler)) in waits.into_iter().zip(known).zip(&routes) {
        if known.sessions == 0 {
            let step = wait.step.as_ref().map(StepPath::to_string).unwrap_or_default();
            view.conditions.push(Condition {
                kind: "NoWorker".to_owned(),
                message: no_worker(&step, queue, handler, known.last_gone),
                step: wait.step,
                since: wait.since,
            });
        }
    }
    Ok(())
}

fn route(wait: &WaitsFor) -> (String, String) {
    (wait.queue.clone().unwrap_or_default(), wait.handler.clone().unwrap_or_default())
}

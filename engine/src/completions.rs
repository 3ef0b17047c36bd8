//! Attempts that workers completed in transactions of their own, and did not live to report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backstitch_saga::{RefusalCode, Span, Time};

use crate::Error;
use crate::crash::commit;
use crate::executor::fence::report;
use crate::executor::request::{Answers, Request, ShardCommand};
use crate::node::Node;
use crate::rounds::in_turns;
use crate::store::fences as table;

/// How many are taken at once.
const COMPLETIONS: i64 = 500;
/// For how long a worker is given the chance to report by itself, which is faster.
const GRACE: Duration = Duration::from_secs(1);

/// For how long it is remembered that an attempt was revoked: longer than any node can be slow to make its fence.
const REVOKED_FOR: Duration = Duration::from_secs(86_400);

/// How many times in a row so many are taken.
const PAGES: usize = 20;

/// Reports attempts that were completed and not reported, in turns between namespaces. Returns how many. Two nodes that do so
/// at once report the same, which is once. Those that cannot be reported now stay, and keep no others back.
pub(crate) async fn take(node: &Arc<Node>) -> Result<usize, Error> {
    // Both by the clock that the database fills the column in with.
    let before = node.clock.as_shown(ago(node, GRACE));
    let now = node.clock.as_shown(node.clock.now().after(GRACE.into()));
    let mut stayed: BTreeMap<String, i64> = BTreeMap::new();
    let (mut closed, mut seen, mut after) = (0, false, String::new());
    for _ in 0..PAGES {
        let mut connection = node.database.keepers.acquire().await?;
        let times = (before, now);
        let found = table::completed(&mut connection, times, COMPLETIONS, &after, &stayed).await?;
        drop(connection);
        seen |= !found.rows.is_empty();
        for (_, completion) in &found.rows {
            *stayed.entry(completion.namespace.clone()).or_default() += 1;
        }
        let of = in_turns(found.rows, "", |(_, completion)| &completion.namespace);
        for namespace in report_all(node, of).await? {
            closed += 1;
            stayed.entry(namespace).and_modify(|stayed| *stayed -= 1);
        }
        match found.last {
            Some(last) => after = last,
            None if std::mem::take(&mut seen) => after.clear(),
            None => break,
        }
    }
    Ok(closed)
}

/// Reports these attempts, and closes those whose end stands in the journal then. Returns the namespace of each of these.
async fn report_all(
    node: &Arc<Node>,
    found: Vec<(table::Fence, table::Completion)>,
) -> Result<Vec<String>, Error> {
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let answers = Answers::new(found.len());
    let mut fences = Vec::with_capacity(found.len());
    let mut envelopes = Vec::with_capacity(found.len());
    let mut namespaces = Vec::with_capacity(found.len());
    for (slot, ((run, task), completion)) in found.into_iter().enumerate() {
        let mut ticket = answers.ticket(slot);
        let namespace: Arc<str> = completion.namespace.as_str().into();
        namespaces.push(completion.namespace.clone());
        match report(task.clone(), completion, node.options.payload_limit) {
            Some(report) => {
                let order = ShardCommand::Command(report);
                envelopes.push(Request::asked(run, namespace, order, ticket));
            }
            None => ticket.answer(Err(Error::Bug("an output that is not JSON".to_owned()))),
        }
        fences.push((run, task));
    }
    node.submit_own(envelopes);
    let (mut settled, mut of) = (Vec::new(), Vec::new());
    for ((fence, namespace), answer) in fences.into_iter().zip(namespaces).zip(answers.wait().await)
    {
        match answer {
            Ok(_) | Err(Error::NotFound { .. }) => {
                settled.push(fence);
                of.push(namespace);
            }
            Err(Error::Refused(refusal))
                if matches!(
                    refusal.code,
                    RefusalCode::LeaseLost | RefusalCode::AlreadyReported
                ) =>
            {
                let (run, task) = &fence;
                if refusal.code == RefusalCode::AlreadyReported {
                    tracing::warn!(%run, %task, "an attempt was completed and reported otherwise before; the run tells of both");
                } else {
                    tracing::error!(%run, %task, "an attempt was completed although it had ended; its effect stands, the run does not know it");
                }
                settled.push(fence);
                of.push(namespace);
            }
            Err(error) => tracing::warn!(%error, "a completed attempt is reported again later"),
        }
    }
    if !settled.is_empty() {
        let mut connection = node.database.keepers.acquire().await?;
        commit!(
            "completions_close",
            table::close(&mut connection, &settled, node.clock.now()).await
        )?;
    }
    Ok(of)
}

/// Forgets what was revoked or completed long ago. Answers how much.
pub(crate) async fn forget(node: &Node) -> Result<usize, Error> {
    let revoked = ago(node, REVOKED_FOR);
    let closed = ago(node, node.options.idempotency_retention);
    let mut connection = node.database.keepers.acquire().await?;
    let count = commit!(
        "completions_forget",
        table::forget(&mut connection, revoked, closed, COMPLETIONS).await
    )?;
    Ok(usize::try_from(count).unwrap_or_default())
}

/// The instant `span` before now.
fn ago(node: &Node, span: Duration) -> Time {
    Time(node.clock.now().0.saturating_sub_unsigned(Span::from(span).0))
}

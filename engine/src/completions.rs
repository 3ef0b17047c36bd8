//! Attempts that workers completed in transactions of their own, and did not live to report.

use std::sync::Arc;
use std::time::Duration;

use backstitch_saga::{RefusalCode, Span, Time};

use crate::Error;
use crate::crash::commit;
use crate::executor::envelope::{Answers, Envelope, Order};
use crate::executor::fence::report;
use crate::node::Node;
use crate::store::fences as table;

/// How many are taken at once.
const COMPLETIONS: i64 = 500;
/// For how long a worker is given the chance to report by itself, which is faster.
const GRACE: Duration = Duration::from_secs(1);

/// For how long it is remembered that an attempt was revoked: longer than any node can be slow to make its fence.
const REVOKED_FOR: Duration = Duration::from_secs(86_400);

/// How many times in a row so many are taken.
const PAGES: usize = 20;

/// Reports attempts that were completed and not reported. Answers how many. Two nodes that do so at once report the
/// same, which is once. Those that cannot be reported now stay, and keep no others back.
pub(crate) async fn take(node: &Arc<Node>) -> Result<usize, Error> {
    // Both by the clock that the database fills the column in with.
    let before = node.clock.as_shown(ago(node, GRACE));
    let now = node.clock.as_shown(node.clock.now().after(GRACE.into()));
    let (mut closed, mut stayed) = (0, 0);
    for _ in 0..PAGES {
        let mut connection = node.database.keepers.acquire().await?;
        let found = table::completed(&mut connection, (before, now), COMPLETIONS, stayed).await?;
        drop(connection);
        let count = found.len();
        let settled = report_all(node, found).await?;
        closed += settled;
        stayed += i64::try_from(count - settled).unwrap_or(COMPLETIONS);
        if count < usize::try_from(COMPLETIONS).unwrap_or(usize::MAX) {
            break;
        }
    }
    Ok(closed)
}

/// Reports these attempts, and closes those whose end stands in the journal then. Answers how many.
async fn report_all(
    node: &Arc<Node>,
    found: Vec<(table::Fence, table::Completion)>,
) -> Result<usize, Error> {
    if found.is_empty() {
        return Ok(0);
    }
    let answers = Answers::new(found.len());
    let mut fences = Vec::with_capacity(found.len());
    let mut envelopes = Vec::with_capacity(found.len());
    for (slot, ((run, task), completion)) in found.into_iter().enumerate() {
        let mut ticket = answers.ticket(slot);
        let namespace = completion.namespace.as_str().into();
        match report(task.clone(), completion, node.options.payload_limit) {
            Some(report) => {
                let order = Order::Command(report);
                envelopes.push(Envelope::asked(run, namespace, order, ticket));
            }
            None => ticket.answer(Err(Error::Bug("an output that is not JSON".to_owned()))),
        }
        fences.push((run, task));
    }
    node.submit_own(envelopes);
    let mut settled = Vec::new();
    for (fence, answer) in fences.into_iter().zip(answers.wait().await) {
        match answer {
            Ok(_) | Err(Error::NotFound { .. }) => settled.push(fence),
            Err(Error::Refused(refusal))
                if matches!(
                    refusal.code,
                    RefusalCode::LeaseLost | RefusalCode::AlreadyReported
                ) =>
            {
                let (run, task) = &fence;
                tracing::error!(%run, %task, "an attempt was completed although it had ended; its effect stands, the run does not know it");
                settled.push(fence);
            }
            Err(error) => tracing::warn!(%error, "a completed attempt is reported again later"),
        }
    }
    let count = settled.len();
    if count > 0 {
        let mut connection = node.database.keepers.acquire().await?;
        commit!(
            "completions_close",
            table::close(&mut connection, &settled, node.clock.now()).await
        )?;
    }
    Ok(count)
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

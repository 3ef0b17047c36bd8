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
use crate::store::fences::{self as table, Unreadable};

/// Number of completions that are taken together.
const COMPLETIONS: i64 = 500;
/// Time for which a worker may report by itself, which is faster.
const GRACE: Duration = Duration::from_secs(1);

/// Time for which the revocation of an attempt is remembered: longer than any node can take to make its fence.
const REVOKED_FOR: Duration = Duration::from_secs(86_400);

/// Number of such pages in one pass.
const PAGES: usize = 20;

/// Reports attempts that were completed and not reported, in turns between namespaces. Returns their number. Two nodes
/// may report the same attempts, which count once. Those that cannot be reported now stay, and delay no others.
pub(crate) async fn take(node: &Arc<Node>) -> Result<usize, Error> {
    // Both by the clock that the database fills the column in with.
    let before = node.clock.as_shown(ago(node, GRACE));
    let now = node.clock.as_shown(node.clock.now().after(GRACE.into()));
    let mut stayed: BTreeMap<String, i64> = BTreeMap::new();
    let (mut closed, mut seen, mut after) = (0, false, String::new());
    let mut stuck = Vec::new();
    for _ in 0..PAGES {
        let mut connection = node.database.keepers.acquire().await?;
        let times = (before, now);
        let found = table::completed(&mut connection, times, COMPLETIONS, &after, &stayed).await?;
        drop(connection);
        seen |= !found.rows.is_empty();
        let mut readable = Vec::with_capacity(found.rows.len());
        for row in found.rows {
            let namespace = match &row {
                Ok((_, completion)) => &completion.namespace,
                Err(unreadable) => &unreadable.namespace,
            };
            *stayed.entry(namespace.clone()).or_default() += 1;
            match row {
                Ok(row) => readable.push(row),
                Err(unreadable) => stuck.push(unreadable),
            }
        }
        let of = in_turns(readable, "", |(_, completion)| &completion.namespace);
        for namespace in report_all(node, of, &mut stuck).await? {
            closed += 1;
            stayed.entry(namespace).and_modify(|stayed| *stayed -= 1);
        }
        match found.last {
            Some(last) => after = last,
            None if std::mem::take(&mut seen) => after.clear(),
            None => break,
        }
    }
    tell_stuck(node, &stuck);
    Ok(closed)
}

/// Tells of completions that cannot be reported, each once.
fn tell_stuck(node: &Node, stuck: &[Unreadable]) {
    let places = stuck.iter().map(|one| (one.namespace.clone(), one.run.to_string())).collect();
    for (namespace, run) in node.health.completions_found(places) {
        let same = |one: &&Unreadable| one.namespace == namespace && one.run.to_string() == run;
        let why = stuck.iter().find(same).map_or("", |one| one.why.as_str());
        tracing::error!(
            namespace,
            run,
            why,
            "a worker completed an attempt in its transaction, and the row of it in the table fences cannot be used"
        );
    }
}

/// Reports these attempts, and closes those whose end is in the journal then. Returns the namespace of each of these.
async fn report_all(
    node: &Arc<Node>,
    found: Vec<(table::Fence, table::Completion)>,
    stuck: &mut Vec<Unreadable>,
) -> Result<Vec<String>, Error> {
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let answers = Answers::new(found.len());
    let mut fences = Vec::with_capacity(found.len());
    let mut envelopes = Vec::with_capacity(found.len());
    let mut namespaces = Vec::with_capacity(found.len());
    for (slot, ((run, task), completion)) in found.into_iter().enumerate() {
        let ticket = answers.ticket(slot);
        let namespace: Arc<str> = completion.namespace.as_str().into();
        namespaces.push(completion.namespace.clone());
        let report = report(task.clone(), completion, node.options.payload_limit);
        envelopes.push(Request::asked(run, namespace, ShardCommand::Command(report), ticket));
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
            Err(error @ (Error::Busy | Error::Store(_))) => {
                tracing::warn!(%error, "a completed attempt is reported again later");
            }
            Err(error) => {
                let (run, _) = fence;
                stuck.push(Unreadable { namespace, run, why: error.to_string() });
            }
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

/// Deletes fences that were revoked or completed long ago. Returns their number.
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

/// Returns the instant `span` before now.
fn ago(node: &Node, span: Duration) -> Time {
    Time(node.clock.now().0.saturating_sub_unsigned(Span::from(span).0))
}

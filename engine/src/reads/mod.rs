//! Reads of runs. Views show committed state: memory is used only if the journal has not gone on.

mod history;
mod items;
mod list;
pub(crate) mod waiters;

use std::sync::Arc;
use std::time::{Duration, Instant};

use backstitch_saga::protocol::{FactDependent, Plan, RunView, Scope, State};
use backstitch_saga::{PlanPage, Run, RunId, TaskKey, planted};
use sqlx::PgConnection;
use tokio::sync::oneshot;

pub(crate) use history::history;
pub(crate) use items::{item_with_key, items, step};
pub(crate) use list::runs;

use crate::Error;
use crate::cursor::Cursor;
use crate::executor::load::{fold, fold_rows};
use crate::flow;
use crate::node::Node;
use crate::page::ANSWER_BYTES;
use crate::reads::waiters::End;
use crate::sequence;
use crate::store::{self, journal, required};
use crate::{damage, why};

/// Largest number of runs that a plan names as affected.
pub(crate) const MOST_TOUCHED: u32 = 1_000;

/// Message for a listed run whose journal is empty.
const NO_RECORDS: &str = "no record of the run is there";

/// Returns the number of a run's last record; `None` when all of its journal is lost.
async fn last_record(
    connection: &mut PgConnection,
    namespace: &str,
    id: RunId,
) -> Result<Option<i32>, Error> {
    if let Some(last) = journal::last_seqs(connection, &[id.0]).await?.get(&id) {
        return Ok(Some(*last));
    }
    let owner = store::runs::ended(connection, id).await?;
    if owner.is_none_or(|(owner, _)| owner != namespace) {
        return Err(Error::unknown_run(id));
    }
    // It may have been started since the first look.
    Ok(journal::last_seqs(connection, &[id.0]).await?.get(&id).copied())
}

/// Finds out whether a run that no committer knows is unknown, or has lost its journal.
pub(crate) async fn not_found(node: &Node, namespace: &str, id: RunId) -> Error {
    let looked = async {
        let mut connection = node.database.reader(namespace).await?;
        last_record(&mut connection, namespace, id).await
    };
    match looked.await {
        Ok(None) => Error::Damaged(NO_RECORDS.to_owned()),
        Ok(Some(_)) => Error::unknown_run(id),
        Err(error) => error,
    }
}

/// Reads the present state of a run.
pub(crate) async fn read<T: Send + 'static>(
    node: &Arc<Node>,
    namespace: &str,
    id: RunId,
    what: impl Fn(&Run) -> T + Send + Sync + 'static,
) -> Result<T, Error> {
    let mut connection = node.database.reader(namespace).await?;
    let Some(last) = last_record(&mut connection, namespace, id).await? else {
        damage::found(node, id, NO_RECORDS);
        return Err(Error::Damaged(NO_RECORDS.to_owned()));
    };
    let seq = u64::try_from(last).unwrap_or_default();
    let ours: Arc<str> = namespace.into();
    let visible =
        move |run: &Run| (planted!("no-namespace") || run.namespace() == &*ours).then(|| what(run));
    let visible = Arc::new(visible);
    let (send, receive) = oneshot::channel();
    let in_memory = Arc::clone(&visible);
    node.read(
        id,
        seq,
        Box::new(move |run| {
            // The reader may have given up.
            let _ = send.send(run.map(|run| in_memory(run)));
        }),
    );
    let found = match receive.await {
        Ok(Some(found)) => found,
        _ => {
            let mut stored = journal::load(&mut connection, &[id]).await?;
            let stored = stored.remove(&id).ok_or_else(|| Error::Damaged(NO_RECORDS.to_owned()))?;
            let now = node.clock.now();
            let cached = fold(&node.definitions, &mut connection, id, stored, now).await;
            match cached {
                Err(Error::Damaged(what)) => {
                    // Runs of other namespaces do not exist for the caller, in any state.
                    let owner = store::runs::ended(&mut connection, id).await?;
                    if owner.is_some_and(|(owner, _)| owner != namespace) {
                        return Err(Error::unknown_run(id));
                    }
                    damage::found(node, id, &what);
                    return Err(Error::Damaged(what));
                }
                cached => visible(&cached?.run),
            }
        }
    };
    found.ok_or_else(|| Error::unknown_run(id))
}

/// Returns whether a worker holds a task now.
pub(crate) async fn is_leased(
    node: &Arc<Node>,
    namespace: &str,
    id: RunId,
    task: TaskKey,
) -> Result<bool, Error> {
    read(node, namespace, id, move |run| run.holder(&task).is_some()).await
}

/// Returns one run, now or as it was after record `as_of`.
pub(crate) async fn run(
    node: &Arc<Node>,
    namespace: &str,
    id: RunId,
    as_of: Option<u64>,
) -> Result<RunView, Error> {
    let now = node.clock.now();
    let Some(as_of) = as_of else {
        let before = why::long_ago(node);
        let governed = node.flow.governed();
        let what = move |run: &Run| {
            let mut view = run.view(now);
            if let Some(governed) = &governed {
                flow::add_conditions(governed, run, now, &mut view);
            }
            (view, run.on_offer_since(before))
        };
        let (mut view, waits) = read(node, namespace, id, what).await?;
        why::add_no_worker(node, waits, &mut view).await?;
        return Ok(view);
    };
    let mut connection = node.database.reader(namespace).await?;
    let until = i32::try_from(as_of).unwrap_or(i32::MAX);
    let rows = journal::load_until(&mut connection, id, until).await?;
    let Some(last) = rows.last() else { return Err(Error::unknown_run(id)) };
    let owner = store::runs::ended(&mut connection, id).await?;
    if owner.is_some_and(|(owner, _)| owner != namespace) {
        return Err(Error::unknown_run(id));
    }
    let run = fold_rows(&node.definitions, &mut connection, id, None, &rows).await?;
    if run.namespace() != namespace {
        return Err(Error::unknown_run(id));
    }
    if u64::try_from(last.seq).unwrap_or_default() < as_of {
        return Err(Error::NotFound {
            code: "unknown_record",
            message: format!("the journal of run {id} has only {} records", last.seq),
        });
    }
    Ok(run.view(last.at))
}

/// Returns one run, once it has ended or `wait` is over.
pub(crate) async fn wait(
    node: &Arc<Node>,
    namespace: &str,
    id: RunId,
    wait: Duration,
) -> Result<RunView, Error> {
    let until = Instant::now() + wait;
    // Listening begins before looking, so that no end falls between the two.
    let mut end = node.waiters.listen(id);
    if wait.is_zero() || !moves_here(node, namespace, id).await {
        let view = run(node, namespace, id, None).await?;
        if view.state == State::Ended || wait.is_zero() {
            return Ok(view);
        }
    }
    match tokio::time::timeout_at(until.into(), end.seen()).await {
        Ok(End::Here(view)) => Ok(*view),
        Ok(End::Elsewhere) | Err(_) => run(node, namespace, id, None).await,
    }
}

/// Returns whether the run is in this node's memory and has not ended there. If it has ended elsewhere, a read of the
/// database shows it.
async fn moves_here(node: &Node, namespace: &str, id: RunId) -> bool {
    let (send, receive) = oneshot::channel();
    let ours: Arc<str> = namespace.into();
    let look = move |run: Option<&Run>| {
        let moves = run.is_some_and(|run| run.namespace() == &*ours && run.state() != State::Ended);
        // The reader may have given up.
        let _ = send.send(moves);
    };
    node.read(id, 0, Box::new(look));
    receive.await.unwrap_or(false)
}

/// The kind of the cursors of plans.
const UNDOS: char = 'u';

/// Returns the page of a plan with `limit` undos at most, from a cursor on.
pub(crate) fn plan_page(after: Option<&str>, limit: u32) -> Result<PlanPage, Error> {
    let step = |text| Cursor::place(UNDOS, text, |place| place.parse().ok());
    let after = after.map(step).transpose()?;
    Ok(PlanPage { after, most: limit as usize, bytes: ANSWER_BYTES })
}

/// Returns the plan as callers see it, with a cursor for its next page.
pub(crate) fn with_cursor(plan: Plan) -> Plan {
    Plan { next: plan.next.map(|step| Cursor::of(UNDOS, &step)), ..plan }
}

/// Returns what compensating would do.
pub(crate) async fn plan(
    node: &Arc<Node>,
    namespace: &str,
    id: RunId,
    scope: &Scope,
    page: PlanPage,
) -> Result<Plan, Error> {
    let (scope, now) = (scope.clone(), node.clock.now());
    let what = move |run: &Run| run.plan_page(&scope, now, &page);
    let planned = read(node, namespace, id, what).await??;
    Ok(Plan { dependents: dependents(node, namespace, id).await?, ..with_cursor(planned) })
}

/// Returns the runs under way that require a fact which a run has established and which is withdrawn when it moves on.
pub(crate) async fn dependents(
    node: &Arc<Node>,
    namespace: &str,
    id: RunId,
) -> Result<Vec<FactDependent>, Error> {
    let what = |run: &Run| match run.state() == State::Ended && run.may_establish() {
        true => sequence::produced(run),
        false => Vec::new(),
    };
    let produced = read(node, namespace, id, what).await?;
    if produced.is_empty() {
        return Ok(Vec::new());
    }
    let by = format!("run {id}");
    let mut connection = node.database.reader(namespace).await?;
    let touched =
        required::dependents_of(&mut connection, namespace, &produced, &by, MOST_TOUCHED.into())
            .await?;
    Ok(touched)
}

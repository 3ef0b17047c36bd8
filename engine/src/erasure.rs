//! Erases runs: first an event, by which every node refuses further commands to the run; then everything that contains
//! its documents, or texts that may quote them. The skeleton stays, with the actor of the erasure.
//!
//! The erasure is recorded before it begins, so that another node continues it if this one dies. It is done twice, a
//! minute apart, for data that was being written during the first pass.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstitch_saga::protocol::{EraseRun, ErasedRun};
use backstitch_saga::{By, Command, Eraser, RunId, Span, Timestamp};
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::acts::must_have_reason;
use crate::crash::commit;
use crate::node::Node;
use crate::store::codec::{decode, encode_events, encode_payloads};
use crate::store::erasures::{self as table, Erasure};
use crate::store::{journal, runs};
use crate::{Engine, Error, doctor, reads};

/// Largest number of runs that one request erases: a run and all its descendants.
const MOST: usize = 10_000;
/// Time that a request erases; the rest follows in the background.
const BUDGET: Duration = Duration::from_secs(5);
/// Delay before the second pass, and before a failed pass is repeated.
const AGAIN: Span = Span::secs(60);
/// Number of erasures in one pass.
const AT_ONCE: i64 = 10;
/// Number of runs that are dropped from memory together.
const PAGE: i64 = 1_000;
/// Records, and bytes of them, that are read and written with one statement.
const RECORDS: usize = 500;
const BYTES: usize = 8 << 20;

impl Engine {
    /// Erases a run that has ended, and all its descendants: their documents and the texts that may quote them are
    /// deleted; ids, instants and outcomes stay. Erasing it again changes nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Refused`] when the reason is missing; [`Error::Conflict`] when one of them goes on
    /// (`run_goes_on`), the run is a step of another that is there (`not_the_root`), or too many descend from it
    /// (`too_many_runs`).
    pub async fn erase(
        &self,
        namespace: &str,
        run: RunId,
        ask: &EraseRun,
        by: &By,
    ) -> Result<ErasedRun, Error> {
        must_have_reason(by)?;
        let node = self.node();
        let began = Instant::now();
        let all = match family(node, namespace, run).await? {
            Family::Ended(all) => all,
            Family::GoesOn(_) if ask.kill => killed(node, namespace, run, by, began).await?,
            Family::GoesOn(one) => return Err(goes_on(one)),
        };
        let now = node.clock.now();
        let ids: Vec<Uuid> = all.iter().map(|run| run.0).collect();
        let mut connection = node.database.keepers.acquire().await?;
        let by_whom = (&*by.actor, by.reason.as_str());
        let asked = table::ask(&mut connection, &ids, namespace, now, now.after(AGAIN), by_whom);
        commit!("erasures_ask", asked.await)?;
        drop(connection);
        let mut done = 0;
        for run in &all {
            // The root is always erased: nothing can be asked of it any more, and so of none of its family.
            if done > 0 && began.elapsed() > BUDGET {
                break;
            }
            let erasure = Erasure {
                run: *run,
                namespace: namespace.to_owned(),
                actor: by.actor.to_string(),
                reason: by.reason.clone(),
                passes: 0,
            };
            pass(node, &erasure).await?;
            done += 1;
        }
        let erased_at = reads::read(node, namespace, run, |run| run.erased_at()).await?;
        Ok(ErasedRun {
            id: run,
            erased_at: Timestamp(erased_at.unwrap_or(now)),
            runs: all.len() as u64,
            pending: (all.len() - done) as u64,
        })
    }
}

/// A run and all that descend from it.
enum Family {
    /// All of them have ended; the run first.
    Ended(Vec<RunId>),
    /// One of them has not.
    GoesOn(RunId),
}

fn goes_on(run: RunId) -> Error {
    let message = format!(
        "run {run} has not ended; cancel it or wait for its end, then erase the run, or say that it is to be killed"
    );
    Error::Conflict { code: "run_goes_on", message }
}

/// Kills a run, and waits until those that descend from it and are killed with it have ended.
async fn killed(
    node: &Arc<Node>,
    namespace: &str,
    run: RunId,
    by: &By,
    began: Instant,
) -> Result<Vec<RunId>, Error> {
    if reads::read(node, namespace, run, |run| run.outcome().is_none()).await? {
        node.ask(namespace, run, Command::Kill { by: by.clone() }).await?;
    }
    loop {
        match family(node, namespace, run).await? {
            Family::Ended(all) => return Ok(all),
            Family::GoesOn(one) => {
                let rest = BUDGET.saturating_sub(began.elapsed());
                if rest.is_zero()
                    || reads::wait(node, namespace, one, rest).await?.outcome.is_none()
                {
                    return Err(goes_on(one));
                }
            }
        }
    }
}

/// Finds a run and all that descend from it.
async fn family(node: &Node, namespace: &str, run: RunId) -> Result<Family, Error> {
    let mut connection = node.database.reader(namespace).await?;
    let (owner, ended) =
        runs::ended(&mut connection, run).await?.ok_or_else(|| Error::unknown_run(run))?;
    if owner != namespace {
        return Err(Error::unknown_run(run));
    }
    if let Some(parent) = table::parent(&mut connection, run).await? {
        let message = format!(
            "the run is a step of run {parent}, which has its documents too; erase the run at the top of its tree"
        );
        return Err(Error::Conflict { code: "not_the_root", message });
    }
    let mut found = vec![run];
    let mut known = BTreeSet::from([run.0]);
    let mut generation = vec![run.0];
    let mut going_on = (!ended).then_some(run);
    while !generation.is_empty() && going_on.is_none() {
        let limit = i64::try_from(MOST).unwrap_or(i64::MAX) + 1;
        let children = table::children(&mut connection, &generation, limit).await?;
        generation.clear();
        for (child, ended) in children {
            if known.insert(child) {
                found.push(RunId(child));
                generation.push(child);
            }
            going_on = going_on.or((!ended).then_some(RunId(child)));
        }
        if found.len() > MOST {
            let message =
                format!("more than {MOST} runs descend from it; erase those at its steps first");
            return Err(Error::Conflict { code: "too_many_runs", message });
        }
    }
    Ok(going_on.map_or(Family::Ended(found), Family::GoesOn))
}

/// Continues erasures, and the deletions of retention. Returns the number of runs erased or deleted.
pub(crate) async fn erase_and_delete(node: &Arc<Node>) -> Result<usize, Error> {
    let erased = go_on(node).await? + crate::ingress::erase_data(node).await?;
    Ok(erased + crate::retention::go_on(node).await?)
}

/// Continues erasures. Returns the number of passes.
async fn go_on(node: &Arc<Node>) -> Result<usize, Error> {
    forget_erased(node).await?;
    let began = Instant::now();
    let mut passes = 0;
    while began.elapsed() < BUDGET {
        let mut connection = node.database.keepers.acquire().await?;
        let now = node.clock.now();
        let due = table::due(&mut connection, now, now.after(AGAIN), AT_ONCE);
        let due = commit!("erasures_ask", due.await)?;
        drop(connection);
        if due.is_empty() {
            break;
        }
        for erasure in due {
            match pass(node, &erasure).await {
                Ok(()) => passes += 1,
                Err(error) => {
                    tracing::warn!(run = %erasure.run, error = error.for_log(), "a run is erased later");
                }
            }
        }
    }
    Ok(passes)
}

/// Drops what this node has in memory of runs that are being erased, by whichever node.
async fn forget_erased(node: &Node) -> Result<(), Error> {
    let mut connection = node.database.keepers.acquire().await?;
    let mut after = Uuid::nil();
    loop {
        let page = table::page(&mut connection, after, PAGE).await?;
        let full = i64::try_from(page.len()) == Ok(PAGE);
        after = page.last().copied().unwrap_or_default();
        node.forget(page.into_iter().map(RunId).collect());
        if !full {
            return Ok(());
        }
    }
}

/// Erases one run. A run that goes on after all, or does not exist any more, is skipped.
async fn pass(node: &Arc<Node>, erasure: &Erasure) -> Result<(), Error> {
    let Erasure { run, namespace, .. } = erasure;
    let by = By { actor: erasure.actor.as_str().into(), reason: erasure.reason.clone() };
    // First, as the run is read by way of it.
    let mut connection = node.database.keepers.acquire().await?;
    commit!("erasures_pass", table::forget_snapshots(&mut connection, *run).await)?;
    drop(connection);
    let asked = node.ask(namespace, *run, Command::Erase { by }).await;
    let mut connection = node.database.keepers.acquire().await?;
    match asked {
        Ok(_) => {}
        Err(Error::Refused(refusal)) => {
            commit!("erasures_refuse", table::forget(&mut connection, *run).await)?;
            return Err(Error::Refused(refusal));
        }
        Err(Error::NotFound { .. }) => {
            commit!("erasures_refuse", table::forget(&mut connection, *run).await)?;
            return Ok(());
        }
        Err(error) => return Err(error),
    }
    let mut transaction = connection.begin().await?;
    erase_records(&mut transaction, *run).await?;
    table::empty_the_rest(&mut transaction, namespace, *run).await?;
    doctor::rewrite_indexes(node, &mut transaction, *run).await?;
    // The acts that the rewriting set aside.
    table::rewrite_records(&mut transaction, *run, &[], &[], &[]).await?;
    commit!("erasures_pass", transaction.commit().await)?;
    let mut after = Some(Vec::new());
    while let Some(place) = after {
        after = table::empty_answers(&mut connection, namespace, *run, &place).await?;
    }
    let done = match erasure.passes {
        0 => table::passed(&mut connection, *run, node.clock.now().after(AGAIN)).await,
        _ => table::forget(&mut connection, *run).await,
    };
    commit!("erasures_done", done)?;
    // The run in this node's memory still has the documents.
    node.forget(vec![*run]);
    Ok(())
}

/// Rewrites all records of a run without documents.
async fn erase_records(connection: &mut PgConnection, run: RunId) -> Result<(), Error> {
    let mut eraser = Eraser::default();
    let mut from = 1;
    loop {
        let rows = journal::page(connection, run, from, RECORDS, BYTES).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        from = last.seq + 1;
        let (mut seqs, mut events, mut payloads) = (Vec::new(), Vec::new(), Vec::new());
        for row in &rows {
            seqs.push(row.seq);
            let kept = eraser.record(&decode(run, row).map_err(Error::Damaged)?);
            events.push(encode_events(&kept).map_err(Error::Damaged)?);
            payloads.push(encode_payloads(&kept.payloads));
        }
        table::rewrite_records(connection, run, &seqs, &events, &payloads).await?;
    }
}

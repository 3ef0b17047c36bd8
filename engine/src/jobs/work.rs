//! The background task for jobs: claims those that are due, acts on the next items of each as fast as its rate
//! allows, and records the results.
//!
//! A node that dies in between leaves acts without a recorded result. The node that claims the job next repeats them,
//! by the same name and for the same reason, and the rules execute them once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backstitch_saga::protocol::{
    IncidentId, ItemState, JobProgress, JobState, JobVerb, NewJob, StopWhen,
};
use backstitch_saga::ratio::reaches;
use backstitch_saga::{By, IncidentKind, Payload, Proof, Run, Span, StepPath, Time};
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use sqlx::postgres::PgConnection;

use super::pace::Pace;
use crate::background::{BackgroundTask, counted, millis};
use crate::crash::commit;
use crate::incidents::act::{IncidentAct, act, act_on_run};
use crate::node::Node;
use crate::rounds::in_turns;
use crate::signals::signal;
use crate::store::acts;
use crate::store::jobs::{self as table, Claimed, ItemResult, ItemRow, JobRow, Turn};
use crate::{Error, reads};

/// Number of jobs that a node works on in one pass.
const JOBS: i64 = 8;
/// Time for which a job belongs to a node, while the node lives. One pass takes far less.
const LEASE: Span = Span::secs(15);
/// Time that one pass acts. A job is not due for another node before that, should this one die.
const LOOK: Span = Span::millis(250);
/// Largest number of items in one pass.
const SLICE: u64 = 500;
/// Number of times that a job is taken that failed or during which a node stopped, before it is set
/// aside.
pub(crate) const TRIES: i32 = 5;
/// Interval at which a canary is checked.
const PROVE_EVERY: Span = Span::millis(300);
/// A ratio is judged from so many on.
const ENOUGH: u64 = 10;

/// Works on the jobs that are due, once. Returns the number of items acted on.
pub(crate) async fn work(node: &Arc<Node>) -> Result<usize, Error> {
    Ok(look(node).await?.0)
}

/// Works on jobs for as long as the node works: now and then, and without a rest while one is due again soon.
pub(crate) async fn serve(node: Arc<Node>) {
    let rest = node.options.tuning.wake_every;
    loop {
        let again = match counted(&node, BackgroundTask::WorkJobs, look(&node)).await {
            Ok((_, again)) => again,
            Err(error) => {
                tracing::warn!(%error, "working on jobs failed and is tried again");
                None
            }
        };
        let soon = again.map(|at| Duration::from_millis(at.since(node.clock.now()).0));
        tokio::time::sleep(soon.unwrap_or(rest)).await;
    }
}

/// The next items of a job, and how fast they may be acted on.
struct Slice {
    job: JobRow,
    progress: JobProgress,
    items: Vec<ItemRow>,
    pace: Pace,
}

/// Makes one pass over the jobs that are due: determines the next step of each, acts on these concurrently, and records
/// the results. Namespaces take turns, and a job that fails delays no other. Returns the number of items acted on, and
/// the time when the first is due again, if that is soon.
async fn look(node: &Arc<Node>) -> Result<(usize, Option<Time>), Error> {
    let claimed = claim(node).await?;
    let now = node.clock.now();
    let mut again = i64::try_from(claimed.len()).is_ok_and(|count| count >= JOBS).then_some(now);
    let mut slices = Vec::new();
    let mut connection = node.database.keepers.acquire().await?;
    for one in claimed {
        let job = one.id;
        match next_of_claimed(node, &mut connection, one).await {
            Ok(slice) => slices.extend(slice),
            Err(error) => tracing::warn!(%job, %error, "a job failed and is tried again"),
        }
    }
    // The connection is not kept while runs are asked.
    drop(connection);
    if slices.is_empty() {
        return Ok((0, again));
    }
    let done = join_all(slices.into_iter().map(async |slice| act_on_all(node, slice).await)).await;
    let mut connection = node.database.keepers.acquire().await?;
    let mut acted = 0;
    for (slice, results) in done {
        acted += results.len();
        match write_down(node, &mut connection, &slice, &results).await {
            Ok(soon) => again = again.into_iter().chain(soon).min(),
            Err(error) => {
                let job = slice.job.view.id;
                tracing::warn!(%job, %error, "a job failed and is tried again");
            }
        }
    }
    Ok((acted, again))
}

/// Takes jobs that are due, in the order of their turns.
async fn claim(node: &Node) -> Result<Vec<Claimed>, Error> {
    let dead_after = millis(node.options.tuning.dead_after);
    let mut connection = node.database.keepers.acquire().await?;
    let mut after = node.last_turns.jobs.get();
    loop {
        let now = node.clock.now();
        let until = (now.after(LEASE), now.after(LOOK));
        let whose = (node.id, dead_after);
        let found = commit!(
            "jobs_claim",
            table::claim(&mut connection, whose, now, until, JOBS, &after).await
        )?;
        node.last_turns.jobs.set(found.last);
        if !found.rows.is_empty() || after.is_empty() {
            return Ok(in_turns(found.rows, &after, |one| &one.namespace));
        }
        after.clear();
    }
}

/// Says what a job does next that was just taken. One over which nodes have stopped, or which has failed, too often is
/// set aside: paused, until a person resumes it.
async fn next_of_claimed(
    node: &Arc<Node>,
    connection: &mut PgConnection,
    one: Claimed,
) -> Result<Option<Slice>, Error> {
    if one.tries <= TRIES {
        return next_of(node, connection, one.job?).await;
    }
    let cause = one.job.err().map(|error| format!(" ({error})")).unwrap_or_default();
    let why = format!(
        "set aside: {TRIES} times working on it failed or a node stopped{cause}; see the log of the servers, and resume it once the cause is known"
    );
    tracing::error!(job = %one.id, namespace = one.namespace, "a job is paused: {why}");
    let at = node.clock.now();
    let from = [JobState::Canary, JobState::Running];
    let turn = Turn { from: &from, to: JobState::Paused, why: Some(&why), at };
    commit!("jobs_turn", table::turn(connection, &one.namespace, one.id, &turn).await)?;
    Ok(commit!("jobs_give_back", table::give_back(connection, one.id, node.id, at, None).await)
        .map(|()| None)?)
}

/// Records the results of a slice. Returns the time when the job is due again, if that is soon.
async fn write_down(
    node: &Node,
    connection: &mut PgConnection,
    slice: &Slice,
    results: &[ItemResult],
) -> Result<Option<Time>, Error> {
    let (id, job) = (slice.job.view.id, &slice.job);
    commit!("jobs_record", table::record(connection, id, results).await)?;
    if results.len() as u64 == slice.progress.waiting && job.view.state == JobState::Running {
        finish(node, connection, job).await?;
        return Ok(None);
    }
    let next_at = slice.pace.paid_until();
    let give_back = table::give_back(connection, id, node.id, next_at, job.canary_until);
    commit!("jobs_give_back", give_back.await)?;
    Ok(Some(next_at).filter(|at| *at <= node.clock.now().after(LOOK)))
}

/// Returns the next step of a job; `None` if there is nothing to act on, and it was stopped, proven or
/// finished.
async fn next_of(
    node: &Arc<Node>,
    connection: &mut PgConnection,
    job: JobRow,
) -> Result<Option<Slice>, Error> {
    let (id, asked) = (job.view.id, &job.view.asked);
    let wanted = asked.verb.leaves_effects().then_some(IncidentKind::EffectsLeft);
    let look = (job.view.created_at.0, wanted);
    let progress =
        commit!("jobs_came_back", table::came_back(connection, &job.namespace, id, look).await)?;
    if let Some(why) = must_stop(job.view.state, asked.stop_when, &progress) {
        stop(node, connection, &job, &why).await?;
        return Ok(None);
    }
    let acted_on = progress.total - progress.waiting;
    let left = match (&asked.canary, job.view.state) {
        (Some(canary), JobState::Canary) => u64::from(canary.first).saturating_sub(acted_on),
        _ => u64::MAX,
    };
    if left == 0 || (job.view.state == JobState::Canary && progress.waiting == 0) {
        prove(node, connection, &job, &progress).await?;
        return Ok(None);
    }
    if progress.waiting == 0 {
        finish(node, connection, &job).await?;
        return Ok(None);
    }
    let pace = Pace::new(asked.rate, job.next_at);
    let count = left.min(progress.waiting).min(SLICE);
    let items = table::waiting(connection, id, i64::try_from(count).unwrap_or_default()).await?;
    if items.is_empty() {
        let why = format!(
            "the rows of {} of its items are lost; nothing is known of them, so make another job for what is left",
            progress.waiting
        );
        tracing::error!(job = %id, namespace = job.namespace, "a job is stopped: {why}");
        stop(node, connection, &job, &why).await?;
        return Ok(None);
    }
    Ok(Some(Slice { job, progress, items, pace }))
}

/// Acts on the items of a slice, each when its time has come, for as long as a look takes.
async fn act_on_all(node: &Arc<Node>, mut slice: Slice) -> (Slice, Vec<ItemResult>) {
    let (from, began) = (node.clock.now().0.saturating_mul(1_000), Instant::now());
    let now = || from + i64::try_from(began.elapsed().as_micros()).unwrap_or(i64::MAX);
    let end = from + i64::try_from(LOOK.0).unwrap_or(0) * 1_000;
    let mut results = Vec::new();
    {
        let mut under_way = FuturesUnordered::new();
        'items: for item in &slice.items {
            while !slice.pace.take(now()) {
                let next = slice.pace.next();
                if next > end {
                    break 'items;
                }
                let wait = u64::try_from(next - now()).unwrap_or(0);
                let wait = tokio::time::sleep(Duration::from_micros(wait));
                tokio::pin!(wait);
                loop {
                    tokio::select! {
                        () = &mut wait => break,
                        Some(result) = under_way.next() => results.extend(result),
                    }
                }
            }
            under_way.push(act_on(node, &slice.job, item, node.clock.now()));
        }
        while let Some(result) = under_way.next().await {
            results.extend(result);
        }
    }
    (slice, results)
}

/// Finishes a job, each run of which was acted on.
async fn finish(node: &Node, connection: &mut PgConnection, job: &JobRow) -> Result<(), Error> {
    let at = node.clock.now();
    let done = Turn { from: &[JobState::Running], to: JobState::Done, why: None, at };
    commit!("jobs_turn", table::turn(connection, &job.namespace, job.view.id, &done).await)?;
    Ok(commit!(
        "jobs_give_back",
        table::give_back(connection, job.view.id, node.id, at, job.canary_until).await
    )?)
}

/// Returns the reason for which a job must stop itself, if there is one.
fn must_stop(
    state: JobState,
    stop_when: Option<StopWhen>,
    progress: &JobProgress,
) -> Option<String> {
    let back = progress.came_back;
    let done = progress.done + back;
    if state == JobState::Canary && back > 0 {
        return Some(format!("{back} of the canary came back"));
    }
    let stops = match stop_when? {
        StopWhen::Count(count) => back >= u64::from(count),
        StopWhen::Ratio(ratio) => done >= ENOUGH && reaches(back, done, ratio),
    };
    stops.then(|| format!("{back} of {done} came back"))
}

async fn stop(
    node: &Node,
    connection: &mut PgConnection,
    job: &JobRow,
    why: &str,
) -> Result<(), Error> {
    let from = [JobState::Canary, JobState::Running];
    let at = node.clock.now();
    let turn = Turn { from: &from, to: JobState::Stopped, why: Some(why), at };
    commit!("jobs_turn", table::turn(connection, &job.namespace, job.view.id, &turn).await)?;
    tracing::info!(job = %job.view.id, why, "a job stopped itself");
    Ok(commit!(
        "jobs_give_back",
        table::give_back(connection, job.view.id, node.id, at, job.canary_until).await
    )?)
}

/// Checks whether the canary has proven itself, each run of which was acted on.
async fn prove(
    node: &Arc<Node>,
    connection: &mut PgConnection,
    job: &JobRow,
    progress: &JobProgress,
) -> Result<(), Error> {
    let Some(canary) = job.view.asked.canary else { return Ok(()) };
    let (id, now) = (job.view.id, node.clock.now());
    let items = table::canary(connection, id, canary.first).await?;
    if items.is_empty() && progress.refused > 0 {
        return stop(node, connection, job, "all of the canary were refused").await;
    }
    let mut open = 0;
    for proof in join_all(items.iter().map(|item| proof(node, job, item))).await {
        match proof? {
            Proof::Proven => {}
            Proof::Open => open += 1,
            Proof::Failed => {
                return stop(node, connection, job, "one of the canary needs a person again").await;
            }
        }
    }
    if open == 0 {
        commit!("jobs_prove", table::prove(connection, id).await)?;
        return Ok(commit!(
            "jobs_give_back",
            table::give_back(connection, id, node.id, now, job.canary_until).await
        )?);
    }
    let until = job.canary_until.unwrap_or_else(|| now.after(canary.wait));
    if until <= now {
        let why = format!("{open} of the canary did not prove themselves within {}", canary.wait);
        return stop(node, connection, job, &why).await;
    }
    let next_at = now.after(PROVE_EVERY).min(until);
    Ok(commit!(
        "jobs_give_back",
        table::give_back(connection, id, node.id, next_at, Some(until)).await
    )?)
}

async fn proof(node: &Arc<Node>, job: &JobRow, item: &ItemRow) -> Result<Proof, Error> {
    let (incident, acted_at) = (item.incident, item.acted_at.unwrap_or_default());
    let step: Option<StepPath> = item.step.as_deref().and_then(|step| step.parse().ok());
    let what = move |run: &Run| run.proof(incident, step.as_ref(), acted_at);
    let proof = match reads::read(node, &job.namespace, item.run, what).await {
        Err(Error::Damaged(_)) => return Ok(Proof::Failed),
        proof => proof?,
    };
    // These are done when they are done: nothing has to come of them.
    let at_once = matches!(
        job.view.asked.verb,
        JobVerb::Pause | JobVerb::Resume | JobVerb::Signal | JobVerb::Label
    );
    Ok(if at_once && proof == Proof::Open { Proof::Proven } else { proof })
}

/// Acts on one. None when it is to be tried again.
async fn act_on(
    node: &Arc<Node>,
    job: &JobRow,
    item: &ItemRow,
    acted_at: Time,
) -> Option<ItemResult> {
    let asked = &job.view.asked;
    // The reason names the job, so that an act of one job is never taken for that of another.
    let reason = format!("{} (job {})", asked.reason, job.view.id);
    let by = By { actor: job.view.actor.as_str().into(), reason };
    let done = match (what(asked), item.incident) {
        (Some(IncidentAct::Rerun { .. }), _) if was_done(node, job, item, &by).await? => Ok(()),
        (Some(what), Some(number)) => {
            let incident = IncidentId { run: item.run, number };
            act(node, &job.namespace, incident, what, by).await
        }
        (Some(what), None) => act_on_run(node, &job.namespace, item.run, what, by).await,
        (None, _) => {
            let name = asked.signal.as_deref().unwrap_or_default();
            let data = asked.data.clone().unwrap_or_else(Payload::null);
            signal(node, &job.namespace, item.run, name, data, by).await
        }
    };
    let refused = |code: &str, message: String| ItemResult {
        position: item.position,
        acted_at,
        state: ItemState::Refused,
        code: Some(code.to_owned()),
        message: Some(message),
    };
    match done {
        Ok(()) => Some(ItemResult {
            position: item.position,
            acted_at,
            state: ItemState::Done,
            code: None,
            message: None,
        }),
        Err(Error::Busy | Error::Store(_)) => None,
        Err(error) => {
            let answer = error.task_answer();
            let code = answer.code.unwrap_or_default();
            Some(refused(&code, answer.message.unwrap_or_default()))
        }
    }
}

/// Returns whether a rerun by this job is in the run's history: the node that began it died before it noted that, and
/// the run may have ended since. All other verbs are the same when they come twice. `None` when that cannot be read
/// now.
async fn was_done(node: &Arc<Node>, job: &JobRow, item: &ItemRow, by: &By) -> Option<bool> {
    let mut connection = node.database.reader(&job.namespace).await.ok()?;
    let since = job.view.created_at.0;
    acts::was_done(&mut connection, item.run, "rerun", by, since).await.ok()
}

/// Returns the action on each item; `None` for a signal.
pub(super) fn what(asked: &NewJob) -> Option<IncidentAct> {
    Some(match asked.verb {
        JobVerb::Retry => IncidentAct::Retry { input: None },
        // A job cannot know an output: it was refused when it was asked for.
        JobVerb::Skip | JobVerb::Resolve => IncidentAct::Skip { output: None },
        JobVerb::MarkCompensated => IncidentAct::MarkCompensated,
        JobVerb::Compensate => {
            IncidentAct::Compensate { scope: backstitch_saga::protocol::Scope::All, force: false }
        }
        JobVerb::Cancel => IncidentAct::Cancel,
        JobVerb::Abandon | JobVerb::Kill => IncidentAct::Abandon,
        JobVerb::Rerun => IncidentAct::Rerun {
            from: asked.from.clone().unwrap_or_default(),
            input: asked.input.clone(),
            only_failed: !asked.items.is_all(),
            force: asked.force,
        },
        JobVerb::Pause => IncidentAct::Pause { name: asked.name.clone() },
        JobVerb::Resume => IncidentAct::Resume { name: asked.name.clone() },
        JobVerb::Label => {
            IncidentAct::Label { set: asked.set.clone(), remove: asked.remove.clone() }
        }
        JobVerb::Signal => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_stops_when_enough_came_back() {
        let progress = |done, came_back| JobProgress { done, came_back, ..JobProgress::default() };
        let running = |when, progress| must_stop(JobState::Running, when, &progress).is_some();
        assert!(!running(None, progress(1, 99)));
        assert!(!running(Some(StopWhen::Count(3)), progress(1, 2)));
        assert!(running(Some(StopWhen::Count(3)), progress(1, 3)));
        assert!(!running(Some(StopWhen::Ratio(0.5)), progress(0, 9)), "too few to judge");
        assert!(running(Some(StopWhen::Ratio(0.5)), progress(5, 5)));
        assert!(!running(Some(StopWhen::Ratio(0.5)), progress(6, 5)));
        assert!(must_stop(JobState::Canary, None, &progress(9, 1)).is_some());
    }
}

//! The chore that works on jobs: claims those that are due, acts on the next of each as fast as its rate allows, and
//! writes what became of them.
//!
//! A node that dies in between leaves some acted on and not written. Whoever claims the job next acts on them again,
//! by the same name and for the same reason, and the rules do that once.

use std::sync::Arc;

use backstitch_saga::protocol::{
    IncidentId, ItemState, JobProgress, JobState, NewJob, StopWhen, Verb,
};
use backstitch_saga::ratio::reaches;
use backstitch_saga::{By, Proof, Run, Span, StepPath, Time};
use futures::future::join_all;
use sqlx::postgres::PgConnection;

use crate::crash::commit;
use crate::incidents::act::{IncidentAct, act, act_on_run};
use crate::loops::millis;
use crate::node::Node;
use crate::store::jobs::{self as table, ItemResult, ItemRow, JobRow, Turn};
use crate::{Error, reads};

/// How many jobs a node works on with one look.
const JOBS: i64 = 8;
/// For how long a job is a node's, while the node lives. What it does in one look takes far less.
const LEASE: Span = Span::secs(15);
/// How much of its time a job may catch up on after a rest.
const CATCH_UP: Span = Span::secs(1);
/// How many are acted on with one look at most.
const SLICE: u32 = 500;
/// How often a canary is looked at.
const PROVE_EVERY: Span = Span::millis(300);
/// A ratio is judged from so many on.
const ENOUGH: u64 = 10;

/// Works on the jobs that are due. Answers how many were acted on.
pub(crate) async fn work(node: &Arc<Node>) -> Result<usize, Error> {
    let mut connection = node.database.keepers.acquire().await?;
    let now = node.clock.now();
    let dead_after = millis(node.options.tuning.dead_after);
    let jobs = commit!(
        "jobs_claim",
        table::claim(&mut connection, (node.id, dead_after), now, now.after(LEASE), JOBS).await
    )?;
    let mut acted = 0;
    for job in jobs {
        acted += work_on(node, &mut connection, &job).await?;
    }
    Ok(acted)
}

/// One look at one job.
async fn work_on(
    node: &Arc<Node>,
    connection: &mut PgConnection,
    job: &JobRow,
) -> Result<usize, Error> {
    let (id, asked) = (job.view.id, &job.view.asked);
    let began = job.view.created_at.0;
    let progress =
        commit!("jobs_came_back", table::came_back(connection, &job.namespace, id, began).await)?;
    if let Some(why) = must_stop(job.view.state, asked.stop_when, &progress) {
        stop(node, connection, job, &why).await?;
        return Ok(0);
    }
    let now = node.clock.now();
    let acted_on = progress.total - progress.waiting;
    let left = match (&asked.canary, job.view.state) {
        (Some(canary), JobState::Canary) => u64::from(canary.first).saturating_sub(acted_on),
        _ => u64::MAX,
    };
    if left == 0 || (job.view.state == JobState::Canary && progress.waiting == 0) {
        prove(node, connection, job, &progress).await?;
        return Ok(0);
    }
    if progress.waiting == 0 {
        finish(node, connection, job).await?;
        return Ok(0);
    }
    let (count, next_at) = allowed(asked.rate, job.next_at, now, left.min(progress.waiting));
    let items = table::waiting(connection, id, i64::from(count)).await?;
    let results = join_all(items.iter().map(|item| act_on(node, job, item))).await;
    let results: Vec<ItemResult> = results.into_iter().flatten().collect();
    commit!("jobs_record", table::record(connection, id, now, &results).await)?;
    if results.len() as u64 == progress.waiting && job.view.state == JobState::Running {
        finish(node, connection, job).await?;
    } else {
        commit!(
            "jobs_give_back",
            table::give_back(connection, id, node.id, next_at, job.canary_until).await
        )?;
    }
    Ok(results.len())
}

/// Each was acted on.
async fn finish(node: &Node, connection: &mut PgConnection, job: &JobRow) -> Result<(), Error> {
    let at = node.clock.now();
    let done = Turn { from: &[JobState::Running], to: JobState::Done, why: None, at };
    commit!("jobs_turn", table::turn(connection, &job.namespace, job.view.id, &done).await)?;
    Ok(commit!(
        "jobs_give_back",
        table::give_back(connection, job.view.id, node.id, at, job.canary_until).await
    )?)
}

/// How many may be acted on now, and until when that is paid for.
fn allowed(rate: f64, paid_until: Time, now: Time, left: u64) -> (u32, Time) {
    let earliest = Time(now.0.saturating_sub(i64::try_from(CATCH_UP.0).unwrap_or(0)));
    let from = paid_until.max(earliest);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most 1,000 a second over a second, and spans of at most ten seconds"
    )]
    {
        let owed = (now.since(from).0 as f64 / 1_000.0 * rate) as u64 + 1;
        let count = owed.min(left).min(u64::from(SLICE)) as u32;
        let pays_for = Span::millis((f64::from(count) / rate * 1_000.0) as u64);
        (count, from.after(pays_for))
    }
}

/// Why a job must stop itself, if it must.
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

/// All of the canary were acted on: have they proven themselves?
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
    reads::read(node, &job.namespace, item.run, what).await
}

/// Acts on one. None when it is to be tried again.
async fn act_on(node: &Arc<Node>, job: &JobRow, item: &ItemRow) -> Option<ItemResult> {
    let asked = &job.view.asked;
    // The job stands in the reason, so that an act of one job is never taken for that of another.
    let reason = format!("{} (job {})", asked.reason, job.view.id);
    let by = By { actor: job.view.actor.as_str().into(), reason };
    let what = what(asked);
    let done = match item.incident {
        Some(number) => {
            let incident = IncidentId { run: item.run, number };
            act(node, &job.namespace, incident, what, by).await
        }
        None => act_on_run(node, &job.namespace, item.run, what, by).await,
    };
    let refused = |code: &str, message: String| ItemResult {
        position: item.position,
        state: ItemState::Refused,
        code: Some(code.to_owned()),
        message: Some(message),
    };
    match done {
        Ok(()) => Some(ItemResult {
            position: item.position,
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

fn what(asked: &NewJob) -> IncidentAct {
    match asked.verb {
        Verb::Retry => IncidentAct::Retry { input: None },
        // A job cannot know an output: it was refused when it was asked for.
        Verb::Skip | Verb::Resolve => IncidentAct::Skip { output: None },
        Verb::MarkCompensated => IncidentAct::MarkCompensated,
        Verb::Compensate => {
            IncidentAct::Compensate { scope: backstitch_saga::protocol::Scope::All, force: false }
        }
        Verb::Cancel => IncidentAct::Cancel,
        Verb::Abandon => IncidentAct::Abandon,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_whoever_works() {
        // Fifty a second, looked at each quarter of a second by whichever node.
        let (mut paid, mut acted) = (Time(0), 0);
        for look in 0..=40 {
            let now = Time(look * 250);
            if paid > now {
                continue;
            }
            let (count, next) = allowed(50.0, paid, now, u64::MAX);
            (paid, acted) = (next, acted + count);
        }
        assert!((500..=515).contains(&acted), "{acted} in ten seconds");
    }

    #[test]
    fn a_rest_is_not_caught_up_on_but_for_a_second() {
        let (count, next) = allowed(10.0, Time(0), Time(3_600_000), u64::MAX);
        assert_eq!((count, next), (11, Time(3_600_100)));
        assert_eq!(allowed(0.1, Time(0), Time(0), 5), (1, Time(10_000)));
        assert_eq!(allowed(1_000.0, Time(0), Time(5_000), 3).0, 3);
        assert_eq!(allowed(1_000.0, Time(0), Time(5_000), u64::MAX).0, SLICE);
    }

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

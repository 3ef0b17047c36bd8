//! Jobs: one verb on many incidents or runs. Made here, worked on by whichever node comes first; each act goes the way
//! that a person's act goes, so that a job can do nothing that a person could not.

mod ask;
mod foresee;
mod pace;
mod work;

use std::sync::Arc;

use backstitch_saga::protocol::{
    ItemState, JobItem, JobPlan, JobState, JobVerb, JobView, NewJob, Page, State,
};
use backstitch_saga::{By, Timestamp};
use sqlx::Connection;
use uuid::Uuid;

use crate::acts::must_have_reason;
use crate::crash::commit;
use crate::cursor::Cursor;
use crate::node::Node;
use crate::page::page;
use crate::store::acts::{self, Act, Thing};
use crate::store::jobs::{self as table, Many, Turn};
use crate::store::listed;
use crate::{Engine, Error, Reservation, RunFilter, definitions, reads};

pub(crate) use work::{TRIES, serve, work};

/// Largest number of items of a job.
pub(crate) const MOST: i64 = 1_000_000;
/// Number of items that a dry run shows.
const SHOWN: i64 = 20;

impl Engine {
    /// Returns the items that a job would have. Nothing is written.
    ///
    /// # Errors
    /// [`Error::Invalid`] with everything wrong in it; [`Error::NotFound`] for the workflow of its filter.
    pub async fn plan_job(&self, namespace: &str, asked: &NewJob) -> Result<JobPlan, Error> {
        let many = ask::check(asked, self.node().options.payload_limit)?;
        must_know_workflow(self.node(), namespace, &many).await?;
        let now = self.node().clock.now();
        let mut connection = self.node().database.lister(namespace).await?;
        let plan = table::plan(&mut connection, namespace, &many, now, SHOWN);
        let (count, mut first) = listed(plan.await)?;
        let count = u64::try_from(count).unwrap_or_default();
        let ended = match many {
            Many::Runs(filter) if asked.verb.is_for_moving_runs() => {
                let of_ended = filter.state.is_none_or(|state| state == State::Ended);
                let filter = RunFilter { state: Some(State::Ended), ..*filter };
                let many = Many::Runs(Box::new(filter));
                let (ended, _) = if of_ended {
                    listed(table::plan(&mut connection, namespace, &many, now, 1).await)?
                } else {
                    (0, Vec::new())
                };
                Some(u64::try_from(ended).unwrap_or_default())
            }
            _ => None,
        };
        drop(connection);
        for item in &mut first {
            foresee::foresee(self.node(), namespace, asked, item).await?;
        }
        let mut dependents = Vec::new();
        if matches!(asked.verb, JobVerb::Compensate | JobVerb::Rerun) {
            for item in &first {
                match reads::dependents(self.node(), namespace, item.run).await {
                    Ok(more) => dependents.extend(more),
                    Err(error @ (Error::Store(_) | Error::Busy)) => return Err(error),
                    // The item reports it.
                    Err(_) => {}
                }
            }
            dependents.truncate(reads::MOST_TOUCHED as usize);
        }
        Ok(JobPlan { count, ended, first, dependents })
    }

    /// Creates a job. Its items are fixed from then on. With a `reservation` the same request again is the same
    /// job.
    ///
    /// # Errors
    /// [`Error::Invalid`] with everything wrong in it; [`Error::NotFound`] for the workflow of its filter;
    /// [`Error::Conflict`] when it would be of too many.
    pub async fn create_job(
        &self,
        namespace: &str,
        actor: &str,
        asked: NewJob,
        reservation: Option<&Reservation>,
    ) -> Result<JobView, Error> {
        let many = ask::check(&asked, self.node().options.payload_limit)?;
        must_know_workflow(self.node(), namespace, &many).await?;
        let id = reservation.map_or_else(Uuid::now_v7, |reservation| reservation.run_id(0).0);
        let state = if asked.canary.is_some() { JobState::Canary } else { JobState::Running };
        let job = JobView {
            id,
            state,
            why: None,
            asked,
            actor: actor.to_owned(),
            created_at: Timestamp(self.node().clock.now()),
            ended_at: None,
            progress: backstitch_saga::protocol::JobProgress::default(),
            damaged: None,
        };
        let text = serde_json::to_string(&job.asked);
        let act = Act {
            namespace,
            thing: Thing::Job,
            name: &id.to_string(),
            at: job.created_at.0,
            verb: "create",
            by: &By { actor: actor.into(), reason: job.asked.reason.clone() },
            detail: Some(text.map_err(|error| Error::Bug(error.to_string()))?),
        };
        let mut connection = self.node().database.reader(namespace).await?;
        let total = commit!(
            "jobs_create",
            table::create(&mut connection, namespace, &job, &many, MOST, &act).await
        )?;
        if total > MOST {
            return Err(Error::Conflict {
                code: "too_many",
                message: format!("a job may be made of {MOST}, this would be of more; narrow it"),
            });
        }
        let made = table::find(&mut connection, namespace, id).await?;
        made.ok_or_else(|| unknown_job(id))
    }

    /// Lists jobs, newest first; `after` is the cursor of the page before.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn jobs(
        &self,
        namespace: &str,
        state: Option<JobState>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<JobView>, Error> {
        let before = after.map(|text| Cursor::place('j', text, |place| place.parse().ok()));
        let limit = limit.clamp(1, 1_000);
        let mut connection = self.node().database.lister(namespace).await?;
        let beyond = i64::from(limit) + 1;
        let before = before.transpose()?;
        let jobs = listed(table::list(&mut connection, namespace, state, before, beyond).await)?;
        Ok(page(jobs, limit as usize, |job| Cursor::of('j', &job.id.to_string())))
    }

    /// Returns one job.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn job(&self, namespace: &str, id: Uuid) -> Result<JobView, Error> {
        let mut connection = self.node().database.reader(namespace).await?;
        let job = table::find(&mut connection, namespace, id).await?;
        job.ok_or_else(|| unknown_job(id))
    }

    /// Lists the results of a job's items, in order; `after` is the cursor of the page before.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn job_items(
        &self,
        namespace: &str,
        id: Uuid,
        state: Option<ItemState>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<JobItem>, Error> {
        let after = after.map(|text| Cursor::place('m', text, |place| place.parse::<i32>().ok()));
        let after = after.transpose()?.unwrap_or(0);
        let stopped = self.job(namespace, id).await?.state == JobState::Stopped;
        let limit = limit.clamp(1, 1_000);
        let mut connection = self.node().database.lister(namespace).await?;
        let beyond = i64::from(limit) + 1;
        let items =
            listed(table::items(&mut connection, (id, stopped), state, after, beyond).await)?;
        Ok(page(items, limit as usize, |item| Cursor::of('m', &item.position.to_string())))
    }

    /// Pauses a job. Acts in progress end: at most those of a quarter of a second.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when it has ended.
    pub async fn pause_job(&self, namespace: &str, id: Uuid, by: &By) -> Result<JobView, Error> {
        let from = [JobState::Canary, JobState::Running];
        turn(self.node(), namespace, id, &from, JobState::Paused, by, ("pause", "paused")).await
    }

    /// Lets a paused job go on.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when it has ended, or its row cannot be read (`job_damaged`).
    pub async fn resume_job(&self, namespace: &str, id: Uuid, by: &By) -> Result<JobView, Error> {
        let mut connection = self.node().database.reader(namespace).await?;
        let job = table::find(&mut connection, namespace, id).await?;
        if let Some(why) = job.and_then(|job| job.damaged) {
            let message = format!("the job {id} cannot be read: {why}; stop it, and make another");
            return Err(Error::Conflict { code: "job_damaged", message });
        }
        let to = table::resumes_as(&mut connection, namespace, id).await?;
        drop(connection);
        let to = to.ok_or_else(|| unknown_job(id))?;
        turn(self.node(), namespace, id, &[JobState::Paused], to, by, ("resume", "resumed")).await
    }

    /// Stops a job permanently; the rest is not done.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when it has ended.
    pub async fn stop_job(&self, namespace: &str, id: Uuid, by: &By) -> Result<JobView, Error> {
        let from = [JobState::Canary, JobState::Running, JobState::Paused];
        turn(self.node(), namespace, id, &from, JobState::Stopped, by, ("stop", "stopped")).await
    }
}

/// Refuses a job on a workflow that does not exist: it would have no items, and look done.
async fn must_know_workflow(node: &Node, namespace: &str, many: &Many) -> Result<(), Error> {
    let workflow = match many {
        Many::Incidents(filter) => &filter.workflow,
        Many::Runs(filter) => &filter.workflow,
    };
    match workflow {
        Some(name) => definitions::must_be_known(&node.database, namespace, name).await,
        None => Ok(()),
    }
}

fn unknown_job(id: Uuid) -> Error {
    Error::NotFound {
        code: "unknown_job",
        message: format!("there is no job {id} in this namespace"),
    }
}

/// Changes the state of a job by a person's request. A repeat changes nothing.
async fn turn(
    node: &Arc<Node>,
    namespace: &str,
    id: Uuid,
    from: &[JobState],
    to: JobState,
    by: &By,
    words: (&'static str, &str),
) -> Result<JobView, Error> {
    must_have_reason(by)?;
    let (verb, word) = words;
    let why = format!("{word} by {}: {}", by.actor, by.reason);
    let change = Turn { from, to, why: Some(&why), at: node.clock.now() };
    let name = &id.to_string();
    let act = Act { namespace, thing: Thing::Job, name, at: change.at, verb, by, detail: None };
    let mut connection = node.database.reader(namespace).await?;
    let mut transaction = connection.begin().await?;
    let turned = table::turn(&mut transaction, namespace, id, &change).await?;
    if turned {
        acts::add(&mut transaction, &act).await?;
    }
    commit!("jobs_turn", transaction.commit().await)?;
    let job = table::find(&mut connection, namespace, id).await?.ok_or_else(|| unknown_job(id))?;
    if turned || job.state == to {
        return Ok(job);
    }
    Err(Error::Conflict {
        code: "job_not_moving",
        message: format!("the job is {}, so it cannot be {word}", job.state.as_str()),
    })
}

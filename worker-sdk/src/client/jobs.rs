//! Jobs: one verb on many incidents or runs.

use backstitch_saga::protocol::{ItemState, JobItem, JobPlan, JobState, JobView, NewJob};
use uuid::Uuid;

use super::{Client, ClientError, Pages, parameter};

impl Client {
    /// Returns the items that a job would have; nothing is written.
    ///
    /// # Errors
    /// A problem with everything that is wrong.
    pub async fn plan_job(&self, asked: &NewJob) -> Result<JobPlan, ClientError> {
        self.send_act("v1/jobs", &NewJob { dry_run: true, ..asked.clone() }).await
    }

    /// Makes a job.
    ///
    /// # Errors
    /// A problem with everything that is wrong.
    pub async fn create_job(&self, asked: &NewJob) -> Result<JobView, ClientError> {
        self.send_act("v1/jobs", &NewJob { dry_run: false, ..asked.clone() }).await
    }

    /// Returns one job.
    ///
    /// # Errors
    /// A problem `unknown_job`.
    pub async fn job(&self, id: Uuid) -> Result<JobView, ClientError> {
        self.read_from(&format!("v1/jobs/{id}")).await
    }

    /// Lists jobs, newest first, only those in `state` when given.
    #[must_use]
    pub fn jobs(&self, state: Option<JobState>) -> Pages<JobView> {
        let state = parameter("state", state.map(JobState::as_str));
        Pages::new(self, "v1/jobs".to_owned(), state)
    }

    /// Lists the results of a job's items, in order; only those in `state` if given.
    #[must_use]
    pub fn job_items(&self, id: Uuid, state: Option<ItemState>) -> Pages<JobItem> {
        let state = parameter("state", state.map(ItemState::as_str));
        Pages::new(self, format!("v1/jobs/{id}/items"), state)
    }

    /// Makes a job pause.
    ///
    /// # Errors
    /// A problem, such as `job_not_moving`.
    pub async fn pause_job(&self, id: Uuid, reason: &str) -> Result<JobView, ClientError> {
        self.send_reason(&format!("v1/jobs/{id}/pause"), reason).await
    }

    /// Lets a paused job go on.
    ///
    /// # Errors
    /// A problem, such as `job_not_moving`.
    pub async fn resume_job(&self, id: Uuid, reason: &str) -> Result<JobView, ClientError> {
        self.send_reason(&format!("v1/jobs/{id}/resume"), reason).await
    }

    /// Stops a job permanently.
    ///
    /// # Errors
    /// A problem, such as `job_not_moving`.
    pub async fn stop_job(&self, id: Uuid, reason: &str) -> Result<JobView, ClientError> {
        self.send_reason(&format!("v1/jobs/{id}/stop"), reason).await
    }
}

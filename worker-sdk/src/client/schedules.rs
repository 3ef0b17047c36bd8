//! Schedules: putting them, and what operators do with them.

use backstitch_saga::protocol::{
    BackfillPlan, BackfillSchedule, NextStarts, Overlap, Reason, ScheduleLine, ScheduleSpec,
    ScheduleStart, ScheduleView, TriggerSchedule, Triggered,
};
use reqwest::Method;
use serde::Serialize;

use super::{Client, ClientError, Pages, read};

impl Client {
    /// Makes a schedule, or replaces its spec whole. Putting the same again changes nothing.
    ///
    /// # Errors
    /// A problem `invalid_schedule` with everything that is wrong.
    pub async fn put_schedule(
        &self,
        name: &str,
        spec: &ScheduleSpec,
    ) -> Result<ScheduleView, ClientError> {
        let request = self.request(Method::PUT, &format!("v1/schedules/{name}"))?.json(spec);
        read(self.send(request).await?)
    }

    /// Returns one schedule.
    ///
    /// # Errors
    /// A problem `unknown_schedule`.
    pub async fn schedule(&self, name: &str) -> Result<ScheduleView, ClientError> {
        let request = self.get(&format!("v1/schedules/{name}"))?;
        read(self.send(request).await?)
    }

    /// Returns all schedules by name.
    #[must_use]
    pub fn schedules(&self) -> Pages<ScheduleLine> {
        Pages::new(self, "v1/schedules".to_owned(), Vec::new())
    }

    /// Lists the results of a schedule's starts, newest first.
    #[must_use]
    pub fn schedule_starts(&self, name: &str) -> Pages<ScheduleStart> {
        Pages::new(self, format!("v1/schedules/{name}/starts"), Vec::new())
    }

    /// Returns the next `count` starts of a schedule, 1 to 1,000.
    ///
    /// # Errors
    /// A problem `unknown_schedule`.
    pub async fn next_of_schedule(
        &self,
        name: &str,
        count: u32,
    ) -> Result<NextStarts, ClientError> {
        let request = self.get(&format!("v1/schedules/{name}/next?count={count}"))?;
        read(self.send(request).await?)
    }

    /// Deletes a schedule; its runs go on.
    ///
    /// # Errors
    /// A problem `unknown_schedule`, also when an answer was lost and it is deleted by now.
    pub async fn delete_schedule(&self, name: &str) -> Result<(), ClientError> {
        let request = self.request(Method::DELETE, &format!("v1/schedules/{name}"))?;
        self.send(request).await.map(drop)
    }

    /// Stops a schedule's clock.
    ///
    /// # Errors
    /// A problem `unknown_schedule`.
    pub async fn pause_schedule(
        &self,
        name: &str,
        reason: &str,
    ) -> Result<ScheduleView, ClientError> {
        let body = Reason { reason: reason.to_owned() };
        self.act_on_schedule(name, "pause", &body).await
    }

    /// Lets a schedule's clock go on; the instants of the pause are passed over.
    ///
    /// # Errors
    /// A problem `unknown_schedule`.
    pub async fn resume_schedule(
        &self,
        name: &str,
        reason: &str,
    ) -> Result<ScheduleView, ClientError> {
        let body = Reason { reason: reason.to_owned() };
        self.act_on_schedule(name, "resume", &body).await
    }

    /// Starts a run of a schedule now; its own overlap policy holds where none is given.
    ///
    /// # Errors
    /// A problem `unknown_schedule`.
    pub async fn trigger_schedule(
        &self,
        name: &str,
        overlap: Option<Overlap>,
        reason: &str,
    ) -> Result<Triggered, ClientError> {
        let body = TriggerSchedule { overlap, reason: reason.to_owned() };
        self.act_on_schedule(name, "trigger", &body).await
    }

    /// Starts the instants of a range in the past, or with `dry_run` lists them.
    ///
    /// # Errors
    /// A problem such as `unknown_schedule`, or `invalid_request` for the range.
    pub async fn backfill_schedule(
        &self,
        name: &str,
        ask: &BackfillSchedule,
    ) -> Result<BackfillPlan, ClientError> {
        self.act_on_schedule(name, "backfill", ask).await
    }

    async fn act_on_schedule<T: serde::de::DeserializeOwned>(
        &self,
        name: &str,
        verb: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.send_act(&format!("v1/schedules/{name}/{verb}"), body).await
    }
}

//! Acts on runs. Every act needs a reason, which the run's history records. Each is sent under a key of its own, so
//! that it is executed once, however often the network fails.

use backstitch_saga::protocol::{CompensateRun, EraseRun, ErasedRun, Plan, RunView, Scope};
use backstitch_saga::{RunId, StepPath};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Client, ClientError, read};

/// Number of undos in one page of a plan.
const PLAN_PAGE: u32 = 1_000;

impl Client {
    /// Returns what compensating would do, without doing it.
    ///
    /// # Errors
    /// A problem that says why it could not be done.
    pub async fn plan(&self, run: RunId, scope: Scope) -> Result<Plan, ClientError> {
        let body = CompensateRun { scope, reason: String::new(), dry_run: true, force: false };
        let path = format!("v1/runs/{run}/compensate");
        let mut plan: Plan = self.plan_page(&path, None, &body).await?;
        while let Some(after) = plan.next.take() {
            let more: Plan = self.plan_page(&path, Some(&after), &body).await?;
            plan.steps.extend(more.steps);
            plan.next = more.next;
        }
        Ok(plan)
    }

    /// Returns a page of what a dry run would do.
    pub(super) async fn plan_page<T: DeserializeOwned>(
        &self,
        path: &str,
        after: Option<&str>,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let request = self.post(path, body)?.query(&[("limit", PLAN_PAGE)]);
        let request = request.query(&after.map(|after| ("after", after)).as_slice());
        read(self.send(request).await?)
    }

    /// Undoes `scope`. Returns the run as it is now, being undone.
    ///
    /// # Errors
    /// A problem, such as `past_pivot`: then [`Client::force_compensate`] may.
    pub async fn compensate(
        &self,
        run: RunId,
        scope: Scope,
        reason: &str,
    ) -> Result<RunView, ClientError> {
        self.send_compensate(run, scope, reason, false).await
    }

    /// Returns the same, even past a pivot.
    ///
    /// # Errors
    /// A problem, such as `already_compensating`.
    pub async fn force_compensate(
        &self,
        run: RunId,
        scope: Scope,
        reason: &str,
    ) -> Result<RunView, ClientError> {
        self.send_compensate(run, scope, reason, true).await
    }

    async fn send_compensate(
        &self,
        run: RunId,
        scope: Scope,
        reason: &str,
        force: bool,
    ) -> Result<RunView, ClientError> {
        let body = CompensateRun { scope, reason: reason.to_owned(), dry_run: false, force };
        self.send_act(&format!("v1/runs/{run}/compensate"), &body).await
    }

    /// Stops a run and undoes what it did.
    ///
    /// # Errors
    /// A problem, such as `run_ended`.
    pub async fn cancel(&self, run: RunId, reason: &str) -> Result<RunView, ClientError> {
        self.act(run, "cancel", reason).await
    }

    /// Ends a run without undoing anything.
    ///
    /// # Errors
    /// A problem, such as `run_ended`.
    pub async fn kill(&self, run: RunId, reason: &str) -> Result<RunView, ClientError> {
        self.act(run, "kill", reason).await
    }

    /// Erases the documents of a run that has ended, and of all that descend from it; with `kill` of one that has not,
    /// too, which is killed first: what it did stays.
    ///
    /// # Errors
    /// A problem, such as `run_goes_on` or `not_the_root`.
    pub async fn erase(
        &self,
        run: RunId,
        kill: bool,
        reason: &str,
    ) -> Result<ErasedRun, ClientError> {
        let ask = EraseRun { reason: reason.to_owned(), kill };
        self.send_act(&format!("v1/runs/{run}/erase"), &ask).await
    }

    /// Lets everything that is parked or blocked in a run try again, with fresh attempts.
    ///
    /// # Errors
    /// A problem, such as `nothing_to_retry`.
    pub async fn retry(&self, run: RunId, reason: &str) -> Result<RunView, ClientError> {
        self.act(run, "retry", reason).await
    }

    /// Vouches that a blocked compensation is done, or needs not be.
    ///
    /// # Errors
    /// A problem when the step is not being undone.
    pub async fn mark_compensated(
        &self,
        run: RunId,
        step: &StepPath,
        reason: &str,
    ) -> Result<RunView, ClientError> {
        let step = step.to_string().replace('/', "%2F");
        self.act(run, &format!("steps/{step}/mark-compensated"), reason).await
    }

    async fn act(&self, run: RunId, verb: &str, reason: &str) -> Result<RunView, ClientError> {
        self.send_reason(&format!("v1/runs/{run}/{verb}"), reason).await
    }
}

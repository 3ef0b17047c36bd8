//! Pausing, rerunning and deciding about steps of runs, and sending them signals.

use std::fmt::Display;

use backstitch_saga::protocol::{
    PauseRun, RerunItems, RerunPlan, RerunRun, ResolveStep, RetryStep, RunView, SendSignal,
    SendSignalByKey, SignalSent, SkipStep,
};
use backstitch_saga::{Payload, RunId, StepPath};
use serde::Serialize;

use super::{Client, ClientError};

impl Client {
    /// Sends a signal to a run: the output of the step that waits for it. The first of its name counts.
    ///
    /// # Errors
    /// A problem, such as `already_signalled` or `not_awaited`; data that has no JSON form.
    pub async fn signal(
        &self,
        run: RunId,
        signal: &str,
        data: &impl Serialize,
    ) -> Result<RunView, ClientError> {
        let data = self.encode(payload(data)?, || format!("signal\n{run}\n{signal}"))?;
        let body = SendSignal { data };
        self.send_act(&format!("v1/runs/{run}/signals/{signal}"), &body).await
    }

    /// Sends a signal to the run that a business key started, or will start.
    ///
    /// # Errors
    /// As [`Client::signal`].
    pub async fn signal_key(
        &self,
        workflow: &str,
        key: &str,
        signal: &str,
        data: &impl Serialize,
    ) -> Result<SignalSent, ClientError> {
        let context = || format!("signal\n{workflow}\n{key}\n{signal}");
        let data = self.encode(payload(data)?, context)?;
        let (workflow, key, signal) = (workflow.to_owned(), key.to_owned(), signal.to_owned());
        let body = SendSignalByKey { workflow, key, signal, data };
        self.send_act("v1/signals", &body).await
    }

    /// Hands nothing of a run out until it is resumed.
    ///
    /// # Errors
    /// A problem, such as `run_ended`.
    pub async fn pause(&self, run: RunId, reason: &str) -> Result<RunView, ClientError> {
        let body = PauseRun { reason: reason.to_owned(), name: None };
        self.send_act(&format!("v1/runs/{run}/pause"), &body).await
    }

    /// Takes every pause of a run away.
    ///
    /// # Errors
    /// A problem, such as `reason_missing`.
    pub async fn resume(&self, run: RunId, reason: &str) -> Result<RunView, ClientError> {
        let body = PauseRun { reason: reason.to_owned(), name: None };
        self.send_act(&format!("v1/runs/{run}/resume"), &body).await
    }

    /// Lets one step or item try again, with a better input if there is one.
    ///
    /// # Errors
    /// A problem, such as `nothing_to_retry`.
    pub async fn retry_step(
        &self,
        run: RunId,
        step: &StepPath,
        input: Option<Payload>,
        reason: &str,
    ) -> Result<RunView, ClientError> {
        let input = self.encode_given(input, run, step)?;
        let body = RetryStep { reason: reason.to_owned(), input };
        self.send_act(&of_step(run, step, "retry"), &body).await
    }

    /// Goes on without a step or item, with `output` in its place if there is one.
    ///
    /// # Errors
    /// A problem, such as `task_in_flight`.
    pub async fn skip_step(
        &self,
        run: RunId,
        step: &StepPath,
        output: Option<Payload>,
        reason: &str,
    ) -> Result<RunView, ClientError> {
        let output = self.encode_given(output, run, step)?;
        let body = SkipStep { reason: reason.to_owned(), output };
        self.send_act(&of_step(run, step, "skip"), &body).await
    }

    /// Says that a step or item was done, and with what output.
    ///
    /// # Errors
    /// A problem, such as `nothing_to_resolve`.
    pub async fn resolve_step(
        &self,
        run: RunId,
        step: &StepPath,
        output: Payload,
        reason: &str,
    ) -> Result<RunView, ClientError> {
        let output = self.encode(output, || given(run, step))?;
        let body = ResolveStep { reason: reason.to_owned(), output, external_id: None };
        self.send_act(&of_step(run, step, "resolve"), &body).await
    }

    /// Undoes a step and all that followed it, and goes forward again from there.
    ///
    /// # Errors
    /// A problem, such as `past_pivot`.
    pub async fn rerun(
        &self,
        run: RunId,
        from: &str,
        input: Option<Payload>,
        reason: &str,
    ) -> Result<RunView, ClientError> {
        let input = self.encode_given(input, run, from)?;
        let (from, reason) = (from.to_owned(), reason.to_owned());
        let items = RerunItems::All;
        let body = RerunRun { from, reason, input, items, force: false, dry_run: false };
        self.send_act(&format!("v1/runs/{run}/rerun"), &body).await
    }

    /// Returns what [`Client::rerun`] would undo and repeat.
    ///
    /// # Errors
    /// A problem that says why it could not be done.
    pub async fn rerun_plan(&self, run: RunId, from: &str) -> Result<RerunPlan, ClientError> {
        self.ask_rerun_plan(run, from, RerunItems::All).await
    }

    /// Executes the items of a fan-out again that did not succeed, and goes on from its join. The others keep
    /// their results.
    ///
    /// # Errors
    /// A problem, such as `nothing_to_retry`.
    pub async fn rerun_failed_items(
        &self,
        run: RunId,
        from: &str,
        reason: &str,
    ) -> Result<RunView, ClientError> {
        let (from, reason) = (from.to_owned(), reason.to_owned());
        let items = RerunItems::Failed;
        let body = RerunRun { from, reason, input: None, items, force: false, dry_run: false };
        self.send_act(&format!("v1/runs/{run}/rerun"), &body).await
    }

    /// Returns what [`Client::rerun_failed_items`] would undo and repeat.
    ///
    /// # Errors
    /// A problem that says why it could not be done.
    pub async fn rerun_failed_items_plan(
        &self,
        run: RunId,
        from: &str,
    ) -> Result<RerunPlan, ClientError> {
        self.ask_rerun_plan(run, from, RerunItems::Failed).await
    }

    fn encode(
        &self,
        document: Payload,
        context: impl FnOnce() -> String,
    ) -> Result<Payload, ClientError> {
        Ok(self.codec.encode(document, context)?)
    }

    /// Encodes a document that a person gives for a step.
    fn encode_given(
        &self,
        document: Option<Payload>,
        run: RunId,
        step: impl Display,
    ) -> Result<Option<Payload>, ClientError> {
        document.map(|document| self.encode(document, || given(run, step))).transpose()
    }

    async fn ask_rerun_plan(
        &self,
        run: RunId,
        from: &str,
        items: RerunItems,
    ) -> Result<RerunPlan, ClientError> {
        let (from, reason) = (from.to_owned(), String::new());
        let body = RerunRun { from, reason, input: None, items, force: false, dry_run: true };
        let path = format!("v1/runs/{run}/rerun");
        let mut plan: RerunPlan = self.plan_page(&path, None, &body).await?;
        while let Some(after) = plan.undo.next.take() {
            let more: RerunPlan = self.plan_page(&path, Some(&after), &body).await?;
            plan.undo.steps.extend(more.undo.steps);
            plan.undo.next = more.undo.next;
        }
        Ok(plan)
    }
}

fn given(run: RunId, step: impl Display) -> String {
    format!("given\n{run}\n{step}")
}

fn of_step(run: RunId, step: &StepPath, verb: &str) -> String {
    format!("v1/runs/{run}/steps/{}/{verb}", step.to_string().replace('/', "%2F"))
}

fn payload(data: &impl Serialize) -> Result<Payload, ClientError> {
    Payload::of(data).map_err(ClientError::Unsendable)
}

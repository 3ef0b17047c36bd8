//! Undos that are written down before they are done, and approved by a second person where that is needed.

use backstitch_saga::RunId;
use backstitch_saga::protocol::{
    ApplyPlan, ApprovePlan, CompensationPlan, EditPlan, MakePlan, PlanFilter, PlanView,
    SetUndoApproval, UndoApprovalView,
};
use reqwest::Method;
use uuid::Uuid;

use super::{Client, ClientError, Pages, parameters, read};

impl Client {
    /// Plans an undo of a run in its present state.
    ///
    /// # Errors
    /// A problem, such as `past_pivot`.
    pub async fn make_plan(&self, run: RunId, plan: &MakePlan) -> Result<PlanView, ClientError> {
        self.send_act(&format!("v1/runs/{run}/plans"), plan).await
    }

    /// Lists plans, newest first.
    #[must_use]
    pub fn plans(&self, filter: &PlanFilter) -> Pages<CompensationPlan> {
        Pages::new(self, "v1/plans".to_owned(), parameters(filter))
    }

    /// Returns one plan, with the first page of what it undoes while it holds.
    ///
    /// # Errors
    /// A problem `unknown_plan`.
    pub async fn compensation_plan(&self, plan: Uuid) -> Result<PlanView, ClientError> {
        self.read_from(&format!("v1/plans/{plan}")).await
    }

    /// Changes an open plan, which is rewritten for the present state of the run.
    ///
    /// # Errors
    /// A problem, such as `plan_changed`, also when an answer was lost and it is changed by now.
    pub async fn edit_plan(&self, plan: Uuid, edit: &EditPlan) -> Result<PlanView, ClientError> {
        let request = self.request(Method::PUT, &format!("v1/plans/{plan}"))?.json(edit);
        read(self.send(request).await?)
    }

    /// Approves a plan of another person.
    ///
    /// # Errors
    /// A problem, such as `own_plan`.
    pub async fn approve_plan(
        &self,
        plan: Uuid,
        revision: u32,
        reason: &str,
    ) -> Result<PlanView, ClientError> {
        let body = ApprovePlan { revision, reason: reason.to_owned() };
        self.send_act(&format!("v1/plans/{plan}/approve"), &body).await
    }

    /// Undoes the run as a plan says.
    ///
    /// # Errors
    /// A problem, such as `plan_expired` or `approval_needed`.
    pub async fn apply_plan(&self, plan: Uuid, revision: u32) -> Result<PlanView, ClientError> {
        self.send_act(&format!("v1/plans/{plan}/apply"), &ApplyPlan { revision }).await
    }

    /// Withdraws an open plan.
    ///
    /// # Errors
    /// A problem, such as `plan_over`.
    pub async fn withdraw_plan(&self, plan: Uuid, reason: &str) -> Result<PlanView, ClientError> {
        self.send_reason(&format!("v1/plans/{plan}/withdraw"), reason).await
    }

    /// Returns the condition on which undos of a workflow's runs need a second person.
    ///
    /// # Errors
    /// A problem `unknown_workflow`.
    pub async fn undo_approval(&self, workflow: &str) -> Result<UndoApprovalView, ClientError> {
        self.read_from(&self.place(&["workflows", workflow, "undo-approval"])).await
    }

    /// Sets when undos of a workflow's runs need a second person.
    ///
    /// # Errors
    /// A problem, such as `unknown_workflow`.
    pub async fn set_undo_approval(
        &self,
        workflow: &str,
        ask: &SetUndoApproval,
    ) -> Result<UndoApprovalView, ClientError> {
        let path = self.place(&["workflows", workflow, "undo-approval"]);
        let request = self.request(Method::PUT, &path)?.json(ask);
        read(self.send(request).await?)
    }
}

//! Registering and reading workflow definitions.

use backstitch_saga::protocol::{
    MigratedRun, MigrationCheck, MigrationView, NewMigration, Page, PauseView, RehearsalView,
    RetentionView, SetRetention, VersionLoad, WorkflowView,
};
use backstitch_saga::{Definition, Violation};
use reqwest::{Method, StatusCode};
use uuid::Uuid;

use super::{Client, ClientError, Pages, parameter, read};
use crate::Workflow;

/// Result of registering a definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    /// It is new.
    Created,
    /// The same was there.
    Unchanged,
}

impl Client {
    /// Registers a workflow under its name and version. Registering the same definition again is a
    /// no-op.
    ///
    /// # Errors
    /// A problem `version_conflict` when another definition stands under that version: give it a new one.
    pub async fn register<In, Out>(
        &self,
        workflow: &Workflow<In, Out>,
    ) -> Result<Registered, ClientError> {
        self.register_definition(workflow.definition()).await
    }

    /// Registers a definition that was not built with this SDK.
    ///
    /// # Errors
    /// A problem `invalid_definition` with everything that is wrong; `version_conflict` as in [`Client::register`].
    pub async fn register_definition(
        &self,
        definition: &Definition,
    ) -> Result<Registered, ClientError> {
        let path = format!("v1/workflows/{}/versions/{}", definition.name, definition.version);
        let request = self.request(Method::PUT, &path)?.json(definition);
        let answer = self.send(request).await?;
        Ok(match answer.status {
            StatusCode::CREATED => Registered::Created,
            _ => Registered::Unchanged,
        })
    }

    /// Checks a definition as the registration would, and writes nothing. Returns all mistakes.
    ///
    /// # Errors
    /// A [`ClientError`] when the question could not be asked.
    pub async fn validate(&self, definition: &Definition) -> Result<Vec<Violation>, ClientError> {
        let request = self.post("v1/workflows/validate", definition)?;
        match self.send(request).await {
            Ok(_) => Ok(Vec::new()),
            Err(ClientError::Problem { problem, .. }) if !problem.errors.is_empty() => {
                Ok(problem.errors)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns all workflow versions, by name and version, without their definitions.
    #[must_use]
    pub fn workflows(&self) -> Pages<WorkflowView> {
        Pages::new(self, "v1/workflows".to_owned(), Vec::new())
    }

    /// Returns all versions of one workflow, without their definitions.
    #[must_use]
    pub fn workflow_versions(&self, name: &str) -> Pages<WorkflowView> {
        Pages::new(self, format!("v1/workflows/{name}"), Vec::new())
    }

    /// Returns one workflow version with its definition.
    ///
    /// # Errors
    /// A problem `unknown_workflow`.
    pub async fn workflow(&self, name: &str, version: u32) -> Result<WorkflowView, ClientError> {
        let request = self.get(&format!("v1/workflows/{name}/versions/{version}"))?;
        read(self.send(request).await?)
    }

    /// Returns the results of the rehearsal of a workflow version, as far as a registration goes.
    ///
    /// # Errors
    /// A problem `unknown_workflow`.
    pub async fn rehearsal(&self, name: &str, version: u32) -> Result<RehearsalView, ClientError> {
        let path = format!("v1/workflows/{name}/versions/{version}/rehearsal");
        read(self.send(self.get(&path)?).await?)
    }

    /// Holds the new runs of a workflow. Returns the newest pauses, as [`Client::pauses`].
    ///
    /// # Errors
    /// A problem, such as `unknown_workflow`.
    pub async fn pause_workflow(
        &self,
        name: &str,
        reason: &str,
    ) -> Result<Vec<PauseView>, ClientError> {
        self.turn(name, "pause", reason).await
    }

    /// Lets a paused workflow go on. Returns the newest pauses.
    ///
    /// # Errors
    /// A problem, such as `unknown_workflow`.
    pub async fn resume_workflow(
        &self,
        name: &str,
        reason: &str,
    ) -> Result<Vec<PauseView>, ClientError> {
        self.turn(name, "resume", reason).await
    }

    /// Pauses of workflows, newest first, also those that are over.
    #[must_use]
    pub fn pauses(&self) -> Pages<PauseView> {
        Pages::new(self, "v1/pauses".to_owned(), Vec::new())
    }

    /// Lists the versions of a workflow with the number of their runs in flight.
    #[must_use]
    pub fn drain_status(&self, name: &str) -> Pages<VersionLoad> {
        Pages::new(self, format!("v1/workflows/{name}/drain"), Vec::new())
    }

    /// Checks whether runs in flight could be moved to another version, page by page; nothing is written.
    ///
    /// # Errors
    /// A problem with everything that is wrong.
    pub async fn check_migration(
        &self,
        name: &str,
        asked: &NewMigration,
    ) -> Result<MigrationCheck, ClientError> {
        let asked = NewMigration { dry_run: true, ..asked.clone() };
        self.send_act(&format!("v1/workflows/{name}/migrations"), &asked).await
    }

    /// Moves runs in flight to another version.
    ///
    /// # Errors
    /// A problem, such as `migration_under_way`.
    pub async fn migrate(
        &self,
        name: &str,
        asked: &NewMigration,
    ) -> Result<MigrationView, ClientError> {
        let asked = NewMigration { dry_run: false, ..asked.clone() };
        self.send_act(&format!("v1/workflows/{name}/migrations"), &asked).await
    }

    /// Lists migrations of a workflow, newest first.
    #[must_use]
    pub fn migrations(&self, name: &str) -> Pages<MigrationView> {
        Pages::new(self, format!("v1/workflows/{name}/migrations"), Vec::new())
    }

    /// Returns one migration.
    ///
    /// # Errors
    /// A problem `unknown_migration`.
    pub async fn migration(&self, name: &str, id: Uuid) -> Result<MigrationView, ClientError> {
        self.read_from(&format!("v1/workflows/{name}/migrations/{id}")).await
    }

    /// Lists the results of a migration by run; only those with `result` if given.
    #[must_use]
    pub fn migrated_runs(&self, name: &str, id: Uuid, result: Option<&str>) -> Pages<MigratedRun> {
        let path = format!("v1/workflows/{name}/migrations/{id}/runs");
        Pages::new(self, path, parameter("result", result))
    }

    /// Stops a migration; what was moved stays so.
    ///
    /// # Errors
    /// A problem, such as `unknown_migration`.
    pub async fn stop_migration(
        &self,
        name: &str,
        id: Uuid,
        reason: &str,
    ) -> Result<MigrationView, ClientError> {
        self.send_reason(&format!("v1/workflows/{name}/migrations/{id}/stop"), reason).await
    }

    /// Returns the retention of the ended runs of a workflow.
    ///
    /// # Errors
    /// A problem, such as `unknown_workflow`.
    pub async fn retention(&self, name: &str) -> Result<RetentionView, ClientError> {
        self.read_from(&format!("v1/workflows/{name}/retention")).await
    }

    /// Sets the retention of the ended runs of a workflow.
    ///
    /// # Errors
    /// A problem, such as `unknown_workflow`.
    pub async fn set_retention(
        &self,
        name: &str,
        retention: &SetRetention,
    ) -> Result<RetentionView, ClientError> {
        let path = format!("v1/workflows/{name}/retention");
        let request = self.request(Method::PUT, &path)?.json(retention);
        read(self.send(request).await?)
    }

    async fn turn(
        &self,
        name: &str,
        verb: &str,
        reason: &str,
    ) -> Result<Vec<PauseView>, ClientError> {
        let page: Page<PauseView> =
            self.send_reason(&format!("v1/workflows/{name}/{verb}"), reason).await?;
        Ok(page.items)
    }
}

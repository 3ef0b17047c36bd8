//! Registering and reading workflow definitions.

use backstitch_saga::protocol::WorkflowView;
use backstitch_saga::{Definition, Violation};
use reqwest::{Method, StatusCode};

use super::{Client, ClientError, Pages, read};
use crate::Workflow;

/// What registering a definition did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    /// It is new.
    Created,
    /// The same was there.
    Unchanged,
}

impl Client {
    /// Registers a workflow under its name and version. Registering the same again is a no-op.
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

    /// Checks a definition as registering would, and writes nothing. What is wrong with it, all at once.
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

    /// All workflow versions, by name and version, without their definitions.
    #[must_use]
    pub fn workflows(&self) -> Pages<WorkflowView> {
        Pages::new(self, "v1/workflows".to_owned(), Vec::new())
    }

    /// All versions of one workflow, without their definitions.
    #[must_use]
    pub fn workflow_versions(&self, name: &str) -> Pages<WorkflowView> {
        Pages::new(self, format!("v1/workflows/{name}"), Vec::new())
    }

    /// One workflow version with its definition.
    ///
    /// # Errors
    /// A problem `unknown_workflow`.
    pub async fn workflow(&self, name: &str, version: u32) -> Result<WorkflowView, ClientError> {
        let request = self.get(&format!("v1/workflows/{name}/versions/{version}"))?;
        read(self.send(request).await?)
    }
}

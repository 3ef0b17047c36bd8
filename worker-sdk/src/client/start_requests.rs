//! Starts asked for in transactions that have not become runs.

use backstitch_saga::protocol::{StartRequestState, StartRequestView};
use uuid::Uuid;

use super::{Client, ClientError, Pages, parameter};

impl Client {
    /// Lists start requests, newest first, only those in `state` when given.
    #[must_use]
    pub fn start_requests(&self, state: Option<StartRequestState>) -> Pages<StartRequestView> {
        let state = parameter("state", state.map(StartRequestState::as_str));
        Pages::new(self, "v1/start-requests".to_owned(), state)
    }

    /// Returns one of them.
    ///
    /// # Errors
    /// A problem `unknown_start_request`, also when it has become a run.
    pub async fn start_request(&self, id: Uuid) -> Result<StartRequestView, ClientError> {
        self.read_from(&format!("v1/start-requests/{id}")).await
    }

    /// Tries one again that was refused.
    ///
    /// # Errors
    /// A problem, such as `unknown_start_request`.
    pub async fn retry_start_request(
        &self,
        id: Uuid,
        reason: &str,
    ) -> Result<StartRequestView, ClientError> {
        self.send_reason(&format!("v1/start-requests/{id}/retry"), reason).await
    }

    /// Gives up one that was refused.
    ///
    /// # Errors
    /// A problem, such as `unknown_start_request`.
    pub async fn dismiss_start_request(
        &self,
        id: Uuid,
        reason: &str,
    ) -> Result<StartRequestView, ClientError> {
        self.send_reason(&format!("v1/start-requests/{id}/dismiss"), reason).await
    }
}

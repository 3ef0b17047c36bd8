//! How the whole of it stands, who works, and who did what.

use backstitch_saga::protocol::{ActFilter, ActLine, StatusView, WhoAmI, WorkerView};

use super::{Client, ClientError, Pages, parameters};

impl Client {
    /// How the namespace stands, in counts that are cheap to ask for.
    ///
    /// # Errors
    /// A [`ClientError`].
    pub async fn status(&self) -> Result<StatusView, ClientError> {
        self.read_from("v1/status").await
    }

    /// Who the server takes this client for.
    ///
    /// # Errors
    /// A [`ClientError`].
    pub async fn whoami(&self) -> Result<WhoAmI, ClientError> {
        self.read_from("v1/whoami").await
    }

    /// Workers that fetch tasks; with `gone` also those that went within the last hour.
    #[must_use]
    pub fn workers(&self, gone: bool) -> Pages<WorkerView> {
        Pages::new(self, "v1/workers".to_owned(), vec![("gone".to_owned(), gone.to_string())])
    }

    /// What people did, newest first.
    #[must_use]
    pub fn acts(&self, filter: &ActFilter) -> Pages<ActLine> {
        Pages::new(self, "v1/acts".to_owned(), parameters(filter))
    }
}

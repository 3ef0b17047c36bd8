//! State of the namespace, its workers, and acts of people.

use backstitch_saga::protocol::{ActFilter, ActLine, StatusView, WhoAmI, WorkerView};

use super::{Client, ClientError, Pages, parameters};

impl Client {
    /// Returns the state of the namespace, in counts that are cheap to read.
    ///
    /// # Errors
    /// A [`ClientError`].
    pub async fn status(&self) -> Result<StatusView, ClientError> {
        self.read_from("v1/status").await
    }

    /// Returns the identity of this client for the server.
    ///
    /// # Errors
    /// A [`ClientError`].
    pub async fn whoami(&self) -> Result<WhoAmI, ClientError> {
        self.read_from("v1/whoami").await
    }

    /// Lists workers that fetch tasks; with `gone` also those that left within the last hour.
    #[must_use]
    pub fn workers(&self, gone: bool) -> Pages<WorkerView> {
        Pages::new(self, "v1/workers".to_owned(), vec![("gone".to_owned(), gone.to_string())])
    }

    /// Lists acts of people, newest first.
    #[must_use]
    pub fn acts(&self, filter: &ActFilter) -> Pages<ActLine> {
        Pages::new(self, "v1/acts".to_owned(), parameters(filter))
    }
}

//! Limits of queues and namespaces.

use backstitch_saga::protocol::{QueuePolicy, QueueView, Quotas, QuotasView};
use reqwest::Method;

use super::{Client, ClientError, Pages, read};

impl Client {
    /// Returns the quotas of the namespace, and what is used of them.
    ///
    /// # Errors
    /// A [`ClientError`].
    pub async fn quotas(&self) -> Result<QuotasView, ClientError> {
        self.read_from("v1/quotas").await
    }

    /// Sets the quotas of the namespace, whole; the ceilings of the server stay.
    ///
    /// # Errors
    /// A problem with everything that is wrong.
    pub async fn set_quotas(&self, quotas: &Quotas) -> Result<QuotasView, ClientError> {
        let request = self.request(Method::PUT, "v1/quotas")?.json(quotas);
        read(self.send(request).await?)
    }

    /// Lists governed queues by name.
    #[must_use]
    pub fn queues(&self) -> Pages<QueueView> {
        Pages::new(self, "v1/queues".to_owned(), Vec::new())
    }

    /// Returns one governed queue with its state.
    ///
    /// # Errors
    /// A problem `unknown_queue`.
    pub async fn queue(&self, name: &str) -> Result<QueueView, ClientError> {
        self.read_from(&format!("v1/queues/{name}")).await
    }

    /// Sets the whole policy of a queue.
    ///
    /// # Errors
    /// A problem with everything that is wrong.
    pub async fn set_queue(
        &self,
        name: &str,
        policy: &QueuePolicy,
    ) -> Result<QueueView, ClientError> {
        let request = self.request(Method::PUT, &format!("v1/queues/{name}"))?.json(policy);
        read(self.send(request).await?)
    }

    /// Lifts all limits of a queue.
    ///
    /// # Errors
    /// A problem `unknown_queue`, also when an answer was lost and they are lifted by now.
    pub async fn remove_queue(&self, name: &str) -> Result<(), ClientError> {
        let request = self.request(Method::DELETE, &format!("v1/queues/{name}"))?;
        self.send(request).await.map(drop)
    }

    /// Hands nothing of a queue out until it is resumed.
    ///
    /// # Errors
    /// A problem, such as `reason_missing`.
    pub async fn pause_queue(&self, name: &str, reason: &str) -> Result<QueueView, ClientError> {
        self.send_reason(&format!("v1/queues/{name}/pause"), reason).await
    }

    /// Hands out the tasks of a paused queue again.
    ///
    /// # Errors
    /// A problem, such as `unknown_queue`.
    pub async fn resume_queue(&self, name: &str, reason: &str) -> Result<QueueView, ClientError> {
        self.send_reason(&format!("v1/queues/{name}/resume"), reason).await
    }

    /// Opens the breaker of a queue, as if enough calls had failed.
    ///
    /// # Errors
    /// A problem, such as `no_breaker`.
    pub async fn open_queue(&self, name: &str, reason: &str) -> Result<QueueView, ClientError> {
        self.send_reason(&format!("v1/queues/{name}/open"), reason).await
    }

    /// Closes the breaker of a queue, and forgets what failed.
    ///
    /// # Errors
    /// A problem, such as `no_breaker`.
    pub async fn close_queue(&self, name: &str, reason: &str) -> Result<QueueView, ClientError> {
        self.send_reason(&format!("v1/queues/{name}/close"), reason).await
    }
}

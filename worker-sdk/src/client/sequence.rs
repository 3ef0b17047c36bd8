//! Serial keys and facts: who is in line, what is established.

use backstitch_saga::RunId;
use backstitch_saga::protocol::{KeyPlace, Page, RunView, SubjectFacts};
use reqwest::Url;

use super::{Client, ClientError};

impl Client {
    /// Returns the line of a serial key, in order, at most 1,000 places: who holds it and who waits.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn key_line(&self, key: &str) -> Result<Vec<KeyPlace>, ClientError> {
        let page: Page<KeyPlace> = self.read_from(&self.place(&["keys", key])).await?;
        Ok(page.items)
    }

    /// Returns the facts about a subject, and the runs that wait for others.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn facts(&self, on: &str) -> Result<SubjectFacts, ClientError> {
        self.read_from(&self.place(&["facts", on])).await
    }

    /// Establishes a fact about `on`; the runs that wait for it begin.
    ///
    /// # Errors
    /// A problem when it cannot be the name of a fact, or `reason_missing`.
    pub async fn establish(
        &self,
        fact: &str,
        on: &str,
        reason: &str,
    ) -> Result<SubjectFacts, ClientError> {
        self.send_reason(&self.place(&["facts", on, fact, "establish"]), reason).await
    }

    /// Withdraws a fact: it releases no run any more. Runs that have begun go on.
    ///
    /// # Errors
    /// A problem, such as `unknown_fact`.
    pub async fn withdraw(
        &self,
        fact: &str,
        on: &str,
        reason: &str,
    ) -> Result<SubjectFacts, ClientError> {
        self.send_reason(&self.place(&["facts", on, fact, "withdraw"]), reason).await
    }

    /// Lets a run begin although facts that it requires are not established.
    ///
    /// # Errors
    /// A problem, such as `nothing_required`.
    pub async fn skip_requirements(
        &self,
        run: RunId,
        reason: &str,
    ) -> Result<RunView, ClientError> {
        self.send_reason(&format!("v1/runs/{run}/skip-requirements"), reason).await
    }

    /// Returns the place of a path with texts in it that may hold anything.
    pub(super) fn place(&self, path: &[&str]) -> String {
        let mut url = Url::clone(&self.base);
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(path);
        }
        url.into()
    }
}

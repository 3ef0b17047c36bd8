//! Serial keys and facts: who is in line, what is established.

use backstitch_saga::RunId;
use backstitch_saga::protocol::{KeyPlace, Page, RunView, SubjectFacts};
use reqwest::{Method, Url};
use serde::de::DeserializeOwned;

use super::{Client, ClientError, read};

impl Client {
    /// The line of a serial key, in order, at most 1,000 places: who holds it and who waits.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn key_line(&self, key: &str) -> Result<Vec<KeyPlace>, ClientError> {
        let page: Page<KeyPlace> = self.ask(Method::GET, &["keys", key]).await?;
        Ok(page.items)
    }

    /// What is established about something, and which runs wait for what.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn facts(&self, on: &str) -> Result<SubjectFacts, ClientError> {
        self.ask(Method::GET, &["facts", on]).await
    }

    /// Establishes a fact about `on`; the runs that wait for it begin.
    ///
    /// # Errors
    /// A problem when it cannot be the name of a fact.
    pub async fn establish(&self, fact: &str, on: &str) -> Result<SubjectFacts, ClientError> {
        self.ask(Method::PUT, &["facts", on, fact]).await
    }

    /// Withdraws a fact: nobody is released by it any more. Runs that have begun go on.
    ///
    /// # Errors
    /// A problem, such as `unknown_fact`.
    pub async fn withdraw(&self, fact: &str, on: &str) -> Result<SubjectFacts, ClientError> {
        self.ask(Method::DELETE, &["facts", on, fact]).await
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

    /// Asks at a path with texts in it that may hold anything.
    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
    ) -> Result<T, ClientError> {
        let mut url = Url::clone(&self.base);
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(path);
        }
        read(self.send(self.request(method, url.as_str())?).await?)
    }
}

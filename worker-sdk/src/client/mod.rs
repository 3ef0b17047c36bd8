//! The REST API, typed. Requests are repeated when the network or a busy server fails them, which is safe: those that
//! act carry a key under which the server does them once.

mod act;
mod consume;
mod contracts;
mod error;
mod events;
mod incidents;
mod jobs;
mod plans;
mod queues;
mod runs;
mod schedules;
mod sequence;
mod signals;
mod start;
mod start_requests;
mod trust;
mod watch;
mod workflows;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use backstitch_saga::Payload;
use backstitch_saga::protocol::{
    ClaimTasks, ClaimedTasks, CompleteTasks, Heartbeat, HeartbeatTasks, HeldTask, Problem, Reason,
    ReleaseTasks, SignOff, SignedOff, TaskAnswer, TaskAnswers, TaskReport,
};
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

pub use consume::{Batch, Consumer, LogReader};
pub use contracts::contract_of;
pub use error::{ClientError, NoResult};
pub use runs::{Pages, RunQuery};
pub use start::{RunHandle, StartBuilder};
pub use workflows::Registered;

use trust::Trust;

use crate::backoff::Backoff;
use crate::codec::{Codec, CodecError, MaybeCodec};

/// Longest wait for a response, beside the wait that the request itself asks of the server.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Longest wait for the response to a heartbeat: the next one is due soon.
const HEARTBEAT_WITHIN: Duration = Duration::from_secs(5);

/// A connection to a Backstitch server. Cheap to clone; clones share connections.
///
/// ```no_run
/// # async fn shop() -> Result<(), backstitch_sdk::ClientError> {
/// let client = backstitch_sdk::Client::new("http://127.0.0.1:7420")?.api_key("bs_…")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Arc<Url>,
    headers: HeaderMap,
    trust: Trust,
    tries: u32,
    pub(crate) codec: MaybeCodec,
}

impl Client {
    /// Returns a client of the server at `url`, such as `http://127.0.0.1:7420`.
    ///
    /// # Errors
    /// [`ClientError::Setup`] when that is no http or https URL, or TLS cannot be set up.
    pub fn new(url: &str) -> Result<Client, ClientError> {
        let setup = |why: String| ClientError::Setup(format!("{url}: {why}"));
        let mut base: Url = url.parse().map_err(|error| setup(format!("{error}")))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(setup("the URL of a server begins with http:// or https://".to_owned()));
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let trust = Trust::default();
        let http = trust.connections().map_err(|error| setup(crate::http::chain(&error)))?;
        let (headers, codec) = (HeaderMap::new(), MaybeCodec::default());
        Ok(Client { http, base: Arc::new(base), headers, trust, tries: 5, codec })
    }

    /// Returns the client that the environment describes, by the variables that the command line reads, too:
    /// `BACKSTITCH_URL` and, if set, `BACKSTITCH_API_KEY` or `BACKSTITCH_API_KEY_FILE`, a file with the key,
    /// `BACKSTITCH_NAMESPACE`, and `BACKSTITCH_CA_FILE`, a file for [`Client::trust`].
    ///
    /// # Errors
    /// [`ClientError::Setup`] when there is no URL or what is there is not usable.
    pub fn from_env() -> Result<Client, ClientError> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let unreadable =
            |name, path: &str, error| ClientError::Setup(format!("{name}: {path}: {error}"));
        let url = variable("BACKSTITCH_URL").ok_or_else(|| {
            ClientError::Setup("set BACKSTITCH_URL to the server's URL".to_owned())
        })?;
        let mut client = Client::new(&url)?;
        #[cfg(feature = "tls")]
        if let Some(path) = variable("BACKSTITCH_CA_FILE") {
            let pem = std::fs::read(&path)
                .map_err(|error| unreadable("BACKSTITCH_CA_FILE", &path, error))?;
            client = client.trust(&pem)?;
        }
        if let Some(key) = variable("BACKSTITCH_API_KEY") {
            client = client.api_key(&key)?;
        } else if let Some(path) = variable("BACKSTITCH_API_KEY_FILE") {
            let key = std::fs::read_to_string(&path)
                .map_err(|error| unreadable("BACKSTITCH_API_KEY_FILE", &path, error))?;
            client = client.api_key(key.trim())?;
        }
        match variable("BACKSTITCH_NAMESPACE") {
            Some(namespace) => client.namespace(&namespace),
            None => Ok(client),
        }
    }

    /// Sends this API key with every request.
    ///
    /// # Errors
    /// [`ClientError::Setup`] when it cannot stand in an HTTP header.
    pub fn api_key(mut self, key: &str) -> Result<Client, ClientError> {
        let mut value = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| {
            ClientError::Setup("the API key has characters that no key has".to_owned())
        })?;
        value.set_sensitive(true);
        self.headers.insert(reqwest::header::AUTHORIZATION, value);
        Ok(self)
    }

    /// Works in this namespace of an open server. With an API key, the key's namespace is used.
    ///
    /// # Errors
    /// [`ClientError::Setup`] when it cannot stand in an HTTP header.
    pub fn namespace(self, name: &str) -> Result<Client, ClientError> {
        self.header("backstitch-namespace", name)
    }

    /// Acts under this name on an open server. With an API key, the key's name is used.
    ///
    /// # Errors
    /// [`ClientError::Setup`] when it cannot stand in an HTTP header.
    pub fn actor(self, name: &str) -> Result<Client, ClientError> {
        self.header("backstitch-actor", name)
    }

    fn header(mut self, header: &'static str, value: &str) -> Result<Client, ClientError> {
        let value = HeaderValue::from_str(value).map_err(|_| {
            ClientError::Setup(format!("{header}: this cannot stand in a header: {value}"))
        })?;
        self.headers.insert(header, value);
        Ok(self)
    }

    /// Sets the number of times that a request is sent before its error is returned; 5 by default.
    #[must_use]
    pub fn tries(mut self, tries: u32) -> Client {
        self.tries = tries.max(1);
        self
    }

    /// Sends documents as `codec` makes them, and reads what comes back through it: inputs, outputs, signals, details
    /// of failures and what handlers say of their progress. A [`Worker`](crate::Worker) of this client does the same.
    /// [`Client::claim`], [`Client::complete`] and [`Client::heartbeat`] pass documents as they are.
    #[must_use]
    pub fn codec(mut self, codec: impl Codec) -> Client {
        self.codec = MaybeCodec::of(codec);
        self
    }

    /// Decodes a document of a view or a history with the codec of this client.
    ///
    /// # Errors
    /// A [`CodecError`], such as for a key that is not known.
    pub fn decode(&self, document: &Payload) -> Result<Payload, CodecError> {
        self.codec.decode(document)
    }

    /// Claims tasks. Sent once: a worker polls anyway.
    ///
    /// # Errors
    /// A [`ClientError`].
    pub async fn claim(&self, claim: &ClaimTasks) -> Result<ClaimedTasks, ClientError> {
        let request =
            self.post("v1/tasks/claim", claim)?.timeout(claim.wait.duration() + ANSWER_WITHIN);
        read(self.send_once(request).await?)
    }

    /// Reports the results of tasks, at most 1,000; each has its own answer, in order. Sent once; repeating it is
    /// safe.
    ///
    /// # Errors
    /// A [`ClientError`] when the request as a whole was refused or got lost.
    pub async fn complete(&self, results: Vec<TaskReport>) -> Result<Vec<TaskAnswer>, ClientError> {
        let expected = results.len();
        let request = self.post("v1/tasks/complete", &CompleteTasks { results })?;
        self.answers(request, |answers: TaskAnswers| answers.results, expected, 1).await
    }

    /// Sends heartbeats; each has its own answer, in order. Sent once.
    ///
    /// # Errors
    /// A [`ClientError`] when the request as a whole was refused or got lost.
    pub async fn heartbeat(&self, beats: Vec<Heartbeat>) -> Result<Vec<TaskAnswer>, ClientError> {
        let expected = beats.len();
        let request = self.post("v1/tasks/heartbeat", &HeartbeatTasks { beats })?;
        let request = request.timeout(HEARTBEAT_WITHIN);
        self.answers(request, |answers: TaskAnswers| answers.results, expected, 1).await
    }

    /// Gives back tasks that a session has not begun; each has its own answer, in order. Sent once; repeating it is
    /// safe.
    ///
    /// # Errors
    /// A [`ClientError`] when the request as a whole was refused or got lost.
    pub async fn release(
        &self,
        session: Uuid,
        tasks: Vec<HeldTask>,
    ) -> Result<Vec<TaskAnswer>, ClientError> {
        let expected = tasks.len();
        let request = self.post("v1/tasks/release", &ReleaseTasks { session, tasks })?;
        let request = request.timeout(HEARTBEAT_WITHIN);
        self.answers(request, |answers: TaskAnswers| answers.results, expected, 1).await
    }

    /// Ends a session of a worker: it gets no more tasks. Returns the number of tasks that were ready for it.
    ///
    /// # Errors
    /// A [`ClientError`].
    pub async fn sign_off(&self, session: Uuid) -> Result<u32, ClientError> {
        let request = self.post("v1/workers/sign-off", &SignOff { session })?;
        let answer: SignedOff = read(self.send_once(request.timeout(HEARTBEAT_WITHIN)).await?)?;
        Ok(answer.released)
    }

    /// Returns the same client with connections of its own: those of a client belong to the runtime that uses it first.
    pub(crate) fn with_own_connections(&self) -> Result<Client, ClientError> {
        let http = self
            .trust
            .connections()
            .map_err(|error| ClientError::Setup(crate::http::chain(&error)))?;
        Ok(Client { http, ..self.clone() })
    }

    /// Sends something that is answered piece by piece, whatever the status of the whole; at most so many times.
    async fn answers<T: DeserializeOwned, One>(
        &self,
        request: RequestBuilder,
        results: impl Fn(T) -> Vec<One>,
        expected: usize,
        tries: u32,
    ) -> Result<Vec<One>, ClientError> {
        let answered = |answer: Answer| match answer.json().map(&results) {
            Some(results) if results.len() == expected => Ok(results),
            Some(_) => Err(answer.unexpected()),
            None => Err(answer.refusal()),
        };
        self.repeatedly(request, tries, answered).await
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, ClientError> {
        let url =
            self.base.join(path).map_err(|error| ClientError::Setup(format!("{path}: {error}")))?;
        Ok(self.http.request(method, url).headers(self.headers.clone()).timeout(ANSWER_WITHIN))
    }

    fn get(&self, path: &str) -> Result<RequestBuilder, ClientError> {
        self.request(Method::GET, path)
    }

    fn post(&self, path: &str, body: &impl Serialize) -> Result<RequestBuilder, ClientError> {
        Ok(self.request(Method::POST, path)?.json(body))
    }

    /// Returns a request that acts, with a key under which it is done once.
    fn post_once(&self, path: &str, body: &impl Serialize) -> Result<RequestBuilder, ClientError> {
        Ok(self.post(path, body)?.header("idempotency-key", Uuid::new_v4().to_string()))
    }

    /// Sends an action, which is done once however often the network fails.
    async fn send_act<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        read(self.send(self.post_once(path, body)?).await?)
    }

    /// Acts where a reason is all that is needed.
    async fn send_reason<T: DeserializeOwned>(
        &self,
        path: &str,
        reason: &str,
    ) -> Result<T, ClientError> {
        self.send_act(path, &Reason { reason: reason.to_owned() }).await
    }

    /// Reads something.
    async fn read_from<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        read(self.send(self.get(path)?).await?)
    }

    /// Sends a request that is safe to repeat, again while that may help.
    async fn send(&self, request: RequestBuilder) -> Result<Answer, ClientError> {
        self.repeatedly(request, self.tries, Answer::successful).await
    }

    /// Sends a request once; every status but 2xx is an error.
    async fn send_once(&self, request: RequestBuilder) -> Result<Answer, ClientError> {
        self.send_raw(request).await?.successful()
    }

    async fn repeatedly<T>(
        &self,
        request: RequestBuilder,
        tries: u32,
        read: impl Fn(Answer) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let mut backoff = Backoff::new();
        for _ in 1..tries {
            let Some(again) = request.try_clone() else { break };
            match self.send_raw(again).await.and_then(&read) {
                Err(error) if error.is_transient() => {
                    tracing::debug!(%error, "asking the server again");
                    backoff.wait(error.retry_after()).await;
                }
                answer => return answer,
            }
        }
        read(self.send_raw(request).await?)
    }

    async fn send_raw(&self, request: RequestBuilder) -> Result<Answer, ClientError> {
        let response = request.send().await?;
        let status = response.status();
        let retry_after = crate::http::retry_after(&response);
        let body = response.bytes().await?.to_vec();
        Ok(Answer { status, retry_after, body })
    }
}

/// The response of the server.
struct Answer {
    status: StatusCode,
    retry_after: Option<Duration>,
    body: Vec<u8>,
}

impl Answer {
    fn successful(self) -> Result<Answer, ClientError> {
        if self.status.is_success() { Ok(self) } else { Err(self.refusal()) }
    }

    /// Returns the body as a `T`, if it is one.
    fn json<T: DeserializeOwned>(&self) -> Option<T> {
        // Checked as a whole, so that the reader need not check each string.
        serde_json::from_str(std::str::from_utf8(&self.body).ok()?).ok()
    }

    fn refusal(self) -> ClientError {
        match self.json::<Problem>() {
            Some(problem) => {
                ClientError::Problem { problem: Box::new(problem), retry_after: self.retry_after }
            }
            None => self.unexpected(),
        }
    }

    fn unexpected(self) -> ClientError {
        let mut body = String::from_utf8_lossy(&self.body).into_owned();
        body.truncate(body.floor_char_boundary(2_048));
        ClientError::Unexpected { status: self.status.as_u16(), body }
    }
}

/// Returns the members of a filter as query parameters.
fn parameters(filter: &impl Serialize) -> Vec<(String, String)> {
    let Ok(Value::Object(members)) = serde_json::to_value(filter) else { return Vec::new() };
    let text = |value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    members.into_iter().map(|(name, value)| (name, text(value))).collect()
}

/// Returns a query parameter that may be left out.
fn parameter(name: &str, value: Option<&str>) -> Vec<(String, String)> {
    value.map(|value| (name.to_owned(), value.to_owned())).into_iter().collect()
}

fn read<T: DeserializeOwned>(answer: Answer) -> Result<T, ClientError> {
    answer.json().ok_or_else(|| answer.unexpected())
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.base)
    }
}

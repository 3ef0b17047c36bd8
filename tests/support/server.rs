//! A server on a database of its own, and what it takes to ask it anything over HTTP.

use std::collections::BTreeSet;
use std::time::Duration;

use backstitch_api::{Access, Limits, ServerConfig, serve};
use backstitch_engine::{Engine, Options};
use backstitch_saga::protocol::Quotas;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::node::{NS, node};
use crate::postgres::database;

/// A running server.
pub struct Server {
    /// The node behind it.
    pub engine: Engine,
    access: Access,
    database: String,
    url: String,
    client: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<anyhow::Result<()>>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The media type.
    pub kind: String,
    /// All headers.
    pub headers: reqwest::header::HeaderMap,
    /// The body as text.
    pub text: String,
}

impl Answer {
    /// Returns the body as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns the problem's code; the answer must be a problem of this status.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn problem(&self, status: u16) -> String {
        assert_eq!(
            (self.status, self.kind.as_str()),
            (status, "application/problem+json"),
            "{self:?}"
        );
        let problem = self.json();
        assert_eq!(problem["status"], status, "{self:?}");
        problem["code"].as_str().expect("a code").to_owned()
    }
}

impl Answer {
    /// Returns whether the caller's credential admitted the request. What it says of tasks may still be refused, each
    /// for itself.
    #[must_use]
    pub fn was_let_in(&self) -> bool {
        self.status != 401 && (self.status != 403 || self.kind == "application/json")
    }
}

impl Server {
    /// Returns a server with this access on a fresh database.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(access: Access) -> Server {
        Server::start_within(access, Limits::default()).await
    }

    /// Returns the same with other limits.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_within(access: Access, limits: Limits) -> Server {
        Server::on(database().await, access, limits).await
    }

    /// Another server on the same database.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn beside(&self) -> Server {
        Server::on(self.database.clone(), self.access, Limits::default()).await
    }

    async fn on(database: String, access: Access, limits: Limits) -> Server {
        let config = ServerConfig { access, limits, ..ServerConfig::default() };
        Server::configured(database, config).await
    }

    /// Returns a server that is set up like this, on a fresh database.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn with(config: ServerConfig) -> Server {
        Server::configured(database().await, config).await
    }

    /// Returns the same, where no namespace may have more than `ceiling` says.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn with_quotas(config: ServerConfig, ceiling: Quotas) -> Server {
        let database = database().await;
        let limit = |options: &mut Options| {
            options.ceilings.all = ceiling.or(options.ceilings.all);
        };
        Server::of(node(&database, limit).await, database, config).await
    }

    /// Returns a server that checks its indexes when it is asked to only.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_unchecked(access: Access) -> Server {
        let database = database().await;
        let unchecked = |options: &mut Options| options.tuning.check_every = Duration::MAX;
        let engine = node(&database, unchecked).await;
        Server::of(engine, database, ServerConfig { access, ..ServerConfig::default() }).await
    }

    /// Returns a server that takes envelopes of what clients have encrypted, whatever a schema says.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_encrypted(access: Access) -> Server {
        let database = database().await;
        let engine = node(&database, |options| options.encrypted_payloads = true).await;
        Server::of(engine, database, ServerConfig { access, ..ServerConfig::default() }).await
    }

    async fn configured(database: String, config: ServerConfig) -> Server {
        Server::of(node(&database, |_| {}).await, database, config).await
    }

    async fn of(engine: Engine, database: String, config: ServerConfig) -> Server {
        let access = config.access;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().expect("an address"));
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(serve(engine.clone(), config, listener, async {
            // The sender may be dropped: that is a stop, too.
            let _ = stopped.await;
        }));
        let client = reqwest::Client::new();
        Server { engine, access, database, url, client, stop: Some(stop), served }
    }

    /// Returns the URL of its database.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Returns its address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns a request with no headers of ours.
    pub fn bare(&self, method: &str, path: &str) -> RequestBuilder {
        let method: Method = method.parse().expect("a method");
        self.client.request(method, format!("{}{path}", self.url))
    }

    /// Returns a request; on an open server it is in the namespace of the tests.
    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let request = self.bare(method, path);
        match self.access {
            Access::Open => request.header("backstitch-namespace", NS),
            Access::Keys => request,
        }
    }

    /// Asks without a body.
    pub async fn get(&self, path: &str) -> Answer {
        send(self.request("GET", path)).await
    }

    /// Asks with a JSON body.
    pub async fn post(&self, path: &str, body: impl ToString) -> Answer {
        send(with_json(self.request("POST", path), body)).await
    }

    /// Tells the server to stop.
    pub fn stop(&mut self) {
        drop(self.stop.take());
    }

    /// Stops the server and waits until it has.
    ///
    /// # Panics
    /// When it fails.
    pub async fn stopped(mut self) {
        self.stop();
        self.served.await.expect("no panic").expect("an orderly end");
    }
}

/// Returns the request with a JSON body.
#[expect(clippy::needless_pass_by_value, reason = "tests pass text, values and references")]
pub fn with_json(request: RequestBuilder, body: impl ToString) -> RequestBuilder {
    request.header("content-type", "application/json").body(body.to_string())
}

/// Sends a request and reads the whole answer.
///
/// # Panics
/// When there is none.
pub async fn send(request: RequestBuilder) -> Answer {
    let response = request.send().await.expect("an answer");
    let headers = response.headers().clone();
    let kind = headers.get("content-type").map(|kind| kind.to_str().expect("text").to_owned());
    let status = response.status().as_u16();
    let text = response.text().await.expect("a body");
    Answer { status, kind: kind.unwrap_or_default(), headers, text }
}

/// One operation of the OpenAPI document.
#[derive(Debug)]
pub struct Operation {
    /// `GET`, `POST`, …
    pub method: String,
    /// With its `{parameters}`.
    pub path: String,
    /// The example of its body.
    pub body: Option<Value>,
    /// The right it needs; none when it is for everybody.
    pub right: Option<String>,
    /// Bounds of a credential that apply to it: `queues`, `workflows`, `queues and workflows`; none for neither.
    pub bounds: Option<String>,
    /// The parameters in its path and its query.
    pub parameters: Vec<Parameter>,
    /// The statuses that it may answer.
    pub statuses: BTreeSet<String>,
}

/// Something that stands in the path or the query of an operation.
#[derive(Debug)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// `path` or `query`.
    pub place: String,
    /// A value that may stand there, as text; its name where the document gives no example.
    pub example: String,
    /// The words of which it must be one; none where it may be anything.
    pub words: Vec<String>,
}

impl Operation {
    /// Returns whether it is the door of a source, which verifies its senders itself and takes any bytes.
    #[must_use]
    pub fn is_door(&self) -> bool {
        self.path.starts_with("/v1/in/")
    }

    /// Returns the path with `id` as the run's id and something plausible for the rest.
    #[must_use]
    pub fn path(&self, id: &str) -> String {
        self.path_with(id, "", "")
    }

    /// Returns the same with `value`, encoded, for the parameter `name`.
    #[must_use]
    pub fn path_with(&self, id: &str, name: &str, value: &str) -> String {
        let mut path = self.path.clone();
        for parameter in self.parameters.iter().filter(|parameter| parameter.place == "path") {
            let plausible = match parameter.name.as_str() {
                known if known == name => value.to_owned(),
                "id" | "job" | "plan" => id.to_owned(),
                "incident" => format!("{id}-1"),
                "step" => "each".to_owned(),
                "name" => "place-order".to_owned(),
                "version" => "1".to_owned(),
                _ => parameter.example.clone(),
            };
            path = path.replace(&format!("{{{}}}", parameter.name), &plausible);
        }
        path
    }
}

/// Returns all operations of the OpenAPI document.
///
/// # Panics
/// When the document is not as it should be.
#[must_use]
pub fn operations() -> Vec<Operation> {
    let document = serde_json::to_value(backstitch_api::document()).expect("JSON");
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let description = operation["description"].as_str().unwrap_or_default();
            let right = description
                .split_once("Needs the right *")
                .and_then(|(_, rest)| rest.split_once('*'))
                .map(|(right, _)| right.to_owned());
            let bounds = description
                .split_once("Bounded by the *")
                .and_then(|(_, rest)| rest.split_once('*'))
                .map(|(bounds, _)| bounds.to_owned());
            assert_eq!(right.is_some(), operation.get("security").is_some(), "{method} {path}");
            let body = operation.pointer("/requestBody/content/application~1json/example").cloned();
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let responses = operation["responses"].as_object().expect("responses");
            all.push(Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                body,
                right,
                bounds,
                parameters: parameters.map(parameter).collect(),
                statuses: responses.keys().cloned().collect(),
            });
        }
    }
    assert!(all.len() > 20, "only {} operations", all.len());
    all
}

fn parameter(parameter: &Value) -> Parameter {
    let text = |name: &str| parameter[name].as_str().unwrap_or_default().to_owned();
    let example = match parameter.get("example") {
        Some(Value::String(example)) => example.clone(),
        Some(example) => example.to_string(),
        None => text("name"),
    };
    Parameter { name: text("name"), place: text("in"), example, words: words(&parameter["schema"]) }
}

/// Returns the words of an enumeration, also behind references and beside null.
fn words(schema: &Value) -> Vec<String> {
    let listed = |schema: &Value| -> Vec<String> {
        let words = schema["enum"].as_array().into_iter().flatten();
        words.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let document = || serde_json::to_value(backstitch_api::document()).expect("JSON");
    let parts = schema["oneOf"].as_array().into_iter().flatten().chain([schema]);
    for part in parts {
        let found = match part["$ref"].as_str() {
            Some(reference) => {
                let document = document();
                let place = document.pointer(reference.trim_start_matches('#'));
                place.map(listed).unwrap_or_default()
            }
            None => listed(part),
        };
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

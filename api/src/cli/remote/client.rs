//! Asks the server over HTTP, and tells an answer from a failure.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backstitch_saga::protocol::{Problem, RunView, WorkflowView};
use backstitch_saga::{Graph, Span};
use reqwest::header::HeaderMap;
use reqwest::{Method, Url};

use super::Failure;
use super::args::Asked;
use super::profile::{self, Profile};
use crate::access::{ACTOR, NAMESPACE};
use crate::cli::secret;

/// Longest wait for a response, beside the wait that the request itself asks of the server.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Number of times that a request is sent that certainly changed nothing.
const TRIES: u32 = 4;

/// A server, and who asks it.
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
}

/// The bytes of a file.
fn file(path: &str) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::Usage(format!("cannot read {path}: {error}")))
}

/// An answer that is no error.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl Client {
    pub(crate) fn new(profile: &Profile) -> Result<Client, Failure> {
        let usage = |what: String| Failure::Usage(what);
        let mut headers = HeaderMap::new();
        let mut add = |name: &'static str, value: Option<&str>| {
            let Some(value) = value else { return Ok(()) };
            let value = value
                .parse()
                .map_err(|_| usage(format!("{name}: it has characters that no header has")))?;
            headers.insert(name, value);
            Ok(())
        };
        let bearer = profile.api_key.as_ref().map(|key| format!("Bearer {key}"));
        add("authorization", bearer.as_deref())?;
        add(NAMESPACE, profile.namespace.as_deref())?;
        add(ACTOR, profile.actor.as_deref())?;
        let base = profile.url().to_owned();
        if !base.parse::<Url>().is_ok_and(|url| matches!(url.scheme(), "http" | "https")) {
            return Err(usage(format!(
                "'{base}' is no URL of a server; it begins with http:// or https://"
            )));
        }
        let mut builder = reqwest::Client::builder();
        if let Some(path) = &profile.ca_file {
            let issuers = reqwest::Certificate::from_pem_bundle(&file(path)?)
                .ok()
                .filter(|issuers| !issuers.is_empty())
                .ok_or_else(|| usage(format!("{path} holds no certificate in PEM")))?;
            builder = builder.tls_certs_merge(issuers);
        }
        if let Some(path) = &profile.client_cert {
            secret::warn_if_open(Path::new(path));
            let identity = reqwest::Identity::from_pem(&file(path)?)
                .map_err(|error| usage(format!("{path}: {}", chain(&error))))?;
            builder = builder.identity(identity);
        }
        let http = builder
            .default_headers(headers)
            .connect_timeout(Duration::from_secs(10))
            .user_agent(concat!("backstitch/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| usage(chain(&error)))?;
        Ok(Client { http, base })
    }

    /// Asks, and asks again when the server could not be reached or was busy: then nothing was done.
    pub(crate) async fn ask(&self, asked: &Asked) -> Result<Answer, Failure> {
        let mut pause = Duration::from_millis(250);
        for _ in 1..TRIES {
            match self.once(asked).await {
                Err(Once::Again(_)) => tokio::time::sleep(pause).await,
                Err(Once::Failed(failure)) => return Err(failure),
                Ok(answer) => return Ok(answer),
            }
            pause *= 2;
        }
        self.once(asked).await.map_err(|once| match once {
            Once::Again(failure) | Once::Failed(failure) => failure,
        })
    }

    async fn once(&self, asked: &Asked) -> Result<Answer, Once> {
        let method = Method::from_bytes(asked.method.as_bytes()).unwrap_or_default();
        let wait = asked.query.iter().find(|(name, _)| name == "wait");
        let wait = wait.and_then(|(_, span)| span.parse::<Span>().ok()).unwrap_or(Span::ZERO);
        let mut request = self
            .http
            .request(method, format!("{}{}", self.base, asked.path))
            .query(&asked.query)
            .timeout(wait.duration() + ANSWER_WITHIN);
        if let Some(key) = &asked.key {
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = &asked.body {
            request = request.header("content-type", "application/json").body(body.clone());
        }
        let lost = |error: reqwest::Error| {
            let again = asked.key.as_ref().map_or_else(String::new, |key| {
                format!("; whether it was done is not known, but asking again with --idempotency-key {key} is safe")
            });
            Failure::Unreachable(format!("{}: {}{again}", self.base, chain(&error)))
        };
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() => {
                let message = format!(
                    "{} cannot be reached: {}{}",
                    self.base,
                    chain(&error),
                    hint(&self.base)
                );
                return Err(Once::Again(Failure::Unreachable(message)));
            }
            Err(error) if error.is_builder() => {
                return Err(Once::Failed(Failure::Usage(chain(&error))));
            }
            Err(error) => return Err(Once::Failed(lost(error))),
        };
        let status = response.status().as_u16();
        let text = response.text().await.map_err(|error| Once::Failed(lost(error)))?;
        if status < 400 {
            return Ok(Answer { status, text });
        }
        let mut problem = serde_json::from_str(&text).unwrap_or_else(|_| Problem {
            status,
            code: "unknown".to_owned(),
            title: format!(
                "{} answered {status}, and nothing that Backstitch would say",
                self.base
            ),
            ..Problem::default()
        });
        // It may have been done: only with the same key it is not done twice.
        if let (500.., Some(key)) = (status, &asked.key) {
            let detail = problem.detail.take().unwrap_or_default();
            let again = format!("{detail} Ask again with --idempotency-key {key}.");
            problem.detail = Some(again.trim_start().to_owned());
        }
        let busy = problem.status == 429 || (problem.status == 503 && problem.code == "busy");
        let refused = Failure::Refused(Box::new(problem));
        Err(if busy { Once::Again(refused) } else { Once::Failed(refused) })
    }

    /// The definition that a run runs on; `None` when it cannot be had.
    pub(crate) async fn graph(&self, view: &RunView) -> Option<Arc<Graph>> {
        let path = format!("/v1/workflows/{}/versions/{}", view.workflow, view.version);
        let asked = Asked { method: "GET".to_owned(), path, ..Asked::default() };
        let answer = self.ask(&asked).await.ok()?;
        let workflow: WorkflowView = serde_json::from_str(&answer.text).ok()?;
        Graph::check(workflow.definition?).ok().map(Arc::new)
    }
}

/// Result of one request.
enum Once {
    /// Nothing was done: it may be sent again.
    Again(Failure),
    Failed(Failure),
}

/// Returns a hint for the case that no server answers.
fn hint(base: &str) -> &'static str {
    match base {
        profile::DEFAULT_URL => {
            "\n`backstitch dev` starts a server there; --url or BACKSTITCH_URL names another one"
        }
        _ => "\n--url, BACKSTITCH_URL or a profile say where the server is",
    }
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

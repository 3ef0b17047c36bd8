//! Errors of requests.

use std::fmt;
use std::time::Duration;

use backstitch_saga::protocol::{Problem, RunError, RunView};

use crate::codec::CodecError;
use crate::http::chain;

/// The reason for which a request did not succeed.
pub enum ClientError {
    /// The server refused it and says why.
    Problem {
        /// The problem document.
        problem: Box<Problem>,
        /// The wait that it requests.
        retry_after: Option<Duration>,
    },
    /// The network failed it. Whether it was done is known only for [`ClientError::nothing_was_done`].
    Network(reqwest::Error),
    /// The answer is not one of a Backstitch server's: a proxy's page, or another version.
    Unexpected {
        /// Its HTTP status.
        status: u16,
        /// Its body, cut at 2 KiB.
        body: String,
    },
    /// The client is not set up rightly.
    Setup(String),
    /// The document to send cannot be written as JSON.
    Unsendable(serde_json::Error),
    /// The codec could not encode the document to send.
    Codec(CodecError),
}

impl ClientError {
    /// Returns the problem's stable code, if the server refused.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            ClientError::Problem { problem, .. } => Some(&problem.code),
            ClientError::Codec(error) => Some(error.code()),
            _ => None,
        }
    }

    /// Returns the HTTP status, if there was an answer.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            ClientError::Problem { problem, .. } => Some(problem.status),
            ClientError::Unexpected { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Returns whether the request certainly had no effect and a retry may succeed.
    #[must_use]
    pub fn nothing_was_done(&self) -> bool {
        match self {
            ClientError::Network(error) => error.is_connect(),
            ClientError::Problem { problem, .. } => {
                problem.status == 429 || (problem.status == 503 && problem.code == "busy")
            }
            _ => false,
        }
    }

    /// Returns whether a retry of the same request may succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            ClientError::Network(error) => !error.is_builder(),
            ClientError::Problem { problem, .. } if problem.code == "idempotency_in_flight" => true,
            _ => self.status().is_some_and(|status| matches!(status, 408 | 425 | 429 | 500..)),
        }
    }

    /// Returns the wait that the server requests.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            ClientError::Problem { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Problem { problem, .. } => {
                let detail = problem.detail.as_deref().filter(|_| problem.errors.is_empty());
                write!(f, "{} ({})", detail.unwrap_or(&problem.title), problem.code)?;
                problem.errors.iter().try_for_each(|violation| write!(f, "\n  {violation}"))
            }
            ClientError::Network(error) => {
                write!(f, "the server could not be reached or did not answer: {}", chain(error))
            }
            ClientError::Unexpected { status, body } => {
                write!(f, "not the answer of a Backstitch server: {status} {body}")
            }
            ClientError::Setup(why) => f.write_str(why),
            ClientError::Unsendable(error) => write!(f, "this has no JSON to send: {error}"),
            ClientError::Codec(error) => error.fmt(f),
        }
    }
}

/// The sentence that [`fmt::Display`] writes: a `main` that returns the error prints it so.
impl fmt::Debug for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for ClientError {}

impl From<reqwest::Error> for ClientError {
    fn from(error: reqwest::Error) -> Self {
        ClientError::Network(error)
    }
}

impl From<CodecError> for ClientError {
    fn from(error: CodecError) -> Self {
        ClientError::Codec(error)
    }
}

impl From<serde_json::Error> for ClientError {
    fn from(error: serde_json::Error) -> Self {
        ClientError::Unsendable(error)
    }
}

/// The reason for which a run has no result.
pub enum NoResult {
    /// It still moves, or waits; its view says for what.
    NotEnded(Box<RunView>),
    /// It ended otherwise than in success; its view says how.
    NotSucceeded(Box<RunView>),
    /// It succeeded, but its output is not of the type expected.
    OtherOutput(Box<RunView>, serde_json::Error),
    /// Asking failed.
    Client(ClientError),
}

impl fmt::Display for NoResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoResult::NotEnded(view) => {
                write!(f, "the run {} has not ended: {}", view.id, view.summary)
            }
            NoResult::NotSucceeded(view) => {
                let outcome = view.outcome.map_or("not ended", |outcome| outcome.as_str());
                write!(f, "the run {} did not succeed ({outcome})", view.id)?;
                if let Some(RunError { step, failure }) = &view.error {
                    let at = step.as_ref().map(|step| format!(" at step '{step}'"));
                    write!(
                        f,
                        "{}: {} ({})",
                        at.unwrap_or_default(),
                        failure.message,
                        failure.code
                    )?;
                } else {
                    write!(f, ": {}", view.summary)?;
                }
                write!(f, "; `backstitch run show {}` shows more", view.id)
            }
            NoResult::OtherOutput(view, error) => {
                write!(f, "the output of the run {} is of another type: {error}", view.id)
            }
            NoResult::Client(error) => error.fmt(f),
        }
    }
}

/// The sentence that [`fmt::Display`] writes: a `main` that returns the error prints it so.
impl fmt::Debug for NoResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for NoResult {}

impl From<ClientError> for NoResult {
    fn from(error: ClientError) -> Self {
        NoResult::Client(error)
    }
}

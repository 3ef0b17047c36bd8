//! Errors of the engine.

use backstitch_saga::protocol::{ContractBreak, TaskAnswer, status_of};
use backstitch_saga::{ErrorKind, Refusal, Violation};

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rules refuse it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The request makes no sense; all that is wrong with it. The code is stable (`invalid_definition`,
    /// `invalid_input`, …).
    #[error("{code}: {}", violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid {
        /// Stable code.
        code: &'static str,
        /// The mistakes.
        violations: Vec<Violation>,
    },
    /// There is no such thing in this namespace. The code says what (`unknown_run`, `unknown_workflow`, …).
    #[error("{message} ({code})")]
    NotFound {
        /// Stable code.
        code: &'static str,
        /// For people.
        message: String,
    },
    /// The request contradicts the present state (`key_conflict`, `version_conflict`).
    #[error("{message} ({code})")]
    Conflict {
        /// Stable code.
        code: &'static str,
        /// For people.
        message: String,
    },
    /// A version of a contract breaks what its subject promises (`incompatible_schema`). Nothing was done.
    #[error("{message} (incompatible_schema)")]
    Incompatible {
        /// For people.
        message: String,
        /// The ways in which it breaks, with documents that show them.
        breaks: Vec<ContractBreak>,
    },
    /// A stream is not at the version that an event expects (`stream_version_conflict`). Nothing was done.
    #[error("{message} (stream_version_conflict)")]
    StreamVersion {
        /// For people.
        message: String,
        /// The version that it has.
        actual: u64,
    },
    /// The log is asked for events that are past retention (`position_past_retention`).
    #[error("{message} (position_past_retention)")]
    PastRetention {
        /// For people.
        message: String,
        /// The oldest position that can be read.
        oldest: u64,
    },
    /// The namespace has as much as it may have. Nothing was done.
    #[error("{message} ({code})")]
    Quota {
        /// Stable code (`quota_runs`, …).
        code: &'static str,
        /// For people.
        message: String,
        /// The delay before a retry, if one can succeed.
        retry_after: Option<std::time::Duration>,
    },
    /// Too much waits already, or the node is stopping. Nothing was done; try again in a second.
    #[error("the engine is busy; nothing was done, try again in a second (busy)")]
    Busy,
    /// PostgreSQL failed. Whether it was done is not known, but asking again is safe.
    #[error("the database failed: {0} (store_failed)")]
    Store(String),
    /// The journal of the run cannot be read or folded. The run can be neither read nor changed until it is repaired.
    #[error("the journal of the run is damaged: {0} (journal_damaged)")]
    Damaged(String),
    /// A defect: the command was dropped and its run left as it was.
    #[error("a defect stopped this command; the run is unchanged (bug): {0}")]
    Bug(String),
}

impl Error {
    pub(crate) fn unknown_run(id: impl std::fmt::Display) -> Error {
        Error::NotFound {
            code: "unknown_run",
            message: format!("there is no run {id} in this namespace"),
        }
    }

    /// Returns the error in a form for the log: codes and places of documents, but none of their
    /// values.
    pub(crate) fn for_log(&self) -> String {
        match self {
            Error::Invalid { code, violations } => {
                let places: Vec<String> = violations
                    .iter()
                    .take(10)
                    .map(|violation| match violation.pointer.as_str() {
                        "" => violation.code.clone(),
                        place => format!("{place} ({})", violation.code),
                    })
                    .collect();
                format!("{code}: {}", places.join(", "))
            }
            Error::NotFound { code, .. } | Error::Conflict { code, .. } => (*code).to_owned(),
            Error::Incompatible { .. } => "incompatible_schema".to_owned(),
            Error::StreamVersion { .. } => "stream_version_conflict".to_owned(),
            other => other.to_string(),
        }
    }

    pub(crate) fn invalid(code: &'static str, violation: Violation) -> Error {
        Error::Invalid { code, violations: vec![violation] }
    }

    /// Returns the kind of error that it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Refused(refusal) => refusal.code.kind(),
            Error::Invalid { code: "malformed_json" | "invalid_cursor", .. } => {
                ErrorKind::Malformed
            }
            Error::Invalid { .. } => ErrorKind::Invalid,
            Error::NotFound { .. } => ErrorKind::Unknown,
            Error::Conflict { .. }
            | Error::Incompatible { .. }
            | Error::StreamVersion { .. }
            | Error::Damaged(_) => ErrorKind::Conflict,
            Error::PastRetention { .. } => ErrorKind::Gone,
            Error::Quota { retry_after: Some(_), .. } => ErrorKind::TooMany,
            Error::Quota { .. } => ErrorKind::Conflict,
            Error::Busy | Error::Store(_) => ErrorKind::Unavailable,
            Error::Bug(_) => ErrorKind::Defect,
        }
    }

    /// Returns the stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Error::Refused(refusal) => refusal.code.as_str(),
            Error::Invalid { code, .. }
            | Error::NotFound { code, .. }
            | Error::Conflict { code, .. }
            | Error::Quota { code, .. } => code,
            Error::Incompatible { .. } => "incompatible_schema",
            Error::StreamVersion { .. } => "stream_version_conflict",
            Error::PastRetention { .. } => "position_past_retention",
            Error::Busy => "busy",
            Error::Store(_) => "store_failed",
            Error::Damaged(_) => "journal_damaged",
            Error::Bug(_) => "bug",
        }
    }

    /// Returns the result for one report or heartbeat among many.
    pub(crate) fn task_answer(&self) -> TaskAnswer {
        let message = match self {
            Error::Refused(refusal) => refusal.message.clone(),
            Error::NotFound { message, .. }
            | Error::Conflict { message, .. }
            | Error::Incompatible { message, .. }
            | Error::StreamVersion { message, .. }
            | Error::PastRetention { message, .. }
            | Error::Quota { message, .. } => message.clone(),
            other => other.to_string(),
        };
        TaskAnswer {
            status: status_of(self.kind()),
            code: Some(self.code().to_owned()),
            message: Some(message),
        }
    }
}

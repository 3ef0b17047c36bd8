//! Imports: files of sources, and the results for their rows.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Timestamp;

/// The answer to a file that has come whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ImportReceipt {
    /// The import of its rows; for a file that was sent before, the first.
    pub import_id: Uuid,
    /// Its rows.
    pub rows: u64,
    /// Its bytes.
    pub bytes: u64,
    /// `true` if the same file was sent before.
    pub duplicate: bool,
}

/// State of an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ImportState {
    /// The file is being uploaded.
    Receiving,
    /// Its rows are being processed.
    Running,
    /// Each row was accepted or refused.
    Done,
    /// A person cancelled it. Rows accepted before stay.
    Cancelled,
}

impl ImportState {
    /// All of them.
    pub const ALL: [ImportState; 4] =
        [ImportState::Receiving, ImportState::Running, ImportState::Done, ImportState::Cancelled];

    /// Returns its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ImportState::Receiving => "receiving",
            ImportState::Running => "running",
            ImportState::Done => "done",
            ImportState::Cancelled => "cancelled",
        }
    }
}

/// Form of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ImportForm {
    /// Lines of JSON.
    Lines,
    /// CSV with a header.
    Csv,
}

/// A file of a source, with its progress. `accepted`, `duplicates`, `refused` and `left` sum up to `rows`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ImportView {
    /// Its id.
    pub id: Uuid,
    /// The source that sent it.
    pub source: String,
    /// Its state.
    pub state: ImportState,
    /// Form of the file.
    pub form: ImportForm,
    /// Its content type.
    pub content_type: String,
    /// Bytes of the file, as far as it has come.
    pub bytes: u64,
    /// Rows of the file, as far as it has come. Those without anything do not count, nor does the header of a CSV file.
    pub rows: u64,
    /// Rows that became events.
    pub accepted: u64,
    /// Rows that had been accepted before.
    pub duplicates: u64,
    /// Rows that were refused.
    pub refused: u64,
    /// Rows that were not processed yet, or never will be.
    pub left: u64,
    /// The reason for which its rows cannot be processed at present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// SHA-256 of the file, in hexadecimal digits, once it has come whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Time at which its upload began.
    pub received_at: Timestamp,
    /// Time of its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// The address that it came from; that of the last proxy, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Id of the request, as in the log of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// A row that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RefusedRow {
    /// Its number in the file, from 1 on.
    pub row: u64,
    /// The document that is kept of it; nothing is kept of a row that is too long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intake_id: Option<Uuid>,
    /// Code of the refusal.
    pub code: String,
    /// Explanation of the mistake, for people.
    pub message: String,
}

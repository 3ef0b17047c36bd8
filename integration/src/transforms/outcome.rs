//! Results of transforms: the document, or everything that could not be mapped, and the trace of a test.

use serde::Serialize;

use crate::canonical::Change;
use crate::document::{Object, Pointer, Value};
use crate::events::Op;

/// Bounds of one execution.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most bytes of the result.
    pub output_bytes: usize,
    /// The most rules that are evaluated, those for elements counted each time; a phone number counts as 40.
    pub steps: usize,
    /// The deepest nesting of the result.
    pub depth: usize,
    /// The most changes, failures and lines of a trace that are listed.
    pub listed: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { output_bytes: 1 << 20, steps: 20_000, depth: 64, listed: 1_000 }
    }
}

/// A value that could not be mapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Place in the source; for what the contract of the target refuses, place in the result.
    pub pointer: Pointer,
    /// Stable code.
    pub code: String,
    /// Explanation of the mistake with what to do, for people.
    pub message: String,
    /// The value, shortened when it is long.
    pub value: Value,
    /// Place of the rule in the transform; empty when the result as a whole is refused.
    pub rule: String,
    /// The document is refused; otherwise it waits for a person.
    pub reject: bool,
}

/// Document that a transform made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mapped {
    /// The body, valid by the contract of the target.
    pub body: Value,
    /// Stream of the event, if the transform names one.
    pub stream: Option<String>,
    /// Operation of the event, if the transform names one.
    pub op: Option<Op>,
    /// Values that were changed.
    pub changes: Vec<Change>,
    /// The number of changes that are not listed.
    pub changes_left_out: usize,
    /// Values of the source that no rule read, by their pointers.
    pub unmapped: Object,
}

/// Result of a transform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The document was mapped.
    Mapped(Box<Mapped>),
    /// Values could not be mapped. All of them are listed, as far as the bounds go.
    Failed(Vec<Failure>),
}

/// One line of a trace: a rule, and what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TraceLine {
    /// Place of the rule in the transform.
    pub rule: String,
    /// Name of the operation.
    pub operation: &'static str,
    /// Place in the result.
    pub to: Pointer,
    /// `set`, `absent`, `null`, `default`, `kept_raw` or `failed`.
    pub result: &'static str,
    /// The value that was read, shortened.
    pub from: Value,
    /// The value that was written, shortened.
    pub value: Value,
    /// Code of the refusal, if there was one.
    pub code: Option<String>,
    /// Its message.
    pub message: Option<String>,
}

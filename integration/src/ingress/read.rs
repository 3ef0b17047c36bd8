//! Reads documents from their bytes, in whatever form they are sent.

use backstitch_saga::{ErrorKind, Payload, Violation};

use super::checks::Rejected;
use super::file;
use super::sender::Form;
use crate::document::{Value, read};
use crate::events::{CloudEvent, Data};

/// Codes of documents that cannot be read.
const READ_CODES: [&str; 10] = [
    "csv_not_valid",
    "payload_too_large",
    "not_a_batch",
    "batch_too_large",
    "invalid_json",
    "duplicate_key",
    "nesting_too_deep",
    "nul_character",
    "lone_surrogate",
    "number_out_of_range",
];

/// Reads a document of a form.
///
/// # Errors
/// The codes of [`read`], and those of rows of CSV.
pub(super) fn any(
    bytes: &[u8],
    form: Form,
    limit: usize,
) -> Result<(Payload, Value), Box<Rejected>> {
    let found = match form {
        Form::Csv => file::read(bytes, limit),
        Form::Json | Form::CloudEvent => read(bytes, limit),
    };
    found.map_err(unreadable)
}

/// Returns a refusal of a document that cannot be read.
pub(super) fn unreadable(wrong: Violation) -> Box<Rejected> {
    let code = READ_CODES.into_iter().find(|code| *code == wrong.code).unwrap_or("invalid_json");
    let message = wrong.message.clone();
    Box::new(Rejected {
        violations: vec![wrong],
        kept: true,
        ..Rejected::new(ErrorKind::Malformed, code, message)
    })
}

/// Reads the part of a stored document that follows the contract.
///
/// # Errors
/// As when it came, if more is refused today.
pub fn body_of(bytes: &[u8], form: Form, limit: usize) -> Result<Value, Box<Rejected>> {
    let (_, whole) = any(bytes, form, limit)?;
    match form {
        Form::CloudEvent => Ok(unwrapped(&whole)?.1.unwrap_or(whole)),
        Form::Json | Form::Csv => Ok(whole),
    }
}

/// Returns the event that a document is, and its data.
pub(super) fn unwrapped(
    value: &Value,
) -> Result<(Option<CloudEvent>, Option<Value>), Box<Rejected>> {
    let refused = |violations, message: &str| {
        Box::new(Rejected {
            violations,
            kept: true,
            ..Rejected::new(ErrorKind::Invalid, "cloudevent_not_valid", message)
        })
    };
    let event = CloudEvent::of_value(value)
        .map_err(|violations| refused(violations, "the document is no CloudEvent"))?;
    match &event.data {
        Some(Data::Json(data)) => {
            let data = data.clone();
            Ok((Some(event), Some(data)))
        }
        _ => Err(refused(
            Vec::new(),
            "the event has no JSON in 'data', which a contract could describe",
        )),
    }
}

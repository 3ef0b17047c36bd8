//! Small batches: many records in one request, each accepted or refused by itself.

use std::fmt;

use backstitch_saga::Violation;
use backstitch_saga::misread::explain;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The most bytes of a batch.
pub const LARGEST_BATCH: usize = 5 << 20;
/// The most records of a batch.
pub const MOST_RECORDS: usize = 1_000;

/// Splits a list into the texts of its elements, byte for byte. The content of an element is not read.
///
/// # Errors
/// `invalid_json`, `not_a_batch`, `batch_too_large`.
pub(super) fn list(body: &[u8]) -> Result<Vec<&[u8]>, Violation> {
    let invalid = |message: String| Violation::new("", "invalid_json", message);
    let text = std::str::from_utf8(body).map_err(|error| {
        invalid(format!("not UTF-8 from byte {} on; send UTF-8", error.valid_up_to()))
    })?;
    if !text.trim_start().starts_with('[') {
        return Err(Violation::new("", "not_a_batch", "a batch is a list of records"));
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read =
        deserializer.deserialize_seq(Elements).and_then(|found| deserializer.end().map(|()| found));
    match read {
        Ok(found) => Ok(found.into_iter().map(|raw| raw.get().as_bytes()).collect()),
        Err(error) if error.to_string().starts_with(TOO_MANY) => Err(too_large()),
        Err(error) => {
            let ((_, what), line, column) = (explain(&error), error.line(), error.column());
            Err(invalid(format!("not JSON: {what} (line {line}, column {column})")))
        }
    }
}

/// Splits a text into its lines; lines without anything are left out.
///
/// # Errors
/// `batch_too_large`.
pub(super) fn lines(body: &[u8]) -> Result<Vec<&[u8]>, Violation> {
    let lines =
        body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let found: Vec<&[u8]> = lines.take(MOST_RECORDS + 1).collect();
    if found.len() > MOST_RECORDS { Err(too_large()) } else { Ok(found) }
}

fn too_large() -> Violation {
    let message = format!("a batch has at most {MOST_RECORDS} records; send a file");
    Violation::new("", "batch_too_large", message)
}

const TOO_MANY: &str = "too many records";

/// Reads the elements of a list, and stops where there are too many.
struct Elements;

impl<'de> Visitor<'de> for Elements {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(element) = elements.next_element()? {
            if found.len() >= MOST_RECORDS {
                return Err(A::Error::custom(TOO_MANY));
            }
            found.push(element);
        }
        Ok(found)
    }
}

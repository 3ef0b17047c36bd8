//! JSON documents that pass through byte for byte: inputs, outputs, error details.
//!
//! A payload is never re-printed, so number spelling, key order and white space survive. What PostgreSQL or a
//! later reader could not hold is refused where it enters, by [`Payload::parse`] or [`Payload::check`], and only
//! there.

mod check;
mod locate;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::{Violation, json, misread, value};

/// Deepest nesting of objects and lists in a document from outside.
pub(crate) const MAX_DEPTH: usize = 64;

/// One JSON document, kept as its own text. Cheap to clone.
#[derive(Clone)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value, description = "Any JSON document; it passes through byte for byte."))]
pub struct Payload(Arc<RawValue>);

impl Payload {
    /// Returns a payload from a text from outside, of at most `limit` bytes. White space around the document is
    /// dropped.
    ///
    /// # Errors
    /// The first thing that is wrong: `payload_too_large`, `invalid_json`, `nesting_too_deep` (more than 64 deep),
    /// `nul_character`, `lone_surrogate`, `number_out_of_range` (of a double-precision float) or `duplicate_key`.
    pub fn parse(text: &str, limit: usize) -> Result<Payload, Violation> {
        check_size(text, limit)?;
        let raw = RawValue::from_string(text.to_owned()).map_err(|error| {
            let at = locate::offset(text, error.line(), error.column());
            let (_, message) = misread::explain(&error);
            Violation::new(
                locate::pointer_at(text, at),
                "invalid_json",
                format!("not JSON: {message} (line {}, column {})", error.line(), error.column()),
            )
        })?;
        check::check(raw.get())?;
        Ok(Payload::from(raw))
    }

    /// Checks a payload that came inside a document that was parsed already. Its text is well-formed by
    /// construction; the rest is checked as in [`Payload::parse`].
    ///
    /// # Errors
    /// The first thing that is wrong, with the codes of [`Payload::parse`].
    pub fn check(&self, limit: usize) -> Result<(), Violation> {
        check_size(self.text(), limit)?;
        check::check(self.text())
    }

    /// Returns the text that all spellings of this document have in common: without white space, the members of objects
    /// sorted by name, strings without needless escapes, numbers by value (`1e2` and `100.0` are `100`). For digests.
    #[must_use]
    pub fn canonical(&self) -> String {
        value::canonical(self.text())
    }

    /// Returns the text without white space, with the members of objects sorted by name; strings and numbers as they
    /// came. For digests of texts that are passed on byte for byte, as constants of definitions are.
    #[must_use]
    pub fn without_layout(&self) -> String {
        value::without_layout(self.text())
    }

    /// Returns whether `other` is the same document, however it is spelt.
    #[must_use]
    pub fn is_same_as(&self, other: &Payload) -> bool {
        value::equal(self.text(), other.text())
    }

    /// Returns the elements of a list, each byte for byte; `None` when the document is not a list.
    #[must_use]
    pub fn elements(&self) -> Option<Vec<Payload>> {
        match json::Kind::of(self.text()) {
            json::Kind::Array => self.to().ok(),
            _ => None,
        }
    }

    /// Returns the text, exactly as it came.
    #[must_use]
    pub fn text(&self) -> &str {
        self.0.get()
    }

    /// Returns the text as serde's raw value.
    #[must_use]
    pub fn raw(&self) -> &RawValue {
        &self.0
    }

    /// Returns JSON's `null`.
    #[must_use]
    pub fn null() -> Payload {
        Payload(Arc::from(RawValue::NULL.to_owned()))
    }

    /// Returns whether the document is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.text() == "null"
    }

    /// Returns the JSON of `value`.
    ///
    /// # Errors
    /// When `value` has no JSON form (a map with keys that are not strings, a failing `Serialize`).
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Payload, serde_json::Error> {
        serde_json::value::to_raw_value(value).map(Payload::from)
    }

    /// Reads an optional member, for `deserialize_with`: a present member is a document, even if it is
    /// `null`.
    pub(crate) fn present<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Payload>, D::Error> {
        Payload::deserialize(deserializer).map(Some)
    }

    /// Reads the document as a `T`.
    ///
    /// # Errors
    /// When the document has not the shape of `T`.
    pub fn to<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.text())
    }

    /// Returns a payload from text that is known to be JSON because we printed it or checked it before.
    ///
    /// # Errors
    /// When it is not JSON after all. Use [`Payload::parse`] for what comes from outside.
    pub fn trusted(text: String) -> Result<Payload, serde_json::Error> {
        RawValue::from_string(text).map(Payload::from)
    }
}

fn check_size(text: &str, limit: usize) -> Result<(), Violation> {
    if text.len() <= limit {
        return Ok(());
    }
    let message = format!("the document has {} bytes; {limit} are allowed", text.len());
    Err(Violation::new("", "payload_too_large", message))
}

impl From<Box<RawValue>> for Payload {
    fn from(raw: Box<RawValue>) -> Self {
        Payload(Arc::from(raw))
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Payload {}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(Payload::from)
    }
}

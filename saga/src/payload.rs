//! JSON documents that pass through byte for byte: inputs, outputs, error details.
//!
//! A payload is never re-printed, so number spelling, key order and white space survive. What PostgreSQL or a
//! later reader could not hold is refused where it enters, by [`Payload::parse`], and only there.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// One JSON document, kept as its own text. Cheap to clone.
#[derive(Clone)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = Object))]
pub struct Payload(Arc<RawValue>);

impl Payload {
    /// The text, exactly as it came.
    #[must_use]
    pub fn text(&self) -> &str {
        self.0.get()
    }

    /// The text as serde's raw value.
    #[must_use]
    pub fn raw(&self) -> &RawValue {
        &self.0
    }

    /// JSON's `null`.
    #[must_use]
    pub fn null() -> Payload {
        Payload(Arc::from(RawValue::NULL.to_owned()))
    }

    /// Whether the document is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.text() == "null"
    }

    /// The JSON of `value`.
    ///
    /// # Errors
    /// When `value` has no JSON form (a map with keys that are not strings, a failing `Serialize`).
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Payload, serde_json::Error> {
        serde_json::value::to_raw_value(value).map(Payload::from)
    }

    /// Reads the document as a `T`.
    ///
    /// # Errors
    /// When the document has not the shape of `T`.
    pub fn to<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.text())
    }

    /// A payload from text that is known to be JSON because we printed it or checked it before.
    ///
    /// # Errors
    /// When it is not JSON after all. Use [`Payload::parse`] for what comes from outside.
    pub fn trusted(text: String) -> Result<Payload, serde_json::Error> {
        RawValue::from_string(text).map(Payload::from)
    }
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

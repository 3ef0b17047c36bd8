//! Envelopes: a value that a client has encrypted is an object with the one member `$enc`, however that is spelt. It is
//! passed on, and its content is never read. The content belongs to the client: servers know no form of it.

use serde_json::Value;

use crate::Payload;
use crate::json::{self, Kind};

/// The name of the one member of an envelope.
pub const ENVELOPE: &str = "$enc";

/// The code of a refusal or failure that would have had to look into an envelope.
pub const VALUE_ENCRYPTED: &str = "value_encrypted";

/// Returns whether a value is an envelope.
#[must_use]
pub fn is_envelope(value: &Value) -> bool {
    value.as_object().is_some_and(|members| members.len() == 1 && members.contains_key(ENVELOPE))
}

impl Payload {
    /// Returns whether the document as a whole is an envelope.
    #[must_use]
    pub fn is_envelope(&self) -> bool {
        is_written(self.text())
    }
}

/// Returns whether the text of a value is that of an envelope.
pub(crate) fn is_written(text: &str) -> bool {
    if Kind::of(text) != Kind::Object {
        return false;
    }
    let mut members = json::members(text).map(|(key, _)| json::unescape(key));
    members.next().is_some_and(|key| key == ENVELOPE) && members.all(|key| key == ENVELOPE)
}

/// Returns the message that the value at a place cannot be read.
pub(crate) fn refusal(what: &str) -> String {
    format!(
        "{what} is encrypted, so that it can be handed on but not looked into; let the encryption leave it readable"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_is_an_object_with_the_one_member_however_it_is_spelt() {
        for (text, envelope) in [
            (r#"{"$enc":{"v":1}}"#, true),
            (r#"{ "\u0024enc" : 1 }"#, true),
            (r#"{"$\u0065nc":null}"#, true),
            (r#"{"$enc":1,"b":2}"#, false),
            (r#"{"b":2,"$enc":1}"#, false),
            (r#"{"$encoded":1}"#, false),
            (r#"{"$enc2":1}"#, false),
            (r#"["$enc"]"#, false),
            (r#""$enc""#, false),
            ("{}", false),
        ] {
            assert_eq!(is_envelope(&serde_json::from_str(text).unwrap()), envelope, "{text}");
            assert_eq!(is_written(text), envelope, "{text}");
        }
    }
}

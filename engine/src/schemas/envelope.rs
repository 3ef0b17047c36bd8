//! Values that a client has encrypted: they are in objects with the one member `$enc`, and no schema applies to them.

use backstitch_saga::is_envelope;
use jsonschema::error::ValidationErrorKind as Kind;
use jsonschema::{ValidationError, Validator};
use serde_json::Value;

/// Message for an encrypted value on a server that is not configured for them.
pub(super) const REFUSED: &str = "the value is encrypted, so that its schema says nothing of it; start the server with --encrypted-payloads to take it";

/// Returns whether a document violates its schema in nothing but what is encrypted.
pub(super) fn is_all(validator: &Validator, document: &Value) -> bool {
    contains_one(document) && validator.iter_errors(document).all(|error| is_about(&error))
}

/// Returns whether a violation concerns an encrypted value, or alternatives that cannot be distinguished without one.
pub(super) fn is_about(error: &ValidationError<'_>) -> bool {
    let at = error.instance();
    let looks_inside = matches!(
        error.kind(),
        Kind::AnyOf { .. }
            | Kind::OneOfNotValid { .. }
            | Kind::OneOfMultipleValid { .. }
            | Kind::Not { .. }
            | Kind::Contains
            | Kind::Constant { .. }
            | Kind::Enum { .. }
    );
    is_envelope(at) || (looks_inside && contains_one(at))
}

fn contains_one(value: &Value) -> bool {
    match value {
        Value::Object(members) => is_envelope(value) || members.values().any(contains_one),
        Value::Array(list) => list.iter().any(contains_one),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_encrypted_is_held_to_nothing_and_all_else_to_its_schema() {
        let schema = json!({
            "type": "object", "required": ["who", "total"], "additionalProperties": false,
            "properties": {
                "who": {"type": "string", "maxLength": 20}, "total": {"type": "integer"},
                "pay": {"oneOf": [{"type": "null"}, {"type": "object", "required": ["card"], "properties": {"card": {"type": "string"}}}]},
                "lines": {"type": "array", "items": {"type": "object", "properties": {"sku": {"type": "string"}}}}
            }
        });
        let validator = jsonschema::validator_for(&schema).unwrap();
        let enc = json!({"$enc": {"v": 1, "data": "x"}});
        let fine = json!({"who": enc, "total": 5, "pay": {"card": enc}, "lines": [{"sku": enc}]});
        assert!(!validator.is_valid(&fine) && is_all(&validator, &fine));
        for wrong in [
            json!({"who": enc, "total": "5"}),
            json!({"who": enc}),
            json!({"who": enc, "total": 5, "more": 1}),
            json!({"who": enc, "total": 5, "lines": [{"sku": 7}]}),
            json!({"who": {"$enc": 1, "b": 2}, "total": 5}),
            json!({"who": 7, "total": 5}),
        ] {
            assert!(!is_all(&validator, &wrong), "{wrong}");
        }
    }
}

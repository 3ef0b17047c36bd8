//! Examples of transforms.

use serde_json::{Value, json};

const DIGEST: &str = "7b5f7a6b4c8d9e0f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f7081";

fn transform() -> Value {
    json!({ "rules": [{ "to": "/id", "copy": "/id" }, { "to": "/name", "copy": "/full_name" }] })
}

pub(crate) fn put() -> Value {
    json!({ "transform": transform(), "activate": true, "reason": "contacts of the CRM are customers" })
}

pub(crate) fn activate() -> Value {
    json!({ "revision": 1, "reason": "the next one loses names" })
}

pub(crate) fn test() -> Value {
    json!({ "document": { "id": "c-7", "full_name": "Ann", "colour": "red" } })
}

pub(crate) fn tested() -> Value {
    json!({
        "mapped": true,
        "result": {
            "body": { "id": "c-7", "name": "Ann" }, "stream": null, "op": null, "changes": [], "changes_left_out": 0,
            "unmapped": { "/colour": "red" }
        },
        "trace": [{
            "rule": "/rules/0", "operation": "copy", "to": "/id", "result": "set", "from": "c-7", "value": "c-7",
            "code": null, "message": null
        }]
    })
}

pub(crate) fn list() -> Value {
    json!({
        "items": [{
            "from": "crm.contact", "from_version": 1, "to": "customer", "to_version": 1, "active": 1, "newest": 1,
            "changed_at": super::AT, "changed_by": "ann"
        }]
    })
}

pub(crate) fn view() -> Value {
    json!({
        "from": "crm.contact", "from_version": 1, "to": "customer", "to_version": 1, "active": 1, "newest": 1,
        "changed_at": super::AT, "changed_by": "ann", "transform": transform(),
        "revisions": [{ "revision": 1, "digest": DIGEST, "registered_at": super::AT, "registered_by": "ann" }]
    })
}

pub(crate) fn what_if() -> Value {
    json!({ "revision": 1, "last": 1_000 })
}

pub(crate) fn compared() -> Value {
    json!({ "documents": 10_000, "same": 9_963, "differ": 37, "repaired": 0, "broken": 0, "failing": 0, "samples": [] })
}

#[cfg(test)]
mod tests {
    use backstitch_saga::protocol::{
        ActivateTransform, Page, PutTransform, TestTransform, TransformLine, TransformTest,
        TransformView,
    };

    use super::super::tests::{is_accepted, reads_as};

    #[test]
    fn examples_of_transforms_read_as_their_types() {
        reads_as::<PutTransform>(&super::put());
        reads_as::<TestTransform>(&super::test());
        reads_as::<TransformTest>(&super::tested());
        reads_as::<Page<TransformLine>>(&super::list());
        reads_as::<TransformView>(&super::view());
        is_accepted::<PutTransform>(&super::put());
        is_accepted::<ActivateTransform>(&super::activate());
        is_accepted::<TestTransform>(&super::test());
    }
}

//! The examples of links to other systems.

use serde_json::{Value, json};

use super::AT;

pub(crate) fn put() -> Value {
    json!({ "stream": "customer:42", "reason": "the numbers were compared" })
}

pub(crate) fn link() -> Value {
    json!({
        "system": "erp", "external_id": "4711", "stream": "customer:42", "linked_at": AT, "linked_by": "ann"
    })
}

pub(crate) fn links() -> Value {
    json!({ "items": [link()] })
}

pub(crate) fn resolve() -> Value {
    json!({ "keep": "claimant", "reason": "the other one was a mistake" })
}

pub(crate) fn conflict() -> Value {
    json!({
        "id": "019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c11", "state": "resolved", "system": "erp", "external_id": "4711",
        "stream": "customer:43", "holder": "customer:42", "claimed_at": AT, "claimed_by": "import", "kept": "claimant",
        "resolved_at": AT, "resolved_by": "ann"
    })
}

pub(crate) fn conflicts() -> Value {
    json!({ "items": [conflict()] })
}

#[cfg(test)]
mod tests {
    use backstitch_saga::protocol::*;

    use super::super::tests::{is_accepted, reads_as};

    #[test]
    fn they_read_as_their_types() {
        is_accepted::<PutLink>(&super::put());
        is_accepted::<ResolveLinkConflict>(&super::resolve());
        reads_as::<LinkView>(&super::link());
        reads_as::<Page<LinkView>>(&super::links());
        reads_as::<Page<LinkConflictView>>(&super::conflicts());
    }
}

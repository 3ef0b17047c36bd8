//! Examples of contracts.

use serde_json::{Value, json};

const DIGEST: &str = "2f0e1c7d5b7f6a4b8c9d0e1f2a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d";

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": { "id": { "type": "string" }, "name": { "type": "string" } },
        "required": ["id"]
    })
}

pub(crate) fn register() -> Value {
    json!({ "schema": schema(), "reason": "customers as we know them" })
}

pub(crate) fn check() -> Value {
    let mut schema = schema();
    schema["required"] = json!(["id", "name"]);
    json!({ "schema": schema, "reason": "a name is needed" })
}

pub(crate) fn verdict() -> Value {
    json!({
        "accepted": false,
        "code": "incompatible_schema",
        "message": "the schema is not compatible with the mode 'full_transitive' of 'customer'; change it as `breaks` says, or send transforms `up` and `down` with it",
        "breaks": [{
            "rule": "required", "direction": "backward", "version": 1, "pointer": "", "at": "",
            "message": "the new version refuses, by required, documents that version 1 allows at the document: the document shows it; let the member be optional",
            "document": { "id": "" }
        }]
    })
}

pub(crate) fn version() -> Value {
    json!({
        "subject": "customer", "version": 1, "state": "active", "digest": DIGEST,
        "registered_at": super::AT, "registered_by": "ann", "schema": schema()
    })
}

pub(crate) fn list() -> Value {
    json!({
        "items": [{
            "subject": "customer", "kind": "canonical", "mode": "full_transitive", "newest": 1,
            "changed_at": super::AT, "changed_by": "ann"
        }]
    })
}

pub(crate) fn show() -> Value {
    json!({
        "subject": "customer", "kind": "canonical", "mode": "full_transitive",
        "versions": [{
            "subject": "customer", "version": 1, "state": "active", "digest": DIGEST,
            "registered_at": super::AT, "registered_by": "ann"
        }],
        "readers": [reader()],
        "changed_at": super::AT, "changed_by": "ann"
    })
}

pub(crate) fn set_mode() -> Value {
    json!({ "mode": "backward", "reason": "readers are deployed before writers" })
}

pub(crate) fn set_state() -> Value {
    json!({ "state": "deprecated", "reason": "use version 2" })
}

pub(crate) fn pin() -> Value {
    json!({ "version": 1, "reason": "invoices" })
}

pub(crate) fn reader() -> Value {
    json!({ "name": "billing", "version": 1, "pinned_at": super::AT, "pinned_by": "ann" })
}

#[cfg(test)]
mod tests {
    use backstitch_saga::protocol::{
        ContractCheck, ContractLine, ContractReaderView, ContractVersionView, ContractView, Page,
        PinReader, RegisterContract, SetContractMode, SetContractState,
    };

    use super::super::tests::{is_accepted, reads_as};

    #[test]
    fn examples_of_contracts_read_as_their_types() {
        reads_as::<RegisterContract>(&super::register());
        reads_as::<RegisterContract>(&super::check());
        reads_as::<ContractCheck>(&super::verdict());
        reads_as::<ContractVersionView>(&super::version());
        reads_as::<Page<ContractLine>>(&super::list());
        reads_as::<ContractView>(&super::show());
        reads_as::<ContractReaderView>(&super::reader());
        is_accepted::<RegisterContract>(&super::register());
        is_accepted::<SetContractMode>(&super::set_mode());
        is_accepted::<SetContractState>(&super::set_state());
        is_accepted::<PinReader>(&super::pin());
    }
}

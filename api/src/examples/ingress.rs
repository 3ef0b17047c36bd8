//! Examples of sources and what they send.

use serde_json::{Value, json};

const INTAKE: &str = "019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c11";
const EVENT: &str = "019a9b1e-3c00-7c41-9d3e-5b7f3f0a0000";

fn spec() -> Value {
    json!({
        "enabled": true, "verify": { "scheme": "github" }, "tolerance_s": 300, "trust_ceiling": "signed",
        "accepts": [{ "contract": "crm.contact" }], "version_from": { "fixed": 1 },
        "dedupe": [{ "pointer": "/id" }], "hints": [{ "kind": "email", "at": "/mail" }], "max_bytes": 65_536
    })
}

pub(crate) fn put() -> Value {
    json!({ "spec": spec(), "secret": "a secret of both", "reason": "contacts of the CRM" })
}

pub(crate) fn rotate() -> Value {
    json!({ "secret": "another secret", "overlap": "1d", "reason": "once a year" })
}

pub(crate) fn source() -> Value {
    json!({
        "name": "crm", "address": "/v1/in/default/crm", "version": 1, "spec": spec(),
        "secrets": [{ "added_at": super::AT, "added_by": "ann" }], "changed_at": super::AT, "changed_by": "ann"
    })
}

pub(crate) fn sources() -> Value {
    json!({ "items": [source()] })
}

pub(crate) fn document() -> Value {
    json!({ "id": "c-7", "name": "Ann", "mail": "ann@shop.internal" })
}

pub(crate) fn batch() -> Value {
    json!([document()])
}

pub(crate) fn file() -> Value {
    json!("{\"id\":\"c-7\",\"name\":\"Ann\"}\n{\"id\":\"c-8\",\"name\":\"Bob\"}\n")
}

pub(crate) fn import_receipt() -> Value {
    json!({ "import_id": INTAKE, "rows": 10_000, "bytes": 1_204_311, "duplicate": false })
}

pub(crate) fn import() -> Value {
    json!({
        "id": INTAKE, "source": "crm", "state": "running", "form": "csv", "content_type": "text/csv", "bytes": 1_204_311,
        "rows": 10_000, "accepted": 6_480, "duplicates": 15, "refused": 5, "left": 3_500,
        "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "received_at": super::AT, "peer": "192.0.2.7"
    })
}

pub(crate) fn imports() -> Value {
    json!({ "items": [import()] })
}

pub(crate) fn refused_rows() -> Value {
    let message = "the document does not follow crm.contact@1";
    json!({ "items": [{ "row": 4_711, "intake_id": INTAKE, "code": "schema_violation", "message": message }] })
}

pub(crate) fn new_reprocess() -> Value {
    json!({ "source": "crm", "mapping": "failed", "dry_run": true, "reason": "the transform knows the country now" })
}

pub(crate) fn reprocess() -> Value {
    json!({
        "id": INTAKE, "state": "done", "asked": new_reprocess(), "changed": 37, "same": 0, "failed": 2, "refused": 0,
        "overtaken": 1, "actor": "ann", "created_at": super::AT, "ended_at": super::AT
    })
}

pub(crate) fn reprocesses() -> Value {
    json!({ "items": [reprocess()] })
}

pub(crate) fn problems() -> Value {
    json!({ "items": [{
        "contract": "crm.contact@1", "to": "customer@1", "code": "country_not_valid", "pointer": "/land", "documents": 37,
        "first_at": super::AT, "last_at": super::AT, "intake_id": INTAKE, "message": "'Elbonia' is no country", "value": "Elbonia"
    }], "more": false })
}

pub(crate) fn erase() -> Value {
    json!({ "hint": { "kind": "email", "value": "ann@shop.internal" }, "kill": true, "reason": "request 2031" })
}

pub(crate) fn erasure() -> Value {
    json!({
        "id": INTAKE, "state": "done", "documents": 12, "events": 24, "runs": 3, "actor": "ann", "reason": "request 2031",
        "created_at": super::AT, "ended_at": super::AT
    })
}

pub(crate) fn erasures() -> Value {
    json!({ "items": [erasure()] })
}

pub(crate) fn hints() -> Value {
    json!({ "items": [{
        "kind": "email", "value_raw": "Ann@Shop.internal", "value_norm": "Ann@shop.internal", "junk": false, "at": "/mail",
        "intake_id": INTAKE, "source": "crm", "verdict": "accepted", "received_at": super::AT, "event_id": EVENT,
        "mapped_event_id": "019a9b1e-3c00-7c41-9d3e-5b7f3f0a0001", "stream": "customer:c-7"
    }] })
}

pub(crate) fn receipt() -> Value {
    json!({ "intake_id": INTAKE, "event_id": EVENT, "duplicate": false })
}

pub(crate) fn answers() -> Value {
    json!({ "records": [{ "status": 202, "intake_id": INTAKE, "event_id": EVENT }] })
}

pub(crate) fn intake() -> Value {
    json!({
        "id": INTAKE, "source": "crm", "source_version": 1, "verdict": "accepted", "received_at": super::AT,
        "door": "request", "trust": "signed", "contract": "crm.contact@1", "event_id": EVENT,
        "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "bytes": 52,
        "content_type": "application/json", "peer": "192.0.2.7", "headers": { "content-type": "application/json" }
    })
}

pub(crate) fn intakes() -> Value {
    json!({ "items": [intake()] })
}

//! The examples of compensation plans.

use serde_json::{Value, json};

use super::{AT, RUN};

const PLAN: &str = "019a9b20-1c00-7a11-8f3e-2b7f3f0a9c44";

pub(crate) fn make() -> Value {
    json!({ "scope": { "back_to": "payment" }, "reason": "The customer withdrew" })
}

pub(crate) fn edit() -> Value {
    json!({ "revision": 1, "scope": "all", "reason": "The customer withdrew" })
}

pub(crate) fn approve() -> Value {
    json!({ "revision": 1, "reason": "Seen with the customer" })
}

pub(crate) fn apply() -> Value {
    json!({ "revision": 1 })
}

fn line() -> Value {
    json!({
        "id": PLAN, "run": RUN, "workflow": "place-order", "scope": { "back_to": "payment" },
        "reason": "The customer withdrew", "made_by": "ann", "made_at": AT, "seq": 9, "revision": 1, "undos": 1,
        "state": "open", "needs_approval": true
    })
}

pub(crate) fn plans() -> Value {
    json!({ "items": [line()], "next": "l61c00d9e1" })
}

pub(crate) fn plan() -> Value {
    let mut view = line();
    view["holds"] = true.into();
    view["undo"] = super::plan();
    view
}

pub(crate) fn applied() -> Value {
    let mut view = line();
    view["holds"] = false.into();
    view["state"] = "applied".into();
    view["approved_by"] = "bob".into();
    view["approved_at"] = AT.into();
    view["approval_reason"] = "Seen with the customer".into();
    view["ended_by"] = "ann".into();
    view["ended_at"] = AT.into();
    view
}

pub(crate) fn withdrawn() -> Value {
    let mut view = line();
    view["holds"] = false.into();
    view["state"] = "withdrawn".into();
    view["ended_by"] = "ann".into();
    view["ended_at"] = AT.into();
    view["end_reason"] = "The customer keeps it".into();
    view
}

pub(crate) fn set_approval() -> Value {
    json!({ "approval": { "above": 20 }, "reason": "Refunds are looked at by two" })
}

pub(crate) fn approval() -> Value {
    json!({
        "workflow": "place-order", "approval": { "above": 20 }, "changed_at": AT, "changed_by": "ops",
        "reason": "Refunds are looked at by two"
    })
}

//! The examples of what people and other systems ask of runs under way.

use serde_json::{Value, json};

use super::RUN;

pub(crate) fn pause() -> Value {
    json!({ "reason": "The warehouse is being moved", "name": "warehouse" })
}

pub(crate) fn set_retention() -> Value {
    json!({ "keep": "30d", "reason": "Orders hold addresses" })
}

pub(crate) fn retention() -> Value {
    json!({
        "workflow": "place-order", "keep": "30d", "own": true, "changed_at": "2026-01-31T10:15:00.000Z",
        "changed_by": "ops", "reason": "Orders hold addresses"
    })
}

pub(crate) fn erase() -> Value {
    json!({ "reason": "The customer asked for it, ticket 4711" })
}

pub(crate) fn erased() -> Value {
    json!({ "id": RUN, "erased_at": "2026-01-31T10:15:00.000Z", "runs": 3, "pending": 0 })
}

pub(crate) fn label() -> Value {
    json!({ "set": { "team": "payments" }, "remove": ["triage"], "reason": "Payments looks after it" })
}

pub(crate) fn retry_step() -> Value {
    json!({ "reason": "The account number had two digits swapped", "input": { "account": "4711" } })
}

pub(crate) fn skip_step() -> Value {
    json!({ "reason": "The customer has the receipt", "output": { "sent": false } })
}

pub(crate) fn resolve_step() -> Value {
    json!({
        "reason": "Seen in the bank's console", "output": { "authorization": "a-17" }, "external_id": "ch_3P9"
    })
}

pub(crate) fn rerun() -> Value {
    json!({
        "from": "payment", "reason": "Charged the wrong account", "input": { "account": "4711" },
        "force": false, "dry_run": false
    })
}

pub(crate) fn rerun_plan() -> Value {
    json!({ "undo": super::plan(), "again": ["payment", "shipment", "mail"] })
}

pub(crate) fn signal() -> Value {
    json!({ "data": { "approved": true, "limit": 5000 } })
}

pub(crate) fn signal_by_key() -> Value {
    json!({
        "workflow": "place-order", "key": "order-10248", "signal": "approval", "data": { "approved": true }
    })
}

pub(crate) fn signal_sent() -> Value {
    json!({ "run": RUN })
}

#[cfg(test)]
mod tests {
    use backstitch_saga::protocol::*;

    use crate::body::parse;

    #[test]
    fn requests_are_accepted() {
        parse::<PauseRun>(super::pause().to_string().as_bytes()).unwrap();
        parse::<RetryStep>(super::retry_step().to_string().as_bytes()).unwrap();
        parse::<SkipStep>(super::skip_step().to_string().as_bytes()).unwrap();
        parse::<ResolveStep>(super::resolve_step().to_string().as_bytes()).unwrap();
        parse::<RerunRun>(super::rerun().to_string().as_bytes()).unwrap();
        parse::<SendSignal>(super::signal().to_string().as_bytes()).unwrap();
        parse::<SendSignalByKey>(super::signal_by_key().to_string().as_bytes()).unwrap();
        serde_json::from_value::<RerunPlan>(super::rerun_plan()).unwrap();
        serde_json::from_value::<SignalSent>(super::signal_sent()).unwrap();
    }
}

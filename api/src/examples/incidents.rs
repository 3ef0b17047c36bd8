//! The examples of incidents, and of what people do about them.

use serde_json::{Value, json};

use super::{AT, RUN, step};

const INCIDENT: &str = "019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c11-1";
const FINGERPRINT: &str = "6f1c8a3b0d925e47";

fn line() -> Value {
    json!({
        "id": INCIDENT, "run": RUN, "workflow": "place-order", "key": "order-10248",
        "step": "payment", "kind": "task_exhausted", "state": "open", "code": "card_declined",
        "message": "card_declined: card 4711 has expired", "fingerprint": FINGERPRINT,
        "occurrences": 2, "first_seen": AT, "last_seen": "2026-01-31T10:12:40.003Z",
        "opened_at": "2026-01-31T10:12:40.003Z", "assignee": "ann"
    })
}

pub(crate) fn incidents() -> Value {
    json!({ "items": [line()], "next": "6e1c00d9e1" })
}

pub(crate) fn incident() -> Value {
    let mut view = line();
    view["run_state"] = "waiting".into();
    view["task"] = step("payment", "task");
    view["attempts"] = json!([{
        "action": "forward", "attempt": 8, "worker": "shop-1/5f0c7ad4-9f0b-4c0e-9a59-3a1f6f0f7d10", "began_at": AT, "ended_at": AT,
        "error": {
            "kind": "permanent", "code": "card_declined", "message": "card 4711 has expired"
        }
    }]);
    view["next"] = json!(["retry", "skip", "resolve", "compensate", "cancel", "abandon"]);
    view["notes"] = json!([
        { "at": AT, "actor": "bob", "assignee": "ann" },
        { "at": AT, "actor": "ann", "note": "The bank looks into it" }
    ]);
    view
}

pub(crate) fn groups() -> Value {
    json!({
        "items": [{
            "fingerprint": FINGERPRINT, "count": 500, "workflow": "place-order", "step": "payment",
            "kind": "task_exhausted", "code": "card_declined", "first_seen": AT,
            "last_seen": "2026-01-31T10:12:40.003Z", "last_hour": 420, "hour_before": 80, "sample": INCIDENT,
            "message": "card_declined: card 4711 has expired"
        }]
    })
}

pub(crate) fn counts() -> Value {
    json!({
        "as_of": "2026-01-31T10:15:00.000Z", "open": 503,
        "kinds": [
            { "kind": "compensation_blocked", "open": 3, "oldest": AT },
            { "kind": "task_exhausted", "open": 500, "oldest": AT }
        ]
    })
}

pub(crate) fn status() -> Value {
    json!({
        "as_of": "2026-01-31T10:15:00.000Z", "database_reachable": true, "incidents": counts(),
        "runs": { "compensation_blocked": 3, "running": 1200, "waiting": 500 },
        "ended": { "succeeded": 1000, "compensated": 7 }, "oldest_task": AT,
        "held_weeks": [{
            "week": "2025-09-01T00:00:00.000Z", "runs": 2, "oldest_run": RUN,
            "oldest_started_at": "2025-09-03T08:00:00.000Z"
        }]
    })
}

pub(crate) use super::reason;

pub(crate) fn retry() -> Value {
    json!({ "reason": "The card was replaced", "input": { "card": "4712", "amount": 1200 } })
}

pub(crate) fn compensate() -> Value {
    json!({ "reason": "The customer withdrew", "scope": "all", "force": false })
}

pub(crate) fn assign() -> Value {
    json!({ "assignee": "ann", "note": "You know the bank" })
}

pub(crate) fn note() -> Value {
    json!({ "note": "The bank looks into it" })
}

pub(crate) fn pauses() -> Value {
    json!({
        "items": [{
            "workflow": "place-order", "since": AT, "actor": "backstitch",
            "reason": "20 runs opened incidents of one new cause since 10:01:58 UTC: suspected bad deploy",
            "fingerprint": FINGERPRINT, "runs": 20, "resumed_at": "2026-01-31T10:20:00.000Z",
            "resumed_by": "ann", "resume_reason": "Rolled back"
        }]
    })
}

pub(crate) fn acts() -> Value {
    json!({
        "items": [{
            "run": RUN, "workflow": "place-order", "seq": 12, "at": AT, "actor": "ann",
            "verb": "mark-compensated", "step": "payment", "reason": "Refunded by the bank"
        }, {
            "queue": "erp", "at": AT, "actor": "ann", "verb": "pause", "reason": "Maintenance of the warehouse"
        }, {
            "subject": "customer:42", "at": AT, "actor": "crm", "verb": "establish", "reason": "Made by hand",
            "detail": { "fact": "customer.created" }
        }]
    })
}

#[cfg(test)]
mod tests {
    use backstitch_saga::protocol::*;

    use super::*;
    use crate::examples::tests::{is_accepted, reads_as};

    #[test]
    fn requests_are_accepted() {
        is_accepted::<RetryStep>(&retry());
        is_accepted::<CompensateIncident>(&compensate());
        is_accepted::<Reason>(&reason());
        is_accepted::<AssignIncident>(&assign());
        is_accepted::<NoteIncident>(&note());
    }

    #[test]
    fn answers_read_as_their_types() {
        reads_as::<Page<IncidentLine>>(&incidents());
        reads_as::<IncidentView>(&incident());
        reads_as::<Page<IncidentGroup>>(&groups());
        reads_as::<IncidentCounts>(&counts());
        reads_as::<StatusView>(&status());
        reads_as::<Page<PauseView>>(&pauses());
        reads_as::<Page<ActLine>>(&acts());
    }
}

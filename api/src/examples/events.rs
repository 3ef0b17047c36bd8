//! Examples of events.

use serde_json::{Value, json};

const EVENT: &str = "019a9b1e-3c00-7c41-9d3e-5b7f3f0a0000";
const RUN: &str = "019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c11";

pub(crate) fn publish() -> Value {
    json!({
        "events": [{
            "type": "customer.changed", "id": "crm-42-7", "source": "crm", "stream": "customer:42", "op": "U",
            "occurred_at": "2026-01-31T10:02:10Z", "labels": { "region": "north" },
            "data": { "name": "Ann", "city": "Hull" }
        }]
    })
}

pub(crate) fn published() -> Value {
    json!({
        "events": [{ "id": EVENT, "stream": "customer:42", "version": 7, "op": "U" }]
    })
}

pub(crate) fn event() -> Value {
    json!({
        "position": 10_248, "id": EVENT, "type": "customer.changed", "stream": "customer:42", "version": 7, "op": "U",
        "changed": ["/city"], "source": "api/ann", "claimed_source": "crm", "source_id": "crm-42-7",
        "trust": "authenticated", "occurred_at": "2026-01-31T10:02:10Z", "received_at": super::AT,
        "correlation_id": EVENT, "hops": 0, "labels": { "region": "north" },
        "data": { "name": "Ann", "city": "Hull" }
    })
}

pub(crate) fn page() -> Value {
    json!({ "items": [event()], "next": 10_248, "head": 10_248 })
}

pub(crate) fn spec() -> Value {
    json!({ "filter": { "types": ["customer.*"], "ops": ["C"] }, "workflow": "place-order", "input": "event", "key": "stream" })
}

pub(crate) fn subscription() -> Value {
    json!({
        "name": "welcome", "state": "active", "spec": spec(), "generation": 1, "position": 10_248, "behind": 0,
        "started": 311, "skipped": 2, "skipped_by_reason": { "by_hand": 2 }, "pending": { "waiting": 3, "in_flight": 7, "blocked": 1 },
        "changed_at": super::AT, "changed_by": "ann"
    })
}

pub(crate) fn subscriptions() -> Value {
    json!({ "items": [subscription()] })
}

pub(crate) fn move_cursor() -> Value {
    json!({ "position": 0 })
}

pub(crate) fn cursor() -> Value {
    json!({ "name": "search", "position": 10_248, "behind": 0, "changed_at": super::AT, "changed_by": "ann" })
}

pub(crate) fn cursors() -> Value {
    json!({ "items": [cursor()] })
}

pub(crate) fn reset() -> Value {
    json!({ "position": 0, "reason": "the workflow had a bug" })
}

pub(crate) fn skip() -> Value {
    json!({ "position": 10_240, "reason": "the customer is gone" })
}

pub(crate) fn keys() -> Value {
    json!({ "items": [{
        "key": "customer:42", "state": "blocked", "position": 10_240, "generation": 1, "since": super::AT,
        "run": RUN, "incident": format!("{RUN}-1"), "code": "run_parked",
        "message": format!("run {RUN} needs a person: the card was refused"), "waiting": 3
    }] })
}

pub(crate) fn skips() -> Value {
    json!({ "items": [{
        "position": 10_240, "generation": 1, "reason": "by_hand", "key": "customer:42", "run": RUN, "at": super::AT, "actor": "ann"
    }] })
}

pub(crate) fn lineage() -> Value {
    let event = json!({
        "id": EVENT, "position": 10_248, "type": "customer", "stream": "customer:42", "version": 7, "contract": "customer@1",
        "source": "crm", "trust": "signed", "received_at": super::AT
    });
    json!({ "event": event, "causes": [], "documents": [], "effects": [], "runs": [], "more": false })
}

#[cfg(test)]
mod tests {
    use backstitch_saga::protocol::{
        CursorView, EventPage, EventView, EventsPublished, MoveCursor, Page, PublishEvents,
        ResetSubscription, SkipEvent, SkippedEvent, SubscriptionKey, SubscriptionSpec,
        SubscriptionView,
    };

    use super::super::tests::{is_accepted, reads_as};

    #[test]
    fn examples_of_events_read_as_their_types() {
        reads_as::<PublishEvents>(&super::publish());
        reads_as::<EventsPublished>(&super::published());
        reads_as::<EventView>(&super::event());
        reads_as::<EventPage>(&super::page());
        is_accepted::<PublishEvents>(&super::publish());
        reads_as::<SubscriptionView>(&super::subscription());
        reads_as::<Page<SubscriptionView>>(&super::subscriptions());
        is_accepted::<SubscriptionSpec>(&super::spec());
        is_accepted::<ResetSubscription>(&super::reset());
        is_accepted::<SkipEvent>(&super::skip());
        reads_as::<Page<SubscriptionKey>>(&super::keys());
        reads_as::<Page<SkippedEvent>>(&super::skips());
        is_accepted::<MoveCursor>(&super::move_cursor());
        reads_as::<Page<CursorView>>(&super::cursors());
    }
}

//! The examples of schedules.

use serde_json::{Value, json};

const RUN: &str = "019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c11";
const INSTANT: &str = "2026-03-29T01:00:00.000Z";
const LOCAL: &str = "2026-03-29T03:00:00+02:00";
const AT: &str = "2026-03-29T01:00:07.250Z";

pub(crate) fn spec() -> Value {
    json!({
        "cron": "30 2 * * *", "time_zone": "Europe/Berlin", "workflow": "nightly-report",
        "input": { "shop": "north" }, "instant_as": "scheduled_for", "labels": { "team": "reports" },
        "overlap": "queue", "queue_limit": 1, "catch_up": "2h", "jitter": "30s"
    })
}

pub(crate) fn view() -> Value {
    json!({
        "name": "nightly-report", "spec": spec(), "next": next_start(), "last_run": RUN,
        "counts": { "started": 41, "skipped": 0, "missed": 1, "refused": 0 },
        "created_at": AT
    })
}

pub(crate) fn lines() -> Value {
    json!({
        "items": [{
            "name": "nightly-report", "cron": "30 2 * * *", "time_zone": "Europe/Berlin",
            "workflow": "nightly-report", "paused": false, "next": next_start(), "last_run": RUN,
            "waiting": 0, "counts": { "started": 41, "skipped": 0, "missed": 1, "refused": 0 }
        }]
    })
}

pub(crate) fn reason() -> Value {
    json!({ "reason": "The warehouse is being moved" })
}

pub(crate) fn trigger() -> Value {
    json!({ "overlap": "allow", "reason": "The report of the morning was wrong" })
}

pub(crate) fn triggered() -> Value {
    let mut start = start();
    start["origin"] = "trigger".into();
    start["actor"] = "ann".into();
    json!({ "start": start, "waiting": false })
}

pub(crate) fn backfill() -> Value {
    json!({
        "from": "2026-03-01T00:00:00.000Z", "to": "2026-03-29T00:00:00.000Z", "overlap": "queue",
        "limit": 100, "reason": "The reports of March were lost", "dry_run": false
    })
}

pub(crate) fn backfill_plan() -> Value {
    json!({ "count": 1, "instants": [INSTANT] })
}

pub(crate) fn next() -> Value {
    json!({ "items": [next_start()], "paused": false })
}

pub(crate) fn starts() -> Value {
    json!({ "items": [start()] })
}

fn next_start() -> Value {
    json!({ "scheduled_for": INSTANT, "local": LOCAL, "starts_at": AT })
}

fn start() -> Value {
    json!({
        "at": AT, "origin": "cron", "scheduled_for": INSTANT, "outcome": "started", "run": RUN,
        "count": 1
    })
}

#[cfg(test)]
mod tests {
    use backstitch_saga::protocol::*;

    use super::super::tests::{is_accepted, reads_as};
    use super::*;

    #[test]
    fn answers_read_as_their_types() {
        reads_as::<ScheduleView>(&view());
        reads_as::<Page<ScheduleLine>>(&lines());
        reads_as::<Triggered>(&triggered());
        reads_as::<BackfillPlan>(&backfill_plan());
        reads_as::<NextStarts>(&next());
        reads_as::<Page<ScheduleStart>>(&starts());
    }

    #[test]
    fn requests_are_accepted() {
        is_accepted::<ScheduleSpec>(&spec());
        is_accepted::<Reason>(&reason());
        is_accepted::<TriggerSchedule>(&trigger());
        is_accepted::<BackfillSchedule>(&backfill());
    }
}

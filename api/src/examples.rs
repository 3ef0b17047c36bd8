//! The examples in the OpenAPI document. A test reads each as its type.

pub(crate) mod acts;
pub(crate) mod contracts;
pub(crate) mod credentials;
pub(crate) mod effects;
pub(crate) mod events;
pub(crate) mod incidents;
pub(crate) mod ingress;
pub(crate) mod jobs;
pub(crate) mod links;
pub(crate) mod plans;
pub(crate) mod quotas;
pub(crate) mod schedules;
pub(crate) mod sequence;
pub(crate) mod transforms;
pub(crate) mod versions;

use serde_json::{Value, json};

const RUN: &str = "019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c11";
/// The token of a lease.
const LEASE: &str = "5f0c7ad49f0b4c0e9a593a1f6f0f7d10c3a9d27be41f4b0f8f5d1f2a6b7c8d9e";
const AT: &str = "2026-01-31T10:02:11.250Z";

pub(crate) fn start_run() -> Value {
    json!({
        "workflow": "place-order",
        "key": "order-10248",
        "input": { "customer": "c-7", "lines": [{ "sku": "chai", "quantity": 12 }] },
        "labels": { "customer": "c-7" }
    })
}

pub(crate) fn run_started() -> Value {
    json!({ "id": RUN, "created": true })
}

pub(crate) fn run() -> Value {
    json!({
        "id": RUN, "namespace": "default", "workflow": "place-order", "version": 1,
        "key": "order-10248", "correlation_id": RUN, "labels": { "customer": "c-7" },
        "state": "ended", "outcome": "succeeded", "summary": "All 2 steps are done.",
        "conditions": [],
        "progress": {
            "steps": { "succeeded": 2 }, "steps_total": 2,
            "items": { "succeeded": 1 }, "items_total": 1, "effects": { "applied": 2 }
        },
        "steps": [step("payment", "task")],
        "input": { "customer": "c-7", "lines": [{ "sku": "chai", "quantity": 12 }] },
        "output": { "payment": "p-81" },
        "started_at": AT, "ended_at": AT, "deadline": "2026-02-07T10:02:11.250Z", "seq": 9
    })
}

fn step(step: &str, kind: &str) -> Value {
    json!({
        "step": step, "kind": kind, "state": "succeeded", "attempts": 1, "deliveries": 1,
        "max_attempts": 10, "output": { "id": "p-81" }, "external_id": "p-81",
        "effect_key": "6f8d5d7c-6c1b-5a0e-8f3e-0d9a4b7c2e11"
    })
}

pub(crate) fn runs() -> Value {
    json!({
        "items": [{
            "id": RUN, "workflow": "place-order", "version": 1, "key": "order-10248",
            "correlation_id": RUN, "labels": { "customer": "c-7" }, "state": "compensating",
            "outcome": null, "conditions": ["RetryScheduled"], "started_at": AT
        }],
        "next": "MDE5YTliMWU"
    })
}

pub(crate) fn history() -> Value {
    json!({
        "items": [{
            "seq": 2, "at": AT,
            "event": { "offered": { "step": "payment", "action": "forward", "attempt": 1 } }
        }]
    })
}

pub(crate) fn tree() -> Value {
    let child = "019a9b1e-3c01-7c41-9d3e-5b7f3f0a9c12";
    json!({
        "runs": [
            { "depth": 0, "run": RUN, "workflow": "place-order", "version": 1, "state": "running" },
            {
                "depth": 1, "run": child, "parent": RUN, "step": "payment", "workflow": "payments", "version": 3,
                "state": "ended", "outcome": "succeeded"
            }
        ],
        "more": false
    })
}

pub(crate) fn why() -> Value {
    let message = "payment: no worker does 'charge-card' on queue 'default'; start one";
    json!({
        "run": RUN, "state": "running", "summary": message,
        "waits_for": [{
            "kind": "no_worker", "step": "payment", "count": 1, "since": AT, "message": message,
            "queue": "default", "handler": "charge-card", "verbs": ["cancel", "kill"]
        }]
    })
}

pub(crate) fn workers() -> Value {
    json!({
        "items": [{
            "worker": "shop-1", "session": "5f0c7ad4-9f0b-4c0e-9a59-3a1f6f0f7d10", "node": "server-1",
            "queues": { "default": ["charge-card", "refund-card"] }, "since": AT
        }]
    })
}

pub(crate) fn background_tasks() -> Value {
    json!({
        "node": "server-1",
        "tasks": [
            { "task": "heartbeat", "every": "1s", "runs": 86_400, "failures": 2, "succeeded_at": AT, "is_failing": false },
            { "task": "permits", "runs": 310, "failures": 0, "succeeded_at": AT, "is_failing": false }
        ]
    })
}

pub(crate) fn start_runs() -> Value {
    json!({ "runs": [start_run()] })
}

pub(crate) fn start_answers() -> Value {
    json!({ "results": [{ "status": 201, "id": RUN }] })
}

pub(crate) fn one_step() -> Value {
    step("payment", "task")
}

pub(crate) fn items() -> Value {
    json!({ "items": [step("stock/0", "task")] })
}

pub(crate) fn compensate() -> Value {
    json!({ "scope": { "back_to": "payment" }, "reason": "The customer withdrew", "dry_run": true })
}

pub(crate) fn plan() -> Value {
    json!({
        "steps": [{
            "step": "payment", "name": "refund-card", "wave": 0,
            "input": { "amount": 1200 }, "forward": { "succeeded": { "id": "p-81" } }
        }],
        "total": 1,
        "irreversible": [],
        "past_pivot": false
    })
}

pub(crate) fn start_request() -> Value {
    json!({
        "id": RUN, "run": RUN, "workflow": "place-order", "key": "order-10248",
        "input": { "customer": "c-7", "lines": [{ "sku": "chai", "quantity": 12 }] },
        "requested_at": AT, "state": "refused",
        "refusal": {
            "code": "unknown_workflow", "message": "there is no workflow 'place-order' in this namespace", "at": AT
        }
    })
}

pub(crate) fn start_requests() -> Value {
    let mut line = start_request();
    line.as_object_mut().map(|members| members.remove("input"));
    json!({ "items": [line] })
}

pub(crate) fn reason() -> Value {
    json!({ "reason": "The customer withdrew" })
}

pub(crate) fn claim() -> Value {
    json!({
        "worker": "shop-1", "session": "5f0c7ad4-9f0b-4c0e-9a59-3a1f6f0f7d10",
        "queues": { "default": ["charge-card", "refund-card"] }, "max": 16, "wait": "20s"
    })
}

pub(crate) fn claimed() -> Value {
    json!({
        "tasks": [{
            "run": RUN, "step": "payment", "action": "forward", "attempt": 1,
            "name": "charge-card", "queue": "default", "workflow": "place-order", "version": 1,
            "input": { "amount": 1200 }, "effect_key": "6f8d5d7c-6c1b-5a0e-8f3e-0d9a4b7c2e11",
            "heartbeat": "30s", "deadline": "2026-01-31T10:07:11.250Z", "correlation_id": RUN,
            "lease": LEASE
        }]
    })
}

pub(crate) fn complete() -> Value {
    json!({
        "results": [
            {
                "run": RUN, "step": "payment", "action": "forward", "attempt": 1, "lease": LEASE,
                "outcome": { "succeeded": { "output": { "id": "p-81" }, "external_id": "p-81" } }
            },
            {
                "run": RUN, "step": "stock/3", "action": "forward", "attempt": 2,
                "outcome": { "failed": {
                    "kind": "retryable", "code": "connection_refused",
                    "message": "stock does not answer", "retry_after": "2s"
                } }
            }
        ]
    })
}

pub(crate) fn heartbeat() -> Value {
    json!({
        "beats": [{
            "run": RUN, "step": "payment", "action": "forward", "attempt": 1, "lease": LEASE,
            "details": { "page": 3 }
        }]
    })
}

pub(crate) fn release() -> Value {
    json!({
        "session": "5f0c7ad4-9f0b-4c0e-9a59-3a1f6f0f7d10",
        "tasks": [{ "run": RUN, "step": "payment", "action": "forward", "attempt": 1, "lease": LEASE }]
    })
}

pub(crate) fn sign_off() -> Value {
    json!({ "session": "5f0c7ad4-9f0b-4c0e-9a59-3a1f6f0f7d10" })
}

pub(crate) fn signed_off() -> Value {
    json!({ "released": 0 })
}

pub(crate) fn answers() -> Value {
    json!({ "results": [{ "status": 200 }] })
}

pub(crate) fn definition() -> Value {
    json!({
        "name": "place-order",
        "version": 1,
        "steps": [
            {
                "id": "stock",
                "map": {
                    "items": { "path": "/input/lines" },
                    "task": {
                        "name": "reserve-stock",
                        "input": { "path": "/item" },
                        "compensate": { "name": "release-stock" }
                    },
                    "join": "all",
                    "empty": "fail"
                }
            },
            {
                "id": "payment",
                "after": ["stock"],
                "task": {
                    "name": "charge-card",
                    "input": { "path": "/input" },
                    "compensate": { "name": "refund-card" },
                    "retry": { "max_attempts": 8, "first_delay": "200ms", "max_delay": "30s" }
                }
            }
        ],
        "output": { "object": { "payment": { "path": "/steps/payment/id" } } }
    })
}

pub(crate) fn workflow() -> Value {
    let mut view = workflow_line();
    view["definition"] = definition();
    view["retention"] = acts::retention();
    view
}

pub(crate) fn registered_workflow() -> Value {
    let mut view = workflow_line();
    view["definition"] = definition();
    view["rehearsal"] = json!({ "traces": 250, "complete": false });
    view
}

fn workflow_line() -> Value {
    json!({
        "name": "place-order", "version": 1,
        "hash": "9f2c1ab0d95b3d3f3f0e0d2f7b6a5c4d3e2f1a0b9c8d7e6f5a4b3c2d1e0f9a8b",
        "registered_at": AT
    })
}

pub(crate) fn workflows() -> Value {
    json!({ "items": [workflow_line()] })
}

pub(crate) fn valid_workflow() -> Value {
    json!({ "name": "place-order", "version": 1, "rehearsal": { "traces": 250, "complete": false } })
}

pub(crate) fn rehearsal() -> Value {
    json!({
        "workflow": "place-order", "version": 1, "traces": 250, "complete": false,
        "closed": 231, "parked": 19, "open": 0,
        "outcomes": { "succeeded": 88, "compensated": 143 },
        "steps": [{ "step": "payment", "faults": [
            { "fault": "fails", "about": "fails for good", "traces": 14, "parked": 0, "open": 0 }
        ] }],
        "not_reached": [], "defects": []
    })
}

pub(crate) fn whoami() -> Value {
    json!({ "name": "worker-1", "namespace": "default", "role": "worker", "open": false })
}

pub(crate) fn queue_policy() -> Value {
    json!({
        "concurrency": 20,
        "concurrency_per_key": 5,
        "rate": { "limit": 100, "per": "1s", "burst": 20 },
        "fair_by": "customer",
        "breaker": { "failure_ratio": 0.5, "min_calls": 20, "window": "30s", "open_for": "10s" },
        "retry_budget": { "ratio": 0.2, "min_per_s": 1.0 }
    })
}

pub(crate) fn queue() -> Value {
    json!({
        "queue": "erp", "policy": queue_policy(), "changed_at": AT, "changed_by": "ann",
        "held": 20, "waiting": 312, "waiting_more": false, "tokens": 4,
        "breaker": { "state": "closed", "calls": 240, "failures": 3 },
        "retry_budget": { "first_attempts": 480, "retries": 7, "left": 89 }
    })
}

pub(crate) fn queues() -> Value {
    json!({ "items": [queue()] })
}

pub(crate) fn queue_reason() -> Value {
    json!({ "reason": "The vendor announced maintenance until noon" })
}

#[cfg(test)]
pub(crate) mod tests {
    use backstitch_saga::Definition;
    use backstitch_saga::protocol::*;
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::body::parse;
    use crate::check::Check;

    #[track_caller]
    pub(crate) fn reads_as<T: DeserializeOwned + Serialize>(example: &Value) {
        let value: T = serde_json::from_str(&example.to_string()).unwrap();
        assert_eq!(&serde_json::to_value(value).unwrap(), example);
    }

    #[track_caller]
    pub(crate) fn is_accepted<T: DeserializeOwned + Check>(example: &Value) {
        parse::<T>(example.to_string().as_bytes()).unwrap();
    }

    #[test]
    fn answers_read_as_their_types() {
        reads_as::<RunStarted>(&run_started());
        reads_as::<RunView>(&run());
        reads_as::<Page<RunLine>>(&runs());
        reads_as::<Page<HistoryEntry>>(&history());
        reads_as::<Page<StepView>>(&items());
        reads_as::<RunTree>(&tree());
        reads_as::<Why>(&why());
        reads_as::<Page<WorkerView>>(&workers());
        reads_as::<BackgroundTasks>(&background_tasks());
        reads_as::<Plan>(&plan());
        reads_as::<ClaimedTasks>(&claimed());
        reads_as::<TaskAnswers>(&answers());
        reads_as::<StartAnswers>(&start_answers());
        reads_as::<StartRequestView>(&start_request());
        reads_as::<Page<StartRequestView>>(&start_requests());
        reads_as::<Page<WorkflowView>>(&workflows());
        reads_as::<ValidWorkflow>(&valid_workflow());
        reads_as::<RehearsalView>(&rehearsal());
        reads_as::<WhoAmI>(&whoami());
        reads_as::<Page<QueueView>>(&queues());
        serde_json::from_str::<WorkflowView>(&workflow().to_string()).unwrap();
    }

    #[test]
    fn requests_are_accepted() {
        is_accepted::<StartRun>(&start_run());
        is_accepted::<StartRuns>(&start_runs());
        is_accepted::<CompensateRun>(&compensate());
        is_accepted::<Reason>(&reason());
        is_accepted::<ClaimTasks>(&claim());
        is_accepted::<CompleteTasks>(&complete());
        is_accepted::<HeartbeatTasks>(&heartbeat());
        is_accepted::<ReleaseTasks>(&release());
        is_accepted::<SignOff>(&sign_off());
        reads_as::<SignedOff>(&signed_off());
        is_accepted::<QueuePolicy>(&queue_policy());
        is_accepted::<Reason>(&queue_reason());
        serde_json::from_str::<Definition>(&definition().to_string()).unwrap();
    }
}

//! The examples of jobs.

use serde_json::{Value, json};

use super::{AT, RUN};

const JOB: &str = "019a9b20-7d11-7a52-8c1f-0a6b5a3e9d21";

pub(crate) fn new_job() -> Value {
    json!({
        "verb": "retry", "incidents": { "fingerprint": "6f1c8a3b0d925e47" },
        "reason": "The handler is fixed", "rate": 50.0, "canary": { "first": 5, "wait": "2m" },
        "stop_when": { "count": 3 }, "dry_run": false
    })
}

pub(crate) fn job() -> Value {
    json!({
        "id": JOB, "state": "running", "asked": new_job(), "actor": "ann", "created_at": AT,
        "progress": { "waiting": 380, "done": 119, "came_back": 0, "refused": 1, "total": 500 }
    })
}

pub(crate) fn jobs() -> Value {
    json!({ "items": [job()] })
}

pub(crate) fn job_items() -> Value {
    json!({
        "items": [
            {
                "position": 1, "run": RUN, "incident": format!("{RUN}-1"), "state": "done",
                "acted_at": AT
            },
            {
                "position": 2, "run": RUN, "incident": format!("{RUN}-2"), "state": "refused",
                "code": "incident_resolved", "message": "the incident is resolved",
                "acted_at": AT
            }
        ]
    })
}

#[cfg(test)]
mod tests {
    use backstitch_saga::protocol::*;

    use super::*;
    use crate::examples::tests::{is_accepted, reads_as};

    #[test]
    fn they_read_as_their_types() {
        is_accepted::<NewJob>(&new_job());
        reads_as::<JobView>(&job());
        reads_as::<Page<JobView>>(&jobs());
        reads_as::<Page<JobItem>>(&job_items());
    }
}

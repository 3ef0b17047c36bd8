//! The examples of open effects.

use serde_json::{Value, json};

use super::{AT, RUN};

pub(crate) fn effects() -> Value {
    json!({
        "items": [{
            "run": RUN, "workflow": "place-order", "key": "order-10248", "step": "payment", "system": "bank",
            "standing": 0, "unknown": 1, "since": AT, "state": "compensation_blocked"
        }],
        "next": "e61c00d9e1"
    })
}

pub(crate) fn counts() -> Value {
    json!({
        "systems": [{ "system": "bank", "runs": 3, "standing": 1, "unknown": 2, "oldest": AT }],
        "more": false
    })
}

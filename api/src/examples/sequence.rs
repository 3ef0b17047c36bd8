//! The examples of serial keys and facts.

use serde_json::{Value, json};

use super::{AT, RUN};

pub(crate) fn line() -> Value {
    json!({ "items": [
        { "run": RUN, "state": "holding", "since": AT },
        { "run": "019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c12", "state": "waiting", "since": AT }
    ] })
}

pub(crate) fn reason() -> Value {
    json!({ "reason": "The customer was made by hand" })
}

pub(crate) fn facts() -> Value {
    json!({
        "facts": [{ "fact": "customer.created", "on": "customer:42", "at": AT, "by": "crm" }],
        "waiting": [{
            "run": RUN, "fact": "customer.verified", "since": AT, "until": "2026-02-01T10:02:11.250Z"
        }],
        "dependents": [{
            "run": "019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c12", "fact": "customer.created", "on": "customer:42",
            "on_withdrawn": "incident"
        }]
    })
}

#[cfg(test)]
mod tests {
    use backstitch_saga::protocol::*;

    use super::super::tests::reads_as;
    use super::*;

    #[test]
    fn they_read_as_their_types() {
        reads_as::<Page<KeyPlace>>(&line());
        reads_as::<SubjectFacts>(&facts());
        reads_as::<Reason>(&reason());
    }
}

//! Examples of quotas.

use serde_json::{Value, json};

pub(crate) fn set() -> Value {
    json!({ "requests_per_second": 2_000, "runs": 50_000, "schedules": 500 })
}

pub(crate) fn view() -> Value {
    json!({
        "quotas": [
            { "quota": "requests_per_second", "limit": 2_000, "set_by": "namespace" },
            { "quota": "credential_requests_per_second", "limit": 20_000, "set_by": "server" },
            { "quota": "starts_per_second", "limit": 200_000, "set_by": "server" },
            { "quota": "runs", "limit": 50_000, "set_by": "namespace", "used": 1_204 },
            { "quota": "definitions", "limit": 10_000, "set_by": "server", "used": 17 },
            { "quota": "schedules", "limit": 500, "set_by": "namespace", "used": 3 },
            { "quota": "early_signals", "limit": 100_000, "set_by": "server", "used": 0 },
            { "quota": "kept_answers", "used": 812 },
            { "quota": "waiting", "used": 4 }
        ],
        "changed_at": super::AT,
        "changed_by": "ann"
    })
}

#[cfg(test)]
mod tests {
    use backstitch_saga::protocol::{Quotas, QuotasView};

    use super::super::tests::{is_accepted, reads_as};

    #[test]
    fn examples_of_quotas_read_as_their_types() {
        reads_as::<QuotasView>(&super::view());
        reads_as::<Quotas>(&super::set());
        is_accepted::<Quotas>(&super::set());
    }
}

//! Examples of credentials and of roles of the database.

use serde_json::{Value, json};

const AT: &str = "2026-01-31T10:02:11.250Z";

pub(crate) fn new_credential() -> Value {
    json!({
        "role": "worker", "expires_in": "90d", "queues": ["billing-*"], "workflows": ["place-*"]
    })
}

pub(crate) fn secret() -> Value {
    json!({
        "name": "worker-1", "namespace": "default", "role": "worker",
        "secret": "bsk_9Jk2mV0rX7sQ4tB1nC8zLd5hYf3gWpEa6uKxRoTiMqU",
        "expires_at": "2026-05-01T10:02:11.250Z", "queues": ["billing-*"], "workflows": ["place-*"]
    })
}

pub(crate) fn rotate_credential() -> Value {
    json!({ "overlap": "1d" })
}

pub(crate) fn rotated() -> Value {
    json!({
        "name": "worker-1", "namespace": "default", "role": "worker",
        "secret": "bsk_2Lq8cT5wZ1nV7yB3mK6xRd9hJf4gSpUa0eWoQiXtCbN",
        "expires_at": "2026-05-01T10:02:11.250Z", "previous_until": "2026-02-01T10:02:11.250Z"
    })
}

pub(crate) fn credentials() -> Value {
    json!({
        "items": [{
            "name": "worker-1", "role": "worker", "state": "active", "created_at": AT, "created_by": "ops",
            "expires_at": "2026-05-01T10:02:11.250Z", "used_at": "2026-01-31T11:40:00.000Z",
            "queues": ["billing-*"], "workflows": ["place-*"]
        }]
    })
}

pub(crate) fn database_roles() -> Value {
    json!({ "items": [{ "role": "shop", "granted_at": AT, "granted_by": "ops" }] })
}

#[cfg(test)]
mod tests {
    use backstitch_saga::protocol::*;

    use super::*;
    use crate::examples::tests::{is_accepted, reads_as};

    #[test]
    fn requests_are_accepted_and_answers_are_what_is_answered() {
        is_accepted::<NewCredential>(&new_credential());
        is_accepted::<RotateCredential>(&rotate_credential());
        reads_as::<CredentialSecret>(&secret());
        reads_as::<CredentialSecret>(&rotated());
        reads_as::<Page<CredentialView>>(&credentials());
        reads_as::<Page<DatabaseRoleView>>(&database_roles());
    }
}

//! The examples of versions and migrations.

use serde_json::{Value, json};

use super::{AT, RUN};

const MIGRATION: &str = "019a9b20-0000-7000-8000-000000000001";

pub(crate) fn drain() -> Value {
    json!({ "items": [
        {
            "version": 1, "registered_at": AT, "drained": false, "active": 3,
            "states": { "running": 1, "waiting": 2 }, "oldest": RUN, "oldest_started_at": AT
        },
        { "version": 2, "registered_at": AT, "drained": true, "active": 0, "states": {} }
    ] })
}

fn mapping() -> Value {
    json!({ "steps": { "mail": null, "payment": "charge" }, "skip": ["fraud-check"] })
}

pub(crate) fn new_migration() -> Value {
    json!({
        "from": 1, "to": 2, "mapping": mapping(), "on_obstacle": "stop",
        "reason": "The new card service", "dry_run": false, "limit": 1000
    })
}

pub(crate) fn check() -> Value {
    json!({
        "checked": 3, "clean": 2, "obstacles": { "compensation_gone": 1 },
        "samples": [{ "run": RUN, "obstacles": [{
            "kind": "compensation_gone", "step": "stock",
            "message": "'stock' is done, and the new version has no compensation for it"
        }] }]
    })
}

pub(crate) fn migration() -> Value {
    json!({
        "id": MIGRATION, "workflow": "place-order", "from": 1, "to": 2, "mapping": mapping(),
        "on_obstacle": "stop", "state": "moving", "runs": { "clean": 40, "moved": 160 }, "total": 200,
        "actor": "ann", "reason": "The new card service", "created_at": AT
    })
}

pub(crate) fn migrations() -> Value {
    json!({ "items": [migration()] })
}

pub(crate) fn migrated_runs() -> Value {
    json!({ "items": [{
        "run": RUN, "result": "left",
        "message": "needs_mapping: 'mail' has begun, and the new version has no such step"
    }] })
}

#[cfg(test)]
mod tests {
    use backstitch_saga::protocol::*;

    use super::super::tests::{is_accepted, reads_as};
    use super::*;

    #[test]
    fn they_read_as_their_types() {
        reads_as::<Page<VersionLoad>>(&drain());
        reads_as::<MigrationCheck>(&check());
        reads_as::<Page<MigrationView>>(&migrations());
        reads_as::<Page<MigratedRun>>(&migrated_runs());
        is_accepted::<NewMigration>(&new_migration());
    }
}

//! The columns of tables, in the order in which a reader needs them: what tells most stands left. On a terminal that has no place
//! for all of them the first stand in the row, others that are needed below it, and the rest is left out.

/// The columns of each type of list, and how many of them, from the first, are shown on any terminal. A name with a dot is a
/// member of a member.
const COLUMNS: &[(&str, usize, &[&str])] = &[
    (
        "RunLine",
        4,
        &[
            "id",
            "workflow",
            "state",
            "key",
            "outcome",
            "started_at",
            "conditions",
            "ended_at",
            "version",
        ],
    ),
    ("WorkflowView", 3, &["name", "version", "registered_at", "hash"]),
    (
        "StepView",
        6,
        &[
            "step",
            "item_key",
            "state",
            "compensation",
            "attempts",
            "error",
            "next_at",
            "worker",
            "deliveries",
            "external_id",
        ],
    ),
    ("HistoryEntry", 5, &["seq", "at", "event", "step", "about"]),
    ("WorkerView", 3, &["worker", "queues", "since", "gone_at", "node", "session"]),
    (
        "IncidentLine",
        7,
        &[
            "id",
            "kind",
            "state",
            "step",
            "key",
            "message",
            "workflow",
            "code",
            "opened_at",
            "assignee",
            "occurrences",
            "resolved_at",
            "fingerprint",
        ],
    ),
    (
        "EffectLine",
        5,
        &[
            "run", "step", "system", "standing", "unknown", "since", "workflow", "key", "state",
            "outcome",
        ],
    ),
    (
        "CompensationPlan",
        6,
        &[
            "id",
            "state",
            "run",
            "undos",
            "needs_approval",
            "approved_by",
            "made_by",
            "workflow",
            "reason",
        ],
    ),
    ("SystemCount", 5, &["system", "runs", "standing", "unknown", "oldest"]),
    (
        "IncidentGroup",
        8,
        &[
            "fingerprint",
            "count",
            "kind",
            "workflow",
            "step",
            "code",
            "last_seen",
            "message",
            "first_seen",
            "sample",
        ],
    ),
    (
        "JobView",
        6,
        &["id", "state", "created_at", "asked.verb", "progress", "why", "actor", "ended_at"],
    ),
    ("JobItem", 6, &["position", "run", "state", "code", "message", "incident", "acted_at"]),
    (
        "ScheduleLine",
        5,
        &[
            "name",
            "workflow",
            "paused",
            "next.starts_at",
            "cron",
            "also",
            "time_zone",
            "waiting",
            "last_run",
            "counts",
        ],
    ),
    (
        "ScheduleStart",
        8,
        &[
            "scheduled_for",
            "outcome",
            "run",
            "origin",
            "count",
            "until",
            "code",
            "message",
            "actor",
            "at",
        ],
    ),
    ("NextStart", 3, &["scheduled_for", "starts_at", "local"]),
    (
        "QueueView",
        6,
        &[
            "queue",
            "paused",
            "waiting",
            "held",
            "breaker",
            "tokens",
            "retry_budget",
            "policy",
            "changed_at",
            "changed_by",
        ],
    ),
    (
        "PauseView",
        5,
        &[
            "workflow",
            "since",
            "runs",
            "actor",
            "reason",
            "resumed_at",
            "resumed_by",
            "resume_reason",
            "fingerprint",
        ],
    ),
    (
        "StartRequestView",
        7,
        &[
            "id",
            "state",
            "workflow",
            "key",
            "requested_at",
            "refusal",
            "decision",
            "run",
            "version",
            "input",
            "labels",
            "correlation_id",
        ],
    ),
    (
        "VersionLoad",
        4,
        &["version", "drained", "active", "states", "oldest", "oldest_started_at", "registered_at"],
    ),
    (
        "MigrationView",
        8,
        &[
            "id",
            "state",
            "from",
            "to",
            "total",
            "runs",
            "stopped_because",
            "created_at",
            "ended_at",
            "actor",
            "reason",
            "on_obstacle",
            "mapping",
        ],
    ),
    ("MigratedRun", 3, &["run", "result", "message"]),
    ("KeyPlace", 4, &["run", "state", "since", "replaced_by"]),
    (
        "CredentialView",
        6,
        &[
            "name",
            "role",
            "state",
            "expires_at",
            "queues",
            "workflows",
            "used_at",
            "previous_until",
            "created_at",
            "created_by",
            "rotated_at",
            "revoked_at",
            "revoked_by",
        ],
    ),
    ("ContractLine", 4, &["subject", "kind", "mode", "newest", "changed_at", "changed_by"]),
    (
        "ContractVersionView",
        3,
        &["version", "state", "registered_at", "registered_by", "digest", "subject"],
    ),
    (
        "TransformLine",
        5,
        &[
            "from",
            "from_version",
            "to",
            "to_version",
            "active",
            "newest",
            "changed_at",
            "changed_by",
        ],
    ),
    ("TransformRevision", 3, &["revision", "registered_at", "registered_by", "digest"]),
    ("EventReceipt", 5, &["id", "stream", "version", "op", "repeated", "noop", "op_corrected"]),
    (
        "EventView",
        9,
        &["position", "type", "stream", "version", "op", "received_at", "source", "id", "data"],
    ),
    (
        "SourceView",
        4,
        &["name", "address", "spec.verify", "version", "secrets", "changed_at", "changed_by"],
    ),
    (
        "IntakeView",
        7,
        &[
            "id",
            "source",
            "verdict",
            "code",
            "received_at",
            "contract",
            "event_id",
            "message",
            "trust",
            "bytes",
            "door",
        ],
    ),
    (
        "ImportView",
        7,
        &[
            "id",
            "source",
            "state",
            "rows",
            "accepted",
            "duplicates",
            "refused",
            "left",
            "received_at",
            "form",
            "bytes",
        ],
    ),
    (
        "HintView",
        6,
        &[
            "kind",
            "value_raw",
            "source",
            "verdict",
            "received_at",
            "stream",
            "value_norm",
            "intake_id",
        ],
    ),
    (
        "ReprocessView",
        8,
        &[
            "id",
            "state",
            "changed",
            "same",
            "failed",
            "refused",
            "overtaken",
            "created_at",
            "actor",
        ],
    ),
    (
        "MappingProblem",
        5,
        &["documents", "contract", "code", "pointer", "message", "to", "last_at", "intake_id"],
    ),
    (
        "ErasureView",
        7,
        &[
            "id",
            "state",
            "documents",
            "events",
            "runs",
            "created_at",
            "actor",
            "waits_for",
            "reason",
        ],
    ),
    ("LinkView", 5, &["system", "external_id", "stream", "linked_at", "linked_by"]),
    (
        "LinkConflictView",
        7,
        &[
            "id",
            "system",
            "external_id",
            "stream",
            "holder",
            "claimed_at",
            "claimed_by",
            "state",
            "kept",
        ],
    ),
    ("RefusedRow", 4, &["row", "code", "message", "intake_id"]),
    ("CursorView", 3, &["name", "position", "behind", "changed_at", "changed_by"]),
    (
        "SubscriptionView",
        6,
        &["name", "state", "position", "behind", "started", "skipped", "generation", "changed_at"],
    ),
    (
        "SubscriptionKey",
        4,
        &["position", "state", "waiting", "key", "run", "incident", "since", "code", "message"],
    ),
    ("SkippedEvent", 4, &["position", "reason", "key", "at", "run", "code", "actor", "generation"]),
    ("DatabaseRoleView", 3, &["role", "granted_at", "granted_by"]),
    (
        "ActLine",
        14,
        &[
            "at",
            "actor",
            "verb",
            "run",
            "step",
            "reason",
            "workflow",
            "queue",
            "schedule",
            "job",
            "subject",
            "credential",
            "database_role",
            "contract",
            "detail",
            "seq",
        ],
    ),
    ("waits_for", 7, &["kind", "step", "count", "since", "until", "message", "verbs"]),
];
/// Members that come first where no columns are declared, and those that come last; all others stand between them.
const FIRST: &[&str] = &[
    "id", "number", "run", "step", "item_key", "wave", "name", "quota", "fact", "kind", "state",
    "status", "result", "outcome", "severity", "pointer",
];
const LAST: &[&str] = &[
    "code",
    "message",
    "reason",
    "actor",
    "by",
    "input",
    "output",
    "details",
    "schema",
    "fingerprint",
    "hash",
    "definition",
];

/// The columns that are declared for a type, and how many of them are shown on any terminal.
pub(super) fn of(kind: &str) -> Option<(usize, &'static [&'static str])> {
    let found = COLUMNS.iter().find(|(known, ..)| *known == kind);
    found.map(|(_, needed, columns)| (*needed, *columns))
}

/// The rank of a member whose place is not declared.
pub(super) fn place(name: &str) -> usize {
    let among = |names: &[&str]| names.iter().position(|one| *one == name);
    let middle = FIRST.len();
    among(FIRST).or_else(|| among(LAST).map(|at| middle + 1 + at)).unwrap_or(middle)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::operation;
    use super::*;

    fn elements(document: &Value, page: &str) -> Value {
        let items = format!("/components/schemas/{page}/properties/items/items");
        document.pointer(&items).expect("elements").clone()
    }

    fn has(document: &Value, schema: &Value, name: &str) -> bool {
        let parts = schema["allOf"].as_array().into_iter().flatten();
        let referred = |part: &Value| {
            let to = part["$ref"].as_str().and_then(|to| document.pointer(&to[1..]));
            to.is_some_and(|to| has(document, to, name))
        };
        !schema["properties"][name].is_null()
            || parts.into_iter().any(|part| has(document, part, name))
            || referred(schema)
    }

    #[test]
    fn each_list_has_columns_and_each_column_is_a_member() {
        let document = serde_json::to_value(crate::document()).unwrap();
        let mut lists = 0;
        for operation in operation::all() {
            let answer = operation.answer.as_deref().unwrap_or_default();
            let Some(kind) = answer.strip_prefix("Page_") else { continue };
            let (needed, columns) =
                of(kind).unwrap_or_else(|| panic!("{} has no columns", operation.id));
            assert!((1..=columns.len()).contains(&needed), "{kind}");
            let schema = elements(&document, answer);
            for column in columns {
                let name = column.split('.').next().unwrap_or_default();
                let made = kind == "HistoryEntry" && ["step", "about"].contains(&name);
                assert!(made || has(&document, &schema, name), "{kind} has no member {name}");
            }
            lists += 1;
        }
        assert!(lists > 15, "{lists} lists");
    }

    #[test]
    fn an_item_is_known_by_its_key_and_a_list_by_its_state() {
        for (kind, first) in [
            ("StepView", &["step", "item_key", "state"][..]),
            ("RunLine", &["id", "workflow", "state"]),
        ] {
            assert_eq!(&of(kind).unwrap().1[..3], first);
        }
    }
}

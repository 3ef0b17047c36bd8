//! The columns of tables, in the order in which a reader needs them: what is narrow and tells most stands left, since a terminal
//! leaves out what is right.

/// The columns of each type of list. A name with a dot is a member of a member.
const COLUMNS: &[(&str, &[&str])] = &[
    (
        "RunLine",
        &[
            "id",
            "workflow",
            "state",
            "outcome",
            "key",
            "started_at",
            "conditions",
            "ended_at",
            "version",
        ],
    ),
    ("WorkflowView", &["name", "version", "registered_at", "hash"]),
    (
        "StepView",
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
    ("HistoryEntry", &["seq", "at", "event"]),
    ("WorkerView", &["worker", "queues", "since", "gone_at", "node", "session"]),
    (
        "IncidentLine",
        &[
            "id",
            "kind",
            "state",
            "workflow",
            "step",
            "key",
            "opened_at",
            "assignee",
            "occurrences",
            "code",
            "message",
            "resolved_at",
            "fingerprint",
        ],
    ),
    (
        "IncidentGroup",
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
        &["id", "state", "created_at", "asked.verb", "progress", "why", "actor", "ended_at"],
    ),
    ("JobItem", &["position", "run", "state", "code", "message", "incident", "acted_at"]),
    (
        "ScheduleLine",
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
    ("NextStart", &["scheduled_for", "starts_at", "local"]),
    (
        "QueueView",
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
        &["version", "drained", "active", "states", "oldest", "oldest_started_at", "registered_at"],
    ),
    (
        "MigrationView",
        &[
            "id",
            "state",
            "from",
            "to",
            "total",
            "runs",
            "created_at",
            "stopped_because",
            "ended_at",
            "actor",
            "reason",
            "on_obstacle",
            "mapping",
        ],
    ),
    ("MigratedRun", &["run", "result", "message"]),
    ("KeyPlace", &["run", "state", "since", "replaced_by"]),
    (
        "CredentialView",
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
    ("ContractLine", &["subject", "kind", "mode", "newest", "changed_at", "changed_by"]),
    (
        "ContractVersionView",
        &["version", "state", "registered_at", "registered_by", "digest", "subject"],
    ),
    (
        "TransformLine",
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
    ("TransformRevision", &["revision", "registered_at", "registered_by", "digest"]),
    ("EventReceipt", &["id", "stream", "version", "op", "repeated", "noop", "op_corrected"]),
    (
        "EventView",
        &["position", "type", "stream", "version", "op", "received_at", "source", "id", "data"],
    ),
    ("CursorView", &["name", "position", "behind", "changed_at", "changed_by"]),
    (
        "SubscriptionView",
        &["name", "state", "position", "behind", "started", "skipped", "generation", "changed_at"],
    ),
    ("DatabaseRoleView", &["role", "granted_at", "granted_by"]),
    (
        "ActLine",
        &[
            "at",
            "actor",
            "verb",
            "run",
            "step",
            "workflow",
            "queue",
            "schedule",
            "job",
            "subject",
            "credential",
            "database_role",
            "contract",
            "reason",
            "detail",
            "seq",
        ],
    ),
    ("waits_for", &["kind", "step", "count", "since", "until", "message", "verbs"]),
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

/// The columns that are declared for a type.
pub(super) fn of(kind: &str) -> Option<&'static [&'static str]> {
    COLUMNS.iter().find(|(known, _)| *known == kind).map(|(_, columns)| *columns)
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
            let columns = of(kind).unwrap_or_else(|| panic!("{} has no columns", operation.id));
            let schema = elements(&document, answer);
            for column in columns {
                let name = column.split('.').next().unwrap_or_default();
                assert!(has(&document, &schema, name), "{kind} has no member {name}");
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
            assert_eq!(&of(kind).unwrap()[..3], first);
        }
    }
}

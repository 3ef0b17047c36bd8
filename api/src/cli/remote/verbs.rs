//! Maps verbs to operations. The names follow from the routes; what is named otherwise stands in a table.

use std::collections::BTreeMap;

use super::operation::{self, Field, Operation};

/// A verb of the command line that asks the server one thing.
#[derive(Clone, Debug)]
pub(crate) struct Verb {
    /// `run`, `workflow`, …; empty for a verb that stands alone.
    pub(crate) group: String,
    pub(crate) name: String,
    pub(crate) operation: Operation,
    pub(crate) does: Does,
}

/// Use of the response by a verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    /// Prints it.
    Print,
    /// Asks again and again and prints how it changes, until it is over.
    Watch,
}

/// Operations without a verb, with the reason.
pub const WITHOUT_VERB: &[(&str, &str)] = &[
    ("claim_tasks", "for workers"),
    ("complete_tasks", "for workers"),
    ("heartbeat_tasks", "for workers"),
    ("release_tasks", "for workers"),
    ("sign_off_worker", "for workers"),
    ("take_in", "for sources"),
    ("take_in_batch", "for sources"),
    ("take_in_file", "for sources"),
    ("read_intake", "the bytes are no JSON"),
    ("validate_workflow", "`workflow validate` checks without a server"),
];

/// Operations whose verb does not follow from their route.
const NAMES: &[(&str, &str)] = &[
    ("start_run", "start"),
    ("start_runs", "start-many"),
    ("list_workflow_versions", "versions"),
    ("show_workflow", "show"),
    ("send_signal_by_key", "send"),
    ("register_workflow", "register"),
    ("rehearse_workflow", "rehearse"),
    ("register_contract", "register"),
    ("set_contract_mode", "set-mode"),
    ("pin_contract_reader", "pin"),
    ("unpin_contract_reader", "unpin"),
    ("put_transform", "put"),
    ("make_plan", "plan"),
    ("edit_plan", "edit"),
    ("publish_events", "publish"),
    ("put_source", "put"),
    ("put_link", "put"),
    ("show_link", "show"),
    ("delete_link", "delete"),
    ("put_subscription", "put"),
    ("move_cursor", "move"),
    ("show_transform", "show"),
    ("put_schedule", "put"),
    ("show_quotas", "show"),
    ("set_quotas", "set"),
    ("remove_quotas", "remove"),
    ("create_credential", "create"),
    ("grant_database_role", "grant"),
    ("revoke_database_role", "revoke"),
    ("revoke_credential", "revoke"),
];

/// Verbs with a second name.
const ALIASES: &[(&str, &str, &str)] = &[("run", "show", "get")];

/// Operations that can be watched.
const WATCHED: &[&str] = &["show_run", "show_job"];

/// Members of a body that are given by their place, after the parameters of the path.
const PLACED: &[(&str, &[&str])] = &[("start_run", &["workflow"])];

/// Operations whose last parameter of the path may be left out: the newest version is meant then.
const NEWEST: &[&str] = &["show_workflow"];

/// Operations whose body comes as a file.
const FILES: &[&str] = &["register_workflow", "start_runs", "publish_events"];

/// Descriptions of the groups.
const GROUPS: &[(&str, &str)] = &[
    ("run", "Start, inspect and act on runs"),
    ("workflow", "Register, inspect, pause and migrate workflows"),
    ("credential", "List, create, rotate and revoke credentials on a server"),
    ("database-role", "Grant the namespace to roles of the database"),
    ("worker", "List workers"),
    ("signal", "Send signals to runs by their business key"),
    (
        "start-request",
        "Inspect, retry and dismiss starts that applications requested in the database",
    ),
    ("contract", "Register, check and retire shapes of documents"),
    ("transform", "Map documents of one contract to another"),
    ("source", "Create, change and list who sends documents"),
    ("hint", "Find documents by identifiers that they had"),
    ("reprocessing", "Process many documents of sources again"),
    ("mapping-problem", "List why documents cannot be mapped"),
    ("erasure", "Erase what is known of somebody"),
    ("link", "Say to which entities ids of other systems belong"),
    ("link-conflict", "List and resolve claims of ids that belong to others"),
    ("import", "List, show and cancel imports of files that sources sent"),
    ("intake", "List, show and reprocess documents that sources sent"),
    ("event", "Append and read events of the log"),
    ("subscription", "Start runs for events"),
    ("cursor", "Keep where readers of the log have come to"),
    ("act", "List what people did"),
    ("effect", "Find what stands in other systems and should not, or may"),
    ("plan", "Inspect, change, approve and apply undos that are planned"),
    ("incident", "Inspect and resolve incidents"),
    ("job", "Act on many incidents or runs at once"),
    ("schedule", "Start runs by the calendar"),
    ("queue", "Inspect, limit and pause queues"),
    ("quota", "Show and set how much the namespace may have and ask for"),
    ("fact", "Inspect, establish and withdraw facts that runs wait for"),
    ("key", "Show which run holds a serial key, and which wait"),
];

impl Verb {
    /// The second name, if there is one.
    pub(crate) fn alias(&self) -> Option<&'static str> {
        let ours = |alias: &&(&str, &str, &str)| (alias.0, alias.1) == (&*self.group, &*self.name);
        ALIASES.iter().find(ours).map(|alias| alias.2)
    }

    /// Returns whether it concerns one run, which is given by its id or its business key.
    pub(crate) fn is_about_a_run(&self) -> bool {
        let path = &self.operation.path;
        path == "/v1/runs/{id}" || path.starts_with("/v1/runs/{id}/")
    }

    /// Returns whether the body is read from a file.
    pub(crate) fn takes_file(&self) -> bool {
        FILES.contains(&self.operation.id.as_str())
    }

    /// Returns whether `field` of the path may be omitted, for the newest version.
    pub(crate) fn means_newest_without(&self, field: &Field) -> bool {
        NEWEST.contains(&self.operation.id.as_str()) && field.name == "version"
    }

    /// The members of the body that are given by their place, in order.
    pub(crate) fn placed(&self) -> &'static [&'static str] {
        let found = PLACED.iter().find(|(id, _)| *id == self.operation.id);
        found.map_or(&[], |(_, names)| names)
    }

    /// As it is typed: `run cancel`.
    pub(crate) fn words(&self) -> String {
        format!("{} {}", self.group, self.name).trim().to_owned()
    }
}

/// Returns the description of a group.
pub(crate) fn about(group: &str) -> String {
    let known = GROUPS.iter().find(|(name, _)| *name == group);
    known.map_or_else(|| format!("Everything about a {group}"), |(_, about)| (*about).to_owned())
}

/// All verbs that ask a server, by group and name. No two are named the same.
pub(crate) fn all() -> Vec<Verb> {
    let mut named: BTreeMap<(String, String), Verb> = BTreeMap::new();
    for operation in operation::all() {
        if WITHOUT_VERB.iter().any(|(id, _)| *id == operation.id) {
            continue;
        }
        let (group, mut name) = name_of(&operation);
        if named.contains_key(&(group.clone(), name.clone())) {
            name = operation.id.replace('_', "-");
        }
        if WATCHED.contains(&operation.id.as_str()) {
            let watch = Verb {
                group: group.clone(),
                name: "watch".to_owned(),
                operation: operation.clone(),
                does: Does::Watch,
            };
            named.insert((group.clone(), watch.name.clone()), watch);
        }
        let verb = Verb { group: group.clone(), name: name.clone(), operation, does: Does::Print };
        named.insert((group, name), verb);
    }
    named.into_values().collect()
}

/// Group and name. `GET /v1/runs` is `run list`, `GET /v1/runs/{id}` is `run show`, `POST /v1/runs/{id}/cancel` is
/// `run cancel`.
fn name_of(operation: &Operation) -> (String, String) {
    let segments: Vec<&str> = operation.path.split('/').skip(2).collect();
    let first = segments.first().copied().unwrap_or_default();
    let Some(group) = first.strip_suffix('s').filter(|_| first != "status") else {
        return match segments.len() {
            1 => (String::new(), first.to_owned()),
            _ => (first.to_owned(), by_shape(&operation.method, &segments)),
        };
    };
    let known = NAMES.iter().find(|(id, _)| *id == operation.id);
    let name = known
        .map_or_else(|| by_shape(&operation.method, &segments), |(_, name)| (*name).to_owned());
    (group.to_owned(), name)
}

fn by_shape(method: &str, segments: &[&str]) -> String {
    let last = segments.last().copied().unwrap_or_default();
    let one = last.starts_with('{');
    if one && segments.len() > 2 {
        // One of what belongs to something: `run signal`.
        let kind = segments[segments.len() - 2].trim_end_matches('s');
        return match method {
            "PUT" | "PATCH" => format!("set-{kind}"),
            "DELETE" => format!("delete-{kind}"),
            _ => kind.to_owned(),
        };
    }
    let word = match (method, segments.len(), one) {
        ("GET", 1, _) => "list",
        ("POST", 1, _) => "create",
        ("GET", _, true) => "show",
        ("PUT" | "PATCH", _, true) => "set",
        ("DELETE", _, true) => "delete",
        ("POST", _, true) => "create",
        ("PUT", _, false) => return format!("set-{last}"),
        ("DELETE", _, false) => return format!("delete-{last}"),
        _ => last,
    };
    word.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_from_routes() {
        let all = all();
        let words = |id: &str| {
            let of = all.iter().filter(|verb| verb.operation.id == id);
            of.map(Verb::words).collect::<Vec<_>>()
        };
        assert_eq!(words("list_runs"), ["run list"]);
        assert_eq!(words("show_run"), ["run show", "run watch"]);
        assert_eq!(words("cancel_run"), ["run cancel"]);
        assert_eq!(words("run_history"), ["run history"]);
        assert_eq!(words("list_items"), ["run items"]);
        assert_eq!(words("start_run"), ["run start"]);
        assert_eq!(words("register_workflow"), ["workflow register"]);
        assert_eq!(words("whoami"), ["whoami"]);
        assert!(words("claim_tasks").is_empty());
    }

    #[test]
    fn the_tables_name_operations_that_exist() {
        let all = operation::all();
        let names = NAMES.iter().map(|(id, _)| *id);
        let placed = PLACED.iter().map(|(id, _)| *id);
        let without = WITHOUT_VERB.iter().map(|(id, _)| *id);
        let lists = WATCHED.iter().chain(FILES).chain(NEWEST).copied();
        for id in names.chain(placed).chain(without).chain(lists) {
            assert!(all.iter().any(|operation| operation.id == id), "{id}");
        }
    }
}

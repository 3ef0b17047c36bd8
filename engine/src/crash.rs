//! Points at which a node can be made to die, before and after each of its commits: for the chaos harness.
//!
//! Without the feature `crash-points` all of this is compiled to nothing, and no name of a point is in the program.

/// A point at which a node can be made to die.
macro_rules! crash_point {
    ($name:expr) => {
        #[cfg(feature = "crash-points")]
        $crate::crash::pass($name);
    };
}
pub(crate) use crash_point;

/// A commit, with the points before and after it.
macro_rules! commit {
    ($name:literal, $commit:expr) => {{
        $crate::crash::crash_point!(concat!($name, ".before"));
        let done = $commit;
        $crate::crash::crash_point!(concat!($name, ".after"));
        done
    }};
}
pub(crate) use commit;

/// The commits of a node; each has a point before and one after it.
#[cfg(any(test, feature = "crash-points"))]
pub const COMMITS: &[&str] = &[
    "alone_agree",
    "alone_ask",
    "alone_forget",
    "alone_give_up",
    "batch",
    "completions_close",
    "completions_forget",
    "console_sessions_create",
    "console_sessions_end",
    "contracts_change",
    "contracts_register",
    "credentials_create",
    "credentials_revoke",
    "credentials_rotate",
    "credentials_used",
    "data_erasure_create",
    "data_erasure_erase",
    "data_erasure_pass",
    "data_erasure_take",
    "definitions_register",
    "emitted_taken",
    "erasures_ask",
    "erasures_done",
    "erasures_pass",
    "erasures_refuse",
    "facts_act",
    "fair_keys_forget",
    "fences_close",
    "fences_open",
    "fences_revoke",
    "grants_change",
    "idempotency_drop_key",
    "idempotency_forget",
    "idempotency_free",
    "idempotency_keep",
    "idempotency_reserve",
    "import_abandon",
    "import_begin",
    "import_cancel",
    "import_count",
    "import_finish",
    "import_receive",
    "import_take",
    "imports_forget",
    "incidents_assign",
    "incidents_note",
    "indexes_mend",
    "intake_accept",
    "intake_note",
    "intake_refuse",
    "jobs_came_back",
    "jobs_claim",
    "jobs_create",
    "jobs_forget",
    "jobs_give_back",
    "jobs_prove",
    "jobs_record",
    "jobs_turn",
    "links_change",
    "links_claim",
    "log_append",
    "log_cursor",
    "log_drop",
    "log_head_mend",
    "log_number",
    "log_positions_restore",
    "migrations_claim",
    "migrations_create",
    "migrations_finish",
    "migrations_go_on",
    "migrations_note",
    "nodes_beat",
    "nodes_forget",
    "nodes_join",
    "nodes_leave",
    "nodes_probe",
    "nodes_set_back",
    "open_effects_forget",
    "partitions_drop",
    "partitions_prepare",
    "pauses_guard",
    "pauses_let_go",
    "pauses_released",
    "pauses_turn",
    "permits_give",
    "permits_lapse",
    "permits_look",
    "permits_over",
    "permits_take_back",
    "plans_approve",
    "plans_begin",
    "plans_change",
    "plans_end",
    "plans_forget",
    "plans_insert",
    "plans_put_back",
    "queues_change",
    "queues_remove",
    "queues_sweep_turn",
    "quotas_set",
    "ready_reserve",
    "reprocess_count",
    "reprocess_create",
    "reprocess_take",
    "required_told",
    "retention_delete",
    "retention_set",
    "runs_adrift",
    "runs_park",
    "runs_put_aside",
    "runs_take_over",
    "runs_wake",
    "schedules_create",
    "schedules_delete",
    "schedules_forget",
    "schedules_start_by_hand",
    "schedules_take",
    "schedules_write",
    "sequence_close",
    "sequence_enter",
    "sequence_forget",
    "sequence_note",
    "sequence_overdue",
    "sequence_promote",
    "sequence_release",
    "sequence_restore",
    "sequence_skip",
    "sequence_told",
    "sequence_wait_again",
    "signals_forget",
    "signals_forget_old",
    "signals_keep",
    "snapshots_keep",
    "sources_change",
    "starts_decide",
    "starts_forget",
    "starts_put_back",
    "starts_refuse",
    "starts_reserve",
    "starts_started",
    "subscription_advance",
    "subscription_change",
    "subscription_let_go",
    "subscription_pass",
    "subscription_rest",
    "subscription_started",
    "subscription_take",
    "subscription_turns",
    "tasks_rank",
    "timers_failed",
    "transforms_change",
    "undo_approvals_set",
    "workers_come",
    "workers_forget",
    "workers_go",
    "workers_sign_off",
];

/// Points that are neither right before nor right after a commit.
#[cfg(any(test, feature = "crash-points"))]
pub const BETWEEN: &[&str] =
    &["batch.refused", "batch.answered", "batch.fenced", "fences_revoke.half"];

#[cfg(feature = "crash-points")]
mod armed {
    use std::collections::HashMap;
    use std::io::Write as _;
    use std::sync::{LazyLock, Mutex, PoisonError};

    /// Number of passages that are noted for each point.
    const NOTED: u32 = 30;
    /// `NAME:N`: the process dies at the N-th passage of this point.
    static CHOSEN: LazyLock<Option<(String, u32)>> = LazyLock::new(|| {
        let chosen = std::env::var("BACKSTITCH_CRASH").ok()?;
        let (name, passage) = chosen.rsplit_once(':')?;
        Some((name.to_owned(), passage.parse().ok()?))
    });
    /// A file that gets a line for each of the first passages of each point.
    static SEEN: LazyLock<Option<String>> =
        LazyLock::new(|| std::env::var("BACKSTITCH_CRASH_SEEN").ok());
    static PASSAGES: LazyLock<Mutex<HashMap<&'static str, u32>>> = LazyLock::new(Mutex::default);

    /// Marks the point `name`; the process dies here, without any cleanup, if it was configured to.
    pub fn pass(name: &'static str) {
        let mut passages = PASSAGES.lock().unwrap_or_else(PoisonError::into_inner);
        let passage = passages.entry(name).or_default();
        *passage += 1;
        if *passage <= NOTED
            && let Some(path) = &*SEEN
            && let Ok(mut file) = std::fs::File::options().create(true).append(true).open(path)
        {
            // One write, so that a line is whole whatever happens next.
            let _ = file.write_all(format!("{name}:{passage}\n").as_bytes());
        }
        if CHOSEN.as_ref().is_some_and(|(chosen, at)| chosen == name && at == passage) {
            std::process::abort();
        }
    }
}
#[cfg(feature = "crash-points")]
pub use armed::pass;

/// Returns all points, by name.
#[cfg(any(test, feature = "crash-points"))]
#[must_use]
pub fn points() -> Vec<String> {
    let around = |commit: &&str| [format!("{commit}.before"), format!("{commit}.after")];
    let between = BETWEEN.iter().map(|point| (*point).to_owned());
    COMMITS.iter().flat_map(around).chain(between).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    /// Finds the first texts in quotes after each `mark` in the sources.
    fn named_after(mark: &str, dir: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                named_after(mark, &path, found);
            } else if !path.ends_with("crash.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let named = text.split(mark).skip(1).filter_map(|rest| rest.split('"').nth(1));
                found.extend(named.map(str::to_owned));
            }
        }
    }

    fn assert_listed(mark: &str, listed: &[&str]) {
        let mut found = BTreeSet::new();
        named_after(mark, &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        let listed: BTreeSet<String> = listed.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(found, listed, "the names in the sources and those in the list");
    }

    /// Finds every commit of a transaction beside the store's own, which are one call each for those who make
    /// them.
    fn bare_commits(dir: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with("store") {
                    bare_commits(&path, found);
                }
            } else if !path.ends_with("crash.rs") && !path.ends_with("doctor.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let bare = |line: &&str| line.contains(".commit()") && !line.contains("commit!(");
                let lines = text.lines().filter(bare);
                found.extend(lines.map(|line| format!("{}: {line}", path.display())));
            }
        }
    }

    #[test]
    fn every_commit_has_its_points() {
        let mut found = Vec::new();
        bare_commits(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        assert!(found.is_empty(), "commits without crash points: {found:#?}");
    }

    #[test]
    fn every_point_in_the_sources_is_listed() {
        assert_listed(concat!("commit", "!("), super::COMMITS);
        assert_listed(concat!("crash_point", "!("), super::BETWEEN);
    }
}

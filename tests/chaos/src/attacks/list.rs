//! All attacks by name.

use std::pin::Pin;
use std::sync::Arc;

use super::arms::Arms;
use super::{children, connections, expressions, reads, schemas, sql, work};

type Doing = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// An attack.
pub(super) struct Attack {
    /// Its name.
    pub(super) name: &'static str,
    /// Description in a few words.
    pub(super) what: &'static str,
    /// Does it.
    pub(super) run: fn(Arc<Arms>) -> Doing,
}

/// One line of the list.
macro_rules! attacks {
    ($($name:literal $what:literal $run:path,)+) => {
        /// All attacks.
        pub(super) const ALL: &[Attack] = &[$(Attack {
            name: $name,
            what: $what,
            run: |arms| Box::pin($run(arms)),
        },)+];
    };
}

attacks! {
    "validate-patterns" "dear patterns are validated" schemas::validate_patterns,
    "validate-allowed" "the dearest allowed schemas are validated" schemas::validate_allowed,
    "register-patterns" "definitions that compile into much memory" schemas::register_patterns,
    "references" "references that multiply" schemas::references,
    "backtracking" "texts that a pattern goes back over" schemas::backtracking,
    "evaluation" "inputs as dear to evaluate as is allowed" schemas::evaluation,
    "signal-schemas" "signals held to dear schemas" schemas::signals,
    "output-schemas" "outputs held to dear schemas" schemas::outputs,
    "amplified-items" "items that build far more than is allowed" expressions::amplified_items,
    "largest-items" "items that build as much as is allowed" expressions::largest_items,
    "comparisons" "conditions that compare large documents" expressions::comparisons,
    "many-steps" "500 steps, each with the whole input" expressions::many_steps,
    "wide-fan-outs" "fan-outs over 120,000 items" expressions::wide_fan_outs,
    "forks" "children with three children each" children::forks,
    "wide-forks" "children with 400 children each" children::wide_forks,
    "chains" "children with a child each, from many roots" children::chains,
    "stopped-forks" "a fork bomb is stopped by its owner" children::stopped_forks,
    "histories" "large pages of a history" reads::histories,
    "slow-readers" "answers that nobody takes" reads::slow_readers,
    "trees" "trees of 400 runs" reads::trees,
    "filters" "lists that find next to nothing" reads::filters,
    "jobs" "jobs over all runs" reads::jobs,
    "idle" "idle connections" connections::idle,
    "reconnects" "a connection for each request" connections::reconnects,
    "half-headers" "headers that never end" connections::half_headers,
    "half-bodies" "bodies of 16 MiB that never end" connections::half_bodies,
    "many-half-bodies" "bodies of 1 MiB that never end" connections::many_half_bodies,
    "waits-for-runs" "waits for the end of a run" connections::waits_for_runs,
    "waits-for-tasks" "claims that wait" connections::waits_for_tasks,
    "queue-names" "claims with 1,000 queue names each" connections::many_queue_names,
    "batches" "4 batches of 1,000 starts at once" work::batches,
    "many-batches" "24 batches of 1,000 starts at once" work::many_batches,
    "starts" "single starts without a pause" work::starts,
    "large-starts" "inputs, keys and labels of the largest size" work::large_starts,
    "one-line" "starts that all wait for one serial key" work::one_line,
    "empty-claims" "claims that find nothing" work::empty_claims,
    "large-outputs" "items that all give outputs as large as is allowed" work::large_outputs,
    "false-reports" "reports of tasks that nobody has" work::false_reports,
    "early-signals" "large signals for runs that are not there" work::early_signals,
    "schedules" "schedules that are due each second" work::schedules,
    "definitions" "definitions by the thousand" work::definitions,
    "acts" "a run is paused and resumed without end" work::acts,
    "logins" "secrets that nobody has" work::logins,
    "sql-starts" "starts by SQL with inputs of 100 MB" sql::starts,
}

/// Returns the attack of this name.
#[must_use]
pub(super) fn find(name: &str) -> Option<&'static Attack> {
    ALL.iter().find(|attack| attack.name == name)
}

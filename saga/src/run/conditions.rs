//! Conditions of a run by which it is searched for.

use super::Run;

/// Conditions by which runs are searched: those that follow from the journal alone, and those of runs that are put
/// aside. All others follow from queues, workers and the clock, and are computed when a run is read.
pub const SEARCHED: [&str; 17] = [
    "DependencyUnmet",
    "DependencyWithdrawn",
    "Erased",
    "IncidentOpen",
    "JournalDamaged",
    "KeyBlocked",
    "LateResult",
    "Orphaned",
    "ParentPaused",
    "Paused",
    "RetryScheduled",
    "SignalAwaited",
    "SignalRefused",
    "StartDelayed",
    "StepUnknown",
    "TimerStopped",
    "WorkflowPaused",
];

/// Checks the name of a condition by which runs are to be searched.
///
/// # Errors
/// A sentence with all that can be searched for.
pub fn check_searched(name: &str) -> Result<(), String> {
    if SEARCHED.contains(&name) {
        return Ok(());
    }
    let instead = match name {
        "NoWorker" => {
            ". NoWorker no journal says: GET /v1/workers lists the handlers that are there, and the metric \
             backstitch_queue_oldest_age_seconds the queues that nobody works on"
        }
        _ => "",
    };
    Err(format!(
        "runs are searched by {}; the others follow from workers, queues and the clock, and stand in a run when it is read{instead}",
        SEARCHED.join(", ")
    ))
}

impl Run {
    /// Returns the types of the conditions that follow from the journal alone, sorted, without repetition, as indexed:
    /// `DependencyWithdrawn Erased IncidentOpen LateResult Orphaned RetryScheduled SignalAwaited SignalRefused
    /// StepUnknown`, and one for each kind of hold.
    #[must_use]
    pub fn conditions(&self) -> Vec<&'static str> {
        let mut kinds: Vec<_> = self.holds().map(|hold| hold.kind.condition()).collect();
        if !self.header.incidents.is_empty() {
            kinds.push("IncidentOpen");
        }
        if self.header.late_result.or(self.header.contradicted).is_some() {
            kinds.push("LateResult");
        }
        if self.has_withdrawn() {
            kinds.push("DependencyWithdrawn");
        }
        if self.header.erased.is_some() {
            kinds.push("Erased");
        }
        if self.header.orphaned.is_some() {
            kinds.push("Orphaned");
        }
        if self.tally.awaiting_signal() > 0 {
            kinds.push("SignalAwaited");
        }
        if !self.header.refused_signals.is_empty() {
            kinds.push("SignalRefused");
        }
        if self.tally.backoff > 0 {
            kinds.push("RetryScheduled");
        }
        if self.tally.unknown > 0 {
            kinds.push("StepUnknown");
        }
        kinds.sort_unstable();
        kinds.dedup();
        debug_assert!(kinds.iter().all(|kind| SEARCHED.contains(kind)), "{kinds:?}");
        kinds
    }
}

//! Conditions of a run by which it is searched for.

use super::Run;

impl Run {
    /// The types of the conditions that follow from the journal alone, sorted, without repetition, as indexed:
    /// `DependencyWithdrawn IncidentOpen LateResult Orphaned RetryScheduled SignalAwaited SignalRefused StepUnknown`, and one for each kind of hold.
    #[must_use]
    pub fn conditions(&self) -> Vec<&'static str> {
        let mut kinds: Vec<_> = self.holds().map(|hold| hold.kind.condition()).collect();
        if !self.facts.incidents.is_empty() {
            kinds.push("IncidentOpen");
        }
        if self.facts.late_result.or(self.facts.contradicted).is_some() {
            kinds.push("LateResult");
        }
        if self.has_withdrawn() {
            kinds.push("DependencyWithdrawn");
        }
        if self.facts.orphaned.is_some() {
            kinds.push("Orphaned");
        }
        if self.tally.awaiting_signal() > 0 {
            kinds.push("SignalAwaited");
        }
        if !self.facts.refused_signals.is_empty() {
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
        kinds
    }
}

//! A run: the fold of its journal.

use std::sync::Arc;

use crate::protocol::{Outcome, Plan, RunView, Scope, State, StepView, TaskOffer};
use crate::{Command, Graph, Record, Refusal, Reply, RunId, StepPath, TaskKey, Time};

/// A run: the fold of its journal.
pub struct Run {
    id: RunId,
    graph: Arc<Graph>,
}

/// Decides about `command` at the instant `at`: applies to `run` what it makes happen and appends it to `record`.
///
/// `record.at` is set to `at`, or to the run's last instant if that is later. The same command may be decided again
/// after it was accepted: it is answered the same and appends nothing. A refused command may still append an event
/// that only tells (`late_result`).
///
/// # Errors
/// A [`Refusal`] when the rules do not allow it.
pub fn decide(
    run: &mut Run,
    command: Command,
    at: Time,
    record: &mut Record,
) -> Result<Reply, Refusal> {
    let _ = (run, command, at, record);
    todo!()
}

impl Run {
    /// A run before its first record. `graph` must be the definition that its `Started` event names.
    #[must_use]
    pub fn new(id: RunId, graph: Arc<Graph>) -> Run {
        Run { id, graph }
    }

    /// Folds one record into the run. Total: a record that was written is applied without judgement.
    pub fn apply(&mut self, record: &Record) {
        let _ = record;
        todo!()
    }

    /// The run's id.
    #[must_use]
    pub fn id(&self) -> RunId {
        self.id
    }

    /// The definition it runs on.
    #[must_use]
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// How many records it has folded: the `seq` of the last, 0 before the first. `decide` does not count; the one
    /// who appends the record calls [`Run::sealed`].
    #[must_use]
    pub fn seq(&self) -> u64 {
        todo!()
    }

    /// Counts a record that `decide` made and that now stands in the journal.
    pub fn sealed(&mut self) {
        todo!()
    }

    /// The state, as indexed and shown.
    #[must_use]
    pub fn state(&self) -> State {
        todo!()
    }

    /// The outcome, once it ended.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        todo!()
    }

    /// The types of the conditions that follow from the journal alone, sorted, without repetition, as indexed:
    /// `IncidentOpen LateResult RetryScheduled StepUnknown`.
    #[must_use]
    pub fn conditions(&self) -> Vec<&'static str> {
        todo!()
    }

    /// When it started.
    #[must_use]
    pub fn started_at(&self) -> Time {
        todo!()
    }

    /// When it ended.
    #[must_use]
    pub fn ended_at(&self) -> Option<Time> {
        todo!()
    }

    /// Whether a worker holds one of its tasks.
    #[must_use]
    pub fn in_flight(&self) -> bool {
        todo!()
    }

    /// When [`Command::Tick`] should come next; `None` when no timer is running.
    #[must_use]
    pub fn next_due(&self) -> Option<Time> {
        todo!()
    }

    /// Whether `task` is on offer and not handed out.
    #[must_use]
    pub fn is_offered(&self, task: &TaskKey) -> bool {
        let _ = task;
        todo!()
    }

    /// All tasks on offer and not handed out.
    pub fn offered(&self) -> Vec<TaskKey> {
        todo!()
    }

    /// The queue and the handler name of a task.
    #[must_use]
    pub fn route(&self, task: &TaskKey) -> Option<(&str, &str)> {
        let _ = task;
        todo!()
    }

    /// What a worker needs to know to do `task`.
    #[must_use]
    pub fn offer(&self, task: &TaskKey) -> Option<TaskOffer> {
        let _ = task;
        todo!()
    }

    /// What undoing `scope` would do now.
    ///
    /// # Errors
    /// A [`Refusal`] when it could not be undone so.
    pub fn plan(&self, scope: &Scope, force: bool, at: Time) -> Result<Plan, Refusal> {
        let _ = (scope, force, at);
        todo!()
    }

    /// Everything there is to know, as seen at `at`.
    #[must_use]
    pub fn view(&self, at: Time) -> RunView {
        let _ = at;
        todo!()
    }

    /// One step.
    #[must_use]
    pub fn step_view(&self, step: &StepPath) -> Option<StepView> {
        let _ = step;
        todo!()
    }

    /// Items of a map step from index `from` on, at most `limit`, only those in `state` when given.
    #[must_use]
    pub fn items(
        &self,
        step: &str,
        state: Option<&str>,
        from: u32,
        limit: usize,
    ) -> Option<Vec<StepView>> {
        let _ = (step, state, from, limit);
        todo!()
    }

    /// The run as text, to begin a fold from instead of its whole journal.
    #[must_use]
    pub fn snapshot(&self) -> String {
        todo!()
    }

    /// The run that [`Run::snapshot`] wrote.
    ///
    /// # Errors
    /// When the text is not a snapshot of a run on this graph.
    pub fn restore(id: RunId, graph: Arc<Graph>, snapshot: &str) -> Result<Run, String> {
        let _ = (id, graph, snapshot);
        todo!()
    }

    /// How many events it has folded; a measure of how long folding takes.
    #[must_use]
    pub fn events_folded(&self) -> u64 {
        todo!()
    }
}

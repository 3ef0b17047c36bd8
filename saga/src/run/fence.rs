//! Tasks that a worker may complete in a database transaction of its own.

use super::Run;
use crate::{Action, Task, TaskKey};

impl Run {
    /// Returns whether the definition allows the worker to complete the task in a transaction. A verification
    /// changes nothing.
    #[must_use]
    pub fn is_transactional(&self, task: &TaskKey) -> bool {
        let step = self.graph.position(&task.step.step);
        task.action != Action::Verify && step.is_some_and(|step| self.spec(step).transactional)
    }

    /// Returns all such tasks that workers hold.
    #[must_use]
    pub fn fenced(&self) -> Vec<TaskKey> {
        let steps = &self.graph.definition.steps;
        let transactional = |task: &Task| task.transactional;
        let any = steps.iter().any(|step| {
            let mapped = step.map.as_ref().map(|map| &map.task);
            step.task.as_ref().or(mapped).is_some_and(transactional)
        });
        if !any {
            return Vec::new();
        }
        self.leased().into_iter().filter(|task| self.is_transactional(task)).collect()
    }
}

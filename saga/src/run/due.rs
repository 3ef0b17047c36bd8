//! Times at which a step or item changes without a command.

use super::state::{Activity, TaskState, Undo};
use crate::{Action, Task, Time};

impl Activity {
    /// Returns the time at which a person is informed that the undo takes long; `None` if that was done
    /// or nobody can undo it now.
    pub(crate) fn slow_at(&self, task: &Task) -> Option<Time> {
        let held = matches!(self.undo, Undo::Active(TaskState::Held | TaskState::Nobody));
        let told = self.aside.as_ref().is_some_and(|aside| aside.slow);
        if !matches!(self.undo, Undo::Active(_)) || held || told {
            return None;
        }
        let undo = task.compensate.as_ref()?;
        Some(self.tries(Action::Compensate).since.after(undo.slow_after))
    }

    /// Returns the time at which it changes without a command.
    pub(crate) fn next_due(&self, task: &Task) -> Option<Time> {
        let told = self.aside.as_ref().and_then(|aside| aside.told.as_ref()?.again);
        self.current_due(task).into_iter().chain(told).min()
    }

    /// Returns the time at which it is retried, its lease ends, or it is given up. A warning about a slow undo does not
    /// count.
    pub(crate) fn next_turn(&self, task: &Task) -> Option<Time> {
        match self.current()? {
            (Action::Compensate, hand) => Activity::hand_due(Action::Compensate, hand, task),
            _ => self.next_due(task),
        }
    }

    /// Returns the same for the task that is current.
    fn current_due(&self, task: &Task) -> Option<Time> {
        let (action, hand) = self.current()?;
        let step = match action {
            Action::Compensate => self.slow_at(task),
            Action::Forward | Action::Verify => {
                task.timeouts.step.map(|span| self.tries.since.after(span))
            }
        };
        Activity::hand_due(action, hand, task).into_iter().chain(step).min()
    }

    /// Returns the time at which the state of a task changes without a command.
    fn hand_due(action: Action, hand: &TaskState, task: &Task) -> Option<Time> {
        match hand {
            TaskState::Nobody | TaskState::Held => None,
            TaskState::Offered { since } if action == Action::Forward => {
                task.timeouts.to_start.map(|span| since.after(span))
            }
            TaskState::Offered { .. } => None,
            TaskState::Leased { since, until, .. } => {
                Some((*until).min(since.after(task.timeouts.attempt)))
            }
            TaskState::Backoff { until } | TaskState::Timer { until } => Some(*until),
            TaskState::Signal { until, .. } => *until,
            TaskState::Child { again, .. } => Some(*again),
        }
    }
}

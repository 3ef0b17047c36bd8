//! Which tasks are in which workers' hands, as far as this node knows: by the records that it wrote and the runs that it
//! loaded. Of a run that another node has moved on since it may say too much, never too little.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use backstitch_saga::{Action, Event, Run, RunId, StepPath, TaskKey};

use super::{HandOver, name_of};

/// A task that came into a worker's hands, or left them.
pub(crate) enum Move {
    Taken { namespace: Arc<str>, worker: Arc<str>, run: RunId, task: TaskKey },
    Over { run: RunId, task: TaskKey },
}

impl Move {
    /// The moves that an event of `run` tells, as far as they still hold after its record.
    pub(crate) fn of(namespace: &Arc<str>, run: &Run, event: &Event) -> Option<Move> {
        let (step, action, attempt) = match event {
            Event::Leased { step, action, attempt, .. }
            | Event::Released { step, action, attempt }
            | Event::Failed { step, action, attempt, .. }
            | Event::Lost { step, action, attempt, .. } => (step, *action, attempt),
            Event::Succeeded { step, attempt: attempt @ 1.., .. } => {
                (step, Action::Forward, attempt)
            }
            Event::Undone { step, attempt } => (step, Action::Compensate, attempt),
            Event::Happened { step, attempt } | Event::NotHappened { step, attempt } => {
                (step, Action::Verify, attempt)
            }
            _ => return None,
        };
        let task = TaskKey { step: step.clone(), action, attempt: *attempt };
        let (namespace, id) = (namespace.clone(), run.id());
        Some(match run.holder(&task) {
            Some(worker) => Move::Taken { namespace, worker: worker.clone(), run: id, task },
            None => Move::Over { run: id, task },
        })
    }
}

struct Holder {
    namespace: Arc<str>,
    /// `worker/session`.
    worker: Arc<str>,
}

/// The tasks in workers' hands.
#[derive(Default)]
pub(super) struct Hands {
    held: BTreeMap<(RunId, TaskKey), Holder>,
}

impl Hands {
    pub(super) fn take(&mut self, one: Move) {
        match one {
            Move::Taken { namespace, worker, run, task } => {
                self.held.insert((run, task), Holder { namespace, worker });
            }
            Move::Over { run, task } => {
                self.held.remove(&(run, task));
            }
        }
    }

    /// Of the tasks of `run`, keeps those of which `is_held` says so. Answers whether any went.
    pub(super) fn keep_of(&mut self, run: RunId, is_held: impl Fn(&TaskKey, &str) -> bool) -> bool {
        let first = TaskKey { step: StepPath::step(""), action: Action::Forward, attempt: 0 };
        let of_run = self.held.range((Bound::Included((run, first)), Bound::Unbounded));
        let of_run = of_run.take_while(|((other, _), _)| *other == run);
        let gone = of_run.filter(|((_, task), holder)| !is_held(task, &holder.worker));
        let gone: Vec<(RunId, TaskKey)> = gone.map(|(key, _)| key.clone()).collect();
        gone.iter().for_each(|key| drop(self.held.remove(key)));
        !gone.is_empty()
    }

    /// The worker that has `task`.
    pub(super) fn holder(&self, run: RunId, task: &TaskKey) -> Option<&str> {
        Some(&self.held.get(&(run, task.clone()))?.worker)
    }

    /// The tasks in the hands of all sessions of a worker.
    pub(super) fn of_worker<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> impl Iterator<Item = &'a (RunId, TaskKey)> {
        let of = move |holder: &Holder| {
            *holder.namespace == *namespace && name_of(&holder.worker) == name
        };
        self.held.iter().filter(move |(_, holder)| of(holder)).map(|(key, _)| key)
    }
}

impl HandOver {
    /// Records say so: these tasks came into workers' hands, or left them. Before they are delivered.
    pub(crate) fn moved(&self, moves: impl ExactSizeIterator<Item = Move>) {
        if moves.len() == 0 {
            return;
        }
        let mut state = self.lock();
        let idle = state.alone.is_idle();
        for one in moves {
            if let (false, Move::Taken { run, task, .. }) = (idle, &one) {
                state.alone.taken(*run, task);
            }
            state.hands.take(one);
        }
        if !idle {
            self.alone.notify_one();
        }
    }

    /// A run was loaded: what is known of its tasks is as it says.
    pub(crate) fn loaded(&self, namespace: &Arc<str>, run: &Run) {
        let leased = run.leased();
        let mut state = self.lock();
        let id = run.id();
        state
            .hands
            .keep_of(id, |task, worker| run.holder(task).is_some_and(|holder| **holder == *worker));
        for task in leased {
            let Some(worker) = run.holder(&task).cloned() else { continue };
            if run.is_suspect(&task) {
                state.alone.found(namespace, name_of(&worker), id, &task);
                self.alone.notify_one();
            }
            state.hands.take(Move::Taken { namespace: namespace.clone(), worker, run: id, task });
        }
    }
}

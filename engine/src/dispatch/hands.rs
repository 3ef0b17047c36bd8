//! Tasks that workers hold, as far as this node knows: by the records that it wrote and the runs that it loaded. Of a
//! run that another node has moved on since it may say too much, never too little.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backstitch_saga::{Effect, Run, RunId, TaskKey, Time};
use uuid::Uuid;

use super::sessions::Session;
use super::{Dispatcher, State, Unfetched, name_of, session_of};
use crate::maps::{FastMap, number_of};

/// A task that a worker began or ceased to hold.
pub(crate) enum Move {
    Taken(RunId, TaskKey, Holder),
    Over(RunId, TaskKey),
}

impl Move {
    /// Returns the move that an effect of a record of `run` means, as far as it still holds after the
    /// record.
    pub(crate) fn of(namespace: &Arc<str>, run: &Run, effect: &Effect) -> Option<Move> {
        // A lease may have ended in the record that began it; an attempt that is over stays so.
        let (task, holder) = match effect {
            Effect::TaskLeased(task) => (task, Holder::of(namespace, run, task)),
            Effect::TaskReleased(task) | Effect::AttemptEnded(task, _) => (task, None),
            _ => return None,
        };
        Some(match holder {
            Some(holder) => Move::Taken(run.id(), task.clone(), holder),
            None => Move::Over(run.id(), task.clone()),
        })
    }
}

/// The holder of a task.
pub(crate) struct Holder {
    namespace: Arc<str>,
    /// `worker/session`.
    worker: Arc<str>,
    session: Option<Uuid>,
    /// The queue of the task, as a number.
    queue: u64,
    /// The beginning of its lease.
    since: Time,
}

impl Holder {
    fn of(namespace: &Arc<str>, run: &Run, task: &TaskKey) -> Option<Holder> {
        let open = run.open_task(task)?;
        let worker = open.worker?;
        Some(Holder {
            namespace: namespace.clone(),
            worker: worker.clone(),
            session: session_of(worker),
            queue: number_of(open.queue),
            since: open.since,
        })
    }
}

/// The tasks of a run that workers hold. Most runs have one, which costs no memory of its own.
#[derive(Default)]
struct Tasks {
    one: Option<(TaskKey, Holder)>,
    others: BTreeMap<TaskKey, Holder>,
}

impl Tasks {
    /// Returns who held the task before.
    fn insert(&mut self, task: TaskKey, holder: Holder) -> Option<Holder> {
        match &mut self.one {
            Some((one, before)) if *one == task => Some(std::mem::replace(before, holder)),
            None if !self.others.contains_key(&task) => {
                self.one = Some((task, holder));
                None
            }
            _ => self.others.insert(task, holder),
        }
    }

    fn remove(&mut self, task: &TaskKey) -> Option<Holder> {
        match self.one.take_if(|(one, _)| one == task) {
            Some((_, holder)) => Some(holder),
            None => self.others.remove(task),
        }
    }

    fn get(&self, task: &TaskKey) -> Option<&Holder> {
        let one = self.one.as_ref().filter(|(one, _)| one == task);
        one.map(|(_, holder)| holder).or_else(|| self.others.get(task))
    }

    fn is_empty(&self) -> bool {
        self.one.is_none() && self.others.is_empty()
    }

    fn iter(&self) -> impl Iterator<Item = (&TaskKey, &Holder)> {
        self.one.iter().map(|(task, holder)| (task, holder)).chain(&self.others)
    }
}

/// The tasks that workers hold.
#[derive(Default)]
pub(super) struct Hands {
    held: FastMap<RunId, Tasks>,
    /// Number of tasks that each session holds, by run.
    sessions: FastMap<Uuid, FastMap<RunId, u32>>,
}

impl Hands {
    /// Returns the session that holds a task now, and by this move.
    pub(super) fn take(&mut self, one: Move) -> Option<Uuid> {
        let (run, session, before) = match one {
            Move::Taken(run, task, holder) => {
                let session = holder.session;
                (run, session, self.held.entry(run).or_default().insert(task, holder))
            }
            Move::Over(run, task) => (run, None, self.remove(run, &task)),
        };
        let before = before.and_then(|holder| holder.session);
        if before == session {
            return None;
        }
        self.forget(before, run);
        if let Some(session) = session {
            *self.sessions.entry(session).or_default().entry(run).or_default() += 1;
        }
        session
    }

    fn remove(&mut self, run: RunId, task: &TaskKey) -> Option<Holder> {
        let tasks = self.held.get_mut(&run)?;
        let before = tasks.remove(task);
        if tasks.is_empty() {
            self.held.remove(&run);
        }
        before
    }

    /// Notes that a session holds one task of `run` less.
    fn forget(&mut self, session: Option<Uuid>, run: RunId) {
        let Some(session) = session else { return };
        let Some(runs) = self.sessions.get_mut(&session) else { return };
        if let Some(count) = runs.get_mut(&run) {
            *count -= 1;
            if *count == 0 {
                runs.remove(&run);
            }
        }
        if runs.is_empty() {
            self.sessions.remove(&session);
        }
    }

    /// Returns whether a session holds any task.
    pub(super) fn has_any(&self, session: Uuid) -> bool {
        self.sessions.contains_key(&session)
    }

    /// Returns the tasks of a run.
    fn of_run(&self, run: RunId) -> impl Iterator<Item = (&TaskKey, &Holder)> {
        self.held.get(&run).into_iter().flat_map(Tasks::iter)
    }

    /// Returns what was leased to a session in the queues of its claims and is not among what it holds.
    pub(super) fn missing(
        &self,
        session: &Session,
        holding: &BTreeSet<(RunId, TaskKey)>,
    ) -> Vec<Unfetched> {
        let runs = self.sessions.get(&session.id).into_iter().flat_map(FastMap::keys);
        let held = runs.flat_map(|run| self.of_run(*run).map(move |(task, by)| (*run, task, by)));
        let queues: Vec<u64> = session.queues().map(number_of).collect();
        let missing = held.filter(|(run, task, holder)| {
            holder.session == Some(session.id)
                && queues.contains(&holder.queue)
                && *holder.namespace == *session.namespace
                && !holding.contains(&(*run, (*task).clone()))
        });
        let unfetched = |(run, task, holder): (RunId, &TaskKey, &Holder)| Unfetched {
            run,
            task: task.clone(),
            session: session.id,
            since: holder.since,
        };
        missing.map(unfetched).collect()
    }

    /// Keeps the tasks of `run` for which `is_held` is true. Returns whether any was dropped.
    pub(super) fn keep_of(&mut self, run: RunId, is_held: impl Fn(&TaskKey, &str) -> bool) -> bool {
        let gone = self.of_run(run).filter(|(task, holder)| !is_held(task, &holder.worker));
        let gone: Vec<TaskKey> = gone.map(|(task, _)| task.clone()).collect();
        let any = !gone.is_empty();
        for task in gone {
            self.take(Move::Over(run, task));
        }
        any
    }

    /// Returns the worker that has `task`.
    pub(super) fn holder(&self, run: RunId, task: &TaskKey) -> Option<&str> {
        Some(&self.held.get(&run)?.get(task)?.worker)
    }

    /// Returns the tasks that all sessions of a worker hold.
    pub(super) fn of_worker<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> impl Iterator<Item = (RunId, &'a TaskKey)> {
        let of = move |holder: &Holder| {
            *holder.namespace == *namespace && name_of(&holder.worker) == name
        };
        let held = self.held.iter().flat_map(|(run, tasks)| tasks.iter().map(|one| (*run, one)));
        held.filter(move |(_, (_, holder))| of(holder)).map(|(run, (task, _))| (run, task))
    }
}

impl State {
    /// Records which workers began or ceased to hold tasks. Returns whether tasks that need a worker of their own must
    /// look again.
    pub(super) fn take_moves(&mut self, moves: impl ExactSizeIterator<Item = Move>) -> bool {
        let idle = self.alone.is_idle() || moves.len() == 0;
        for one in moves {
            if let (false, Move::Taken(run, task, _)) = (idle, &one) {
                self.alone.taken(*run, task);
            }
            self.hands.take(one);
        }
        !idle
    }
}

impl Dispatcher {
    /// Takes what is known of a run's tasks from the run, which was loaded.
    pub(crate) fn loaded(&self, namespace: &Arc<str>, run: &Run) {
        let leased = run.leased();
        let mut state = self.lock();
        let id = run.id();
        state
            .hands
            .keep_of(id, |task, worker| run.holder(task).is_some_and(|holder| **holder == *worker));
        for task in leased {
            let Some(holder) = Holder::of(namespace, run, &task) else { continue };
            if run.is_suspect(&task) {
                state.alone.found(namespace, name_of(&holder.worker), id, &task);
                self.alone.notify_one();
            }
            let taken = Move::Taken(id, task, holder);
            // Leased by a node that may have died before the worker had it.
            if let Some(session) = state.hands.take(taken)
                && let Some(session) = state.sessions.get_mut(&session)
            {
                session.ask_for_holding();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use backstitch_saga::{Action, StepPath};

    use super::*;

    fn key(step: &str) -> TaskKey {
        TaskKey { step: StepPath::step(step), action: Action::Forward, attempt: 1 }
    }

    fn holder(number: u128) -> Holder {
        let (namespace, worker) = ("n".into(), "w".into());
        let session = Some(Uuid::from_u128(number));
        Holder { namespace, worker, session, queue: 0, since: Time(0) }
    }

    #[test]
    fn each_task_of_a_run_is_held_once_in_whatever_order_they_come_and_go() {
        let session = |holder: Option<Holder>| holder.and_then(|holder| holder.session);
        let mut tasks = Tasks::default();
        assert!(tasks.insert(key("a"), holder(1)).is_none());
        assert!(tasks.insert(key("b"), holder(2)).is_none());
        assert_eq!(session(tasks.remove(&key("a"))), Some(Uuid::from_u128(1)));
        // Held again by another session, while no task stands by itself.
        assert_eq!(session(tasks.insert(key("b"), holder(3))), Some(Uuid::from_u128(2)));
        assert!(tasks.insert(key("c"), holder(4)).is_none());
        assert_eq!(session(tasks.insert(key("c"), holder(5))), Some(Uuid::from_u128(4)));
        assert_eq!(tasks.iter().count(), 2);
        assert!(tasks.get(&key("b")).is_some() && tasks.get(&key("a")).is_none());
        assert_eq!(session(tasks.remove(&key("b"))), Some(Uuid::from_u128(3)));
        assert_eq!(session(tasks.remove(&key("c"))), Some(Uuid::from_u128(5)));
        assert!(tasks.is_empty() && tasks.remove(&key("c")).is_none());
    }
}

//! Tasks during which a worker was lost. A worker gets such a task only when it holds nothing else, in none of its
//! sessions and from no node, and nothing else until the task is done: this shows which task kills workers.
//!
//! A worker is kept free in steps: this node gives it no more tasks (the worker is *barred*), asks all other nodes to
//! do the same by a row that they read (`crate::alone`), and hands the task out once the worker is idle everywhere.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstitch_saga::{RunId, TaskKey};

use super::sessions::Session;
use super::{Dispatcher, Grant, Match, State, name_of};
use crate::store::alone::{Ask, Row};

/// Time for which a busy worker is kept free. After that all go on, and the task waits for an idle worker.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time for which an idle worker is kept free that does not poll here.
const UNASKED: Duration = Duration::from_secs(2);
/// Pause before a busy worker is kept free once more; it doubles each time, up to a limit.
const REST: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));
/// Time after which a task that no worker here has a handler for is left to other nodes.
const FORGET_AFTER: Duration = Duration::from_secs(60);
/// Interval of checks if tasks that a barred worker holds were reported at another node.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// Number of runs per check.
const LOOKED_UP: usize = 100;

/// Namespace and name of a worker.
type WorkerName = (Arc<str>, String);

/// A task on offer that needs a worker of its own.
struct Suspect {
    namespace: Arc<str>,
    queue: String,
    name: String,
    since: Instant,
}

/// A worker that did not become idle when it was kept free: while it is busy it is left alone.
struct Rest {
    until: Instant,
    span: Duration,
}

/// The reason for which a worker gets no tasks.
struct Bar {
    /// The task that this node keeps it free for; `None` if another node keeps it free.
    task: Option<(RunId, TaskKey)>,
    since: Instant,
    looked: Instant,
    /// All other nodes keep it free, too.
    agreed: bool,
    /// The task is about to be handed to it.
    granted: bool,
    /// The time since when the task could be handed to it, if it polled.
    unasked: Option<Instant>,
}

/// Tasks that need a worker of their own, and workers that are kept free for one, as known to this node.
#[derive(Default)]
pub(super) struct Alone {
    suspects: HashMap<(RunId, TaskKey), Suspect>,
    bars: HashMap<WorkerName, Bar>,
    rests: HashMap<WorkerName, Rest>,
}

/// `true` if a task of a governed queue may be handed out.
pub(crate) enum AloneGrant {
    /// It needs no worker of its own.
    NotNeeded,
    Granted(Grant),
    /// No worker is free for it.
    Later,
}

/// Actions that keep workers free.
#[derive(Default)]
pub(crate) struct Keep {
    /// Workers that this node wants all nodes to keep free.
    pub(crate) ask: Vec<Ask>,
    /// Workers that it needs no more.
    pub(crate) over: Vec<(Arc<str>, String)>,
}

/// Consequences of the workers that all nodes keep free.
#[derive(Default)]
pub(crate) struct Next {
    /// Workers that hold nothing of this node, and get nothing from it.
    pub(crate) agree: Vec<(Arc<str>, String)>,
    pub(crate) matches: Vec<Match>,
    /// A task of a governed queue has its worker, and needs a permit.
    pub(crate) permit: bool,
    /// Runs that other nodes may have moved on.
    pub(crate) look_up: Vec<RunId>,
}

impl Bar {
    fn new(task: Option<(RunId, TaskKey)>) -> Bar {
        let now = Instant::now();
        Bar { task, since: now, looked: now, agreed: false, granted: false, unasked: None }
    }
}

impl Alone {
    /// Returns whether there is no such task and no such worker.
    pub(super) fn is_idle(&self) -> bool {
        self.suspects.is_empty() && self.bars.is_empty()
    }

    /// Returns whether a session gets nothing, because its worker is kept free.
    pub(super) fn bars(&self, session: &Session) -> bool {
        !self.bars.is_empty()
            && self.bars.contains_key(&(session.namespace.clone(), session.name().to_owned()))
    }

    /// Notes that a worker has such a task already: no node gives it anything else.
    pub(super) fn found(&mut self, namespace: &Arc<str>, name: &str, run: RunId, task: &TaskKey) {
        let bar = self.bars.entry((namespace.clone(), name.to_owned()));
        let bar = bar.or_insert_with(|| Bar::new(None));
        bar.task.get_or_insert_with(|| (run, task.clone()));
    }

    /// Lets a worker rest that did not become idle.
    fn rest(&mut self, worker: &WorkerName, now: Instant) {
        self.rests.retain(|_, rest| now.saturating_duration_since(rest.until) < REST.1);
        let span = self.rests.get(worker).map_or(REST.0, |rest| (rest.span * 2).min(REST.1));
        self.rests.insert(worker.clone(), Rest { until: now + span, span });
    }

    /// Notes that the worker got its task.
    pub(super) fn taken(&mut self, run: RunId, task: &TaskKey) {
        for bar in self.bars.values_mut() {
            bar.granted &= bar.task.as_ref().is_none_or(|(of, own)| (*of, own) != (run, task));
        }
    }

    /// Notes that a task was not handed out after all.
    pub(super) fn in_vain(&mut self, worker: &str) {
        for ((_, name), bar) in &mut self.bars {
            bar.granted &= *name != name_of(worker);
        }
    }
}

impl State {
    /// Returns the kinds of the tasks whose workers are free and wait.
    pub(super) fn ready_alone(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        let ready = self.alone.bars.iter().filter_map(|(worker, bar)| {
            let suspect = self.alone.suspects.get(bar.task.as_ref()?)?;
            self.may_have(worker, bar).then_some(suspect)
        });
        ready.map(|one| (&*one.namespace, one.queue.as_str(), one.name.as_str()))
    }

    /// Returns whether a worker that is kept free may get its task now.
    fn may_have(&self, worker: &WorkerName, bar: &Bar) -> bool {
        bar.agreed && !bar.granted && self.is_free(worker) && self.polling(worker).is_some()
    }

    /// Returns whether a worker holds no task of this node and is about to get none.
    fn is_free(&self, (namespace, name): &WorkerName) -> bool {
        let of = |one: &&Session| one.namespace == *namespace && one.name() == name.as_str();
        self.hands.of_worker(namespace, name).next().is_none()
            && !self.sessions.values().filter(of).any(Session::expects)
    }

    /// Returns a session of a worker that waits for tasks.
    fn polling(&self, (namespace, name): &WorkerName) -> Option<uuid::Uuid> {
        let waits = |one: &Session| {
            one.namespace == *namespace
                && one.name() == name.as_str()
                && one.is_polling()
                && one.credit > 0
        };
        self.sessions.iter().find(|(_, one)| waits(one)).map(|(id, _)| *id)
    }

    /// Returns whether a session that is not kept free does tasks of a kind.
    pub(super) fn any_unbarred(&self, route: u64) -> bool {
        let does = |one: &Session| one.routes().any(|id| id == route);
        self.sessions.values().any(|one| !one.barred && does(one))
    }

    /// Tells all sessions whether they are kept free.
    fn bar_sessions(&mut self) {
        let State { sessions, routes, alone, .. } = self;
        for session in sessions.values_mut() {
            let barred = alone.bars(session);
            if session.barred != barred {
                session.barred = barred;
                session.queue_up(routes);
            }
        }
    }

    /// Returns the worker to keep free for a task, of those that have a handler for it: an idle one, or occasionally
    /// the one that holds the fewest tasks.
    fn choose(&self, suspect: &Suspect) -> Option<String> {
        let id = self.routes.find(&suspect.namespace, &suspect.queue, &suspect.name)?;
        let now = Instant::now();
        let does = |one: &&Session| one.is_present(now) && one.routes().any(|route| route == id);
        let names = self.sessions.values().filter(does).map(Session::name);
        let names: HashSet<&str> = names.collect();
        let barred = |name: &str| {
            self.alone.bars.contains_key(&(suspect.namespace.clone(), name.to_owned()))
        };
        let busy = names.iter().filter(|name| barred(name)).count();
        // The others go on in the meantime.
        if busy > 0 && busy >= names.len().div_ceil(2) {
            return None;
        }
        let free = names.into_iter().filter(|name| !barred(name));
        let load = |name: &str| self.hands.of_worker(&suspect.namespace, name).count();
        let rests = |name: &str| {
            let rest = self.alone.rests.get(&(suspect.namespace.clone(), name.to_owned()));
            rest.is_some_and(|rest| now < rest.until)
        };
        let asks =
            |name: &str| self.polling(&(suspect.namespace.clone(), name.to_owned())).is_some();
        let loads = free.map(|name| (load(name), !asks(name), name));
        let may = loads.filter(|(load, silent, name)| (*load == 0 && !silent) || !rests(name));
        may.min().map(|(.., name)| name.to_owned())
    }

    /// Returns whether a worker here has a handler for such a task, or had one a moment ago.
    fn does_any(&self, key: &(RunId, TaskKey), now: Instant) -> bool {
        let Some(suspect) = self.alone.suspects.get(key) else { return false };
        let route = self.routes.find(&suspect.namespace, &suspect.queue, &suspect.name);
        let members = route.and_then(|id| self.routes.get(id)).map_or(0, |route| route.members);
        members > 0 || now.saturating_duration_since(suspect.since) <= FORGET_AFTER
    }

    /// Lets go of workers that are needed no more, or did not become idle.
    fn let_go(&mut self, now: Instant) -> Vec<WorkerName> {
        let State { alone: Alone { suspects, bars, .. }, hands, sessions, .. } = self;
        let (mut over, mut tired) = (Vec::new(), Vec::new());
        let here: HashSet<(&str, &str)> =
            sessions.values().map(|one| (&*one.namespace, one.name())).collect();
        bars.retain(|worker, bar| {
            let Some((run, task)) = &bar.task else { return true };
            if bar.granted || hands.holder(*run, task).is_some() {
                return true;
            }
            if suspects.contains_key(&(*run, task.clone())) {
                let late = now.saturating_duration_since(bar.since) > PATIENCE
                    || bar.unasked.is_some_and(|since| now - since > UNASKED);
                let is_here = here.contains(&(&*worker.0, worker.1.as_str()));
                if is_here && !late {
                    return true;
                }
                tired.push(worker.clone());
            }
            over.push(worker.clone());
            false
        });
        tired.iter().for_each(|worker| self.alone.rest(worker, now));
        over
    }
}

impl Dispatcher {
    /// Notes that a task on offer needs a worker of its own.
    pub(crate) fn suspect(&self, run: RunId, task: TaskKey, kind: (&Arc<str>, &str, &str)) {
        let mut state = self.lock();
        if state.alone.suspects.len() >= self.hint_limit {
            return;
        }
        let (namespace, queue, name) = kind;
        state.alone.suspects.entry((run, task)).or_insert_with(|| Suspect {
            namespace: namespace.clone(),
            queue: queue.to_owned(),
            name: name.to_owned(),
            since: Instant::now(),
        });
        self.alone.notify_one();
    }

    /// Chooses workers for the tasks that need one of their own, and releases workers that are no longer needed.
    /// Returns the changes that all nodes must know.
    pub(crate) fn keep_free(&self) -> Keep {
        let mut state = self.lock();
        if state.alone.is_idle() {
            return Keep::default();
        }
        let now = Instant::now();
        let mut keep = Keep { over: state.let_go(now), ask: Vec::new() };
        let asked: HashSet<(RunId, TaskKey)> =
            state.alone.bars.values().filter_map(|bar| bar.task.clone()).collect();
        let mut waiting: Vec<(RunId, TaskKey)> =
            state.alone.suspects.keys().filter(|key| !asked.contains(*key)).cloned().collect();
        waiting.sort_by_key(|key| state.alone.suspects.get(key).map(|one| one.since));
        for key in waiting {
            let Some(suspect) = state.alone.suspects.get(&key) else { continue };
            let chosen = state.choose(suspect);
            let namespace = suspect.namespace.clone();
            match chosen {
                Some(name) => {
                    state.alone.bars.insert((namespace, name), Bar::new(Some(key)));
                }
                None if !state.does_any(&key, now) => {
                    // Its row in `ready` stays: the node that finds it there asks again.
                    state.alone.suspects.remove(&key);
                }
                None => {}
            }
        }
        let ours = state.alone.bars.iter().filter_map(|((namespace, worker), bar)| {
            let (run, task) = bar.task.clone().filter(|_| !bar.agreed)?;
            Some(Ask { namespace: namespace.clone(), worker: worker.clone(), run, task })
        });
        keep.ask = ours.collect();
        state.bar_sessions();
        keep
    }

    /// Records the workers that all nodes keep free. `governed` tells whether tasks of a queue need
    /// permits.
    pub(crate) fn kept_free(
        &self,
        node: i32,
        rows: &[Row],
        governed: impl Fn(&str, &str) -> bool,
    ) -> Next {
        let mut state = self.lock();
        if rows.is_empty() && state.alone.is_idle() {
            return Next::default();
        }
        let mut next = Next::default();
        let mut known: HashSet<WorkerName> = HashSet::new();
        for row in rows {
            let worker = (Arc::from(row.namespace.as_str()), row.worker.clone());
            let bar = state.alone.bars.entry(worker.clone()).or_insert_with(|| Bar::new(None));
            bar.agreed = row.agreed && row.node == node;
            if row.node != node {
                // Another node was first; the task, if there is one, gets another worker.
                bar.task = None;
                if !row.ours && state.is_free(&worker) {
                    next.agree.push(worker.clone());
                }
            }
            known.insert(worker);
        }
        state.alone.bars.retain(|worker, bar| {
            let known = known.contains(worker);
            // Entries without a row are requested again.
            bar.agreed &= known;
            bar.task.is_some() || known
        });
        state.bar_sessions();
        state.hand_out_alone(&mut next, governed);
        state.note_unasked();
        state.look_up(&mut next);
        next
    }

    /// Returns whether the task of a governed queue with this permit needs a worker of its own, and which
    /// worker is free for it.
    pub(crate) fn grant_alone(&self, run: RunId, task: &TaskKey) -> AloneGrant {
        let mut state = self.lock();
        let key = (run, task.clone());
        if !state.alone.suspects.contains_key(&key) {
            return AloneGrant::NotNeeded;
        }
        let ready = state.alone.bars.iter();
        let mut ready = ready.filter(|(_, bar)| bar.task.as_ref() == Some(&key));
        let Some(worker) = ready.next().map(|(worker, _)| worker.clone()) else {
            return AloneGrant::Later;
        };
        state.grant_to(&worker).map_or(AloneGrant::Later, AloneGrant::Granted)
    }

    /// Returns the number of offered tasks that wait for a worker of their own.
    pub(crate) fn waiting_alone(&self) -> u32 {
        u32::try_from(self.lock().alone.suspects.len()).unwrap_or(u32::MAX)
    }

    /// Returns whether an offered task must not be considered now: it needs a worker of its own, and none
    /// is free.
    pub(crate) fn must_wait(&self, run: RunId, task: &TaskKey) -> bool {
        let state = self.lock();
        let key = (run, task.clone());
        if !state.alone.suspects.contains_key(&key) {
            return false;
        }
        let mut bars = state.alone.bars.iter();
        !bars.any(|(worker, bar)| bar.task.as_ref() == Some(&key) && state.may_have(worker, bar))
    }
}

impl State {
    /// Gives the right to its task to a worker that is free for it.
    fn grant_to(&mut self, worker: &WorkerName) -> Option<Grant> {
        let bar = self.alone.bars.get(worker)?;
        if !self.may_have(worker, bar) {
            return None;
        }
        let session = self.polling(worker)?;
        let bar = self.alone.bars.get_mut(worker)?;
        bar.granted = true;
        self.alone.rests.remove(worker);
        // Should it not get there, its row in `ready` stays.
        self.alone.suspects.remove(bar.task.as_ref()?);
        let grant = self.sessions.get_mut(&session)?.grant();
        Some(Grant { alone: true, ..grant })
    }

    /// Notes since when workers could have their tasks and do not ask.
    fn note_unasked(&mut self) {
        let ready = |(worker, bar): (&WorkerName, &Bar)| {
            let free = bar.agreed && !bar.granted && self.is_free(worker);
            (free && self.polling(worker).is_none()).then(|| worker.clone())
        };
        let unasked: HashSet<WorkerName> = self.alone.bars.iter().filter_map(ready).collect();
        for (worker, bar) in &mut self.alone.bars {
            match unasked.contains(worker) {
                true => drop(bar.unasked.get_or_insert_with(Instant::now)),
                false => bar.unasked = None,
            }
        }
    }

    fn hand_out_alone(&mut self, next: &mut Next, governed: impl Fn(&str, &str) -> bool) {
        let ready = self.alone.bars.iter().filter_map(|(worker, bar)| {
            let key = bar.task.clone()?;
            let suspect = self.alone.suspects.get(&key)?;
            let governed = governed(&suspect.namespace, &suspect.queue);
            let namespace = suspect.namespace.clone();
            self.may_have(worker, bar).then(|| (worker.clone(), key, (namespace, governed)))
        });
        for (worker, (run, task), (namespace, governed)) in ready.collect::<Vec<_>>() {
            if governed {
                next.permit = true;
            } else if let Some(grant) = self.grant_to(&worker) {
                next.matches.push(Match { run, namespace, task, grant });
            }
        }
    }

    /// Selects the runs to check: those of tasks held by workers that are to become idle.
    fn look_up(&mut self, next: &mut Next) {
        let now = Instant::now();
        let State { alone: Alone { bars, .. }, hands, .. } = self;
        for ((namespace, name), bar) in bars {
            if now.saturating_duration_since(bar.looked) < LOOK_EVERY {
                continue;
            }
            bar.looked = now;
            let runs = hands.of_worker(namespace, name).map(|(run, _)| run);
            next.look_up.extend(runs.take(LOOKED_UP));
        }
        next.look_up.dedup();
    }
}

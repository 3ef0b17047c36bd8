//! The dispatch of tasks to workers, in this node's memory only: waiting sessions, and the tasks reserved for them.
//!
//! It decides nothing about a run and writes nothing: a worker has a task once the record with the lease is committed.
//! A session has *credit*: the number of further tasks that it can take, by its last poll and its reports since. Credit
//! is valid while a poll waits and for a short grace afterwards. Waiting sessions precede those that may come back, and
//! get the tasks that are reserved for a session that may be gone.

mod alone;
mod aside;
mod hands;
mod hints;
mod names;
mod sessions;
mod wanted;

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use backstitch_saga::protocol::{ClaimTasks, HeldTask, TaskOffer};
use backstitch_saga::{RunId, TaskKey};
use tokio::sync::Notify;
use uuid::Uuid;

use alone::Alone;
pub(crate) use alone::AloneGrant;
pub(crate) use aside::{PutAside, Unfetched};
use hands::Hands;
pub(crate) use hands::Move;
pub(crate) use hints::ReservedTask;
use hints::Routes;
pub(crate) use names::MOST_NAMES;
use sessions::Session;
pub(crate) use wanted::Demand;
pub(crate) use wanted::LOOKED_FOR;
use wanted::Looks;

use crate::maps::FastMap;
use crate::store::workers::Present;

/// The right of a session to one task, taken from its credit.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) session: Uuid,
    /// `worker/session`, as in the lease.
    pub(crate) worker: Arc<str>,
    /// The permit of the task, when its queue is governed.
    pub(crate) permit: Option<Uuid>,
    /// `true` if the worker holds nothing else, and gets nothing else.
    pub(crate) alone: bool,
}

/// Number of names that the sessions that leave at the same moment may have.
const LEAVE_AT_ONCE: usize = 5_000;

/// The sessions with room for which a task may be reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionFilter {
    /// Any that polls now, or did a moment ago.
    Anyone,
    /// One that is known to come back: it polls now, or did more than once and a moment ago.
    Known,
    /// One whose poll waits at this moment.
    Polling,
}

/// A task on offer and the session that is to get it.
#[derive(Debug)]
pub(crate) struct Match {
    pub(crate) run: RunId,
    pub(crate) namespace: Arc<str>,
    pub(crate) task: TaskKey,
    pub(crate) grant: Grant,
}

/// Result of a poll.
pub(crate) struct Polled {
    /// Tasks that were put aside for the session.
    pub(crate) tasks: Vec<TaskOffer>,
    /// Tasks on offer that are to be handed to it.
    pub(crate) matches: Vec<Match>,
    /// Tasks reserved for other sessions that may be gone, to be taken back.
    pub(crate) back: Vec<Unfetched>,
    /// Rings when something is put aside for the session.
    pub(crate) bell: Arc<Notify>,
    /// `true` if it could take more tasks than this node knows of.
    pub(crate) hungry: bool,
    /// `true` if the session is to report the tasks that it holds.
    pub(crate) asks: bool,
    /// `true` if it did not poll for a while or never did, or is known to come back from now on.
    pub(crate) fresh: bool,
}

/// The reason for which a session gets no tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPoll {
    /// It is another namespace's, or another credential's.
    Foreign,
    /// The sessions of its namespace would name more than [`MOST_NAMES`].
    TooManyNames,
}

/// The hand-over of one node.
pub(crate) struct Dispatcher {
    state: Mutex<State>,
    grace: Duration,
    hint_limit: usize,
    /// Rings when something may be done for tasks that need a worker of their own.
    pub(crate) alone: Notify,
}

#[derive(Default)]
struct State {
    sessions: FastMap<Uuid, Session>,
    routes: Routes,
    /// Permits of tasks that were not handed out.
    unused: Vec<Uuid>,
    /// Sessions for which tasks were put aside while no poll of theirs waited.
    aside: HashSet<Uuid>,
    hands: Hands,
    alone: Alone,
    looks: Looks,
}

impl Dispatcher {
    pub(crate) fn new(grace: Duration, hint_limit: usize) -> Dispatcher {
        Dispatcher { state: Mutex::default(), grace, hint_limit, alone: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for tasks for a session.
    ///
    /// # Errors
    /// The reason for which it gets none.
    pub(crate) fn poll(
        &self,
        namespace: &Arc<str>,
        credential: Option<&str>,
        claim: &ClaimTasks,
    ) -> Result<Polled, NoPoll> {
        let mut state = self.lock();
        let State { sessions, routes, alone, hands, .. } = &mut *state;
        let session = sessions.entry(claim.session).or_insert_with(|| {
            let mut session = Session::new(namespace, credential, &claim.worker, claim.session);
            if hands.has_any(claim.session) {
                session.ask_for_holding();
            }
            session
        });
        if !session.is_of(namespace, credential) {
            return Err(NoPoll::Foreign);
        }
        let Some(changed) = session.wants(routes, &claim.queues) else {
            if session.is_new() {
                sessions.remove(&claim.session);
            }
            return Err(NoPoll::TooManyNames);
        };
        let mut back_to_offer = Vec::new();
        if let Some(holding) = &claim.holding {
            session.begin_anew();
            let fetched = holding.iter().map(key_of_held);
            let known: BTreeSet<_> =
                fetched.chain(session.outbox.iter().map(|one| key_of(&one.offer))).collect();
            back_to_offer = hands.missing(session, &known);
        }
        session.barred = alone.bars(session);
        if session.barred {
            self.alone.notify_one();
        }
        let back = !session.is_alive(Instant::now(), self.grace);
        let fresh = session.begin_poll(claim.max) || changed || back;
        let tasks = session.drain(claim.max);
        let mut matches = Vec::new();
        while session.room() > 0 {
            let Some(hint) = session.next_hint(routes) else { break };
            let ReservedTask { run, task, namespace, .. } = hint;
            matches.push(Match { run, namespace, task, grant: session.grant() });
        }
        let hungry = session.room() > 0;
        session.queue_up(routes);
        let (bell, asks) = (session.bell.clone(), session.asks_now());
        if hungry {
            back_to_offer.extend(state.take_from_others(claim));
        }
        Ok(Polled { tasks, matches, back: back_to_offer, bell, asks, hungry, fresh })
    }

    /// Returns the tasks reserved for a session that is polling, at most `max`, and whether it is to report the
    /// tasks that it holds. `None` when the session has ended, or another claim gets its tasks.
    pub(crate) fn fetch(
        &self,
        session: Uuid,
        bell: &Arc<Notify>,
        max: u32,
    ) -> Option<(Vec<TaskOffer>, bool)> {
        let mut state = self.lock();
        let session = state.sessions.get_mut(&session)?;
        let is_its = Arc::ptr_eq(&session.bell, bell);
        is_its.then(|| (session.drain(max), session.asks_now()))
    }

    /// Ends a poll.
    pub(crate) fn end_poll(&self, session: Uuid) {
        if let Some(session) = self.lock().sessions.get_mut(&session) {
            session.end_poll();
        }
    }

    /// Returns a session with room for a task of this kind, in turn, among those that it may be put aside for.
    pub(crate) fn grant(
        &self,
        namespace: &str,
        queue: &str,
        name: &str,
        whom: SessionFilter,
    ) -> Option<Grant> {
        let mut state = self.lock();
        let State { sessions, routes, .. } = &mut *state;
        let id = routes.find(namespace, queue, name)?;
        let route = routes.get_mut(id)?;
        let now = Instant::now();
        // Waiting sessions go first, in turn; of those that may come back, the last that was there.
        let waits = |id: &Uuid| {
            let session = sessions.get(id);
            session.is_some_and(|session| session.is_polling() && session.room() > 0)
        };
        let waits = route.waiting.iter().position(waits);
        route.waiting.rotate_left(waits.unwrap_or_default());
        for _ in 0..route.waiting.len() {
            let next = match waits {
                Some(_) => route.waiting.pop_front(),
                None => route.waiting.pop_back(),
            };
            let Some(first) = next else { break };
            let Some(session) = sessions.get_mut(&first) else { continue };
            if session.room() == 0 || !session.is_alive(now, self.grace) {
                session.left_queue(id);
                continue;
            }
            let grant = session.is_for(whom).then(|| session.grant());
            match waits {
                _ if session.room() == 0 => session.left_queue(id),
                Some(_) => route.waiting.push_back(first),
                None => route.waiting.push_front(first),
            }
            if grant.is_some() {
                route.seen = now;
                return grant;
            }
        }
        None
    }

    /// Gives back a reservation: the session may get another task.
    pub(crate) fn give_back(&self, grant: &Grant) {
        let mut state = self.lock();
        let State { sessions, routes, unused, alone, .. } = &mut *state;
        unused.extend(grant.permit);
        if grant.alone {
            alone.in_vain(&grant.worker);
            self.alone.notify_one();
        }
        if let Some(session) = sessions.get_mut(&grant.session) {
            session.reserved = session.reserved.saturating_sub(1);
            session.credit += 1;
            session.queue_up(routes);
        }
    }

    /// Drops tasks that a run took from workers: of those that wait here, only what still holds by what `is_held` says
    /// of task and worker is delivered. The sessions of the others may have others.
    pub(crate) fn revoke(&self, run: RunId, is_held: impl Fn(&TaskKey, &str) -> bool) {
        let mut state = self.lock();
        let State { sessions, routes, hands, alone, .. } = &mut *state;
        if hands.keep_of(run, &is_held) && !alone.is_idle() {
            self.alone.notify_one();
        }
        for session in sessions.values_mut() {
            if session.drop_revoked(run, &is_held) {
                session.queue_up(routes);
            }
        }
    }

    /// Notes that the worker that held a task reported it, and so has room for another.
    pub(crate) fn reported(&self, worker: &str, now: Instant) {
        let Some(id) = session_of(worker) else { return };
        let mut state = self.lock();
        let State { sessions, routes, .. } = &mut *state;
        let Some(session) = sessions.get_mut(&id) else { return };
        session.heard = now;
        if session.is_alive(now, self.grace) {
            session.credit += 1;
            session.queue_up(routes);
        }
    }

    /// Notes a heartbeat of the worker that holds a task.
    pub(crate) fn heard_of(&self, worker: &str) {
        let Some(id) = session_of(worker) else { return };
        if let Some(session) = self.lock().sessions.get_mut(&id) {
            session.heard = Instant::now();
        }
    }

    /// Returns the sessions that poll, or sent something a short while ago.
    pub(crate) fn present(&self) -> Vec<Present> {
        let state = self.lock();
        let now = Instant::now();
        let here = state.sessions.values().filter(|session| session.is_present(now));
        here.map(Session::present).collect()
    }

    /// Returns whether this node claims the first right to a task of this kind: it has room to remember it, and workers
    /// for it that will soon poll, as one of them asked for such tasks or got one within the grace. A task that was
    /// given `back` is remembered only before others: its former worker does not want it, and otherwise it is for all
    /// nodes.
    pub(crate) fn would_remember(
        &self,
        (namespace, queue, name): (&str, &str, &str),
        back: bool,
    ) -> bool {
        let state = self.lock();
        state.routes.has_room(namespace, self.hint_limit)
            && state
                .routes
                .find(namespace, queue, name)
                .filter(|id| {
                    let route = state.routes.get(*id);
                    route.is_some_and(|route| {
                        route.seen.elapsed() <= self.grace && (!back || route.is_remembered())
                    })
                })
                .is_some_and(|id| state.alone.is_idle() || state.any_unbarred(id))
    }

    /// Remembers tasks on offer, and finds sessions for them whose polls wait at this moment. The others find them with
    /// their next poll.
    pub(crate) fn remember(&self, hints: impl Iterator<Item = ReservedTask>) -> Vec<Match> {
        let mut state = self.lock();
        let State { sessions, routes, .. } = &mut *state;
        let now = Instant::now();
        let mut matches = Vec::new();
        for hint in hints {
            let Some(id) = routes.find(&hint.namespace, &hint.queue, &hint.name) else { continue };
            let Some(route) = routes.get_mut(id) else { continue };
            let mut grant = None;
            for _ in 0..route.waiting.len() {
                let Some(first) = route.waiting.pop_front() else { break };
                match sessions.get_mut(&first) {
                    Some(session) if session.room() > 0 && session.is_alive(now, self.grace) => {
                        route.waiting.push_back(first);
                        if session.is_polling() {
                            grant = Some(session.grant());
                            route.seen = now;
                            break;
                        }
                    }
                    Some(session) => session.left_queue(id),
                    None => {}
                }
            }
            match grant {
                Some(grant) => {
                    let ReservedTask { run, task, namespace, .. } = hint;
                    matches.push(Match { run, namespace, task, grant });
                }
                None => routes.remember(id, hint),
            }
        }
        matches
    }

    /// Takes back permits of tasks that were not handed out.
    pub(crate) fn return_permits(&self, permits: Vec<Uuid>) {
        if !permits.is_empty() {
            self.lock().unused.extend(permits);
        }
    }

    /// Returns the permits of tasks that were not handed out since the last call.
    pub(crate) fn unused_permits(&self) -> Vec<Uuid> {
        std::mem::take(&mut self.lock().unused)
    }

    /// Takes back what was put aside for sessions that have not polled within the grace, or that are silent while
    /// others wait for such tasks, and forgets those that have been silent for long. With `all`, every session is
    /// silent.
    pub(crate) fn expire(&self, all: bool) -> Vec<Unfetched> {
        let mut state = self.lock();
        let now = Instant::now();
        let mut back = state.take_from_silent(now);
        let State { sessions, routes, .. } = &mut *state;
        let mut names = 0;
        sessions.retain(|_, session| {
            if !all && session.is_alive(now, self.grace) {
                return true;
            }
            let id = session.id;
            back.extend(session.outbox.drain(..).map(|one| Unfetched::of(&one, id)));
            session.credit = 0;
            session.bell.notify_one();
            // Sessions with very many names leave a few at a time, because others wait.
            let keep = !all
                && (names >= LEAVE_AT_ONCE
                    || session.reserved > 0
                    || session.is_present(now)
                    || session.is_alive(now, self.grace + sessions::FORGET_AFTER));
            if !keep {
                names += session.leave(routes);
            }
            keep
        });
        routes.expire(now);
        back
    }

    /// Returns the numbers of sessions and of remembered tasks.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        let state = self.lock();
        (state.sessions.len(), state.routes.hints())
    }
}

/// Returns the name of the worker in `worker/session`.
fn name_of(worker: &str) -> &str {
    worker.rsplit_once('/').map_or(worker, |(name, _)| name)
}

/// Returns the session in `worker/session`.
fn session_of(worker: &str) -> Option<Uuid> {
    worker.rsplit('/').next().and_then(|id| Uuid::parse_str(id).ok())
}

fn key_of_held(held: &HeldTask) -> (RunId, TaskKey) {
    let HeldTask { run, step, action, attempt, .. } = held;
    (*run, TaskKey { step: step.clone(), action: *action, attempt: *attempt })
}

pub(crate) fn key_of(offer: &TaskOffer) -> (RunId, TaskKey) {
    let TaskOffer { run, step, action, attempt, .. } = offer;
    (*run, TaskKey { step: step.clone(), action: *action, attempt: *attempt })
}

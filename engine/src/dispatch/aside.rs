//! Tasks that are reserved for sessions until these fetch them, and the release of tasks that a session does not
//! fetch.

use std::time::Instant;

use backstitch_saga::protocol::{ClaimTasks, TaskOffer};
use backstitch_saga::{RunId, TaskKey, Time};
use uuid::Uuid;

use super::hands::Move;
use super::sessions::Session;
use super::{Dispatcher, Grant, State, key_of};

/// A task that was leased to a session and did not reach it.
pub(crate) struct Unfetched {
    pub(crate) run: RunId,
    pub(crate) task: TaskKey,
    pub(crate) session: Uuid,
    /// The beginning of its lease: a later lease of the same session is another one.
    pub(crate) since: Time,
}

/// A task that is put aside for a session, and since when it is leased to it.
pub(crate) struct PutAside {
    pub(crate) offer: TaskOffer,
    pub(crate) since: Time,
}

impl Unfetched {
    pub(super) fn of(one: &PutAside, session: Uuid) -> Unfetched {
        let (run, task) = key_of(&one.offer);
        Unfetched { run, task, session, since: one.since }
    }
}

impl Dispatcher {
    /// After the commit of records: records which workers began or ceased to hold tasks, and reserves tasks for their
    /// sessions. Returns the tasks of sessions that are gone, or may be while others wait for such tasks.
    pub(crate) fn deliver(
        &self,
        moves: impl ExactSizeIterator<Item = Move>,
        offers: impl ExactSizeIterator<Item = (Grant, PutAside)>,
    ) -> Vec<Unfetched> {
        let mut back = Vec::new();
        if moves.len() == 0 && offers.len() == 0 {
            return back;
        }
        // Under one lock: a task that a session holds is reserved for it, or was fetched.
        let mut state = self.lock();
        if state.take_moves(moves) {
            self.alone.notify_one();
        }
        if offers.len() == 0 {
            return back;
        }
        let now = Instant::now();
        for (grant, one) in offers {
            let wanted = state.is_wanted_instead(grant.session, &one.offer, now);
            let State { sessions, aside, .. } = &mut *state;
            match sessions.get_mut(&grant.session) {
                Some(session) if !wanted => {
                    if !session.is_polling() {
                        aside.insert(grant.session);
                    }
                    session.deliver(one);
                }
                Some(session) => {
                    session.reserved = session.reserved.saturating_sub(1);
                    back.push(Unfetched::of(&one, grant.session));
                }
                None => back.push(Unfetched::of(&one, grant.session)),
            }
        }
        back
    }

    /// Ends a session: returns what was put aside for it, which is to be taken back. `None` when it is another
    /// namespace's.
    pub(crate) fn sign_off(
        &self,
        namespace: &str,
        credential: Option<&str>,
        session: Uuid,
    ) -> Option<Vec<Unfetched>> {
        let mut state = self.lock();
        let State { sessions, routes, alone, .. } = &mut *state;
        if sessions.get(&session).is_some_and(|session| !session.is_of(namespace, credential)) {
            return None;
        }
        let Some(mut gone) = sessions.remove(&session) else { return Some(Vec::new()) };
        gone.leave(routes);
        // A claim that still waits is answered.
        gone.bell.notify_one();
        if !alone.is_idle() {
            self.alone.notify_one();
        }
        Some(gone.outbox.drain(..).map(|one| Unfetched::of(&one, session)).collect())
    }
}

impl State {
    /// Takes tasks that are reserved for sessions that may be gone and that a polling session can do.
    pub(super) fn take_from_others(&mut self, claim: &ClaimTasks) -> Vec<Unfetched> {
        let State { sessions, aside, .. } = self;
        aside.retain(|id| sessions.get(id).is_some_and(|one| !one.outbox.is_empty()));
        let Some(asking) = sessions.get(&claim.session) else { return Vec::new() };
        let (namespace, mut room) = (asking.namespace.clone(), asking.room() as usize);
        let now = Instant::now();
        let does = |offer: &TaskOffer| {
            let names = claim.queues.get(&offer.queue);
            names.is_some_and(|names| names.contains(&offer.name))
        };
        let mut back = Vec::new();
        for id in aside.iter().filter(|id| **id != claim.session) {
            let Some(session) = sessions.get_mut(id) else { continue };
            if session.namespace == namespace && session.may_be_gone(now, &claim.worker) {
                let taken = session.give_up(room, does);
                room -= taken.len();
                back.extend(taken);
            }
        }
        back
    }

    /// Takes tasks that are reserved for silent sessions and that others wait for: a worker with room polls again
    /// immediately.
    pub(super) fn take_from_silent(&mut self, now: Instant) -> Vec<Unfetched> {
        let silent = |id: &&Uuid| self.sessions.get(*id).is_some_and(|one| one.is_silent(now));
        let silent: Vec<Uuid> = self.aside.iter().filter(silent).copied().collect();
        let mut back = Vec::new();
        for id in silent {
            let Some(session) = self.sessions.get(&id) else { continue };
            let offers = session.outbox.iter().map(|one| &one.offer);
            let wanted = offers.filter(|offer| self.is_waited_for(session, offer));
            let wanted: Vec<_> = wanted.map(key_of).collect();
            let Some(session) = self.sessions.get_mut(&id).filter(|_| !wanted.is_empty()) else {
                continue;
            };
            // It has shown that it does not come back for what is put aside.
            session.credit = 0;
            back.extend(session.give_up(wanted.len(), |offer| wanted.contains(&key_of(offer))));
        }
        back
    }

    /// Returns whether a task should go to other waiting sessions rather than to its own, which may
    /// be gone.
    fn is_wanted_instead(&self, session: Uuid, offer: &TaskOffer, now: Instant) -> bool {
        let session = self.sessions.get(&session).filter(|one| one.may_be_gone(now, ""));
        session.is_some_and(|session| self.is_waited_for(session, offer))
    }

    /// Returns whether another session waits for a task of `session`.
    fn is_waited_for(&self, session: &Session, offer: &TaskOffer) -> bool {
        let route = self.routes.find(&session.namespace, &offer.queue, &offer.name);
        let waiting = route.and_then(|id| self.routes.get(id)).map(|route| &route.waiting);
        let waiting = waiting.into_iter().flatten().filter_map(|id| self.sessions.get(id));
        waiting.into_iter().any(|one| one.is_polling() && one.room() > 0)
    }
}

//! One life of a worker, as this node sees it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstitch_saga::protocol::TaskOffer;
use backstitch_saga::{RunId, TaskKey};
use tokio::sync::Notify;
use uuid::Uuid;

use super::hints::{ReservedTask, Routes};
use super::{Grant, PutAside, SessionFilter, Unfetched, key_of};
use crate::maps::FastSet;
use crate::store::workers::Present;

/// Time without a poll after which a session is forgotten.
pub(super) const FORGET_AFTER: Duration = Duration::from_secs(60);
/// Time without any sign after which a session counts as gone in views. Workers without room do not poll, but send
/// heartbeats for their tasks.
const MISSED_AFTER: Duration = Duration::from_secs(30);
/// A session that has neither polled nor reported for so long is passed over for another of the same worker.
const SILENT_AFTER: Duration = Duration::from_millis(50);
/// After so long without a poll or report others that wait get what was put aside for a session.
const GIVEN_ON_AFTER: Duration = Duration::from_millis(200);
/// No answer to a poll is much larger than this.
const ANSWER_BYTES: usize = 8 * 1024 * 1024;

pub(super) struct Session {
    pub(super) id: Uuid,
    pub(super) namespace: Arc<str>,
    /// The credential that it belongs to; none on an open server.
    credential: Option<Arc<str>>,
    /// `worker/session`.
    worker: Arc<str>,
    /// The kinds of task it does, with a flag: it is in their queue.
    routes: Vec<(u64, bool)>,
    /// The kinds as they were asked for last.
    queues: Arc<BTreeMap<String, Vec<String>>>,
    /// Its share of the names of the namespace; 0 until it asked for the first time.
    names: usize,
    /// Number of further tasks that it can take; see [`Session::room`].
    pub(super) credit: u32,
    /// Its worker is kept free for one task.
    pub(super) barred: bool,
    /// Tasks granted whose record is not committed yet.
    pub(super) reserved: u32,
    /// Tasks that are its own and not fetched yet.
    pub(super) outbox: VecDeque<PutAside>,
    polls: u32,
    /// Number of its polls.
    polled: u32,
    last_poll: Instant,
    /// Time of its last report or heartbeat.
    pub(super) heard: Instant,
    /// Rings for the claim that gets its tasks.
    pub(super) bell: Arc<Notify>,
    /// It is asked with the next answer what it holds.
    asks: bool,
    /// The kind that is considered first.
    turn: usize,
}

impl Session {
    pub(super) fn new(
        namespace: &Arc<str>,
        credential: Option<&str>,
        worker: &str,
        id: Uuid,
    ) -> Session {
        Session {
            id,
            namespace: namespace.clone(),
            credential: credential.map(Into::into),
            worker: format!("{worker}/{id}").into(),
            routes: Vec::new(),
            queues: Arc::default(),
            names: 0,
            credit: 0,
            barred: false,
            reserved: 0,
            outbox: VecDeque::new(),
            polls: 0,
            polled: 0,
            last_poll: Instant::now(),
            heard: Instant::now(),
            bell: Arc::new(Notify::new()),
            asks: false,
            turn: 0,
        }
    }

    /// Returns whether it belongs to this credential of the namespace.
    pub(super) fn is_of(&self, namespace: &str, credential: Option<&str>) -> bool {
        *self.namespace == *namespace && self.credential.as_deref() == credential
    }

    /// Lets it be asked what it holds.
    pub(super) fn ask_for_holding(&mut self) {
        self.asks = true;
        self.bell.notify_one();
    }

    /// Returns whether it is to be asked what it holds, once.
    pub(super) fn asks_now(&mut self) -> bool {
        std::mem::take(&mut self.asks)
    }

    /// Ends the claims of it that are under way, as it says what it holds: they get nothing more, as their answers may
    /// not reach it.
    pub(super) fn begin_anew(&mut self) {
        self.asks = false;
        let before = std::mem::take(&mut self.bell);
        before.notify_waiters();
        before.notify_one();
    }

    /// Returns the number of further tasks that it may be given.
    pub(super) fn room(&self) -> u32 {
        if self.barred { 0 } else { self.credit }
    }

    /// Returns the name of its worker.
    pub(super) fn name(&self) -> &str {
        super::name_of(&self.worker)
    }

    /// Returns whether it is about to get a task, or has one that it did not fetch.
    pub(super) fn expects(&self) -> bool {
        self.reserved > 0 || !self.outbox.is_empty()
    }

    /// Returns whether tasks reserved for it may go to other sessions that ask, of the worker `name`: it may be gone,
    /// as it never came back, or as another session of its worker asks while it is silent.
    pub(super) fn may_be_gone(&self, now: Instant, name: &str) -> bool {
        let silent = now.saturating_duration_since(self.last_poll.max(self.heard)) > SILENT_AFTER;
        !self.is_polling() && (self.polled < 2 || (silent && self.name() == name))
    }

    /// Returns whether it has neither polled nor reported for so long that other sessions may have the tasks
    /// reserved for it.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        let last = self.last_poll.max(self.heard);
        !self.is_polling() && now.saturating_duration_since(last) > GIVEN_ON_AFTER
    }

    /// Takes what was put aside for it of the kinds that `does` says, at most `most`.
    pub(super) fn give_up(
        &mut self,
        most: usize,
        does: impl Fn(&TaskOffer) -> bool,
    ) -> Vec<Unfetched> {
        let mut taken = Vec::new();
        self.outbox.retain(|one| {
            let goes = taken.len() < most && does(&one.offer);
            if goes {
                taken.push(Unfetched::of(one, self.id));
            }
            !goes
        });
        taken
    }

    /// Returns whether one of its polls is waiting.
    pub(super) fn is_polling(&self) -> bool {
        self.polls > 0
    }

    /// Returns whether a task restricted to `whom` may be reserved for it, if it is alive, see
    /// [`Session::is_alive`].
    pub(super) fn is_for(&self, whom: SessionFilter) -> bool {
        match whom {
            SessionFilter::Anyone => true,
            SessionFilter::Known => self.is_polling() || self.polled > 1,
            SessionFilter::Polling => self.is_polling(),
        }
    }

    /// Returns whether it polls now, or did within `grace`.
    pub(super) fn is_alive(&self, now: Instant, grace: Duration) -> bool {
        self.is_polling() || now.saturating_duration_since(self.last_poll) <= grace
    }

    /// Returns whether it polls now, or sent something a short while ago.
    pub(super) fn is_present(&self, now: Instant) -> bool {
        self.is_alive(now, MISSED_AFTER)
            || now.saturating_duration_since(self.heard) <= MISSED_AFTER
    }

    /// Returns its description for views.
    pub(super) fn present(&self) -> Present {
        Present {
            session: self.id,
            namespace: self.namespace.clone(),
            worker: self.name().to_owned(),
            queues: self.queues.clone(),
        }
    }

    /// Returns whether it has not yet asked for any task that it may have.
    pub(super) fn is_new(&self) -> bool {
        self.names == 0
    }

    /// Takes note of the kinds of task it does. Returns whether they changed; `None` when its namespace may not have so
    /// many names, which leaves it with those of before.
    pub(super) fn wants(
        &mut self,
        routes: &mut Routes,
        queues: &BTreeMap<String, Vec<String>>,
    ) -> Option<bool> {
        if self.names > 0 && *self.queues == *queues {
            return Some(false);
        }
        let names = 1 + queues.len() + queues.values().map(Vec::len).sum::<usize>();
        if !routes.names.change(&self.namespace, self.names, names) {
            return None;
        }
        self.names = names;
        self.leave_kinds(routes);
        let mut known = FastSet::default();
        for (queue, names) in queues {
            for name in names {
                let id = routes.join(&self.namespace, queue, name);
                if known.insert(id) {
                    self.routes.push((id, false));
                } else {
                    routes.leave(id, self.id);
                }
            }
        }
        self.queues = Arc::new(queues.clone());
        Some(true)
    }

    /// Leaves all kinds of task permanently. Returns the number of names that this frees.
    pub(super) fn leave(&mut self, routes: &mut Routes) -> usize {
        self.leave_kinds(routes);
        routes.names.change(&self.namespace, self.names, 0);
        std::mem::take(&mut self.names)
    }

    fn leave_kinds(&mut self, routes: &mut Routes) {
        for (id, _) in self.routes.drain(..) {
            routes.leave(id, self.id);
        }
        self.queues = Arc::default();
    }

    /// Returns the queues as they were asked for last.
    pub(super) fn queues(&self) -> impl Iterator<Item = &str> {
        self.queues.keys().map(String::as_str)
    }

    pub(super) fn routes(&self) -> impl Iterator<Item = u64> + '_ {
        self.routes.iter().map(|(id, _)| *id)
    }

    /// Begins a poll: the worker has room for `max` tasks in all, some of which are already on their way.
    /// Returns whether the session comes back with this.
    pub(super) fn begin_poll(&mut self, max: u32) -> bool {
        let coming =
            u32::try_from(self.outbox.len()).unwrap_or(u32::MAX).saturating_add(self.reserved);
        self.credit = max.saturating_sub(coming);
        self.polls += 1;
        self.polled = self.polled.saturating_add(1);
        self.last_poll = Instant::now();
        self.polled == 2
    }

    pub(super) fn end_poll(&mut self) {
        self.polls = self.polls.saturating_sub(1);
        self.last_poll = Instant::now();
    }

    /// Returns tasks for the answer to a poll.
    pub(super) fn drain(&mut self, max: u32) -> Vec<TaskOffer> {
        let most = self.outbox.len().min(max as usize);
        let mut bytes = 0;
        let fitting = self.outbox.iter().take(most).take_while(|one| {
            let fits = bytes < ANSWER_BYTES;
            bytes += one.offer.input.text().len();
            fits
        });
        let count = fitting.count();
        self.outbox.drain(..count).map(|one| one.offer).collect()
    }

    /// Uses one of its credit.
    pub(super) fn grant(&mut self) -> Grant {
        self.credit = self.credit.saturating_sub(1);
        self.reserved += 1;
        Grant { session: self.id, worker: self.worker.clone(), permit: None, alone: false }
    }

    pub(super) fn deliver(&mut self, one: PutAside) {
        self.reserved = self.reserved.saturating_sub(1);
        self.outbox.push_back(one);
        self.bell.notify_one();
    }

    /// Drops what waits here of `run` and was taken from it. Returns whether anything was.
    pub(super) fn drop_revoked(
        &mut self,
        run: RunId,
        is_held: &impl Fn(&TaskKey, &str) -> bool,
    ) -> bool {
        let before = self.outbox.len();
        let worker = &*self.worker;
        self.outbox.retain(|one| one.offer.run != run || is_held(&key_of(&one.offer).1, worker));
        let dropped = before - self.outbox.len();
        self.credit = self.credit.saturating_add(u32::try_from(dropped).unwrap_or(u32::MAX));
        dropped > 0
    }

    /// Returns the oldest task on offer that it can do, each kind in turn.
    pub(super) fn next_hint(&mut self, routes: &mut Routes) -> Option<ReservedTask> {
        let kinds = self.routes.len();
        for step in 0..kinds {
            let at = (self.turn + step) % kinds;
            if let Some(hint) = routes.next_hint(self.routes[at].0) {
                self.turn = at + 1;
                return Some(hint);
            }
        }
        None
    }

    /// Stands in the queue of each kind of task it does, if it has credit.
    pub(super) fn queue_up(&mut self, routes: &mut Routes) {
        if self.room() == 0 {
            return;
        }
        for (id, queued) in &mut self.routes {
            if !*queued && let Some(route) = routes.get_mut(*id) {
                route.waiting.push_back(self.id);
                route.seen = self.last_poll.max(route.seen);
                *queued = true;
            }
        }
    }

    /// Notes that it left the queue of a kind.
    pub(super) fn left_queue(&mut self, route: u64) {
        if let Some((_, queued)) = self.routes.iter_mut().find(|(id, _)| *id == route) {
            *queued = false;
        }
    }
}

//! Kinds of task (namespace, queue, handler), who waits for each, and which tasks on offer this node keeps in mind.
//!
//! What is kept in mind is a hint: the task may be gone. It is kept no longer than its reservation in the table holds.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use backstitch_saga::{RunId, TaskKey};
use uuid::Uuid;

/// A task that is probably on offer, and that this node has the first right to until `until`.
#[derive(Clone, Debug)]
pub(crate) struct Hint {
    pub(crate) run: RunId,
    pub(crate) task: TaskKey,
    pub(crate) namespace: Arc<str>,
    pub(crate) queue: String,
    pub(crate) name: String,
    pub(crate) until: Instant,
    /// It was handed out before and given back: it stands before the others.
    pub(crate) first: bool,
}

/// One kind of task.
pub(super) struct Route {
    pub(super) namespace: Arc<str>,
    pub(super) queue: String,
    pub(super) name: String,
    /// Sessions that do it.
    pub(super) members: usize,
    /// Those of them with credit, in turn.
    pub(super) waiting: VecDeque<Uuid>,
    hints: VecDeque<Hint>,
}

/// By namespace, then queue, then name.
type Index = HashMap<Arc<str>, HashMap<String, HashMap<String, u64>>>;

/// All kinds of task that this node has met.
#[derive(Default)]
pub(super) struct Routes {
    index: Index,
    routes: HashMap<u64, Route>,
    next: u64,
    hints: usize,
}

impl Routes {
    pub(super) fn find(&self, namespace: &str, queue: &str, name: &str) -> Option<u64> {
        self.index.get(namespace)?.get(queue)?.get(name).copied()
    }

    pub(super) fn get(&self, id: u64) -> Option<&Route> {
        self.routes.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Route> {
        self.routes.get_mut(&id)
    }

    pub(super) fn hints(&self) -> usize {
        self.hints
    }

    /// A session does this kind from now on.
    pub(super) fn join(&mut self, namespace: &Arc<str>, queue: &str, name: &str) -> u64 {
        let names =
            self.index.entry(namespace.clone()).or_default().entry(queue.to_owned()).or_default();
        let id = *names.entry(name.to_owned()).or_insert_with(|| {
            self.next += 1;
            self.next
        });
        let route = self.routes.entry(id).or_insert_with(|| Route {
            namespace: namespace.clone(),
            queue: queue.to_owned(),
            name: name.to_owned(),
            members: 0,
            waiting: VecDeque::new(),
            hints: VecDeque::new(),
        });
        route.members += 1;
        id
    }

    /// A session does not do this kind any more. A kind without sessions is forgotten.
    pub(super) fn leave(&mut self, id: u64, session: Uuid) {
        let Some(route) = self.routes.get_mut(&id) else { return };
        route.members = route.members.saturating_sub(1);
        route.waiting.retain(|waiting| *waiting != session);
        if route.members > 0 {
            return;
        }
        let Some(route) = self.routes.remove(&id) else { return };
        self.hints -= route.hints.len();
        let Some(queues) = self.index.get_mut(&route.namespace) else { return };
        if let Some(names) = queues.get_mut(&route.queue) {
            names.remove(&route.name);
            if names.is_empty() {
                queues.remove(&route.queue);
            }
        }
        if queues.is_empty() {
            self.index.remove(&route.namespace);
        }
    }

    pub(super) fn remember(&mut self, id: u64, hint: Hint) {
        if let Some(route) = self.routes.get_mut(&id) {
            match hint.first {
                true => route.hints.push_front(hint),
                false => route.hints.push_back(hint),
            }
            self.hints += 1;
        }
    }

    /// The oldest task of this kind whose reservation still holds.
    pub(super) fn next_hint(&mut self, id: u64) -> Option<Hint> {
        let route = self.routes.get_mut(&id)?;
        let now = Instant::now();
        while let Some(hint) = route.hints.pop_front() {
            self.hints -= 1;
            if hint.until > now {
                return Some(hint);
            }
        }
        None
    }

    /// Forgets the tasks whose reservation is over.
    pub(super) fn expire(&mut self, now: Instant) {
        for route in self.routes.values_mut() {
            let before = route.hints.len();
            route.hints.retain(|hint| hint.until > now);
            self.hints -= before - route.hints.len();
        }
    }
}

//! Kinds of task (namespace, queue, handler), the sessions that wait for each, and the offered tasks that this node
//! remembers.
//!
//! A remembered task is a hint: it may not exist any more. It is kept no longer than its reservation in the table
//! holds.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use backstitch_saga::{RunId, TaskKey};
use uuid::Uuid;

use super::names::Names;
use crate::maps::FastMap;

/// A task that is probably on offer, and that this node has the first right to until `until`.
#[derive(Clone, Debug)]
pub(crate) struct ReservedTask {
    pub(crate) run: RunId,
    pub(crate) task: TaskKey,
    pub(crate) namespace: Arc<str>,
    pub(crate) queue: String,
    pub(crate) name: String,
    pub(crate) until: Instant,
    /// `true` if it was handed out before and given back: it precedes the others.
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
    /// Time at which one of them last asked for tasks or got one.
    pub(super) seen: Instant,
    hints: VecDeque<ReservedTask>,
}

impl Route {
    /// Returns whether other tasks of the kind are remembered.
    pub(super) fn is_remembered(&self) -> bool {
        !self.hints.is_empty()
    }
}

/// By namespace, then queue, then name.
type Index = FastMap<Arc<str>, FastMap<String, FastMap<String, u64>>>;

/// All kinds of task that this node has met.
#[derive(Default)]
pub(super) struct Routes {
    index: Index,
    routes: FastMap<u64, Route>,
    next: u64,
    hints: usize,
    /// The names that the sessions use, which make up the kinds.
    pub(super) names: Names,
    /// Number of remembered tasks by namespace.
    of_namespaces: FastMap<Arc<str>, usize>,
    /// Number of kinds by namespace.
    kinds: FastMap<Arc<str>, usize>,
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

    pub(super) fn kinds_of(&self, namespace: &str) -> usize {
        self.kinds.get(namespace).copied().unwrap_or(0)
    }

    pub(super) fn hints(&self) -> usize {
        self.hints
    }

    /// Returns whether one more task of a namespace may be remembered. The `limit` is divided evenly between the
    /// namespaces with remembered tasks; one without always has room, so that with `n` of them no more than about `1 +
    /// ln n` times the limit is used.
    pub(super) fn has_room(&self, namespace: &str, limit: usize) -> bool {
        match self.of_namespaces.get(namespace) {
            Some(kept) => *kept < limit / self.of_namespaces.len(),
            None => true,
        }
    }

    fn forget(&mut self, namespace: &Arc<str>, count: usize) {
        self.hints -= count;
        if let Some(kept) = self.of_namespaces.get_mut(namespace) {
            *kept = kept.saturating_sub(count);
            if *kept == 0 {
                self.of_namespaces.remove(namespace);
            }
        }
    }

    /// Notes that a session does this kind from now on.
    pub(super) fn join(&mut self, namespace: &Arc<str>, queue: &str, name: &str) -> u64 {
        let names =
            self.index.entry(namespace.clone()).or_default().entry(queue.to_owned()).or_default();
        let id = *names.entry(name.to_owned()).or_insert_with(|| {
            self.next += 1;
            self.next
        });
        let kinds = &mut self.kinds;
        let route = self.routes.entry(id).or_insert_with(|| {
            *kinds.entry(namespace.clone()).or_insert(0) += 1;
            Route {
                namespace: namespace.clone(),
                queue: queue.to_owned(),
                name: name.to_owned(),
                members: 0,
                waiting: VecDeque::new(),
                seen: Instant::now(),
                hints: VecDeque::new(),
            }
        });
        route.members += 1;
        route.seen = Instant::now();
        id
    }

    /// Notes that a session does not do this kind any more. A kind without sessions is forgotten.
    pub(super) fn leave(&mut self, id: u64, session: Uuid) {
        let Some(route) = self.routes.get_mut(&id) else { return };
        route.members = route.members.saturating_sub(1);
        route.waiting.retain(|waiting| *waiting != session);
        if route.members > 0 {
            return;
        }
        let Some(route) = self.routes.remove(&id) else { return };
        self.forget(&route.namespace, route.hints.len());
        if let Some(kinds) = self.kinds.get_mut(&route.namespace) {
            *kinds -= 1;
            if *kinds == 0 {
                self.kinds.remove(&route.namespace);
            }
        }
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

    pub(super) fn remember(&mut self, id: u64, hint: ReservedTask) {
        if let Some(route) = self.routes.get_mut(&id) {
            *self.of_namespaces.entry(Arc::clone(&route.namespace)).or_insert(0) += 1;
            match hint.first {
                true => route.hints.push_front(hint),
                false => route.hints.push_back(hint),
            }
            self.hints += 1;
        }
    }

    /// Returns the oldest task of this kind whose reservation still holds.
    pub(super) fn next_hint(&mut self, id: u64) -> Option<ReservedTask> {
        let route = self.routes.get_mut(&id)?;
        if route.hints.is_empty() {
            return None;
        }
        let (namespace, now) = (Arc::clone(&route.namespace), Instant::now());
        let over = route.hints.iter().take_while(|hint| hint.until <= now).count();
        route.hints.drain(..over);
        let next = route.hints.pop_front();
        if next.is_some() {
            route.seen = now;
        }
        self.forget(&namespace, over + usize::from(next.is_some()));
        next
    }

    /// Forgets the tasks whose reservation is over.
    pub(super) fn expire(&mut self, now: Instant) {
        let mut gone = Vec::new();
        for route in self.routes.values_mut() {
            let before = route.hints.len();
            route.hints.retain(|hint| hint.until > now);
            if route.hints.len() < before {
                gone.push((Arc::clone(&route.namespace), before - route.hints.len()));
            }
        }
        for (namespace, count) in gone {
            self.forget(&namespace, count);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn hint(namespace: &str, until: Instant) -> ReservedTask {
        ReservedTask {
            run: RunId(Uuid::nil()),
            task: TaskKey {
                step: backstitch_saga::StepPath::step("a"),
                action: backstitch_saga::Action::Forward,
                attempt: 1,
            },
            namespace: namespace.into(),
            queue: "q".to_owned(),
            name: "h".to_owned(),
            until,
            first: false,
        }
    }

    #[test]
    fn tasks_of_one_namespace_that_are_kept_in_mind_leave_room_for_those_of_others() {
        let (mut routes, now) = (Routes::default(), Instant::now());
        let [a, b] = ["a", "b"].map(|name| routes.join(&name.into(), "q", "h"));
        let later = now + Duration::from_secs(60);
        while routes.has_room("a", 10) {
            routes.remember(a, hint("a", later));
        }
        assert_eq!(routes.hints(), 10, "one alone has all");
        while routes.has_room("b", 10) {
            routes.remember(b, hint("b", now));
        }
        assert_eq!(routes.hints(), 15);
        assert!(!routes.has_room("a", 10));
        assert!(routes.next_hint(b).is_none(), "their reservations are over");
        (0..4).for_each(|_| assert!(routes.next_hint(a).is_some()));
        assert!(routes.has_room("a", 10));
        routes.remember(a, hint("a", now));
        routes.expire(now);
        assert_eq!(routes.hints(), 6);
        assert_eq!((routes.kinds_of("a"), routes.kinds_of("c")), (1, 0));
        routes.leave(a, Uuid::nil());
        assert_eq!((routes.hints(), routes.of_namespaces.len()), (0, 0));
        assert_eq!((routes.kinds_of("a"), routes.kinds.len()), (0, 1));
    }
}

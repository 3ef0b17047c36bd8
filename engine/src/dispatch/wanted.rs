//! Demand of sessions with room, for looking in the database. Of a namespace whose sessions name very many kinds of
//! task some have their turn with each look, so that no look takes long for others.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::{Dispatcher, SessionFilter, State};

/// Approximate number of kinds of task of a namespace in one look.
pub(crate) const LOOKED_FOR: usize = 1_000;

/// Demand of sessions with credit on one queue.
#[derive(Clone, Debug, Default)]
pub(crate) struct Demand {
    /// Largest number of tasks by handler.
    pub(crate) names: HashMap<String, u32>,
    /// Largest number of tasks in all.
    pub(crate) room: u32,
}

/// Number of looks for tasks, of queues without and with limits.
#[derive(Debug, Default)]
pub(super) struct Looks {
    free: u64,
    governed: u64,
}

/// The kinds of task of a namespace that have their turn.
#[derive(Clone, Copy, Debug)]
struct Turn {
    parts: u64,
    look: u64,
}

impl Turn {
    /// Returns the turn that a namespace of so many kinds has with a look.
    fn of(kinds: usize, look: u64) -> Turn {
        Turn { parts: kinds.div_ceil(LOOKED_FOR).max(1) as u64, look }
    }

    fn has(self, id: u64) -> bool {
        self.parts == 1 || id % self.parts == self.look % self.parts
    }
}

impl State {
    fn turn(&self, namespace: &str, look: u64) -> Turn {
        Turn::of(self.routes.kinds_of(namespace), look)
    }
}

impl Dispatcher {
    /// Returns the demand of sessions with credit: namespace, queue, handler, number.
    pub(crate) fn wanted(&self) -> Vec<(Arc<str>, String, String, u32)> {
        let mut state = self.lock();
        state.looks.free += 1;
        let (state, look, now) = (&*state, state.looks.free, Instant::now());
        let mut wanted: HashMap<u64, u32> = HashMap::new();
        for session in state.sessions.values() {
            if session.room() > 0 && session.is_alive(now, self.grace) {
                let turn = state.turn(&session.namespace, look);
                for id in session.routes().filter(|id| turn.has(*id)) {
                    *wanted.entry(id).or_default() += session.room();
                }
            }
        }
        let named = wanted.into_iter().filter_map(|(id, count)| {
            let route = state.routes.get(id)?;
            Some((route.namespace.clone(), route.queue.clone(), route.name.clone(), count))
        });
        named.collect()
    }

    /// Returns whether a session with credit waits for a kind of task.
    pub(crate) fn is_wanted(&self, namespace: &str, queue: &str, name: &str) -> bool {
        let state = self.lock();
        let id = state.routes.find(namespace, queue, name);
        let Some(route) = id.and_then(|id| state.routes.get(id)) else { return false };
        let now = Instant::now();
        let waits = |session: &uuid::Uuid| {
            let session = state.sessions.get(session);
            session.is_some_and(|one| one.room() > 0 && one.is_alive(now, self.grace))
        };
        route.waiting.iter().any(waits)
    }

    /// Returns the demand of sessions with credit that are known to come back, by the queues for which
    /// `which` has a value.
    pub(crate) fn wants<T>(&self, which: impl Fn(&str, &str) -> Option<T>) -> Vec<(T, Demand)> {
        let mut state = self.lock();
        state.looks.governed += 1;
        let (state, look, now) = (&*state, state.looks.governed, Instant::now());
        let mut found: HashMap<(&str, &str), Option<(T, Demand)>> = HashMap::new();
        for session in state.sessions.values() {
            let here = session.is_alive(now, self.grace) && session.is_for(SessionFilter::Known);
            if session.room() == 0 || !here {
                continue;
            }
            let mut met: HashSet<&str> = HashSet::new();
            let turn = state.turn(&session.namespace, look);
            let ids = session.routes().filter(|id| turn.has(*id));
            for route in ids.filter_map(|id| state.routes.get(id)) {
                let (namespace, queue) = (&*route.namespace, route.queue.as_str());
                let known = found.entry((namespace, queue)).or_insert_with(|| {
                    which(namespace, queue).map(|known| (known, Demand::default()))
                });
                let Some((_, wants)) = known else { continue };
                *wants.names.entry(route.name.clone()).or_default() += session.room();
                if met.insert(queue) {
                    wants.room += session.room();
                }
            }
        }
        for (namespace, queue, name) in state.ready_alone() {
            let known = found
                .entry((namespace, queue))
                .or_insert_with(|| which(namespace, queue).map(|known| (known, Demand::default())));
            let Some((_, wants)) = known else { continue };
            *wants.names.entry(name.to_owned()).or_default() += 1;
            wants.room += 1;
        }
        found.into_values().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_kinds_are_looked_for_each_time_and_of_many_each_has_its_turn() {
        assert!((0..10).all(|id| Turn::of(LOOKED_FOR, 7).has(id)));
        let many = 10 * LOOKED_FOR;
        let turns = |id: u64| (0..10).filter(|look| Turn::of(many, *look).has(id)).count();
        assert!((0..many as u64).all(|id| turns(id) == 1));
        let at_once = (0..many as u64).filter(|id| Turn::of(many, 3).has(*id)).count();
        assert_eq!(at_once, LOOKED_FOR);
    }
}

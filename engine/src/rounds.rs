//! Turns between namespaces in the background work: orders what is due so that a flood of one namespace keeps another
//! waiting for a turn only. Which rows of each namespace are read at all is said in `store/spaces.rs`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

/// Orders items so that namespaces take turns, beginning with the first one after `after`. The items of one namespace
/// stay in their order.
pub(crate) fn in_turns<T>(items: Vec<T>, after: &str, namespace: impl Fn(&T) -> &str) -> Vec<T> {
    let count = items.len();
    let mut waiting: BTreeMap<String, VecDeque<T>> = BTreeMap::new();
    for item in items {
        waiting.entry(namespace(&item).to_owned()).or_default().push_back(item);
    }
    let later = waiting.split_off(after);
    let (first, last): (Vec<_>, Vec<_>) = later.into_iter().partition(|(name, _)| name != after);
    let mut turns: VecDeque<VecDeque<T>> =
        first.into_iter().chain(waiting).chain(last).map(|(_, items)| items).collect();
    let mut ordered = Vec::with_capacity(count);
    while let Some(mut items) = turns.pop_front() {
        ordered.extend(items.pop_front());
        if !items.is_empty() {
            turns.push_back(items);
        }
    }
    ordered
}

/// The namespace that had the last turn in some work, so that the next look begins behind it.
#[derive(Debug, Default)]
pub(crate) struct LastTurn(Mutex<String>);

impl LastTurn {
    /// Returns the namespace that had the last turn; empty before the first.
    pub(crate) fn get(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes which namespace had the last turn; `None` when the next look begins with the first namespace.
    pub(crate) fn set(&self, namespace: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = namespace.unwrap_or_default();
    }
}

/// The last turns in all work that does not go through all namespaces in one look.
#[derive(Debug, Default)]
pub(crate) struct LastTurns {
    pub(crate) jobs: LastTurn,
    pub(crate) migrations: LastTurn,
    pub(crate) permits: LastTurn,
    pub(crate) releases: LastTurn,
    /// Early signals up to which namespaces with many were checked.
    pub(crate) signals: Places<(String, String, String)>,
    /// Sequenced runs up to which namespaces with many were checked.
    pub(crate) sequenced: Places<Uuid>,
}

/// Progress of a walk in the namespaces that have more than it checks in one turn.
#[derive(Debug)]
pub(crate) struct Places<P>(Mutex<BTreeMap<String, P>>);

impl<P> Default for Places<P> {
    fn default() -> Places<P> {
        Places(Mutex::default())
    }
}

impl<P: Clone> Places<P> {
    /// Takes all of them.
    pub(crate) fn take(&self) -> BTreeMap<String, P> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps these instead of those that there are.
    pub(crate) fn put(&self, places: BTreeMap<String, P>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = places;
    }

    /// Returns all of them.
    pub(crate) fn all(&self) -> Vec<(String, P)> {
        let places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.iter().map(|(name, place)| (name.clone(), place.clone())).collect()
    }

    /// Notes the progress of the walk in a namespace; `None` when it begins again there.
    pub(crate) fn set(&self, namespace: &str, place: Option<P>) {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match place {
            Some(place) => drop(places.insert(namespace.to_owned(), place)),
            None => drop(places.remove(namespace)),
        }
    }
}

/// Namespaces as texts that are shared.
#[derive(Debug, Default)]
pub(crate) struct Names(HashMap<String, Arc<str>>);

impl Names {
    /// Returns the shared text of a namespace.
    pub(crate) fn shared(&mut self, namespace: &str) -> Arc<str> {
        if let Some(known) = self.0.get(namespace) {
            return Arc::clone(known);
        }
        let shared: Arc<str> = namespace.into();
        self.0.insert(namespace.to_owned(), Arc::clone(&shared));
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(items: &[(&str, u32)], after: &str) -> Vec<(String, u32)> {
        let items = items.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect();
        in_turns(items, after, |(name, _)| name)
    }

    #[test]
    fn each_namespace_has_its_turn_and_keeps_its_order() {
        let items = [("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("c", 6)];
        let expected = [("a", 1), ("b", 4), ("c", 5), ("a", 2), ("c", 6), ("a", 3)];
        let expected = expected.map(|(name, number)| (name.to_owned(), number));
        assert_eq!(ordered(&items, ""), expected);
    }

    #[test]
    fn the_first_turn_is_of_the_namespace_after_the_last() {
        let items = [("a", 1), ("b", 2), ("c", 3)];
        let first = |after| ordered(&items, after).first().map(|(_, number)| *number);
        let all = ["", "a", "aa", "b", "c", "d"].map(first);
        assert_eq!(all, [Some(1), Some(2), Some(2), Some(3), Some(1), Some(1)]);
        assert_eq!(ordered(&items, "b").last().map(|(_, number)| *number), Some(2));
    }
}

//! Decides which namespaces may have a batch written beside those in flight.
//!
//! One batch may always be in flight; a second, concurrent one is worth its own transaction only if it is large. This
//! holds for the batches that namespaces share, and for each namespace with batches of its own: so a namespace without
//! a batch in flight never waits for the batch of a flood.

use std::collections::HashMap;
use std::sync::Arc;

use super::FLIGHTS;

/// Largest number of batches of a shard in flight.
pub(super) const MOST: usize = 2 * FLIGHTS;

/// The batches that are being written.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    total: usize,
    /// Those that are shared: no namespace has much in them.
    shared: usize,
    namespaces: HashMap<Arc<str>, usize>,
}

/// Number of waiting commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waits {
    /// Commands of namespaces without a batch in flight.
    pub(crate) first: usize,
    /// Of namespaces that may have another beside those under way.
    pub(crate) further: usize,
}

impl Waits {
    /// Counts the commands of a namespace with so many batches in flight.
    pub(crate) fn add(&mut self, batches: usize, commands: usize) {
        match batches {
            0 => self.first += commands,
            _ if batches < FLIGHTS => self.further += commands,
            _ => {}
        }
    }
}

/// The namespaces whose commands may be taken for a batch now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct May {
    /// Commands of namespaces without a batch in flight.
    pub(crate) first: bool,
    /// Those of namespaces that may have another.
    pub(crate) further: bool,
}

impl May {
    /// Returns whether a batch may be decided.
    pub(crate) fn any(self) -> bool {
        self.first || self.further
    }

    /// Returns whether a namespace with so many batches in flight may have one more.
    pub(crate) fn takes(self, batches: usize) -> bool {
        match batches {
            0 => self.first,
            _ => self.further && batches < FLIGHTS,
        }
    }
}

impl InFlight {
    /// Returns the number of batches of a namespace in flight.
    pub(crate) fn of(&self, namespace: Option<&Arc<str>>) -> usize {
        if self.total == 0 {
            return 0;
        }
        namespace.and_then(|namespace| self.namespaces.get(namespace)).copied().unwrap_or(0)
    }

    /// Returns the namespaces whose commands may be taken now. `beside` is the number of commands that make a batch
    /// worth its own transaction.
    pub(crate) fn may(&self, waits: Waits, beside: usize) -> May {
        let shared = match self.shared {
            0 => true,
            shared => shared < FLIGHTS && waits.first >= beside,
        };
        May {
            first: waits.first > 0 && self.total < MOST && shared,
            // The last is left to those of whom nothing is under way.
            further: waits.further >= beside && self.total + 1 < MOST,
        }
    }

    /// Returns whether there are so many that the next is to be a small one.
    pub(crate) fn is_crowded(&self) -> bool {
        self.total >= FLIGHTS
    }

    /// Notes that a batch of these namespaces is under way.
    pub(crate) fn add(&mut self, namespaces: &[Arc<str>], shared: bool) {
        self.total += 1;
        self.shared += usize::from(shared);
        for namespace in namespaces {
            *self.namespaces.entry(Arc::clone(namespace)).or_insert(0) += 1;
        }
    }

    /// Notes that it is written, or not.
    pub(crate) fn remove(&mut self, namespaces: &[Arc<str>], shared: bool) {
        self.total = self.total.saturating_sub(1);
        self.shared = self.shared.saturating_sub(usize::from(shared));
        for namespace in namespaces {
            if let Some(count) = self.namespaces.get_mut(namespace) {
                *count -= 1;
                if *count == 0 {
                    self.namespaces.remove(namespace);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BESIDE: usize = 64;

    fn in_flight(batches: &[(&[&str], bool)]) -> InFlight {
        let mut in_flight = InFlight::default();
        for (namespaces, shared) in batches {
            let namespaces: Vec<Arc<str>> = namespaces.iter().map(|&name| name.into()).collect();
            in_flight.add(&namespaces, *shared);
        }
        in_flight
    }

    fn may(batches: &[(&[&str], bool)], waiting: &[(&str, usize)]) -> (bool, bool) {
        let in_flight = in_flight(batches);
        let mut waits = Waits::default();
        for (namespace, commands) in waiting {
            waits.add(in_flight.of(Some(&(*namespace).into())), *commands);
        }
        let May { first, further } = in_flight.may(waits, BESIDE);
        (first, further)
    }

    #[test]
    fn one_namespace_alone_has_one_batch_and_a_second_if_it_is_large() {
        for shared in [true, false] {
            assert_eq!(may(&[], &[("a", 1)]), (true, false));
            assert_eq!(may(&[(&["a"], shared)], &[("a", 63)]), (false, false));
            assert_eq!(may(&[(&["a"], shared)], &[("a", 64)]), (false, true));
            let two: &[(&[&str], bool)] = &[(&["a"], shared), (&["a"], shared)];
            assert_eq!(may(two, &[("a", 10_000)]), (false, false));
        }
    }

    #[test]
    fn a_newcomer_waits_for_no_batch_that_a_flood_has_for_itself() {
        let flood: &[(&[&str], bool)] = &[(&["a"], false), (&["a"], false)];
        assert_eq!(may(flood, &[("a", 10_000), ("b", 1)]), (true, false));
        let three: &[(&[&str], bool)] = &[(&["a"], false), (&["c"], false), (&["c"], false)];
        assert_eq!(may(three, &[("a", 10_000), ("b", 1)]), (true, false));
    }

    #[test]
    fn namespaces_with_little_share_their_batches() {
        assert_eq!(may(&[(&["a"], true)], &[("b", 10), ("c", 10)]), (false, false));
        assert_eq!(may(&[(&["a"], true)], &[("b", 60), ("c", 60)]), (true, false));
    }

    #[test]
    fn nothing_is_under_way_once_all_is_written() {
        let mut in_flight = in_flight(&[(&["a", "b"], true), (&["a"], false)]);
        assert_eq!(in_flight.of(Some(&"a".into())), 2);
        in_flight.remove(&["a".into()], false);
        in_flight.remove(&["a".into(), "b".into()], true);
        assert_eq!((in_flight.total, in_flight.shared, in_flight.namespaces.len()), (0, 0, 0));
    }
}

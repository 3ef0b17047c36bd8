//! The portion of each namespace in a batch: how much it may have decided before its rest waits for the next batch, and
//! whether that is written in a batch of its own.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::decide::Decided;
use crate::maps::FastMap;

/// Number of bytes of documents that the commands of a namespace may build in one batch, beside those that they bring.
pub(super) const BUILT: usize = 1024 * 1024;
/// Time for which the commands of a namespace are decided for one batch.
pub(super) const DECIDED_FOR: Duration = Duration::from_millis(10);
/// Size in bytes from which the records of a namespace are written in a batch of their own.
pub(super) const LARGE: usize = 256 * 1024;

/// Decisions that take less time and fewer bytes are not counted: `batch_runs` bounds their number.
const SMALL_BYTES: usize = 4 * 1024;
const SMALL_TIME: Duration = Duration::from_micros(100);

/// Costs of the commands of each namespace in a batch.
#[derive(Debug, Default)]
pub(super) struct Portions(FastMap<Arc<str>, Portion>);

#[derive(Clone, Copy, Debug, Default)]
struct Portion {
    built: usize,
    took: Duration,
}

impl Portions {
    /// Counts the bytes that a decision built, and its time. Returns `false` if that was next to nothing.
    pub(super) fn count(&mut self, namespace: &Arc<str>, built: usize, took: Duration) -> bool {
        if built < SMALL_BYTES && took < SMALL_TIME {
            return false;
        }
        let portion = self.0.entry(Arc::clone(namespace)).or_default();
        portion.built += built;
        portion.took += took;
        true
    }

    /// Returns whether nothing costly was decided.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether a namespace has had its portion of this batch.
    pub(super) fn is_used_up(&self, namespace: &Arc<str>) -> bool {
        let portion = self.0.get(namespace);
        portion.is_some_and(|portion| portion.built >= BUILT || portion.took >= DECIDED_FOR)
    }
}

/// Records that are written together.
pub(super) struct Part {
    pub(super) decided: Vec<Decided>,
    /// The namespaces whose runs they are.
    pub(super) namespaces: Vec<Arc<str>>,
    /// No namespace has much in it.
    pub(super) shared: bool,
}

/// Splits the decisions: namespaces with `many` records or large ones have a batch of their own, so that others do not
/// wait for it.
pub(super) fn part(decided: Vec<Decided>, many: usize) -> Vec<Part> {
    let mut amounts: FastMap<Arc<str>, (usize, usize)> = FastMap::default();
    for one in &decided {
        let bytes = one.bytes();
        match amounts.get_mut(&one.cached.namespace) {
            Some(amount) => *amount = (amount.0 + 1, amount.1 + bytes),
            None => drop(amounts.insert(Arc::clone(&one.cached.namespace), (1, bytes))),
        }
    }
    let is_large = |&(records, bytes): &(usize, usize)| records >= many || bytes >= LARGE;
    let (large, small): (HashSet<_>, HashSet<_>) = {
        let (large, small): (Vec<_>, Vec<_>) =
            amounts.into_iter().partition(|(_, amount)| is_large(amount));
        let names = |part: Vec<(Arc<str>, _)>| part.into_iter().map(|(name, _)| name).collect();
        (names(large), names(small))
    };
    if large.is_empty() || small.is_empty() {
        let shared = large.is_empty();
        let namespaces = small.into_iter().chain(large).collect();
        return vec![Part { decided, namespaces, shared }];
    }
    let (theirs, others) =
        decided.into_iter().partition(|one| large.contains(&one.cached.namespace));
    vec![
        Part { decided: others, namespaces: small.into_iter().collect(), shared: true },
        Part { decided: theirs, namespaces: large.into_iter().collect(), shared: false },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_puts_much_together_or_takes_long_has_had_its_portion() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut portions = Portions::default();
        assert!(!portions.count(&a, SMALL_BYTES - 1, Duration::ZERO) && portions.is_empty());
        portions.count(&a, BUILT / 2, Duration::ZERO);
        assert!(!portions.is_used_up(&a));
        portions.count(&a, BUILT / 2, Duration::ZERO);
        portions.count(&b, 0, DECIDED_FOR / 2);
        assert!(portions.is_used_up(&a) && !portions.is_used_up(&b));
        portions.count(&b, 0, DECIDED_FOR / 2);
        assert!(portions.is_used_up(&b));
    }
}

//! Counts of the queues and handlers that the sessions of each namespace name, in the memory of this
//! node.

use std::sync::Arc;

use crate::maps::FastMap;

/// The most that the sessions of a namespace may name at a node: a session counts as one, and so does each queue and
/// each handler that it names.
pub(crate) const MOST_NAMES: usize = 100_000;

/// Names that are kept, by namespace.
#[derive(Debug, Default)]
pub(super) struct Names(FastMap<Arc<str>, usize>);

impl Names {
    /// Counts `now` for a namespace instead of `before`. Returns whether it may have so many; if not, nothing changes.
    pub(super) fn change(&mut self, namespace: &Arc<str>, before: usize, now: usize) -> bool {
        let others = self.0.get(namespace).map_or(0, |kept| kept.saturating_sub(before));
        if now > before && others + now > MOST_NAMES {
            return false;
        }
        match others + now {
            0 => drop(self.0.remove(namespace)),
            kept => drop(self.0.insert(namespace.clone(), kept)),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_so_many_names_and_others_theirs() {
        let (mut names, a, b) = (Names::default(), "a".into(), "b".into());
        assert!(names.change(&a, 0, MOST_NAMES - 10));
        assert!(!names.change(&a, 0, 11), "ten are left");
        assert!(names.change(&b, 0, 11));
        assert!(names.change(&a, 0, 10));
        assert!(!names.change(&a, 10, 11));
        assert!(names.change(&a, 10, 9) && names.change(&a, 9, 10), "fewer make room");
        assert!(names.change(&a, MOST_NAMES - 10, 0) && names.change(&a, 10, 0));
        assert!(names.change(&b, 11, 0));
        assert!(names.0.is_empty());
    }
}

//! Relations of runs that belong together: the bounds of their number, and the notifications from parent to child.

use serde::{Deserialize, Serialize};

/// Largest depth of a run below the root of its tree.
pub const DEEPEST_DESCENDANT: u32 = 32;
/// Default for the number of runs that may descend from one.
pub const MOST_DESCENDANTS: u32 = 10_000;

/// The place of a run in its tree, and its share of the number of runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descent {
    /// Its depth; 0 for a run that is no step of another.
    pub depth: u32,
    /// The number of runs that may descend from it.
    pub budget: u32,
}

impl Default for Descent {
    fn default() -> Descent {
        Descent { depth: 0, budget: MOST_DESCENDANTS }
    }
}

impl Descent {
    /// Returns the place of each child of a run at this one, whose definition has `children` steps that are children.
    /// Each gets an equal share of what is left when all of them are counted, so that no run has to count what others
    /// do.
    #[must_use]
    pub fn of_child(self, children: u32) -> Descent {
        let left = self.budget.saturating_sub(children);
        Descent { depth: self.depth + 1, budget: left / children.max(1) }
    }
}

/// A notification from a parent to a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParentWord {
    /// The parent is paused, and the child with it.
    Paused,
    /// The parent goes on, and the child with it.
    Resumed,
    /// The parent was killed, and the child is with it.
    Killed,
    /// The parent was killed, and the child goes on by itself.
    Left,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the number of runs that descend from a run at `descent` if each has `children` children.
    fn descendants(descent: Descent, children: u32) -> u64 {
        if descent.depth == DEEPEST_DESCENDANT {
            return 0;
        }
        let begun = children.min(descent.budget);
        let below = descendants(descent.of_child(children), children);
        u64::from(begun) * (1 + below)
    }

    #[test]
    fn no_tree_of_equal_runs_grows_beyond_its_budget() {
        for children in [1, 2, 3, 7, 100, 101, 5_000, 20_000] {
            let all = descendants(Descent::default(), children);
            assert!(all <= u64::from(MOST_DESCENDANTS), "{children}: {all}");
        }
        assert_eq!(descendants(Descent::default(), 1), u64::from(DEEPEST_DESCENDANT));
        assert_eq!(descendants(Descent { depth: 0, budget: 3 }, 7), 3);
    }

    #[test]
    fn a_hundred_children_may_have_ninety_nine_each() {
        assert_eq!(
            descendants(Descent { depth: DEEPEST_DESCENDANT - 2, budget: 10_000 }, 100),
            10_000
        );
    }
}

//! Planted bugs, of which one can be chosen, so that the chaos harness shows that it would find it.
//!
//! Without the feature `planted-bugs` none is in the program.

use std::sync::OnceLock;

static CHOSEN: OnceLock<String> = OnceLock::new();

/// The bugs, by name.
pub const BUGS: &[&str] = &[
    "no-fence",
    "no-lease",
    "conflict-ignored",
    "two-records",
    "reply-before-commit",
    "claim-new-only",
    "enqueue-outside",
    "stray-index-row",
    "forward-order-undo",
    "local-clock",
    "notify-only",
    "unknown-is-failure",
    "no-namespace",
    "attempts-reset",
];

/// Chooses the bug that this process has, once.
pub fn choose(bug: &str) {
    CHOSEN.get_or_init(|| bug.to_owned());
}

/// Returns whether this process has the bug.
#[must_use]
pub fn has(bug: &str) -> bool {
    CHOSEN.get().is_some_and(|chosen| chosen == bug)
}

//! Invariants, each a function of the evidence alone. None knows the engine's rules or its tables.

mod acks;
mod effects;
mod lines;
mod order;
mod runs;
mod time;

use crate::evidence::{Evidence, Violation};
pub use time::{calm_lateness, lateness};

/// A checker: what of the evidence must never be.
pub type Checker = fn(&Evidence) -> Vec<Violation>;

/// All checkers, by invariant. The others (I11, I12, I14 to I16) are checked in `drills`, `schedules`, `plan` and
/// `senders`.
pub const CHECKERS: &[(&str, &str, Checker)] = &[
    ("I1", "a run has one terminal state, for ever", runs::one_end),
    ("I2", "nothing acknowledged is lost", acks::nothing_acknowledged_is_lost),
    ("I3", "one completion per step, one effect, net zero once undone", effects::once),
    ("I4", "a stale attempt moves nothing", acks::stale_attempts_move_nothing),
    ("I5", "what is moved is neither made nor lost", effects::conservation),
    ("I6", "a join fires once, after all that it needed", order::joins),
    ("I7", "compensation runs backward, and nothing goes forward then", order::compensation),
    ("I8", "the journal is gapless and tells what the run shows", runs::the_journal_is_the_run),
    ("I9", "every run ends, as its program says, or needs a person", runs::every_run_ends),
    ("I10", "timers fire once and never early", time::timers),
    ("I13", "no more at once than allowed", time::caps),
    ("I13", "one run at a time moves under a serial key, and none before its facts", lines::turns),
];

/// Finds everything that must never be.
#[must_use]
pub fn check(evidence: &Evidence) -> Vec<Violation> {
    CHECKERS.iter().flat_map(|(_, _, checker)| checker(evidence)).collect()
}

#[cfg(test)]
mod tests;

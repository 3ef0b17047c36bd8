//! Causes of events: what an event inherits from those that caused it, and where a chain of causes is a loop.

use serde::Serialize;

use super::envelope::Trust;
use crate::canonical::Refused;

/// The longest chain of causes, unless an operator says otherwise.
pub const MAX_HOPS: u32 = 25;
/// The most causes that an event names; of more, the first are named.
pub const MOST_CAUSES: usize = 100;

/// Event that causes another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Id of the event.
    pub id: String,
    /// Its correlation id.
    pub correlation_id: String,
    /// Length of its own chain of causes.
    pub hops: u32,
    /// Its trust.
    pub trust: Trust,
}

/// The inheritance of an event from its cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Causality {
    /// The correlation id of the first cause: constant along the whole story.
    pub correlation_id: String,
    /// The first cause.
    pub causation_id: String,
    /// All causes.
    pub caused_by: Vec<String>,
    /// Length of the chain of causes.
    pub hops: u32,
    /// The least trust of all causes.
    pub trust: Trust,
}

impl Causality {
    /// Returns what an event inherits from its causes; `None` without causes.
    ///
    /// # Errors
    /// `propagation_loop` when the chain is longer than `max_hops`.
    pub fn of(causes: &[Cause], max_hops: u32) -> Result<Option<Causality>, Refused> {
        let Some(first) = causes.first() else { return Ok(None) };
        let hops =
            causes.iter().map(|cause| cause.hops).max().unwrap_or_default().saturating_add(1);
        if hops > max_hops {
            let message = format!(
                "the event would be number {hops} in a chain of causes, and {max_hops} are allowed: two systems answer each other; let one of them leave out what it caused itself (source_not)"
            );
            return Err(Refused::new("propagation_loop", message));
        }
        Ok(Some(Causality {
            correlation_id: first.correlation_id.clone(),
            causation_id: first.id.clone(),
            caused_by: causes.iter().take(MOST_CAUSES).map(|cause| cause.id.clone()).collect(),
            hops,
            trust: causes.iter().map(|cause| cause.trust).min().unwrap_or(Trust::Untrusted),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_the_least_trust_and_the_longest_chain_of_its_causes() {
        let cause = |id: &str, hops, trust| Cause {
            id: id.to_owned(),
            correlation_id: format!("story of {id}"),
            hops,
            trust,
        };
        let causes = [cause("a", 1, Trust::Signed), cause("b", 4, Trust::Unverified)];
        let inherited = Causality::of(&causes, MAX_HOPS).unwrap().unwrap();
        assert_eq!((inherited.hops, inherited.trust), (5, Trust::Unverified));
        assert_eq!(inherited.correlation_id, "story of a");
        assert_eq!(inherited.caused_by, ["a", "b"]);
        assert_eq!(Causality::of(&[], MAX_HOPS), Ok(None));
    }

    #[test]
    fn a_chain_of_causes_that_is_too_long_is_a_loop() {
        let mut cause = Cause {
            id: "e0".to_owned(),
            correlation_id: "c".to_owned(),
            hops: 0,
            trust: Trust::Signed,
        };
        for hop in 1..=MAX_HOPS {
            let next = Causality::of(&[cause.clone()], MAX_HOPS).unwrap().unwrap();
            assert_eq!(next.hops, hop);
            cause.hops = next.hops;
        }
        assert_eq!(Causality::of(&[cause.clone()], MAX_HOPS).unwrap_err().code, "propagation_loop");
        cause.hops = u32::MAX;
        assert_eq!(Causality::of(&[cause], MAX_HOPS).unwrap_err().code, "propagation_loop");
    }
}

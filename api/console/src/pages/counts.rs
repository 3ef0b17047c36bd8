//! Numbers of runs by state and outcome.

use backstitch_saga::protocol::{Outcome, State, StatusView};

use crate::show::{Badge, Tone, number, outcome_tone, state_tone};

/// The most ended runs of an outcome that the status counts.
const MOST_ENDED: u64 = 1_000;

/// The states of runs that have not ended, those that need a person first.
const STATES: [State; 6] = [
    State::CompensationBlocked,
    State::Compensating,
    State::Paused,
    State::Waiting,
    State::Running,
    State::Queued,
];

/// A state or outcome with the number of its runs.
pub(crate) struct StateCount {
    pub(crate) word: String,
    pub(crate) count: String,
    pub(crate) badge: Badge,
}

impl StateCount {
    /// Counts runs that have not ended by their state.
    pub(crate) fn moving(status: &StatusView) -> Vec<StateCount> {
        let count = |state: &State| {
            let count = status.runs.get(state.as_str()).copied().unwrap_or(0);
            let tone = if count == 0 { Tone::Idle } else { state_tone(*state) };
            StateCount {
                word: state.as_str().to_owned(),
                count: number(count),
                badge: Badge::new(tone, state.as_str()),
            }
        };
        STATES.iter().map(count).collect()
    }

    /// Counts runs that were started within the last hour and have ended by their outcome.
    pub(crate) fn ended(status: &StatusView) -> Vec<StateCount> {
        let count = |outcome: &Outcome| {
            let count = status.ended.get(outcome.as_str()).copied()?;
            let more = if count >= MOST_ENDED { "+" } else { "" };
            Some(StateCount {
                word: outcome.as_str().to_owned(),
                count: format!("{}{more}", number(count)),
                badge: Badge::new(outcome_tone(*outcome), outcome.as_str()),
            })
        };
        Outcome::ALL.iter().filter_map(count).collect()
    }
}

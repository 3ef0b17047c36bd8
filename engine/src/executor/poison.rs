//! Timers that a defect stops: a run whose timer fails again and again is put aside with an incident, by whichever node
//! meets it.

use std::time::Duration;

use backstitch_saga::{RunId, Time};

use super::{OWN_RETRY, OWN_RETRY_LATER, Shard};
use crate::damage;
use crate::maps::FastMap;

/// Number of consecutive failures of a run's timers that are tolerated, over all nodes and
/// restarts.
pub(crate) const TRIES: u32 = 3;
/// Number of runs with failed timers that are remembered.
const REMEMBERED: usize = 10_000;

/// Number of consecutive failures of timers by run.
#[derive(Debug, Default)]
pub(super) struct Poison(FastMap<RunId, u32>);

impl Poison {
    /// Forgets the failures of a run, after its timer or a command was decided.
    pub(super) fn worked(&mut self, run: RunId) {
        if !self.0.is_empty() {
            self.0.remove(&run);
        }
    }

    /// Counts a failure of a run's timer. Returns the delay before the next try; `None` if there were enough.
    fn failed(&mut self, run: RunId) -> Option<Duration> {
        if self.0.len() >= REMEMBERED && !self.0.contains_key(&run) {
            self.0.clear();
        }
        let failures = self.0.entry(run).or_insert(0);
        *failures += 1;
        let rest = OWN_RETRY * 4_u32.pow(*failures - 1);
        if *failures >= TRIES {
            self.0.remove(&run);
            return None;
        }
        Some(rest)
    }
}

impl Shard {
    /// Notes that a defect stopped a command of a run. `due`: what it said when the command was to do
    /// what is due.
    pub(super) fn broken(&mut self, run: RunId, at: Time, due: Option<String>) {
        let again = match &due {
            None => Some(OWN_RETRY_LATER),
            Some(_) => self.poison.failed(run),
        };
        match again {
            Some(again) => self.timers.set(run, at.after(again.into()), None),
            None => self.timers.clear(run),
        }
        if let Some(due) = due {
            damage::timer_failed(&self.node, run, due, again.is_none());
        }
    }

    /// Forgets runs that were put aside: their timers are not looked after.
    pub(super) fn put_aside(&mut self, runs: &[RunId]) {
        for run in runs {
            self.timers.clear(*run);
            self.poison.worked(*run);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_timer_that_fails_is_tried_again_until_it_failed_often_enough_in_a_row() {
        let (mut poison, run) = (Poison::default(), RunId(Uuid::from_u128(1)));
        assert_eq!(poison.failed(run), Some(OWN_RETRY));
        assert_eq!(poison.failed(run), Some(OWN_RETRY * 4));
        poison.worked(run);
        assert_eq!(poison.failed(run), Some(OWN_RETRY));
        assert_eq!(poison.failed(run), Some(OWN_RETRY * 4));
        assert_eq!(poison.failed(run), None);
        for number in 0..REMEMBERED as u128 + 10 {
            poison.failed(RunId(Uuid::from_u128(number)));
            assert!(poison.0.len() <= REMEMBERED);
        }
    }
}

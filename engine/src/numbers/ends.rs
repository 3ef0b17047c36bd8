//! Runs that this node saw begin and end, by workflow and outcome.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use backstitch_saga::protocol::Outcome;

use super::{Family, MOST_VALUES, OTHER, number};

/// Runs of one workflow.
#[derive(Clone, Debug, Default)]
struct Numbers {
    started: u64,
    ended: HashMap<Outcome, u64>,
}

/// Runs that began and ended. It is changed once for each.
#[derive(Debug, Default)]
pub(crate) struct Ends(Mutex<HashMap<String, Numbers>>);

impl Ends {
    /// Counts a run of `workflow` that has begun.
    pub(crate) fn started(&self, workflow: &str) {
        self.change(workflow, |numbers| numbers.started += 1);
    }

    /// Counts a run of `workflow` that has ended.
    pub(crate) fn ended(&self, workflow: &str, outcome: Outcome) {
        self.change(workflow, |numbers| *numbers.ended.entry(outcome).or_default() += 1);
    }

    fn change(&self, workflow: &str, change: impl FnOnce(&mut Numbers)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(numbers) = all.get_mut(workflow) {
            return change(numbers);
        }
        let name = if all.len() < MOST_VALUES { workflow } else { OTHER };
        change(all.entry(name.to_owned()).or_default());
    }

    pub(super) fn families(&self) -> [Family; 2] {
        let mut started = Family::counter(
            "backstitch_runs_started_total",
            "Runs started at this node, also those that begin at a later instant, by workflow.",
        );
        let mut ended = Family::counter(
            "backstitch_runs_ended_total",
            "Runs that ended at this node, by workflow and outcome.",
        );
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut workflows: Vec<_> = all.iter().collect();
        workflows.sort_unstable_by_key(|(name, _)| *name);
        for (workflow, numbers) in workflows {
            started.add(&[("workflow", workflow)], number(numbers.started));
            let mut outcomes: Vec<_> =
                numbers.ended.iter().map(|(outcome, count)| (outcome.as_str(), *count)).collect();
            outcomes.sort_unstable();
            for (outcome, count) in outcomes {
                ended.add(&[("workflow", workflow), ("outcome", outcome)], number(count));
            }
        }
        [started, ended]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workflows_beyond_the_limit_are_counted_as_others() {
        let ends = Ends::default();
        for number in 0..MOST_VALUES + 7 {
            ends.started(&format!("w{number}"));
        }
        ends.started("w0");
        ends.ended("w999", Outcome::Succeeded);
        let [started, ended] = ends.families();
        assert_eq!(started.samples.len(), MOST_VALUES + 1);
        let of = |name: &str| {
            let wanted = |sample: &&super::super::Sample| sample.labels[0].1 == name;
            started.samples.iter().find(wanted).map(|sample| sample.value)
        };
        assert_eq!((of("w0"), of(OTHER)), (Some(2.0), Some(7.0)));
        assert_eq!(ended.samples[0].labels[0].1, OTHER);
    }
}

//! What background tasks did: how often, how long it took, when they last succeeded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Family, number};
use crate::background::BackgroundTask;

/// The numbers of one background task.
#[derive(Debug, Default)]
struct Numbers {
    runs: AtomicU64,
    failures: AtomicU64,
    micros: AtomicU64,
    /// In seconds since 1970; 0 before the first.
    succeeded_at: AtomicU64,
}

/// The numbers of all background tasks.
#[derive(Debug, Default)]
pub(crate) struct Background([Numbers; BackgroundTask::ALL.len()]);

impl Background {
    /// Notes that a task was done once.
    pub(crate) fn note(&self, chore: BackgroundTask, took: Duration, succeeded: bool) {
        let Some(numbers) = self.0.get(chore as usize) else { return };
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        numbers.runs.fetch_add(1, Ordering::Relaxed);
        numbers.micros.fetch_add(micros, Ordering::Relaxed);
        if succeeded {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            numbers.succeeded_at.store(now.as_secs(), Ordering::Relaxed);
        } else {
            numbers.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn families(&self) -> [Family; 4] {
        let mut runs = Family::counter(
            "backstitch_background_runs_total",
            "Times a background task was done.",
        );
        let mut failures = Family::counter(
            "backstitch_background_failures_total",
            "Times a background task failed; it is tried again.",
        );
        let mut seconds = Family::counter(
            "backstitch_background_seconds_total",
            "Time that a background task took, in all.",
        );
        let mut last = Family::gauge(
            "backstitch_background_last_success_timestamp_seconds",
            "When a background task last succeeded, in seconds since 1970; of tasks that were done.",
        );
        for chore in BackgroundTask::ALL {
            let Some(numbers) = self.0.get(chore as usize) else { continue };
            let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
            let labels = [("task", chore.as_str())];
            runs.add(&labels, number(load(&numbers.runs)));
            failures.add(&labels, number(load(&numbers.failures)));
            let took = Duration::from_micros(load(&numbers.micros));
            seconds.add(&labels, took.as_secs_f64());
            if load(&numbers.succeeded_at) > 0 {
                last.add(&labels, number(load(&numbers.succeeded_at)));
            }
        }
        [runs, failures, seconds, last]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_counted_under_its_name_and_succeeded_only_if_it_did() {
        let background = Background::default();
        background.note(BackgroundTask::Wake, Duration::from_millis(1_500), false);
        let [runs, failures, seconds, last] = background.families();
        let of = |family: &Family| {
            let wake = |sample: &&super::super::Sample| sample.labels[0].1 == "wake";
            family.samples.iter().find(wake).map(|sample| sample.value)
        };
        assert_eq!((of(&runs), of(&failures), of(&seconds)), (Some(1.0), Some(1.0), Some(1.5)));
        assert_eq!(of(&last), None);
        background.note(BackgroundTask::Wake, Duration::ZERO, true);
        assert!(of(&background.families()[3]).is_some_and(|at| at > 1e9));
    }

    #[test]
    fn each_task_has_a_place_and_a_name_of_its_own() {
        let names: std::collections::BTreeSet<&str> =
            BackgroundTask::ALL.iter().map(|chore| chore.as_str()).collect();
        assert_eq!(names.len(), BackgroundTask::ALL.len());
        for (place, chore) in BackgroundTask::ALL.into_iter().enumerate() {
            assert_eq!(chore as usize, place);
        }
    }
}

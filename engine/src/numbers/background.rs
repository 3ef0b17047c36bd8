//! Metrics of background tasks: number of passes, duration, last success.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use backstitch_saga::protocol::BackgroundTaskView;
use backstitch_saga::{Span, Time, Timestamp};

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
    /// It failed when it was last done.
    is_failing: AtomicBool,
}

/// The numbers of all background tasks.
#[derive(Debug)]
pub(crate) struct Background([Numbers; BackgroundTask::ALL.len()]);

impl Default for Background {
    fn default() -> Background {
        Background(std::array::from_fn(|_| Numbers::default()))
    }
}

impl Background {
    /// Notes that a task was done once.
    pub(crate) fn note(&self, task: BackgroundTask, took: Duration, succeeded: bool) {
        let Some(numbers) = self.0.get(task as usize) else { return };
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        numbers.runs.fetch_add(1, Ordering::Relaxed);
        numbers.micros.fetch_add(micros, Ordering::Relaxed);
        numbers.is_failing.store(!succeeded, Ordering::Relaxed);
        if succeeded {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            numbers.succeeded_at.store(now.as_secs(), Ordering::Relaxed);
        } else {
            numbers.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns what is known of a task that is done once in `every`, or when there is something to do.
    pub(crate) fn view(&self, task: BackgroundTask, every: Option<Duration>) -> BackgroundTaskView {
        let numbers = &self.0[task as usize];
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let succeeded_at = i64::try_from(load(&numbers.succeeded_at)).unwrap_or_default();
        BackgroundTaskView {
            task: task.as_str().to_owned(),
            every: every.map(Span::from),
            runs: load(&numbers.runs),
            failures: load(&numbers.failures),
            succeeded_at: (succeeded_at > 0).then(|| Timestamp(Time(succeeded_at * 1_000))),
            is_failing: numbers.is_failing.load(Ordering::Relaxed),
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
        for &task in BackgroundTask::ALL {
            let Some(numbers) = self.0.get(task as usize) else { continue };
            let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
            let labels = [("task", task.as_str())];
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
            BackgroundTask::ALL.iter().map(|task| task.as_str()).collect();
        assert_eq!(names.len(), BackgroundTask::ALL.len());
        for (place, task) in BackgroundTask::ALL.iter().copied().enumerate() {
            assert_eq!(task as usize, place);
        }
    }
}

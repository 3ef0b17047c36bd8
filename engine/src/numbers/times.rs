//! Metrics of the time that tasks of each queue wait for a worker, and that workers take.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::maps::FastMap;

use super::{Family, MOST_VALUES, NumberKind, OTHER, Sample, number};

/// The upper bounds of the buckets, in milliseconds and as they are printed in seconds.
const BOUNDS: [(u64, &str); 14] = [
    (5, "0.005"),
    (10, "0.01"),
    (25, "0.025"),
    (50, "0.05"),
    (100, "0.1"),
    (250, "0.25"),
    (1_000, "1"),
    (5_000, "5"),
    (15_000, "15"),
    (60_000, "60"),
    (300_000, "300"),
    (1_800_000, "1800"),
    (7_200_000, "7200"),
    (86_400_000, "86400"),
];

/// Counts of times by upper bound; the last is for longer ones.
#[derive(Debug, Default)]
struct Histogram {
    counts: [AtomicU64; BOUNDS.len() + 1],
    millis: AtomicU64,
}

impl Histogram {
    fn add(&self, millis: u64) {
        let bucket = BOUNDS.partition_point(|(bound, _)| *bound < millis);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.millis.fetch_add(millis, Ordering::Relaxed);
    }

    fn samples(&self, queue: &str) -> Vec<Sample> {
        let queue = ("queue", queue.to_owned());
        let counts = self.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        let total: u64 = counts.iter().sum();
        let mut below = 0;
        let mut samples = Vec::with_capacity(BOUNDS.len() + 3);
        for ((_, bound), count) in BOUNDS.iter().zip(counts) {
            below += count;
            let labels = vec![queue.clone(), ("le", (*bound).to_owned())];
            samples.push(Sample { suffix: "_bucket", labels, value: number(below) });
        }
        let labels = vec![queue.clone(), ("le", "+Inf".to_owned())];
        samples.push(Sample { suffix: "_bucket", labels, value: number(total) });
        let seconds = Duration::from_millis(self.millis.load(Ordering::Relaxed)).as_secs_f64();
        samples.push(Sample { suffix: "_sum", labels: vec![queue.clone()], value: seconds });
        samples.push(Sample { suffix: "_count", labels: vec![queue], value: number(total) });
        samples
    }
}

/// The times of one queue.
#[derive(Debug, Default)]
pub(crate) struct QueueTimes {
    to_start: Histogram,
    execution: Histogram,
}

impl QueueTimes {
    /// Counts a task that a worker got after it had been on offer for so long.
    pub(crate) fn started_after(&self, millis: u64) {
        self.to_start.add(millis);
    }

    /// Counts a task that a worker has reported after it had had it for so long.
    pub(crate) fn took(&self, millis: u64) {
        self.execution.add(millis);
    }
}

/// The times of all queues.
#[derive(Debug, Default)]
pub(crate) struct Times(RwLock<FastMap<String, Arc<QueueTimes>>>);

impl Times {
    /// Returns the times of a queue.
    pub(crate) fn of(&self, queue: &str) -> Arc<QueueTimes> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).get(queue).cloned();
        known.unwrap_or_else(|| {
            let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
            let new = all.len() < MOST_VALUES || all.contains_key(queue);
            Arc::clone(all.entry(if new { queue } else { OTHER }.to_owned()).or_default())
        })
    }

    pub(super) fn families(&self) -> [Family; 2] {
        let mut to_start = Family::new(
            "backstitch_task_schedule_to_start_seconds",
            "Time from a task's coming on offer to its worker, by queue.",
            NumberKind::Histogram,
        );
        let mut execution = Family::new(
            "backstitch_task_execution_seconds",
            "Time from a task's going to a worker to the worker's report, by queue.",
            NumberKind::Histogram,
        );
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut queues: Vec<_> = all.iter().collect();
        queues.sort_unstable_by_key(|(name, _)| *name);
        for (queue, times) in queues {
            to_start.samples.extend(times.to_start.samples(queue));
            execution.samples.extend(times.execution.samples(queue));
        }
        [to_start, execution]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_below_each_bound() {
        let times = Times::default();
        for millis in [5, 6, 90_000_000] {
            times.of("bank").took(millis);
        }
        let [to_start, execution] = times.families();
        let values: Vec<f64> = execution.samples.iter().map(|sample| sample.value).collect();
        assert_eq!(values[..2], [1.0, 2.0]);
        assert_eq!(values[BOUNDS.len()..], [3.0, 90_000.011, 3.0]);
        assert_eq!(to_start.samples.last().map(|sample| sample.value), Some(0.0));
    }

    #[test]
    fn queues_beyond_the_limit_are_counted_together() {
        let times = Times::default();
        for number in 0..MOST_VALUES + 3 {
            times.of(&format!("q{number}")).started_after(1);
        }
        let [to_start, _] = times.families();
        let counts = to_start.samples.iter().filter(|sample| sample.suffix == "_count");
        let other = counts.clone().find(|sample| sample.labels[0].1 == OTHER);
        assert_eq!(
            (counts.count(), other.map(|sample| sample.value)),
            (MOST_VALUES + 1, Some(3.0))
        );
    }
}

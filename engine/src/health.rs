//! Health of this node: whether its registration and its writes succeed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::Engine;
use crate::executor::sessions_of;
use crate::node::Node;
use crate::store::schedules::Place;

/// Time for which a failed batch counts against the node if none was written since.
const WRITE_FAILED_FOR: Duration = Duration::from_secs(5);
/// Time that a registration may take beyond three of its intervals.
const BEAT_LIMIT: Duration = Duration::from_secs(5);
/// Time after which a batch in writing is reported.
pub(crate) const TOLD_AFTER: Duration = Duration::from_secs(5);
/// Things of one kind that are not as they should be which a node remembers.
const MOST_FOUND: usize = 1_000;

/// Health of a node, as the node knows it.
#[derive(Debug)]
pub(crate) struct Health {
    inner: Mutex<Inner>,
    began: Instant,
    /// Of each shard, since when its oldest batch is being written: milliseconds since `began`, 0 for none.
    writing: Mutex<Vec<Arc<AtomicU64>>>,
}

/// The time since when the oldest batch of a shard is being written, shared with readers.
#[derive(Debug)]
pub(crate) struct OldestWrite {
    began: Instant,
    millis: Arc<AtomicU64>,
}

impl OldestWrite {
    /// Shows since when the oldest batch is being written.
    pub(crate) fn show(&self, since: Option<Instant>) {
        let since = since.map(|at| at.saturating_duration_since(self.began).as_millis());
        let millis = since.map_or(0, |since| u64::try_from(since).unwrap_or(u64::MAX).max(1));
        self.millis.store(millis, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Inner {
    /// The last registration that succeeded.
    beat_at: Instant,
    beat_failed: bool,
    /// The last batch that could not be written; `None` when one was written since.
    write_failed_at: Option<Instant>,
    /// The last batch that was written.
    wrote_at: Option<Instant>,
    /// The session that holds up the batch that is being written, once that takes long.
    held_up_by: Option<String>,
    /// The problem with the key of leases.
    lease_key: Option<&'static str>,
    /// Schedules whose rows cannot be read.
    schedules: Walked,
    /// Runs whose keys others have.
    keys: Walked,
    /// Runs with completions that cannot be reported.
    completions: Walked,
    /// Batches of events that have no position and cannot be given one.
    unnumbered: Walked,
}

/// Results of a walk over all objects of a kind: by namespace and name.
#[derive(Debug, Default)]
struct Walked {
    /// With since when.
    known: BTreeMap<Place, Instant>,
    /// By the walk that is under way.
    found: BTreeSet<Place>,
}

impl Walked {
    /// Records the results of a walk. When it is over, what it has not found is well again. Returns what was not
    /// known.
    fn note(&mut self, found: Vec<Place>, is_over: bool) -> Vec<Place> {
        let mut new = Vec::new();
        for place in found {
            if self.found.len() < MOST_FOUND {
                self.known.entry(place.clone()).or_insert_with(|| {
                    new.push(place.clone());
                    Instant::now()
                });
                self.found.insert(place);
            }
        }
        if is_over {
            let found = std::mem::take(&mut self.found);
            self.known.retain(|place, _| found.contains(place));
        }
        new
    }

    /// Returns the names of a namespace, with the time since when the first of them has been known.
    fn of(&self, namespace: &str) -> Option<(Vec<String>, Duration)> {
        let begin = (namespace.to_owned(), String::new());
        let of = self.known.range(begin..).take_while(|((space, _), _)| space == namespace);
        let (names, since): (Vec<String>, Vec<Instant>) =
            of.map(|((_, name), since)| (name.clone(), *since)).unzip();
        Some((names, since.into_iter().min()?.elapsed()))
    }
}

impl Health {
    pub(crate) fn new() -> Health {
        let inner = Inner {
            beat_at: Instant::now(),
            beat_failed: false,
            write_failed_at: None,
            wrote_at: None,
            held_up_by: None,
            lease_key: None,
            schedules: Walked::default(),
            keys: Walked::default(),
            completions: Walked::default(),
            unnumbered: Walked::default(),
        };
        Health { inner: Mutex::new(inner), began: Instant::now(), writing: Mutex::default() }
    }

    /// Adds a shard, which shows since when its oldest batch is being written.
    pub(crate) fn shard(&self) -> OldestWrite {
        let millis = Arc::new(AtomicU64::new(0));
        self.writing.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&millis));
        OldestWrite { began: self.began, millis }
    }

    /// Returns the time for which the oldest batch of this node has been in writing; `None` if
    /// there is none.
    pub(crate) fn write_age(&self) -> Option<Duration> {
        let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let since = writing.iter().map(|one| one.load(Ordering::Relaxed)).filter(|at| *at > 0);
        let since = Duration::from_millis(since.min()?);
        Some(self.began.elapsed().saturating_sub(since))
    }

    /// Describes for people how long a batch has been in writing, if that is unusually long.
    pub(crate) fn held_up(&self) -> Option<(Duration, String)> {
        let age = self.write_age().filter(|age| *age > TOLD_AFTER)?;
        let why = self.change(|inner| inner.held_up_by.clone());
        let why = why.unwrap_or_else(|| "what it waits for is being looked for".to_owned());
        let seconds = age.as_secs();
        Some((age, format!("a batch of this node has been written for {seconds} s: {why}")))
    }

    /// Notes who holds up a batch; `None` when none is held up.
    pub(crate) fn held_up_by(&self, whom: Option<String>) {
        self.change(|inner| inner.held_up_by = whom);
    }

    /// Returns whether it is known who holds up a batch.
    pub(crate) fn is_held_up(&self) -> bool {
        self.change(|inner| inner.held_up_by.is_some())
    }

    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes a registration. Returns the time since the last one that succeeded.
    pub(crate) fn beat(&self) -> Duration {
        self.change(|inner| {
            inner.beat_failed = false;
            std::mem::replace(&mut inner.beat_at, Instant::now()).elapsed()
        })
    }

    /// Notes schedules that a walk over all of them found damaged.
    pub(crate) fn damaged_found(&self, found: Vec<Place>, is_over: bool) {
        self.change(|inner| inner.schedules.note(found, is_over));
    }

    /// Returns the schedules of a namespace whose rows cannot be read, with the time since when the first of them has
    /// been known.
    pub(crate) fn damaged_schedules(&self, namespace: &str) -> Option<(Vec<String>, Duration)> {
        self.change(|inner| inner.schedules.of(namespace))
    }

    /// Notes runs that a walk over all that have not ended found without their keys. Returns those that were not known.
    pub(crate) fn keyless_found(&self, found: Vec<Place>, is_over: bool) -> Vec<Place> {
        self.change(|inner| inner.keys.note(found, is_over))
    }

    /// Returns the runs of a namespace whose keys others have, with the time since when the first of them has
    /// been known.
    pub(crate) fn keyless(&self, namespace: &str) -> Option<(Vec<String>, Duration)> {
        self.change(|inner| inner.keys.of(namespace))
    }

    /// Records all runs with completions that cannot be reported. Returns those that were not
    /// known.
    pub(crate) fn completions_found(&self, found: Vec<Place>) -> Vec<Place> {
        self.change(|inner| inner.completions.note(found, true))
    }

    /// Returns the runs of a namespace with completions that cannot be reported, with the time since when the first of
    /// them has been known.
    pub(crate) fn stuck_completions(&self, namespace: &str) -> Option<(Vec<String>, Duration)> {
        self.change(|inner| inner.completions.of(namespace))
    }

    /// Notes all batches of events that have no position and cannot be given one. Returns those that were not known.
    pub(crate) fn unnumbered_found(&self, found: Vec<Place>) -> Vec<Place> {
        self.change(|inner| inner.unnumbered.note(found, true))
    }

    /// Returns the batches of a namespace that have no position and cannot be given one, and for how long that is
    /// known.
    pub(crate) fn unnumbered(&self, namespace: &str) -> Option<(Vec<String>, Duration)> {
        self.change(|inner| inner.unnumbered.of(namespace))
    }

    /// Notes what is wrong with the key of leases. Returns whether it was not known.
    pub(crate) fn lease_key_is(&self, wrong: Option<&'static str>) -> bool {
        self.change(|inner| std::mem::replace(&mut inner.lease_key, wrong) != wrong)
    }

    /// Returns what is wrong with the key of leases.
    pub(crate) fn lease_key(&self) -> Option<&'static str> {
        self.change(|inner| inner.lease_key)
    }

    pub(crate) fn beat_failed(&self) {
        self.change(|inner| inner.beat_failed = true);
    }

    pub(crate) fn wrote(&self) {
        self.change(|inner| {
            inner.write_failed_at = None;
            inner.wrote_at = Some(Instant::now());
        });
    }

    pub(crate) fn write_failed(&self) {
        self.change(|inner| inner.write_failed_at = Some(Instant::now()));
    }

    /// Returns the problem that prevents the node's work.
    pub(crate) fn trouble(&self, beat_every: Duration) -> Option<String> {
        if let Some((age, what)) = self.held_up()
            && self.change(|inner| inner.wrote_at.is_none_or(|at| at.elapsed() > age))
        {
            // Nothing else was written since, either.
            return Some(what);
        }
        let trouble = self.change(|inner| {
            let failed_at = inner.write_failed_at;
            if inner.beat_failed || inner.beat_at.elapsed() > beat_every * 3 + BEAT_LIMIT {
                Some("this node cannot renew its registration in the table nodes")
            } else if failed_at.is_some_and(|at| at.elapsed() < WRITE_FAILED_FOR) {
                Some("the last batch of this node could not be written")
            } else {
                None
            }
        });
        trouble.map(str::to_owned)
    }
}

impl Node {
    /// Returns the time for which new sessions with the database have been unavailable, and what to
    /// do about it.
    pub(crate) fn shortage(&self) -> Option<(Duration, String)> {
        self.database.shortage(sessions_of(self.shards.len()))
    }
}

impl Engine {
    /// Describes the problem that prevents the node's work, for people.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let node = self.node();
        let shortage = node.shortage().map(|(_, message)| message);
        let trouble = || node.health.trouble(node.options.tuning.beat_every);
        shortage.or_else(trouble)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_or_a_batch_that_fails_is_trouble_until_one_succeeds() {
        let (health, every) = (Health::new(), Duration::from_secs(1));
        assert_eq!(health.trouble(every), None);
        health.beat_failed();
        assert!(health.trouble(every).is_some());
        health.beat();
        assert_eq!(health.trouble(every), None);
        health.write_failed();
        assert!(health.trouble(every).is_some());
        health.wrote();
        assert_eq!(health.trouble(every), None);
    }

    #[test]
    fn a_batch_that_is_written_for_long_is_told_and_is_trouble_while_no_other_is_written() {
        let (mut health, every) = (Health::new(), Duration::from_secs(1));
        let long_ago = Instant::now().checked_sub(TOLD_AFTER * 2).unwrap_or_else(Instant::now);
        health.began = long_ago;
        let (first, second) = (health.shard(), health.shard());
        assert_eq!((health.write_age(), health.held_up()), (None, None));
        second.show(Some(Instant::now()));
        assert_eq!(health.held_up(), None);
        first.show(Some(long_ago));
        health.held_up_by(Some("session 7 holds a lock that it needs".to_owned()));
        let told = health.held_up().map(|(_, what)| what).unwrap_or_default();
        assert!(told.ends_with(" s: session 7 holds a lock that it needs"), "{told}");
        assert_eq!(health.trouble(every), Some(told));
        health.wrote();
        assert_eq!(health.trouble(every), None, "others are written");
        assert!(health.held_up().is_some(), "and it is told all the same");
        first.show(None);
        assert_eq!(health.held_up(), None);
    }
}

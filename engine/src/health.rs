//! Whether this node can do its work: its registration and its writes succeed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::Engine;
use crate::executor::sessions_of;
use crate::node::Node;
use crate::store::schedules::Place;

/// How long a failed batch counts against the node when none was written since.
const WRITE_FAILED_FOR: Duration = Duration::from_secs(5);
/// How long a registration may be under way beyond three of its intervals.
const BEAT_LIMIT: Duration = Duration::from_secs(5);
/// Things of one kind that are not as they should be which a node remembers.
const MOST_FOUND: usize = 1_000;

/// What a node knows of its own health.
#[derive(Debug)]
pub(crate) struct Health(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    /// The last registration that succeeded.
    beat_at: Instant,
    beat_failed: bool,
    /// The last batch that could not be written; `None` when one was written since.
    write_failed_at: Option<Instant>,
    /// Schedules whose rows cannot be read.
    schedules: Walked,
    /// Runs whose keys others have.
    keys: Walked,
}

/// What walks over all things of a kind found: by namespace and name.
#[derive(Debug, Default)]
struct Walked {
    /// With since when.
    known: BTreeMap<Place, Instant>,
    /// By the walk that is under way.
    found: BTreeSet<Place>,
}

impl Walked {
    /// Notes what a walk found. What it has not found when it is over is well again. Returns what was not known.
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

    /// The names of a namespace, with for how long the first of them was known.
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
            schedules: Walked::default(),
            keys: Walked::default(),
        };
        Health(Mutex::new(inner))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes a registration. Answers how long before it the last one succeeded.
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

    /// The schedules of a namespace whose rows cannot be read, with for how long the first of them was known to be so.
    pub(crate) fn damaged_schedules(&self, namespace: &str) -> Option<(Vec<String>, Duration)> {
        self.change(|inner| inner.schedules.of(namespace))
    }

    /// Notes runs that a walk over all that have not ended found without their keys. Returns those that were not known.
    pub(crate) fn keyless_found(&self, found: Vec<Place>, is_over: bool) -> Vec<Place> {
        self.change(|inner| inner.keys.note(found, is_over))
    }

    /// The runs of a namespace whose keys others have, with for how long the first of them was known to be so.
    pub(crate) fn keyless(&self, namespace: &str) -> Option<(Vec<String>, Duration)> {
        self.change(|inner| inner.keys.of(namespace))
    }

    pub(crate) fn beat_failed(&self) {
        self.change(|inner| inner.beat_failed = true);
    }

    pub(crate) fn wrote(&self) {
        self.change(|inner| inner.write_failed_at = None);
    }

    pub(crate) fn write_failed(&self) {
        self.change(|inner| inner.write_failed_at = Some(Instant::now()));
    }

    /// What keeps the node from its work.
    pub(crate) fn trouble(&self, beat_every: Duration) -> Option<&'static str> {
        self.change(|inner| {
            let failed_at = inner.write_failed_at;
            if inner.beat_failed || inner.beat_at.elapsed() > beat_every * 3 + BEAT_LIMIT {
                Some("this node cannot renew its registration in the table nodes")
            } else if failed_at.is_some_and(|at| at.elapsed() < WRITE_FAILED_FOR) {
                Some("the last batch of this node could not be written")
            } else {
                None
            }
        })
    }
}

impl Node {
    /// For how long new sessions with the database cannot be had, and what to do about it.
    pub(crate) fn shortage(&self) -> Option<(Duration, String)> {
        self.database.shortage(sessions_of(self.shards.len()))
    }
}

impl Engine {
    /// What keeps the node from its work, as a sentence for people.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let node = self.node();
        let shortage = node.shortage().map(|(_, message)| message);
        let trouble = || node.health.trouble(node.options.tuning.beat_every).map(str::to_owned);
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
}

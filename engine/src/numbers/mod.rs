//! Numbers with labels for `/metrics`: what runs, tasks, queues, pools and background tasks did, and how the database
//! and the process are. Counting takes no statement; what is counted in the database is kept for some seconds.

mod background;
mod ends;
mod process;
mod statistics;
mod times;

use backstitch_saga::protocol::BreakerState;

pub(crate) use background::Background;
pub(crate) use ends::Ends;
pub(crate) use process::begins;
pub(crate) use statistics::Statistics;
pub(crate) use times::{QueueTimes, Times};

use crate::Engine;
use crate::node::Node;
use crate::store::pool::Pool;

/// The most values of one label; the rest is counted as [`OTHER`].
const MOST_VALUES: usize = 100;
/// The value of a label for what is beyond [`MOST_VALUES`].
const OTHER: &str = "other";

/// Kind of the numbers of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberKind {
    /// Only grows, until the process ends.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by upper bounds, with sum and count.
    Histogram,
}

/// Numbers of one name.
#[derive(Clone, Debug)]
pub struct Family {
    /// The name.
    pub name: &'static str,
    /// Its meaning.
    pub help: &'static str,
    /// Its kind.
    pub kind: NumberKind,
    /// The numbers.
    pub samples: Vec<Sample>,
}

/// One number of a family.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Suffix of the name: `_bucket`, `_sum`, `_count`, or none.
    pub suffix: &'static str,
    /// Its labels.
    pub labels: Vec<(&'static str, String)>,
    /// The number.
    pub value: f64,
}

impl Family {
    fn new(name: &'static str, help: &'static str, kind: NumberKind) -> Family {
        Family { name, help, kind, samples: Vec::new() }
    }

    fn counter(name: &'static str, help: &'static str) -> Family {
        Family::new(name, help, NumberKind::Counter)
    }

    fn gauge(name: &'static str, help: &'static str) -> Family {
        Family::new(name, help, NumberKind::Gauge)
    }

    fn add(&mut self, labels: &[(&'static str, &str)], value: f64) {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.samples.push(Sample { suffix: "", labels, value });
    }

    /// Returns a family with one number and no labels.
    fn one(mut self, value: f64) -> Family {
        self.add(&[], value);
        self
    }
}

/// Returns a count as a number that is exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "no count comes near")]
fn number(count: u64) -> f64 {
    count as f64
}

impl Engine {
    /// Returns the numbers with labels. Those of the database are at most some seconds old; when it cannot be reached
    /// they stay as they were, and say so.
    pub async fn numbers(&self) -> Vec<Family> {
        let node = self.node();
        let mut families = node.statistics.families(node).await;
        families.extend(node.ends.families());
        families.extend(node.times.families());
        families.extend(node.background.families());
        families.push(breakers(node));
        families.push(
            Family::gauge("backstitch_workflows_paused", "Workflows whose new runs are held.")
                .one(number(node.pauses.count() as u64)),
        );
        families.push(depths(node));
        families.extend(pools(node));
        families.extend(process::families());
        families
    }
}

fn depths(node: &Node) -> Family {
    let help = "Commands that wait for a shard, those whose runs are being loaded included.";
    let mut family = Family::gauge("backstitch_shard_depth", help);
    for (shard, depth) in node.depths().enumerate().take(MOST_VALUES) {
        family.add(&[("shard", &shard.to_string())], number(depth as u64));
    }
    family
}

fn breakers(node: &Node) -> Family {
    let help = "The breaker of a governed queue: 0 closed, 1 lets probes through, 2 open.";
    let mut family = Family::gauge("backstitch_queue_breaker", help);
    let Some(governed) = node.flow.governed() else { return family };
    let now = node.clock.now();
    for queue in governed.all().take(MOST_VALUES) {
        let Some(breaker) = queue.limiter.breaker_view(&queue.policy, now) else { continue };
        let state = match breaker.state {
            BreakerState::Closed => 0.0,
            BreakerState::HalfOpen => 1.0,
            BreakerState::Open => 2.0,
        };
        family.add(&[("namespace", &queue.name.0), ("queue", &queue.name.1)], state);
    }
    family
}

fn pools(node: &Node) -> [Family; 4] {
    let mut connections = Family::gauge(
        "backstitch_pool_connections",
        "Connections of a pool to the database, by state.",
    );
    let mut limits =
        Family::gauge("backstitch_pool_limit", "The most connections of a pool to the database.");
    let mut waiting = Family::gauge(
        "backstitch_pool_waiting",
        "Those who wait for a connection of a pool to the database.",
    );
    let mut refused = Family::counter(
        "backstitch_pool_refused_total",
        "Questions answered busy because their namespace had its connections of a pool for too long.",
    );
    let pools: [(&str, &Pool); 6] = [
        ("readers", &node.database.readers),
        ("listers", &node.database.listers),
        ("actors", &node.database.actors),
        ("loaders", &node.database.loaders),
        ("keepers", &node.database.keepers),
        ("gate", &node.database.gate),
    ];
    let seats = node.database.seats();
    for (name, pool) in pools {
        let numbers = pool.numbers();
        let pool = ("pool", name);
        connections.add(&[pool, ("state", "in_use")], number(numbers.in_use));
        connections.add(&[pool, ("state", "idle")], number(numbers.idle));
        limits.add(&[pool], number(numbers.limit));
        if seats.iter().all(|(seated, _)| *seated != name) {
            waiting.add(&[pool], number(numbers.waiting));
        }
    }
    for (name, seats) in seats {
        let waits = seats.waiting();
        waiting.add(&[("pool", name)], number(waits));
        refused.add(&[("pool", name)], number(seats.refused()));
    }
    [connections, limits, waiting, refused]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_keeps_its_labels_in_order() {
        let mut family = Family::gauge("backstitch_x", "X.");
        family.add(&[("a", "1"), ("b", "2")], 3.0);
        let labels = vec![("a", "1".to_owned()), ("b", "2".to_owned())];
        assert_eq!(family.samples, [Sample { suffix: "", labels, value: 3.0 }]);
    }
}

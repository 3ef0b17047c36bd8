//! Counts from the database: open incidents, runs that have not ended, offered tasks. It is counted once in some
//! seconds however many ask, and never takes more than a tenth of the time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use backstitch_saga::Time;

use super::{Family, MOST_VALUES, OTHER, number};
use crate::Error;
use crate::node::Node;
use crate::store::statistics::{self, Counts};

/// Time for which a count is valid.
const FRESH: Duration = Duration::from_secs(5);
/// Counting may take one part in so many of the time.
const SHARE: u32 = 10;
/// Time after which the last count is returned in place of a new one: less than a client waits for a
/// response.
const PATIENCE: Duration = Duration::from_secs(4);

/// The last count.
#[derive(Default)]
pub(crate) struct Statistics(tokio::sync::Mutex<Last>);

#[derive(Default)]
struct Last {
    /// Time until which it is valid.
    until: Option<Instant>,
    counted_at: Option<(Instant, Time)>,
    counts: Counts,
    reachable: bool,
}

impl Statistics {
    pub(super) async fn families(&self, node: &Node) -> Vec<Family> {
        let mut last = self.0.lock().await;
        let began = Instant::now();
        if last.until.is_none_or(|until| began >= until) {
            let counted = tokio::time::timeout(PATIENCE, count(node)).await;
            last.reachable = matches!(counted, Ok(Ok(_)));
            match counted {
                Ok(Ok(counts)) => {
                    last.counts = counts;
                    last.counted_at = Some((Instant::now(), node.clock.now()));
                }
                Ok(Err(error)) => tracing::warn!(%error, "the statistics could not be counted"),
                Err(_) => tracing::warn!("counting the statistics took too long"),
            }
            last.until = Some(Instant::now() + FRESH.max(began.elapsed() * SHARE));
        }
        last.families(node.clock.now())
    }
}

async fn count(node: &Node) -> Result<Counts, Error> {
    let mut connection = node.database.readers.acquire().await?;
    Ok(statistics::count(&mut connection).await?)
}

impl Last {
    fn families(&self, now: Time) -> Vec<Family> {
        let age = |since: Time| Duration::from_millis(now.since(since).0).as_secs_f64();
        let Counts { incidents, runs, queues, on_the_way } = &self.counts;
        let mut open = Family::gauge("backstitch_incidents_open", "Open incidents, by kind.");
        let mut oldest = Family::gauge(
            "backstitch_incidents_oldest_age_seconds",
            "For how long the oldest open incident has been open, by kind.",
        );
        for (kind, count, since) in incidents {
            open.add(&[("kind", kind)], number(*count));
            oldest.add(&[("kind", kind)], age(*since));
        }
        let mut active =
            Family::gauge("backstitch_runs", "Runs that have not ended, by workflow and state.");
        for ((workflow, state), count) in bounded(runs) {
            active.add(&[("workflow", workflow), ("state", state)], number(count));
        }
        let mut backlog = Family::gauge(
            "backstitch_queue_backlog",
            "Tasks on offer that no worker has taken yet, by queue; at most 100,000 of each handler are counted.",
        );
        let mut waits = Family::gauge(
            "backstitch_queue_oldest_age_seconds",
            "For how long the oldest of these tasks has been on offer, by queue.",
        );
        for (queue, count, since) in queues {
            backlog.add(&[("queue", queue)], number(*count));
            waits.add(&[("queue", queue)], age(*since));
        }
        let up = Family::gauge(
            "backstitch_database_up",
            "Whether the database could be counted in when it was last tried.",
        );
        let age = Family::gauge(
            "backstitch_statistics_age_seconds",
            "How old the numbers are that are counted in the database.",
        );
        let age = match self.counted_at {
            Some((at, _)) => age.one(at.elapsed().as_secs_f64()),
            None => age,
        };
        let up = up.one(f64::from(u8::from(self.reachable)));
        let mut families = vec![open, oldest, active, backlog, waits, up, age];
        families.extend(of_the_way(on_the_way, now));
        families
    }
}

/// Returns the metrics of the way between sources, runs and the log.
fn of_the_way(found: &[(String, u64, Time)], now: Time) -> [Family; 6] {
    let of = |name: &str| found.iter().find(|(known, ..)| known == name);
    let count = |name: &str| of(name).map_or(0.0, |(_, count, _)| number(*count));
    let since = of("emitted").map_or(0, |(.., since)| now.since(*since).0);
    let states = |mut family: Family, prefix: &str, states: &[&str]| {
        for state in states {
            family.add(&[("state", state)], count(&format!("{prefix}_{state}")));
        }
        family
    };
    let emitted = Family::gauge(
        "backstitch_emitted_waiting",
        "Events that runs have emitted and that are not in the log yet; at most 100,000 are counted.",
    );
    let oldest = Family::gauge(
        "backstitch_emitted_oldest_age_seconds",
        "For how long the oldest of them has been on its way.",
    );
    let imports = Family::gauge("backstitch_imports", "Files that are under way, by state.");
    let again = Family::gauge(
        "backstitch_reprocessings",
        "Reprocessings of many documents that are under way, by state.",
    );
    let erasures =
        Family::gauge("backstitch_data_erasures", "Erasures of somebody that are not done.");
    let not_mapped = Family::gauge(
        "backstitch_documents_not_mapped",
        "Documents that were accepted and cannot be mapped; at most 100,000 are counted.",
    );
    [
        emitted.one(count("emitted")),
        oldest.one(Duration::from_millis(since).as_secs_f64()),
        states(imports, "import", &["receiving", "running", "waiting"]),
        states(again, "reprocess", &["running", "waiting"]),
        erasures.one(count("erasure")),
        not_mapped.one(count("not_mapped")),
    ]
}

/// Returns the counts of the workflows with the most runs, and of all others together.
fn bounded(runs: &[(String, String, u64)]) -> BTreeMap<(&str, &str), u64> {
    let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
    for (workflow, _, count) in runs {
        *totals.entry(workflow).or_default() += count;
    }
    let mut most: Vec<(&str, u64)> = totals.into_iter().collect();
    most.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let named: std::collections::BTreeSet<&str> =
        most.into_iter().take(MOST_VALUES).map(|(name, _)| name).collect();
    let mut bounded = BTreeMap::new();
    for (workflow, state, count) in runs {
        let workflow = if named.contains(workflow.as_str()) { workflow.as_str() } else { OTHER };
        *bounded.entry((workflow, state.as_str())).or_default() += count;
    }
    bounded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workflows_with_the_most_runs_are_named_and_the_others_summed() {
        let runs: Vec<(String, String, u64)> = (0..MOST_VALUES as u64 + 5)
            .map(|number| (format!("w{number}"), "running".to_owned(), number + 1))
            .collect();
        let bounded = bounded(&runs);
        assert_eq!(bounded.len(), MOST_VALUES + 1);
        assert_eq!(bounded[&(OTHER, "running")], 1 + 2 + 3 + 4 + 5);
        assert!(!bounded.contains_key(&("w0", "running")));
    }
}

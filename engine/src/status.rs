//! Status of a namespace, for clients that poll. It is counted at most once a second however many ask, and never
//! takes more than a tenth of the time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use backstitch_saga::protocol::{Condition, IncidentCounts, KindCount, StatusView};
use backstitch_saga::{Span, Time, Timestamp};

use crate::node::Node;
use crate::store::status;
use crate::{Engine, Error};

/// Time for which a count is answered from memory.
const FRESH: Duration = Duration::from_secs(1);
/// Counting may take one part in so many of the time.
const SHARE: u32 = 10;
/// Time for which a step of the clock is reported.
const STEP_TOLD_FOR: Duration = Duration::from_secs(3_600);
/// Time that emitted events may take to the log before a condition is reported.
const EMITTED_WITHIN: Span = Span::secs(60);
/// Age up to which started runs are counted by their outcome.
const LATELY: Span = Span::hours(1);
/// Number of namespaces that are remembered.
const MOST: usize = 1_000;

/// The last count, and the time until which it is valid. The caller that counts holds the lock, so that others wait
/// for that count.
type Board = Arc<tokio::sync::Mutex<Option<(Instant, StatusView)>>>;

/// The last count by namespace.
#[derive(Debug, Default)]
pub(crate) struct Boards(Mutex<HashMap<String, Board>>);

impl Boards {
    fn of(&self, namespace: &str) -> Board {
        let mut boards = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if boards.len() >= MOST && !boards.contains_key(namespace) {
            boards.clear();
        }
        Arc::clone(boards.entry(namespace.to_owned()).or_default())
    }
}

impl Engine {
    /// Returns the status of a namespace: its open incidents, moving runs and waiting tasks. If the database
    /// fails, the view says so and has the numbers of the last count.
    pub async fn status(&self, namespace: &str) -> StatusView {
        let board = self.node().boards.of(namespace);
        let mut last = board.lock().await;
        if let Some((until, view)) = &*last
            && Instant::now() < *until
        {
            return view.clone();
        }
        let began = Instant::now();
        let view = match count(self.node(), namespace).await {
            Ok(view) => view,
            Err(error) => {
                tracing::warn!(%error, "the status could not be counted");
                let as_of = Timestamp(self.node().clock.now());
                let unknown = || StatusView { as_of, ..StatusView::default() };
                let mut view = last.take().map(|(_, view)| view).unwrap_or_else(unknown);
                view.incidents.as_of = view.incidents.as_of.max(view.as_of);
                StatusView { database_reachable: false, conditions: Vec::new(), ..view }
            }
        };
        let mut view = view;
        view.conditions.splice(0..0, conditions(self.node(), namespace));
        let rest = FRESH.max(began.elapsed() * SHARE);
        *last = Some((Instant::now() + rest, view.clone()));
        view
    }

    /// Returns the open incidents, counted by kind, as [`Engine::status`] knows them.
    ///
    /// # Errors
    /// [`Error::Store`] when the database cannot be reached.
    pub async fn incident_counts(&self, namespace: &str) -> Result<IncidentCounts, Error> {
        let status = self.status(namespace).await;
        if status.database_reachable {
            return Ok(status.incidents);
        }
        Err(Error::Store("the incidents could not be counted".to_owned()))
    }
}

async fn count(node: &Node, namespace: &str) -> Result<StatusView, Error> {
    let mut connection = node.database.reader(namespace).await?;
    let as_of = Timestamp(node.clock.now());
    let since = Time(as_of.0.0.saturating_sub_unsigned(LATELY.0));
    let counts = status::count(&mut connection, namespace, since).await?;
    let number = |count: i64| u64::try_from(count).unwrap_or_default();
    let kinds: Vec<KindCount> = counts
        .incidents
        .into_iter()
        .map(|(kind, open, oldest)| KindCount {
            kind,
            open: number(open),
            oldest: Timestamp(oldest),
        })
        .collect();
    let open = kinds.iter().map(|kind| kind.open).sum();
    Ok(StatusView {
        as_of,
        database_reachable: true,
        incidents: IncidentCounts { as_of, open, kinds },
        runs: counts.runs.into_iter().map(|(state, count)| (state, number(count))).collect(),
        ended: counts.ended.into_iter().map(|(outcome, count)| (outcome, number(count))).collect(),
        paused_workflows: node.pauses.of(namespace),
        oldest_task: counts.oldest_task.map(Timestamp),
        held_weeks: node.retention.held_by(namespace),
        conditions: on_the_way(node, counts.on_the_way),
    })
}

/// Returns the conditions of documents and events that do not get on between sources, runs and the
/// log.
fn on_the_way(node: &Node, found: Vec<(String, String, i64, Time)>) -> Vec<Condition> {
    let late = node.clock.now().0.saturating_sub_unsigned(EMITTED_WITHIN.0);
    let condition = |(what, why, count, since): (String, String, i64, Time)| {
        let (kind, message) = match what.as_str() {
            "import" => {
                ("ImportsWait", format!("{count} imports cannot take in their rows: {why}"))
            }
            "reprocess" => {
                ("ReprocessingsWait", format!("{count} reprocessings cannot go on: {why}"))
            }
            "erasure" => ("ErasuresWait", format!("{count} erasures cannot go on: {why}")),
            "subscription" => (
                "SubscriptionsStopped",
                format!(
                    "{count} subscriptions stand at an event: {why}; GET /v1/subscriptions says which"
                ),
            ),
            "key" => {
                let more = if count >= status::MOST_COUNTED { " or more" } else { "" };
                let message = format!(
                    "{count}{more} events block their keys; GET /v1/subscriptions/{{name}}/keys?state=blocked says why"
                );
                ("KeysBlocked", message)
            }
            "document" => {
                let more = if count >= status::MOST_COUNTED { " or more" } else { "" };
                let message = format!(
                    "{count}{more} documents of sources cannot be mapped; GET /v1/mapping-problems says why"
                );
                ("DocumentsNotMapped", message)
            }
            _ if since.0 > late => return None,
            _ => {
                let message = "what runs have emitted does not get into the log; who holds the stream, or what fails, is in the log of the servers";
                ("EmittedEventsWait", message.to_owned())
            }
        };
        Some(Condition { kind: kind.to_owned(), step: None, message, since: Timestamp(since) })
    };
    found.into_iter().filter_map(condition).collect()
}

/// Returns the problems of this node, and of objects of a namespace that are no runs.
fn conditions(node: &Node, namespace: &str) -> Vec<Condition> {
    let now = node.clock.now();
    let condition = |kind: &str, message: String, since: Duration| Condition {
        kind: kind.to_owned(),
        step: None,
        message,
        since: Timestamp(Time(now.0.saturating_sub_unsigned(Span::from(since).0))),
    };
    let clock = node.clock.doubt().map(|(ahead, since)| {
        let message = format!(
            "the database's clock jumped by {ahead} ms; until that has lasted, this node keeps its own time"
        );
        condition("ClockInDoubt", message, since)
    });
    let stepped = node.clock.last_step().filter(|(_, ago)| *ago < STEP_TOLD_FOR);
    let stepped = stepped.map(|(ahead, ago)| {
        let message = format!(
            "this node followed the database's clock by a step of {ahead} ms; timers, leases and schedules go by the new time"
        );
        condition("ClockStepped", message, ago)
    });
    let trouble = node.health.trouble(node.options.tuning.beat_every);
    let writes = trouble.map(|what| condition("WritesFail", what, Duration::ZERO));
    let sessions =
        node.shortage().map(|(since, message)| condition("SessionsMissing", message, since));
    let held_up =
        node.health.held_up().map(|(since, message)| condition("BatchHeldUp", message, since));
    let key = node.health.lease_key();
    let key = key.map(|what| condition("LeaseKeyLost", what.to_owned(), Duration::ZERO));
    let slow = node.checked.slow_round().map(|took| {
        let message = format!(
            "the check of the indexes takes {} s to look at every run that has not ended: a row that is lost is missing for that long",
            took.as_secs()
        );
        condition("IndexCheckSlow", message, Duration::ZERO)
    });
    let of_node = clock.into_iter().chain(stepped).chain(writes).chain(sessions).chain(slow);
    let told = unreadable(node, namespace).into_iter().map(|(kind, things, (names, since))| {
        let first = names.first().map_or("", String::as_str);
        condition(kind, format!("{} {things}, such as '{first}'", names.len()), since)
    });
    of_node.chain(held_up).chain(key).chain(told).collect()
}

/// Names of objects with a problem, and for how long the first of them has had it.
type Told = (Vec<String>, Duration);

/// Returns the objects of a namespace that cannot be read or served: the kind of the condition, what they are, and
/// their names.
fn unreadable(node: &Node, namespace: &str) -> Vec<(&'static str, &'static str, Told)> {
    let schedules = "schedules cannot be read and start nothing: repair their rows, or delete them and put them again";
    let queues =
        "queues cannot be read and hand out nothing: set their policies anew, or delete them";
    let keyless = "runs have a business key that another run was started with while its line was lost: end one of each two";
    let completions = "runs have an attempt that a worker completed in its own transaction and that cannot be reported, as its row in the table fences or the journal is damaged: the log says why";
    let unnumbered = "batches of events have no position, so that nobody reads them, and do not fit the positions that are missing: backstitch doctor names both";
    let health = &node.health;
    let all = [
        ("SchedulesDamaged", schedules, health.damaged_schedules(namespace)),
        ("QueuesDamaged", queues, node.flow.damaged(namespace)),
        ("KeysTaken", keyless, health.keyless(namespace)),
        ("CompletionsStuck", completions, health.stuck_completions(namespace)),
        ("EventsUnnumbered", unnumbered, health.unnumbered(namespace)),
    ];
    all.into_iter().filter_map(|(kind, things, found)| Some((kind, things, found?))).collect()
}

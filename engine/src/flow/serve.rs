//! Gives permits to waiting tasks for which this node has workers, and hands those tasks out.
//!
//! One node at a time gives the permits of a queue, under the lock of its row; the pure files beside this one decide
//! how many, and to which tasks.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use backstitch_saga::protocol::QueuePolicy;
use backstitch_saga::{Span, Time};
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::breaker::{Breaker, Ending};
use super::bucket::Bucket;
use super::limiter::{Limiter, Room};
use super::pick::{Candidate, Limits, pick};
use super::{Name, Queue};
use crate::Error;
use crate::background::{BackgroundTask, counted};
use crate::crash::commit;
use crate::dispatch::{AloneGrant, Demand, Dispatcher, Grant, Match, SessionFilter};
use crate::node::Node;
use crate::rounds::in_turns;
use crate::store::flow as table;
use crate::store::flow_upkeep;
use crate::store::queues;

/// Largest number of permits that are given together.
const MOST: u32 = 250;
/// Number of keys that are examined together.
const KEYS: i32 = 200;
/// So often that many, in one hand-out.
const PAGES: u32 = 10;
/// A permit that nothing was leased by lapses after this.
pub(super) const LAPSE: Span = Span::secs(10);
/// Time of one look, when there are many queues.
const LOOK: Duration = Duration::from_millis(250);
/// Looks for permits are no closer to each other than this.
const BREATH: Duration = Duration::from_millis(2);
/// Shortest wait for a permit that time alone brings.
const PATIENCE: Duration = Duration::from_millis(20);

/// Looks for permits whenever one may be given, and now and then while tasks wait.
pub(crate) async fn serve(node: Arc<Node>) {
    let ready_every = node.options.tuning.ready_every;
    let mut pause = ready_every;
    loop {
        // Woken or not, it looks for permits to give.
        let _ = tokio::time::timeout(pause, node.flow.bell.notified()).await;
        let given = counted(&node, BackgroundTask::GivePermits, give(&node)).await;
        pause = match given {
            Ok(Given { again_at, .. }) => {
                let rest = again_at.map(|at| at.since(node.clock.now()).duration());
                rest.map_or(ready_every, |rest| rest.clamp(PATIENCE, ready_every))
            }
            Err(error) => {
                tracing::warn!(%error, "giving permits failed and is tried again");
                ready_every
            }
        };
        tokio::time::sleep(BREATH).await;
    }
}

/// Result of a look for permits.
#[derive(Debug, Default)]
pub(crate) struct Given {
    pub(crate) permits: usize,
    /// The time at which more permits may be available, if time alone brings them.
    pub(crate) again_at: Option<Time>,
}

/// Gives all permits that can be given now.
pub(crate) async fn give(node: &Node) -> Result<Given, Error> {
    let unused = node.dispatcher.unused_permits();
    let endings = node.flow.endings();
    let Some(governed) = node.flow.governed() else { return Ok(Given::default()) };
    let wants = node.dispatcher.wants(|namespace, queue| {
        governed.get(namespace, queue).filter(|queue| queue.is_open()).cloned()
    });
    if unused.is_empty() && endings.is_empty() && wants.is_empty() {
        node.flow.backlog.store(false, Ordering::Relaxed);
        return Ok(Given::default());
    }
    let mut connection = node.database.keepers.acquire().await?;
    if !unused.is_empty() {
        commit!("permits_take_back", flow_upkeep::take_back(&mut connection, &unused).await)?;
    }
    let waiting = waiting(&mut connection, &wants).await?;
    node.flow.backlog.store(!waiting.is_empty(), Ordering::Relaxed);
    let mut all = Given::default();
    let mut wanted: HashMap<Name, Demand> = wants
        .into_iter()
        .enumerate()
        .filter(|(place, _)| waiting.contains(place))
        .map(|(_, (queue, wants))| (queue.name.clone(), wants))
        .collect();
    let names: HashSet<Name> = wanted.keys().chain(endings.keys()).cloned().collect();
    // Queues of one namespace come in the order of a hash, which is another for each look.
    let last_turn = &node.last_turns.permits;
    let names = in_turns(names.into_iter().collect(), &last_turn.get(), |name: &Name| &name.0);
    let (mut endings, began) = (endings, Instant::now());
    for name in names {
        if began.elapsed() >= LOOK {
            // The rest has its turn with the next look.
            all.again_at = Some(node.clock.now());
            break;
        }
        let ended = endings.remove(&name).unwrap_or_default();
        let wants = wanted.remove(&name);
        last_turn.set(Some(name.0.to_string()));
        match give_of(node, &mut connection, &name, wants, &ended).await {
            Ok((given, again_at)) => {
                all.permits += given.len();
                all.again_at = again_at.into_iter().chain(all.again_at).min();
                hand_out(node, &name, given);
            }
            Err(error) => {
                node.flow.untold(&name, ended);
                endings.iter().for_each(|(name, rest)| node.flow.untold(name, rest.clone()));
                return Err(error);
            }
        }
    }
    endings.iter().for_each(|(name, rest)| node.flow.untold(name, rest.clone()));
    Ok(all)
}

/// Returns the queues that have waiting tasks.
async fn waiting(
    connection: &mut PgConnection,
    wants: &[(Arc<Queue>, Demand)],
) -> Result<HashSet<usize>, Error> {
    let (mut places, mut namespaces, mut of, mut names) = (vec![], vec![], vec![], vec![]);
    for (place, (queue, wants)) in wants.iter().enumerate() {
        for name in wants.names.keys() {
            places.push(place);
            namespaces.push(queue.name.0.to_string());
            of.push(queue.name.1.to_string());
            names.push(name.clone());
        }
    }
    if places.is_empty() {
        return Ok(HashSet::new());
    }
    let found = table::waiting(connection, &namespaces, &of, &names).await?;
    Ok(found.into_iter().filter_map(|number| places.get(number).copied()).collect())
}

type Permitted = Vec<(Uuid, Candidate)>;

/// Gives the permits of one queue that can be given now, after its limiter has counted how tasks
/// `ended`.
async fn give_of(
    node: &Node,
    connection: &mut PgConnection,
    name: &Name,
    wants: Option<Demand>,
    ended: &[Ending],
) -> Result<(Permitted, Option<Time>), Error> {
    let mut transaction = connection.begin().await?;
    let Some(row) = queues::lock(&mut transaction, &name.0, &name.1).await? else {
        return Ok((Vec::new(), None));
    };
    let before = row.limiter.clone();
    let queue = Queue::read(row);
    if queue.damaged.is_some() {
        return Ok((Vec::new(), None));
    }
    let Queue { policy, mut limiter, paused, .. } = queue;
    let now = node.clock.now();
    let was = limiter.breaker.clone();
    limiter.note(&policy, now, ended);
    let wants = wants.filter(|_| paused.is_none());
    let mut given = Vec::new();
    let mut again_at = None;
    if let Some(wants) = wants {
        let held = table::held(&mut transaction, &name.0, &name.1).await?;
        let probe_held = match limiter.breaker.probe() {
            Some(probe) => table::is_held(&mut transaction, probe.run, &probe.task).await?,
            None => false,
        };
        let room = limiter.room(&policy, now, held.values().sum(), probe_held);
        again_at = room.again_at;
        if room.tasks > 0 {
            let mut turns = std::mem::take(&mut limiter.turns);
            let ask = Ask {
                name,
                policy: &policy,
                limiter: &limiter,
                dispatcher: &node.dispatcher,
                wants,
                room,
                held,
                now,
            };
            let found = choose(&mut transaction, &ask, &mut turns).await?;
            limiter.turns = turns;
            limiter.went(&policy, now, &found);
            given = found.into_iter().map(|one| (Uuid::new_v4(), one)).collect();
            let rows: Vec<(Uuid, &Candidate)> = given.iter().map(|(id, one)| (*id, one)).collect();
            if !rows.is_empty() {
                let queue = (&*name.0, &*name.1);
                let lapse = now.after(LAPSE);
                table::give(&mut transaction, queue, node.id, &rows, now, lapse).await?;
            }
        }
    }
    let after = serde_json::to_string(&limiter).map_err(|error| Error::Bug(error.to_string()))?;
    if after != before {
        queues::keep_limiter(&mut transaction, &name.0, &name.1, &after).await?;
    }
    commit!("permits_give", transaction.commit().await)?;
    node.counters.permits_given.add(given.len());
    tell(node, name, &was, &limiter.breaker);
    Ok((given, again_at))
}

/// The demand on one queue.
struct Ask<'a> {
    name: &'a Name,
    policy: &'a QueuePolicy,
    limiter: &'a Limiter,
    dispatcher: &'a Dispatcher,
    wants: Demand,
    room: Room,
    held: HashMap<String, u32>,
    now: Time,
}

/// Chooses the tasks that go: by priority, then key by key, then by age.
async fn choose(
    connection: &mut PgConnection,
    ask: &Ask<'_>,
    turns: &mut std::collections::BTreeMap<u8, String>,
) -> Result<Vec<Candidate>, Error> {
    let (namespace, queue) = (&*ask.name.0, &*ask.name.1);
    let names: Vec<String> = ask.wants.names.keys().cloned().collect();
    let mut limits = Limits {
        all: ask.room.tasks.min(ask.wants.room).min(MOST),
        retries: ask.room.retries,
        names: ask.wants.names.clone(),
        keys: HashMap::new(),
    };
    let most_of_key = ask.policy.concurrency_per_key.unwrap_or(u32::MAX);
    for (key, held) in &ask.held {
        limits.keys.insert(key.clone(), most_of_key.saturating_sub(*held));
    }
    let mut chosen: Vec<Candidate> = Vec::new();
    let mut levels: Vec<(i16, Vec<String>)> = Vec::new();
    for (name, level) in table::levels(connection, namespace, queue, &names).await? {
        let Some(name) = names.get(name).cloned() else { continue };
        match levels.last_mut() {
            Some((last, names)) if *last == level => names.push(name),
            _ => levels.push((level, vec![name])),
        }
    }
    let mut buckets: HashMap<String, Bucket> = HashMap::new();
    // They must not hide the tasks behind them.
    let passed_over = ask.dispatcher.waiting_alone().min(MOST);
    for (level, names) in levels {
        if limits.all == 0 {
            break;
        }
        let turn_of = u8::try_from(level).unwrap_or_default();
        let mut turn = turns.remove(&turn_of);
        // From the key whose turn it is to the last, then from the first.
        let starts = match &turn {
            Some(turn) => vec![turn.clone(), String::new()],
            None => vec![String::new()],
        };
        let mut starts = starts.into_iter();
        let mut next = starts.next();
        let mut pages = 0;
        while let Some(after) = next.take() {
            let without: Vec<String> = limits
                .keys
                .iter()
                .filter(|(_, left)| **left == 0)
                .map(|(key, _)| key.clone())
                .collect();
            let search = table::Search {
                namespace,
                queue,
                names: &names,
                level,
                after: &after,
                keys: KEYS,
                per_key: i64::from(passed_over)
                    + i64::from(if ask.policy.fair_by.is_some() {
                        limits.all.div_ceil(8)
                    } else {
                        limits.all
                    }),
                retries: limits.retries > 0,
                without: &without,
                now: ask.now,
            };
            let mut found = table::candidates(connection, &search).await?;
            found.retain(|one| !chosen.iter().any(|c| c.run == one.run && c.task == one.task));
            found.retain(|one| !ask.dispatcher.must_wait(one.run, &one.task));
            limit_keys(connection, ask, &found, &mut limits, &mut buckets).await?;
            chosen.extend(pick(found, &mut turn, &mut limits));
            if limits.all == 0 {
                break;
            }
            next = table::skip(connection, &search).await?;
            pages += u32::from(next.is_some());
            if pages == PAGES {
                // The next look goes on there, so that no key is passed over for ever.
                turn = next.take();
                break;
            }
            next = next.or_else(|| starts.next());
        }
        if let Some(turn) = turn {
            turns.insert(turn_of, turn);
        }
    }
    keep_buckets(connection, ask, &chosen, buckets).await?;
    Ok(chosen)
}

/// Sets for keys met for the first time the number of their tasks that may go.
async fn limit_keys(
    connection: &mut PgConnection,
    ask: &Ask<'_>,
    found: &[Candidate],
    limits: &mut Limits,
    buckets: &mut HashMap<String, Bucket>,
) -> Result<(), Error> {
    let most = ask.policy.concurrency_per_key.unwrap_or(u32::MAX);
    for one in found {
        if !limits.keys.contains_key(&one.key) && most < u32::MAX {
            limits.keys.insert(one.key.clone(), most);
        }
    }
    let Some(rate) = &ask.policy.rate_per_key else { return Ok(()) };
    let new: HashSet<&String> =
        found.iter().map(|one| &one.key).filter(|key| !buckets.contains_key(*key)).collect();
    let new: Vec<String> = new.into_iter().cloned().collect();
    let known = table::buckets(connection, &ask.name.0, &ask.name.1, &new).await?;
    for key in new {
        let bucket = known.get(&key).map(|bucket| ask.limiter.key(*bucket));
        let bucket = bucket.unwrap_or_else(|| Bucket::full(rate, ask.now)).refilled(rate, ask.now);
        let left = limits.keys.entry(key.clone()).or_insert(u32::MAX);
        *left = (*left).min(bucket.whole());
        buckets.insert(key, bucket);
    }
    Ok(())
}

async fn keep_buckets(
    connection: &mut PgConnection,
    ask: &Ask<'_>,
    chosen: &[Candidate],
    mut buckets: HashMap<String, Bucket>,
) -> Result<(), Error> {
    let Some(rate) = &ask.policy.rate_per_key else { return Ok(()) };
    let mut used = HashSet::new();
    for one in chosen {
        if let Some(bucket) = buckets.get_mut(&one.key) {
            bucket.take(1);
            used.insert(one.key.clone());
        }
    }
    buckets.retain(|key, _| used.contains(key));
    let kept: Vec<_> = buckets
        .into_iter()
        .map(|(key, bucket)| (key, bucket, bucket.when(rate, 1), bucket.when(rate, rate.most())))
        .collect();
    if !kept.is_empty() {
        table::keep_buckets(connection, &ask.name.0, &ask.name.1, &kept).await?;
    }
    Ok(())
}

/// Hands out tasks that have a permit. A task without a worker gives its permit back.
fn hand_out(node: &Node, name: &Name, given: Permitted) {
    let mut matches = Vec::with_capacity(given.len());
    let mut unused = Vec::new();
    for (permit, Candidate { run, task, name: handler, .. }) in given {
        // Prefer a session whose poll waits: a task reserved for a worker that is gone is late for all others.
        let grant = |whom| node.dispatcher.grant(&name.0, &name.1, &handler, whom);
        let granted = match node.dispatcher.grant_alone(run, &task) {
            AloneGrant::NotNeeded => {
                grant(SessionFilter::Polling).or_else(|| grant(SessionFilter::Known))
            }
            AloneGrant::Granted(grant) => Some(grant),
            AloneGrant::Later => None,
        };
        match granted {
            Some(grant) => {
                let grant = Grant { permit: Some(permit), ..grant };
                let namespace = Arc::clone(&name.0);
                matches.push(Match { run, namespace, task, grant });
            }
            None => unused.push(permit),
        }
    }
    node.dispatcher.return_permits(unused);
    node.hand_out(matches);
}

/// Tells of a breaker that opened or closed.
fn tell(node: &Node, name: &Name, was: &Breaker, now: &Breaker) {
    match (was, now) {
        (Breaker::Closed, Breaker::Open { until, .. }) => {
            node.counters.breakers_opened.one();
            tracing::warn!(namespace = %name.0, queue = %name.1, %until, "the breaker of a queue opened");
        }
        (Breaker::HalfOpen { .. }, Breaker::Closed) => {
            node.counters.breakers_closed.one();
            tracing::info!(namespace = %name.0, queue = %name.1, "the breaker of a queue closed");
        }
        _ => {}
    }
}

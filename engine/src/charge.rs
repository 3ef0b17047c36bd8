//! Taking charge of runs: of runs of dead nodes, and of parked runs that are due. Namespaces take turns, and one whose
//! runs keep the shards busy is left for the next pass.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use backstitch_saga::RunId;
use uuid::Uuid;

use crate::Error;
use crate::background::millis;
use crate::crash::commit;
use crate::executor::request::{Request, ShardCommand};
use crate::node::Node;
use crate::rounds::{Names, in_turns};
use crate::store::{nodes, runs, sweep};

/// Number of runs that are taken together.
const RUNS: usize = 500;
/// Number of runs that are looked up together, in turns, if there are more.
const LISTED: i64 = 5_000;
/// Number of the oldest, and of the newest, that are considered for that.
const LOOKED_AT: i64 = 50_000;
/// Pause for which the shards work through their commands.
const PAUSE: Duration = Duration::from_millis(20);

/// A run with its namespace.
pub(crate) type Owned = (RunId, String);

/// Runs that a node may take charge of.
enum Which<'a> {
    /// Parked runs that are due.
    Due,
    /// Runs of these nodes.
    Of(&'a [i32]),
    /// Runs without a node in charge that nothing would wake.
    Adrift,
}

/// Takes charge of runs that another node was in charge of, or none.
pub(crate) fn adopt(node: &Node, found: Vec<Owned>) {
    take_charge(node, found, || ShardCommand::Tick { adopted: true, woken: false, unheard: true });
}

/// Looks again at runs that this node is in charge of, should it have forgotten one.
pub(crate) fn remind(node: &Node, ours: Vec<Owned>) {
    take_charge(node, ours, || ShardCommand::Tick { adopted: true, woken: false, unheard: false });
}

fn take_charge(node: &Node, found: Vec<Owned>, order: impl Fn() -> ShardCommand) {
    let mut names = Names::default();
    let tick =
        |(run, namespace): Owned| Request::own(run, order()).paid_by(&names.shared(&namespace));
    node.submit_own(found.into_iter().map(tick).collect());
}

/// Waits while the shards are busy with commands of the engine. Commands of callers take turns with these.
async fn apply_backpressure(node: &Node) {
    while node.admission.own() > node.options.queue_limit / 4 {
        tokio::time::sleep(PAUSE).await;
    }
}

/// Takes over the runs of dead nodes. Returns their number.
pub(crate) async fn take_over(node: &Node) -> Result<usize, Error> {
    let mut connection = node.database.keepers.acquire().await?;
    let dead_after = node.options.tuning.dead_after;
    let seen = nodes::seen(&mut connection, millis(dead_after)).await?;
    let doubt = node.clock.doubt().is_some();
    let every = node.options.tuning.beat_every;
    let mut gone = node.peers.gone(&seen, every, dead_after, doubt);
    // A shard that lost its memory is like a dead node, but its node is alive.
    let forgot = node.forgot.swap(false, Ordering::Relaxed);
    gone.retain(|other| *other != node.id);
    let ours = if forgot { runs::in_charge(&mut connection, node.id).await? } else { Vec::new() };
    drop(connection);
    let mut ours = in_turns(ours, "", |(_, namespace)| namespace).into_iter();
    while ours.len() > 0 {
        adopt(node, ours.by_ref().take(RUNS).collect());
        apply_backpressure(node).await;
    }
    if gone.is_empty() {
        return Ok(0);
    }
    let taken = take(node, &Which::Of(&gone)).await?;
    if taken > 0 {
        node.counters.takeovers.add(taken);
        tracing::info!(runs = taken, "took over runs of a node that is gone");
    }
    Ok(taken)
}

/// Takes charge of parked runs that are due. Returns their number.
pub(crate) async fn wake(node: &Node) -> Result<usize, Error> {
    take(node, &Which::Due).await
}

/// Takes charge of runs that are adrift, in turns. Returns their number.
pub(crate) async fn take_adrift(node: &Node, found: Vec<Owned>) -> Result<usize, Error> {
    let listed = in_turns(found, "", |(_, namespace)| namespace);
    take_in_parts(node, &Which::Adrift, &listed).await
}

/// Takes charge of runs until only those of busy namespaces are left. Returns their number.
async fn take(node: &Node, which: &Which<'_>) -> Result<usize, Error> {
    let mut taken = 0;
    loop {
        let (few, more) = take_few(node, which).await?;
        taken += few.len();
        submit(node, which, few);
        if !more {
            return Ok(taken);
        }
        let listed = take_listed(node, which).await?;
        taken += listed;
        if listed == 0 {
            return Ok(taken);
        }
    }
}

fn submit(node: &Node, which: &Which<'_>, found: Vec<Owned>) {
    match which {
        Which::Due => {
            take_charge(node, found, || ShardCommand::Tick {
                adopted: true,
                woken: true,
                unheard: true,
            });
        }
        Which::Of(_) | Which::Adrift => adopt(node, found),
    }
}

/// Takes all there are, if they are few; otherwise none. Returns also whether there are more.
async fn take_few(node: &Node, which: &Which<'_>) -> Result<(Vec<Owned>, bool), Error> {
    let mut connection = node.database.keepers.acquire().await?;
    let most = i64::try_from(RUNS).unwrap_or(i64::MAX);
    Ok(match which {
        Which::Adrift => (Vec::new(), false),
        Which::Due => commit!(
            "runs_wake",
            runs::wake(&mut connection, node.id, node.clock.now(), most).await
        )?,
        Which::Of(gone) => {
            commit!("runs_take_over", runs::take_over(&mut connection, node.id, gone, most).await)?
        }
    })
}

/// Lists runs in turns and takes charge of them. Returns their number.
async fn take_listed(node: &Node, which: &Which<'_>) -> Result<usize, Error> {
    let mut connection = node.database.keepers.acquire().await?;
    let listed = match which {
        Which::Adrift => Vec::new(),
        Which::Due => runs::due(&mut connection, node.clock.now(), (LOOKED_AT, LISTED)).await?,
        Which::Of(gone) => runs::of_nodes(&mut connection, gone, (2 * LOOKED_AT, LISTED)).await?,
    };
    drop(connection);
    take_in_parts(node, which, &listed).await
}

/// Takes charge of listed runs, some at a time, without those of namespaces that are busy by then. Returns their
/// number.
async fn take_in_parts(node: &Node, which: &Which<'_>, listed: &[Owned]) -> Result<usize, Error> {
    let mut names = Names::default();
    let mut taken = 0;
    for part in listed.chunks(RUNS) {
        let spaces: HashSet<&str> = part.iter().map(|(_, namespace)| namespace.as_str()).collect();
        let loaded: HashSet<&str> = spaces
            .into_iter()
            .filter(|namespace| is_loaded(node, &names.shared(namespace)))
            .collect();
        let wanted = part.iter().filter(|(_, namespace)| !loaded.contains(namespace.as_str()));
        let ids: Vec<Uuid> = wanted.map(|(run, _)| run.0).collect();
        if ids.is_empty() {
            continue;
        }
        let found = take_these(node, which, &ids).await?;
        taken += found.len();
        submit(node, which, found);
    }
    Ok(taken)
}

async fn take_these(node: &Node, which: &Which<'_>, ids: &[Uuid]) -> Result<Vec<Owned>, Error> {
    let mut connection = node.database.keepers.acquire().await?;
    let (id, now) = (node.id, node.clock.now());
    Ok(match which {
        Which::Due => commit!("runs_wake", runs::wake_these(&mut connection, id, now, ids).await)?,
        Which::Of(gone) => {
            commit!("runs_take_over", runs::take_over_these(&mut connection, id, gone, ids).await)?
        }
        Which::Adrift => commit!("runs_adrift", sweep::take(&mut connection, id, ids).await)?,
    })
}

/// Returns whether the shards have enough to do for a namespace of what the engine gave them.
fn is_loaded(node: &Node, namespace: &Arc<str>) -> bool {
    node.admission.own_of(namespace) > node.options.queue_limit / 4
}

//! Upkeep of governed queues: reads them, takes back unused permits, ranks tasks from before the policy.

use std::sync::Arc;

use backstitch_saga::{Span, Time};
use sqlx::postgres::PgConnection;

use super::breaker::Breaker;
use super::serve::LAPSE;
use super::{Governed, Queue};
use crate::Error;
use crate::background::millis;
use crate::crash::commit;
use crate::node::Node;
use crate::store::flow_upkeep::{self, Plain};
use crate::store::queues;

/// Interval at which a permit of a leased task is compared with the journal.
const LOOK_AGAIN: Span = Span::secs(60);
/// Number of permits in one check.
const LOOKS: i64 = 100;
/// For so long after a change there may be nodes that do not know it.
const SPREAD: Span = Span::secs(15);
/// Delay before a queue is searched for tasks without a rank: short after a change, longer later.
const SWEEP_SOON: Span = Span::secs(1);
const SWEEP: Span = Span::secs(60);
/// Number of tasks that are ranked together.
const TASKS: i64 = 500;

/// Reads the governed queues, and looks after them. Returns the number of permits taken back.
pub(crate) async fn keep(node: &Arc<Node>) -> Result<usize, Error> {
    let mut connection = node.database.keepers.acquire().await?;
    learn(node, &mut connection).await?;
    let Some(governed) = node.flow.governed() else { return Ok(0) };
    let now = node.clock.now();
    commit!("fair_keys_forget", flow_upkeep::forget_full(&mut connection, now).await)?;
    let dead_after = millis(node.options.tuning.dead_after);
    let lapsed = commit!(
        "permits_lapse",
        flow_upkeep::lapse(&mut connection, now, now.after(LAPSE), dead_after).await
    )?;
    let lapsed = usize::try_from(lapsed).unwrap_or_default();
    node.counters.permits_lapsed.add(lapsed);
    let over = compare(node, &mut connection, now).await?;
    rank(&governed, &mut connection, now).await?;
    if lapsed + over > 0 {
        node.flow.ring();
    }
    Ok(lapsed + over)
}

/// Learns which queues are governed, and how.
pub(crate) async fn learn(node: &Node, connection: &mut PgConnection) -> Result<(), Error> {
    let rows = queues::all(connection).await?;
    let known: Vec<Queue> = rows.into_iter().map(Queue::read).collect();
    node.flow.tell_damaged(&known);
    let now = node.clock.now();
    let count = |which: &dyn Fn(&Queue) -> bool| known.iter().filter(|one| which(one)).count();
    let counters = &node.counters;
    counters.governed_queues.set(known.len());
    counters.queues_paused.set(count(&|one| one.paused.is_some()));
    counters.breakers_open.set(count(&|one| one.limiter.breaker != Breaker::Closed));
    counters.retry_budgets_exhausted.set(count(&|one| {
        one.limiter.budget_view(&one.policy, now).is_some_and(|budget| budget.left == 0)
    }));
    node.flow.learn(known.into_iter());
    Ok(())
}

/// Compares permits with the journals, and removes those whose lease is over. A node that did not know yet that the
/// queue was governed may have ended one without saying so.
async fn compare(
    node: &Arc<Node>,
    connection: &mut PgConnection,
    now: Time,
) -> Result<usize, Error> {
    let doubtful = commit!(
        "permits_look",
        flow_upkeep::doubtful(connection, now, now.after(LOOK_AGAIN), LOOKS).await
    )?;
    let mut over = Vec::new();
    for one in doubtful {
        match crate::reads::is_leased(node, &one.namespace, one.run, one.task).await {
            Ok(true) => {}
            Ok(false) | Err(Error::NotFound { .. }) => over.push(one.id),
            // It is not known whether it is held until its journal is repaired.
            Err(Error::Damaged(_)) => {}
            Err(error) => return Err(error),
        }
    }
    if !over.is_empty() {
        commit!("permits_over", flow_upkeep::over(connection, &over).await)?;
    }
    Ok(over.len())
}

/// Ranks tasks that came on offer before their queue was governed.
async fn rank(governed: &Governed, connection: &mut PgConnection, now: Time) -> Result<(), Error> {
    for queue in governed.all().filter(|queue| queue.damaged.is_none()) {
        let young = now.since(queue.changed_at) < SPREAD;
        let every = if young { SWEEP_SOON } else { SWEEP };
        if queue.swept_at.is_some_and(|at| now < at.after(every)) {
            continue;
        }
        let (namespace, name) = (&*queue.name.0, &*queue.name.1);
        let turn = commit!(
            "queues_sweep_turn",
            flow_upkeep::sweep_turn(connection, namespace, name, queue.swept_at, now).await
        )?;
        if !turn {
            continue;
        }
        loop {
            let plain = flow_upkeep::plain(connection, namespace, name, TASKS).await?;
            let ranked: Vec<(&Plain, i16, String)> = plain
                .iter()
                .map(|one| {
                    let rank = queue.rank(&one.labels);
                    (one, rank.priority, rank.fair_key)
                })
                .collect();
            if !ranked.is_empty() {
                commit!("tasks_rank", flow_upkeep::adopt(connection, &ranked).await)?;
            }
            if i64::try_from(plain.len()).unwrap_or(TASKS) < TASKS {
                break;
            }
        }
    }
    Ok(())
}

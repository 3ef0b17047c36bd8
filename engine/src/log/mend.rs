//! Compares the heads of logs with the positions that were given, and repairs those that differ. Looks for batches of
//! events that nobody would ever read, as their row of `position` or `announced` was lost, and gives them a position:
//! the one that is missing, if it is known, or else a new one.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use sqlx::Connection;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::Error;
use crate::crash::commit;
use crate::node::Node;
use crate::store::log::{self as table, Placement, Positions, WrongHead};
use crate::store::moment::Moment;

/// Batches that one walk remembers; what is beyond waits for the next one.
const REMEMBERED: usize = 100_000;

/// The batches without a position that the walk under way has found, each with its namespace.
#[derive(Debug, Default)]
pub(crate) struct Found(Mutex<Vec<(String, Uuid)>>);

impl Found {
    fn note(&self, more: Vec<(String, Uuid)>) {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = REMEMBERED.saturating_sub(found.len());
        found.extend(more.into_iter().take(room));
    }

    fn take(&self) -> Vec<(String, Uuid)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Repairs lost or wrong heads after the namespace `after`. Returns their number, and the namespace after which more
/// may follow.
pub(crate) async fn check_heads(
    node: &Node,
    after: &str,
) -> Result<(usize, Option<String>), Error> {
    let mut connection = node.database.keepers.acquire().await?;
    let found = table::wrong_heads(&mut connection, after).await?;
    let mut mended = 0;
    for head in &found.rows {
        if set_right(node, &mut connection, head).await? {
            mended += 1;
        }
    }
    Ok((mended, found.last))
}

async fn set_right(
    node: &Node,
    connection: &mut PgConnection,
    head: &WrongHead,
) -> Result<bool, Error> {
    let right = table::set_head_right(connection, head);
    if !commit!("log_head_mend", right.await)? {
        return Ok(false);
    }
    let (position, horizon) = head.right;
    tracing::warn!(
        namespace = head.namespace,
        position,
        horizon,
        "the head of a log was lost or wrong; it is set right by the positions that were given"
    );
    node.counters.log_heads_mended.one();
    node.log.wake_readers();
    Ok(true)
}

/// Tells which heads of logs are lost or wrong, and sets them right if asked.
pub(crate) async fn examine_heads(node: &Node, mend: bool) -> Result<Vec<String>, Error> {
    let mut connection = node.database.keepers.acquire().await?;
    let mut told = Vec::new();
    let mut after = Some(String::new());
    while let Some(from) = after {
        let found = table::wrong_heads(&mut connection, &from).await?;
        for head in &found.rows {
            let (position, horizon) = head.right;
            told.push(format!(
                "the head of the log of namespace {}: {}, and the positions end at {position} and begin after {horizon}",
                head.namespace,
                match head.found {
                    Some((position, horizon)) => format!("position {position}, horizon {horizon}"),
                    None => "it has no row".to_owned(),
                }
            ));
            if mend {
                set_right(node, &mut connection, head).await?;
            }
        }
        after = found.last;
    }
    Ok(told)
}

/// Looks at the events after the batch `after`. When all are looked at, what was found is given positions. Returns how
/// many batches were, and after which batch more events may follow.
pub(crate) async fn check_positions(
    node: &Node,
    after: Option<Uuid>,
) -> Result<(usize, Option<Uuid>), Error> {
    if after.is_none() {
        node.log.unnumbered.take();
    }
    let mut connection = node.database.keepers.acquire().await?;
    let looked = table::unnumbered(&mut connection, after.unwrap_or_default()).await?;
    node.log.unnumbered.note(looked.found);
    if looked.last.is_some() {
        return Ok((0, looked.last));
    }
    let found = node.log.unnumbered.take();
    Ok((restore_all(node, &mut connection, found).await?, None))
}

/// Gives positions to all batches without one, for a person who asks for it.
pub(crate) async fn restore_positions(node: &Node) -> Result<(), Error> {
    let mut connection = node.database.keepers.acquire().await?;
    let (mut found, mut after) = (Vec::new(), Some(Uuid::nil()));
    while let Some(from) = after.filter(|_| found.len() < REMEMBERED) {
        let looked = table::unnumbered(&mut connection, from).await?;
        found.extend(looked.found);
        after = looked.last;
    }
    restore_all(node, &mut connection, found).await?;
    Ok(())
}

/// Gives positions to batches of any namespaces, and tells of those for which that is not possible. Returns how many
/// have one.
async fn restore_all(
    node: &Node,
    connection: &mut PgConnection,
    found: Vec<(String, Uuid)>,
) -> Result<usize, Error> {
    let mut by_namespace: BTreeMap<String, Vec<Uuid>> = BTreeMap::new();
    for (namespace, batch) in found {
        by_namespace.entry(namespace).or_default().push(batch);
    }
    let (mut restored, mut stuck) = (0, Vec::new());
    for (namespace, batches) in by_namespace {
        match restore(node, connection, &namespace, &batches).await? {
            Some(count) => restored += count,
            None => {
                stuck.extend(batches.iter().map(|batch| (namespace.clone(), batch.to_string())));
            }
        }
    }
    for (namespace, batch) in node.health.unnumbered_found(stuck) {
        tracing::error!(
            namespace,
            batch,
            "events have no position, and do not fit the positions that are missing; see `backstitch doctor`"
        );
    }
    Ok(restored)
}

/// Gives positions to batches of a namespace. Returns how many have one now; `None` when they do not fit what is
/// missing.
async fn restore(
    node: &Node,
    connection: &mut PgConnection,
    namespace: &str,
    batches: &[Uuid],
) -> Result<Option<usize>, Error> {
    let mut transaction = connection.begin().await?;
    table::lock_heads(&mut transaction, &[namespace.to_owned()]).await?;
    let lost = table::still_unnumbered(&mut transaction, namespace, batches).await?;
    if lost.is_empty() {
        return Ok(Some(0));
    }
    let positions = table::positions(&mut transaction, namespace).await?;
    let Some(placement) = plan(&lost, &positions) else { return Ok(None) };
    let at = Moment(node.clock.now());
    table::place(&mut transaction, namespace, &placement, at).await?;
    commit!("log_positions_restore", transaction.commit().await)?;
    let Placement { placed, announced } = placement;
    tracing::warn!(
        namespace,
        restored = placed.len(),
        announced = announced.len(),
        "rows of the tables position or announced were lost; the events have got their positions back, or get new ones"
    );
    node.counters.log_batches_restored.add(lost.len());
    node.log.appended.notify_one();
    node.log.wake_readers();
    Ok(Some(lost.len()))
}

/// Decides what becomes of batches without a position, given in their order. Where positions are missing, the oldest of
/// them must fill each gap exactly; those that are left never had a position and are announced. `None` when they do not
/// fit.
fn plan(lost: &[(Uuid, i16)], positions: &Positions) -> Option<Placement> {
    let Positions { head: (position, horizon), first, last, gaps } = positions;
    let mut placement = Placement::default();
    let mut rest = lost;
    let mut missing = Vec::new();
    match first {
        Some((begin, _)) if horizon < begin => missing.push((*horizon, *begin)),
        // The horizon was taken from the first position that was left.
        Some((begin, batch)) if *begin > 0 => {
            let older = rest.iter().take_while(|(lost, _)| lost < batch).count();
            let (mut older, others) = rest.split_at(older);
            let count: i64 = older.iter().map(|(_, n)| i64::from(*n)).sum();
            let gap = (begin - count, *begin);
            if gap.0 < 0 || !fill(gap, &mut older, &mut placement) {
                return None;
            }
            rest = others;
        }
        _ => {}
    }
    missing.extend(gaps);
    let end = last.unwrap_or(*horizon);
    if end < *position {
        missing.push((end, *position));
    }
    for gap in missing {
        if !fill(gap, &mut rest, &mut placement) {
            return None;
        }
    }
    placement.announced = rest.to_vec();
    Some(placement)
}

/// Fills a gap with the first batches of `rest`. Returns whether they fit.
fn fill((from, upto): (i64, i64), rest: &mut &[(Uuid, i16)], placement: &mut Placement) -> bool {
    let mut at = from;
    while at < upto {
        let Some(((batch, n), others)) = rest.split_first() else { return false };
        at += i64::from(*n);
        placement.placed.push((*batch, at, *n));
        *rest = others;
    }
    at == upto
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    /// A log of which batch 10 is the first that has a position, and begins after `first`.
    fn log(head: (i64, i64), first: i64, last: i64, gaps: &[(i64, i64)]) -> Positions {
        let first = Some((first, batch(10)));
        Positions { head, first, last: Some(last), gaps: gaps.to_vec() }
    }

    fn placed(placed: &[(u128, i64, i16)], announced: &[(u128, i16)]) -> Option<Placement> {
        Some(Placement {
            placed: placed.iter().map(|(number, upto, n)| (batch(*number), *upto, *n)).collect(),
            announced: announced.iter().map(|(number, n)| (batch(*number), *n)).collect(),
        })
    }

    #[test]
    fn a_batch_gets_the_position_back_that_is_missing() {
        let lost = [(batch(12), 2)];
        assert_eq!(plan(&lost, &log((8, 0), 0, 8, &[(2, 4)])), placed(&[(12, 4, 2)], &[]));
        assert_eq!(plan(&lost, &log((8, 0), 0, 6, &[])), placed(&[(12, 8, 2)], &[]));
        let lost = [(batch(1), 1), (batch(2), 1)];
        assert_eq!(plan(&lost, &log((8, 3), 5, 8, &[])), placed(&[(1, 4, 1), (2, 5, 1)], &[]));
    }

    #[test]
    fn a_batch_before_the_first_position_goes_there_though_the_horizon_was_raised() {
        let lost = [(batch(9), 2), (batch(12), 1)];
        let there = log((8, 5), 5, 8, &[(6, 7)]);
        assert_eq!(plan(&lost, &there), placed(&[(9, 5, 2), (12, 7, 1)], &[]));
        assert_eq!(plan(&[(batch(9), 6)], &there), None, "there is no room for it");
    }

    #[test]
    fn a_log_of_which_all_positions_are_lost_gets_them_back_in_the_order_of_its_batches() {
        let lost = [(batch(1), 2), (batch(2), 1)];
        let there = Positions { head: (7, 4), ..Positions::default() };
        assert_eq!(plan(&lost, &there), placed(&[(1, 6, 2), (2, 7, 1)], &[]));
    }

    #[test]
    fn a_batch_that_was_never_numbered_is_announced_again() {
        let lost = [(batch(12), 2), (batch(14), 1)];
        assert_eq!(plan(&lost, &log((8, 0), 0, 8, &[])), placed(&[], &[(12, 2), (14, 1)]));
        let both = log((8, 0), 0, 8, &[(2, 4)]);
        assert_eq!(plan(&lost, &both), placed(&[(12, 4, 2)], &[(14, 1)]));
        let first = Positions::default();
        assert_eq!(plan(&lost, &first), placed(&[], &[(12, 2), (14, 1)]));
    }

    #[test]
    fn batches_that_do_not_fit_what_is_missing_are_left_alone() {
        let there = log((8, 0), 0, 8, &[(2, 5)]);
        assert_eq!(plan(&[(batch(12), 2)], &there), None);
        assert_eq!(plan(&[(batch(12), 4)], &there), None);
    }
}

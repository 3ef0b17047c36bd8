//! The line of a serial key: joining it, and notifying the runs in it. The line is changed only under the key's lock,
//! so that policies work for any number of concurrent starts.

use backstitch_saga::protocol::OnConflict;
use backstitch_saga::{By, Command, Hold, HoldKind, RunId, Time};
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::tell::{ask, is_told};
use crate::Error;
use crate::crash::commit;
use crate::node::Node;
use crate::store::holders::{self, Promoted};
use crate::store::sequence::{self as table, Place};

/// Relation of a start to the line that it is to enter.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// It enters at the end, and these are cancelled.
    Enter { replaced: Vec<RunId> },
    /// It is answered with this run.
    Existing(RunId),
    /// It is refused, because of this run.
    Refused(RunId),
}

/// Applies a policy to a line. A run counts as having the key if it holds it, or, if no run holds it because of
/// required facts, if it is the first in line.
fn turn(line: &[Place], policy: OnConflict) -> Turn {
    let stays = |place: &&Place| place.replaced_by.is_none();
    let holder = line.iter().find(|place| place.holding);
    let staying = holder.filter(stays).or_else(|| line.iter().find(stays));
    let Some(has) = staying.or(holder) else { return Turn::Enter { replaced: Vec::new() } };
    let all = line.iter().filter(stays).map(|place| (place.run, place.holding));
    let replaced = match policy {
        OnConflict::Queue => Vec::new(),
        OnConflict::Reject => return Turn::Refused(has.run),
        OnConflict::UseExisting => return Turn::Existing(has.run),
        OnConflict::Coalesce => all.filter(|(_, holding)| !holding).map(|(run, _)| run).collect(),
        OnConflict::Replace => all.map(|(run, _)| run).collect(),
    };
    Turn::Enter { replaced }
}

/// A start that wants to enter a line.
pub(super) struct Entry<'a> {
    pub(super) run: RunId,
    pub(super) policy: OnConflict,
    /// Its workflow and the caller's own key.
    pub(super) start: Option<(&'a str, &'a str)>,
    /// It waits for nothing else.
    pub(super) ready: bool,
}

/// Result of joining the line.
pub(super) enum Entered {
    /// It has its place.
    InLine,
    Existing(RunId),
    /// The same start is in the line, as this run.
    Twin(RunId),
    Refused(RunId),
}

/// Lets a run enter a line, in the transaction of `connection`.
pub(super) async fn enter(
    connection: &mut PgConnection,
    namespace: &str,
    key: &str,
    entry: &Entry<'_>,
    at: Time,
) -> Result<Entered, Error> {
    table::lock_key(connection, namespace, key).await?;
    if !table::keys_of(connection, &[entry.run.0]).await?.is_empty() {
        // Asked for again: it has its place already.
        return Ok(Entered::InLine);
    }
    if let Some(start) = entry.start
        && let Some(twin) = table::twin(connection, namespace, key, start).await?
    {
        return Ok(Entered::Twin(twin));
    }
    let mut line = line_for(connection, namespace, key, entry.policy).await?;
    if !line.iter().any(|place| place.holding)
        && let Some(run) = holders::reinstate(connection, namespace, key, at).await?
    {
        tell_back(namespace, run);
        line = line_for(connection, namespace, key, entry.policy).await?;
    }
    match turn(&line, entry.policy) {
        Turn::Existing(other) => Ok(Entered::Existing(other)),
        Turn::Refused(other) => Ok(Entered::Refused(other)),
        Turn::Enter { replaced } => {
            let holding = entry.ready && !line.iter().any(|place| place.holding);
            let replaced: Vec<Uuid> = replaced.into_iter().map(|run| run.0).collect();
            table::enter(connection, namespace, key, entry.run, holding, &replaced, at).await?;
            Ok(Entered::InLine)
        }
    }
}

/// Returns the part of the line of a key that a policy examines.
async fn line_for(
    connection: &mut PgConnection,
    namespace: &str,
    key: &str,
    policy: OnConflict,
) -> Result<Vec<Place>, sqlx::Error> {
    match policy {
        OnConflict::Coalesce | OnConflict::Replace => {
            table::line(connection, namespace, key, i64::MAX).await
        }
        OnConflict::Queue | OnConflict::Reject | OnConflict::UseExisting => {
            table::head(connection, namespace, key).await
        }
    }
}

/// If no run holds a key, gives it to the next in line, in the transaction of `connection`; never beside a run that was
/// given it and has not ended. Returns whether runs in the line must be notified.
pub(super) async fn promote(
    connection: &mut PgConnection,
    namespace: &str,
    key: &str,
    at: Time,
) -> Result<bool, Error> {
    let promoted = holders::promote(connection, namespace, key, at).await?;
    if let Promoted::Back(run) = promoted {
        tell_back(namespace, run);
    }
    Ok(promoted != Promoted::Nobody)
}

fn tell_back(namespace: &str, run: RunId) {
    tracing::warn!(namespace, %run, "a run that holds a serial key had lost its place and has it again");
}

/// Puts a run at the end of a line, regardless of policies; the next notification of the line gives it the key
/// when its turn has come.
pub(super) async fn enter_last(
    connection: &mut PgConnection,
    namespace: &str,
    key: &str,
    run: RunId,
    at: Time,
) -> Result<(), Error> {
    let entry = Entry { run, policy: OnConflict::Queue, start: None, ready: false };
    enter(connection, namespace, key, &entry, at).await.map(drop)
}

/// Gives the key to the next in line if no run holds it, and notifies runs in the line: that the key is theirs, or
/// that they were replaced. Returns the number of notified runs.
pub(super) async fn tell(node: &Node, namespace: &str, key: &str) -> Result<usize, Error> {
    let mut connection = node.database.keepers.acquire().await?;
    let mut transaction = connection.begin().await?;
    table::lock_key(&mut transaction, namespace, key).await?;
    promote(&mut transaction, namespace, key, node.clock.now()).await?;
    let line = table::untold(&mut transaction, namespace, key).await?;
    commit!("sequence_promote", transaction.commit().await)?;
    drop(connection);
    let mut told = Vec::new();
    let mut commands = Vec::new();
    for place in line {
        if place.holding && !place.granted {
            let hold = Some(Hold::new(HoldKind::KeyBlocked, key));
            told.push((place.run.0, true));
            commands.push((place.run, Command::Unhold { hold, by: None }));
        }
        if let (Some(other), false) = (place.replaced_by, place.told) {
            let reason = format!("replaced by run {other} under the serial key '{key}'");
            let by = By { actor: "backstitch".into(), reason };
            told.push((place.run.0, false));
            commands.push((place.run, Command::Cancel { by }));
        }
    }
    if commands.is_empty() {
        return Ok(0);
    }
    let answers = ask(node, commands).await;
    let heard = told.into_iter().zip(&answers).filter(|(_, answer)| is_told(answer));
    let (granted, replaced): (Vec<_>, Vec<_>) =
        heard.map(|(one, _)| one).partition(|(_, granted)| *granted);
    let ids = |all: &[(Uuid, bool)]| all.iter().map(|(run, _)| *run).collect::<Vec<Uuid>>();
    let mut connection = node.database.keepers.acquire().await?;
    commit!("sequence_told", table::told(&mut connection, &ids(&granted), &ids(&replaced)).await)?;
    Ok(granted.len() + replaced.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [OnConflict; 5] = [
        OnConflict::Queue,
        OnConflict::Reject,
        OnConflict::Replace,
        OnConflict::Coalesce,
        OnConflict::UseExisting,
    ];

    fn run(number: u128) -> RunId {
        RunId(Uuid::from_u128(number))
    }

    fn place(number: u128, holding: bool, replaced_by: Option<u128>) -> Place {
        Place {
            run: run(number),
            holding,
            granted: holding,
            replaced_by: replaced_by.map(run),
            told: false,
            since: Time(0),
        }
    }

    fn enter(replaced: &[u128]) -> Turn {
        Turn::Enter { replaced: replaced.iter().map(|number| run(*number)).collect() }
    }

    #[test]
    fn a_free_key_is_taken_whatever_the_policy() {
        for policy in ALL {
            assert_eq!(turn(&[], policy), enter(&[]));
            // Runs that were replaced while they waited count as absent.
            assert_eq!(turn(&[place(1, false, Some(2))], policy), enter(&[]));
        }
    }

    #[test]
    fn each_policy_does_its_own() {
        let line = [place(1, true, None), place(2, false, None), place(3, false, Some(9))];
        assert_eq!(turn(&line, OnConflict::Queue), enter(&[]));
        assert_eq!(turn(&line, OnConflict::Coalesce), enter(&[2]));
        assert_eq!(turn(&line, OnConflict::Replace), enter(&[1, 2]));
        assert_eq!(turn(&line, OnConflict::Reject), Turn::Refused(run(1)));
        assert_eq!(turn(&line, OnConflict::UseExisting), Turn::Existing(run(1)));
    }

    #[test]
    fn whoever_is_replaced_is_not_answered_with_and_not_replaced_again() {
        let line = [place(1, true, Some(2)), place(2, false, None)];
        assert_eq!(turn(&line, OnConflict::UseExisting), Turn::Existing(run(2)));
        assert_eq!(turn(&line, OnConflict::Replace), enter(&[2]));
        // Its undoing is under way, so the key is not free.
        let alone = [place(1, true, Some(2))];
        assert_eq!(turn(&alone, OnConflict::Reject), Turn::Refused(run(1)));
        assert_eq!(turn(&alone, OnConflict::Coalesce), enter(&[]));
    }

    #[test]
    fn who_waits_for_a_fact_has_the_key_although_it_does_not_hold_it() {
        let line = [place(1, false, None), place(2, false, None)];
        assert_eq!(turn(&line, OnConflict::Reject), Turn::Refused(run(1)));
        assert_eq!(turn(&line, OnConflict::UseExisting), Turn::Existing(run(1)));
        assert_eq!(turn(&line, OnConflict::Coalesce), enter(&[1, 2]));
        assert_eq!(turn(&line, OnConflict::Replace), enter(&[1, 2]));
    }
}

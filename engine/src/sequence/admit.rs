//! Admits a start: it takes its place in the line of its key, and its requirements are recorded, in one transaction
//! before the run exists. It notifies no other run.

use std::sync::Arc;
use std::time::Duration;

use backstitch_saga::protocol::{OnConflict, OnWithdrawn, Requirement};
use backstitch_saga::{Hold, HoldKind, Run, RunId, Time};
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use super::keys::{self, Entered, Entry};
use super::wanted::{WITHIN, Wanted, produced, required};
use super::{required_by, tell, unmet_hold};
use crate::Error;
use crate::crash::commit;
use crate::node::Node;
use crate::reads::read;
use crate::store::facts::{self, Note};
use crate::store::{journal, keys as run_keys, sequence as table};

/// Time for which a start waits for the run that is its answer to exist.
pub(crate) const BEGUN_WITHIN: Duration = Duration::from_secs(5);
/// Time for which a start waits for its duplicate, which it can also begin itself.
pub(crate) const TWIN_WITHIN: Duration = Duration::from_secs(1);

/// Admission of a start.
pub(crate) enum Admitted {
    /// The run begins, held for these reasons. Unless it has a `placed` row it will be answered by another.
    Start { holds: Vec<(Hold, String)>, placed: bool },
    /// It is answered with the run that has the key.
    Existing(RunId),
    /// The same start was asked for at the same time, as this run: that one goes first, and answers this one.
    Twin(RunId),
}

/// Lets a start in. `key` is the caller's own.
pub(crate) async fn admit(
    node: &Node,
    namespace: &str,
    run: RunId,
    key: Option<&run_keys::RunKey>,
    wanted: &Wanted,
) -> Result<Admitted, Error> {
    let now = node.clock.now();
    let mut connection = node.database.reader(namespace).await?;
    if let Some(key) = key {
        let known = run_keys::find(&mut connection, std::slice::from_ref(key)).await?;
        if known.get(key).is_some_and(|holder| holder.run != run) {
            // The answer will be the run that its key started, and it needs no place. If that run does not exist
            // any more by then, this one begins held, and a sweep finds it a place.
            let serial = wanted.serial.iter().map(|(key, _)| key_hold(key));
            return Ok(Admitted::Start { holds: serial.collect(), placed: false });
        }
    }
    let note = Note {
        run,
        start: key.map(|(_, key, workflow)| (workflow.as_str(), key.as_str())),
        requires: &wanted.requires,
        policies: &wanted.policies,
        produces: &wanted.produces,
        serial: wanted.serial.is_some(),
        since: now,
        until: now.after(wanted.within),
    };
    let unmet = |unmet: Vec<Requirement>| -> Vec<(Hold, String)> {
        unmet.iter().map(|one| (unmet_hold(one), unmet_words(one))).collect()
    };
    let Some((key, policy)) = &wanted.serial else {
        let holds =
            unmet(commit!("sequence_note", facts::note(&mut connection, namespace, &note).await)?);
        let placed = !wanted.requires.is_empty() || !wanted.produces.is_empty();
        return Ok(Admitted::Start { holds, placed });
    };
    // A start that does not enter the line leaves nothing behind.
    let mut transaction = connection.begin().await?;
    let mut holds = unmet(facts::note(&mut transaction, namespace, &note).await?);
    let entry = Entry { run, policy: *policy, start: note.start, ready: holds.is_empty() };
    match keys::enter(&mut transaction, namespace, key, &entry, now).await? {
        Entered::InLine => {
            holds.push(key_hold(key));
            commit!("sequence_enter", transaction.commit().await)?;
            Ok(Admitted::Start { holds, placed: true })
        }
        Entered::Existing(other) => Ok(Admitted::Existing(other)),
        Entered::Twin(other) => Ok(Admitted::Twin(other)),
        Entered::Refused(holder) => Err(Error::Conflict {
            code: "key_held",
            message: format!(
                "run {holder} has the serial key '{key}'; try again when it has ended"
            ),
        }),
    }
}

/// Returns the holds of a start for a later instant, where it wants a place among others: it takes that when its
/// instant has come, at the end of the line, and is noted nowhere before. `None` for a start that takes its place now.
pub(crate) fn holds_of_delayed(
    wanted: &Wanted,
    start_at: Option<Time>,
) -> Option<Vec<(Hold, String)>> {
    if start_at.is_none() || wanted.serial.is_none() && wanted.requires.is_empty() {
        return None;
    }
    let unmet = wanted.requires.iter().map(|one| (unmet_hold(one), unmet_words(one)));
    Some(unmet.chain(wanted.serial.iter().map(|(key, _)| key_hold(key))).collect())
}

fn unmet_words(one: &Requirement) -> String {
    format!("waits until {} is established for '{}'", one.fact, one.on)
}

/// Admits a child run. A step is not refused, nor is another run: it waits in line, unless a run to which it belongs
/// has the key; then it runs under that.
pub(crate) async fn admit_child(
    node: &Arc<Node>,
    namespace: &str,
    child: RunId,
    parent: RunId,
    mut wanted: Wanted,
) -> Result<Vec<(Hold, String)>, Error> {
    let mut connection = node.database.reader(namespace).await?;
    if !journal::last_seqs(&mut connection, &[child.0]).await?.is_empty() {
        // Asked for again: it has begun, and may have ended.
        return Ok(Vec::new());
    }
    if let Some((key, policy)) = &mut wanted.serial {
        *policy = OnConflict::Queue;
        let line = table::line(&mut connection, namespace, key, i64::MAX).await?;
        drop(connection);
        let mut above = Some(parent);
        while let Some(run) = above {
            if line.iter().any(|place| place.run == run) {
                wanted.serial = None;
                break;
            }
            above = read(node, namespace, run, |run| run.parent().map(|parent| parent.run)).await?;
        }
    }
    match admit(node, namespace, child, None, &wanted).await? {
        Admitted::Start { holds, .. } => Ok(holds),
        // A queueing start without a key of its own is never answered with another run.
        Admitted::Existing(_) | Admitted::Twin(_) => Ok(Vec::new()),
    }
}

/// Returns the hold of a run that waits for a serial key.
pub(crate) fn key_hold(key: &str) -> (Hold, String) {
    (
        Hold::new(HoldKind::KeyBlocked, key),
        format!("waits for its turn with the serial key '{key}'"),
    )
}

/// Waits until an admitted run has begun.
///
/// # Errors
/// [`Error::Busy`] when it does not, or was refused.
pub(crate) async fn begun(node: &Node, run: RunId, within: Duration) -> Result<(), Error> {
    let until = node.clock.now().after(within.into());
    let mut connection = node.database.readers.acquire().await?;
    loop {
        let awaited = !table::keys_of(&mut connection, &[run.0]).await?.is_empty();
        if !journal::last_seqs(&mut connection, &[run.0]).await?.is_empty() {
            return Ok(());
        }
        if !awaited || node.clock.now() > until {
            return Err(Error::Busy);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Returns the holds with which a start begins as its duplicate, which was admitted and has not begun: the first caller
/// has died, or is slow. Both begin the same run, so one wins.
///
/// # Errors
/// [`Error::Busy`] when the twin has no place any more, or promised something else, from another input.
pub(crate) async fn as_twin(
    node: &Node,
    twin: RunId,
    wanted: &Wanted,
) -> Result<Vec<(Hold, String)>, Error> {
    let mut connection = node.database.readers.acquire().await?;
    let lines = table::keys_of(&mut connection, &[twin.0]).await?;
    let promised = facts::promised(&mut connection, &[twin.0]).await?;
    let awaited = facts::awaited(&mut connection, &[twin.0]).await?;
    let mut promised: Vec<Requirement> = promised.into_iter().map(|(_, one)| one).collect();
    let mut produces = wanted.produces.clone();
    promised.sort();
    produces.sort();
    produces.dedup();
    let alike = awaited.iter().all(|awaited| wanted.requires.contains(&awaited.one));
    if lines.is_empty() || promised != produces || !alike {
        return Err(Error::Busy);
    }
    let unmet = awaited.iter().map(|awaited| (unmet_hold(&awaited.one), unmet_words(&awaited.one)));
    Ok(unmet.chain(lines.iter().map(|(_, _, key)| key_hold(key))).collect())
}

/// Gives back the place of an admitted start that did not become a run. If this fails, a sweep does it.
pub(crate) async fn abandon(node: &Node, namespace: &str, run: RunId) {
    if let Err(error) = tell::close(node, namespace, run, &tell::Closing::default()).await {
        tracing::warn!(%run, %error, "the place of a start that was refused is given back later");
    }
}

/// Gives a run that waits for its turn, and that no row knows of, a place at the end of its line. It was started for an
/// instant that has come now, or its start took so long that its place was given back before it became a run.
pub(super) async fn restore(node: &Arc<Node>, namespace: &str, run: RunId) -> Result<(), Error> {
    let what = |run: &Run| {
        let sequence = run.graph().definition.sequence.as_ref();
        let within = sequence.and_then(|sequence| sequence.requires_within).unwrap_or(WITHIN);
        let holds = run.holds().cloned().collect::<Vec<Hold>>();
        (holds, within, produced(run), required(run), run.start_at().is_some())
    };
    let (holds, within, produces, required, was_delayed) = read(node, namespace, run, what).await?;
    let requires: Vec<_> = holds.iter().filter_map(required_by).collect();
    let serial = holds.iter().find(|hold| hold.kind == HoldKind::KeyBlocked);
    if requires.is_empty() && serial.is_none() {
        return Ok(());
    }
    if holds.iter().any(|hold| hold.kind == HoldKind::StartDelayed) {
        return Ok(());
    }
    if !was_delayed {
        tracing::warn!(%run, "a run that waits for its turn had lost its place and gets another");
    }
    let policy = |one: &Requirement| {
        let known = required.iter().find(|known| known.one == *one);
        known.map(|known| known.on_withdrawn).unwrap_or_default()
    };
    let policies: Vec<OnWithdrawn> = requires.iter().map(policy).collect();
    let now = node.clock.now();
    let mut connection = node.database.keepers.acquire().await?;
    let mut transaction = connection.begin().await?;
    let place: &mut PgConnection = &mut transaction;
    let note = Note {
        run,
        start: None,
        requires: &requires,
        policies: &policies,
        produces: &produces,
        serial: true,
        since: now,
        until: now.after(within),
    };
    let unmet = facts::note(place, namespace, &note).await?;
    if let Some(serial) = serial {
        keys::enter_last(place, namespace, &serial.name, run, now).await?;
    }
    commit!("sequence_restore", transaction.commit().await)?;
    drop(connection);
    let met = requires.into_iter().filter(|one| !unmet.contains(one));
    tell::unhold(node, met.map(|one| (run, one)).collect()).await.map(drop)
}

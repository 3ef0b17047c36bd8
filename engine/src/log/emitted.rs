//! Appends events that runs emitted to the log.
//!
//! The events of a record are written to a queue together with it. They are appended like others, under a key made of
//! the run, the record and the place in it, and then deleted from the queue. If a node dies in between, they stay in
//! the queue, and the appended ones are found by their keys.

use std::sync::Arc;

use backstitch_integration::events::{Door, MAX_HOPS, Op, Trust};
use backstitch_saga::{Payload, Violation};
use tokio::task::JoinSet;

use super::accepted::{DOOR, plain};
use super::draft::{EventDraft, Named};
use crate::Error;
use crate::background::{BackgroundTask, once};
use crate::crash::commit;
use crate::executor::outgoing::{Outgoing, shortened};
use crate::node::Node;
use crate::store::log::{self as table, EmittedRow};

/// Amount of a namespace's events that is taken together: number, and approximate bytes.
const AT_ONCE: (i64, i64) = (500, 1024 * 1024);
/// Largest number of turns of a namespace before a caller that waits for its emitted events gets the answer that not
/// all are in the log.
const SETTLE: usize = 200;
/// The label of an event that is not as it was to be, with the reason.
const EMIT_ERROR: &str = "emit_error";

/// Takes events when a run here has emitted some, and now and then, since those of other nodes may have been left.
pub(crate) async fn serve(node: Arc<Node>) {
    let every = node.options.tuning.log_every;
    loop {
        // Woken or not, it looks for waiting events.
        let _ = tokio::time::timeout(every, node.log.emitted.notified()).await;
        match once(&node, BackgroundTask::Emit).await {
            Ok(0) => {}
            // A constant flow of events is taken together.
            Ok(_) => tokio::time::sleep(super::BREATH).await,
            Err(error) => {
                tracing::warn!(%error, "taking what runs emitted to the log failed and is tried again");
                tokio::time::sleep(every).await;
            }
        }
    }
}

/// Takes all emitted events, concurrently for namespaces. Returns their number.
pub(crate) async fn take(node: &Arc<Node>) -> Result<usize, Error> {
    let (mut taken, mut before) = (0, 0);
    let mut after = String::new();
    loop {
        let mut connection = node.database.keepers.acquire().await?;
        let found = table::emitted_due(&mut connection, &after).await?;
        // The connection is not kept while events are appended.
        drop(connection);
        let mut under_way = JoinSet::new();
        for namespace in found.rows {
            let node = Arc::clone(node);
            under_way.spawn(async move { take_of(&node, &namespace.into()).await });
        }
        let mut failed = None;
        while let Some(done) = under_way.join_next().await {
            match done {
                Ok(Ok((count, _))) => taken += count,
                Ok(Err(error)) => failed = Some(error),
                Err(error) => failed = Some(Error::Bug(format!("taking emitted events: {error}"))),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        after = match found.last {
            Some(last) => last,
            None if taken > before => {
                before = taken;
                String::new()
            }
            None => return Ok(taken),
        };
    }
}

/// Takes all events that runs of a namespace have emitted until now. Returns whether they are in the log; if not, there
/// are too many to wait for.
pub(crate) async fn settle(node: &Arc<Node>, namespace: &Arc<str>) -> Result<bool, Error> {
    let mut connection = node.database.keepers.acquire().await?;
    let last = table::last_emitted(&mut connection, namespace).await?;
    drop(connection);
    let Some(last) = last else { return Ok(true) };
    for _ in 0..SETTLE {
        match take_of(node, namespace).await?.1 {
            Some(upto) if upto < last => {}
            _ => return Ok(true),
        }
    }
    Ok(false)
}

/// Returns the source of the keys of what runs emit.
pub(crate) fn key_source() -> String {
    format!("{DOOR}run")
}

/// Takes the first events of a namespace, in the order in which they were emitted. Returns their number, and the last
/// of them.
async fn take_of(node: &Arc<Node>, namespace: &Arc<str>) -> Result<(usize, Option<i64>), Error> {
    let mut connection = node.database.keepers.acquire().await?;
    let rows = table::first_emitted(&mut connection, namespace, AT_ONCE).await?;
    drop(connection);
    let last = rows.last().map(|row| row.id);
    let (mut drafts, mut ids) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    for row in &rows {
        match draft(row, Ok(())) {
            Ok(draft) => {
                drafts.push(draft);
                ids.push(row.id);
            }
            // It stays, is reported, and delays no other.
            Err(error) => node.log.tell_of_damage(row.id, &error),
        }
    }
    match append(node, namespace, drafts).await {
        Ok(()) => {}
        Err(error) if !is_refusal(&error) => return Err(error),
        // One of them cannot be appended as it is: each is tried separately, in order.
        Err(_) => {
            for row in rows.iter().filter(|row| ids.contains(&row.id)) {
                one(node, namespace, row).await?;
            }
        }
    }
    if ids.is_empty() {
        return Ok((0, last));
    }
    let mut connection = node.database.keepers.acquire().await?;
    commit!("emitted_taken", table::taken(&mut connection, namespace, &ids).await)?;
    Ok((ids.len(), last))
}

async fn one(node: &Node, namespace: &Arc<str>, row: &EmittedRow) -> Result<(), Error> {
    let Err(why) = append(node, namespace, vec![draft(row, Ok(()))?]).await else { return Ok(()) };
    match why {
        why if !is_refusal(&why) => return Err(why),
        // It is in the log, without what could not be.
        Error::Conflict { code: "event_id_reused", .. } => return Ok(()),
        _ => {}
    }
    tracing::warn!(run = %row.run, %why, "an event of a run is appended without what cannot be");
    append(node, namespace, vec![draft(row, Err(&why))?]).await
}

async fn append(node: &Node, namespace: &Arc<str>, drafts: Vec<EventDraft>) -> Result<(), Error> {
    if drafts.is_empty() {
        return Ok(());
    }
    let answered = node.log.submit(namespace, drafts)?;
    let lost = |_| Error::Store("the log's executor is gone".to_owned());
    answered.await.map_err(lost)?.map(drop)
}

/// Returns whether the events themselves are at fault.
fn is_refusal(error: &Error) -> bool {
    !matches!(error, Error::Busy | Error::Store(_))
}

/// Returns the event of a row. One that cannot follow from its cause is the end of its chain; one with another fault
/// has no data.
fn draft(row: &EmittedRow, fault: Result<(), &Error>) -> Result<EventDraft, Error> {
    let damaged = |why: String| {
        Error::Store(format!("an event that run {} emitted is damaged: {why}", row.run))
    };
    let told: Outgoing<'_> =
        serde_json::from_str(&row.event).map_err(|error| damaged(error.to_string()))?;
    let mut body =
        Payload::trusted(row.data.clone()).map_err(|error| damaged(error.to_string()))?;
    let source = format!("workflow/{}", told.workflow);
    let door = Door { source, ceiling: Trust::Authenticated, achieved: Trust::Authenticated };
    let mut envelope = plain(&door);
    envelope.event_type = told.event_type.into_owned();
    envelope.stream = told.stream.map(String::from);
    envelope.contract = told.contract.map(String::from);
    envelope.op = told.op.and_then(|letter| Op::of(&letter));
    envelope.occurred_at = Some(row.at.to_string());
    envelope.correlation_id = Some(told.correlation_id.into_owned());
    envelope.causation_id = told.causation_id.map(String::from);
    envelope.labels =
        told.labels.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    match fault {
        Ok(()) => {}
        Err(Error::Invalid { code: "propagation_loop", .. }) => {
            envelope.causation_id = None;
            envelope.hops = MAX_HOPS;
            envelope.labels.insert(EMIT_ERROR.to_owned(), "propagation_loop".to_owned());
        }
        Err(why) => {
            (envelope.stream, envelope.contract, envelope.op) = (None, None, None);
            body = Payload::null();
            envelope.labels.insert(EMIT_ERROR.to_owned(), shortened(&why.to_string()));
        }
    }
    let named = Named { claimed_source: None, source_id: None };
    let mut draft = EventDraft::of_envelope(envelope, named, body, None)
        .map_err(|Violation { message, .. }| damaged(message))?;
    let place = format!("{}/{}/{}", row.run, row.seq, row.place);
    draft.draft.key = Some((key_source(), place));
    Ok(draft)
}

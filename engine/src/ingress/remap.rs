//! Maps documents that were accepted once more.

use std::sync::Arc;

use backstitch_integration::ingress::{Rejected, Sender};

use super::again::{Again, Mode};
use super::arrival::Arrival;
use super::doors::OpenSource;
use super::kept;
use super::mapping::{self, EdgeName, Made};
use crate::log::{EventDraft, MappedEvent};
use crate::store::intake::{IntakeRow, Mapping, NewIntake};
use crate::store::log::newest_of_stream;
use crate::{Engine, Error};

impl Engine {
    /// Maps a document that was accepted once more.
    pub(super) async fn map_again(
        &self,
        open: &Arc<OpenSource>,
        arrival: Arc<Arrival>,
        row: &IntakeRow,
        (edge, sender): (EdgeName, Sender),
        mode: Mode,
    ) -> Result<Again, Error> {
        let claimed = (edge.0.as_str(), edge.1);
        let transforms = self.transforms_of(open, std::iter::once(claimed)).await?;
        let (in_batch, count) = (row.door != "request", row.mappings.saturating_add(1));
        let (held_open, read_from, to) = (Arc::clone(open), Arc::clone(&arrival), edge.clone());
        let mapped = self
            .apart(open.namespace(), move || {
                let rules = held_open.rules();
                let document = if in_batch {
                    rules.read_record(&read_from.body, &sender)?
                } else {
                    rules.read(&read_from.body, &sender)?
                };
                let bounds = (count, held_open.largest);
                let mapped = mapping::map(to, document.value(), &transforms, bounds)?;
                Ok::<_, Box<Rejected>>((mapped, document.occurred_at()))
            })
            .await?;
        let again = kept::again(open, &arrival, row, (&sender, self.node().clock.now()));
        let new = NewIntake { contract: row.contract.clone(), event: row.event, ..again };
        let ((mapping, made), occurred_at) = match mapped {
            Ok(mapped) => mapped,
            // A document that is an event is not refused any more; what a rule says of it is kept.
            Err(rejected) => {
                let failures = serde_json::to_string(&rejected.violations).ok();
                ((mapping::failed(&edge, failures, row.mappings), None), None)
            }
        };
        let Some(made) = made else {
            let as_before =
                row.mapping.as_deref() == Some("failed") && row.mapped_revision == mapping.revision;
            return self.settle(open, new, (mapping, as_before, Again::Failed), mode).await;
        };
        if row.mapped_digest.as_deref() == Some(&made.digest[..]) {
            let mapping = Mapping { count: row.mappings, ..mapping };
            let as_before = row.mapping.as_deref() == Some("mapped");
            return self.settle(open, new, (mapping, as_before, Again::Same), mode).await;
        }
        let Ok(version) = self.newest(open, row, made.stream.as_deref()).await? else {
            let mapping = overtaken(mapping, row.mappings);
            let as_before = row.mapping.as_deref() == Some("overtaken");
            return self.settle(open, new, (mapping, as_before, Again::Overtaken), mode).await;
        };
        if mode == Mode::DryRun {
            return Ok(Again::Changed);
        }
        let new = NewIntake { mapped: Some(mapping), reprocess: mode.reprocess(), ..new };
        let mut draft = superseding(open, row, (&made, occurred_at), sender, (new, count))?;
        draft.expect(version);
        match self.append_events(open.namespace(), vec![draft]).await {
            Ok(_) => Ok(Again::Changed),
            // Another node has mapped it in between, by another transform, or another document of its entity.
            Err(Error::Conflict { code: "event_id_reused", .. } | Error::StreamVersion { .. }) => {
                Err(Error::Busy)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes the result of a document that became no event, unless it is unchanged.
    async fn settle(
        &self,
        open: &OpenSource,
        new: NewIntake,
        (mapping, as_before, again): (Mapping, bool, Again),
        mode: Mode,
    ) -> Result<Again, Error> {
        if mode.writes(as_before) {
            self.amend(open, NewIntake { mapped: Some(mapping), ..new }).await?;
        }
        Ok(again)
    }

    /// Returns the version of the stream of what a document is mapped to, if it is the newest document of the entity;
    /// `Err` when a newer one was mapped. `None` when there is no stream.
    pub(super) async fn newest(
        &self,
        open: &OpenSource,
        row: &IntakeRow,
        stream: Option<&str>,
    ) -> Result<Result<Option<u64>, ()>, Error> {
        let Some(stream) = stream else { return Ok(Ok(None)) };
        let mut connection = self.node().database.reader(open.namespace()).await?;
        let head = newest_of_stream(&mut connection, open.namespace(), stream).await?;
        Ok(match head {
            Some(head)
                if head.newest.is_some_and(|(event, at)| {
                    Some(event) != row.mapped_event && at > row.received_at
                }) =>
            {
                Err(())
            }
            Some(head) => Ok(Some(head.version.unsigned_abs())),
            None => Ok(Some(0)),
        })
    }
}

/// Returns the row of a document for whose entity a newer one was mapped.
pub(super) fn overtaken(mapping: Mapping, count: i32) -> Mapping {
    Mapping { state: "overtaken", event: None, digest: None, count, failures: None, ..mapping }
}

/// Returns the event of a document that is mapped otherwise than before.
fn superseding(
    open: &OpenSource,
    row: &IntakeRow,
    (made, occurred_at): (&Made, Option<String>),
    sender: Sender,
    (new, count): (NewIntake, i32),
) -> Result<EventDraft, Error> {
    let event = MappedEvent {
        cause: row.event.map(|id| id.to_string()),
        supersedes: row.mapped_event.map(|id| id.to_string()),
        ..made.event(sender.trust, occurred_at)
    };
    let draft = EventDraft::of_mapped(open.name(), event, &mapping::key(row.id, count));
    let draft = draft.map_err(|violations| Error::Invalid { code: "invalid_event", violations })?;
    Ok(draft.with_intake(new))
}

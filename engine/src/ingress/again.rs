//! Processes a document that was refused once more, after what was wrong with its contract or its source was mended.

use std::collections::BTreeMap;
use std::sync::Arc;

use backstitch_integration::ingress::{Form, Headers, Rejected, Sender};
use backstitch_saga::By;
use backstitch_saga::protocol::{IntakeVerdict, IntakeView};
use uuid::Uuid;

use super::arrival::Arrival;
use super::doors::OpenSource;
use super::mapping::{self, EdgeName, Made};
use super::reads::view;
use super::ready::{claim_of, drafts_of, held, reused};
use super::{kept, unknown_source};
use crate::acts::must_have_reason;
use crate::crash::commit;
use crate::log::{EventDraft, MappedEvent, trust_of};
use crate::store::acts::{self, Act, Thing};
use crate::store::intake::{self as table, IntakeRow, Intakes, Mapping, NewIntake};
use crate::{Engine, Error};

impl Engine {
    /// Processes a document once more, by its source, contract and transform as they are now. It keeps when it was received and
    /// how its sender was verified. One that was accepted stays an event as it is, and is mapped again if its source says to what:
    /// another event is appended only if the result differs.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Refused`] without a reason; [`Error::Busy`]; [`Error::Store`].
    pub async fn reprocess_intake(
        &self,
        namespace: &str,
        id: Uuid,
        by: &By,
    ) -> Result<IntakeView, Error> {
        must_have_reason(by)?;
        let row = self.intake_row(namespace, id).await?;
        // What was mended a moment ago counts.
        self.node().doors.forget(namespace, &row.source);
        let found = self.open_source(namespace, &row.source).await?;
        let open = found.ok_or_else(|| unknown_source(&row.source))?;
        let raw = self.raw_of(namespace, id).await?;
        let headers: BTreeMap<String, String> = row
            .headers
            .as_deref()
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        let arrival = Arrival {
            headers: headers.into_iter().map(|(name, text)| (name, text.into_bytes())).collect(),
            body: raw,
            at: row.received_at,
            peer: row.peer.clone(),
            request_id: row.request_id.clone(),
        };
        let trust = trust_of(row.trust).min(open.ceiling());
        let sender = Sender::of_before(trust, Form::of(&row.form));
        let was_accepted = view(row.clone()).verdict == IntakeVerdict::Accepted;
        let edge = edge_of(&open, row.contract.as_deref());
        if was_accepted && edge.is_none() {
            return Ok(view(row));
        }
        self.note_again(namespace, &row, by).await?;
        match edge.filter(|_| was_accepted) {
            Some(edge) => self.map_again(&open, Arc::new(arrival), &row, (edge, sender)).await?,
            None => self.again(&open, Arc::new(arrival), &row, sender).await?,
        }
        self.intake(namespace, id).await
    }

    async fn note_again(&self, namespace: &str, row: &IntakeRow, by: &By) -> Result<(), Error> {
        let act = Act {
            namespace,
            thing: Thing::Source,
            name: &row.source,
            at: self.node().clock.now(),
            verb: "reprocess",
            by,
            detail: Some(format!(r#"{{"intake":"{}"}}"#, row.id)),
        };
        let mut connection = self.node().database.actor(namespace).await?;
        Ok(commit!("intake_note", acts::add(&mut connection, &act).await)?)
    }

    async fn again(
        &self,
        open: &Arc<OpenSource>,
        arrival: Arc<Arrival>,
        row: &IntakeRow,
        sender: Sender,
    ) -> Result<(), Error> {
        let in_batch = row.door != "request";
        let new = kept::again(open, &arrival, row, (&sender, self.node().clock.now()));
        let (held_open, read_from) = (Arc::clone(open), Arc::clone(&arrival));
        let claimed = self
            .apart(open.namespace(), move || {
                let pairs = read_from.pairs();
                let rules = held_open.rules();
                let read = if in_batch {
                    rules.read_record(&read_from.body, &sender)
                } else {
                    rules.read(&read_from.body, &sender)
                };
                claim_of(&held_open, &Headers::new(&pairs), read?)
            })
            .await?;
        let claimed = match claimed {
            Ok(claimed) => claimed,
            Err(rejected) => return self.refuse_again(open, new, &rejected).await,
        };
        let schemas = self.schemas_of(open, std::iter::once(&claimed.1)).await?;
        let (held_open, held_from) = (Arc::clone(open), Arc::clone(&arrival));
        let accepted = self
            .apart(open.namespace(), move || {
                let pairs = held_from.pairs();
                held(&held_open, &Headers::new(&pairs), claimed, &sender, &schemas)
            })
            .await?;
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(rejected) => return self.refuse_again(open, new, &rejected).await,
        };
        let claimed = (accepted.contract.as_str(), accepted.version);
        let transforms = self.transforms_of(open, std::iter::once(claimed)).await?;
        let drafts = match drafts_of(open, &accepted, &transforms, new.clone()) {
            Ok(drafts) => drafts,
            Err((_, intake)) => return self.keep_refused(open, std::iter::once(*intake)).await,
        };
        let contract = format!("{}@{}", accepted.contract, accepted.version);
        match self.append_events(open.namespace(), drafts).await {
            Ok(receipts) => match receipts.first() {
                // Its event was there: only what is known of the document is left to be written.
                Some(receipt) if receipt.repeated => {
                    let (event, contract) = (Some(receipt.id), Some(contract));
                    self.amend(open, NewIntake { event, contract, ..new }).await
                }
                _ => Ok(()),
            },
            Err(Error::Conflict { code: "event_id_reused", .. }) => {
                self.refuse_again(open, new, &reused()).await
            }
            Err(error) => Err(error),
        }
    }

    /// Writes what is known of a document that is there already.
    async fn amend(&self, open: &OpenSource, new: NewIntake) -> Result<(), Error> {
        let mut intakes = Intakes::default();
        intakes.push(new);
        let mut connection = self.node().database.actor(open.namespace()).await?;
        commit!("intake_accept", table::write(&mut connection, &intakes).await)?;
        Ok(())
    }

    /// Maps a document that was accepted once more.
    async fn map_again(
        &self,
        open: &Arc<OpenSource>,
        arrival: Arc<Arrival>,
        row: &IntakeRow,
        (edge, sender): (EdgeName, Sender),
    ) -> Result<(), Error> {
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
                let mapping = mapping::failed(&edge, failures, row.mappings);
                return self.amend(open, NewIntake { mapped: Some(mapping), ..new }).await;
            }
        };
        let Some(made) = made else {
            return self.amend(open, NewIntake { mapped: Some(mapping), ..new }).await;
        };
        let new = NewIntake { mapped: Some(mapping), ..new };
        if row.mapped_digest.as_deref() == Some(&made.digest[..]) {
            let mapped = new.mapped.map(|mapped| Mapping { count: row.mappings, ..mapped });
            return self.amend(open, NewIntake { mapped, ..new }).await;
        }
        let draft = superseding(open, row, (&made, occurred_at), sender, (new, count))?;
        match self.append_events(open.namespace(), vec![draft]).await {
            Ok(_) => Ok(()),
            // Somebody else has mapped it meanwhile, by another transform.
            Err(Error::Conflict { code: "event_id_reused", .. }) => Err(Error::Busy),
            Err(error) => Err(error),
        }
    }

    async fn refuse_again(
        &self,
        open: &OpenSource,
        new: NewIntake,
        rejected: &Rejected,
    ) -> Result<(), Error> {
        self.keep_refused(open, std::iter::once(kept::refused(new, rejected))).await
    }
}

/// The contract that a document follows, and the one that it is mapped to.
fn edge_of(open: &OpenSource, contract: Option<&str>) -> Option<EdgeName> {
    let (subject, version) = contract?.split_once('@')?;
    Some((subject.to_owned(), version.parse().ok()?, open.target(subject)?))
}

/// The event of a document that is mapped otherwise than before.
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

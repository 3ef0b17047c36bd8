//! Processes documents once more, after what was wrong with their contract, their source or their transform was mended.

use std::collections::BTreeMap;
use std::sync::Arc;

use backstitch_integration::ingress::{Form, Headers, Rejected, Sender};
use backstitch_saga::By;
use backstitch_saga::protocol::IntakeView;
use uuid::Uuid;

use super::arrival::Arrival;
use super::doors::OpenSource;
use super::mapping::EdgeName;
use super::ready::{claim_of, drafts_of, held, reused};
use super::remap::overtaken;
use super::{kept, unknown_source};
use crate::acts::must_have_reason;
use crate::crash::commit;
use crate::log::{EventDraft, trust_of};
use crate::store::acts::{self, Act, Thing};
use crate::store::intake::{self as table, IntakeRow, Intakes, NewIntake};
use crate::{Engine, Error};

/// Mode of processing documents again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// One, by a person who sees the result.
    One,
    /// As one of many, by a reprocessing: what is as it was is not written.
    Many(Uuid),
    /// Nothing is written.
    DryRun,
}

impl Mode {
    /// Returns the reprocessing that events are appended by.
    pub(super) fn reprocess(self) -> Option<Uuid> {
        match self {
            Mode::Many(id) => Some(id),
            Mode::One | Mode::DryRun => None,
        }
    }

    /// Returns whether the result of a document that became no other event is written, if it is or is not as before.
    pub(super) fn writes(self, is_as_before: bool) -> bool {
        match self {
            Mode::One => true,
            Mode::Many(_) => !is_as_before,
            Mode::DryRun => false,
        }
    }
}

/// Result for a document that was processed again, or would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// Another event was appended.
    Changed,
    /// It is as it was.
    Same,
    /// It cannot be mapped.
    Failed,
    /// It is refused still.
    Refused,
    /// A newer document of its entity was mapped since.
    Overtaken,
}

impl Engine {
    /// Processes a document once more, by its present source, contract and transform. It keeps the time of its arrival
    /// and the result of its verification. An accepted document stays an event as it is, and is mapped again if its
    /// source has a target: another event is appended only if the result differs, and only while no newer document of
    /// its entity was mapped.
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
        // A correction of a moment ago counts.
        self.node().doors.forget(namespace, &row.source);
        let found = self.open_source(namespace, &row.source).await?;
        let open = found.ok_or_else(|| unknown_source(&row.source))?;
        let raw = self.raw_of(namespace, id).await?;
        if row.verdict != "accepted" || edge_of(&open, row.contract.as_deref()).is_some() {
            self.note_again(namespace, &row, by).await?;
            self.process_again(&open, &row, raw, Mode::One).await?;
        }
        self.intake(namespace, id).await
    }

    /// Processes a document that was accepted or refused once more.
    pub(super) async fn process_again(
        &self,
        open: &Arc<OpenSource>,
        row: &IntakeRow,
        raw: Vec<u8>,
        mode: Mode,
    ) -> Result<Again, Error> {
        let headers: BTreeMap<String, String> = row
            .headers
            .as_deref()
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        let arrival = Arc::new(Arrival {
            headers: headers.into_iter().map(|(name, text)| (name, text.into_bytes())).collect(),
            body: raw,
            at: row.received_at,
            peer: row.peer.clone(),
            request_id: row.request_id.clone(),
        });
        let trust = trust_of(row.trust).min(open.ceiling());
        let sender = Sender::of_before(trust, Form::of(&row.form));
        if row.verdict != "accepted" {
            return self.again(open, arrival, row, (sender, mode)).await;
        }
        match edge_of(open, row.contract.as_deref()) {
            Some(edge) => self.map_again(open, arrival, row, (edge, sender), mode).await,
            None => Ok(Again::Same),
        }
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
        (sender, mode): (Sender, Mode),
    ) -> Result<Again, Error> {
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
            Err(rejected) => {
                return self.refuse_again(open, row, (new, &rejected), mode).await;
            }
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
            Err(rejected) => {
                return self.refuse_again(open, row, (new, &rejected), mode).await;
            }
        };
        let claimed = (accepted.contract.as_str(), accepted.version);
        let transforms = self.transforms_of(open, std::iter::once(claimed)).await?;
        let marked = NewIntake { reprocess: mode.reprocess(), ..new.clone() };
        let mut drafts = match drafts_of(open, &accepted, &transforms, marked) {
            Ok(drafts) => drafts,
            Err((rejected, _)) => {
                return self.refuse_again(open, row, (new, &rejected), mode).await;
            }
        };
        if mode == Mode::DryRun {
            return Ok(Again::Changed);
        }
        self.keep_newer(open, row, &mut drafts).await?;
        let contract = format!("{}@{}", accepted.contract, accepted.version);
        match self.append_events(open.namespace(), drafts).await {
            Ok(receipts) => match receipts.first() {
                // Its event was there: only what is known of the document is left to be written.
                Some(receipt) if receipt.repeated => {
                    let (event, contract) = (Some(receipt.id), Some(contract));
                    self.amend(open, NewIntake { event, contract, ..new }).await?;
                    Ok(Again::Same)
                }
                _ => Ok(Again::Changed),
            },
            // Another document of the entity was mapped in between.
            Err(Error::StreamVersion { .. }) => Err(Error::Busy),
            Err(Error::Conflict { code: "event_id_reused", .. }) => {
                self.refuse_again(open, row, (new, &reused()), mode).await
            }
            Err(error) => Err(error),
        }
    }

    /// Takes the event of a mapping back that would set its entity back behind a newer document.
    async fn keep_newer(
        &self,
        open: &OpenSource,
        row: &IntakeRow,
        drafts: &mut Vec<EventDraft>,
    ) -> Result<(), Error> {
        if let Some(mapped) = drafts.get_mut(1) {
            match self.newest(open, row, mapped.stream()).await? {
                Ok(version) => mapped.expect(version),
                Err(()) => {
                    drafts.truncate(1);
                    let mapped = drafts.first_mut().and_then(EventDraft::mapping);
                    mapped.into_iter().for_each(|one| *one = overtaken(one.clone(), 0));
                }
            }
        }
        Ok(())
    }

    /// Writes the result of an existing document.
    pub(super) async fn amend(&self, open: &OpenSource, new: NewIntake) -> Result<(), Error> {
        let mut intakes = Intakes::default();
        intakes.push(new);
        let mut connection = self.node().database.actor(open.namespace()).await?;
        commit!("intake_accept", table::write(&mut connection, &intakes).await)?;
        Ok(())
    }

    async fn refuse_again(
        &self,
        open: &OpenSource,
        row: &IntakeRow,
        (new, rejected): (NewIntake, &Rejected),
        mode: Mode,
    ) -> Result<Again, Error> {
        let is_as_before = row.code.as_deref() == Some(rejected.code);
        if mode.writes(is_as_before) {
            self.keep_refused(open, std::iter::once(kept::refused(new, rejected))).await?;
        }
        Ok(Again::Refused)
    }
}

/// Returns the contract that a document follows, and the one that it is mapped to.
fn edge_of(open: &OpenSource, contract: Option<&str>) -> Option<EdgeName> {
    let (subject, version) = contract?.split_once('@')?;
    Some((subject.to_owned(), version.parse().ok()?, open.target(subject)?))
}

//! Processes a document that was refused once more, after what was wrong with its contract or its source was mended.

use std::collections::BTreeMap;
use std::sync::Arc;

use backstitch_integration::ingress::{Headers, Rejected, Sender};
use backstitch_saga::By;
use backstitch_saga::protocol::{IntakeVerdict, IntakeView};
use uuid::Uuid;

use super::arrival::Arrival;
use super::doors::OpenSource;
use super::reads::view;
use super::take::{claim_of, draft_of, held, reused};
use super::{kept, unknown_source};
use crate::acts::must_have_reason;
use crate::crash::commit;
use crate::log::trust_of;
use crate::store::acts::{self, Act, Thing};
use crate::store::intake::{self as table, IntakeRow, Intakes, NewIntake};
use crate::{Engine, Error};

impl Engine {
    /// Processes a document that was refused once more, by its source and contract as they are now. It keeps when it was received
    /// and how its sender was verified. One that was accepted is answered as it stands.
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
        if view(row.clone()).verdict == IntakeVerdict::Accepted {
            return Ok(view(row));
        }
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
        let sender =
            Sender::of_before(trust_of(row.trust).min(open.ceiling()), row.form == "cloudevent");
        self.note_again(namespace, &row, by).await?;
        self.again(&open, Arc::new(arrival), &row, sender).await?;
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
        let in_batch = row.door == "batch";
        let now = self.node().clock.now();
        let new = kept::new(
            open,
            &arrival,
            row.id,
            Vec::new(),
            (sender.sends_events(), in_batch),
            sender.trust,
        );
        let new = kept::again(new, now);
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
        let draft = match draft_of(open, &accepted, new.clone()) {
            Ok(draft) => draft,
            Err((_, intake)) => return self.keep_refused(open, std::iter::once(*intake)).await,
        };
        let contract = format!("{}@{}", accepted.contract, accepted.version);
        match self.append_events(open.namespace(), vec![draft]).await {
            Ok(receipts) => match receipts.first() {
                // Its event was there: only what is known of the document is left to be written.
                Some(receipt) if receipt.repeated => {
                    let (event, contract) = (Some(receipt.id), Some(contract));
                    let mut intakes = Intakes::default();
                    intakes.push(NewIntake { event, contract, ..new });
                    let mut connection = self.node().database.actor(open.namespace()).await?;
                    commit!("intake_accept", table::write(&mut connection, &intakes).await)?;
                    Ok(())
                }
                _ => Ok(()),
            },
            Err(Error::Conflict { code: "event_id_reused", .. }) => {
                self.refuse_again(open, new, &reused()).await
            }
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

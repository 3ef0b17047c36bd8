//! Takes documents in: reads them, holds them to their contracts, and appends them to the log, or keeps them as
//! refused.

use std::collections::HashMap;
use std::sync::Arc;

use backstitch_integration::ingress::{Claim, Document, Headers, Rejected, Sender};
use backstitch_saga::Time;
use backstitch_saga::protocol::{EventReceipt, IntakeReceipt};
use futures::future::join_all;
use uuid::Uuid;

use super::arrival::{Arrival, RefusedIntake, Taken};
use super::doors::OpenSource;
use super::kept;
use super::ready::{
    Claimed, Read, Ready, SchemasOf, all_refused, claimed, held_back, ready, reused,
};
use crate::crash::commit;
use crate::log::EventDraft;
use crate::store::intake::{self as table, Intakes, NewIntake};
use crate::{Engine, Error};

/// Requests of more bytes are read on threads apart from those that serve.
const LONG: usize = 64 * 1024;

impl Engine {
    /// Returns the time of the engine, at which a request has come.
    #[must_use]
    pub fn now(&self) -> Time {
        self.node().clock.now()
    }

    /// Counts a request whose sender was not verified: nothing else is kept of it.
    pub fn count_unverified(&self) {
        self.node().counters.intake_unverified.one();
    }

    /// Takes in the document of a request whose sender was verified.
    ///
    /// # Errors
    /// [`Error::Busy`]; [`Error::Store`]: whether it was taken in is not known, and it may be sent again.
    pub async fn take_in(
        &self,
        open: &Arc<OpenSource>,
        arrival: Arc<Arrival>,
        sender: Sender,
    ) -> Result<Taken, Error> {
        let read = self
            .on_documents(open, &arrival, move |open, arrival| {
                let found = open.rules().read(&arrival.body, &sender);
                vec![Read { raw: arrival.body.clone(), found }]
            })
            .await?;
        let way = (Way::ByItself, self.new_ids(1));
        let mut taken = self.take_each(open, arrival, sender, read, way).await?;
        let missing = || Err(Error::Bug("a document was neither taken nor refused".to_owned()));
        taken.pop().unwrap_or_else(missing)
    }

    /// Splits a batch of a sender that was verified into its records, and reads them.
    ///
    /// # Errors
    /// The mistakes of the batch as a whole, within; [`Error::Busy`].
    pub async fn read_batch(
        &self,
        open: &Arc<OpenSource>,
        arrival: &Arc<Arrival>,
        sender: Sender,
    ) -> Result<Result<BatchRead, Box<Rejected>>, Error> {
        let read = move |open: &OpenSource, arrival: &Arrival| {
            let records = open.rules().read_batch(&arrival.body, &sender)?;
            let of = |(raw, found): (&[u8], _)| Read { raw: raw.to_vec(), found };
            Ok(BatchRead(records.into_iter().map(of).collect()))
        };
        self.on_documents(open, arrival, read).await
    }

    /// Takes in the records of a batch, each by itself, or if `atomic` all or none: then nothing is appended if one is
    /// refused.
    ///
    /// # Errors
    /// [`Error::Busy`]; [`Error::Store`]: whether they were taken in is not known, and they may be sent again.
    pub async fn take_batch(
        &self,
        open: &Arc<OpenSource>,
        arrival: Arc<Arrival>,
        sender: Sender,
        batch: BatchRead,
        atomic: bool,
    ) -> Result<Vec<Result<Taken, Error>>, Error> {
        let way = if atomic { Way::AllOrNone } else { Way::OneByOne };
        let ids = self.new_ids(batch.count());
        self.take_each(open, arrival, sender, batch.0, (way, ids)).await
    }

    /// Returns ids for documents that came now.
    fn new_ids(&self, count: usize) -> Vec<Uuid> {
        (0..count).map(|_| self.node().clock.new_run().0).collect()
    }

    /// Takes in records that were read, each under an id of its own.
    pub(super) async fn take_each(
        &self,
        open: &Arc<OpenSource>,
        arrival: Arc<Arrival>,
        sender: Sender,
        read: Vec<Read<Document>>,
        (way, ids): (Way, Vec<Uuid>),
    ) -> Result<Vec<Result<Taken, Error>>, Error> {
        let claimed = claimed(open, &arrival, read);
        let claims = claimed.iter().filter_map(|one| Some(&one.found.as_ref().ok()?.1));
        let schemas = self.schemas_of(open, claims).await?;
        let claims = claimed.iter().filter_map(|one| Some(&one.found.as_ref().ok()?.1));
        let contracts = claims.map(|claim| (claim.contract.as_str(), claim.version));
        let transforms = self.transforms_of(open, contracts).await?;
        let ready = self
            .on_documents(open, &arrival, move |open, arrival| {
                let pairs = arrival.pairs();
                let headers = Headers::new(&pairs);
                let one = |(read, id): (Read<Claimed>, Uuid)| {
                    let new = kept::new(open, arrival, id, read.raw, way.door(), &sender);
                    ready(open, &headers, read.found, &sender, (&schemas, &transforms), new)
                };
                claimed.into_iter().zip(ids).map(one).collect::<Vec<_>>()
            })
            .await?;
        self.write(open, ready, way).await
    }

    /// Finds the schemas of contracts that documents claim.
    pub(super) async fn schemas_of<'c>(
        &self,
        open: &OpenSource,
        claims: impl Iterator<Item = &'c Claim>,
    ) -> Result<SchemasOf, Error> {
        let mut wanted: Vec<(String, u32)> =
            claims.map(|claim| (claim.contract.clone(), claim.version)).collect();
        wanted.sort();
        wanted.dedup();
        let mut schemas = SchemasOf::new();
        for (subject, version) in wanted {
            let schema = self.door_schema(open.namespace(), &subject, version).await?;
            schemas.insert((subject, version), schema);
        }
        Ok(schemas)
    }

    /// Does work on the documents of a request: on large ones apart from those who serve requests.
    pub(super) async fn on_documents<T: Send + 'static>(
        &self,
        open: &Arc<OpenSource>,
        arrival: &Arc<Arrival>,
        work: impl FnOnce(&OpenSource, &Arrival) -> T + Send + 'static,
    ) -> Result<T, Error> {
        if arrival.body.len() <= LONG {
            return Ok(work(open, arrival));
        }
        let (held, arrival) = (Arc::clone(open), Arc::clone(arrival));
        self.apart(open.namespace(), move || work(&held, &arrival)).await
    }

    /// Appends what was accepted, and keeps what was refused.
    async fn write(
        &self,
        open: &OpenSource,
        ready: Vec<Ready>,
        way: Way,
    ) -> Result<Vec<Result<Taken, Error>>, Error> {
        let refusals = ready.iter().any(|one| matches!(one, Ready::Refused(..)));
        let (mut records, mut places, mut deprecated) = (Vec::new(), Vec::new(), HashMap::new());
        let mut answers: Vec<Option<Result<Taken, Error>>> = ready.iter().map(|_| None).collect();
        let mut refused = Vec::new();
        for (place, one) in ready.into_iter().enumerate() {
            match one {
                Ready::Events(drafts, old) => {
                    deprecated.insert(place, old);
                    records.push(drafts);
                    places.push(place);
                }
                Ready::Refused(rejected, intake) => refused.push((place, rejected, intake)),
            }
        }
        let appended: Vec<Appended> = match way {
            Way::AllOrNone if refusals => {
                places.iter().for_each(|place| answers[*place] = Some(Ok(held_back())));
                places.clear();
                Vec::new()
            }
            Way::AllOrNone => match self.append_together(open, records).await {
                Ok(appended) => appended,
                // The message names it.
                Err(Error::Conflict { code: "event_id_reused", message }) => {
                    return Ok(all_refused(answers.len(), &message));
                }
                Err(error) => return Err(error),
            },
            Way::ByItself | Way::OneByOne | Way::File => {
                let asks = records.into_iter().map(async |drafts| {
                    let intake = drafts.first().and_then(EventDraft::document);
                    let done = self.append_events(open.namespace(), drafts).await;
                    (intake, done.and_then(|receipts| first(receipts, 0)))
                });
                join_all(asks).await
            }
        };
        let firsts = self.firsts(open, &appended).await?;
        for (place, (intake, done)) in places.into_iter().zip(appended) {
            let Some(intake) = intake else { continue };
            answers[place] = match done {
                Ok(receipt) => {
                    let (counters, repeated) = (&self.node().counters, receipt.repeated);
                    if repeated {
                        counters.intake_duplicates.one();
                    } else {
                        counters.intake_accepted.one();
                    }
                    let first = firsts.get(&receipt.id).copied();
                    let intake_id = if repeated { first } else { Some(intake.id) };
                    let receipt =
                        IntakeReceipt { intake_id, event_id: receipt.id, duplicate: repeated };
                    let deprecated = deprecated.remove(&place).flatten();
                    Some(Ok(Taken::Accepted { receipt, deprecated }))
                }
                Err(Error::Conflict { code: "event_id_reused", .. }) => {
                    let rejected = Box::new(reused());
                    let intake = kept::refused(intake, &rejected);
                    refused.push((place, rejected, Box::new(intake)));
                    None
                }
                Err(error) => Some(Err(error)),
            };
        }
        self.keep_refused(open, refused.iter().map(|(_, _, intake)| (**intake).clone())).await?;
        for (place, rejected, intake) in refused {
            let kept = RefusedIntake::of(*rejected, Some(intake.id));
            answers[place] = Some(Ok(Taken::Refused(kept)));
        }
        let missing = || Err(Error::Bug("a record was neither taken nor refused".to_owned()));
        Ok(answers.into_iter().map(|answer| answer.unwrap_or_else(missing)).collect())
    }

    /// Appends the events of all records or of none.
    async fn append_together(
        &self,
        open: &OpenSource,
        records: Vec<Vec<EventDraft>>,
    ) -> Result<Vec<Appended>, Error> {
        let (mut all, mut places) = (Vec::new(), Vec::new());
        for record in records {
            let place = all.len();
            places.push((place, record.first().and_then(EventDraft::document)));
            for (at, mut draft) in record.into_iter().enumerate() {
                if at > 0 {
                    draft.follow(place);
                }
                all.push(draft);
            }
        }
        let receipts = self.append_events(open.namespace(), all).await?;
        let one = |(place, intake)| (intake, first(receipts.clone(), place));
        Ok(places.into_iter().map(one).collect())
    }

    /// Finds under which documents the events are kept that were there already.
    async fn firsts(
        &self,
        open: &OpenSource,
        appended: &[Appended],
    ) -> Result<HashMap<Uuid, Uuid>, Error> {
        let repeats = appended.iter().filter_map(|(_, done)| done.as_ref().ok());
        let repeats: Vec<Uuid> =
            repeats.filter(|receipt| receipt.repeated).map(|receipt| receipt.id).collect();
        if repeats.is_empty() {
            return Ok(HashMap::new());
        }
        let mut connection = self.node().database.reader(open.namespace()).await?;
        Ok(table::of_events(&mut connection, &repeats).await?.into_iter().collect())
    }

    /// Keeps documents that were refused.
    pub(super) async fn keep_refused(
        &self,
        open: &OpenSource,
        refused: impl Iterator<Item = NewIntake>,
    ) -> Result<(), Error> {
        let (mut intakes, mut count) = (Intakes::default(), 0);
        for intake in refused {
            intakes.push(intake);
            count += 1;
        }
        if count == 0 {
            return Ok(());
        }
        let mut connection = self.node().database.actor(open.namespace()).await?;
        commit!("intake_refuse", table::write(&mut connection, &intakes).await)?;
        self.node().counters.intake_refused.add(count);
        Ok(())
    }

    /// Keeps a batch that was refused as a whole. Returns under which id.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn keep_refused_batch(
        &self,
        open: &OpenSource,
        arrival: &Arrival,
        sender: &Sender,
        rejected: &Rejected,
    ) -> Result<Uuid, Error> {
        let id = self.node().clock.new_run().0;
        let raw = arrival.body.clone();
        let new = kept::new(open, arrival, id, raw, Way::OneByOne.door(), sender);
        self.keep_refused(open, std::iter::once(kept::refused(new, rejected))).await?;
        Ok(id)
    }
}

/// The records of a batch, read and not yet held to contracts.
pub struct BatchRead(Vec<Read<Document>>);

impl BatchRead {
    /// Returns the number of records.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// A document whose events were to be appended, and the result of the first.
type Appended = (Option<NewIntake>, Result<EventReceipt, Error>);

/// Returns the receipt at a place.
fn first(mut receipts: Vec<EventReceipt>, place: usize) -> Result<EventReceipt, Error> {
    if place >= receipts.len() {
        return Err(Error::Bug("an event that was appended has no receipt".to_owned()));
    }
    Ok(receipts.swap_remove(place))
}

/// Relation of the records of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It has one.
    ByItself,
    /// Each is accepted or refused by itself.
    OneByOne,
    /// All are taken, or none.
    AllOrNone,
    /// They are rows of a file, each accepted or refused by itself.
    File,
}

impl Way {
    /// Returns the door through which they come.
    fn door(self) -> &'static str {
        match self {
            Way::ByItself => "request",
            Way::OneByOne | Way::AllOrNone => "batch",
            Way::File => "file",
        }
    }
}

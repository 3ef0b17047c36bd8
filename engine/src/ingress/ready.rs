//! Decides about documents: which contract they claim, whether they follow it, and which events they are.

use std::collections::HashMap;
use std::sync::Arc;

use backstitch_integration::contracts::Schema;
use backstitch_integration::ingress::{
    Accepted, Claim, Document, Headers, Hints, Rejected, Sender,
};
use backstitch_saga::ErrorKind;
use backstitch_saga::protocol::status_of;

use super::arrival::{Arrival, RefusedIntake, Taken};
use super::doors::{OpenSource, world_of};
use super::kept;
use super::mapping::{self, TransformsOf};
use crate::Error;
use crate::log::EventDraft;
use crate::store::intake::NewIntake;

/// A record of a request and what was found of it so far.
pub(super) struct Read<T> {
    pub(super) raw: Vec<u8>,
    pub(super) found: Result<T, Box<Rejected>>,
}

/// A document with the contract that it claims.
pub(super) type Claimed = (Document, Claim);
/// Schemas by subject and version.
pub(super) type SchemasOf = HashMap<(String, u32), Arc<Schema>>;

/// A record that is ready to be written.
pub(super) enum Ready {
    /// The event of the document, and the one that it is mapped to.
    Events(Vec<EventDraft>, Option<(String, u32)>),
    Refused(Box<Rejected>, Box<NewIntake>),
}

/// Finds the contracts that documents claim.
pub(super) fn claimed(
    open: &OpenSource,
    arrival: &Arrival,
    read: Vec<Read<Document>>,
) -> Vec<Read<Claimed>> {
    let pairs = arrival.pairs();
    let headers = Headers::new(&pairs);
    let claim = |one: Read<Document>| {
        let found = one.found.and_then(|document| claim_of(open, &headers, document));
        Read { raw: one.raw, found }
    };
    read.into_iter().map(claim).collect()
}

/// Finds the contract that a document claims.
pub(super) fn claim_of(
    open: &OpenSource,
    headers: &Headers<'_>,
    document: Document,
) -> Result<Claimed, Box<Rejected>> {
    let claim = open.rules().claim(headers, &document, &|subject| open.versions(subject))?;
    Ok((document, claim))
}

/// Holds a document to its contract.
pub(super) fn held(
    open: &OpenSource,
    headers: &Headers<'_>,
    (document, claim): Claimed,
    sender: &Sender,
    schemas: &SchemasOf,
) -> Result<Accepted, Box<Rejected>> {
    let schema = schemas.get(&(claim.contract.clone(), claim.version));
    let schema = schema.map(|schema| (&**schema, world_of(&claim.contract)));
    open.rules().hold(headers, document, claim, sender, schema)
}

/// Makes events of a document that follows its contract: its own, and the one that it is mapped to.
pub(super) fn drafts_of(
    open: &OpenSource,
    accepted: &Accepted,
    transforms: &TransformsOf,
    new: NewIntake,
) -> Result<Vec<EventDraft>, (Box<Rejected>, Box<NewIntake>)> {
    let contract = Some(format!("{}@{}", accepted.contract, accepted.version));
    let mut intake = NewIntake { contract, hints: kept::hints(&accepted.hints), ..new };
    let refused = |intake: NewIntake, rejected: Box<Rejected>| {
        let intake = kept::refused(NewIntake { mapped: None, ..intake }, &rejected);
        (rejected, Box::new(intake))
    };
    let mut made = None;
    if let Some(target) = open.target(&accepted.contract) {
        let edge = (accepted.contract.clone(), accepted.version, target);
        match mapping::map(edge, &accepted.value, transforms, (1, open.largest)) {
            Ok((mapping, event)) => {
                intake.mapped = Some(mapping);
                made = event;
            }
            Err(rejected) => return Err(refused(intake, rejected)),
        }
    }
    let wrong = |message: &str, violations| {
        Box::new(Rejected {
            status: status_of(ErrorKind::Invalid),
            code: "cloudevent_not_valid",
            message: message.to_owned(),
            violations,
            kept: true,
            hints: accepted.hints.clone(),
        })
    };
    let draft = match EventDraft::of_accepted(accepted, open.name(), intake.clone()) {
        Ok(draft) => draft,
        Err(violations) => {
            let message = "attributes of the CloudEvent are not what they should be";
            return Err(refused(intake, wrong(message, violations)));
        }
    };
    let mut drafts = vec![draft];
    if let Some(made) = made {
        let occurred_at = drafts.first().and_then(EventDraft::occurred_at);
        let event = made.event(accepted.trust, occurred_at);
        match EventDraft::of_mapped(open.name(), event, &mapping::key(intake.id, 1)) {
            Ok(mut draft) => {
                draft.follow(0);
                drafts.push(draft);
            }
            Err(violations) => {
                return Err(refused(
                    intake,
                    wrong("what it is mapped to cannot be held", violations),
                ));
            }
        }
    }
    Ok(drafts)
}

pub(super) fn ready(
    open: &OpenSource,
    headers: &Headers<'_>,
    found: Result<Claimed, Box<Rejected>>,
    sender: &Sender,
    (schemas, transforms): (&SchemasOf, &TransformsOf),
    new: NewIntake,
) -> Ready {
    match found.and_then(|claimed| held(open, headers, claimed, sender, schemas)) {
        Ok(accepted) => {
            let old = accepted.deprecated.then(|| (accepted.contract.clone(), accepted.version));
            match drafts_of(open, &accepted, transforms, new) {
                Ok(drafts) => Ready::Events(drafts, old),
                Err((rejected, intake)) => Ready::Refused(rejected, intake),
            }
        }
        Err(rejected) => {
            let intake = kept::refused(new, &rejected);
            Ready::Refused(rejected, Box::new(intake))
        }
    }
}

/// Returns the refusal of a document whose dedupe key another one has.
pub(super) fn reused() -> Rejected {
    Rejected {
        status: status_of(ErrorKind::Conflict),
        code: "dedupe_key_reused",
        message: "another document with the same dedupe key was taken in before, and differs; send a key of its own".to_owned(),
        violations: Vec::new(),
        kept: true,
        hints: Hints::default(),
    }
}

/// Returns the result for a valid record in a batch of which another was refused.
pub(super) fn held_back() -> Taken {
    Taken::Refused(RefusedIntake {
        status: status_of(ErrorKind::Invalid),
        code: "batch_refused",
        message: "another record of the batch was refused, and all or none are taken".to_owned(),
        violations: Vec::new(),
        intake_id: None,
    })
}

/// Returns the answers for a batch that was not appended because one of its documents has the key of another.
pub(super) fn all_refused(count: usize, why: &str) -> Vec<Result<Taken, Error>> {
    let one = || {
        let refused = RefusedIntake { intake_id: None, ..RefusedIntake::of(reused(), None) };
        Ok(Taken::Refused(RefusedIntake {
            message: format!("{}: {why}", refused.message),
            ..refused
        }))
    };
    std::iter::repeat_with(one).take(count).collect()
}

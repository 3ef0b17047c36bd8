//! Maps documents that were accepted to contracts of our own, by the transform that is active.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use backstitch_integration::contracts::Schema;
use backstitch_integration::document::Value;
use backstitch_integration::events::{Op, Trust};
use backstitch_integration::ingress::{Hints, Rejected};
use backstitch_integration::transforms::{Failure, Limits, Mapped, Outcome, Transform};
use backstitch_saga::protocol::status_of;
use backstitch_saga::{ErrorKind, Payload, Violation};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::doors::OpenSource;
use crate::log::MappedEvent;
use crate::store::intake::Mapping;
use crate::store::transforms::{self as table, Edge};
use crate::{Engine, Error};

/// A contract of our own that documents are mapped to, by subject and version.
pub(super) type Target = (String, u32);
/// Origin of a document, and the contract that it is mapped to.
pub(super) type EdgeName = (String, u32, Target);
/// Active transforms by their ends; `None` where there is none.
pub(super) type TransformsOf = HashMap<EdgeName, Option<(i32, Arc<Transform>)>>;

/// The event of a mapped document.
pub(super) struct Made {
    /// The contract that it follows.
    pub(super) to: Target,
    pub(super) body: Payload,
    pub(super) stream: Option<String>,
    pub(super) op: Option<Op>,
    /// Digest of all of that.
    pub(super) digest: [u8; 32],
}

impl Made {
    /// Returns the event that says so, of a document that may be trusted so far.
    pub(super) fn event(&self, trust: Trust, occurred_at: Option<String>) -> MappedEvent<'_> {
        MappedEvent {
            contract: (&self.to.0, self.to.1),
            body: self.body.clone(),
            stream: self.stream.clone(),
            op: self.op,
            digest: self.digest,
            occurred_at,
            trust,
            cause: None,
            supersedes: None,
        }
    }
}

/// Returns the key of the `count`-th event that a document is mapped to.
pub(super) fn key(intake: Uuid, count: i32) -> String {
    format!("{intake}>{count}")
}

/// Result of a transform for a document: its row, and the event if there is one.
pub(super) type Result = std::result::Result<(Mapping, Option<Made>), Box<Rejected>>;

fn name_of((subject, version): &Target) -> String {
    format!("{subject}@{version}")
}

/// Maps a document. One that cannot be mapped is kept with what is wrong, unless a rule says that it is to be refused.
pub(super) fn map(
    edge: EdgeName,
    document: &Value,
    transforms: &TransformsOf,
    (count, largest): (i32, usize),
) -> Result {
    let blank = failed(&edge, None, count - 1);
    let Some((revision, transform)) = transforms.get(&edge).and_then(Option::as_ref) else {
        let message = format!(
            "there is no transform from {}@{} to {}; register it and process the document again",
            edge.0, edge.1, blank.to
        );
        let failures = vec![Violation::new("", "transform_missing", message)];
        return Ok((Mapping { failures: text_of(&failures), ..blank }, None));
    };
    let limits =
        Limits { output_bytes: largest.min(Limits::default().output_bytes), ..Limits::default() };
    let blank = Mapping { revision: Some(*revision), ..blank };
    match transform.run(document, &limits) {
        Outcome::Mapped(mapped) => {
            let made = made(edge.2, &mapped);
            let unmapped = (!mapped.unmapped.is_empty())
                .then(|| Value::Object(mapped.unmapped.clone()).to_json());
            let changes = if mapped.changes.is_empty() { None } else { text_of(&mapped.changes) };
            let mapping = Mapping {
                state: "mapped",
                digest: Some(made.digest.to_vec()),
                count,
                changes,
                unmapped,
                ..blank
            };
            Ok((mapping, Some(made)))
        }
        Outcome::Failed(failures) if failures.iter().any(|failure| failure.reject) => {
            Err(Box::new(rejected(&failures)))
        }
        Outcome::Failed(failures) => Ok((Mapping { failures: text_of(&failures), ..blank }, None)),
    }
}

/// Returns a failed mapping, of a document of which so many events were made.
pub(super) fn failed(edge: &EdgeName, failures: Option<String>, count: i32) -> Mapping {
    Mapping {
        state: "failed",
        to: name_of(&edge.2),
        revision: None,
        event: None,
        digest: None,
        count,
        changes: None,
        unmapped: None,
        failures,
    }
}

/// Returns the refusal of a document that a rule of its transform refuses.
fn rejected(failures: &[Failure]) -> Rejected {
    let violation = |failure: &Failure| {
        Violation::new(failure.pointer.to_string(), &failure.code, failure.message.clone())
    };
    Rejected {
        status: status_of(ErrorKind::Invalid),
        code: "mapping_refused",
        message: "the transform of the source refuses the document".to_owned(),
        violations: failures.iter().filter(|failure| failure.reject).map(violation).collect(),
        kept: true,
        hints: Hints::default(),
    }
}

fn made(to: Target, mapped: &Mapped) -> Made {
    let op = match (&mapped.stream, mapped.op) {
        // A source that does not name the operation sends the entity as it is.
        (Some(_), None) => Some(Op::Snapshot),
        (Some(_), op) => op,
        (None, _) => None,
    };
    let body = mapped.body.to_payload();
    let mut digest = Sha256::new();
    for part in [
        name_of(&to).as_str(),
        mapped.stream.as_deref().unwrap_or_default(),
        op.map_or("", Op::letter),
    ] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    digest.update(body.canonical().as_bytes());
    Made { to, body, stream: mapped.stream.clone(), op, digest: digest.finalize().into() }
}

fn text_of<T: serde::Serialize>(list: &[T]) -> Option<String> {
    serde_json::to_string(list).ok()
}

impl Engine {
    /// Finds the active transforms of documents that claim contracts.
    pub(super) async fn transforms_of<'c>(
        &self,
        open: &OpenSource,
        contracts: impl Iterator<Item = (&'c str, u32)>,
    ) -> std::result::Result<TransformsOf, Error> {
        let mut found = TransformsOf::new();
        for (subject, version) in contracts {
            let Some(target) = open.target(subject) else { continue };
            let edge = (subject.to_owned(), version, target);
            let Entry::Vacant(place) = found.entry(edge) else { continue };
            let transform = match open.active(place.key()) {
                Some(revision) => {
                    Some((revision, self.door_transform(open, place.key(), revision).await?))
                }
                None => None,
            };
            place.insert(transform);
        }
        Ok(found)
    }

    async fn door_transform(
        &self,
        open: &OpenSource,
        edge: &EdgeName,
        revision: i32,
    ) -> std::result::Result<Arc<Transform>, Error> {
        let node = self.node();
        let namespace = open.namespace();
        if let Some(known) = node.doors.transform(namespace, edge, revision) {
            return Ok(known);
        }
        let (from, version, (to, to_version)) = edge;
        let source = self.door_schema(namespace, from, *version).await?;
        let target = self.door_schema(namespace, to, *to_version).await?;
        let stored = Edge {
            from: from.clone(),
            from_version: i32::try_from(*version).unwrap_or(0),
            to: to.clone(),
            to_version: i32::try_from(*to_version).unwrap_or(0),
        };
        let mut connection = node.database.reader(namespace).await?;
        let row = table::revision(&mut connection, namespace, &stored, revision).await?;
        drop(connection);
        let text = row.map(|row| row.document).unwrap_or_default();
        let bytes = text.len();
        let read = self.apart(namespace, move || read(text, &source, &target)).await?;
        let transform = Arc::new(read.ok_or_else(|| Error::Conflict {
            code: "contract_damaged",
            message: format!("revision {revision} of the transform from {from}@{version} to {to}@{to_version} cannot be read"),
        })?);
        node.doors.keep_transform(namespace, edge, revision, (&transform, bytes));
        Ok(transform)
    }
}

fn read(text: String, source: &Schema, target: &Schema) -> Option<Transform> {
    let document = Payload::trusted(text).ok()?;
    Transform::register(&document, source, target).ok()
}

//! Appending: the results for events, given the heads of their streams and the events appended
//! before.
//!
//! A request is appended as a whole or not at all. Its consequences are noted, so that requests that are decided
//! together have the same results as one after the other.

use std::collections::HashMap;
use std::sync::Arc;

use super::causality::{Causality, Cause, MAX_HOPS};
use super::envelope::Envelope;
use super::operation::{Derived, Head, Op, derive};
use crate::document::{Pointer, Value};

/// An event to append.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Its envelope. The operation is that of the sender.
    pub envelope: Envelope,
    /// The source and the id by which a repeat is recognised; without them each is a new event.
    pub key: Option<(String, String)>,
    /// Digest of everything that a repeat must have in common with the first.
    pub digest: [u8; 32],
    /// Body of an event with an operation, to be compared with the one before.
    pub value: Option<Value>,
    /// Digest of the body's canonical form, for an event with an operation.
    pub body_digest: Option<[u8; 32]>,
    /// The version that the stream must have before this event; 0 for a stream without events.
    pub expected_version: Option<u64>,
    /// Place of the event of the same request that caused this one.
    pub caused_by: Option<usize>,
}

/// Head of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamHead {
    /// Number of events.
    pub version: u64,
    /// Entity of the stream.
    pub entity: Entity,
}

/// Entity of a stream, as events with an operation left it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Entity {
    /// No event had an operation.
    #[default]
    Unknown,
    /// It was deleted.
    Deleted,
    /// It exists.
    Present {
        /// Digest of the last body's canonical form.
        digest: [u8; 32],
        /// The last body; `None` when it is past retention or was erased.
        body: Option<Arc<Value>>,
    },
}

/// The result for an event, as its sender gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Id of the event.
    pub id: String,
    /// Its stream.
    pub stream: Option<String>,
    /// Its version in the stream.
    pub version: Option<u64>,
    /// The operation that is stored.
    pub op: Option<Op>,
    /// The operation contradicted the stream and was corrected.
    pub op_corrected: bool,
    /// Nothing changed.
    pub noop: bool,
}

/// An event that was appended before under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct First {
    /// Digest of what was sent.
    pub digest: [u8; 32],
    /// The result that its sender got.
    pub receipt: Receipt,
}

/// The event in the form that is appended.
#[derive(Clone, Debug, PartialEq)]
pub struct Appended {
    /// Place of its draft in the request.
    pub draft: usize,
    /// The result that its sender gets.
    pub receipt: Receipt,
    /// Places that differ from the body before; `None` for an event without an operation.
    pub changed: Option<Vec<Pointer>>,
    /// The inheritance from its cause, if that is known.
    pub causality: Option<Causality>,
}

/// Answer for one event of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is appended.
    New(Box<Appended>),
    /// It was appended before.
    Repeat(Receipt),
}

impl Outcome {
    /// Returns the result for the sender.
    #[must_use]
    pub fn receipt(&self) -> &Receipt {
        match self {
            Outcome::New(appended) => &appended.receipt,
            Outcome::Repeat(receipt) => receipt,
        }
    }
}

/// Reason why a request is not appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A stream is not at the version that was expected.
    Version {
        /// Place of the event in the request.
        draft: usize,
        /// Stream.
        stream: String,
        /// Version that was expected.
        expected: u64,
        /// Version that it has.
        actual: u64,
    },
    /// Another event was appended under the id.
    Reused {
        /// Place of the event in the request.
        draft: usize,
        /// Event that was appended.
        first: String,
    },
    /// The chain of causes is too long.
    Loop {
        /// Place of the event in the request.
        draft: usize,
        /// Explanation of the mistake, for people.
        message: String,
    },
}

/// The basis of decisions of one namespace: heads of streams, keys and causes of all requests that are decided
/// together.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Heads of streams; a stream without events is missing.
    pub streams: HashMap<String, StreamHead>,
    /// Events that were appended, by source and id.
    pub keys: HashMap<(String, String), First>,
    /// Events that others name as their causes, by id.
    pub causes: HashMap<String, Cause>,
}

impl Known {
    /// Decides about a request, and notes what it leaves behind. `id` returns the id of the request's n-th new event,
    /// from 0 on.
    ///
    /// # Errors
    /// The first [`Refusal`]; nothing is noted then.
    pub fn append(
        &mut self,
        drafts: &[Draft],
        id: impl Fn(usize) -> String,
    ) -> Result<Vec<Outcome>, Refusal> {
        let mut request = Request { known: self, heads: HashMap::new(), firsts: HashMap::new() };
        let mut outcomes = Vec::with_capacity(drafts.len());
        let mut new = 0;
        for (place, draft) in drafts.iter().enumerate() {
            let cause = match draft.caused_by.map(|place| (drafts.get(place), outcomes.get(place)))
            {
                // Consequences of an event that was appended before were appended with it, or are processed again by
                // themselves.
                Some((_, Some(Outcome::Repeat(first)))) => {
                    outcomes.push(Outcome::Repeat(first.clone()));
                    continue;
                }
                Some((Some(draft), Some(Outcome::New(appended)))) => {
                    Some(cause_of(draft, appended))
                }
                _ => None,
            };
            let outcome = request.decide(place, draft, cause, || id(new))?;
            new += usize::from(matches!(outcome, Outcome::New(_)));
            outcomes.push(outcome);
        }
        let Request { heads, firsts, .. } = request;
        self.streams.extend(heads);
        self.keys.extend(firsts);
        Ok(outcomes)
    }
}

/// A request that is being decided: what it has changed so far, over what is known.
struct Request<'a> {
    known: &'a Known,
    heads: HashMap<String, StreamHead>,
    firsts: HashMap<(String, String), First>,
}

impl Request<'_> {
    fn decide(
        &mut self,
        place: usize,
        draft: &Draft,
        cause: Option<Cause>,
        id: impl FnOnce() -> String,
    ) -> Result<Outcome, Refusal> {
        if let Some(key) = &draft.key
            && let Some(first) = self.firsts.get(key).or_else(|| self.known.keys.get(key))
        {
            if first.digest == draft.digest {
                return Ok(Outcome::Repeat(first.receipt.clone()));
            }
            return Err(Refusal::Reused { draft: place, first: first.receipt.id.clone() });
        }
        let causality = self.causality(place, &draft.envelope, cause)?;
        let mut receipt = Receipt {
            id: id(),
            stream: draft.envelope.stream.clone(),
            version: None,
            op: draft.envelope.op,
            op_corrected: false,
            noop: false,
        };
        let mut changed = None;
        if let Some(stream) = &draft.envelope.stream {
            let head = self.heads.get(stream).or_else(|| self.known.streams.get(stream));
            let mut head = head.cloned().unwrap_or_default();
            if let Some(expected) = draft.expected_version.filter(|one| *one != head.version) {
                let (stream, actual) = (stream.clone(), head.version);
                return Err(Refusal::Version { draft: place, stream, expected, actual });
            }
            head.version += 1;
            receipt.version = Some(head.version);
            if let Some(op) = draft.envelope.op {
                let derived = derived(&head.entity, op, draft);
                receipt.op = Some(derived.op);
                receipt.op_corrected = derived.op_corrected;
                receipt.noop = derived.noop;
                changed = Some(derived.changed);
                head.entity = match (op, draft.body_digest) {
                    (Op::Deleted, _) | (_, None) => Entity::Deleted,
                    (_, Some(digest)) => {
                        Entity::Present { digest, body: draft.value.clone().map(Arc::new) }
                    }
                };
            }
            self.heads.insert(stream.clone(), head);
        }
        if let Some(key) = &draft.key {
            let first = First { digest: draft.digest, receipt: receipt.clone() };
            self.firsts.insert(key.clone(), first);
        }
        Ok(Outcome::New(Box::new(Appended { draft: place, receipt, changed, causality })))
    }

    /// Returns what an event inherits from its cause. One that is not known here is taken at its word, up to the bound.
    fn causality(
        &self,
        place: usize,
        envelope: &Envelope,
        within: Option<Cause>,
    ) -> Result<Option<Causality>, Refusal> {
        let refused = |message| Refusal::Loop { draft: place, message };
        let named = || self.known.causes.get(envelope.causation_id.as_ref()?).cloned();
        match within.or_else(named) {
            Some(cause) => Causality::of(std::slice::from_ref(&cause), MAX_HOPS)
                .map_err(|wrong| refused(wrong.message)),
            None if envelope.hops > MAX_HOPS => Err(refused(format!(
                "the event says that it is number {} in a chain of causes, and {MAX_HOPS} are allowed",
                envelope.hops
            ))),
            None => Ok(None),
        }
    }
}

/// Returns an event of the same request as a cause.
fn cause_of(draft: &Draft, appended: &Appended) -> Cause {
    let (envelope, inherited) = (&draft.envelope, appended.causality.as_ref());
    let id = appended.receipt.id.clone();
    let told = envelope.correlation_id.clone();
    let told = told.or_else(|| inherited.map(|from| from.correlation_id.clone()));
    Cause {
        correlation_id: told.unwrap_or_else(|| id.clone()),
        hops: inherited.map_or(envelope.hops, |from| from.hops),
        trust: inherited.map_or(envelope.trust, |from| from.trust.min(envelope.trust)),
        id,
    }
}

/// Returns the operation on the entity. If the previous body was deleted, everything may have changed.
fn derived(entity: &Entity, op: Op, draft: &Draft) -> Derived {
    let body = draft.value.as_ref();
    match entity {
        Entity::Unknown => derive(Head::Unknown, op, body),
        Entity::Deleted => derive(Head::Deleted, op, body),
        Entity::Present { body: Some(before), .. } => derive(Head::Present(before), op, body),
        Entity::Present { digest, body: None } => {
            let same = op != Op::Deleted && draft.body_digest.as_ref() == Some(digest);
            Derived {
                op: match op {
                    Op::Snapshot if same => Op::Snapshot,
                    Op::Deleted => Op::Deleted,
                    _ => Op::Updated,
                },
                changed: if same { Vec::new() } else { vec![Pointer::default()] },
                op_corrected: op == Op::Created,
                noop: same,
            }
        }
    }
}

#[cfg(test)]
mod tests;

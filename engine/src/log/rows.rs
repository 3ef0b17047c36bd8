//! Between the rules and the tables: what a batch needs to be decided, and the rows that it leaves.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use backstitch_integration::document::value_of;
use backstitch_integration::events::{
    Appended, Cause, Entity, First, Known, Op, Outcome, Receipt, SALT_BYTES, StreamHead, Trust,
    leaf,
};
use backstitch_saga::protocol::{EventOp, EventReceipt};
use backstitch_saga::{Payload, Time};
use uuid::Uuid;

use super::draft::EventDraft;
use crate::node::Node;
use crate::store::intake::NewIntake;
use crate::store::log::{
    Append, KnownEvent, Loaded, NewEvent, NewHead, NewKey, Wanted, batch_of, event_id, place_of,
};

/// All levels of trust, by their number.
const TRUST: [Trust; 5] = [
    Trust::Untrusted,
    Trust::Unverified,
    Trust::Authenticated,
    Trust::Signed,
    Trust::Authoritative,
];

pub(crate) fn trust_number(trust: Trust) -> i16 {
    TRUST.iter().position(|one| *one == trust).and_then(|at| i16::try_from(at).ok()).unwrap_or(0)
}

pub(crate) fn trust_of(number: i16) -> Trust {
    let at = usize::try_from(number).unwrap_or(0);
    TRUST.get(at).copied().unwrap_or(Trust::Untrusted)
}

/// Says what requests need to be decided.
pub(super) fn wanted<'a>(requests: impl Iterator<Item = (&'a str, &'a [EventDraft])>) -> Wanted {
    let mut streams: BTreeMap<(&str, &str), bool> = BTreeMap::new();
    let (mut keys, mut causes) = (HashSet::new(), HashSet::new());
    for (namespace, events) in requests {
        for EventDraft { draft, .. } in events {
            if let Some(stream) = &draft.envelope.stream {
                *streams.entry((namespace, stream)).or_default() |= draft.value.is_some();
            }
            if let Some((source, id)) = &draft.key {
                keys.insert((namespace, source, id));
            }
            let cause = draft.envelope.causation_id.as_ref();
            if let Some(id) = cause.and_then(|id| id.parse::<Uuid>().ok()) {
                causes.insert((namespace, place_of(id)));
            }
        }
    }
    let mut wanted = Wanted::default();
    for ((namespace, stream), body) in streams {
        wanted.stream(namespace, stream, body);
    }
    keys.into_iter().for_each(|(namespace, source, id)| wanted.key(namespace, source, id));
    causes.into_iter().for_each(|(namespace, place)| wanted.cause(namespace, place));
    wanted
}

/// Puts what was loaded in the form that the rules know.
pub(super) fn known(loaded: Loaded) -> HashMap<Arc<str>, Known> {
    let mut all: HashMap<Arc<str>, Known> = HashMap::new();
    let mut of = |namespace: &str, put: &mut dyn FnMut(&mut Known)| match all.get_mut(namespace) {
        Some(known) => put(known),
        None => {
            let mut known = Known::default();
            put(&mut known);
            all.insert(namespace.into(), known);
        }
    };
    for row in loaded.streams {
        let digest = row.body_digest.as_deref().and_then(|bytes| bytes.try_into().ok());
        let body = row.body.and_then(|text| Payload::trusted(text).ok());
        let entity = match (row.entity.as_deref(), digest) {
            (Some("present"), Some(digest)) => {
                let body = body.and_then(|body| value_of(&body).ok()).map(Arc::new);
                Entity::Present { digest, body }
            }
            (Some("deleted"), _) => Entity::Deleted,
            _ => Entity::Unknown,
        };
        let head = StreamHead { version: row.version.unsigned_abs(), entity };
        of(&row.namespace, &mut |known| {
            known.streams.insert(row.stream.clone(), head.clone());
        });
    }
    for row in loaded.keys {
        let first = First {
            digest: row.digest.as_slice().try_into().unwrap_or_default(),
            receipt: receipt(&row),
        };
        of(&row.namespace, &mut |known| {
            known.keys.insert((row.source.clone(), row.key.clone()), first.clone());
        });
    }
    for row in loaded.causes {
        let id = event_id(row.batch, row.ord).to_string();
        let cause = Cause {
            id: id.clone(),
            correlation_id: row.correlation_id.clone(),
            hops: row.hops.unsigned_abs(),
            trust: trust_of(row.trust),
        };
        of(&row.namespace, &mut |known| {
            known.causes.insert(id.clone(), cause.clone());
        });
    }
    all
}

fn receipt(row: &KnownEvent) -> Receipt {
    Receipt {
        id: event_id(row.batch, row.ord).to_string(),
        stream: row.stream.clone(),
        version: row.version.map(i64::unsigned_abs),
        op: row.op.as_deref().and_then(Op::of),
        op_corrected: row.op_corrected,
        noop: row.noop,
    }
}

/// Returns the answer for an event.
fn answer(outcome: &Outcome) -> EventReceipt {
    let receipt = outcome.receipt();
    EventReceipt {
        id: receipt.id.parse().unwrap_or_default(),
        stream: receipt.stream.clone(),
        version: receipt.version,
        op: receipt.op.and_then(|op| EventOp::of(op.letter())),
        op_corrected: receipt.op_corrected,
        noop: receipt.noop,
        repeated: matches!(outcome, Outcome::Repeat(_)),
    }
}

/// Batch of a namespace that is being put together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    id: Uuid,
    count: i16,
}

impl Batch {
    /// Returns the id that the `new`-th event has which is added from now on.
    pub(super) fn id(self, new: usize) -> Uuid {
        let new = i16::try_from(new).unwrap_or(i16::MAX);
        event_id(self.id, self.count.saturating_add(new))
    }
}

/// Place and digest of the last body of a stream.
type LastBody = (Uuid, i16, [u8; 32]);

/// Head of a stream that is moved on.
struct Head {
    /// Version that was loaded.
    before: u64,
    version: u64,
    /// The entity as the last event with an operation left it.
    entity: Option<(&'static str, Option<LastBody>)>,
}

/// Rows that a batch leaves, while it is decided.
pub(super) struct Rows {
    now: Time,
    seed: Box<dyn Fn() -> Uuid + Send>,
    before: HashMap<(Arc<str>, String), u64>,
    batches: BTreeMap<Arc<str>, Batch>,
    heads: BTreeMap<(Arc<str>, String), Head>,
    keys: Vec<NewKey>,
    append: Append,
}

impl Rows {
    pub(super) fn new(node: &Arc<Node>, known: &HashMap<Arc<str>, Known>) -> Rows {
        let before = known.iter().flat_map(|(namespace, known)| {
            let heads = known.streams.iter();
            heads.map(|(name, head)| ((Arc::clone(namespace), name.clone()), head.version))
        });
        let clock = Arc::clone(node);
        Rows {
            now: node.clock.now(),
            seed: Box::new(move || clock.clock.new_run().0),
            before: before.collect(),
            batches: BTreeMap::new(),
            heads: BTreeMap::new(),
            keys: Vec::new(),
            append: Append::default(),
        }
    }

    /// Returns the present batch of a namespace.
    pub(super) fn batch(&mut self, namespace: &Arc<str>) -> Batch {
        let seed = &self.seed;
        let new = || Batch { id: batch_of(seed()), count: 0 };
        *self.batches.entry(Arc::clone(namespace)).or_insert_with(new)
    }

    /// Adds what a request leaves, and returns the answer for it.
    pub(super) fn add(
        &mut self,
        namespace: &Arc<str>,
        events: &[EventDraft],
        outcomes: &[Outcome],
    ) -> Vec<EventReceipt> {
        for outcome in outcomes {
            if let Outcome::New(appended) = outcome
                && let Some(event) = events.get(appended.draft)
            {
                self.add_event(namespace, event, appended);
            }
        }
        outcomes.iter().map(answer).collect()
    }

    fn add_event(&mut self, namespace: &Arc<str>, event: &EventDraft, appended: &Appended) {
        let Batch { id: batch, count: ord } = self.batch(namespace);
        let envelope = &event.draft.envelope;
        let receipt = &appended.receipt;
        if let Some(intake) = &event.intake {
            self.append.intake(numbered(intake, batch, ord));
        }
        if let Some((source, id)) = &event.draft.key {
            self.keys.push(NewKey {
                namespace: namespace.to_string(),
                source: source.clone(),
                id: id.clone(),
                batch,
                ord,
                digest: event.draft.digest.to_vec(),
            });
        }
        self.move_head(namespace, event, receipt, (batch, ord));
        let causality = appended.causality.as_ref();
        let trust = causality.map_or(envelope.trust, |from| from.trust.min(envelope.trust));
        let correlation_id = envelope.correlation_id.clone();
        let correlation_id = correlation_id
            .or_else(|| causality.map(|from| from.correlation_id.clone()))
            .unwrap_or_else(|| receipt.id.clone());
        let changed = appended.changed.as_ref().map(|places| {
            let places: Vec<String> = places.iter().map(ToString::to_string).collect();
            serde_json::to_string(&places).unwrap_or_default()
        });
        let labels = (!envelope.labels.is_empty())
            .then(|| serde_json::to_string(&envelope.labels).unwrap_or_default());
        let mut new = NewEvent {
            batch,
            ord,
            namespace: namespace.to_string(),
            event_type: envelope.event_type.clone(),
            stream: receipt.stream.clone(),
            stream_version: receipt.version.and_then(|version| i64::try_from(version).ok()),
            contract: envelope.contract.clone(),
            op: receipt.op.map(Op::letter),
            op_corrected: receipt.op_corrected,
            noop: receipt.noop,
            changed,
            source: envelope.source.clone(),
            claimed_source: event.claimed_source.clone(),
            source_id: event.source_id.clone(),
            trust: trust_number(trust),
            occurred_at: envelope.occurred_at.clone(),
            received_at: event.intake.as_ref().map_or(self.now, |intake| intake.received_at),
            correlation_id,
            causation_id: envelope
                .causation_id
                .clone()
                .or_else(|| causality.map(|from| from.causation_id.clone())),
            hops: causality.map_or(envelope.hops, |from| from.hops).cast_signed(),
            traceparent: envelope.traceparent.clone(),
            labels,
            leaf: Vec::new(),
            body: event.body.text().to_owned(),
            salt: rand::random::<[u8; SALT_BYTES]>(),
        };
        new.leaf = leaf_of(&receipt.id, &new).to_vec();
        self.append.event(new);
        if let Some(batch) = self.batches.get_mut(namespace) {
            batch.count += 1;
        }
    }

    /// Moves the head of the stream that an event belongs to.
    fn move_head(
        &mut self,
        namespace: &Arc<str>,
        event: &EventDraft,
        receipt: &Receipt,
        (batch, ord): (Uuid, i16),
    ) {
        let (Some(stream), Some(version)) = (&receipt.stream, receipt.version) else { return };
        let place = (Arc::clone(namespace), stream.clone());
        let before = self.before.get(&place).copied().unwrap_or(0);
        let head = self.heads.entry(place).or_insert(Head { before, version, entity: None });
        head.version = version;
        if receipt.op.is_some() {
            head.entity = match (event.draft.envelope.op, event.draft.body_digest) {
                (Some(Op::Deleted) | None, _) | (_, None) => Some(("deleted", None)),
                (Some(_), Some(digest)) => Some(("present", Some((batch, ord, digest)))),
            };
        }
    }

    /// Returns all rows, those that others may write, too, in one order over all nodes.
    pub(super) fn finish(mut self) -> Append {
        let number = |version: u64| i64::try_from(version).unwrap_or(i64::MAX);
        for ((namespace, stream), head) in self.heads {
            let (entity, body) = match head.entity {
                Some((entity, body)) => (Some(entity), body),
                None => (None, None),
            };
            self.append.head(NewHead {
                namespace: namespace.to_string(),
                stream,
                before: number(head.before),
                version: number(head.version),
                entity,
                body,
                changed_at: self.now,
            });
        }
        self.keys.sort_by(|one, other| {
            (&one.namespace, &one.source, &one.id).cmp(&(
                &other.namespace,
                &other.source,
                &other.id,
            ))
        });
        self.keys.into_iter().for_each(|key| self.append.key(key));
        for (namespace, Batch { id, count }) in self.batches {
            if count > 0 {
                self.append.batch(namespace.to_string(), id, count, self.now);
            }
        }
        self.append
    }
}

/// Returns a document with the ids of its events: that of the event at `ord` and of the one after it, which it was
/// mapped to; or, if its event was there before, of the one at `ord`.
fn numbered(intake: &NewIntake, batch: Uuid, ord: i16) -> NewIntake {
    let mut intake = intake.clone();
    let own = event_id(batch, ord);
    let is_mapped = intake.mapped.as_ref().is_some_and(|mapped| mapped.state == "mapped");
    let follows = match intake.event {
        Some(_) => own,
        None => event_id(batch, ord.saturating_add(1)),
    };
    intake.event = intake.event.or(Some(own));
    if let Some(mapped) = intake.mapped.as_mut().filter(|_| is_mapped) {
        mapped.event = Some(follows);
    }
    intake
}

/// Returns the leaf of an event: every column of its envelope, in their order.
fn leaf_of(id: &str, event: &NewEvent) -> [u8; 32] {
    let text = |number: i64| number.to_string();
    let (version, trust) = (event.stream_version.map(text), text(event.trust.into()));
    let (received_at, hops) = (text(event.received_at.0), text(event.hops.into()));
    let word = |flag: bool| if flag { "1" } else { "0" };
    let fields = [
        Some(event.namespace.as_str()),
        Some(id),
        Some(event.event_type.as_str()),
        event.stream.as_deref(),
        version.as_deref(),
        event.contract.as_deref(),
        event.op,
        Some(word(event.op_corrected)),
        Some(word(event.noop)),
        event.changed.as_deref(),
        Some(event.source.as_str()),
        event.claimed_source.as_deref(),
        event.source_id.as_deref(),
        Some(trust.as_str()),
        event.occurred_at.as_deref(),
        Some(received_at.as_str()),
        Some(event.correlation_id.as_str()),
        event.causation_id.as_deref(),
        Some(hops.as_str()),
        event.traceparent.as_deref(),
        event.labels.as_deref(),
    ];
    leaf(&fields, Some(event.body.as_str()), &event.salt)
}

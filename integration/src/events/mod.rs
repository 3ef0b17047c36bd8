//! Events: what happened, as data. Envelopes in the forms of CloudEvents, changes of an entity, the order in which a
//! source numbers its events, causes, filters with an index, and the pending events of a subscription.

mod append;
mod causality;
pub(crate) mod cloudevents;
mod diff;
pub(crate) mod envelope;
pub(crate) mod filter;
mod index;
mod leaf;
mod operation;
mod order;
mod pending;

pub use append::{
    Appended, Draft, Entity, First, Known, Outcome, Receipt, Refusal as AppendRefusal, StreamHead,
};
pub use causality::{Causality, Cause, MAX_HOPS, MOST_CAUSES};
pub use cloudevents::{Attribute, CloudEvent, Data, parse_batch, parse_structured, write_batch};
pub use diff::{MOST_CHANGED, changed};
pub use envelope::{Door, Envelope, LONGEST_ID, Trust};
pub use filter::{Facts, Filter, FilterDocument, Verdict};
pub use index::Index;
pub use leaf::{SALT_BYTES, leaf};
pub use operation::{Derived, Head, Op, derive};
pub use order::{Arrival, Latest, MOST_HELD, OnGap, Sequence, SourceVersion, latest};
pub use pending::{
    Judgement, KeySource, LONGEST_KEY, OnFailure, SkipReason, Standing, judge, place,
};

//! Define workflows in Rust and do their work: the builder, the worker, the client, the test kit.
//!
//! A workflow is written once, as a typed graph ([`Workflow::build`]); what comes out is plain data that the server
//! runs. Work is plain async functions behind typed handles ([`Task`], [`Undo`], [`Probe`]), run by a [`Worker`].
//! Runs are started and looked at with a [`Client`], and rehearsed without a server in the [`testkit`].
//!
//! What this crate does not do: it decides nothing about a run (those rules are `backstitch-saga`, and the server
//! applies them), and a worker keeps nothing that must survive it.

mod backoff;
mod client;
mod codec;
mod context;
mod emits;
mod error;
mod events;
mod handle;
mod handlers;
pub mod http;
mod macros;
mod schema;
mod sequence;
mod signal;
mod step;
pub mod testkit;
mod transaction;
mod waits;
mod wire;
mod worker;
mod workflow;

pub use backstitch_saga::protocol;
pub use backstitch_saga::{
    Action, Class, Definition, Empty, Event, Jitter, Join, Losers, Milestone, OnFailure, OnKill,
    OnPause, OnTimeout, OnUnknown, Payload, Release, Retry, RunId, Span, StepPath, Time, Timeouts,
    Timestamp, Tolerance, Violation,
};
pub use client::{
    Batch, Client, ClientError, Consumer, LogReader, NoResult, Pages, Registered, RunHandle,
    RunQuery, StartBuilder, contract_of,
};
pub use codec::{Codec, CodecError};
#[cfg(feature = "encryption")]
pub use codec::{Encryption, EncryptionKey};
pub use context::{CompensationContext, Forward, TaskContext, Verdict};
pub use emits::Emits;
pub use error::TaskError;
pub use events::{EventBuilder, EventType};
pub use handle::{DEFAULT_QUEUE, Probe, Task, Undo};
pub use handlers::Handlers;
pub use signal::{Received, Signal};
pub use step::{Many, MapStep, One, Shape, Step};
pub use transaction::{
    AppendInTransaction, CompleteInTransaction, StartInTransaction, StartLaterInTransaction,
};
pub use wire::{Condition, Gives, HasLength, Item, Ordered, Ref, constant, list};
pub use worker::{Drained, Worker};
pub use workflow::{InvalidWorkflow, Saga, Workflow};

/// Expansions of the macros. Not for use by hand.
#[doc(hidden)]
pub mod __wiring {
    pub use crate::wire::{Member, object, proven};
}

//! The rules of Backstitch: what should happen to a run. Pure: no I/O, no clock, no randomness, no async.
//!
//! A run is moved by commands. [`decide`] says what a command makes happen as a [`Transition`]: a [`Record`] of events,
//! and the [`Effect`]s that follow from them outside the run. [`Run::apply`] says what a record makes of a run. A
//! journal of records folded by `apply` *is* the run: the engine stores them, the test kit keeps them in memory, and
//! both get the same run. Time comes in as an argument; retry jitter is a hash of run, step and attempt.
//!
//! What this crate does not do: it stores nothing, sends nothing, waits for nothing, and does not know who is asking.

/// Returns whether this process was built and configured to have a bug: see the feature `planted-bugs`.
/// Nothing without it.
#[doc(hidden)]
#[macro_export]
macro_rules! planted {
    ($bug:literal) => {{
        #[cfg(feature = "planted-bugs")]
        let has = $crate::planted::has($bug);
        #[cfg(not(feature = "planted-bugs"))]
        let has = false;
        has
    }};
}

mod act;
pub mod bounds;
mod command;
mod definition;
mod effect;
mod envelope;
mod erase;
mod error_kind;
mod event;
mod expr;
mod family;
mod fingerprint;
mod graph;
pub mod history;
mod hold;
mod id;
mod incident;
mod json;
mod limits;
mod members;
pub mod misread;
mod payload;
#[cfg(feature = "planted-bugs")]
pub mod planted;
mod policy;
pub mod protocol;
pub mod ratio;
pub mod rehearse;
mod run;
mod spans;
mod start;
mod time;
mod undo_times;
mod validate;
mod value;
mod violation;

pub use act::Act;
pub use command::{CheckedSignal, Command, Migration, Refusal, RefusalCode, Reply, Start};
pub use definition::{
    Child, Class, Compensate, Definition, Emit, Empty, Fail, Jitter, Join, Losers, Map, Milestone,
    OnFailure, OnKill, OnPause, OnTimeout, OnUnknown, OneSignal, Release, Retraction, Retry, Sleep,
    Step, Task, Timeouts, Tolerance, Verify, Wait,
};
pub use effect::{AttemptEnd, Effect, OpenedIncident, Transition};
pub use envelope::{ENVELOPE, VALUE_ENCRYPTED, is_envelope};
pub use erase::Eraser;
pub use error_kind::ErrorKind;
pub use event::{
    Begun, By, Cause, Emission, EndBy, Erasure, Event, Fate, IncidentKind, Parent, Record,
    RequiredFact, Slot, Source,
};
pub use expr::{Bindings, EvalError, Expr, Gathered, Reference};
pub use family::{DEEPEST_DESCENDANT, Descent, MOST_DESCENDANTS, ParentWord};
pub use fingerprint::{fingerprint, is_fingerprint};
pub use graph::{Body, Graph, Node};
pub use hold::{Hold, HoldKind};
pub use id::{Action, RunId, StepPath, TaskKey, effect_key};
pub use limits::Limits;
pub use members::WrittenMembers;
pub use payload::Payload;
pub use run::conditions::{SEARCHED, check_searched};
pub use run::retry::LONGEST_RETRY_AFTER;
pub use run::{ChildAsk, ChildEnd, ChildWord, OpenEffects, OpenTask, PlanPage, Proof, Run, decide};
pub use start::{
    LABEL_LIMIT, SCHEDULE_LABELS, check_label_name, check_labels, check_reserved, check_start,
};
pub use time::{Span, Time, Timestamp};
pub use undo_times::UndoTimes;
pub use validate::check_fact;
pub use value::{order_numbers, push_string};
pub use violation::Violation;

//! Makes the rules durable: the journal, the executor, the dispatch of tasks, the timers. The only crate with SQL. It
//! decides nothing about a run (that is `backstitch-saga`) and serves no HTTP (that is `backstitch-api`).
//!
//! A command goes from [`Engine`] to the shard that owns its run (`executor`), is decided over the run in memory, and
//! is committed with others in one statement (`store::batch`). Offered tasks go to waiting workers in the same record
//! (`dispatch`), or to the table `ready`. `background` has the background tasks, `reads` the queries, `doctor` the
//! comparison of the indexes with the journals.

mod acts;
mod admission;
mod alone;
mod approvals;
mod background;
pub mod bench;
pub mod bounds;
mod charge;
mod children;
mod clock;
mod completions;
pub mod contracts;
mod cooperation;
mod counters;
pub mod crash;
mod credentials;
mod cursor;
mod damage;
mod database_clock;
mod definitions;
mod dispatch;
mod doctor;
mod edits;
mod effects;
mod engine;
mod erasure;
mod error;
mod executor;
mod flow;
mod forever;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod grants;
mod health;
mod hearing;
mod idempotency;
mod inbox;
mod incidents;
mod index_check;
pub mod ingress;
mod jobs;
mod leases;
pub mod local_postgres;
pub mod log;
mod maps;
mod node;
mod numbers;
mod options;
mod page;
mod pauses;
mod peers;
mod plans;
#[cfg(feature = "planted-bugs")]
mod planted;
mod quotas;
mod reads;
mod reports;
mod retention;
mod roles;
mod rounds;
mod schedules;
mod schemas;
mod sequence;
mod signals;
mod start;
mod status;
mod store;
pub mod subscriptions;
mod sweep;
mod tasks;
mod tree;
mod turns;
mod types;
mod undo_times;
mod versions;
mod warnings;
mod why;
mod workers;

pub use background::BackgroundTask;
pub use counters::Metrics;
pub use credentials::sessions::ConsoleSession;
pub use engine::{Engine, migrate, validate};
pub use error::Error;
pub use flow::QueueAct;
pub use idempotency::{IdempotentRequest, KeptAnswer, Reservation, Reserved};
pub use incidents::act::IncidentAct;
pub use numbers::{Family, NumberKind, Sample};
pub use options::{Options, Tuning};
pub use quotas::Ceilings;
pub use roles::{grant_server, grants_of_server};
pub use sequence::FactAct;
#[doc(hidden)]
pub use store::spaces::statements as statements_in_turns;
pub use types::{
    Credential, Diagnosis, ItemFilter, Registered, Role, RunFilter, StartedRun, Worker,
};

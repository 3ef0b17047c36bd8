//! A shop as one meets it in the wild: three services that each keep their own books, and a worker that calls them
//! for the `place-order` saga.
//!
//! - `stock`, `payment` and `shipping` are small HTTP services. Each has a **ledger** of the effects it had,
//!   deduplicates on the key of the effect, and has a **switchboard of faults**: refuse, fail, time out before or
//!   after the effect, be slow, limit the rate.
//! - the [`worker`] does the tasks of the saga by calling them.
//! - [`check`] lays runs and ledgers side by side and says whether they agree.
//!
//! The shop knows nothing of how Backstitch works inside: it uses the SDK and the shipped workflow like any user.

pub mod check;
pub mod child;
pub mod cli;
pub mod desk;
pub mod effect;
pub mod faults;
pub mod http;
pub mod ledger;
mod ledger_file;
pub mod orders;
pub mod process;
pub mod service;
pub mod worker;

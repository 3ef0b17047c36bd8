//! Backstitch over HTTP, and the `backstitch` program.
//!
//! A request goes through [`server`] (connections), `front` (request id, numbers, who is asking), an extractor
//! (`body`, `query`: everything that can be wrong with a request is said there) and a function in `routes`, which
//! asks the engine and prints the answer. Every error leaves as `application/problem+json` (`problem`).
//!
//! What this crate does not do: it decides nothing about runs (`backstitch-saga`), stores nothing
//! (`backstitch-engine`), and has no JSON of its own (`backstitch_saga::protocol`).

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod access;
mod answers;
mod app;
mod bench;
mod body;
pub mod bounds;
mod check;
pub mod cli;
mod console;
mod demo;
mod examples;
mod feed;
mod front;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod health;
mod idempotency;
mod logins;
mod metrics;
mod openapi;
mod print;
mod problem;
mod pulse;
mod query;
mod rates;
mod routes;
mod scopes;
mod server;
mod shares;
mod stream;
mod titles;
mod tls;
mod turns;

pub use app::{Access, Limits, ServerConfig};
pub use openapi::document;
pub use server::serve;
pub use tls::TlsFiles;

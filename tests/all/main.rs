//! Tests that need a database or two crates.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod api;
mod chaos;
mod cli;
mod console;
mod demo;
mod documents;
mod engine;
mod house;
mod ingress_kills;
mod ingress_scale;
mod local_postgres;
mod night;
mod packaging;
mod parity;
mod shipped;
mod tidy;

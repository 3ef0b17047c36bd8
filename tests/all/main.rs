//! Tests that need a database or two crates.

mod local_postgres;
mod tidy;

//! What the tests share: one PostgreSQL per process, a fresh migrated database per test.

pub mod node;
pub mod postgres;
pub mod processes;
pub mod server;

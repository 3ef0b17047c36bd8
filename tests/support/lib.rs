//! What the tests share: one PostgreSQL per process, a fresh migrated database per test, nodes, workers, faults.

pub mod chance;
pub mod node;
pub mod postgres;
pub mod processes;
pub mod proxy;
pub mod server;

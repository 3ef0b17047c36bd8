//! Shared parts of the tests: one PostgreSQL per process, a fresh migrated database per test, nodes, workers,
//! faults.

pub mod chance;
pub mod node;
pub mod postgres;
pub mod processes;
pub mod proxy;
pub mod server;

/// Waits until something is so.
///
/// # Panics
/// When it is not so within a minute.
pub async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !is_so().await {
        assert!(std::time::Instant::now() < until, "not within 60 s: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

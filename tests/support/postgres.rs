//! One private PostgreSQL per test process, started by the first test that needs it and stopped when the process
//! ends.

use backstitch_engine::local_postgres::{LocalPostgres, StartOptions};
use tokio::sync::OnceCell;

static SERVER: OnceCell<LocalPostgres> = OnceCell::const_new();

/// The server of this test process.
///
/// # Panics
/// When it cannot be started: no test that asks for it could go on.
pub async fn server() -> &'static LocalPostgres {
    let start = || async { LocalPostgres::start(StartOptions::default()).await };
    SERVER.get_or_try_init(start).await.unwrap_or_else(|error| panic!("{error}"))
}

//! One private PostgreSQL per test process, and a fresh migrated database for each test that asks.

use std::sync::atomic::{AtomicU32, Ordering};

use backstitch_engine::local_postgres::{LocalPostgres, StartOptions};
use tokio::sync::OnceCell;

static SERVER: OnceCell<LocalPostgres> = OnceCell::const_new();
static TEMPLATE: OnceCell<()> = OnceCell::const_new();
static NEXT: AtomicU32 = AtomicU32::new(0);

/// The role that nodes of tests connect as: it reads and writes rows, and owns nothing.
const SERVER_ROLE: &str = "server_of_tests";

/// Returns the URL with which a node connects to the database of `url`, which is the owner's. A pooler's stays as it
/// is.
#[must_use]
pub fn as_server(url: &str) -> String {
    url.replace("://backstitch@localhost/", &format!("://{SERVER_ROLE}@localhost/"))
}

/// Brings the schema of a database up to date, and gives the role of nodes its rights.
///
/// # Panics
/// When one of them fails.
pub async fn migrate(url: &str) {
    backstitch_engine::migrate(url).await.expect("migrations");
    backstitch_engine::grant_server(url, SERVER_ROLE, None).await.expect("rights");
}

/// Returns the server of this test process, started by the first test that needs it and stopped when the process ends.
///
/// # Panics
/// When it cannot be started: no test that asks for it could go on.
pub async fn server() -> &'static LocalPostgres {
    // Hundreds of databases have hundreds of thousands of files. A checkpoint that waits for the disk for each of them
    // takes minutes, and a machine that stops ends the tests anyway.
    let settings = vec![("fsync".to_owned(), "off".to_owned())];
    let options = StartOptions { settings, ..StartOptions::default() };
    let start = || async { LocalPostgres::start(options).await };
    SERVER.get_or_try_init(start).await.unwrap_or_else(|error| panic!("{error}"))
}

/// Returns the URL of a migrated database that nobody else uses.
///
/// # Panics
/// When there is none to be had.
pub async fn database() -> String {
    let server = server().await;
    let template = || async {
        server.create_database("template_of_tests").await.expect("an empty database");
        migrate(&server.url("template_of_tests")).await;
    };
    TEMPLATE.get_or_init(template).await;
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    server.copy_database(&name, "template_of_tests").await.expect("a copy of the template");
    server.url(&name)
}

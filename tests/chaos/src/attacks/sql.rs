//! Attacks by the functions for applications that share the database.

use std::sync::Arc;

use sqlx::{Connection as _, PgConnection};

use super::arms::Arms;
use super::scene::ATTACKER;

/// Starts with inputs far beyond what REST takes, and starts by the thousand.
pub(super) async fn starts(arms: Arc<Arms>) -> anyhow::Result<()> {
    let task =
        serde_json::json!({ "name": "h", "class": "read_only", "input": { "path": "/input" } });
    let steps = [serde_json::json!({ "id": "a", "task": task })];
    arms.must_register(&serde_json::json!({ "name": "sql", "version": 1, "steps": steps })).await?;
    let mut connection = PgConnection::connect(&arms.orders.database_url).await?;
    arms.prepared().await;
    let start = "select backstitch.start_run('sql', to_jsonb(repeat('x', $1)), namespace => $2) \
        from generate_series(1, $3)";
    for (bytes, count) in
        [(100_000_000, 1), (20_000_000, 1), (250_000, 100), (10, 1_000)].iter().cycle()
    {
        if !arms.goes_on() {
            break;
        }
        let asked = sqlx::query(start).bind(bytes).bind(ATTACKER).bind(count);
        match asked.execute(&mut connection).await {
            Ok(_) => arms.note(format!("sql: {bytes} bytes taken")),
            Err(error) => arms.note(match error.as_database_error() {
                Some(refused) => format!("sql: {bytes} bytes refused: {}", refused.message()),
                None => format!("sql: {error}"),
            }),
        }
    }
    Ok(())
}

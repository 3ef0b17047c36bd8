//! Runs that were undone last.

use backstitch_saga::RunId;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

/// Returns the newest runs of a workflow that were undone, at most `most`, among the `lately` newest of the namespace.
pub(crate) async fn undone(
    connection: &mut PgConnection,
    namespace: &str,
    workflow: &str,
    (lately, most): (i64, i64),
) -> Result<Vec<RunId>, sqlx::Error> {
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "-- runs_undone\n\
         select u.id from (select id, workflow from runs where namespace = $1 \
           and outcome between 'compensated' and 'compensated' order by outcome desc, id desc limit $3) u \
         where u.workflow = $2 order by u.id desc limit $4",
    )
    .bind(namespace)
    .bind(workflow)
    .bind(lately)
    .bind(most)
    .fetch_all(connection)
    .await?;
    Ok(ids.into_iter().map(RunId).collect())
}

//! The keys of start requests.

use std::collections::HashMap;

use backstitch_saga::RunId;
use sqlx::Row;
use sqlx::postgres::PgConnection;

/// A key as it was asked for: namespace, key, workflow.
pub(crate) type RunKey = (String, String, String);

/// The runs and input digests that stand under `keys`.
pub(crate) async fn find(
    connection: &mut PgConnection,
    keys: &[RunKey],
) -> Result<HashMap<RunKey, (RunId, Vec<u8>)>, sqlx::Error> {
    let column = |pick: fn(&RunKey) -> &String| keys.iter().map(|key| pick(key).as_str()).collect();
    let namespaces: Vec<&str> = column(|key| &key.0);
    let names: Vec<&str> = column(|key| &key.1);
    let workflows: Vec<&str> = column(|key| &key.2);
    let rows = sqlx::query(
        "-- run_keys_find\n\
         select k.namespace, k.key, k.workflow, k.run_id, k.input_digest \
         from unnest($1::text[], $2::text[], $3::text[]) as w(namespace, key, workflow) \
         join run_keys k on (k.namespace, k.key, k.workflow) = (w.namespace, w.key, w.workflow)",
    )
    .bind(namespaces)
    .bind(names)
    .bind(workflows)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let key = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            Ok((key, (RunId(row.try_get(3)?), row.try_get(4)?)))
        })
        .collect()
}

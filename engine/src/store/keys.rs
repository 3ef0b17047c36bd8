//! The keys of start requests.

use std::collections::HashMap;

use backstitch_saga::RunId;
use sqlx::Row;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

/// A key as it was asked for: namespace, key, workflow.
pub(crate) type RunKey = (String, String, String);

/// Content of a key.
pub(crate) struct Holder {
    /// The run that it started.
    pub(crate) run: RunId,
    /// The digest of the input that came with it; `None` when the run was erased.
    pub(crate) input_digest: Option<Vec<u8>>,
}

/// Finds the runs that `keys` started.
pub(crate) async fn find(
    connection: &mut PgConnection,
    keys: &[RunKey],
) -> Result<HashMap<RunKey, Holder>, sqlx::Error> {
    let column = |pick: fn(&RunKey) -> &String| keys.iter().map(|key| pick(key).as_str()).collect();
    let namespaces: Vec<&str> = column(|key| &key.0);
    let names: Vec<&str> = column(|key| &key.1);
    let workflows: Vec<&str> = column(|key| &key.2);
    let rows = sqlx::query(
        "-- run_keys_find\n\
         select w.namespace, w.key, w.workflow, coalesce(k.run_id, e.run_id), k.input_digest \
         from unnest($1::text[], $2::text[], $3::text[]) as w(namespace, key, workflow) \
         left join run_keys k on (k.namespace, k.key, k.workflow) = (w.namespace, w.key, w.workflow) \
         left join erased_keys e on k.run_id is null \
           and (e.namespace, e.digest) = (w.namespace, backstitch.key_digest(w.namespace, w.workflow, w.key)) \
         where k.run_id is not null or e.run_id is not null",
    )
    .bind(namespaces)
    .bind(names)
    .bind(workflows)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let key = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let holder = Holder { run: RunId(row.try_get(3)?), input_digest: row.try_get(4)? };
            Ok((key, holder))
        })
        .collect()
}

/// Finds those of these starts, each a key and a workflow, whose key has started a run of another workflow and none of
/// that: the key, the other workflow and its run.
pub(crate) async fn elsewhere(
    connection: &mut PgConnection,
    namespace: &str,
    starts: &[(&str, &str)],
) -> Result<Vec<(String, String, RunId)>, sqlx::Error> {
    let (keys, workflows): (Vec<&str>, Vec<&str>) = starts.iter().copied().unzip();
    let rows = sqlx::query(
        "-- run_keys_elsewhere\n\
         select distinct on (k.key) k.key, k.workflow, k.run_id \
         from unnest($2::text[], $3::text[]) as w(key, workflow) \
         join run_keys k on k.namespace = $1 and k.key = w.key and k.workflow <> w.workflow \
         where not exists (select 1 from run_keys o where (o.namespace, o.key, o.workflow) = ($1, w.key, w.workflow)) \
         order by k.key, k.run_id",
    )
    .bind(namespace)
    .bind(keys)
    .bind(workflows)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, RunId(row.try_get(2)?)))).collect()
}

/// Returns the number of these starts, each by its key and workflow or by the id that it was given, that
/// have begun a run.
pub(crate) async fn begun(
    connection: &mut PgConnection,
    namespace: &str,
    starts: &[(Option<&str>, &str, Option<RunId>)],
) -> Result<u32, sqlx::Error> {
    let keys: Vec<Option<&str>> = starts.iter().map(|(key, ..)| *key).collect();
    let workflows: Vec<&str> = starts.iter().map(|(_, workflow, _)| *workflow).collect();
    let ids: Vec<Option<Uuid>> = starts.iter().map(|(.., id)| id.map(|RunId(id)| id)).collect();
    let count: i64 = sqlx::query_scalar(
        "-- run_keys_begun\n\
         select count(*) from unnest($2::text[], $3::text[], $4::uuid[]) as w(key, workflow, id) \
         left join lateral (select true as found from run_keys k \
           where (k.namespace, k.key, k.workflow) = ($1, w.key, w.workflow) limit 1) k on true \
         left join lateral (select true as found from runs r where r.id = w.id and r.namespace = $1 limit 1) r on true \
         where k.found or r.found",
    )
    .bind(namespace)
    .bind(keys)
    .bind(workflows)
    .bind(ids)
    .fetch_one(connection)
    .await?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

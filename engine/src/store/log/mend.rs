//! Heads of logs that do not agree with the positions that were given. The positions are the truth: the head of a
//! namespace is the last of them, and its horizon lies before the first.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row};

use crate::store::spaces::Found;

/// Namespaces of one statement.
const SPACES: usize = 200;

/// A head that is lost or wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WrongHead {
    pub(crate) namespace: String,
    /// Position and horizon that it should have.
    pub(crate) right: (i64, i64),
    /// Position and horizon that it has; `None` when its row is lost.
    pub(crate) found: Option<(i64, i64)>,
}

fn wrong_head(row: &PgRow) -> Result<WrongHead, sqlx::Error> {
    let position: Option<i64> = row.try_get(4)?;
    let horizon: Option<i64> = row.try_get(5)?;
    Ok(WrongHead {
        namespace: row.try_get(1)?,
        right: (row.try_get(2)?, row.try_get(3)?),
        found: position.zip(horizon),
    })
}

/// Finds heads after the namespace `after` that are lost, lie before the last position, or have a horizon that is not
/// before the first.
pub(crate) async fn wrong_heads(
    connection: &mut PgConnection,
    after: &str,
) -> Result<Found<WrongHead>, sqlx::Error> {
    let text = format!(
        "-- log_heads_wrong\n\
         with recursive spaces (namespace) as (\
           (select p.namespace from position p where p.namespace > $1 order by p.namespace limit 1) \
           union all select n.namespace from spaces s cross join lateral (select p.namespace from position p \
             where p.namespace > s.namespace order by p.namespace limit 1) n), \
         visited as materialized (select namespace from spaces limit {SPACES}), \
         turn as materialized (select case when count(*) = {SPACES} then max(namespace) end as last from visited), \
         wrong as (select v.namespace, l.upto, f.horizon, h.position, h.horizon as seen from visited v \
           cross join lateral (select p.upto from position p where p.namespace = v.namespace \
             order by p.upto desc limit 1) l \
           cross join lateral (select p.upto - p.n as horizon from position p where p.namespace = v.namespace \
             order by p.upto limit 1) f \
           left join log_head h on h.namespace = v.namespace \
           where h.position is null or h.position < l.upto or h.horizon <> f.horizon) \
         select t.last, w.namespace, w.upto, w.horizon, w.position, w.seen from turn t left join wrong w on true"
    );
    let rows = sqlx::query(AssertSqlSafe(text)).bind(after).fetch_all(connection).await?;
    Found::read(&rows, wrong_head)
}

/// Sets a head right unless it has been changed since it was found. Returns whether it did.
pub(crate) async fn set_head_right(
    connection: &mut PgConnection,
    head: &WrongHead,
) -> Result<bool, sqlx::Error> {
    let text = match head.found {
        None => {
            "-- log_head_restore\n\
             insert into log_head (namespace, position, horizon) select $1, $2, $3 \
             where $4::bigint is null and $5::bigint is null on conflict do nothing"
        }
        Some(_) => {
            "-- log_head_correct\n\
             update log_head set position = greatest(position, $2), horizon = $3 \
             where namespace = $1 and position = $4 and horizon = $5"
        }
    };
    let (position, horizon) = head.right;
    let done = sqlx::query(text)
        .bind(&head.namespace)
        .bind(position)
        .bind(horizon)
        .bind(head.found.map(|(position, _)| position))
        .bind(head.found.map(|(_, horizon)| horizon))
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

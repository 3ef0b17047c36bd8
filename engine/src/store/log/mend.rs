//! Heads of logs that do not agree with the positions that were given. The positions are the truth: the head of a
//! namespace is the last of them, and its horizon lies before the first. Batches of events that have no position and
//! are not announced, and the positions that are missing between others.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use crate::store::moment::Moment;
use crate::store::spaces::Found;

/// Namespaces of one statement.
const SPACES: usize = 200;
/// Rows of events that one statement looks at.
const LOOKED_AT: i64 = 10_000;
/// Gaps that are read at most.
const GAPS: i64 = 10_000;

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

/// Batches that one statement found, and after which batch more may follow.
#[derive(Debug, Default)]
pub(crate) struct Unnumbered {
    /// Batches with their namespaces.
    pub(crate) found: Vec<(String, Uuid)>,
    pub(crate) last: Option<Uuid>,
}

/// Finds batches after `after` that have no position and are not announced. One statement sees both tables in one
/// state, so that a batch that is being numbered is in one of them.
pub(crate) async fn unnumbered(
    connection: &mut PgConnection,
    after: Uuid,
) -> Result<Unnumbered, sqlx::Error> {
    let rows = sqlx::query(
        "-- log_unnumbered\n\
         with page as materialized (select x.batch from (\
           (select e.batch from event e where e.batch > $1 order by e.batch limit $2) union all \
           (select m.batch from milestone m where m.batch > $1 order by m.batch limit $2)) x order by x.batch limit $2), \
         turn as materialized (select case when (select count(*) from page) = $2 \
           then (select p.batch from page p order by p.batch desc limit 1) end as last), \
         bare as materialized (select distinct p.batch from page p \
           where not exists (select from position o where o.batch = p.batch)), \
         lost as materialized (select b.batch, coalesce((select e.namespace from event e where e.batch = b.batch limit 1), \
             (select m.namespace from milestone m where m.batch = b.batch)) as namespace \
           from bare b where not exists (select from announced a where a.batch = b.batch)) \
         select t.last, l.namespace, l.batch from turn t left join lost l on true",
    )
    .bind(after)
    .bind(LOOKED_AT)
    .fetch_all(connection)
    .await?;
    let mut unnumbered = Unnumbered::default();
    for row in &rows {
        unnumbered.last = row.try_get(0)?;
        let (namespace, batch): (Option<String>, Option<Uuid>) = (row.try_get(1)?, row.try_get(2)?);
        unnumbered.found.extend(namespace.zip(batch));
    }
    Ok(unnumbered)
}

/// Returns which of these batches of a namespace still have no position and are not announced, in their order, with the
/// number of their events.
pub(crate) async fn still_unnumbered(
    connection: &mut PgConnection,
    namespace: &str,
    batches: &[Uuid],
) -> Result<Vec<(Uuid, i16)>, sqlx::Error> {
    let rows = sqlx::query(
        "-- log_still_unnumbered\n\
         select e.batch, max(e.n)::smallint from (\
           select batch, ord + 1 as n from event where batch = any($1) and namespace = $2 union all \
           select batch, n from milestone where batch = any($1) and namespace = $2) e \
         where not exists (select from position p where p.batch = e.batch) \
         and not exists (select from announced a where a.batch = e.batch) group by e.batch order by e.batch",
    )
    .bind(batches)
    .bind(namespace)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Positions of a namespace, given and missing. A gap lies after its first number and goes up to its second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Positions {
    /// Position and horizon of the head.
    pub(crate) head: (i64, i64),
    /// Position after which the first batch begins, and the batch.
    pub(crate) first: Option<(i64, Uuid)>,
    /// The last position.
    pub(crate) last: Option<i64>,
    /// Gaps between batches.
    pub(crate) gaps: Vec<(i64, i64)>,
}

/// Reads which positions of a namespace there are. It has a head, which is locked.
pub(crate) async fn positions(
    connection: &mut PgConnection,
    namespace: &str,
) -> Result<Positions, sqlx::Error> {
    let row = sqlx::query(
        "-- log_positions\n\
         select h.position, h.horizon, f.begin, f.batch, l.upto from log_head h \
         left join lateral (select p.upto - p.n as begin, p.batch from position p where p.namespace = h.namespace \
           order by p.upto limit 1) f on true \
         left join lateral (select p.upto from position p where p.namespace = h.namespace \
           order by p.upto desc limit 1) l on true where h.namespace = $1",
    )
    .bind(namespace)
    .fetch_one(&mut *connection)
    .await?;
    let (begin, batch): (Option<i64>, Option<Uuid>) = (row.try_get(2)?, row.try_get(3)?);
    let gaps = sqlx::query(
        "-- log_gaps\n\
         select before, begin from (select upto - n as begin, lag(upto) over (order by upto) as before \
           from position where namespace = $1) p where before < begin order by before limit $2",
    )
    .bind(namespace)
    .bind(GAPS)
    .fetch_all(connection)
    .await?;
    Ok(Positions {
        head: (row.try_get(0)?, row.try_get(1)?),
        first: begin.zip(batch),
        last: row.try_get(4)?,
        gaps: gaps
            .iter()
            .map(|gap| Ok((gap.try_get(0)?, gap.try_get(1)?)))
            .collect::<Result<_, sqlx::Error>>()?,
    })
}

/// Placement of batches without a position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Placement {
    /// Batches that get a missing position back: the batch, the position of its last event, and the number of its
    /// events.
    pub(crate) placed: Vec<(Uuid, i64, i16)>,
    /// Batches that are announced again, with the number of their events.
    pub(crate) announced: Vec<(Uuid, i16)>,
}

/// Writes the placement of batches of a namespace whose head is locked.
pub(crate) async fn place(
    connection: &mut PgConnection,
    namespace: &str,
    placement: &Placement,
    at: Moment,
) -> Result<(), sqlx::Error> {
    let Placement { placed, announced } = placement;
    let batches = placed.iter().map(|(batch, ..)| *batch).collect::<Vec<_>>();
    let upto = placed.iter().map(|(_, upto, _)| *upto).collect::<Vec<_>>();
    let counts = placed.iter().map(|(.., n)| *n).collect::<Vec<_>>();
    sqlx::query(
        "-- log_positions_restore\n\
         insert into position (namespace, upto, batch, n) \
         select $1, x.upto, x.batch, x.n from unnest($2::uuid[], $3::bigint[], $4::smallint[]) as x(batch, upto, n)",
    )
    .bind(namespace)
    .bind(batches)
    .bind(upto)
    .bind(counts)
    .execute(&mut *connection)
    .await?;
    let (batches, counts): (Vec<Uuid>, Vec<i16>) = announced.iter().copied().unzip();
    sqlx::query(
        "-- log_announce_again\n\
         insert into announced (namespace, batch, n, at) \
         select $1, x.batch, x.n, $4 from unnest($2::uuid[], $3::smallint[]) with ordinality as x(batch, n, place) \
         order by x.place",
    )
    .bind(namespace)
    .bind(batches)
    .bind(counts)
    .bind(at)
    .execute(connection)
    .await?;
    Ok(())
}

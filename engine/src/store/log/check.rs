//! Finds contradictions between documents, imports and events.

use sqlx::Row;
use sqlx::postgres::PgConnection;

/// Something that does not fit.
#[derive(Debug)]
pub(crate) struct Misfit {
    pub(crate) namespace: String,
    /// The object with the contradiction.
    pub(crate) name: String,
    pub(crate) is: i64,
    pub(crate) should_be: i64,
}

/// A check, with the statement that finds its contradictions. Each sees one state of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// Events that have no position and are not announced.
    Unnumbered,
    /// Positions that are not dense.
    Gap,
    /// Heads of logs beyond their last position. `wrong_heads` finds those before it or lost, which can be set right.
    Head,
    /// Batches with another number of events than their positions.
    Batch,
    /// Streams whose versions are not dense, or whose head is behind them.
    Stream,
    /// Documents without their event.
    Document,
    /// Imports that have counted another number of rows than they have.
    Import,
    /// Subscriptions that have counted another number of pending events than they have, or that are not there.
    Pending,
    /// Keys of subscriptions whose first event waits for one that is not there.
    Key,
}

impl Check {
    pub(crate) const ALL: [Check; 9] = [
        Check::Unnumbered,
        Check::Gap,
        Check::Head,
        Check::Batch,
        Check::Stream,
        Check::Document,
        Check::Import,
        Check::Pending,
        Check::Key,
    ];

    fn statement(self) -> &'static str {
        match self {
            Check::Unnumbered => {
                "-- doctor_unnumbered\n\
                 select e.namespace, e.batch::text, 0::bigint, sum(e.n)::bigint \
                 from (select namespace, batch, 1 as n from event union all select namespace, batch, n from milestone) e \
                 where not exists (select from position p where p.batch = e.batch) \
                 and not exists (select from announced a where a.batch = e.batch) group by 1, 2 order by 1, 2 limit $1"
            }
            Check::Gap => {
                "-- doctor_gap\n\
                 select p.namespace, p.batch::text, p.upto - p.n, coalesce(p.before, h.horizon) from (select namespace, batch, upto, n, \
                   lag(upto) over (partition by namespace order by upto) as before from position) p \
                 join log_head h on h.namespace = p.namespace \
                 where coalesce(p.before, h.horizon) <> p.upto - p.n order by 1, p.upto limit $1"
            }
            Check::Head => {
                "-- doctor_head\n\
                 select p.namespace, p.namespace, h.position, p.upto \
                 from (select namespace, max(upto) as upto from position group by namespace) p \
                 join log_head h on h.namespace = p.namespace where h.position > p.upto order by 1 limit $1"
            }
            Check::Batch => {
                "-- doctor_batch\n\
                 select p.namespace, p.batch::text, coalesce(e.n, 0), p.n::bigint from position p \
                 left join (select batch, sum(n)::bigint as n from (select batch, 1 as n from event \
                   union all select batch, json_array_length(told::json) from milestone) a group by batch) e on e.batch = p.batch \
                 where e.n is distinct from p.n order by 1, p.upto limit $1"
            }
            Check::Stream => {
                "-- doctor_stream\n\
                 select e.namespace, e.stream, coalesce(s.version, 0), e.first + e.n - 1 \
                 from (select namespace, stream, min(stream_version) as first, max(stream_version) as last, count(*) as n \
                   from event where stream is not null group by namespace, stream) e \
                 left join stream s on s.namespace = e.namespace and s.stream = e.stream \
                 where s.version is null or s.version <> e.last or e.last <> e.first + e.n - 1 order by 1, 2 limit $1"
            }
            Check::Document => {
                "-- doctor_document\n\
                 select i.namespace, i.id::text, 0::bigint, 1::bigint \
                 from intake i cross join lateral (values (i.event), (i.mapped_event)) as x(event) where x.event is not null \
                 and not exists (select from event e where e.batch = overlay(x.event::text placing '0000' from 33 for 4)::uuid \
                   and e.ord = ('x' || right(x.event::text, 4))::bit(16)::integer) order by 2 limit $1"
            }
            Check::Import => {
                "-- doctor_import\n\
                 select i.namespace, i.id::text, i.accepted + i.duplicates + i.refused + coalesce(p.rows, 0), i.rows from import i \
                 left join (select import, sum(rows) as rows from import_piece group by import) p on p.import = i.id \
                 where i.state <> 'cancelled' and i.rows <> i.accepted + i.duplicates + i.refused + coalesce(p.rows, 0) \
                 order by 2 limit $1"
            }
            Check::Pending => {
                "-- doctor_pending\n\
                 select coalesce(s.namespace, e.namespace), coalesce(s.name, e.name), coalesce(s.pending, 0), coalesce(e.n, 0) \
                 from subscription s full join (select namespace, name, count(*) as n from subscription_event group by namespace, name) e \
                   on e.namespace = s.namespace and e.name = s.name \
                 where coalesce(s.pending, 0) <> coalesce(e.n, 0) order by 1, 2 limit $1"
            }
            Check::Key => {
                "-- doctor_key\n\
                 select f.namespace, f.name || ', key ' || f.key, f.position, f.position from (select distinct on (namespace, name, key) \
                   namespace, name, key, state, position from subscription_event where key is not null \
                   order by namespace, name, key, generation, position) f where f.state = 'waiting' order by 1, 2 limit $1"
            }
        }
    }
}

/// Finds at most `limit` things that do not fit.
pub(crate) async fn misfits(
    connection: &mut PgConnection,
    check: Check,
    limit: i64,
) -> Result<Vec<Misfit>, sqlx::Error> {
    let rows = sqlx::query(check.statement()).bind(limit).fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            Ok(Misfit {
                namespace: row.try_get(0)?,
                name: row.try_get(1)?,
                is: row.try_get(2)?,
                should_be: row.try_get(3)?,
            })
        })
        .collect()
}

//! Selection of a job's items: open incidents or runs, by a filter.

use backstitch_saga::Time;
use backstitch_saga::protocol::{IncidentFilter, JobItem};
use sqlx::Row;
use sqlx::postgres::{PgConnection, Postgres};
use sqlx::query_builder::QueryBuilder;

use super::item;
use crate::RunFilter;
use crate::store::{incidents, runs};

/// The items of a job.
#[derive(Clone, Debug)]
pub(crate) enum Many {
    Incidents(IncidentFilter),
    Runs(Box<RunFilter>),
}

/// Adds the rows that a job is made for: run, incident, fingerprint; oldest first.
pub(super) fn push_many(
    query: &mut QueryBuilder<Postgres>,
    namespace: &str,
    many: &Many,
    now: Time,
) {
    match many {
        Many::Incidents(filter) => {
            query.push(
                "select i.run_id, i.incident, i.fingerprint, \
                 row_number() over (order by i.opened_at, i.run_id, i.incident) as position \
                 from incidents i where i.namespace = ",
            );
            query.push_bind(namespace.to_owned());
            incidents::push_filter(query, filter, now);
        }
        Many::Runs(filter) => {
            query.push(
                "select r.id as run_id, null::integer as incident, null::text as fingerprint, \
                 row_number() over (order by r.id) as position from runs r where r.namespace = ",
            );
            query.push_bind(namespace.to_owned());
            runs::push_filter(query, namespace, filter, None);
        }
    }
}

/// Returns the number of items that a job would have, and the first of them.
pub(crate) async fn plan(
    connection: &mut PgConnection,
    namespace: &str,
    many: &Many,
    now: Time,
    first: i64,
) -> Result<(i64, Vec<JobItem>), sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new("-- jobs_plan\nwith many as (");
    push_many(&mut query, namespace, many, now);
    query.push(
        ") select m.position::integer, m.run_id, m.incident, 'waiting', null::text, null::text, null::timestamptz, \
         (select count(*) from many) from many m order by m.position limit ",
    );
    query.push_bind(first);
    let rows = query.build().fetch_all(connection).await?;
    let count = rows.first().map_or(Ok(0), |row| row.try_get(7))?;
    Ok((count, rows.iter().map(item).collect::<Result<_, _>>()?))
}

//! Namespaces that have something waiting in a table, found one after the other by an index that begins with the
//! namespace, so that rows of each are read however many rows another has.

use sqlx::postgres::PgRow;
use sqlx::{Row, ValueRef};

/// Number of namespaces that one statement visits.
const VISITED: usize = 512;

/// Rows that wait in a table with an index on the namespace and `by`, of the rows that satisfy `when`.
pub(crate) struct Waiting {
    pub(crate) table: &'static str,
    /// The condition of the index.
    pub(crate) when: &'static str,
    /// The column of the index that follows the namespace.
    pub(crate) by: &'static str,
    /// Condition on `first`, the least value of `by` in a namespace; what follows reads nothing of one that fails it.
    pub(crate) due: &'static str,
    /// Number of namespaces with a turn in one statement.
    pub(crate) spaces: usize,
}

impl Waiting {
    /// Returns the beginning of a statement: the common table expressions `due (namespace)`, the namespaces after `$1`
    /// that have their turn, and `turn (many, last)`, their number and the one after which more may follow.
    pub(crate) fn due_spaces(&self) -> String {
        let Waiting { table, when, by, due, spaces } = self;
        format!(
            "with recursive spaces (namespace, first) as (\
             (select t.namespace, t.{by} from {table} t where {when} and t.namespace > $1 \
               order by t.namespace, t.{by} limit 1) \
             union all select n.namespace, n.{by} from spaces s cross join lateral (select t.namespace, t.{by} \
               from {table} t where {when} and t.namespace > s.namespace order by t.namespace, t.{by} limit 1) n), \
             visited as materialized (select namespace, first from spaces limit {VISITED}), \
             due as materialized (select namespace from visited where {due} order by namespace limit {spaces}), \
             turn as materialized (select d.many, case when d.many = {spaces} then d.last \
               when v.many = {VISITED} then v.last end as last from \
               (select count(*) as many, max(namespace) as last from due) d, \
               (select count(*) as many, max(namespace) as last from visited) v)"
        )
    }
}

/// Returns the share of one namespace in a `limit`, as an expression of SQL.
pub(crate) fn share(limit: &str) -> String {
    format!("(select greatest({limit} / greatest(many, 1), 1) from turn)")
}

/// Returns the statements that read rows of each namespace by an index, to look at their plans.
#[must_use]
pub fn statements() -> Vec<String> {
    vec![
        super::starts::start_requests_reserve(),
        super::schedules::schedules_take(),
        super::jobs::jobs_claim(),
        super::signals::early_signals_deliverable(),
        super::fences::fences_completed(),
        super::sequence::serial_keys_to_tell(),
        super::sequence::sequenced_all_standing(),
        super::facts::awaited_overdue(),
        super::pauses::pauses_over(),
        super::versions::migrations_claim(),
    ]
}

/// Result of one statement.
#[derive(Debug)]
pub(crate) struct Found<T> {
    pub(crate) rows: Vec<T>,
    /// The namespace after which more may follow; `None` when all were asked.
    pub(crate) last: Option<String>,
}

impl<T> Found<T> {
    /// Reads rows whose first column is `turn.last` and whose second is null where nothing was found.
    pub(crate) fn read(
        rows: &[PgRow],
        read: impl Fn(&PgRow) -> Result<T, sqlx::Error>,
    ) -> Result<Found<T>, sqlx::Error> {
        let last = rows.first().map(|row| row.try_get(0)).transpose()?.flatten();
        let found = rows.iter().filter(|row| row.try_get_raw(1).is_ok_and(|one| !one.is_null()));
        Ok(Found { rows: found.map(read).collect::<Result<_, _>>()?, last })
    }
}

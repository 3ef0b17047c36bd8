//! Work that continues in pieces, one node at a time: imports and reprocessings. A node takes it for a while; after its
//! death others may take it.

use backstitch_saga::Time;
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::moment::Moment;
use super::nodes::is_gone;

/// A table of such work. Its rows have `id`, `namespace`, `state`, `due_at`, `taken_by`, `taken_until` and `waits_for`.
pub(crate) struct LongWork {
    pub(crate) table: &'static str,
    /// The columns of a row, of the alias `t`.
    pub(crate) columns: &'static str,
    /// A further condition on a row `o` that is taken.
    pub(crate) when: &'static str,
}

impl LongWork {
    /// Takes what has its turn, at most one row of a namespace, so that no other node does before `until`. What a node
    /// that is gone had taken is free at once.
    pub(crate) async fn take(
        &self,
        connection: &mut PgConnection,
        (node, dead_after): (i32, i64),
        (now, until): (Time, Time),
        limit: i64,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let LongWork { table, columns, when } = self;
        let is_free = |row: &str| {
            let gone = is_gone(&format!("{row}.taken_by"), "$5");
            format!("({row}.taken_until is null or {row}.taken_until <= $2 or {gone})")
        };
        let (o, p) = (is_free("o"), is_free("p"));
        let text = format!(
            "-- {table}_take\n\
             with due as (select distinct on (o.namespace) o.id, o.due_at from {table} o \
                 where o.state = 'running' and o.due_at <= $2 and {o} {when} \
                 order by o.namespace, o.due_at), \
               picked as (select p.id from {table} p where p.id in (select d.id from due d order by d.due_at limit $4) \
                 and p.state = 'running' and {p} for update skip locked) \
             update {table} t set taken_by = $1, taken_until = $3 from picked p where t.id = p.id returning {columns}"
        );
        sqlx::query(AssertSqlSafe(text))
            .bind(node)
            .bind(Moment(now))
            .bind(Moment(until))
            .bind(limit)
            .bind(dead_after)
            .fetch_all(connection)
            .await
    }

    /// Says why it does not go on before `due_at`.
    pub(crate) async fn put_off(
        &self,
        connection: &mut PgConnection,
        id: Uuid,
        why: &str,
        due_at: Time,
    ) -> Result<(), sqlx::Error> {
        let LongWork { table, .. } = self;
        let text = format!(
            "-- {table}_put_off\n\
             update {table} set waits_for = $2, due_at = $3, taken_by = null, taken_until = null where id = $1 and state = 'running'"
        );
        let query = sqlx::query(AssertSqlSafe(text)).bind(id).bind(why).bind(Moment(due_at));
        query.execute(connection).await.map(drop)
    }

    /// Finds a row of a namespace.
    pub(crate) async fn find(
        &self,
        connection: &mut PgConnection,
        namespace: &str,
        id: Uuid,
    ) -> Result<Option<PgRow>, sqlx::Error> {
        let LongWork { table, columns, .. } = self;
        let text = format!(
            "-- {table}_find\nselect {columns} from {table} t where t.namespace = $1 and t.id = $2"
        );
        let query = sqlx::query(AssertSqlSafe(text)).bind(namespace).bind(id);
        query.fetch_optional(connection).await
    }
}

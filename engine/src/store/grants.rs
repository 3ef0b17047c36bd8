//! Rights of the database role of a server: to read and write rows, and nothing else. Who owns the tables
//! grants it.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};

use super::schema::{self, Owner};
use super::{Database, migrations};
use crate::Error;

/// Tables whose rows are never changed nor deleted by a server: the journal, events, and what people did and said.
const ADDED_TO: [&str; 6] =
    ["journal", "event", "milestone", "acts", "acts_beside_runs", "incident_notes"];
/// Tables that a server only reads.
const READ: [&str; 4] = ["_sqlx_migrations", "acts_replaced", "upkeep", "lease_keys"];
/// Functions that the owner runs for a server.
const FUNCTIONS: [&str; 10] = [
    "make_partition(text, date)",
    "drop_week(date, timestamptz)",
    "drop_event_week(date, timestamptz)",
    "delete_runs(uuid[], timestamptz, integer)",
    "erase_run(uuid, integer[], text[], text[])",
    "key_digest(text, text, text)",
    "count_new_keys(text[], text[], text[], text)",
    "stop_writers()",
    "set_acts_aside(uuid)",
    "first_id(date)",
];

/// Returns the roles that have the rights of a server.
pub(crate) async fn servers(connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "-- grants_servers\n\
         select distinct pg_get_userbyid(a.grantee)::text from pg_class c cross join aclexplode(c.relacl) a \
         where c.oid = 'journal'::regclass and a.privilege_type = 'INSERT' and a.grantee not in (0, c.relowner)",
    )
    .fetch_all(connection)
    .await
}

/// Gives `role` the rights of a server, and takes from it what it has beyond them.
pub(crate) async fn grant(connection: &mut PgConnection, role: &str) -> Result<(), Error> {
    let text = script(connection, role).await?;
    let mut transaction = connection.begin().await?;
    sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(())
}

/// See [`crate::grant_server`].
pub(crate) async fn of_server(url: &str, role: &str, keep: Option<Duration>) -> Result<(), Error> {
    let mut connection = as_owner(url).await?;
    make_role(&mut connection, role).await?;
    let may: bool = sqlx::query_scalar(
        "-- grants_is_owner\nselect pg_has_role($1, c.relowner, 'usage') \
        from pg_class c where c.oid = 'journal'::regclass",
    )
    .bind(role)
    .fetch_one(&mut connection)
    .await?;
    if may {
        return Err(Error::Store(format!(
            "the role {role} owns the tables, is a member of their owner, or is a superuser; a server's role must be none of that"
        )));
    }
    grant(&mut connection, role).await?;
    if let Some(keep) = keep {
        keep_at_least(&mut connection, keep.as_secs_f64()).await?;
    }
    connection.close().await?;
    Ok(())
}

/// See [`crate::grants_of_server`].
pub(crate) async fn printed(url: &str, role: &str) -> Result<String, Error> {
    let mut connection = as_owner(url).await?;
    let text = script(&mut connection, role).await?;
    connection.close().await?;
    Ok(text)
}

/// Returns a session of the owner, with tables that are up to date.
async fn as_owner(url: &str) -> Result<PgConnection, Error> {
    let database = Database::open(url, 1).await?;
    let mut connection = super::connect(url).await?;
    schema::check(&mut connection, database.schema()).await?;
    let Owner { user, owner, is_user } = schema::owner(&mut connection, database.schema()).await?;
    if !is_user {
        let owner = owner.unwrap_or_default();
        return Err(Error::Store(format!(
            "the role {user} does not own the tables; rights are granted by {owner}"
        )));
    }
    Ok(connection)
}

/// Creates `role` unless it exists.
async fn make_role(connection: &mut PgConnection, role: &str) -> Result<(), Error> {
    let there: bool = sqlx::query_scalar(
        "-- grants_role\nselect exists (select from pg_roles where rolname = $1)",
    )
    .bind(role)
    .fetch_one(&mut *connection)
    .await?;
    if !there {
        let text = format!("-- grants_make_role\ncreate role {} login", quoted(role));
        sqlx::raw_sql(AssertSqlSafe(text)).execute(connection).await?;
    }
    Ok(())
}

/// Sets the shortest time for which ended runs are kept, whatever retention a server has.
async fn keep_at_least(connection: &mut PgConnection, seconds: f64) -> Result<(), sqlx::Error> {
    sqlx::query("-- upkeep_keep\nupdate upkeep set keep_at_least = make_interval(secs => $1)")
        .bind(seconds)
        .execute(connection)
        .await?;
    Ok(())
}

/// Returns the statements that give `role` the rights of a server.
async fn script(connection: &mut PgConnection, role: &str) -> Result<String, Error> {
    let (schema, database): (String, String) =
        sqlx::query_as("-- grants_place\nselect current_schema()::text, current_database()::text")
            .fetch_one(&mut *connection)
            .await?;
    let (schema, role) = (quoted(&schema), quoted(role));
    let mut lines = vec![
        format!("grant connect on database {} to {role};", quoted(&database)),
        format!("grant usage on schema {schema}, backstitch to {role};"),
    ];
    for (table, kind) in relations(connection).await? {
        let rights = match kind {
            Kind::Sequence => "usage",
            Kind::Table if READ.contains(&table.of.as_str()) => "select",
            Kind::Table if ADDED_TO.contains(&table.of.as_str()) => "select, insert",
            Kind::Table => "select, insert, update, delete",
        };
        let what = if kind == Kind::Sequence { "sequence " } else { "" };
        let name = quoted(&table.name);
        lines.push(format!("revoke all on {what}{schema}.{name} from {role};"));
        lines.push(format!("grant {rights} on {what}{schema}.{name} to {role};"));
    }
    for function in FUNCTIONS {
        lines.push(format!("grant execute on function backstitch.{function} to {role};"));
    }
    lines.push(String::new());
    Ok(lines.join("\n"))
}

/// A table or sequence of ours.
struct Relation {
    name: String,
    /// The table that it is a partition of, or itself.
    of: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Table,
    Sequence,
}

/// Lists our tables with their partitions, and our sequences. Others may have tables in the same
/// schema.
async fn relations(connection: &mut PgConnection) -> Result<Vec<(Relation, Kind)>, Error> {
    let mut tables = migrations::tables();
    tables.extend(READ);
    let rows: Vec<(String, String, bool)> = sqlx::query_as(
        "-- grants_relations\n\
         select c.relname::text, coalesce(p.relname, c.relname)::text, false from pg_class c \
         left join pg_inherits i on i.inhrelid = c.oid left join pg_class p on p.oid = i.inhparent \
         where c.relnamespace = current_schema()::regnamespace and c.relkind in ('r', 'p') \
         and coalesce(p.relname, c.relname) = any($1) \
         union all select c.relname::text, '', true from pg_class c \
         where c.relnamespace = current_schema()::regnamespace and c.relkind = 'S' and c.relname = any($2) order by 3, 1",
    )
    .bind(&tables)
    .bind(migrations::sequences())
    .fetch_all(connection)
    .await?;
    let relation = |(name, of, sequence): (String, String, bool)| {
        let kind = if sequence { Kind::Sequence } else { Kind::Table };
        (Relation { name, of }, kind)
    };
    Ok(rows.into_iter().map(relation).collect())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

//! The schema with the tables: which one it is, and whether it is as this program needs it.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row};

use super::migrations;
use crate::Error;

/// The schema of new installations. Applications that share the database have no rights in it; the functions for them
/// are in `backstitch`.
pub(crate) const OURS: &str = "backstitch_data";
/// The schema of installations that are older than that.
const BEFORE: &str = "public";

/// Finds the schema with our tables; the one of new installations where there are none.
pub(crate) async fn find(connection: &mut PgConnection) -> Result<&'static str, Error> {
    // By the simple protocol: whether there is a pooler that cannot be used is not known yet.
    let text = format!(
        "-- schema_find\n\
         select n.nspname::text from pg_class j join pg_namespace n on n.oid = j.relnamespace \
         where j.relname = 'journal' and j.relkind = 'p' and n.nspname in ('{OURS}', '{BEFORE}') \
         and exists (select from pg_class m where m.relname = '_sqlx_migrations' and m.relnamespace = n.oid)"
    );
    let rows = sqlx::raw_sql(AssertSqlSafe(text)).fetch_all(connection).await?;
    let found: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let only_before = !found.is_empty() && !found.iter().any(|schema| schema == OURS);
    Ok(if only_before { BEFORE } else { OURS })
}

/// Makes the schema of new installations, where that is the one to be used.
pub(crate) async fn make(connection: &mut PgConnection, schema: &str) -> Result<(), sqlx::Error> {
    if schema == OURS {
        sqlx::query("-- schema_make\ncreate schema if not exists backstitch_data")
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// The connected role, and the owner of the tables.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) user: String,
    /// `None` where there are no tables.
    pub(crate) owner: Option<String>,
    /// The user has the rights of the owner.
    pub(crate) is_user: bool,
}

/// Looks who owns the tables in `schema`.
pub(crate) async fn owner(
    connection: &mut PgConnection,
    schema: &str,
) -> Result<Owner, sqlx::Error> {
    let row = sqlx::query(
        "-- schema_owner\n\
         select current_user::text, pg_get_userbyid(c.relowner)::text, pg_has_role(c.relowner, 'usage') \
         from (select) one left join pg_class c on c.relname = 'journal' \
           and c.relnamespace = (select n.oid from pg_namespace n where n.nspname = $1)",
    )
    .bind(schema)
    .fetch_one(connection)
    .await?;
    let is_user: Option<bool> = row.try_get(2)?;
    Ok(Owner {
        user: row.try_get(0)?,
        owner: row.try_get(1)?,
        is_user: is_user.unwrap_or_default(),
    })
}

/// Refuses to migrate as a role without the right.
pub(crate) async fn refuse_other_than_owner(
    connection: &mut PgConnection,
    schema: &str,
) -> Result<(), Error> {
    match owner(connection, schema).await? {
        Owner { user, owner: Some(owner), is_user: false } => Err(Error::Store(format!(
            "the role {user} does not own the tables in the schema {schema}; run `backstitch migrate` as {owner}"
        ))),
        _ => Ok(()),
    }
}

/// Checks that the tables are those that this program was written for, or newer ones, and that the user may use them.
pub(crate) async fn check(connection: &mut PgConnection, schema: &str) -> Result<(), Error> {
    let Owner { user, owner, is_user } = owner(connection, schema).await?;
    let Some(owner) = owner else {
        return Err(Error::Store(format!(
            "the schema is at version 0, there are no tables in {schema}; run `backstitch migrate`"
        )));
    };
    if !is_user {
        let grant = format!("run `backstitch database grant --app-role {user}` as {owner}");
        let may: bool = sqlx::query_scalar(
            "-- schema_rights\n\
             select has_schema_privilege(n.oid, 'usage') and has_schema_privilege('backstitch', 'usage') \
               and has_table_privilege(c.oid, 'select, insert') from pg_namespace n \
             join pg_class c on c.relnamespace = n.oid and c.relname = 'journal' where n.nspname = $1",
        )
        .bind(schema)
        .fetch_one(&mut *connection)
        .await?;
        if !may {
            return Err(Error::Store(format!(
                "the role {user} has no right to the tables in the schema {schema}; {grant}"
            )));
        }
    }
    let (found, needed) = (migrations::newest(connection).await?, migrations::needed());
    if found < needed {
        let who = if is_user { String::new() } else { format!(" as {owner}, who owns it") };
        return Err(Error::Store(format!(
            "the schema is at version {found}, this program needs {needed}; run `backstitch migrate`{who}"
        )));
    }
    Ok(())
}

//! Grants: which roles of the database may start runs and complete tasks of a namespace in transactions of their own.

use backstitch_saga::protocol::{DatabaseRoleView, Page};
use backstitch_saga::{By, Time};
use sqlx::Connection;

use crate::crash::commit;
use crate::cursor::Cursor;
use crate::page::page;
use crate::store::acts::{self, Act, Thing};
use crate::store::namespace_grants as table;
use crate::{Engine, Error};

/// Largest number of roles with a grant for a namespace.
const MOST: i64 = 1_000;
/// Longest name of a role, in bytes.
const LONGEST: usize = 63;

impl Engine {
    /// Lets a role of the database act in a namespace. Returns whether it could not before.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such role.
    pub async fn grant_database_role(
        &self,
        namespace: &str,
        role: &str,
        by: &By,
    ) -> Result<bool, Error> {
        let unknown = || Error::NotFound {
            code: "unknown_database_role",
            message: format!("there is no role '{role}' in this PostgreSQL; create it first"),
        };
        if role.is_empty() || role.len() > LONGEST || role.contains('\0') {
            return Err(unknown());
        }
        let mut connection = self.pool().acquire().await?;
        let mut transaction = connection.begin().await?;
        let at = self.node().clock.now();
        let done = table::grant(&mut transaction, (namespace, role), (at, &by.actor), MOST).await?;
        let new = done.ok_or_else(unknown)?;
        if new {
            acts::add(&mut transaction, &act(namespace, role, at, "grant", by)).await?;
            tracing::info!(namespace, role, actor = %by.actor, "a role of the database was granted a namespace");
        }
        commit!("grants_change", transaction.commit().await)?;
        Ok(new)
    }

    /// Takes the right to act in a namespace from a role of the database.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it has none.
    pub async fn revoke_database_role(
        &self,
        namespace: &str,
        role: &str,
        by: &By,
    ) -> Result<(), Error> {
        let mut connection = self.pool().acquire().await?;
        let mut transaction = connection.begin().await?;
        let at = self.node().clock.now();
        if role.contains('\0') || !table::revoke(&mut transaction, namespace, role).await? {
            return Err(Error::NotFound {
                code: "unknown_database_role",
                message: format!("the role '{role}' has no grant for this namespace"),
            });
        }
        acts::add(&mut transaction, &act(namespace, role, at, "revoke", by)).await?;
        tracing::info!(namespace, role, actor = %by.actor, "the grant of a role of the database was revoked");
        commit!("grants_change", transaction.commit().await)?;
        Ok(())
    }

    /// Lists roles of the database with a grant for a namespace, by name; `after` is the cursor of the page before.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn database_roles(
        &self,
        namespace: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<DatabaseRoleView>, Error> {
        let after = after.map(|text| Cursor::place('g', text, |place| Some(place.to_owned())));
        let after = after.transpose()?.unwrap_or_default();
        let limit = limit.clamp(1, 1_000);
        let mut connection = self.pool().acquire().await?;
        let found = table::list(&mut connection, namespace, &after, i64::from(limit) + 1).await?;
        Ok(page(found, limit as usize, |view| Cursor::of('g', &view.role)))
    }
}

fn act<'a>(namespace: &'a str, role: &'a str, at: Time, verb: &'static str, by: &'a By) -> Act<'a> {
    Act { namespace, thing: Thing::DatabaseRole, name: role, at, verb, by, detail: None }
}

//! Credentials. Secrets are never stored, only their digests.

use backstitch_saga::protocol::{CredentialScope, CredentialState, CredentialView};
use backstitch_saga::{Time, Timestamp};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::moment::Moment;

/// A credential to be made.
pub(crate) struct NewRow<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) role: &'a str,
    pub(crate) digest: &'a [u8],
    pub(crate) by: &'a str,
    pub(crate) at: Time,
    pub(crate) expires_at: Option<Time>,
    pub(crate) scope: &'a CredentialScope,
}

/// The reason for which a credential was not created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Its name is that of a credential.
    Now,
    /// Its name was that of a credential that is revoked.
    Before,
    /// There are as many as there may be.
    TooMany,
}

/// Makes a credential, of at most `most` of a namespace. A name is given once.
pub(crate) async fn create(
    connection: &mut PgConnection,
    row: &NewRow<'_>,
    most: i64,
) -> Result<Result<(), Taken>, sqlx::Error> {
    let done = sqlx::query(
        "-- credentials_create\n\
         insert into credentials (namespace, name, role, secret_sha256, created_at, created_by, expires_at, queues, \
         workflows) select $1, $2, $3, $4, $5, $6, $7, $8, $9 \
         where (select count(*) from credentials where namespace = $1) < $10 on conflict (namespace, name) do nothing",
    )
    .bind(row.namespace)
    .bind(row.name)
    .bind(row.role)
    .bind(row.digest)
    .bind(Moment(row.at))
    .bind(row.by)
    .bind(row.expires_at.map(Moment))
    .bind(&row.scope.queues)
    .bind(&row.scope.workflows)
    .bind(most)
    .execute(&mut *connection)
    .await?;
    if done.rows_affected() == 1 {
        return Ok(Ok(()));
    }
    let revoked: Option<bool> = sqlx::query_scalar(
        "-- credentials_taken\n\
         select revoked_at is not null from credentials where namespace = $1 and name = $2",
    )
    .bind(row.namespace)
    .bind(row.name)
    .fetch_optional(connection)
    .await?;
    Ok(Err(match revoked {
        Some(true) => Taken::Before,
        Some(false) => Taken::Now,
        None => Taken::TooMany,
    }))
}

/// Another secret of a credential.
pub(crate) struct Rotation<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) digest: &'a [u8],
    pub(crate) at: Time,
    /// Time until which the previous secret is valid.
    pub(crate) previous_until: Time,
    pub(crate) expires_at: Option<Time>,
}

/// Gives a credential that is not revoked another secret, and notifies `channel`. While an earlier secret is still
/// valid beside the last one, that one stays, and the last one ends. Returns the credential as it is then.
pub(crate) async fn rotate(
    connection: &mut PgConnection,
    rotation: &Rotation<'_>,
    channel: &str,
) -> Result<Option<CredentialView>, sqlx::Error> {
    let text = format!(
        "-- credentials_rotate\n\
         with done as (update credentials set previous_sha256 = case when previous_until > $4 then previous_sha256 \
         else secret_sha256 end, previous_until = $5, secret_sha256 = $3, rotated_at = $4, \
         expires_at = coalesce($6, expires_at) where namespace = $1 and name = $2 and revoked_at is null \
         returning {COLUMNS}) select {COLUMNS}, pg_notify($7, '') from done"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(rotation.namespace)
        .bind(rotation.name)
        .bind(rotation.digest)
        .bind(Moment(rotation.at))
        .bind(Moment(rotation.previous_until))
        .bind(rotation.expires_at.map(Moment))
        .bind(channel)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(|row| view(row, rotation.at)).transpose()
}

/// Withdraws a credential and says so on `channel`. Returns whether there was one.
pub(crate) async fn revoke(
    connection: &mut PgConnection,
    (namespace, name): (&str, &str),
    (at, by): (Time, &str),
    channel: &str,
) -> Result<bool, sqlx::Error> {
    let told = sqlx::query(
        "-- credentials_revoke\n\
         with done as (update credentials set revoked_at = $4, revoked_by = $5 \
         where namespace = $1 and name = $2 and revoked_at is null returning 1) \
         select pg_notify($3, '') from done",
    )
    .bind(namespace)
    .bind(name)
    .bind(channel)
    .bind(Moment(at))
    .bind(by)
    .fetch_all(connection)
    .await?;
    Ok(!told.is_empty())
}

/// A credential as found by a secret.
pub(crate) struct FoundRow {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) role: String,
    pub(crate) scope: CredentialScope,
    /// Time from which that secret is refused.
    pub(crate) until: Option<Time>,
}

/// Returns the credential that was not revoked and has a secret, or a session, with this digest; the caller must check
/// its expiry.
pub(crate) async fn find(
    connection: &mut PgConnection,
    digest: &[u8],
) -> Result<Option<FoundRow>, sqlx::Error> {
    let row = sqlx::query(
        "-- credentials_find\n\
         select namespace, name, role, queues, workflows, \
         case when secret_sha256 = $1 then expires_at else least(expires_at, previous_until) end from credentials \
         where revoked_at is null and (secret_sha256 = $1 or previous_sha256 = $1) \
         union all select c.namespace, c.name, c.role, c.queues, c.workflows, least(s.expires_at, c.expires_at, \
         case when c.secret_sha256 <> s.made_with then c.previous_until end) from console_sessions s \
         join credentials c on c.namespace = s.namespace and c.name = s.name \
         and (c.secret_sha256 = s.made_with or c.previous_sha256 = s.made_with) \
         where s.secret_sha256 = $1 and c.revoked_at is null",
    )
    .bind(digest)
    .fetch_optional(connection)
    .await?;
    row.map(|row| {
        Ok(FoundRow {
            namespace: row.try_get(0)?,
            name: row.try_get(1)?,
            role: row.try_get(2)?,
            scope: CredentialScope { queues: row.try_get(3)?, workflows: row.try_get(4)? },
            until: row.try_get::<Option<Moment>, _>(5)?.map(|Moment(at)| at),
        })
    })
    .transpose()
}

/// Notes when credentials were used last, unless another node did so since `before`.
pub(crate) async fn used(
    connection: &mut PgConnection,
    credentials: &[(String, String)],
    at: Time,
    before: Time,
) -> Result<(), sqlx::Error> {
    let (namespaces, names): (Vec<&str>, Vec<&str>) =
        credentials.iter().map(|(namespace, name)| (namespace.as_str(), name.as_str())).unzip();
    sqlx::query(
        "-- credentials_used\n\
         update credentials c set used_at = $3 from unnest($1::text[], $2::text[]) as x(namespace, name) \
         where c.namespace = x.namespace and c.name = x.name and (c.used_at is null or c.used_at <= $4)",
    )
    .bind(namespaces)
    .bind(names)
    .bind(Moment(at))
    .bind(Moment(before))
    .execute(connection)
    .await?;
    Ok(())
}

const COLUMNS: &str = "name, role, created_at, created_by, expires_at, rotated_at, previous_until, used_at, revoked_at, \
     revoked_by, queues, workflows";

/// Lists credentials of a namespace by name, after the name `after`.
pub(crate) async fn list(
    connection: &mut PgConnection,
    namespace: &str,
    after: &str,
    limit: i64,
    now: Time,
) -> Result<Vec<CredentialView>, sqlx::Error> {
    let text = format!(
        "-- credentials_list\n\
         select {COLUMNS} from credentials where namespace = $1 and name > $2 order by name limit $3"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(namespace)
        .bind(after)
        .bind(limit)
        .fetch_all(connection)
        .await?;
    rows.iter().map(|row| view(row, now)).collect()
}

fn view(row: &PgRow, now: Time) -> Result<CredentialView, sqlx::Error> {
    let name: String = row.try_get(0)?;
    let role: String = row.try_get(1)?;
    let role = crate::Role::from_word(&role).map(Into::into).ok_or_else(|| {
        sqlx::Error::Decode(format!("table credentials, name {name}: '{role}' is no role").into())
    })?;
    let at = |column: usize| -> Result<Option<Timestamp>, sqlx::Error> {
        Ok(row.try_get::<Option<Moment>, _>(column)?.map(|Moment(at)| Timestamp(at)))
    };
    let Moment(created_at) = row.try_get(2)?;
    let (expires_at, revoked_at) = (at(4)?, at(8)?);
    let state = match (revoked_at, expires_at) {
        (Some(_), _) => CredentialState::Revoked,
        (None, Some(Timestamp(end))) if end <= now => CredentialState::Expired,
        _ => CredentialState::Active,
    };
    Ok(CredentialView {
        name,
        role,
        state,
        created_at: Timestamp(created_at),
        created_by: row.try_get(3)?,
        expires_at,
        rotated_at: at(5)?,
        previous_until: at(6)?.filter(|Timestamp(end)| *end > now),
        used_at: at(7)?,
        revoked_at,
        revoked_by: row.try_get(9)?,
        queues: row.try_get(10)?,
        workflows: row.try_get(11)?,
    })
}

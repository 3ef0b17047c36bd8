//! Roles of the database that may start runs and complete tasks of the caller's namespace in SQL.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use backstitch_saga::protocol::{DatabaseRoleView, Page};

use super::credentials::CredentialsQuery;
use crate::access::Caller;
use crate::app::Shared;
use crate::body::json;
use crate::examples::credentials as examples;
use crate::problem::Answer;
use crate::query::{NoQuery, PathOf, QueryOf};

/// List the roles of the database that may act in the namespace, by name
///
/// They may call `backstitch.start_run` and `backstitch.complete_task` for it, where PostgreSQL gives them the right to.
#[utoipa::path(
    get, path = "/v1/database-roles", tag = "server", operation_id = "list_database_roles",
    params(CredentialsQuery),
    responses((status = 200, description = "A page of roles.", body = Page<DatabaseRoleView>, example = json!(examples::database_roles())))
)]
pub(crate) async fn list(
    State(app): Shared,
    caller: Caller,
    QueryOf(query): QueryOf<CredentialsQuery>,
) -> Answer {
    let after = query.after.as_deref();
    json(StatusCode::OK, &app.engine.database_roles(&caller.namespace, after, query.limit).await?)
}

/// Grant the namespace to a role of the database
///
/// The role, and who is a member of it, may start runs and complete tasks of the namespace in transactions. The owner of the
/// schema grants it the right to call the functions.
#[utoipa::path(
    put, path = "/v1/database-roles/{role}", tag = "server", operation_id = "grant_database_role",
    params(("role" = String, Path, description = "Its name in PostgreSQL", example = "shop")),
    responses(
        (status = 204, description = "It is granted, or was before."),
        (status = 404, description = "There is no such role (`unknown_database_role`)."),
    )
)]
pub(crate) async fn grant(
    State(app): Shared,
    caller: Caller,
    PathOf(role): PathOf<String>,
    _: QueryOf<NoQuery>,
) -> Answer {
    let by = caller.by(String::new());
    app.engine.grant_database_role(&caller.namespace, &role, &by).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Revoke the grant of a role of the database
///
/// Its next statement is refused with `BS005`.
#[utoipa::path(
    delete, path = "/v1/database-roles/{role}", tag = "server", operation_id = "revoke_database_role",
    params(("role" = String, Path, description = "Its name in PostgreSQL", example = "shop")),
    responses(
        (status = 204, description = "It is revoked."),
        (status = 404, description = "It has no grant (`unknown_database_role`)."),
    )
)]
pub(crate) async fn revoke(
    State(app): Shared,
    caller: Caller,
    PathOf(role): PathOf<String>,
    _: QueryOf<NoQuery>,
) -> Answer {
    let by = caller.by(String::new());
    app.engine.revoke_database_role(&caller.namespace, &role, &by).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

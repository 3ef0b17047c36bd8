//! Credentials of the caller's namespace.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use backstitch_saga::protocol::{CredentialSecret, NewCredential};

use crate::access::{Caller, engine_role};
use crate::app::Shared;
use crate::body::{Body, json};
use crate::check::is_slug;
use crate::examples;
use crate::problem::{Answer, Rejection};
use crate::query::{NoQuery, PathOf, QueryOf};

/// Create a credential
///
/// The secret is shown once. Names are `[a-z0-9][a-z0-9._-]*`.
#[utoipa::path(
    put, path = "/v1/credentials/{name}", tag = "server", operation_id = "create_credential",
    params(("name" = String, Path, description = "Its name, as it will stand in histories", example = "worker-1")),
    request_body(content = NewCredential, example = json!(examples::new_credential())),
    responses(
        (status = 201, description = "It is made.", body = CredentialSecret, example = json!(examples::secret())),
        (status = 409, description = "The name is taken."),
    )
)]
pub(crate) async fn create(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<NewCredential>,
) -> Answer {
    if !is_slug(&name) {
        let detail = "A credential's name is [a-z0-9][a-z0-9._-]*, at most 100 characters.";
        return Err(Rejection::new(StatusCode::BAD_REQUEST, "invalid_path", detail));
    }
    let role = engine_role(ask.role);
    let secret = app.engine.create_credential(&caller.namespace, &name, role).await?;
    let namespace = caller.namespace.to_string();
    json(StatusCode::CREATED, &CredentialSecret { name, namespace, role: ask.role, secret })
}

/// Revoke a credential
///
/// It is refused at once, also at other nodes; requests of it that wait are answered 401. A node that does not hear of
/// it lets it pass for five seconds more.
#[utoipa::path(
    delete, path = "/v1/credentials/{name}", tag = "server", operation_id = "revoke_credential",
    params(("name" = String, Path, description = "Its name", example = "worker-1")),
    responses((status = 204, description = "It is revoked."))
)]
pub(crate) async fn revoke(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    _: QueryOf<NoQuery>,
) -> Answer {
    app.engine.revoke_credential(&caller.namespace, &name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

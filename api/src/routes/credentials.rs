//! Credentials of the caller's namespace.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use backstitch_saga::protocol::{
    CredentialSecret, CredentialView, NewCredential, Page, RotateCredential,
};
use utoipa::IntoParams;

use crate::access::Caller;
use crate::app::Shared;
use crate::body::{Body, json};
use crate::check::is_slug;
use crate::examples::credentials as examples;
use crate::problem::{Answer, Rejection};
use crate::query::{FromQuery, NoQuery, Pairs, PathOf, QueryOf};

/// Query parameters of a list of credentials, or of roles of the database.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct CredentialsQuery {
    /// `next` of the page before.
    pub(super) after: Option<String>,
    /// 1 to 1,000; 100 without it.
    #[param(value_type = Option<u32>)]
    pub(super) limit: u32,
}

impl FromQuery for CredentialsQuery {
    fn read(pairs: &mut Pairs) -> Self {
        CredentialsQuery { after: pairs.text("after"), limit: pairs.limit() }
    }
}

/// List credentials, by name
///
/// Without their secrets: who made each and when, until when it is good, when it was used last, what it may touch. Revoked ones
/// stay in the list, since what they did stands under their names.
#[utoipa::path(
    get, path = "/v1/credentials", tag = "server", operation_id = "list_credentials",
    params(CredentialsQuery),
    responses((status = 200, description = "A page of credentials.", body = Page<CredentialView>, example = json!(examples::credentials())))
)]
pub(crate) async fn list(
    State(app): Shared,
    caller: Caller,
    QueryOf(query): QueryOf<CredentialsQuery>,
) -> Answer {
    let after = query.after.as_deref();
    json(StatusCode::OK, &app.engine.credentials(&caller.namespace, after, query.limit).await?)
}

/// Create a credential
///
/// The secret is shown once. Names are `[a-z0-9][a-z0-9._-]*`, and are given once: that of a revoked credential is not given
/// again. With `queues` or `workflows` it may touch only those that fit a pattern, in which `*` stands for any text; an admin
/// has no such bounds.
#[utoipa::path(
    put, path = "/v1/credentials/{name}", tag = "server", operation_id = "create_credential",
    params(("name" = String, Path, description = "Its name, as it will stand in histories", example = "worker-1")),
    request_body(content = NewCredential, example = json!(examples::new_credential())),
    responses(
        (status = 201, description = "It is made.", body = CredentialSecret, example = json!(examples::secret())),
        (status = 409, description = "The name is taken (`credential_conflict`), or was (`credential_name_used`), or there are too many (`too_many_credentials`)."),
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
    let by = caller.by(String::new());
    let made = app.engine.make_credential(&caller.namespace, &name, &ask, &by).await?;
    json(StatusCode::CREATED, &made)
}

/// Rotate a credential
///
/// It gets another secret, which is shown once; that of before is good for `overlap` more, so that both are while the new one is
/// handed round. Asked again meanwhile, as after an answer that was lost, the newest secret is replaced and the one of before
/// stays. No `Idempotency-Key` is taken: no secret is kept.
#[utoipa::path(
    post, path = "/v1/credentials/{name}/rotate", tag = "server", operation_id = "rotate_credential",
    params(("name" = String, Path, description = "Its name", example = "worker-2")),
    request_body(content = RotateCredential, example = json!(examples::rotate_credential())),
    responses(
        (status = 200, description = "It has another secret.", body = CredentialSecret, example = json!(examples::rotated())),
        (status = 404, description = "There is no valid credential of this name (`unknown_credential`)."),
    )
)]
pub(crate) async fn rotate(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<RotateCredential>,
) -> Answer {
    let by = caller.by(String::new());
    let rotated = app.engine.rotate_credential(&caller.namespace, &name, &ask, &by).await?;
    json(StatusCode::OK, &rotated)
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
    let by = caller.by(String::new());
    app.engine.withdraw_credential(&caller.namespace, &name, &by).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

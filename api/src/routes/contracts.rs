//! Contracts: the shapes that documents follow, by subject and version.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use backstitch_engine::Registered;
use backstitch_saga::protocol::{
    ContractCheck, ContractLine, ContractReaderView, ContractVersionView, ContractView, Page,
    PinReader, RegisterContract, SetContractMode, SetContractState,
};

use super::runs::PageQuery;
use crate::access::Caller;
use crate::app::Shared;
use crate::body::{Body, json, located};
use crate::examples::contracts as examples;
use crate::problem::Answer;
use crate::query::{NoQuery, PathOf, QueryOf};

/// List contracts by subject
#[utoipa::path(
    get, path = "/v1/contracts", tag = "contracts", operation_id = "list_contracts",
    params(PageQuery),
    responses((status = 200, description = "A page of subjects.", body = Page<ContractLine>, example = json!(examples::list())))
)]
pub(crate) async fn list(
    State(app): Shared,
    caller: Caller,
    QueryOf(query): QueryOf<PageQuery>,
) -> Answer {
    let after = query.after.as_deref();
    json(StatusCode::OK, &app.engine.contracts(&caller.namespace, after, query.limit).await?)
}

/// Show a contract with its versions and readers
#[utoipa::path(
    get, path = "/v1/contracts/{subject}", tag = "contracts", operation_id = "show_contract",
    params(("subject" = String, Path, description = "The subject; one with a dot is a vendor's", example = "customer")),
    responses((status = 200, description = "The subject, without its schemas.", body = ContractView, example = json!(examples::show())))
)]
pub(crate) async fn show(
    State(app): Shared,
    caller: Caller,
    PathOf(subject): PathOf<String>,
    _: QueryOf<NoQuery>,
) -> Answer {
    json(StatusCode::OK, &app.engine.contract(&caller.namespace, &subject).await?)
}

/// Set the compatibility that new versions of a contract keep
///
/// It holds for versions that are registered from now on; those that stand are not checked again.
#[utoipa::path(
    put, path = "/v1/contracts/{subject}", tag = "contracts", operation_id = "set_contract_mode",
    params(("subject" = String, Path, description = "The subject; one with a dot is a vendor's", example = "customer")),
    request_body(content = SetContractMode, example = json!(examples::set_mode())),
    responses((status = 200, description = "It is set.", body = ContractView, example = json!(examples::show())))
)]
pub(crate) async fn set_mode(
    State(app): Shared,
    caller: Caller,
    PathOf(subject): PathOf<String>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<SetContractMode>,
) -> Answer {
    let by = caller.by(ask.reason.clone());
    let view = app.engine.set_contract_mode(&caller.namespace, &subject, &ask, &by).await?;
    json(StatusCode::OK, &view)
}

/// Register a version of a contract
///
/// A schema that a version has already, however it is spelt, is that version. One that breaks the compatibility of the subject is
/// answered 409 with rule, place and a document that shows it, unless a transform from the last version comes with it (`up`) and,
/// while earlier versions have readers, one back (`down`). A subject that is not there is created.
#[utoipa::path(
    post, path = "/v1/contracts/{subject}/versions", tag = "contracts", operation_id = "register_contract",
    params(("subject" = String, Path, description = "The subject; one with a dot is a vendor's", example = "customer")),
    request_body(content = RegisterContract, example = json!(examples::register())),
    responses(
        (status = 201, description = "It is registered.", body = ContractVersionView, example = json!(examples::version())),
        (status = 200, description = "The same was there.", body = ContractVersionView),
        (status = 409, description = "It may not be registered so: `incompatible_schema` (`breaks` says why), `transform_required`, `mode_conflict`, `contract_full`, `too_many_contracts`."),
        (status = 422, description = "The schema or a transform is not valid: `invalid_schema`, `invalid_transform`, `invalid_name`."),
    )
)]
pub(crate) async fn register(
    State(app): Shared,
    caller: Caller,
    PathOf(subject): PathOf<String>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<RegisterContract>,
) -> Answer {
    let by = caller.by(ask.reason.clone());
    let (registered, view) =
        app.engine.register_contract(&caller.namespace, &subject, ask, &by).await?;
    match registered {
        Registered::Created => {
            let location = format!("/v1/contracts/{subject}/versions/{}", view.version);
            located(json(StatusCode::CREATED, &view), &location)
        }
        Registered::Unchanged => json(StatusCode::OK, &view),
    }
}

/// Check a version of a contract; nothing is written
#[utoipa::path(
    post, path = "/v1/contracts/{subject}/check", tag = "contracts", operation_id = "check_contract",
    params(("subject" = String, Path, description = "The subject; one with a dot is a vendor's", example = "customer")),
    request_body(content = RegisterContract, example = json!(examples::check())),
    responses(
        (status = 200, description = "The verdict.", body = ContractCheck, example = json!(examples::verdict())),
        (status = 422, description = "The schema or a transform is not valid: `invalid_schema`, `invalid_transform`, `invalid_name`."),
    )
)]
pub(crate) async fn check(
    State(app): Shared,
    caller: Caller,
    PathOf(subject): PathOf<String>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<RegisterContract>,
) -> Answer {
    json(StatusCode::OK, &app.engine.check_contract(&caller.namespace, &subject, ask).await?)
}

/// Show a version of a contract with its schema
#[utoipa::path(
    get, path = "/v1/contracts/{subject}/versions/{version}", tag = "contracts", operation_id = "show_contract_version",
    params(
        ("subject" = String, Path, description = "The subject; one with a dot is a vendor's", example = "customer"),
        ("version" = u32, Path, description = "The version", example = 1),
    ),
    responses((status = 200, description = "The version.", body = ContractVersionView, example = json!(examples::version())))
)]
pub(crate) async fn version(
    State(app): Shared,
    caller: Caller,
    PathOf((subject, version)): PathOf<(String, u32)>,
    _: QueryOf<NoQuery>,
) -> Answer {
    json(StatusCode::OK, &app.engine.contract_version(&caller.namespace, &subject, version).await?)
}

/// Deprecate or retire a version of a contract, or have it used again
///
/// A version that has readers cannot be retired: pin them to another one first.
#[utoipa::path(
    put, path = "/v1/contracts/{subject}/versions/{version}/state", tag = "contracts", operation_id = "set_contract_state",
    params(
        ("subject" = String, Path, description = "The subject; one with a dot is a vendor's", example = "customer"),
        ("version" = u32, Path, description = "The version", example = 1),
    ),
    request_body(content = SetContractState, example = json!(examples::set_state())),
    responses(
        (status = 200, description = "It is set.", body = ContractVersionView, example = json!(examples::version())),
        (status = 409, description = "Somebody reads it (`contract_has_readers`)."),
    )
)]
pub(crate) async fn set_state(
    State(app): Shared,
    caller: Caller,
    PathOf((subject, version)): PathOf<(String, u32)>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<SetContractState>,
) -> Answer {
    let by = caller.by(ask.reason.clone());
    let view =
        app.engine.set_contract_state(&caller.namespace, &subject, version, &ask, &by).await?;
    json(StatusCode::OK, &view)
}

/// Pin a reader to a version of a contract
///
/// A program that reads documents of this version says so: the version cannot be retired then, and a version that breaks needs a
/// way back for it.
#[utoipa::path(
    put, path = "/v1/contracts/{subject}/readers/{name}", tag = "contracts", operation_id = "pin_contract_reader",
    params(
        ("subject" = String, Path, description = "The subject; one with a dot is a vendor's", example = "customer"),
        ("name" = String, Path, description = "The reader's name", example = "billing"),
    ),
    request_body(content = PinReader, example = json!(examples::pin())),
    responses(
        (status = 200, description = "It is pinned.", body = ContractReaderView, example = json!(examples::reader())),
        (status = 409, description = "The version is retired (`version_retired`), or the contract has as many readers as it may (`contract_full`)."),
    )
)]
pub(crate) async fn pin(
    State(app): Shared,
    caller: Caller,
    PathOf((subject, name)): PathOf<(String, String)>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<PinReader>,
) -> Answer {
    let by = caller.by(ask.reason.clone());
    let at = (subject.as_str(), name.as_str());
    json(StatusCode::OK, &app.engine.pin_contract_reader(&caller.namespace, at, &ask, &by).await?)
}

/// Delete a reader of a contract
#[utoipa::path(
    delete, path = "/v1/contracts/{subject}/readers/{name}", tag = "contracts", operation_id = "unpin_contract_reader",
    params(
        ("subject" = String, Path, description = "The subject; one with a dot is a vendor's", example = "customer"),
        ("name" = String, Path, description = "The reader's name", example = "billing"),
    ),
    responses(
        (status = 204, description = "It is gone."),
        (status = 404, description = "There is no such contract or reader (`unknown_contract`, `unknown_reader`)."),
    )
)]
pub(crate) async fn unpin(
    State(app): Shared,
    caller: Caller,
    PathOf((subject, name)): PathOf<(String, String)>,
    _: QueryOf<NoQuery>,
) -> Answer {
    let by = caller.by(String::new());
    app.engine.unpin_contract_reader(&caller.namespace, (&subject, &name), &by).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

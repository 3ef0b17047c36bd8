//! Versions of a workflow: which runs are on which, and moving runs in flight to another.

use axum::extract::State;
use axum::http::StatusCode;
use backstitch_saga::protocol::{
    MigratedRun, MigrationCheck, MigrationView, NewMigration, Page, Reason, VersionLoad,
};
use utoipa::openapi::schema::Object;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::runs::PageQuery;
use crate::access::Caller;
use crate::app::Shared;
use crate::body::{Body, json, located};
use crate::examples::versions as examples;
use crate::problem::Answer;
use crate::query::{FromQuery, NoQuery, Pairs, PathOf, QueryOf, words};

/// Count the runs on each version of a workflow
///
/// A version is drained when no run is on it that has not ended: its workers may go.
#[utoipa::path(
    get, path = "/v1/workflows/{name}/drain", tag = "workflows", operation_id = "drain_status",
    params(("name" = String, Path, description = "The workflow's name", example = "place-order"), PageQuery),
    responses((status = 200, description = "A page of versions, by version.", body = Page<VersionLoad>, example = json!(examples::drain())))
)]
pub(crate) async fn drain(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Answer {
    let after = query.after.as_deref();
    let page = app.engine.drain_of(&caller.namespace, &name, after, query.limit).await?;
    json(StatusCode::OK, &page)
}

/// What a request for a migration answers: the migration, or with `dry_run` what it would find.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only described: each is printed as what it is")]
enum CheckedOrBegun {
    /// With `dry_run`.
    Checked(MigrationCheck),
    /// Without.
    Begun(Box<MigrationView>),
}

/// Move runs in flight to another version
///
/// Every run that is on `from` and has not ended is checked first; unless all move cleanly, none is moved
/// (`on_obstacle` changes that). With `dry_run` one page of runs is checked and nothing is written. The migration goes
/// on by itself, also when the server is started again.
#[utoipa::path(
    post, path = "/v1/workflows/{name}/migrations", tag = "workflows", operation_id = "start_migration",
    params(("name" = String, Path, description = "The workflow's name", example = "place-order")),
    request_body(content = NewMigration, example = json!(examples::new_migration())),
    responses(
        (status = 200, description = "What a dry run found.", body = CheckedOrBegun, example = json!(examples::check())),
        (status = 201, description = "It began.", body = MigrationView, example = json!(examples::migration())),
        (status = 409, description = "Another migration of the workflow is under way (`migration_under_way`)."),
    )
)]
pub(crate) async fn start(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    _: QueryOf<NoQuery>,
    Body(new): Body<NewMigration>,
) -> Answer {
    if new.dry_run {
        let check = app.engine.check_migration(&caller.namespace, &name, &new).await?;
        return json(StatusCode::OK, &check);
    }
    let by = caller.by(new.reason.clone());
    let view = app.engine.start_migration(&caller.namespace, &name, &new, &by).await?;
    let location = format!("/v1/workflows/{name}/migrations/{}", view.id);
    located(json(StatusCode::CREATED, &view), &location)
}

/// List the migrations of a workflow, newest first
#[utoipa::path(
    get, path = "/v1/workflows/{name}/migrations", tag = "workflows", operation_id = "list_migrations",
    params(("name" = String, Path, description = "The workflow's name", example = "place-order"), PageQuery),
    responses((status = 200, description = "A page of migrations.", body = Page<MigrationView>, example = json!(examples::migrations())))
)]
pub(crate) async fn list(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Answer {
    let after = query.after.as_deref();
    let page = app.engine.migrations(&caller.namespace, &name, after, query.limit).await?;
    json(StatusCode::OK, &page)
}

/// Show a migration
#[utoipa::path(
    get, path = "/v1/workflows/{name}/migrations/{id}", tag = "workflows", operation_id = "show_migration",
    params(
        ("name" = String, Path, description = "The workflow's name", example = "place-order"),
        ("id" = Uuid, Path, description = "The migration's id"),
    ),
    responses((status = 200, description = "The migration.", body = MigrationView, example = json!(examples::migration())))
)]
pub(crate) async fn show(
    State(app): Shared,
    caller: Caller,
    PathOf((name, id)): PathOf<(String, Uuid)>,
    _: QueryOf<NoQuery>,
) -> Answer {
    json(StatusCode::OK, &app.engine.migration(&caller.namespace, &name, id).await?)
}

fn results() -> Object {
    words("Only with this result.", MigratedRun::RESULTS)
}

/// Which runs of a migration.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ResultQuery {
    /// Only with this result.
    #[param(schema_with = results, example = "left")]
    result: Option<String>,
    /// The `next` of the page before.
    after: Option<String>,
    /// How many, 1 to 1,000; 100 without it.
    #[param(value_type = Option<u32>)]
    limit: u32,
}

impl FromQuery for ResultQuery {
    fn read(pairs: &mut Pairs) -> Self {
        ResultQuery {
            result: pairs.one_of("result", MigratedRun::RESULTS),
            after: pairs.text("after"),
            limit: pairs.limit(),
        }
    }
}

/// List the results of a migration's runs
#[utoipa::path(
    get, path = "/v1/workflows/{name}/migrations/{id}/runs", tag = "workflows", operation_id = "list_migrated_runs",
    params(
        ("name" = String, Path, description = "The workflow's name", example = "place-order"),
        ("id" = Uuid, Path, description = "The migration's id"),
        ResultQuery,
    ),
    responses((status = 200, description = "A page of runs.", body = Page<MigratedRun>, example = json!(examples::migrated_runs())))
)]
pub(crate) async fn runs(
    State(app): Shared,
    caller: Caller,
    PathOf((name, id)): PathOf<(String, Uuid)>,
    QueryOf(query): QueryOf<ResultQuery>,
) -> Answer {
    let (result, after) = (query.result.as_deref(), query.after.as_deref());
    let page =
        app.engine.migrated_runs(&caller.namespace, &name, id, result, after, query.limit).await?;
    json(StatusCode::OK, &page)
}

/// Stop a migration; runs already moved stay moved
#[utoipa::path(
    post, path = "/v1/workflows/{name}/migrations/{id}/stop", tag = "workflows", operation_id = "stop_migration",
    params(
        ("name" = String, Path, description = "The workflow's name", example = "place-order"),
        ("id" = Uuid, Path, description = "The migration's id"),
    ),
    request_body(content = Reason, example = json!(crate::examples::reason())),
    responses(
        (status = 200, description = "The migration as it is now.", body = MigrationView),
        (status = 409, description = "It is over (`migration_over`)."),
    )
)]
pub(crate) async fn stop(
    State(app): Shared,
    caller: Caller,
    PathOf((name, id)): PathOf<(String, Uuid)>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<Reason>,
) -> Answer {
    let by = caller.by(ask.reason);
    json(StatusCode::OK, &app.engine.stop_migration(&caller.namespace, &name, id, &by).await?)
}

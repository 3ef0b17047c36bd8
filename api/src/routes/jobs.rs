//! Jobs: one verb on many incidents or runs.

use axum::extract::State;
use axum::http::StatusCode;
use backstitch_saga::protocol::{
    ItemState, JobItem, JobPlan, JobState, JobView, NewJob, Page, Reason,
};
use utoipa::IntoParams;
use uuid::Uuid;

use super::runs::PageQuery;
use crate::access::Caller;
use crate::app::Shared;
use crate::body::{Body, json, located};
use crate::examples::jobs as examples;
use crate::idempotency::Reserve;
use crate::problem::Answer;
use crate::query::{FromQuery, NoQuery, Pairs, PathOf, QueryOf};
use crate::scopes;

/// Create a job: one act on many incidents or runs
///
/// What it acts on is fixed when the job is made, at most 1,000,000, oldest first. It works at its `rate` over all
/// nodes, survives any of them, and writes what became of each. With a `canary` the first of them must prove
/// themselves before the rest is done; with `stop_when` it stops itself when the trouble comes back.
#[utoipa::path(
    post, path = "/v1/jobs", tag = "jobs", operation_id = "create_job",
    request_body(content = NewJob, example = json!(examples::new_job())),
    responses(
        (status = 201, description = "It was made.", body = JobView,
            headers(("Location" = String, description = "The job's address")),
            example = json!(examples::job())),
        (status = 200, description = "With `dry_run`: how many it would be, and the first of them.", body = JobPlan),
        (status = 404, description = "There is no workflow of the name in the filter (`unknown_workflow`)."),
        (status = 409, description = "It would be of too many (`too_many`)."),
    )
)]
pub(crate) async fn create(
    State(app): Shared,
    caller: Caller,
    _: QueryOf<NoQuery>,
    Reserve(reservation): Reserve,
    Body(ask): Body<NewJob>,
) -> Answer {
    if let Some(scope) = &caller.scope {
        scopes::job(scope, &ask)?;
    }
    if ask.dry_run {
        return json(StatusCode::OK, &app.engine.plan_job(&caller.namespace, &ask).await?);
    }
    let (namespace, actor) = (&caller.namespace, &caller.name);
    let job = app.engine.create_job(namespace, actor, ask, reservation.as_ref()).await?;
    located(json(StatusCode::CREATED, &job), &format!("/v1/jobs/{}", job.id))
}

/// Query parameters of a list of jobs.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct JobsQuery {
    /// Only in this state.
    state: Option<JobState>,
    /// `next` of the page before.
    after: Option<String>,
    /// 1 to 1,000; 100 without it.
    #[param(value_type = Option<u32>)]
    limit: u32,
}

impl FromQuery for JobsQuery {
    fn read(pairs: &mut Pairs) -> Self {
        JobsQuery { state: pairs.word("state"), after: pairs.text("after"), limit: pairs.limit() }
    }
}

/// List jobs, newest first
#[utoipa::path(
    get, path = "/v1/jobs", tag = "jobs", operation_id = "list_jobs",
    params(JobsQuery),
    responses((status = 200, description = "A page of jobs.", body = Page<JobView>, example = json!(examples::jobs())))
)]
pub(crate) async fn list(
    State(app): Shared,
    caller: Caller,
    QueryOf(query): QueryOf<JobsQuery>,
) -> Answer {
    let (after, limit) = (query.after.as_deref(), query.limit);
    let page = app.engine.jobs(&caller.namespace, query.state, after, limit).await?;
    json(StatusCode::OK, &page)
}

/// Show a job
#[utoipa::path(
    get, path = "/v1/jobs/{job}", tag = "jobs", operation_id = "show_job",
    params(("job" = Uuid, Path, description = "The job's id")),
    responses((status = 200, description = "The job.", body = JobView, example = json!(examples::job())))
)]
pub(crate) async fn show(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<Uuid>,
    _: QueryOf<NoQuery>,
) -> Answer {
    json(StatusCode::OK, &app.engine.job(&caller.namespace, id).await?)
}

/// Query parameters of a list of a job's items.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct JobItemsQuery {
    /// Only in this state.
    state: Option<ItemState>,
    /// `next` of the page before.
    after: Option<String>,
    /// 1 to 1,000; 100 without it.
    #[param(value_type = Option<u32>)]
    limit: u32,
}

impl FromQuery for JobItemsQuery {
    fn read(pairs: &mut Pairs) -> Self {
        let PageQuery { after, limit } = PageQuery::read(pairs);
        JobItemsQuery { state: pairs.word("state"), after, limit }
    }
}

/// List the results of a job's items
#[utoipa::path(
    get, path = "/v1/jobs/{job}/items", tag = "jobs", operation_id = "list_job_items",
    params(("job" = Uuid, Path, description = "The job's id"), JobItemsQuery),
    responses((status = 200, description = "A page of items.", body = Page<JobItem>, example = json!(examples::job_items())))
)]
pub(crate) async fn items(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<Uuid>,
    QueryOf(query): QueryOf<JobItemsQuery>,
) -> Answer {
    let (state, after) = (query.state, query.after.as_deref());
    let page = app.engine.job_items(&caller.namespace, id, state, after, query.limit).await?;
    json(StatusCode::OK, &page)
}

/// Pause a job
#[utoipa::path(
    post, path = "/v1/jobs/{job}/pause", tag = "jobs", operation_id = "pause_job",
    params(("job" = Uuid, Path, description = "The job's id")),
    request_body(content = Reason, example = json!(crate::examples::reason())),
    responses(
        (status = 200, description = "The job as it is now.", body = JobView),
        (status = 409, description = "It has ended (`job_not_moving`)."),
    )
)]
pub(crate) async fn pause(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<Uuid>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<Reason>,
) -> Answer {
    let by = caller.by(ask.reason);
    json(StatusCode::OK, &app.engine.pause_job(&caller.namespace, id, &by).await?)
}

/// Resume a paused job
#[utoipa::path(
    post, path = "/v1/jobs/{job}/resume", tag = "jobs", operation_id = "resume_job",
    params(("job" = Uuid, Path, description = "The job's id")),
    request_body(content = Reason, example = json!(crate::examples::reason())),
    responses(
        (status = 200, description = "The job as it is now.", body = JobView),
        (status = 409, description = "It has ended (`job_not_moving`), or its row cannot be read (`job_damaged`)."),
    )
)]
pub(crate) async fn resume(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<Uuid>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<Reason>,
) -> Answer {
    let by = caller.by(ask.reason);
    json(StatusCode::OK, &app.engine.resume_job(&caller.namespace, id, &by).await?)
}

/// Stop a job for good
///
/// The rest is not done; what was done stays done.
#[utoipa::path(
    post, path = "/v1/jobs/{job}/stop", tag = "jobs", operation_id = "stop_job",
    params(("job" = Uuid, Path, description = "The job's id")),
    request_body(content = Reason, example = json!(crate::examples::reason())),
    responses(
        (status = 200, description = "The job as it is now.", body = JobView),
        (status = 409, description = "It has ended (`job_not_moving`)."),
    )
)]
pub(crate) async fn stop(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<Uuid>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<Reason>,
) -> Answer {
    let by = caller.by(ask.reason);
    json(StatusCode::OK, &app.engine.stop_job(&caller.namespace, id, &by).await?)
}

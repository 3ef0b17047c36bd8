//! Schedules: starts of runs by the calendar.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use backstitch_saga::protocol::{
    BackfillPlan, BackfillSchedule, NextStarts, Page, Reason, ScheduleLine, ScheduleSpec,
    ScheduleStart, ScheduleView, TriggerSchedule, Triggered,
};
use utoipa::IntoParams;

use super::runs::PageQuery;
use crate::access::Caller;
use crate::app::Shared;
use crate::body::{Body, json, located};
use crate::check::is_slug;
use crate::examples::schedules as examples;
use crate::idempotency::Reserve;
use crate::problem::{Answer, Rejection};
use crate::query::{FromQuery, NoQuery, Pairs, PathOf, QueryOf};
use crate::scopes;

/// List schedules by name
#[utoipa::path(
    get, path = "/v1/schedules", tag = "schedules", operation_id = "list_schedules",
    params(PageQuery),
    responses((status = 200, description = "A page of schedules.", body = Page<ScheduleLine>, example = json!(examples::lines())))
)]
pub(crate) async fn list(
    State(app): Shared,
    caller: Caller,
    QueryOf(query): QueryOf<PageQuery>,
) -> Answer {
    let after = query.after.as_deref();
    json(StatusCode::OK, &app.engine.schedules(&caller.namespace, after, query.limit).await?)
}

/// Create or replace a schedule
///
/// The body replaces the schedule whole; what it has started, what waits and whether it is paused stay. It counts from now
/// on; with the same pattern and time zone it goes on where it was. Names are `[a-z0-9][a-z0-9._-]*`.
#[utoipa::path(
    put, path = "/v1/schedules/{name}", tag = "schedules", operation_id = "put_schedule",
    params(("name" = String, Path, description = "Its name", example = "nightly-report")),
    request_body(content = ScheduleSpec, example = json!(examples::spec())),
    responses(
        (status = 201, description = "It is made.", body = ScheduleView, example = json!(examples::view())),
        (status = 200, description = "It is replaced, or was the same.", body = ScheduleView),
        (status = 409, description = "The row that stands there cannot be read (`schedule_damaged`)."),
        (status = 422, description = "Something is wrong with it (`invalid_schedule`); all of it is told."),
    )
)]
pub(crate) async fn put(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    _: QueryOf<NoQuery>,
    Body(spec): Body<ScheduleSpec>,
) -> Answer {
    if !is_slug(&name) {
        let detail = "A schedule's name is [a-z0-9][a-z0-9._-]*, at most 100 characters.";
        return Err(Rejection::new(StatusCode::BAD_REQUEST, "invalid_path", detail));
    }
    if let Some(scope) = &caller.scope {
        scopes::workflow(scope, &spec.workflow)?;
    }
    let by = caller.by(String::new());
    let (view, created) = app.engine.put_schedule(&caller.namespace, &name, spec, &by).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    located(json(status, &view), &format!("/v1/schedules/{name}"))
}

/// Show a schedule
#[utoipa::path(
    get, path = "/v1/schedules/{name}", tag = "schedules", operation_id = "show_schedule",
    params(("name" = String, Path, description = "Its name", example = "nightly-report")),
    responses(
        (status = 200, description = "The schedule.", body = ScheduleView, example = json!(examples::view())),
        (status = 409, description = "Its row cannot be read (`schedule_damaged`)."),
    )
)]
pub(crate) async fn show(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    _: QueryOf<NoQuery>,
) -> Answer {
    json(StatusCode::OK, &app.engine.schedule(&caller.namespace, &name).await?)
}

/// Delete a schedule
///
/// Runs that it has started go on; what waited is not started.
#[utoipa::path(
    delete, path = "/v1/schedules/{name}", tag = "schedules", operation_id = "delete_schedule",
    params(("name" = String, Path, description = "Its name", example = "nightly-report")),
    responses((status = 204, description = "It is deleted."))
)]
pub(crate) async fn delete(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    _: QueryOf<NoQuery>,
) -> Answer {
    let by = caller.by(String::new());
    app.engine.delete_schedule(&caller.namespace, &name, &by).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Pause a schedule
///
/// Nothing starts by the calendar until it is resumed. What a person asks for starts all the same.
#[utoipa::path(
    post, path = "/v1/schedules/{name}/pause", tag = "schedules", operation_id = "pause_schedule",
    params(("name" = String, Path, description = "Its name", example = "nightly-report")),
    request_body(content = Reason, example = json!(examples::reason())),
    responses((status = 200, description = "The schedule.", body = ScheduleView))
)]
pub(crate) async fn pause(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<Reason>,
) -> Answer {
    let by = caller.by(ask.reason);
    json(StatusCode::OK, &app.engine.pause_schedule(&caller.namespace, &name, &by).await?)
}

/// Resume a schedule
///
/// The instants of the pause are passed over; a backfill makes up for them.
#[utoipa::path(
    post, path = "/v1/schedules/{name}/resume", tag = "schedules", operation_id = "resume_schedule",
    params(("name" = String, Path, description = "Its name", example = "nightly-report")),
    request_body(content = Reason, example = json!(examples::reason())),
    responses((status = 200, description = "The schedule.", body = ScheduleView))
)]
pub(crate) async fn resume(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<Reason>,
) -> Answer {
    let by = caller.by(ask.reason);
    json(StatusCode::OK, &app.engine.resume_schedule(&caller.namespace, &name, &by).await?)
}

/// Start a run of a schedule now
///
/// The schedule's overlap policy holds, or the one given here. A paused schedule starts it, too.
#[utoipa::path(
    post, path = "/v1/schedules/{name}/trigger", tag = "schedules", operation_id = "trigger_schedule",
    params(("name" = String, Path, description = "Its name", example = "nightly-report")),
    request_body(content = TriggerSchedule, example = json!(examples::trigger())),
    responses(
        (status = 200, description = "What became of it: a run, or why there is none.", body = Triggered, example = json!(examples::triggered())),
        (status = 202, description = "It waits for the last run to end.", body = Triggered),
    )
)]
pub(crate) async fn trigger(
    State(app): Shared,
    caller: Caller,
    Reserve(reservation): Reserve,
    PathOf(name): PathOf<String>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<TriggerSchedule>,
) -> Answer {
    let (by, id) = (caller.by(ask.reason), reservation.map(|reserved| reserved.run_id(0)));
    let triggered =
        app.engine.trigger_schedule(&caller.namespace, &name, id, ask.overlap, &by).await?;
    json(if triggered.waiting { StatusCode::ACCEPTED } else { StatusCode::OK }, &triggered)
}

/// Start the instants of a range
///
/// An instant that was started before is not started again, so a backfill may be repeated. With `dry_run` the instants are
/// told and nothing is started.
#[utoipa::path(
    post, path = "/v1/schedules/{name}/backfill", tag = "schedules", operation_id = "backfill_schedule",
    params(("name" = String, Path, description = "Its name", example = "nightly-report")),
    request_body(content = BackfillSchedule, example = json!(examples::backfill())),
    responses(
        (status = 200, description = "The plan of a dry run.", body = BackfillPlan, example = json!(examples::backfill_plan())),
        (status = 202, description = "It began.", body = BackfillPlan),
        (status = 409, description = "Ten backfills are under way (`too_many_backfills`)."),
    )
)]
pub(crate) async fn backfill(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<BackfillSchedule>,
) -> Answer {
    let by = caller.by(ask.reason.clone());
    let plan = app.engine.backfill_schedule(&caller.namespace, &name, &ask, &by).await?;
    json(if ask.dry_run { StatusCode::OK } else { StatusCode::ACCEPTED }, &plan)
}

/// Query parameters of a list of starts to come.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct NextQuery {
    /// How many, 1 to 1,000; 10 without it.
    #[param(value_type = Option<u32>)]
    count: u32,
}

impl FromQuery for NextQuery {
    fn read(pairs: &mut Pairs) -> Self {
        let count = pairs.parsed("count").unwrap_or(10_u32);
        if !(1..=1_000).contains(&count) {
            pairs.refuse("count", "It must be 1 to 1000");
        }
        NextQuery { count }
    }
}

/// List the next starts of a schedule
#[utoipa::path(
    get, path = "/v1/schedules/{name}/next", tag = "schedules", operation_id = "next_of_schedule",
    params(("name" = String, Path, description = "Its name", example = "nightly-report"), NextQuery),
    responses((status = 200, description = "The next starts, in order.", body = NextStarts, example = json!(examples::next())))
)]
pub(crate) async fn next(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    QueryOf(query): QueryOf<NextQuery>,
) -> Answer {
    let next = app.engine.next_of_schedule(&caller.namespace, &name, query.count).await?;
    json(StatusCode::OK, &next)
}

/// List the starts of a schedule with their results, newest first
#[utoipa::path(
    get, path = "/v1/schedules/{name}/starts", tag = "schedules", operation_id = "schedule_starts",
    params(("name" = String, Path, description = "Its name", example = "nightly-report"), PageQuery),
    responses((status = 200, description = "A page of starts.", body = Page<ScheduleStart>, example = json!(examples::starts())))
)]
pub(crate) async fn starts(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Answer {
    let after = query.after.as_deref();
    let page = app.engine.schedule_starts(&caller.namespace, &name, after, query.limit).await?;
    json(StatusCode::OK, &page)
}

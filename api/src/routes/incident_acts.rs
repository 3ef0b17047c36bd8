//! Acts of people on incidents. Each verb is a command to the incident's run about its step.

use axum::extract::State;
use axum::http::StatusCode;
use backstitch_engine::IncidentAct;
use backstitch_saga::protocol::{
    AssignIncident, CompensateIncident, IncidentId, IncidentView, NoteIncident, Reason,
    ResolveStep, RetryStep, SkipStep,
};

use crate::access::Caller;
use crate::app::{App, Shared};
use crate::body::{Body, json};
use crate::examples::incidents as examples;
use crate::problem::Answer;
use crate::query::{NoQuery, PathOf, QueryOf};

/// Retry the step of an incident
///
/// With fresh attempts and the same effect key.
#[utoipa::path(
    post, path = "/v1/incidents/{incident}/retry", tag = "incidents", operation_id = "retry_incident",
    params(("incident" = IncidentId, Path, description = "The incident's id")),
    request_body(content = RetryStep, example = json!(examples::retry())),
    responses(
        (status = 200, description = "The incident as it is now.", body = IncidentView),
        (status = 409, description = "It is resolved (`incident_resolved`), or its step is not parked or blocked (`nothing_to_retry`)."),
    )
)]
pub(crate) async fn retry(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<IncidentId>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<RetryStep>,
) -> Answer {
    let what = IncidentAct::Retry { input: ask.input };
    act(&app, &caller, id, what, ask.reason).await
}

/// Skip the step of an incident
///
/// With `output` that stands in its place; without it, what needs the step's output is skipped too. A blocked compensation is
/// not skipped: `mark-compensated` says that the effect is undone or may stay.
#[utoipa::path(
    post, path = "/v1/incidents/{incident}/skip", tag = "incidents", operation_id = "skip_incident",
    params(("incident" = IncidentId, Path, description = "The incident's id")),
    request_body(content = SkipStep, example = json!(crate::examples::acts::skip_step())),
    responses(
        (status = 200, description = "The incident as it is now.", body = IncidentView),
        (status = 409, description = "It is resolved (`incident_resolved`), or a worker has the step (`task_in_flight`)."),
    )
)]
pub(crate) async fn skip(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<IncidentId>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<SkipStep>,
) -> Answer {
    act(&app, &caller, id, IncidentAct::Skip { output: ask.output }, ask.reason).await
}

/// Resolve the step of an incident as done, with its output
#[utoipa::path(
    post, path = "/v1/incidents/{incident}/resolve", tag = "incidents", operation_id = "resolve_incident",
    params(("incident" = IncidentId, Path, description = "The incident's id")),
    request_body(content = ResolveStep, example = json!(crate::examples::acts::resolve_step())),
    responses(
        (status = 200, description = "The incident as it is now.", body = IncidentView),
        (status = 409, description = "It is resolved (`incident_resolved`), or a worker has the step (`task_in_flight`)."),
    )
)]
pub(crate) async fn resolve(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<IncidentId>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<ResolveStep>,
) -> Answer {
    let what = IncidentAct::Resolve { output: ask.output, external_id: ask.external_id };
    act(&app, &caller, id, what, ask.reason).await
}

/// Mark the blocked compensation of an incident as done by hand
#[utoipa::path(
    post, path = "/v1/incidents/{incident}/mark-compensated", tag = "incidents", operation_id = "mark_incident_compensated",
    params(("incident" = IncidentId, Path, description = "The incident's id")),
    request_body(content = Reason, example = json!(examples::reason())),
    responses(
        (status = 200, description = "The incident as it is now.", body = IncidentView),
        (status = 409, description = "It is resolved (`incident_resolved`), or its step is not being undone (`nothing_to_compensate`)."),
    )
)]
pub(crate) async fn mark_compensated(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<IncidentId>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<Reason>,
) -> Answer {
    act(&app, &caller, id, IncidentAct::MarkCompensated, ask.reason).await
}

/// Undo the run of an incident, or a part of it
///
/// The plan of it is answered by `POST /v1/runs/{id}/compensate` with `dry_run`.
#[utoipa::path(
    post, path = "/v1/incidents/{incident}/compensate", tag = "incidents", operation_id = "compensate_incident",
    params(("incident" = IncidentId, Path, description = "The incident's id")),
    request_body(content = CompensateIncident, example = json!(examples::compensate())),
    responses(
        (status = 200, description = "The incident as it is now.", body = IncidentView),
        (status = 409, description = "It is resolved (`incident_resolved`), or its run cannot be undone so: `already_compensating`, `past_pivot`."),
    )
)]
pub(crate) async fn compensate(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<IncidentId>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<CompensateIncident>,
) -> Answer {
    let what = IncidentAct::Compensate { scope: ask.scope, force: ask.force };
    act(&app, &caller, id, what, ask.reason).await
}

/// Stop the run of an incident and undo what was done
#[utoipa::path(
    post, path = "/v1/incidents/{incident}/cancel", tag = "incidents", operation_id = "cancel_incident",
    params(("incident" = IncidentId, Path, description = "The incident's id")),
    request_body(content = Reason, example = json!(examples::reason())),
    responses(
        (status = 200, description = "The incident as it is now.", body = IncidentView),
        (status = 409, description = "It is resolved (`incident_resolved`), or its run cannot be cancelled: `already_compensating`, `past_pivot`."),
    )
)]
pub(crate) async fn cancel(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<IncidentId>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<Reason>,
) -> Answer {
    act(&app, &caller, id, IncidentAct::Cancel, ask.reason).await
}

/// End the run of an incident as it stands; nothing is undone
///
/// The same as killing the run, and it stands in the history as that.
#[utoipa::path(
    post, path = "/v1/incidents/{incident}/abandon", tag = "incidents", operation_id = "abandon_incident",
    params(("incident" = IncidentId, Path, description = "The incident's id")),
    request_body(content = Reason, example = json!(examples::reason())),
    responses(
        (status = 200, description = "The incident as it is now.", body = IncidentView),
        (status = 409, description = "It is resolved (`incident_resolved`)."),
    )
)]
pub(crate) async fn abandon(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<IncidentId>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<Reason>,
) -> Answer {
    act(&app, &caller, id, IncidentAct::Abandon, ask.reason).await
}

/// Assign an incident to somebody
///
/// An empty `assignee` takes it from everybody. Nothing about the run changes.
#[utoipa::path(
    post, path = "/v1/incidents/{incident}/assign", tag = "incidents", operation_id = "assign_incident",
    params(("incident" = IncidentId, Path, description = "The incident's id")),
    request_body(content = AssignIncident, example = json!(examples::assign())),
    responses(
        (status = 200, description = "The incident as it is now.", body = IncidentView),
        (status = 409, description = "Its run was erased (`run_erased`)."),
    )
)]
pub(crate) async fn assign(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<IncidentId>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<AssignIncident>,
) -> Answer {
    let assignee = Some(ask.assignee.as_str()).filter(|name| !name.is_empty());
    let (namespace, note) = (&caller.namespace, ask.note.as_deref());
    let view = app.engine.assign_incident(namespace, id, &caller.name, assignee, note).await?;
    json(StatusCode::OK, &view)
}

/// Add a note to an incident
#[utoipa::path(
    post, path = "/v1/incidents/{incident}/note", tag = "incidents", operation_id = "note_incident",
    params(("incident" = IncidentId, Path, description = "The incident's id")),
    request_body(content = NoteIncident, example = json!(examples::note())),
    responses(
        (status = 200, description = "The incident as it is now.", body = IncidentView),
        (status = 409, description = "Its run was erased (`run_erased`)."),
    )
)]
pub(crate) async fn note(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<IncidentId>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<NoteIncident>,
) -> Answer {
    let view = app.engine.note_incident(&caller.namespace, id, &caller.name, &ask.note).await?;
    json(StatusCode::OK, &view)
}

async fn act(
    app: &App,
    caller: &Caller,
    id: IncidentId,
    what: IncidentAct,
    reason: String,
) -> Answer {
    let by = caller.by(reason);
    json(StatusCode::OK, &app.engine.act_on_incident(&caller.namespace, id, what, by).await?)
}

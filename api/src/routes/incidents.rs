//! The queue of incidents.

use axum::extract::State;
use axum::http::StatusCode;
use backstitch_saga::protocol::{
    IncidentCounts, IncidentFilter, IncidentGroup, IncidentId, IncidentLine, IncidentState,
    IncidentView, Page,
};
use backstitch_saga::{IncidentKind, RunId, Span, is_fingerprint};
use utoipa::IntoParams;
use utoipa::openapi::schema::Object;

use crate::access::Caller;
use crate::app::Shared;
use crate::body::json;
use crate::examples::incidents as examples;
use crate::problem::Answer;
use crate::query::{FromQuery, NoQuery, Pairs, PathOf, QueryOf, words};

const NO_FINGERPRINT: &str = "A fingerprint is 16 hexadecimal digits in lower case";

fn kinds() -> Object {
    words("Only of this kind.", IncidentKind::WORDS)
}

/// Query parameters of a list of incidents.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct IncidentsQuery {
    /// Only in this state.
    state: Option<IncidentState>,
    /// Only of this kind.
    #[param(schema_with = kinds, example = "task_exhausted")]
    kind: Option<String>,
    /// Only of runs of this workflow.
    workflow: Option<String>,
    /// Only about this step; a map step stands for all its items.
    step: Option<String>,
    /// Only with this fingerprint.
    fingerprint: Option<String>,
    /// Only of this run.
    run: Option<RunId>,
    /// Only those that this person has.
    assignee: Option<String>,
    /// Only those that opened longer ago than this.
    #[param(value_type = Option<String>, example = "1h")]
    older_than: Option<Span>,
    /// `next` of the page before.
    after: Option<String>,
    /// 1 to 1,000; 100 without it.
    #[param(value_type = Option<u32>)]
    limit: u32,
}

impl FromQuery for IncidentsQuery {
    fn read(pairs: &mut Pairs) -> Self {
        let fingerprint = pairs.text("fingerprint");
        if fingerprint.as_deref().is_some_and(|text| !is_fingerprint(text)) {
            pairs.refuse("fingerprint", NO_FINGERPRINT);
        }
        IncidentsQuery {
            state: pairs.word("state"),
            kind: pairs.one_of("kind", IncidentKind::WORDS),
            workflow: pairs.text("workflow"),
            step: pairs.text("step"),
            fingerprint,
            run: pairs.parsed("run"),
            assignee: pairs.text("assignee"),
            older_than: pairs.parsed("older_than"),
            after: pairs.text("after"),
            limit: pairs.limit(),
        }
    }
}

/// List incidents, newest first
#[utoipa::path(
    get, path = "/v1/incidents", tag = "incidents", operation_id = "list_incidents",
    params(IncidentsQuery),
    responses((status = 200, description = "A page of incidents.", body = Page<IncidentLine>, example = json!(examples::incidents())))
)]
pub(crate) async fn list(
    State(app): Shared,
    caller: Caller,
    QueryOf(query): QueryOf<IncidentsQuery>,
) -> Answer {
    let (after, limit) = (query.after, query.limit);
    let filter = IncidentFilter {
        state: query.state,
        kind: query.kind,
        workflow: query.workflow,
        step: query.step,
        fingerprint: query.fingerprint,
        run: query.run,
        assignee: query.assignee,
        older_than: query.older_than,
    };
    let page = app.engine.incidents(&caller.namespace, &filter, after.as_deref(), limit).await?;
    json(StatusCode::OK, &page)
}

/// Show an incident
///
/// With the step as it is now, what was tried and by whom, what people wrote, and the verbs that apply (`next`).
#[utoipa::path(
    get, path = "/v1/incidents/{incident}", tag = "incidents", operation_id = "show_incident",
    params(("incident" = IncidentId, Path, description = "The incident's id")),
    responses((status = 200, description = "The incident.", body = IncidentView, example = json!(examples::incident())))
)]
pub(crate) async fn show(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<IncidentId>,
    _: QueryOf<NoQuery>,
) -> Answer {
    json(StatusCode::OK, &app.engine.incident(&caller.namespace, id).await?)
}

/// Query parameters of a list of groups.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct GroupsQuery {
    /// Only of this kind.
    #[param(schema_with = kinds)]
    kind: Option<String>,
    /// Only of runs of this workflow.
    workflow: Option<String>,
    /// Only about this step.
    step: Option<String>,
    /// Only those that opened longer ago than this.
    #[param(value_type = Option<String>, example = "1h")]
    older_than: Option<Span>,
    /// `next` of the page before.
    after: Option<String>,
    /// 1 to 1,000; 100 without it.
    #[param(value_type = Option<u32>)]
    limit: u32,
}

impl FromQuery for GroupsQuery {
    fn read(pairs: &mut Pairs) -> Self {
        GroupsQuery {
            kind: pairs.one_of("kind", IncidentKind::WORDS),
            workflow: pairs.text("workflow"),
            step: pairs.text("step"),
            older_than: pairs.parsed("older_than"),
            after: pairs.text("after"),
            limit: pairs.limit(),
        }
    }
}

/// Group the open incidents by fingerprint
///
/// The largest groups first, each with an example. One cause is one group: the fingerprint is made of workflow, step,
/// kind, error code and message, without its numbers, ids and quoted parts.
#[utoipa::path(
    get, path = "/v1/incidents/groups", tag = "incidents", operation_id = "group_incidents",
    params(GroupsQuery),
    responses((status = 200, description = "A page of groups.", body = Page<IncidentGroup>, example = json!(examples::groups())))
)]
pub(crate) async fn groups(
    State(app): Shared,
    caller: Caller,
    QueryOf(query): QueryOf<GroupsQuery>,
) -> Answer {
    let (after, limit) = (query.after, query.limit);
    let filter = IncidentFilter {
        kind: query.kind,
        workflow: query.workflow,
        step: query.step,
        older_than: query.older_than,
        ..IncidentFilter::default()
    };
    let after = after.as_deref();
    let page = app.engine.incident_groups(&caller.namespace, &filter, after, limit).await?;
    json(StatusCode::OK, &page)
}

/// Count the open incidents by kind
///
/// Made to be polled: counted at most once a second, see `as_of`.
#[utoipa::path(
    get, path = "/v1/incidents/counts", tag = "incidents", operation_id = "count_incidents",
    responses((status = 200, description = "The counts.", body = IncidentCounts, example = json!(examples::counts())))
)]
pub(crate) async fn counts(State(app): Shared, caller: Caller, _: QueryOf<NoQuery>) -> Answer {
    json(StatusCode::OK, &app.engine.incident_counts(&caller.namespace).await?)
}

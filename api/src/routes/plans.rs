//! Compensation plans: undos that are written down, perhaps approved by somebody else, and then applied.

use axum::extract::State;
use axum::http::StatusCode;
use backstitch_saga::RunId;
use backstitch_saga::protocol::{
    ApplyPlan, ApprovePlan, CompensationPlan, EditPlan, MakePlan, Page, PlanFilter, PlanState,
    PlanView, Reason, SetUndoApproval, UndoApprovalView,
};
use utoipa::IntoParams;
use uuid::Uuid;

use crate::access::Caller;
use crate::app::Shared;
use crate::body::{Body, json};
use crate::examples::plans as examples;
use crate::problem::Answer;
use crate::query::{FromQuery, NoQuery, Pairs, PathOf, QueryOf};

/// Query parameters of a list of plans.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PlansQuery {
    /// Only in this state.
    state: Option<PlanState>,
    /// Only of this run.
    run: Option<RunId>,
    /// Only of runs of this workflow.
    workflow: Option<String>,
    /// `next` of the page before.
    after: Option<String>,
    /// 1 to 1,000; 100 without it.
    #[param(value_type = Option<u32>)]
    limit: u32,
}

impl FromQuery for PlansQuery {
    fn read(pairs: &mut Pairs) -> Self {
        PlansQuery {
            state: pairs.word("state"),
            run: pairs.parsed("run"),
            workflow: pairs.text("workflow"),
            after: pairs.text("after"),
            limit: pairs.limit(),
        }
    }
}

/// The part of what a plan undoes that is wanted.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct UndosQuery {
    /// `next` of the page before.
    after: Option<String>,
    /// The most undos of a page. 1 to 1,000; 100 without it.
    #[param(value_type = Option<u32>)]
    limit: u32,
}

impl FromQuery for UndosQuery {
    fn read(pairs: &mut Pairs) -> Self {
        UndosQuery { after: pairs.text("after"), limit: pairs.limit() }
    }
}

/// Plan an undo of a run
///
/// Writes down what `POST /v1/runs/{id}/compensate` would do now, to be looked at, changed, approved and applied. It is
/// applied only while the run would still be undone so.
#[utoipa::path(
    post, path = "/v1/runs/{id}/plans", tag = "runs", operation_id = "make_plan",
    params(("id" = RunId, Path, description = "The run's id")),
    request_body(content = MakePlan, example = json!(examples::make())),
    responses(
        (status = 201, description = "The plan.", body = PlanView, example = json!(examples::plan())),
        (status = 409, description = "It cannot be undone so: `already_compensating`, `past_pivot`, `compensation_window_closed`; or the run has 20 open plans (`too_many_plans`)."),
    )
)]
pub(crate) async fn make(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<RunId>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<MakePlan>,
) -> Answer {
    let by = caller.by(ask.reason.clone());
    json(StatusCode::CREATED, &app.engine.make_plan(&caller.namespace, id, ask, &by).await?)
}

/// List plans, newest first
#[utoipa::path(
    get, path = "/v1/plans", tag = "runs", operation_id = "list_plans",
    params(PlansQuery),
    responses((status = 200, description = "A page of plans.", body = Page<CompensationPlan>, example = json!(examples::plans())))
)]
pub(crate) async fn list(
    State(app): Shared,
    caller: Caller,
    QueryOf(query): QueryOf<PlansQuery>,
) -> Answer {
    let (after, limit) = (query.after, query.limit);
    let filter = PlanFilter { state: query.state, run: query.run, workflow: query.workflow };
    let page = app.engine.plans(&caller.namespace, &filter, after.as_deref(), limit).await?;
    json(StatusCode::OK, &page)
}

/// Show a plan
///
/// With a page of what it undoes, while the run would still be undone so.
#[utoipa::path(
    get, path = "/v1/plans/{plan}", tag = "runs", operation_id = "show_plan",
    params(("plan" = Uuid, Path, description = "The plan's id"), UndosQuery),
    responses((status = 200, description = "The plan.", body = PlanView, example = json!(examples::plan())))
)]
pub(crate) async fn show(
    State(app): Shared,
    caller: Caller,
    PathOf(plan): PathOf<Uuid>,
    QueryOf(query): QueryOf<UndosQuery>,
) -> Answer {
    let UndosQuery { after, limit } = query;
    let namespace = &caller.namespace;
    let view = app.engine.compensation_plan(namespace, plan, after.as_deref(), limit).await?;
    json(StatusCode::OK, &view)
}

/// Change an open plan
///
/// It is made anew for the run as it is now, and who changes it has made it: an approval of before is void.
#[utoipa::path(
    put, path = "/v1/plans/{plan}", tag = "runs", operation_id = "edit_plan",
    params(("plan" = Uuid, Path, description = "The plan's id")),
    request_body(content = EditPlan, example = json!(examples::edit())),
    responses(
        (status = 200, description = "The plan as it is now.", body = PlanView, example = json!(examples::plan())),
        (status = 409, description = "It is at another revision (`plan_changed`), being applied (`plan_being_applied`) or over (`plan_over`); or the run cannot be undone so: `already_compensating`, `past_pivot`, `compensation_window_closed`."),
    )
)]
pub(crate) async fn edit(
    State(app): Shared,
    caller: Caller,
    PathOf(plan): PathOf<Uuid>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<EditPlan>,
) -> Answer {
    let by = caller.by(ask.reason.clone());
    json(StatusCode::OK, &app.engine.edit_plan(&caller.namespace, plan, ask, &by).await?)
}

/// Approve a plan that somebody else made
#[utoipa::path(
    post, path = "/v1/plans/{plan}/approve", tag = "runs", operation_id = "approve_plan",
    params(("plan" = Uuid, Path, description = "The plan's id")),
    request_body(content = ApprovePlan, example = json!(examples::approve())),
    responses(
        (status = 200, description = "The plan as it is now.", body = PlanView, example = json!(examples::plan())),
        (status = 409, description = "It is the caller's own (`own_plan`), at another revision (`plan_changed`), over (`plan_over`), or the run has moved (`plan_expired`)."),
    )
)]
pub(crate) async fn approve(
    State(app): Shared,
    caller: Caller,
    PathOf(plan): PathOf<Uuid>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<ApprovePlan>,
) -> Answer {
    let by = caller.by(ask.reason.clone());
    json(StatusCode::OK, &app.engine.approve_plan(&caller.namespace, plan, &ask, &by).await?)
}

/// Undo a run as a plan says
///
/// Asked again, it is done once.
#[utoipa::path(
    post, path = "/v1/plans/{plan}/apply", tag = "runs", operation_id = "apply_plan",
    params(("plan" = Uuid, Path, description = "The plan's id")),
    request_body(content = ApplyPlan, example = json!(examples::apply())),
    responses(
        (status = 202, description = "It began: the plan as it is now.", body = PlanView, example = json!(examples::applied())),
        (status = 409, description = "It needs an approval (`approval_needed`), is at another revision (`plan_changed`) or over (`plan_over`), or the run has moved (`plan_expired`); or the run refuses it: `past_pivot`, `nothing_to_compensate`, `compensation_window_closed`."),
    )
)]
pub(crate) async fn apply(
    State(app): Shared,
    caller: Caller,
    PathOf(plan): PathOf<Uuid>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<ApplyPlan>,
) -> Answer {
    let by = caller.by(String::new());
    json(StatusCode::ACCEPTED, &app.engine.apply_plan(&caller.namespace, plan, &ask, &by).await?)
}

/// Withdraw an open plan
#[utoipa::path(
    post, path = "/v1/plans/{plan}/withdraw", tag = "runs", operation_id = "withdraw_plan",
    params(("plan" = Uuid, Path, description = "The plan's id")),
    request_body(content = Reason, example = json!(crate::examples::reason())),
    responses(
        (status = 200, description = "The plan as it is now.", body = PlanView, example = json!(examples::withdrawn())),
        (status = 409, description = "It is being applied (`plan_being_applied`) or over (`plan_over`)."),
    )
)]
pub(crate) async fn withdraw(
    State(app): Shared,
    caller: Caller,
    PathOf(plan): PathOf<Uuid>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<Reason>,
) -> Answer {
    let by = caller.by(ask.reason);
    json(StatusCode::OK, &app.engine.withdraw_plan(&caller.namespace, plan, &by).await?)
}

/// Show when undos of a workflow's runs need a second person
#[utoipa::path(
    get, path = "/v1/workflows/{name}/undo-approval", tag = "workflows", operation_id = "show_undo_approval",
    params(("name" = String, Path, description = "The workflow's name", example = "place-order")),
    responses((status = 200, description = "When they do.", body = UndoApprovalView, example = json!(examples::approval())))
)]
pub(crate) async fn approval(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    _: QueryOf<NoQuery>,
) -> Answer {
    json(StatusCode::OK, &app.engine.undo_approval(&caller.namespace, &name).await?)
}

/// Set when undos of a workflow's runs need a second person
///
/// `"never"`, `"always"` or `{"above": 20}`, counted in steps and items. It holds for what people ask for: `compensate`, `cancel`
/// and `rerun`, also of incidents and by jobs. What the rules undo by themselves needs nobody.
#[utoipa::path(
    put, path = "/v1/workflows/{name}/undo-approval", tag = "workflows", operation_id = "set_undo_approval",
    params(("name" = String, Path, description = "The workflow's name", example = "place-order")),
    request_body(content = SetUndoApproval, example = json!(examples::set_approval())),
    responses((status = 200, description = "When they do now.", body = UndoApprovalView, example = json!(examples::approval())))
)]
pub(crate) async fn set_approval(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<SetUndoApproval>,
) -> Answer {
    let by = caller.by(ask.reason.clone());
    json(StatusCode::OK, &app.engine.set_undo_approval(&caller.namespace, &name, &ask, &by).await?)
}

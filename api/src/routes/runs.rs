//! Starting and reading runs.

use axum::extract::State;
use axum::http::StatusCode;
use backstitch_engine::{ItemFilter, RunFilter};
use backstitch_saga::protocol::{
    HistoryEntry, Outcome, Page, RunLine, RunStarted, RunTree, RunView, StartAnswers, StartRun,
    StartRuns, State as RunState, StepState, StepView,
};
use backstitch_saga::{RunId, SEARCHED, Span, Timestamp, check_searched};
use utoipa::openapi::schema::Object;
use utoipa::{IntoParams, ToSchema};

use super::each::{EachBody, answer, common_status, merge, sort_out};
use crate::access::Caller;
use crate::app::{Shared, WaitFor};
use crate::body::{Body, json, located};
use crate::examples;
use crate::idempotency::{Reserve, Unsettled};
use crate::problem::Answer;
use crate::query::{FromQuery, NoQuery, Pairs, PathOf, QueryOf, words};
use crate::scopes;

/// Query parameters of a start.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct StartQuery {
    /// Wait so long for the end, at most `30s`, and answer the whole run.
    #[param(value_type = Option<String>, example = "10s")]
    wait: Option<Span>,
}

impl FromQuery for StartQuery {
    fn read(pairs: &mut Pairs) -> Self {
        StartQuery { wait: pairs.wait() }
    }
}

/// What a start answers: the run's id, or with `wait` the whole run.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only described: each is printed as what it is")]
enum StartedOrEnded {
    /// Without `wait`.
    Started(RunStarted),
    /// With `wait`.
    Ended(Box<RunView>),
}

/// Start a run
///
/// With a `key` there is one run per workflow and key: asking again with the same input answers the same run, with
/// another input 409. With `wait` the answer is the whole run: 200 once it succeeded, 207 when it ended otherwise
/// (see `outcome`), 202 while it still moves.
#[utoipa::path(
    post, path = "/v1/runs", tag = "runs", operation_id = "start_run",
    params(StartQuery),
    request_body(content = StartRun, example = json!(examples::start_run())),
    responses(
        (status = 201, description = "It was started.", body = RunStarted,
            headers(("Location" = String, description = "The run's address")),
            example = json!(examples::run_started())),
        (status = 200, description = "Its key had started it before; or, with `wait`, it succeeded.", body = StartedOrEnded),
        (status = 202, description = "With `wait`: it still moves.", body = RunView),
        (status = 207, description = "With `wait`: it ended, but not with full success; see `outcome`.", body = RunView),
        (status = 404, description = "There is no such workflow (`unknown_workflow`)."),
        (status = 409, description = "The key belongs to a run with another input (`key_conflict`), or to one that was erased (`run_erased`)."),
    )
)]
pub(crate) async fn start(
    State(app): Shared,
    caller: Caller,
    Reserve(reservation): Reserve,
    QueryOf(query): QueryOf<StartQuery>,
    Body(start): Body<StartRun>,
) -> Answer {
    if let Some(scope) = &caller.scope {
        scopes::workflow(scope, &start.workflow)?;
    }
    app.may_start(&caller, 1)?;
    let (engine, namespace) = (&app.engine, &caller.namespace);
    engine.check_runs_quota(namespace, std::slice::from_ref(&start), reservation.as_ref()).await?;
    // The place is taken first: a start that is answered 503 must not have happened.
    let place = match query.wait {
        Some(wait) => Some((wait, app.place(&caller, WaitFor::RunEnd)?)),
        None => None,
    };
    let later = start.start_at.is_some() || start.delay.is_some();
    let started = match reservation {
        Some(reserved) => {
            app.engine.start_run_as(&caller.namespace, reserved.run_id(0), start).await?
        }
        None => app.engine.start_run(&caller.namespace, start).await?,
    };
    let location = format!("/v1/runs/{}", started.id);
    let Some((wait, _place)) = place else {
        let status = if started.created { StatusCode::CREATED } else { StatusCode::OK };
        let start_at = match later || !started.created {
            // The run is there, whatever can be said of it now.
            true => app.engine.run(&caller.namespace, started.id, None).await.ok(),
            false => None,
        };
        let start_at = start_at.and_then(|view| view.start_at);
        let answer = RunStarted { id: started.id, created: started.created, start_at };
        return located(json(status, &answer), &location);
    };
    let view = app.wait_for(&caller, started.id, wait.duration()).await?;
    located(json(waited(&view), &view), &location)
}

/// Start many runs
///
/// Each start is answered for itself and in order; the status is that of all answers when they agree, else 207. One
/// request with many starts costs a fraction of as many requests. Give each a `key`, and the request can be repeated
/// when its answer got lost. Of two starts with one key either may come first, as if both were asked for at once.
#[utoipa::path(
    post, path = "/v1/runs/batch", tag = "runs", operation_id = "start_runs",
    request_body(content = StartRuns, example = json!(examples::start_runs())),
    responses(
        (status = 201, description = "All were started.", body = StartAnswers, example = json!(examples::start_answers())),
        (status = 200, description = "The keys had started all of them before.", body = StartAnswers),
        (status = 207, description = "The answers differ.", body = StartAnswers),
        (status = 404, description = "There is none of these workflows.", body = StartAnswers),
        (status = 409, description = "The keys belong to runs with other inputs.", body = StartAnswers),
    )
)]
pub(crate) async fn start_many(
    State(app): Shared,
    caller: Caller,
    Reserve(reservation): Reserve,
    _: QueryOf<NoQuery>,
    EachBody(good, said): EachBody<StartRuns>,
) -> Answer {
    if let Some(scope) = &caller.scope {
        good.iter().try_for_each(|start| scopes::workflow(scope, &start.workflow))?;
    }
    app.may_start(&caller, good.len())?;
    let (good, bad) = sort_out(good);
    app.engine.check_runs_quota(&caller.namespace, &good, reservation.as_ref()).await?;
    let good = match reservation {
        Some(reserved) => {
            // The same body is sorted out the same, so that each start has the same number in every repeat.
            let numbered = good.into_iter().enumerate();
            let starts = numbered.map(|(index, start)| (reserved.run_id(index), start)).collect();
            app.engine.start_runs_as(&caller.namespace, starts).await
        }
        None => app.engine.start_runs(&caller.namespace, good).await,
    };
    let results = merge(merge(good, bad), said.bad);
    let failed = results.iter().any(|one| one.status >= 500);
    let status = common_status(results.iter().map(|one| one.status));
    let mut response = answer(status, &StartAnswers { results })?;
    if failed {
        response.extensions_mut().insert(Unsettled);
    }
    Ok(response)
}

/// Returns the status for a caller who waited: 200 only for a full success.
fn waited(view: &RunView) -> StatusCode {
    match view.outcome {
        Some(Outcome::Succeeded) => StatusCode::OK,
        Some(_) => StatusCode::MULTI_STATUS,
        None => StatusCode::ACCEPTED,
    }
}

/// Query parameters of a list of runs.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct RunsQuery {
    /// Only this workflow.
    workflow: Option<String>,
    /// Only in this state.
    state: Option<RunState>,
    /// Only with this outcome.
    outcome: Option<Outcome>,
    /// Only with this key.
    key: Option<String>,
    /// Only with this label, as `name:value`. May be given several times, for several labels: all of them must hold.
    #[param(value_type = Option<Vec<String>>, example = json!(["customer:c-7"]))]
    label: Vec<(String, String)>,
    /// Only where this condition holds: one that follows from the run's journal, such as `IncidentOpen` or
    /// `SignalAwaited`. Those that follow from workers and queues (`NoWorker`) are refused.
    #[param(schema_with = searched_conditions, example = "IncidentOpen")]
    condition: Option<String>,
    /// Only with this correlation id.
    correlation_id: Option<String>,
    /// Only those with an open incident (`true`), or without (`false`).
    incident: Option<bool>,
    /// Only those with a step that may have happened in this system: the queue on which the step's tasks are offered.
    unknown_in: Option<String>,
    /// Only those that ask this person for a signal, such as an approval.
    assignee: Option<String>,
    /// Only those started at this instant or later.
    started_from: Option<Timestamp>,
    /// Only those started before this instant.
    started_to: Option<Timestamp>,
    /// Only those ended at this instant or later.
    ended_from: Option<Timestamp>,
    /// Only those ended before this instant.
    ended_to: Option<Timestamp>,
    /// `next` of the page before.
    after: Option<String>,
    /// 1 to 1,000; 100 without it.
    #[param(value_type = Option<u32>)]
    limit: u32,
}

impl FromQuery for RunsQuery {
    fn read(pairs: &mut Pairs) -> Self {
        let mut label: Vec<(String, String)> = Vec::new();
        for text in pairs.all("label") {
            match text.split_once(':') {
                Some((name, value)) if label.iter().any(|(n, v)| n == name && v != value) => {
                    let message = format!("A run has one value of '{name}': name one of them");
                    pairs.refuse("label", message);
                }
                Some((name, value)) => label.push((name.to_owned(), value.to_owned())),
                None => pairs.refuse("label", "It must be like name:value"),
            }
        }
        let condition = pairs.text("condition");
        if let Some(Err(message)) = condition.as_deref().map(check_searched) {
            pairs.refuse("condition", message);
        }
        RunsQuery {
            workflow: pairs.text("workflow"),
            state: pairs.word("state"),
            outcome: pairs.word("outcome"),
            key: pairs.text("key"),
            label,
            condition,
            correlation_id: pairs.text("correlation_id"),
            incident: pairs.parsed("incident"),
            unknown_in: pairs.text("unknown_in"),
            assignee: pairs.text("assignee"),
            started_from: pairs.parsed("started_from"),
            started_to: pairs.parsed("started_to"),
            ended_from: pairs.parsed("ended_from"),
            ended_to: pairs.parsed("ended_to"),
            after: pairs.text("after"),
            limit: pairs.limit(),
        }
    }
}

/// List runs, newest first
///
/// The order is that of their ids, which tell when a run was asked for. A child has the place of its parent, and a run
/// asked for in a transaction that of its request, however much later they began.
#[utoipa::path(
    get, path = "/v1/runs", tag = "runs", operation_id = "list_runs",
    params(RunsQuery),
    responses((status = 200, description = "A page of runs.", body = Page<RunLine>, example = json!(examples::runs())))
)]
pub(crate) async fn list(
    State(app): Shared,
    caller: Caller,
    QueryOf(query): QueryOf<RunsQuery>,
) -> Answer {
    let filter = RunFilter {
        workflow: query.workflow,
        state: query.state,
        outcome: query.outcome,
        key: query.key,
        labels: query.label,
        correlation_id: query.correlation_id,
        condition: query.condition,
        incident: query.incident,
        unknown_in: query.unknown_in,
        assignee: query.assignee,
        started_from: query.started_from,
        started_to: query.started_to,
        ended_from: query.ended_from,
        ended_to: query.ended_to,
        after: query.after,
        limit: query.limit,
    };
    json(StatusCode::OK, &app.engine.runs(&caller.namespace, filter).await?)
}

/// Query parameters of one run.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct RunQuery {
    /// Wait so long for the end, at most `30s`.
    #[param(value_type = Option<String>, example = "10s")]
    wait: Option<Span>,
    /// As it was after this record of its history; the first is 1.
    as_of: Option<u64>,
}

impl FromQuery for RunQuery {
    fn read(pairs: &mut Pairs) -> Self {
        let query = RunQuery { wait: pairs.wait(), as_of: pairs.parsed("as_of") };
        if query.wait.is_some() && query.as_of.is_some() {
            pairs.refuse("wait", "It cannot stand beside as_of: the past does not change");
        }
        if query.as_of == Some(0) {
            pairs.refuse("as_of", "Records are counted from 1");
        }
        query
    }
}

/// Show a run
///
/// With `wait` the status tells how it ended: 200 once it succeeded, 207 when it ended otherwise, 202 while it still
/// moves. Without it the status is 200.
#[utoipa::path(
    get, path = "/v1/runs/{id}", tag = "runs", operation_id = "show_run",
    params(("id" = RunId, Path, description = "The run's id"), RunQuery),
    responses(
        (status = 200, description = "The run; with `wait`, it succeeded.", body = RunView, example = json!(examples::run())),
        (status = 202, description = "With `wait`: it still moves.", body = RunView),
        (status = 207, description = "With `wait`: it ended, but not with full success; see `outcome`.", body = RunView),
    )
)]
pub(crate) async fn show(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<RunId>,
    QueryOf(query): QueryOf<RunQuery>,
) -> Answer {
    match query.wait {
        Some(wait) => {
            let _place = app.place(&caller, WaitFor::RunEnd)?;
            let view = app.wait_for(&caller, id, wait.duration()).await?;
            json(waited(&view), &view)
        }
        None => json(StatusCode::OK, &app.engine.run(&caller.namespace, id, query.as_of).await?),
    }
}

/// Query parameters of a page.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// `next` of the page before.
    pub(super) after: Option<String>,
    /// 1 to 1,000; 100 without it.
    #[param(value_type = Option<u32>)]
    pub(super) limit: u32,
}

impl FromQuery for PageQuery {
    fn read(pairs: &mut Pairs) -> Self {
        PageQuery { after: pairs.text("after"), limit: pairs.limit() }
    }
}

/// Show a run with its parents and children as a tree
///
/// From its root: the run that is no step of another; below each run the runs that are steps of it.
#[utoipa::path(
    get, path = "/v1/runs/{id}/tree", tag = "runs", operation_id = "run_tree",
    params(("id" = RunId, Path, description = "Any run of the tree")),
    responses((status = 200, description = "The first 1,000 runs of the tree.", body = RunTree, example = json!(examples::tree())))
)]
pub(crate) async fn tree(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<RunId>,
    _: QueryOf<NoQuery>,
) -> Answer {
    json(StatusCode::OK, &app.engine.tree(&caller.namespace, id).await?)
}

/// Read a run's history
///
/// Everything that happened to the run, in order and without gaps.
#[utoipa::path(
    get, path = "/v1/runs/{id}/history", tag = "runs", operation_id = "run_history",
    params(("id" = RunId, Path, description = "The run's id"), PageQuery),
    responses((status = 200, description = "A page of the history.", body = Page<HistoryEntry>, example = json!(examples::history())))
)]
pub(crate) async fn history(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<RunId>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Answer {
    let after = query.after.as_deref();
    json(StatusCode::OK, &app.engine.history(&caller.namespace, id, after, query.limit).await?)
}

fn item_states() -> Object {
    words("Only in this state.", StepState::WORDS)
}

fn searched_conditions() -> Object {
    let what = "Only where this condition holds: one that follows from the run's journal. Those that follow from workers and \
                queues (`NoWorker`) are refused.";
    words(what, &SEARCHED)
}

/// Query parameters of a list of items.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ItemsQuery {
    /// Only in this state.
    #[param(schema_with = item_states)]
    state: Option<String>,
    /// Only the item with this key.
    key: Option<String>,
    /// `next` of the page before.
    after: Option<String>,
    /// 1 to 1,000; 100 without it.
    #[param(value_type = Option<u32>)]
    limit: u32,
}

impl FromQuery for ItemsQuery {
    fn read(pairs: &mut Pairs) -> Self {
        ItemsQuery {
            state: pairs.one_of("state", StepState::WORDS),
            key: pairs.text("key"),
            after: pairs.text("after"),
            limit: pairs.limit(),
        }
    }
}

/// List the items of a map step
#[utoipa::path(
    get, path = "/v1/runs/{id}/steps/{step}/items", tag = "runs", operation_id = "list_items",
    params(
        ("id" = RunId, Path, description = "The run's id"),
        ("step" = String, Path, description = "The map step", example = "stock"),
        ItemsQuery
    ),
    responses((status = 200, description = "A page of items.", body = Page<StepView>, example = json!(examples::items())))
)]
pub(crate) async fn items(
    State(app): Shared,
    caller: Caller,
    PathOf((id, step)): PathOf<(RunId, String)>,
    QueryOf(query): QueryOf<ItemsQuery>,
) -> Answer {
    let filter =
        ItemFilter { state: query.state, key: query.key, after: query.after, limit: query.limit };
    let page = app.engine.items(&caller.namespace, id, &step, filter).await?;
    json(StatusCode::OK, &page)
}

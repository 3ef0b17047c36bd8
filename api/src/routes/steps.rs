//! Decisions of people about one step or item. Each decision needs a reason, which the history
//! records.

use axum::extract::State;
use axum::http::StatusCode;
use backstitch_saga::protocol::{ResolveStep, RetryStep, RunView, SkipStep, StepView};
use backstitch_saga::{Command, RunId, StepPath};
use utoipa::IntoParams;

use super::acts::act;
use crate::access::Caller;
use crate::app::{App, Shared};
use crate::body::{Body, json};
use crate::examples::acts as examples;
use crate::problem::{Answer, Rejection};
use crate::query::{FromQuery, Pairs, PathOf, QueryOf};

/// Which item of a map step is meant.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ItemQuery {
    /// The item of the map step that has this key, instead of naming it by its index.
    key: Option<String>,
}

impl FromQuery for ItemQuery {
    fn read(pairs: &mut Pairs) -> Self {
        ItemQuery { key: pairs.text("key") }
    }
}

impl ItemQuery {
    /// Returns the path of the item, or of the step as it stands in the path of the request.
    pub(super) async fn of(
        &self,
        app: &App,
        caller: &Caller,
        run: RunId,
        step: StepPath,
    ) -> Result<StepPath, Rejection> {
        match &self.key {
            None => Ok(step),
            Some(key) => {
                Ok(app.engine.item_with_key(&caller.namespace, run, &step.step, key).await?)
            }
        }
    }
}

/// Show one step or item of a run
///
/// With its output, also where the whole run is too large for an answer and leaves it out.
#[utoipa::path(
    get, path = "/v1/runs/{id}/steps/{step}", tag = "runs", operation_id = "show_step",
    params(
        ("id" = RunId, Path, description = "The run's id"),
        ("step" = String, Path, description = "The step, or an item of a map step such as `stock/3`; a path has its slash encoded, as `stock%2F3`", example = "payment"),
        ItemQuery
    ),
    responses((status = 200, description = "The step or item.", body = StepView, example = json!(crate::examples::one_step())))
)]
pub(crate) async fn show(
    State(app): Shared,
    caller: Caller,
    PathOf((id, step)): PathOf<(RunId, StepPath)>,
    QueryOf(query): QueryOf<ItemQuery>,
) -> Answer {
    let step = query.of(&app, &caller, id, step).await?;
    json(StatusCode::OK, &app.engine.step(&caller.namespace, id, &step).await?)
}

/// Retry one step or item, optionally with another input
///
/// What is parked or blocked gets fresh attempts; what waits for its next attempt is tried at once. The input before
/// stays in the history, and the effect key stays the same.
#[utoipa::path(
    post, path = "/v1/runs/{id}/steps/{step}/retry", tag = "runs", operation_id = "retry_step",
    params(
        ("id" = RunId, Path, description = "The run's id"),
        ("step" = String, Path, description = "The step, or an item of a map step such as `stock/3`; a path has its slash encoded, as `stock%2F3`", example = "payment"),
        ItemQuery
    ),
    request_body(content = RetryStep, example = json!(examples::retry_step())),
    responses(
        (status = 200, description = "The run as it is now.", body = RunView),
        (status = 409, description = "Nothing there is parked, blocked or waiting for a retry (`nothing_to_retry`)."),
    )
)]
pub(crate) async fn retry(
    State(app): Shared,
    caller: Caller,
    PathOf((id, step)): PathOf<(RunId, StepPath)>,
    QueryOf(query): QueryOf<ItemQuery>,
    Body(ask): Body<RetryStep>,
) -> Answer {
    let step = query.of(&app, &caller, id, step).await?;
    let by = caller.by(ask.reason);
    let command = Command::Retry { step: Some(step), input: ask.input, by };
    act(StatusCode::OK, &app, &caller, id, command).await
}

/// Skip a step or item
///
/// It counts as skipped, and the outcome of the run says so. With an `output` what depends on it goes on as if it had
/// been done; without one, what needs its output is skipped too. To give an approval, send its signal or resolve it. A
/// compensation is not skipped: `mark-compensated` says that the effect is undone or may stay.
#[utoipa::path(
    post, path = "/v1/runs/{id}/steps/{step}/skip", tag = "runs", operation_id = "skip_step",
    params(
        ("id" = RunId, Path, description = "The run's id"),
        ("step" = String, Path, description = "The step, or an item of a map step such as `stock/3`; a path has its slash encoded, as `stock%2F3`", example = "payment"),
        ItemQuery
    ),
    request_body(content = SkipStep, example = json!(examples::skip_step())),
    responses(
        (status = 200, description = "The run as it is now.", body = RunView),
        (status = 409, description = "A worker has it (`task_in_flight`), or it is over or being undone (`nothing_to_resolve`)."),
    )
)]
pub(crate) async fn skip(
    State(app): Shared,
    caller: Caller,
    PathOf((id, step)): PathOf<(RunId, StepPath)>,
    QueryOf(query): QueryOf<ItemQuery>,
    Body(ask): Body<SkipStep>,
) -> Answer {
    let step = query.of(&app, &caller, id, step).await?;
    let by = caller.by(ask.reason);
    let command = Command::Skip { step, output: ask.output, by };
    act(StatusCode::OK, &app, &caller, id, command).await
}

/// Resolve a step or item as done, with its output
///
/// For an attempt in doubt that somebody has looked into, or a step that was done by hand. It counts as done, and is
/// undone if the run is.
#[utoipa::path(
    post, path = "/v1/runs/{id}/steps/{step}/resolve", tag = "runs", operation_id = "resolve_step",
    params(
        ("id" = RunId, Path, description = "The run's id"),
        ("step" = String, Path, description = "The step, or an item of a map step such as `stock/3`; a path has its slash encoded, as `stock%2F3`", example = "payment"),
        ItemQuery
    ),
    request_body(content = ResolveStep, example = json!(examples::resolve_step())),
    responses(
        (status = 200, description = "The run as it is now.", body = RunView),
        (status = 409, description = "A worker has it (`task_in_flight`), or it is over (`nothing_to_resolve`)."),
    )
)]
pub(crate) async fn resolve(
    State(app): Shared,
    caller: Caller,
    PathOf((id, step)): PathOf<(RunId, StepPath)>,
    QueryOf(query): QueryOf<ItemQuery>,
    Body(ask): Body<ResolveStep>,
) -> Answer {
    let step = query.of(&app, &caller, id, step).await?;
    let ResolveStep { reason, output, external_id } = ask;
    let by = caller.by(reason);
    let command = Command::Resolve { step, output, external_id, by };
    act(StatusCode::OK, &app, &caller, id, command).await
}

//! Labels that runs get after their start.

use axum::extract::State;
use axum::http::StatusCode;
use backstitch_saga::protocol::{LabelRun, RunView};
use backstitch_saga::{Command, RunId};

use super::acts::act;
use crate::access::Caller;
use crate::app::Shared;
use crate::body::Body;
use crate::examples::acts as examples;
use crate::problem::Answer;
use crate::query::{NoQuery, PathOf, QueryOf};

/// Give labels to a run, and take others from it
///
/// Works on runs that move and on runs that have ended. The run is found by its new labels at once; who changed them stands
/// among the acts. Labels that are so already are left alone.
#[utoipa::path(
    patch, path = "/v1/runs/{id}/labels", tag = "runs", operation_id = "label_run",
    params(("id" = RunId, Path, description = "The run's id")),
    request_body(content = LabelRun, example = json!(examples::label())),
    responses(
        (status = 200, description = "The run as it is now.", body = RunView),
        (status = 409, description = "The run was erased (`run_erased`)."),
        (status = 422, description = "A label is not well-formed, or the run would have more than 32 (`too_many_labels`)."),
    )
)]
pub(crate) async fn label(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<RunId>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<LabelRun>,
) -> Answer {
    let LabelRun { set, remove, reason } = ask;
    let remove = remove.into_iter().map(Into::into).collect();
    let command = Command::Label { set, remove, by: caller.by(reason) };
    act(StatusCode::OK, &app, &caller, id, command).await
}

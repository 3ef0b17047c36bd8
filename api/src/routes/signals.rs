//! Signals for runs: from other systems, or a person's decision.

use axum::extract::State;
use axum::http::StatusCode;
use backstitch_saga::RunId;
use backstitch_saga::protocol::{RunView, SendSignal, SendSignalByKey, SignalSent};

use crate::access::Caller;
use crate::app::Shared;
use crate::body::{Body, json};
use crate::examples::acts as examples;
use crate::problem::Answer;
use crate::query::{NoQuery, PathOf, QueryOf};
use crate::scopes;

/// Send a signal to a run
///
/// The first of its name counts, also when it comes before a step waits for it. Its data must satisfy the schema of the
/// step that waits for it, and is that step's output.
#[utoipa::path(
    post, path = "/v1/runs/{id}/signals/{signal}", tag = "runs", operation_id = "send_signal",
    params(
        ("id" = RunId, Path, description = "The run's id"),
        ("signal" = String, Path, description = "The signal's name", example = "approval"),
    ),
    request_body(content = SendSignal, example = json!(examples::signal())),
    responses(
        (status = 200, description = "The run as it is now.", body = RunView),
        (status = 404, description = "No step of the workflow waits for such a signal (`unknown_signal`)."),
        (status = 409, description = "One came before (`already_signalled`), or nothing waits for it any more (`not_awaited`, `run_ended`)."),
    )
)]
pub(crate) async fn send(
    State(app): Shared,
    caller: Caller,
    PathOf((id, signal)): PathOf<(RunId, String)>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<SendSignal>,
) -> Answer {
    let by = caller.by(String::new());
    app.engine.signal(&caller.namespace, id, &signal, ask.data, by).await?;
    json(StatusCode::OK, &app.engine.run(&caller.namespace, id, None).await?)
}

/// Send a signal to the run of a business key
///
/// When no run has been started under the key yet, the signal is kept for it, for 30 days.
#[utoipa::path(
    post, path = "/v1/signals", tag = "runs", operation_id = "send_signal_by_key",
    request_body(content = SendSignalByKey, example = json!(examples::signal_by_key())),
    responses(
        (status = 200, description = "The run has it.", body = SignalSent, example = json!(examples::signal_sent())),
        (status = 202, description = "It is kept for the run that the key will start.", body = SignalSent),
        (status = 404, description = "No step of the workflow waits for such a signal (`unknown_signal`)."),
        (status = 409, description = "One came before (`already_signalled`), or nothing waits for it any more (`not_awaited`, `run_ended`)."),
    )
)]
pub(crate) async fn send_by_key(
    State(app): Shared,
    caller: Caller,
    _: QueryOf<NoQuery>,
    Body(ask): Body<SendSignalByKey>,
) -> Answer {
    if let Some(scope) = &caller.scope {
        scopes::workflow(scope, &ask.workflow)?;
    }
    let by = caller.by(String::new());
    let sent = app.engine.signal_key(&caller.namespace, ask, by).await?;
    let status = if sent.run.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED };
    json(status, &sent)
}

//! Sequence across runs: the lines of serial keys, and facts.

use axum::extract::State;
use axum::http::StatusCode;
use backstitch_engine::FactAct;
use backstitch_saga::RunId;
use backstitch_saga::protocol::{
    KeyPlace, Page, Reason, Requirement, RunView, SubjectFacts, WithdrawFact,
};

use crate::access::Caller;
use crate::app::{App, Shared};
use crate::body::{Body, json};
use crate::examples::sequence as examples;
use crate::problem::Answer;
use crate::query::{NoQuery, PathOf, QueryOf};

/// Show a serial key: which run holds it and which wait
///
/// At most 1,000 places, in order. A key that nobody holds has no line.
#[utoipa::path(
    get, path = "/v1/keys/{key}", tag = "runs", operation_id = "show_key",
    params(("key" = String, Path, description = "The serial key", example = "customer:42")),
    responses((status = 200, description = "The line.", body = Page<KeyPlace>, example = json!(examples::line())))
)]
pub(crate) async fn key(
    State(app): Shared,
    caller: Caller,
    PathOf(key): PathOf<String>,
    _: QueryOf<NoQuery>,
) -> Answer {
    let items = app.engine.key_line(&caller.namespace, &key).await?;
    json(StatusCode::OK, &Page { items, next: None })
}

/// Show the facts of a subject and the runs that wait for them
#[utoipa::path(
    get, path = "/v1/facts/{subject}", tag = "runs", operation_id = "show_facts",
    params(("subject" = String, Path, description = "What the facts are about", example = "customer:42")),
    responses((status = 200, description = "Facts and waiters, at most 1,000 each.", body = SubjectFacts, example = json!(examples::facts())))
)]
pub(crate) async fn facts(
    State(app): Shared,
    caller: Caller,
    PathOf(subject): PathOf<String>,
    _: QueryOf<NoQuery>,
) -> Answer {
    json(StatusCode::OK, &app.engine.facts_about(&caller.namespace, &subject).await?)
}

/// Establish a fact
///
/// Runs that wait for it begin. Establishing what stands changes nothing.
#[utoipa::path(
    post, path = "/v1/facts/{subject}/{fact}/establish", tag = "runs", operation_id = "establish_fact",
    params(
        ("subject" = String, Path, description = "What the fact is about", example = "customer:42"),
        ("fact" = String, Path, description = "The fact", example = "customer.created"),
    ),
    request_body(content = Reason, example = json!(examples::reason())),
    responses(
        (status = 200, description = "What is established now.", body = SubjectFacts, example = json!(examples::facts())),
        (status = 422, description = "That cannot be the name of a fact, or a subject (`invalid_request`)."),
    )
)]
pub(crate) async fn establish(
    State(app): Shared,
    caller: Caller,
    PathOf(path): PathOf<(String, String)>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<Reason>,
) -> Answer {
    act(&app, &caller, path, FactAct::Establish, ask).await
}

/// Withdraw a fact
///
/// Nobody is released by it any more. Runs that have begun upon it show the condition `DependencyWithdrawn`, and do what
/// their requirement declares in `on_withdrawn`. With `dry_run` nothing is withdrawn; `dependents` names whom it would
/// touch. A fact that a run established is withdrawn when that run is undone.
#[utoipa::path(
    post, path = "/v1/facts/{subject}/{fact}/withdraw", tag = "runs", operation_id = "withdraw_fact",
    params(
        ("subject" = String, Path, description = "What the fact is about", example = "customer:42"),
        ("fact" = String, Path, description = "The fact", example = "customer.created"),
    ),
    request_body(content = WithdrawFact, example = json!(examples::reason())),
    responses(
        (status = 200, description = "What is established now, or whom it would touch.", body = SubjectFacts, example = json!(examples::facts())),
        (status = 404, description = "It is not established (`unknown_fact`)."),
        (status = 422, description = "That cannot be the name of a fact, or a subject (`invalid_request`)."),
    )
)]
pub(crate) async fn withdraw(
    State(app): Shared,
    caller: Caller,
    PathOf(path): PathOf<(String, String)>,
    _: QueryOf<NoQuery>,
    Body(WithdrawFact { reason, dry_run }): Body<WithdrawFact>,
) -> Answer {
    if dry_run {
        let fact = Requirement { on: path.0, fact: path.1 };
        return json(StatusCode::OK, &app.engine.would_touch(&caller.namespace, &fact).await?);
    }
    let reason = Reason { reason: reason.unwrap_or_default() };
    act(&app, &caller, path, FactAct::Withdraw, reason).await
}

async fn act(
    app: &App,
    caller: &Caller,
    (on, fact): (String, String),
    act: FactAct,
    ask: Reason,
) -> Answer {
    let (fact, by) = (Requirement { fact, on }, caller.by(ask.reason));
    app.engine.act_on_fact(&caller.namespace, &fact, act, &by).await?;
    json(StatusCode::OK, &app.engine.facts_about(&caller.namespace, &fact.on).await?)
}

/// Begin a run without the facts that it requires
#[utoipa::path(
    post, path = "/v1/runs/{id}/skip-requirements", tag = "runs", operation_id = "skip_requirements",
    params(("id" = RunId, Path, description = "The run's id")),
    request_body(content = Reason, example = json!(crate::examples::reason())),
    responses(
        (status = 200, description = "The run as it is now.", body = RunView),
        (status = 409, description = "It waits for no fact (`nothing_required`)."),
    )
)]
pub(crate) async fn skip_requirements(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<RunId>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<Reason>,
) -> Answer {
    let by = caller.by(ask.reason);
    app.engine.skip_requirements(&caller.namespace, id, &by).await?;
    json(StatusCode::OK, &app.engine.run(&caller.namespace, id, None).await?)
}

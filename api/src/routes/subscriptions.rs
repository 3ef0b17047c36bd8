//! Subscriptions: events of the log that start runs.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use backstitch_saga::protocol::{
    KeyState, Page, Reason, ResetSubscription, SkipEvent, SkippedEvent, SubscriptionKey,
    SubscriptionSpec, SubscriptionView,
};
use utoipa::IntoParams;

use super::runs::PageQuery;
use crate::access::Caller;
use crate::app::Shared;
use crate::body::{Body, json, located};
use crate::check::is_slug;
use crate::examples::{self as all, events as examples};
use crate::problem::{Answer, Rejection};
use crate::query::{FromQuery, NoQuery, Pairs, PathOf, QueryOf};
use crate::scopes;

/// Query parameters of a list of keys.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct KeysQuery {
    /// Only keys whose first event stands so.
    #[param(value_type = Option<KeyState>)]
    state: Option<KeyState>,
    /// `next` of the page before.
    after: Option<String>,
    /// 1 to 1,000; 100 without it.
    #[param(value_type = Option<u32>)]
    limit: u32,
}

impl FromQuery for KeysQuery {
    fn read(pairs: &mut Pairs) -> Self {
        KeysQuery { state: pairs.word("state"), after: pairs.text("after"), limit: pairs.limit() }
    }
}

/// List subscriptions by name
#[utoipa::path(
    get, path = "/v1/subscriptions", tag = "events", operation_id = "list_subscriptions",
    params(PageQuery),
    responses((status = 200, description = "A page of subscriptions.", body = Page<SubscriptionView>, example = json!(examples::subscriptions())))
)]
pub(crate) async fn list(
    State(app): Shared,
    caller: Caller,
    QueryOf(query): QueryOf<PageQuery>,
) -> Answer {
    let after = query.after.as_deref();
    json(StatusCode::OK, &app.engine.subscriptions(&caller.namespace, after, query.limit).await?)
}

/// Create or change a subscription
///
/// A new one begins at the head of the log, or after `from`. One that is there stays where it is, whatever is changed. Names are
/// `[a-z0-9][a-z0-9._-]*`.
#[utoipa::path(
    put, path = "/v1/subscriptions/{name}", tag = "events", operation_id = "put_subscription",
    params(("name" = String, Path, description = "Its name", example = "welcome")),
    request_body(content = SubscriptionSpec, example = json!(examples::spec())),
    responses(
        (status = 201, description = "It is made.", body = SubscriptionView, example = json!(examples::subscription())),
        (status = 200, description = "It is changed, or was the same.", body = SubscriptionView),
        (status = 409, description = "There are as many as there may be (`too_many_subscriptions`)."),
        (status = 422, description = "Something is wrong with it (`invalid_subscription`), or it names a contract of a vendor and is no mapper (`vendor_contract`); all of it is told."),
    )
)]
pub(crate) async fn put(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    _: QueryOf<NoQuery>,
    Body(spec): Body<SubscriptionSpec>,
) -> Answer {
    if !is_slug(&name) {
        let detail = "A subscription's name is [a-z0-9][a-z0-9._-]*, at most 100 characters.";
        return Err(Rejection::new(StatusCode::BAD_REQUEST, "invalid_path", detail));
    }
    if let Some(scope) = &caller.scope {
        scopes::workflow(scope, &spec.workflow)?;
    }
    let by = caller.by(String::new());
    let (view, created) = app.engine.put_subscription(&caller.namespace, &name, spec, &by).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    located(json(status, &view), &format!("/v1/subscriptions/{name}"))
}

/// Show a subscription
#[utoipa::path(
    get, path = "/v1/subscriptions/{name}", tag = "events", operation_id = "show_subscription",
    params(("name" = String, Path, description = "Its name", example = "welcome")),
    responses((status = 200, description = "The subscription.", body = SubscriptionView, example = json!(examples::subscription())))
)]
pub(crate) async fn show(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    _: QueryOf<NoQuery>,
) -> Answer {
    json(StatusCode::OK, &app.engine.subscription(&caller.namespace, &name).await?)
}

/// List the keys of a subscription with pending events
///
/// Each with its first event, and how many wait behind it; in the order of the log. With `state=blocked` those that wait for a person.
#[utoipa::path(
    get, path = "/v1/subscriptions/{name}/keys", tag = "events", operation_id = "list_subscription_keys",
    params(("name" = String, Path, description = "Its name", example = "welcome"), KeysQuery),
    responses((status = 200, description = "A page of keys.", body = Page<SubscriptionKey>, example = json!(examples::keys())))
)]
pub(crate) async fn keys(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    QueryOf(query): QueryOf<KeysQuery>,
) -> Answer {
    let KeysQuery { state, after, limit } = query;
    let namespace = &caller.namespace;
    let page =
        app.engine.subscription_keys(namespace, &name, state, after.as_deref(), limit).await?;
    json(StatusCode::OK, &page)
}

/// List the events that a subscription passed over, newest first
///
/// The newest 10,000 are listed.
#[utoipa::path(
    get, path = "/v1/subscriptions/{name}/skips", tag = "events", operation_id = "list_skipped_events",
    params(("name" = String, Path, description = "Its name", example = "welcome"), PageQuery),
    responses((status = 200, description = "A page of events.", body = Page<SkippedEvent>, example = json!(examples::skips())))
)]
pub(crate) async fn skips(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Answer {
    let (namespace, after) = (&caller.namespace, query.after.as_deref());
    json(StatusCode::OK, &app.engine.skipped_events(namespace, &name, after, query.limit).await?)
}

/// Delete a subscription
///
/// Runs that it has started go on.
#[utoipa::path(
    delete, path = "/v1/subscriptions/{name}", tag = "events", operation_id = "delete_subscription",
    params(("name" = String, Path, description = "Its name", example = "welcome")),
    responses((status = 204, description = "It is deleted."))
)]
pub(crate) async fn delete(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    _: QueryOf<NoQuery>,
) -> Answer {
    let by = caller.by(String::new());
    app.engine.delete_subscription(&caller.namespace, &name, &by).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Pause a subscription
///
/// Events wait where it stands until it is resumed.
#[utoipa::path(
    post, path = "/v1/subscriptions/{name}/pause", tag = "events", operation_id = "pause_subscription",
    params(("name" = String, Path, description = "Its name", example = "welcome")),
    request_body(content = Reason, example = json!(all::schedules::reason())),
    responses(
        (status = 200, description = "It is paused.", body = SubscriptionView),
        (status = 409, description = "Its row cannot be read (`subscription_damaged`)."),
    )
)]
pub(crate) async fn pause(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<Reason>,
) -> Answer {
    let by = caller.by(ask.reason);
    let view = app.engine.pause_subscription(&caller.namespace, &name, true, &by).await?;
    json(StatusCode::OK, &view)
}

/// Resume a subscription
#[utoipa::path(
    post, path = "/v1/subscriptions/{name}/resume", tag = "events", operation_id = "resume_subscription",
    params(("name" = String, Path, description = "Its name", example = "welcome")),
    request_body(content = Reason, example = json!(all::schedules::reason())),
    responses(
        (status = 200, description = "It goes on.", body = SubscriptionView),
        (status = 409, description = "Its row cannot be read (`subscription_damaged`)."),
    )
)]
pub(crate) async fn resume(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<Reason>,
) -> Answer {
    let by = caller.by(ask.reason);
    let view = app.engine.pause_subscription(&caller.namespace, &name, false, &by).await?;
    json(StatusCode::OK, &view)
}

/// Have a subscription begin again after a position
///
/// Its generation grows, so that events start runs of their own once more.
#[utoipa::path(
    post, path = "/v1/subscriptions/{name}/reset", tag = "events", operation_id = "reset_subscription",
    params(("name" = String, Path, description = "Its name", example = "welcome")),
    request_body(content = ResetSubscription, example = json!(examples::reset())),
    responses(
        (status = 200, description = "It goes on from there.", body = SubscriptionView),
        (status = 409, description = "Its row cannot be read (`subscription_damaged`)."),
    )
)]
pub(crate) async fn reset(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<ResetSubscription>,
) -> Answer {
    let by = caller.by(ask.reason);
    let view = app.engine.reset_subscription(&caller.namespace, &name, ask.position, &by).await?;
    json(StatusCode::OK, &view)
}

/// Pass over an event
///
/// Without a position, the event at which the subscription stands; with one, an event that blocks its key. The next one has its turn; what
/// is under way of a run goes on.
#[utoipa::path(
    post, path = "/v1/subscriptions/{name}/skip", tag = "events", operation_id = "skip_event",
    params(("name" = String, Path, description = "Its name", example = "welcome")),
    request_body(content = SkipEvent, example = json!(examples::skip())),
    responses(
        (status = 200, description = "It goes on after the event.", body = SubscriptionView),
        (status = 409, description = "It stands at no event (`subscription_not_stopped`), the event blocks no key (`event_not_blocked`), or its row cannot be read (`subscription_damaged`)."),
    )
)]
pub(crate) async fn skip(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<SkipEvent>,
) -> Answer {
    let by = caller.by(ask.reason);
    let (namespace, position) = (&caller.namespace, ask.position);
    json(StatusCode::OK, &app.engine.skip_event(namespace, &name, position, &by).await?)
}

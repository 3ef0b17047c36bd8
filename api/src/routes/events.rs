//! Events: appended to the log of a namespace, and read by position.

use std::sync::Arc;

use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, StatusCode};
use backstitch_engine::log::{EventDraft, EventQuery, read_cloud_event, read_cloud_events};
use backstitch_saga::Span;
use backstitch_saga::protocol::{
    EventLineage, EventPage, EventView, EventsPublished, PublishEvents,
};
use utoipa::IntoParams;
use uuid::Uuid;

use crate::access::Caller;
use crate::app::{App, Shared, WaitFor};
use crate::body::{self, CLOUD_EVENT, CLOUD_EVENTS, json};
use crate::check::MAX_KEY;
use crate::examples::events as examples;
use crate::feed::{self, Form};
use crate::problem::{Answer, Rejection};
use crate::query::{FromQuery, NoQuery, Pairs, PathOf, QueryOf};

/// The events of a request, in whichever of the forms it says they have.
pub(crate) struct Events(Vec<EventDraft>);

impl FromRequest<Arc<App>> for Events {
    type Rejection = Rejection;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Rejection> {
        let caller = request.extensions().get::<Caller>().cloned();
        let caller = caller.ok_or_else(|| Rejection::bug("events come from nobody"))?;
        let form = body::essence(request.headers()).to_ascii_lowercase();
        let bytes = body::read(request, app).await?;
        let (actor, limit) = (Arc::clone(&caller.name), app.engine.event_limit());
        let read = move |bytes: &[u8]| -> Result<Vec<EventDraft>, Rejection> {
            match form.as_str() {
                CLOUD_EVENT => Ok(read_cloud_event(bytes, &actor, limit)?),
                CLOUD_EVENTS => Ok(read_cloud_events(bytes, &actor, limit)?),
                _ => {
                    let ask = body::parse::<PublishEvents>(bytes)?;
                    Ok(EventDraft::of_request(ask.events, &actor, limit)?)
                }
            }
        };
        body::in_turn(app, Some(&caller), bytes, read).await.map(Events)
    }
}

/// Append events to the log
///
/// All of them or none. An event that has an `id` is appended once: the same sent again is answered as the first time. With
/// `application/cloudevents+json` the body is one CloudEvent, with `application/cloudevents-batch+json` a list of them; their
/// `subject` is the stream, and `dataschema` the contract.
#[utoipa::path(
    post, path = "/v1/events", tag = "events", operation_id = "publish_events",
    request_body(content = PublishEvents, example = json!(examples::publish())),
    responses(
        (status = 201, description = "They are in the log, and get their positions in a moment.", body = EventsPublished, example = json!(examples::published())),
        (status = 200, description = "All of them were there.", body = EventsPublished),
        (status = 409, description = "A stream is at another version (`stream_version_conflict`, with `actual_version`), or an id was used for another event (`event_id_reused`)."),
        (status = 422, description = "An event does not make sense (`invalid_request`, `invalid_event`), or its chain of causes is too long (`propagation_loop`)."),
    )
)]
pub(crate) async fn publish(
    State(app): Shared,
    caller: Caller,
    _: QueryOf<NoQuery>,
    Events(events): Events,
) -> Answer {
    let events = app.engine.append_events(&caller.namespace, events).await?;
    let all_repeated = events.iter().all(|event| event.repeated);
    let status = if all_repeated { StatusCode::OK } else { StatusCode::CREATED };
    json(status, &EventsPublished { events })
}

/// Query parameters of the log.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventsQuery {
    /// The position after which to begin, such as `next` of the page before; 0 without it.
    after: Option<String>,
    /// 1 to 1,000; 100 without it.
    #[param(value_type = Option<u32>)]
    limit: u32,
    /// Only events of this stream.
    stream: Option<String>,
    /// Only events of this type; `order.*` for all types that begin with `order.`.
    #[param(rename = "type")]
    event_type: Option<String>,
    /// Only events of this story.
    correlation: Option<String>,
    /// How long to wait for an event when there is none, at most `30s`.
    #[param(value_type = Option<String>)]
    wait: Option<Span>,
}

impl FromQuery for EventsQuery {
    fn read(pairs: &mut Pairs) -> Self {
        let mut named = |name: &str| {
            let text = pairs.text(name)?;
            if text.is_empty() || text.len() > MAX_KEY + 1 {
                pairs.refuse(name, format!("It has 1 to {} bytes", MAX_KEY + 1));
            }
            Some(text)
        };
        let (stream, event_type) = (named("stream"), named("type"));
        let correlation = named("correlation");
        EventsQuery {
            after: pairs.text("after"),
            limit: pairs.limit(),
            stream,
            event_type,
            correlation,
            wait: pairs.wait(),
        }
    }
}

/// List events by position
///
/// The log of a namespace is dense: its events have the positions 1, 2, 3 and so on, and what was read once is read again. With
/// `Accept: application/x-ndjson` or `text/event-stream` the answer is a stream that goes on with what comes: a line, or a
/// server-sent event, for each event. The header `Last-Event-ID` is a later `after`.
#[utoipa::path(
    get, path = "/v1/events", tag = "events", operation_id = "list_events",
    params(EventsQuery),
    responses(
        (status = 200, description = "Events, and the position up to which the log was looked through.", body = EventPage, example = json!(examples::page())),
        (status = 410, description = "The position is past retention (`position_past_retention`); `oldest_position` can be read."),
        (status = 429, description = "The credential reads as many streams as it may (`too_many_streams`)."),
    )
)]
pub(crate) async fn list(
    State(app): Shared,
    caller: Caller,
    headers: HeaderMap,
    QueryOf(query): QueryOf<EventsQuery>,
) -> Answer {
    if let Some(form) = Form::wanted(&headers) {
        return stream(app, caller, form, (query, &headers)).await;
    }
    let wait = query.wait.unwrap_or_default().duration();
    let _place = match query.wait {
        Some(_) => Some(app.place(&caller, WaitFor::RunEnd)?),
        None => None,
    };
    let ask = EventQuery {
        after: query.after,
        limit: query.limit,
        stream: query.stream,
        event_type: query.event_type,
        correlation_id: query.correlation,
        wait,
        bytes: None,
    };
    json(StatusCode::OK, &app.engine.events(&caller.namespace, ask).await?)
}

async fn stream(
    app: Arc<App>,
    caller: Caller,
    form: Form,
    (query, headers): (EventsQuery, &HeaderMap),
) -> Answer {
    if query.wait.is_some() {
        let detail = "A stream waits for as long as the reader does; leave out `wait`.";
        return Err(Rejection::new(StatusCode::BAD_REQUEST, "invalid_query", detail));
    }
    let ask = EventQuery {
        after: feed::last_event_id(headers)?.or(query.after),
        limit: query.limit,
        stream: query.stream,
        event_type: query.event_type,
        correlation_id: query.correlation,
        ..EventQuery::default()
    };
    feed::answer(app, caller, form, ask).await
}

/// Show an event
#[utoipa::path(
    get, path = "/v1/events/{id}", tag = "events", operation_id = "show_event",
    params(("id" = Uuid, Path, description = "The event's id")),
    responses((status = 200, description = "The event.", body = EventView, example = json!(examples::event())))
)]
pub(crate) async fn show(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<Uuid>,
    _: QueryOf<NoQuery>,
) -> Answer {
    json(StatusCode::OK, &app.engine.event(&caller.namespace, id).await?)
}

/// Show what an event came from and what came of it
///
/// The chain of its causes, the documents of sources that these were, the events that it caused, and the runs of its story.
#[utoipa::path(
    get, path = "/v1/events/{id}/lineage", tag = "events", operation_id = "show_lineage",
    params(("id" = Uuid, Path, description = "Its id")),
    responses((status = 200, description = "The lineage.", body = EventLineage, example = json!(examples::lineage())))
)]
pub(crate) async fn lineage(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<Uuid>,
    _: QueryOf<NoQuery>,
) -> Answer {
    json(StatusCode::OK, &app.engine.lineage(&caller.namespace, id).await?)
}

//! The log as a stream: a line of JSON or a server-sent event for each event, for as long as the reader stays.
//!
//! A reader that takes too little is cut off by its connection, as with every answer. The stream ends when its
//! credential is withdrawn, when the server closes, and after an hour; the reader asks again from where it was.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use backstitch_engine::log::EventQuery;
use backstitch_saga::protocol::{EventPage, EventView};
use futures::stream;
use serde::Serialize;
use tokio::time::Instant;

use crate::access::Caller;
use crate::app::{App, WaitFor};
use crate::problem::{Answer, Rejection};
use crate::shares::Share;

/// Time without an event after which a reader gets the end of the log, which shows that the stream lives.
const BEAT: Duration = Duration::from_secs(15);
/// Duration of a stream.
pub(crate) const LASTS: Duration = Duration::from_secs(3_600);
/// Approximate size of the events that are read together, in bytes.
pub(crate) const CHUNK: usize = 256 * 1024;
/// Number of streams that one credential may have at the same time.
pub(crate) const MOST: usize = 100;
/// Interval at which room is looked for again.
const AGAIN: Duration = Duration::from_millis(100);

const LINES: &str = "application/x-ndjson";
const SERVER_SENT: &str = "text/event-stream";

/// Format of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A line of JSON for each event.
    Lines,
    /// A server-sent event for each.
    ServerSent,
}

impl Form {
    /// Returns the form that a request accepts; `None` for a page.
    pub(crate) fn wanted(headers: &HeaderMap) -> Option<Form> {
        let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|one| one.to_str().ok());
        let mut kinds = accepted.flat_map(|one| one.split(','));
        kinds.find_map(|kind| match kind.split(';').next().unwrap_or_default().trim() {
            LINES => Some(Form::Lines),
            SERVER_SENT => Some(Form::ServerSent),
            _ => None,
        })
    }

    fn media_type(self) -> &'static str {
        match self {
            Form::Lines => LINES,
            Form::ServerSent => SERVER_SENT,
        }
    }

    /// Writes an event. A line break of its data is white space between its tokens: within texts it is escaped.
    fn event(self, text: &mut String, event: &EventView) {
        if let (Form::ServerSent, Some(position)) = (self, event.position) {
            text.push_str(&format!("id: {position}\n"));
        }
        self.data(text, event);
    }

    fn position(self, text: &mut String, position: Position) {
        if self == Form::ServerSent {
            text.push_str(&format!("id: {}\nevent: position\n", position.next));
        }
        self.data(text, &position);
    }

    fn data(self, text: &mut String, value: &impl Serialize) {
        // Data of the log always have a JSON form.
        let json = serde_json::to_string(value).unwrap_or_default().replace(['\n', '\r'], " ");
        let (before, after) = match self {
            Form::Lines => ("", "\n"),
            Form::ServerSent => ("data: ", "\n\n"),
        };
        text.push_str(before);
        text.push_str(&json);
        text.push_str(after);
    }
}

/// Position of the search in the log, and the end of the log.
#[derive(Clone, Copy, Serialize)]
struct Position {
    next: u64,
    head: u64,
}

/// A place among the streams of a credential: its namespace and name.
pub(crate) type Place = Share<(Arc<str>, Arc<str>)>;

/// A stream under way.
struct Feed {
    app: Arc<App>,
    caller: Caller,
    form: Form,
    ask: EventQuery,
    /// The page that was read and is not written yet.
    read: Option<EventPage>,
    until: Instant,
    _places: (Share<Arc<str>>, Place),
}

/// Answers with the events that `ask` wants, from where it says on.
///
/// # Errors
/// As a page; 429 when the credential has as many streams as it may.
pub(crate) async fn answer(app: Arc<App>, caller: Caller, form: Form, ask: EventQuery) -> Answer {
    let places = (app.place(&caller, WaitFor::RunEnd)?, app.feed(&caller)?);
    let ask = EventQuery { bytes: Some(CHUNK), ..ask };
    // Mistakes in it are reported before the stream begins.
    let read = app.engine.events(&caller.namespace, ask.clone()).await?;
    let until = Instant::now() + LASTS;
    let feed = Feed { app, caller, form, ask, read: Some(read), until, _places: places };
    let chunks = stream::unfold(feed, |mut feed| async move {
        let chunk = feed.next().await?;
        Some((Ok::<_, Infallible>(chunk), feed))
    });
    let mut response = Response::new(Body::from_stream(chunks));
    let kind = HeaderValue::from_static(form.media_type());
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

impl Feed {
    /// Returns the next piece of the stream; `None` at its end.
    async fn next(&mut self) -> Option<Bytes> {
        let (app, caller) = (Arc::clone(&self.app), self.caller.clone());
        let until = self.until;
        tokio::select! {
            biased;
            () = app.withdrawn(&caller) => None,
            () = app.closed() => None,
            () = tokio::time::sleep_until(until) => None,
            piece = self.piece() => piece,
        }
    }

    async fn piece(&mut self) -> Option<Bytes> {
        let page = match self.read.take() {
            Some(page) => page,
            None => {
                let ask = EventQuery { wait: BEAT, ..self.ask.clone() };
                // A reader that asks again gets the error.
                self.app.engine.events(&self.caller.namespace, ask).await.ok()?
            }
        };
        self.ask.after = Some(page.next.to_string());
        let mut text = String::new();
        page.items.iter().for_each(|event| self.form.event(&mut text, event));
        let last = page.items.last().and_then(|event| event.position);
        if last != Some(page.next) {
            self.form.position(&mut text, Position { next: page.next, head: page.head });
        }
        loop {
            match self.app.with_room_for(&self.caller.namespace, text) {
                Ok(bytes) => return Some(bytes),
                Err(back) => text = back,
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Returns the last position that a reader of server-sent events has.
///
/// # Errors
/// 400 when it cannot be read.
pub(crate) fn last_event_id(headers: &HeaderMap) -> Result<Option<String>, Rejection> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| text.len() <= 32);
    match text {
        Some("") => Ok(None),
        Some(text) => Ok(Some(text.to_owned())),
        None => Err(Rejection::new(
            axum::http::StatusCode::BAD_REQUEST,
            "invalid_cursor",
            "The header Last-Event-ID must be the position of an event.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(accept: &[&'static str]) -> Option<Form> {
        let mut headers = HeaderMap::new();
        for one in accept {
            headers.append(header::ACCEPT, HeaderValue::from_static(one));
        }
        Form::wanted(&headers)
    }

    #[test]
    fn a_stream_is_given_to_those_who_ask_for_one() {
        assert_eq!(wanted(&[]), None);
        assert_eq!(wanted(&["*/*"]), None);
        assert_eq!(wanted(&["application/json"]), None);
        assert_eq!(wanted(&["text/event-stream"]), Some(Form::ServerSent));
        assert_eq!(wanted(&["application/json, application/x-ndjson;q=0.9"]), Some(Form::Lines));
        assert_eq!(wanted(&["text/html", "application/x-ndjson"]), Some(Form::Lines));
    }

    #[test]
    fn a_message_has_one_line_of_data_whatever_breaks_its_lines() {
        let data =
            backstitch_saga::Payload::trusted("{\r\n \"a\": \"b\\nc\"\n}".to_owned()).unwrap();
        let mut text = String::new();
        Form::ServerSent.data(&mut text, &data);
        assert_eq!(text, "data: {   \"a\": \"b\\nc\" }\n\n");
        text.clear();
        Form::ServerSent.position(&mut text, Position { next: 7, head: 9 });
        assert_eq!(text, "id: 7\nevent: position\ndata: {\"next\":7,\"head\":9}\n\n");
    }
}

//! Sends changes to open pages as server-sent events. However many pages look at the same, this server asks the API
//! once for all of them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;
use tokio::sync::watch;

use crate::ask::{Ask, encoded};

/// A part of the log after its end, which shows the present end of the log.
pub(crate) const NEWEST_EVENT: &str = "/v1/events?limit=1&after=9223372036854775807";
/// Interval at which the data of open pages is read.
const EVERY: Duration = Duration::from_secs(1);
/// Interval at which the right of a viewer is checked.
const AGAIN: Duration = Duration::from_secs(20);
/// Number of topics that are watched live, by all pages of a server.
pub const MOST_TOPICS: usize = 500;
/// Number of pages that watch one of them live.
pub const MOST_VIEWERS: usize = 1_000;

/// The watched topics: for each namespace and address of the API, the hash of its last response.
#[derive(Default)]
pub(crate) struct Hub {
    topics: Mutex<HashMap<(String, String), watch::Sender<u64>>>,
}

/// The reason for which nothing is sent.
enum Full {
    Topics,
    Viewers,
}

impl Hub {
    /// Returns the changes of what `path` answers in `namespace`. The first who looks has it asked for, in their name,
    /// for all.
    fn look(
        &self,
        ask: &Arc<Ask>,
        namespace: &str,
        path: &str,
    ) -> Result<watch::Receiver<u64>, Full> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (namespace.to_owned(), path.to_owned());
        topics.retain(|_, sender| !sender.is_closed());
        if let Some(sender) = topics.get(&key) {
            if sender.receiver_count() >= MOST_VIEWERS {
                return Err(Full::Viewers);
            }
            return Ok(sender.subscribe());
        }
        if topics.len() >= MOST_TOPICS {
            return Err(Full::Topics);
        }
        let (sender, receiver) = watch::channel(0);
        topics.insert(key.clone(), sender.clone());
        tokio::spawn(poll(Arc::clone(ask), key, sender));
        Ok(receiver)
    }

    /// Stops the notifications of a topic: pages that are still open ask again.
    fn forget(&self, key: &(String, String), own: &watch::Sender<u64>) {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if topics.get(key).is_some_and(|sender| sender.same_channel(own)) {
            topics.remove(key);
        }
    }
}

/// Asks repeatedly, as long as a page watches and the first viewer has the right.
async fn poll(ask: Arc<Ask>, key: (String, String), sender: watch::Sender<u64>) {
    loop {
        let answer = ask.call(Method::GET, &key.1, None, None).await;
        // A server that is busy is asked again; who may not look any more leaves it to the others.
        if answer.status.is_client_error() && answer.status != StatusCode::TOO_MANY_REQUESTS {
            break;
        }
        if answer.status.is_success() {
            let hash = mark(&answer.body);
            sender.send_if_modified(|last| std::mem::replace(last, hash) != hash);
        }
        tokio::select! {
            () = sender.closed() => break,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
    ask.console.live.forget(&key, &sender);
    // Receivers see the end only when no sender is left.
    drop(sender);
}

/// Returns the mark by which a response is distinguished from the next.
pub(crate) fn mark(body: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    without_moment(body).hash(&mut hasher);
    hasher.finish().max(1)
}

/// Returns a response without its time, which always changes.
fn without_moment(body: &[u8]) -> Vec<u8> {
    let Ok(mut value) = serde_json::from_slice::<serde_json::Value>(body) else {
        return body.to_vec();
    };
    forget_moment(&mut value);
    value.to_string().into_bytes()
}

fn forget_moment(value: &mut serde_json::Value) {
    if let Some(members) = value.as_object_mut() {
        members.remove("as_of");
        members.values_mut().for_each(forget_moment);
    }
}

/// Returns the address of the API that shows whether the page at `of` has changed.
fn watched(of: &str) -> Option<String> {
    let rest = of.strip_prefix("/console")?;
    if rest.is_empty() {
        return Some("/v1/status".to_owned());
    }
    let mut parts = rest.strip_prefix('/')?.splitn(2, '/');
    match (parts.next()?, parts.next()) {
        ("runs", Some(run)) if !run.contains('/') => Some(format!("/v1/runs/{}", encoded(run))),
        ("jobs", Some(job)) if !job.contains('/') => Some(format!("/v1/jobs/{}", encoded(job))),
        (part @ ("imports" | "reprocessings" | "erasures"), Some(id)) if !id.contains('/') => {
            Some(format!("/v1/{part}/{}", encoded(id)))
        }
        ("workflows", Some(rest)) => match rest.split_once("/migrations/") {
            Some((name, id)) if !name.contains('/') && !id.contains('/') => {
                Some(format!("/v1/workflows/{}/migrations/{}", encoded(name), encoded(id)))
            }
            _ => None,
        },
        ("incidents", None) => Some("/v1/incidents/counts".to_owned()),
        ("effects", None) => Some("/v1/effects/counts".to_owned()),
        ("queues", None) => Some("/v1/queues".to_owned()),
        ("events", None) => Some(NEWEST_EVENT.to_owned()),
        ("workers", None) => Some("/v1/workers".to_owned()),
        _ => None,
    }
}

/// Tells a page when what it shows has changed.
pub(crate) async fn stream(ask: Ask) -> Response {
    let Some(path) = ask.param("of").and_then(watched) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let who = match ask.who().await {
        Ok(who) => who,
        // A browser that gets this does not ask again.
        Err(_) => return StatusCode::NO_CONTENT.into_response(),
    };
    let ask = Arc::new(ask);
    let Ok(mut changes) = ask.console.live.look(&ask, &who.namespace, &path) else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let seen = ask.param("mark").and_then(|mark| mark.parse().ok()).unwrap_or(0);
    changes.mark_changed();
    let events = stream::unfold((ask, changes, seen), |(ask, mut changes, mut seen)| async move {
        loop {
            match tokio::time::timeout(AGAIN, changes.changed()).await {
                Ok(Ok(())) => {}
                // The viewer in whose name the API was asked has lost the right.
                Ok(Err(_)) => return None,
                Err(_) => {
                    ask.who().await.ok()?;
                }
            }
            let now = *changes.borrow_and_update();
            let differs = now != 0 && seen != 0 && now != seen;
            seen = if now == 0 { seen } else { now };
            if differs {
                break;
            }
        }
        ask.who().await.ok()?;
        Some((
            Ok::<_, Infallible>(Event::default().event("changed").data("changed")),
            (ask, changes, seen),
        ))
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_are_live_know_what_they_watch() {
        for (page, path) in [
            ("/console", Some("/v1/status")),
            ("/console/runs/a-1", Some("/v1/runs/a-1")),
            ("/console/runs/a?b", Some("/v1/runs/a%3Fb")),
            ("/console/runs/a/undo", None),
            ("/console/events", Some(NEWEST_EVENT)),
            ("/console/imports/a", Some("/v1/imports/a")),
            ("/console/workflows/w/migrations/a", Some("/v1/workflows/w/migrations/a")),
            ("/console/workflows/w/1", None),
            ("/console/runs", None),
            ("/v1/credentials", None),
        ] {
            assert_eq!(watched(page).as_deref(), path, "{page}");
        }
    }

    #[test]
    fn the_moment_of_an_answer_is_no_change() {
        let (a, b) = (
            br#"{"as_of":"1","n":{"as_of":"1","x":1}}"#,
            br#"{"as_of":"2","n":{"as_of":"2","x":1}}"#,
        );
        assert_eq!(without_moment(a), without_moment(b));
    }
}

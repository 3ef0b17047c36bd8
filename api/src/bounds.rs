//! All bounds of the server with the values that hold: those of requests and connections, and those of the engine. The
//! page `docs/limits.md` is printed from here.

use backstitch_engine::Ceilings;
use backstitch_engine::bounds::{self as engine, Bound, Section, bound, bytes, number, span};
use backstitch_saga::protocol::Quotas;

use crate::app::Limits;
use crate::check::events::{MAX_EVENT_ID, MAX_EVENT_LABEL, MAX_EVENT_LABELS, MAX_EVENT_NAME};
use crate::check::{MAX_KEY, MAX_LIST, MAX_MESSAGE, MAX_NAME, MAX_REASON, MAX_WAIT};
use crate::server::UNREAD;
use crate::{feed, idempotency, logins, stream, turns};

/// Returns all bounds, with the default values of a server.
#[must_use]
pub fn bounds() -> Vec<Section> {
    let limits = Limits::default();
    let mut all = vec![
        ("Connections and requests", connections(&limits)),
        ("Members of requests", members()),
        ("Namespaces without quotas of their own", quotas()),
    ];
    all.extend(engine::bounds());
    all
}

/// Returns the tables of the page, as Markdown.
#[must_use]
pub fn page() -> String {
    let mut text = String::new();
    for (title, bounds) in bounds() {
        text.push_str(&format!("\n## {title}\n| of | limit | beyond it |\n| --- | --- | --- |\n"));
        for Bound { of, limit, beyond } in bounds {
            text.push_str(&format!("| {of} | {limit} | {beyond} |\n"));
        }
    }
    text
}

fn connections(limits: &Limits) -> Vec<Bound> {
    vec![
        bound("body of a request", bytes(limits.body), "413 `body_too_large`"),
        bound(
            "body of reports, heartbeats, events and batches of starts",
            bytes(limits.report_body),
            "413 `body_too_large`",
        ),
        bound("what came over a connection and is not read yet", bytes(UNREAD), "the sender waits"),
        bound("time for a body to arrive", span(limits.body_timeout), "408"),
        bound(
            "large bodies on their way; a namespace has at most as much as stays free",
            bytes(limits.bodies),
            "503 `busy`",
        ),
        bound(
            "large answers to reads on their way; a namespace has at most as much as stays free",
            bytes(limits.answers),
            "503 `busy`",
        ),
        bound(
            "unknown credentials from an address (of IPv6 a /64) in a second",
            format!("{}, {} at once", logins::ALLOWED.0, logins::ALLOWED.1),
            "429 `too_many_failed_logins`; credentials that were good lately pass",
        ),
        bound(
            "time to the first whole request of a connection",
            span(limits.first_request_timeout),
            "closed",
        ),
        bound("idle connection, or later headers under way", span(limits.idle_timeout), "closed"),
        bound(
            "connections; an address (of IPv6 a /64) has at most as many as stay free",
            number(limits.connections),
            "closed at once",
        ),
        bound(
            "things that pages of the console look at live",
            number(backstitch_console::MOST_TOPICS),
            "503; the page is shown, and not live",
        ),
        bound(
            "pages of the console that look at one of them",
            number(backstitch_console::MOST_VIEWERS),
            "503; the page is shown, and not live",
        ),
        bound(
            "an answer of which nothing is taken",
            span(limits.answer_timeout),
            "the connection is cut",
        ),
        bound(
            "an answer that is taken slowly, in a second",
            bytes(stream::SLOWEST),
            "the connection is cut when less was taken for as long",
        ),
        bound(
            "requests that begin before others go on; one more for each 8 KiB of a body",
            number(turns::REQUESTS.lap as usize),
            "wait, in turn for each namespace and kind of request",
        ),
        bound(
            "requests of a namespace and kind that wait for that",
            number(turns::REQUESTS.waiting),
            "503 `busy`",
        ),
        bound(
            "new connections that are served before others go on",
            number(turns::CONNECTIONS.lap as usize),
            "wait, in turn for each address",
        ),
        bound("`wait`", MAX_WAIT.to_string(), "400, in a claim 422"),
        bound(
            "claims that wait, and as many waits for the end of a run; a namespace has at most as many as stay free",
            number(limits.waiting),
            "503 `busy`",
        ),
        bound("streams of events of a credential", number(feed::MOST), "429 `too_many_streams`"),
        bound(
            "a stream of events",
            span(feed::LASTS),
            "ends; the reader asks again from where it was",
        ),
        bound("an `Idempotency-Key`", bytes(idempotency::LONGEST), "400 `invalid_idempotency_key`"),
        bound(
            "an answer that is kept for it",
            bytes(idempotency::LARGEST),
            "repeats are told that it was too large",
        ),
        bound("time for requests under way when the server closes", span(limits.drain), "cut"),
    ]
}

fn quotas() -> Vec<Bound> {
    let Quotas {
        requests_per_second,
        credential_requests_per_second,
        starts_per_second,
        runs,
        definitions,
        schedules,
        early_signals,
        kept_answers,
        waiting,
    } = Ceilings::default().all;
    let limit = |quota: Option<u32>| quota.map_or_else(|| "none".to_owned(), number);
    vec![
        bound("`requests_per_second`", limit(requests_per_second), "429 `too_many_requests`"),
        bound(
            "`credential_requests_per_second`",
            limit(credential_requests_per_second),
            "429 `too_many_requests`",
        ),
        bound("`starts_per_second`", limit(starts_per_second), "429 `too_many_starts`"),
        bound("`runs`", limit(runs), "429 `quota_runs`"),
        bound("`definitions`", limit(definitions), "409 `quota_definitions`"),
        bound("`schedules`", limit(schedules), "409 `quota_schedules`"),
        bound("`early_signals`", limit(early_signals), "429 `quota_early_signals`"),
        bound("`kept_answers`", limit(kept_answers), "429 `quota_kept_answers`"),
        bound("`waiting`", limit(waiting), "429 `quota_waiting`"),
    ]
}

fn members() -> Vec<Bound> {
    vec![
        bound(
            "reports, heartbeats, starts, elements of a page",
            number(MAX_LIST),
            "422, for a page 400",
        ),
        bound("name of a workflow, queue, handler, worker or actor", bytes(MAX_NAME), "422"),
        bound("key, correlation id, external id, label value", bytes(MAX_KEY), "422"),
        bound("type, stream, contract, source and id of an event", bytes(MAX_EVENT_NAME), "422"),
        bound("ids of stories, causes and traces of an event", bytes(MAX_EVENT_ID), "422"),
        bound("labels of an event", number(MAX_EVENT_LABELS), "422"),
        bound("value of a label of an event", bytes(MAX_EVENT_LABEL), "422"),
        bound("a reason", bytes(MAX_REASON), "422"),
        bound("a note", bytes(MAX_MESSAGE), "422"),
    ]
}

//! Reads the log.

use std::time::Duration;

use backstitch_saga::protocol::{EventOp, EventPage, EventTrust, EventView};
use backstitch_saga::{Payload, Timestamp, Violation};
use tokio::time::Instant;
use uuid::Uuid;

use crate::page::ANSWER_BYTES;
use crate::store::listed;
use crate::store::log::{self as table, EventRow, Heads, LogFilter, event_id, place_of};
use crate::{Engine, Error};

/// Filter of events, with the position to start from.
#[derive(Clone, Debug, Default)]
pub struct EventQuery {
    /// The position after which to begin; 0 without it.
    pub after: Option<String>,
    /// Largest number of events.
    pub limit: u32,
    /// Only those of this stream.
    pub stream: Option<String>,
    /// Only those of this type, or of all types that begin with a name and `.*`.
    pub event_type: Option<String>,
    /// Only those of this story.
    pub correlation_id: Option<String>,
    /// Longest wait for the first event.
    pub wait: Duration,
    /// Approximate size of the page, in bytes; without it, the largest of a response.
    pub bytes: Option<usize>,
}

/// Refuses a position that no event of the log has yet: who begins after it would pass over all that come until then.
/// Returns it as the tables have it.
pub(crate) fn reached(
    position: u64,
    head: i64,
    (code, pointer): (&'static str, &str),
) -> Result<i64, Error> {
    let of_tables = i64::try_from(position).ok().filter(|position| *position <= head);
    of_tables.ok_or_else(|| {
        let message = format!(
            "the last event has the position {head}, so nothing has come to {position} yet"
        );
        Error::invalid(code, Violation::new(pointer, "position_ahead", message))
    })
}

fn position(after: Option<&str>) -> Result<i64, Error> {
    let Some(text) = after else { return Ok(0) };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().ok_or_else(|| {
        let message = "this is not a position; 'next' of the page before is one";
        Error::invalid("invalid_cursor", Violation::new("?after", "invalid_cursor", message))
    })
}

impl Engine {
    /// Reads events of a namespace by position.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the position is none; [`Error::PastRetention`]; [`Error::Busy`].
    pub async fn events(&self, namespace: &str, query: EventQuery) -> Result<EventPage, Error> {
        let after = position(query.after.as_deref())?;
        let until = Instant::now() + query.wait;
        let bytes = query.bytes.unwrap_or(ANSWER_BYTES).min(ANSWER_BYTES);
        // Heard of from before the head is read.
        let mut head = (!query.wait.is_zero()).then(|| self.node().log.heads.wait(namespace));
        let prefix = query.event_type.as_deref().and_then(|name| name.strip_suffix(".*"));
        let filter = LogFilter {
            prefix: prefix.map(|name| format!("{name}.")),
            event_type: query.event_type.clone().filter(|name| prefix.is_none() && name != "*"),
            stream: query.stream,
            correlation_id: query.correlation_id,
        };
        let limit = i64::from(query.limit.clamp(1, 1_000));
        let mut next = after;
        loop {
            let heads = self.log_heads(namespace).await?;
            if next < heads.horizon {
                return Err(Error::PastRetention {
                    message: format!(
                        "events up to position {} are past retention; the oldest that can be read has the position {}",
                        heads.horizon,
                        heads.horizon + 1
                    ),
                    oldest: (heads.horizon + 1).unsigned_abs(),
                });
            }
            let mut items = Vec::new();
            if next < heads.position {
                let _turn = self.node().database.page_turn(namespace).await?;
                let mut connection = self.node().database.lister(namespace).await?;
                let bounds = (limit, i64::try_from(bytes).unwrap_or(i64::MAX));
                let range = (next, heads.position);
                let found = table::page(&mut connection, namespace, &filter, range, bounds).await;
                let (rows, looked) = listed(found)?;
                next = looked;
                items = rows.into_iter().map(view).collect::<Result<Vec<_>, _>>()?;
            }
            let over = !items.is_empty() || Instant::now() >= until;
            if over {
                let (next, head) = (next.unsigned_abs(), heads.position.unsigned_abs());
                return Ok(EventPage { items, next, head });
            }
            if let Some(head) = head.as_mut().filter(|_| next >= heads.position) {
                // Changed or not, the log is read.
                let _ = tokio::time::timeout_at(until, head.beyond(next)).await;
            }
        }
    }

    pub(crate) async fn log_heads(&self, namespace: &str) -> Result<Heads, Error> {
        let mut connection = self.node().database.reader(namespace).await?;
        Ok(table::heads(&mut connection, namespace).await?)
    }

    /// Finds an event.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn event(&self, namespace: &str, id: Uuid) -> Result<EventView, Error> {
        let mut connection = self.node().database.reader(namespace).await?;
        let found = table::event(&mut connection, namespace, place_of(id)).await?;
        let row = found.ok_or_else(|| Error::NotFound {
            code: "unknown_event",
            message: format!("there is no event {id} in this namespace"),
        })?;
        view(row)
    }
}

pub(crate) fn view(row: EventRow) -> Result<EventView, Error> {
    let damaged = |what: &str| Error::Store(format!("an event of the log has damaged {what}"));
    let id = event_id(row.batch, row.ord);
    let data = match row.body {
        Some(text) => Payload::trusted(text).map_err(|_| damaged("data"))?,
        None => Payload::null(),
    };
    let read = |text: String| serde_json::from_str(&text).map_err(|_| damaged("places"));
    let labels = row.labels.map(|text| serde_json::from_str(&text));
    Ok(EventView {
        position: row.position.map(i64::unsigned_abs),
        id,
        event_type: row.event_type,
        stream: row.stream,
        version: row.stream_version.map(i64::unsigned_abs),
        contract: row.contract,
        op: row.op.as_deref().and_then(EventOp::of),
        op_corrected: row.op_corrected,
        noop: row.noop,
        changed: row.changed.map(read).transpose()?,
        source: row.source,
        claimed_source: row.claimed_source,
        source_id: row.source_id,
        trust: trust(row.trust),
        occurred_at: row.occurred_at,
        received_at: Timestamp(row.received_at),
        correlation_id: row.correlation_id,
        causation_id: row.causation_id,
        hops: row.hops.unsigned_abs(),
        traceparent: row.traceparent,
        labels: labels.transpose().map_err(|_| damaged("labels"))?.unwrap_or_default(),
        data,
        erased: row.erased,
    })
}

fn trust(number: i16) -> EventTrust {
    match number {
        1 => EventTrust::Unverified,
        2 => EventTrust::Authenticated,
        3 => EventTrust::Signed,
        4.. => EventTrust::Authoritative,
        _ => EventTrust::Untrusted,
    }
}

//! The history of a run: its journal with the documents in place and the instants spelt for people.

use std::sync::Arc;

use backstitch_saga::protocol::{HistoryEntry, Page};
use backstitch_saga::{Payload, RunId, Time, Timestamp, WrittenMembers};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::Error;
use crate::cursor::Cursor;
use crate::node::Node;
use crate::page::{ANSWER_BYTES, Budget};
use crate::store::codec::{JournalRow, check_format, decode_payloads};
use crate::store::{journal, runs};

/// Size of the records that are put together to a page without waiting for a turn, in bytes.
const AT_ONCE: usize = 256 * 1024;

/// Returns the history of a run in order.
pub(crate) async fn history(
    node: &Arc<Node>,
    namespace: &str,
    id: RunId,
    after: Option<&str>,
    limit: u32,
) -> Result<Page<HistoryEntry>, Error> {
    let (from, told) = after.map(Cursor::event).transpose()?.unwrap_or((1, 0));
    let limit = limit.clamp(1, 1_000) as usize;
    let mut connection = node.database.reader(namespace).await?;
    let found = runs::ended(&mut connection, id).await?;
    if found.is_none_or(|(owner, _)| owner != namespace) {
        return Err(Error::unknown_run(id));
    }
    let beyond = limit + 2;
    let mut rows = journal::page(&mut connection, id, from, beyond, AT_ONCE).await?;
    let page = move |rows: Vec<JournalRow>, told| page_of(id, &rows, (from, told), limit);
    if bytes_of(&rows) < AT_ONCE || rows.len() >= beyond {
        return page(rows, told);
    }
    // A namespace has one large page put together at a time, by threads of its own.
    drop(connection);
    let _turn = node.database.page_turn(namespace).await?;
    let mut connection = node.database.reader(namespace).await?;
    let next = rows.last().map_or(from, |row| row.seq + 1);
    let (left, room) = (beyond - rows.len(), ANSWER_BYTES.saturating_sub(bytes_of(&rows)));
    rows.extend(journal::page(&mut connection, id, next, left, room).await?);
    drop(connection);
    let put_together = node.schemas.apart(namespace, move || page(rows, told)).await?;
    put_together.unwrap_or_else(|| Err(Error::Bug("a page was not put together".to_owned())))
}

fn bytes_of(rows: &[JournalRow]) -> usize {
    rows.iter().map(JournalRow::bytes).sum()
}

/// Makes a page of records that were read up to [`ANSWER_BYTES`]; `from` is the first record, and the number of its
/// events on the page before.
fn page_of(
    id: RunId,
    rows: &[JournalRow],
    (from, told): (i32, usize),
    limit: usize,
) -> Result<Page<HistoryEntry>, Error> {
    let (mut items, mut budget) = (Vec::new(), Budget::default());
    let mut after = from;
    for row in rows {
        let skip = if row.seq == from { told } else { 0 };
        let events = Events::of(id, row)?;
        for place in skip..events.count() {
            let full = || Cursor::of_event(row.seq, place);
            if items.len() == limit {
                return Ok(Page { items, next: Some(full()) });
            }
            let event = events.for_people(place)?;
            if !budget.takes_bytes(event.text().len()) {
                return Ok(Page { items, next: Some(full()) });
            }
            let seq = u64::try_from(row.seq).unwrap_or_default();
            items.push(HistoryEntry { seq, at: Timestamp(row.at), event });
        }
        after = row.seq + 1;
    }
    // The records that were read have as many bytes as an answer may have: there may be more.
    let cut = bytes_of(rows) >= ANSWER_BYTES;
    Ok(Page { items, next: cut.then(|| Cursor::of_event(after, 0)) })
}

/// The place of a document in its record, in the spelling of events that may name other places as
/// well.
#[derive(Deserialize)]
struct InSlot {
    slot: usize,
}

/// The events of a record, to be shown one by one.
struct Events {
    record: String,
    events: Vec<Box<RawValue>>,
    documents: Vec<Payload>,
}

impl Events {
    fn of(id: RunId, row: &JournalRow) -> Result<Events, Error> {
        check_format(id, row).map_err(Error::Damaged)?;
        let documents = decode_payloads(id, row).map_err(Error::Damaged)?;
        let record = format!("record {} of run {id}", row.seq);
        let events =
            serde_json::from_str(&row.events).map_err(|error| unreadable(&record, &error))?;
        Ok(Events { record, events, documents })
    }

    fn count(&self) -> usize {
        self.events.len()
    }

    fn for_people(&self, place: usize) -> Result<Payload, Error> {
        let event = &self.events[place];
        for_people(event, &self.documents).map_err(|error| unreadable(&self.record, &error))
    }
}

fn unreadable(record: &str, error: &serde_json::Error) -> Error {
    Error::Damaged(format!("{record} cannot be read: {error}"))
}

fn for_people(event: &RawValue, documents: &[Payload]) -> Result<Payload, serde_json::Error> {
    // An event without data is its name.
    let Ok(WrittenMembers(outer)) = serde_json::from_str::<WrittenMembers>(event.get()) else {
        return Payload::trusted(format!("{{{}:{{}}}}", event.get()));
    };
    let mut text = String::from("{");
    for (name, inner) in outer {
        text += &serde_json::to_string(&name)?;
        text.push_str(":{");
        let WrittenMembers::<Box<RawValue>>(members) = serde_json::from_str(inner.get())?;
        for (place, (member, value)) in members.into_iter().enumerate() {
            if place > 0 {
                text.push(',');
            }
            text += &serde_json::to_string(&member)?;
            text.push(':');
            text += &spelt(&name, &member, &value, documents);
        }
        text.push('}');
    }
    text.push('}');
    Payload::trusted(text)
}

/// Returns a member of an event with its document in place, or its instant as a date. A document that was erased is
/// `null`.
fn spelt(event: &str, member: &str, value: &RawValue, documents: &[Payload]) -> String {
    let document = |slot: usize| {
        documents.get(slot).map_or_else(|| "null".to_owned(), |found| found.text().to_owned())
    };
    let raw = value.get();
    match (event, member) {
        ("started" | "input_edited" | "rerun_requested", "input")
        | ("beat", "details")
        | ("signalled", "data")
        | ("opened", "keys")
        | ("succeeded" | "ended" | "skipped_by_hand", "output") => {
            raw.parse().map_or_else(|_| raw.to_owned(), document)
        }
        ("opened", "items") | ("offered" | "child_asked", "input") => {
            match serde_json::from_str(raw) {
                Ok(InSlot { slot }) => document(slot),
                Err(_) => raw.to_owned(),
            }
        }
        ("leased" | "beat" | "signal_awaited" | "sleep_began", "until")
        | ("retry_scheduled", "at")
        | ("child_asked", "again") => {
            raw.parse().map_or_else(|_| raw.to_owned(), |at| format!("\"{}\"", Time(at)))
        }
        _ => raw.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(events: &str, payloads: Option<&str>) -> Vec<String> {
        let row = JournalRow {
            seq: 1,
            format: 1,
            at: Time(0),
            events: events.to_owned(),
            payloads: payloads.map(str::to_owned),
        };
        let events = Events::of(RunId(uuid::Uuid::nil()), &row).unwrap();
        let told = (0..events.count()).map(|place| events.for_people(place).unwrap());
        told.map(|event| event.text().to_owned()).collect()
    }

    #[test]
    fn documents_and_instants_stand_in_place() {
        let events = r#"[{"started":{"workflow":"w","input":0}},
            {"offered":{"step":"a","action":"forward","attempt":1,"input":{"slot":1}}},
            {"offered":{"step":"b","action":"forward","attempt":1,"input":{"same":"/input"}}},
            {"leased":{"step":"a","action":"forward","attempt":1,"worker":"w","until":1000}},
            "timed_out"]"#;
        let told = told(events, Some(r#"[{"n": 1.0},"x"]"#));
        assert_eq!(told[0], r#"{"started":{"workflow":"w","input":{"n": 1.0}}}"#);
        assert!(told[1].ends_with(r#""input":"x"}}"#));
        assert!(told[2].ends_with(r#""input":{"same":"/input"}}}"#));
        assert!(told[3].ends_with(r#""until":"1970-01-01T00:00:01.000Z"}}"#));
        assert_eq!(told[4], r#"{"timed_out":{}}"#);
    }

    #[test]
    fn an_erased_document_is_null() {
        assert_eq!(told(r#"[{"ended":{"output":0}}]"#, None), [r#"{"ended":{"output":null}}"#]);
    }
}

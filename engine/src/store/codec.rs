//! The text form of journal records: two JSON arrays, one of events and one of documents.
//!
//! Written once and read for ever. A form that this node does not know is an error that says so, never a guess.

use backstitch_saga::{Payload, Record, RunId, Time};
use serde_json::value::RawValue;

/// The newest form that this node writes and reads.
const FORMAT: i16 = 1;
/// Bytes of the text of most events, at the most.
const EVENT: usize = 160;

/// A record as in the table.
#[derive(Clone, Debug)]
pub(crate) struct JournalRow {
    pub(crate) seq: i32,
    pub(crate) format: i16,
    pub(crate) at: Time,
    pub(crate) events: String,
    pub(crate) payloads: Option<String>,
}

impl JournalRow {
    /// Returns the bytes of its text.
    pub(crate) fn bytes(&self) -> usize {
        self.events.len() + self.payloads.as_ref().map_or(0, String::len)
    }
}

/// Returns the text of a record's events.
pub(crate) fn encode_events(record: &Record) -> Result<String, String> {
    let mut text = Vec::with_capacity(2 + EVENT * record.events.len());
    serde_json::to_writer(&mut text, &record.events).map_err(|error| error.to_string())?;
    String::from_utf8(text).map_err(|error| error.to_string())
}

/// Returns the text of a record's documents; `None` when it has none.
pub(crate) fn encode_payloads(payloads: &[Payload]) -> Option<String> {
    if payloads.is_empty() {
        return None;
    }
    let length = payloads.iter().map(|payload| payload.text().len() + 1).sum::<usize>();
    let mut text = String::with_capacity(length + 1);
    for payload in payloads {
        text.push(if text.is_empty() { '[' } else { ',' });
        text.push_str(payload.text());
    }
    text.push(']');
    Some(text)
}

/// Reads a record back. Documents that were erased are left out, which the rules read as `null`.
pub(crate) fn decode(run: RunId, row: &JournalRow) -> Result<Record, String> {
    check_format(run, row)?;
    let events = serde_json::from_str(&row.events)
        .map_err(|error| unreadable(run, row.seq, &error.to_string()))?;
    Ok(Record { at: row.at, events, payloads: decode_payloads(run, row)? })
}

/// Returns the documents of a record.
pub(crate) fn decode_payloads(run: RunId, row: &JournalRow) -> Result<Vec<Payload>, String> {
    let Some(text) = &row.payloads else { return Ok(Vec::new()) };
    let raw: Vec<Box<RawValue>> =
        serde_json::from_str(text).map_err(|error| unreadable(run, row.seq, &error.to_string()))?;
    Ok(raw.into_iter().map(Payload::from).collect())
}

/// Refuses records in a form that this node does not know.
pub(crate) fn check_format(run: RunId, row: &JournalRow) -> Result<(), String> {
    if row.format == FORMAT {
        return Ok(());
    }
    Err(unreadable(
        run,
        row.seq,
        &format!("its format is {}, this node knows {FORMAT}", row.format),
    ))
}

fn unreadable(run: RunId, seq: i32, detail: &str) -> String {
    format!(
        "record {seq} of run {run} cannot be read by this node ({detail}); \
         if a newer version wrote it, the run is left to newer nodes"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: &str = r#"[{"succeeded":{"step":"a","attempt":1,"output":0}}]"#;

    fn row(events: &str, payloads: Option<&str>) -> JournalRow {
        JournalRow {
            seq: 3,
            format: FORMAT,
            at: Time(5),
            events: events.to_owned(),
            payloads: payloads.map(str::to_owned),
        }
    }

    #[test]
    fn what_was_written_is_what_is_read() {
        let payload = |text: &str| Payload::trusted(text.to_owned()).unwrap();
        let record = Record {
            at: Time(5),
            events: serde_json::from_str(EVENTS).unwrap(),
            payloads: vec![payload(r#"{ "b" : 1.00, "a": "é" }"#), payload("null")],
        };
        let id = RunId(uuid::Uuid::nil());
        let events = encode_events(&record).unwrap();
        assert_eq!(events, EVENTS);
        let payloads = encode_payloads(&record.payloads);
        assert_eq!(payloads.as_deref(), Some(r#"[{ "b" : 1.00, "a": "é" },null]"#));
        assert_eq!(decode(id, &row(&events, payloads.as_deref())).unwrap(), record);
    }

    #[test]
    fn what_is_newer_is_left_alone() {
        let id = RunId(uuid::Uuid::nil());
        let unknown = row(r#"[{"teleported":{"step":"a"}}]"#, None);
        assert!(decode(id, &unknown).unwrap_err().contains("newer"));
        let format = JournalRow { format: 2, ..row("[]", None) };
        assert!(decode(id, &format).unwrap_err().contains("its format is 2"));
    }
}

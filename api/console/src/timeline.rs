//! The time a run spent, step by step: waiting in a queue, being worked on, waiting for a retry, for a person, for a
//! signal.

use std::collections::BTreeMap;

use backstitch_saga::Timestamp;
use backstitch_saga::protocol::HistoryEntry;
use serde_json::Value;

use crate::show::{length, spoken};

/// Largest number of lines that are drawn.
const MOST_ROWS: usize = 60;
/// Width of the picture, in its own units.
pub(crate) const WIDE: u64 = 10_000;

/// A stretch of time.
#[derive(Debug)]
pub(crate) struct Bar {
    /// Kind of the stretch: `queue`, `work`, `undo`, `retry`, `person`, `wait`, `held`.
    pub(crate) kind: &'static str,
    from: i64,
    to: i64,
    pub(crate) x: u64,
    pub(crate) width: u64,
    /// Description in a few words.
    pub(crate) title: String,
}

/// The stretches of one step or item.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) bars: Vec<Bar>,
}

/// The picture.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    pub(crate) rows: Vec<Row>,
    /// Number of rows that are left out.
    pub(crate) more: usize,
    /// Duration of the whole.
    pub(crate) whole: String,
    /// Kinds of stretches in the picture.
    pub(crate) kinds: Vec<(&'static str, &'static str)>,
}

/// Names of the kinds.
const KINDS: [(&str, &str); 7] = [
    ("queue", "waits in the queue"),
    ("work", "is worked on"),
    ("undo", "is undone"),
    ("retry", "waits for a retry"),
    ("person", "waits for a person"),
    ("wait", "waits for a signal, a time or a run"),
    ("held", "is held"),
];

/// A stretch that has not ended.
struct Open {
    kind: &'static str,
    from: i64,
    title: String,
}

#[derive(Default)]
struct Line {
    open: Option<Open>,
    bars: Vec<Bar>,
}

impl Line {
    fn turn(&mut self, at: i64, how: &str, next: Option<(&'static str, String)>) {
        if let Some(Open { kind, from, title }) = self.open.take() {
            let took = length(u64::try_from(at.saturating_sub(from)).unwrap_or(0));
            let title = if how.is_empty() {
                format!("{title}, {took}")
            } else {
                format!("{title}, {took}: {how}")
            };
            self.bars.push(Bar { kind, from, to: at, x: 0, width: 0, title });
        }
        self.open = next.map(|(kind, title)| Open { kind, from: at, title });
    }
}

/// Returns the change of a step's line by an event: the end of the open stretch, and the beginning of the next. `None`
/// when it is no turn of that line.
fn turn(name: &str, data: &Value) -> Option<(String, Option<(&'static str, String)>)> {
    let action = data["action"].as_str().unwrap_or("forward");
    let attempt = data["attempt"].as_u64().unwrap_or(1);
    let of = |what: &str| match action {
        "forward" => format!("{what} (attempt {attempt})"),
        other => format!("{what} ({other} {attempt})"),
    };
    let error = || {
        let error = &data["error"];
        let code = error["code"].as_str().unwrap_or("failed");
        let message = error["message"].as_str().unwrap_or_default();
        format!("{code}: {message}")
    };
    let next = match name {
        "offered" | "released" => Some(("queue", of("in the queue"))),
        "leased" => {
            let kind = if action == "compensate" { "undo" } else { "work" };
            let worker = data["worker"].as_str().unwrap_or_default();
            let worker = worker.split('/').next().unwrap_or_default();
            Some((kind, of(&format!("with {worker}"))))
        }
        "retry_scheduled" => Some(("retry", of("until the retry"))),
        "parked" | "undo_blocked" => Some(("person", "until a person decides".to_owned())),
        "signal_awaited" => {
            let signal = data["signal"].as_str().unwrap_or_default();
            Some(("wait", format!("for the signal {signal}")))
        }
        "sleep_began" => Some(("wait", "for time to pass".to_owned())),
        "child_asked" => Some(("wait", "for another run".to_owned())),
        "opened" => Some(("work", "items under way".to_owned())),
        "succeeded" | "failed" | "lost" | "gave_up" | "undone" | "undo_marked" | "joined"
        | "resumed" | "skipped" | "skipped_by_hand" | "resolved_by_hand" | "happened"
        | "not_happened" => None,
        _ => return None,
    };
    let how = match name {
        "failed" | "lost" => error(),
        "succeeded" | "undone" | "gave_up" | "joined" => spoken(name),
        _ => String::new(),
    };
    Some((how, next))
}

/// Returns the timeline of a run from its history; a stretch that has not ended goes on until
/// `until`.
pub(crate) fn of(entries: &[HistoryEntry], until: Timestamp) -> Timeline {
    let Some(first) = entries.first().map(|entry| entry.at.0.0) else { return Timeline::default() };
    let end = entries.last().map_or(first, |entry| entry.at.0.0).max(until.0.0).max(first + 1);
    let mut lines: BTreeMap<usize, (String, Line)> = BTreeMap::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for entry in entries {
        let Ok(Value::Object(event)) = entry.event.to::<Value>() else { continue };
        let Some((name, data)) = event.iter().next() else { continue };
        let at = entry.at.0.0;
        let (row, turned) = match name.as_str() {
            "held" => {
                let message = data["message"].as_str().unwrap_or("held").to_owned();
                ("the run".to_owned(), Some((String::new(), Some(("held", message)))))
            }
            "unheld" => ("the run".to_owned(), Some((String::new(), None))),
            _ => match data["step"].as_str() {
                Some(step) => (step.to_owned(), turn(name, data)),
                None => continue,
            },
        };
        let Some((how, next)) = turned else { continue };
        let next_place = places.len();
        let place = *places.entry(row.clone()).or_insert(next_place);
        let (_, line) = lines.entry(place).or_insert_with(|| (row, Line::default()));
        line.turn(at, &how, next);
    }
    let scale = |at: i64| {
        let part = u128::try_from(at.saturating_sub(first)).unwrap_or(0) * u128::from(WIDE);
        u64::try_from(part / u128::try_from(end - first).unwrap_or(1)).unwrap_or(WIDE).min(WIDE)
    };
    let mut rows: Vec<Row> = Vec::new();
    let mut more = 0;
    for (name, mut line) in lines.into_values() {
        line.turn(end, "", None);
        if line.bars.is_empty() {
            continue;
        }
        if rows.len() == MOST_ROWS {
            more += 1;
            continue;
        }
        for bar in &mut line.bars {
            bar.x = scale(bar.from);
            // A stretch without duration is shown all the same.
            bar.width = scale(bar.to).saturating_sub(bar.x).max(WIDE / 250);
        }
        rows.push(Row { name, bars: line.bars });
    }
    let has = |kind: &str| rows.iter().any(|row| row.bars.iter().any(|bar| bar.kind == kind));
    let kinds = KINDS.into_iter().filter(|(kind, _)| has(kind)).collect();
    let whole = length(u64::try_from(end - first).unwrap_or(0));
    Timeline { rows, more, whole, kinds }
}

#[cfg(test)]
mod tests {
    use backstitch_saga::{Payload, Time};

    use super::*;

    fn entry(at: i64, event: &str) -> HistoryEntry {
        let event = Payload::trusted(event.to_owned()).unwrap();
        HistoryEntry { seq: 1, at: Timestamp(Time(at)), event }
    }

    #[test]
    fn time_is_told_apart_by_what_it_was_spent_with() {
        let entries = [
            entry(0, r#"{"offered":{"step":"pay","action":"forward","attempt":1}}"#),
            entry(
                100,
                r#"{"leased":{"step":"pay","action":"forward","attempt":1,"worker":"w/1"}}"#,
            ),
            entry(
                200,
                r#"{"failed":{"step":"pay","action":"forward","attempt":1,"error":{"code":"x","message":"m"}}}"#,
            ),
            entry(200, r#"{"retry_scheduled":{"step":"pay","action":"forward","attempt":2}}"#),
            entry(700, r#"{"offered":{"step":"pay","action":"forward","attempt":2}}"#),
        ];
        let timeline = of(&entries, Timestamp(Time(1_000)));
        let bars: Vec<_> =
            timeline.rows[0].bars.iter().map(|bar| (bar.kind, bar.x, bar.width)).collect();
        assert_eq!(
            bars,
            [
                ("queue", 0, 1_000),
                ("work", 1_000, 1_000),
                ("retry", 2_000, 5_000),
                ("queue", 7_000, 3_000)
            ]
        );
        assert_eq!(timeline.rows[0].bars[1].title, "with w (attempt 1), 100 ms: x: m");
        assert_eq!((timeline.rows[0].name.as_str(), timeline.whole.as_str()), ("pay", "1.0 s"));
    }

    #[test]
    fn rows_are_bounded() {
        let entries: Vec<_> = (0..100)
            .map(|item| entry(item, &format!(r#"{{"offered":{{"step":"each/{item}"}}}}"#)))
            .collect();
        let timeline = of(&entries, Timestamp(Time(200)));
        assert_eq!((timeline.rows.len(), timeline.more), (MOST_ROWS, 40));
    }
}

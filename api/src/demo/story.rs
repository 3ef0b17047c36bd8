//! The history of a run, told as a story: what happened, when, in the words of a shop. Pure.

use std::collections::BTreeMap;

use backstitch_saga::protocol::{Failure, FailureKind, HistoryEntry};
use backstitch_saga::{Action, StepPath, Time, Timestamp};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// One line of a story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// When, in milliseconds since the run began.
    pub(crate) after_ms: u64,
    /// The event in words.
    pub(crate) text: String,
}

/// One try of a step, as its retry policy scheduled it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Try {
    /// Which, from 1.
    pub(crate) attempt: u32,
    /// Time of its end, in milliseconds since the run began.
    pub(crate) after_ms: u64,
    /// The code of its failure; none when it succeeded.
    pub(crate) error: Option<String>,
    /// Delay of the next try.
    pub(crate) put_off_ms: Option<u64>,
}

/// The members of an event that the story needs. Members that it has not are left empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Event {
    step: Option<StepPath>,
    action: Option<Action>,
    attempt: u32,
    error: Option<Failure>,
    at: Option<Instant>,
    external_id: Option<String>,
    outcome: Option<String>,
    cause: Option<String>,
    fate: Option<String>,
    by: Option<By>,
}

#[derive(Debug, Deserialize)]
struct By {
    reason: String,
}

/// An instant inside an event, as a number of milliseconds or as people write it.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum Instant {
    Number(Time),
    Text(Timestamp),
}

impl Instant {
    fn time(self) -> Time {
        match self {
            Instant::Number(time) | Instant::Text(Timestamp(time)) => time,
        }
    }
}

/// Returns the name of an event and what the story needs of it.
fn read(entry: &HistoryEntry) -> Option<(String, Event)> {
    let members: BTreeMap<String, Box<RawValue>> = entry.event.to().ok()?;
    let (name, body) = members.into_iter().next()?;
    Some((name, parse(&body).unwrap_or_default()))
}

fn parse<T: DeserializeOwned>(body: &RawValue) -> Option<T> {
    serde_json::from_str(body.get()).ok()
}

/// Returns whether the history has an event of this name.
pub(crate) fn has(history: &[HistoryEntry], name: &str) -> bool {
    history.iter().filter_map(read).any(|(event, _)| event == name)
}

/// Returns the story of a run.
pub(crate) fn tell(history: &[HistoryEntry]) -> Vec<Moment> {
    let start = history.first().map_or(Time(0), |entry| entry.at.0);
    let mut story = Story::default();
    for entry in history {
        if let Some((name, event)) = read(entry) {
            story.add(entry.at.0.since(start).0, entry.at.0, &name, &event);
        }
    }
    story.moments
}

/// Returns every try of a step that was not a fan-out, with the delays between them.
pub(crate) fn tries(history: &[HistoryEntry], step: &str) -> Vec<Try> {
    let start = history.first().map_or(Time(0), |entry| entry.at.0);
    let mut tries: Vec<Try> = Vec::new();
    for entry in history {
        let Some((name, event)) = read(entry) else { continue };
        let ours = event.step.as_ref() == Some(&StepPath::step(step));
        if !ours || event.action.is_some_and(|action| action != Action::Forward) {
            continue;
        }
        let after_ms = entry.at.0.since(start).0;
        match name.as_str() {
            "failed" | "lost" | "succeeded" => tries.push(Try {
                attempt: event.attempt,
                after_ms,
                error: event.error.map(|error| error.code),
                put_off_ms: None,
            }),
            "retry_scheduled" => {
                if let (Some(last), Some(at)) = (tries.last_mut(), event.at) {
                    last.put_off_ms = Some(at.time().since(entry.at.0).0);
                }
            }
            _ => {}
        }
    }
    tries
}

#[derive(Default)]
struct Story {
    moments: Vec<Moment>,
    /// The steps that the last line is about, and what it says of them, as long as others may join it.
    joined: Option<(Vec<String>, String)>,
    /// The step that failed last.
    failed: Option<String>,
}

impl Story {
    fn add(&mut self, after_ms: u64, at: Time, name: &str, event: &Event) {
        let step = event.step.as_ref().map(ToString::to_string).unwrap_or_default();
        let action = event.action.unwrap_or(Action::Forward);
        match (name, action) {
            ("started", _) => self.say(after_ms, "the order comes in".to_owned()),
            ("succeeded", _) if event.attempt == 0 => {}
            ("succeeded", _) => {
                let receipt =
                    event.external_id.as_ref().map_or(String::new(), |id| format!(" as {id}"));
                let (done, _) = words(event.step.as_ref());
                if receipt.is_empty() || event.step.as_ref().is_some_and(|step| step.item.is_some())
                {
                    self.join(after_ms, step, done);
                } else {
                    self.say(after_ms, format!("{step} {done}{receipt}"));
                }
            }
            ("undone", _) => self.join(after_ms, step, words(event.step.as_ref()).1),
            ("failed" | "lost", _) => self.failed(after_ms, &step, action, event),
            ("retry_scheduled", _) => {
                let delay = event.at.map_or(0, |next| next.time().since(at).0);
                self.append(&format!("; tried again in {delay} ms"));
            }
            ("leased", Action::Verify) => {
                self.say(after_ms, format!("{step}: the service is asked whether it happened"));
            }
            ("happened", _) => self.append(": it had, and it stands"),
            ("not_happened", _) => self.append(": it had not"),
            ("gave_up", _)
                if event.fate.as_deref() == Some("unknown")
                    && self.failed.as_ref() != Some(&step) =>
            {
                self.say(
                    after_ms,
                    format!("{step} was under way and is called off; it may have happened"),
                );
            }
            ("compensation_started", _) => self.undoing(after_ms, event),
            ("ended", _) => {
                let outcome = event.outcome.as_deref().unwrap_or("somehow").replace('_', " ");
                self.say(after_ms, format!("it has ended: {outcome}"));
            }
            _ => {}
        }
    }

    fn failed(&mut self, after_ms: u64, step: &str, action: Action, event: &Event) {
        let Some(error) = &event.error else { return };
        self.failed = Some(step.to_owned());
        let what = match action {
            Action::Forward => step.to_owned(),
            Action::Verify => format!("asking about {step}"),
            Action::Compensate => format!("undoing {step}"),
        };
        let text = match error.kind {
            FailureKind::Unknown => format!(
                "{what} attempt {}: no answer, so it may have happened ({})",
                event.attempt, error.code
            ),
            FailureKind::Permanent => {
                format!("{what} refused: {} ({})", error.message, error.code)
            }
            FailureKind::Retryable | FailureKind::RateLimited | FailureKind::Unavailable => {
                format!(
                    "{what} attempt {} failed: {} ({})",
                    event.attempt, error.message, error.code
                )
            }
        };
        self.say(after_ms, text);
    }

    fn undoing(&mut self, after_ms: u64, event: &Event) {
        let text = match (event.cause.as_deref(), &event.by) {
            (_, Some(by)) => format!("a person asks to undo it: \"{}\"", by.reason),
            (Some("timeout"), None) => "it took too long; what was done is undone".to_owned(),
            _ => "it cannot go on; what was done is undone, last things first".to_owned(),
        };
        self.say(after_ms, text);
    }

    fn say(&mut self, after_ms: u64, text: String) {
        self.joined = None;
        self.moments.push(Moment { after_ms, text });
    }

    /// Adds to the last line.
    fn append(&mut self, text: &str) {
        self.joined = None;
        if let Some(last) = self.moments.last_mut() {
            last.text.push_str(text);
        }
    }

    /// Says that something became of a step, in one line with others of which the same was just said, or of which
    /// something else was said at the same instant.
    fn join(&mut self, after_ms: u64, step: String, became: &str) {
        match (&mut self.joined, self.moments.last_mut()) {
            (Some((steps, same)), Some(last)) if same == became => {
                steps.push(step);
                last.text = format!("{} {became}", steps.join(", "));
            }
            (Some(_), Some(last)) if last.after_ms == after_ms => {
                last.text.push_str(&format!(", {step} {became}"));
            }
            _ => {
                self.say(after_ms, format!("{step} {became}"));
                self.joined = Some((vec![step], became.to_owned()));
            }
        }
    }
}

/// Returns the words for a step that was done, and for one that was undone.
fn words(step: Option<&StepPath>) -> (&'static str, &'static str) {
    match step.map(|step| &*step.step) {
        Some("customer") => ("found", "undone"),
        Some("price") => ("added up", "undone"),
        Some("stock") => ("reserved", "released"),
        Some("payment") => ("charged", "refunded"),
        Some("shipment") => ("sent", "recalled"),
        Some("receipt") => ("mailed", "undone"),
        _ => ("done", "undone"),
    }
}

#[cfg(test)]
mod tests {
    use backstitch_saga::Payload;

    use super::*;

    fn history(events: &[(i64, &str)]) -> Vec<HistoryEntry> {
        let entry = |(seq, (at, event)): (usize, &(i64, &str))| HistoryEntry {
            seq: seq as u64 + 1,
            at: Timestamp(Time(1_000 + at)),
            event: Payload::trusted((*event).to_owned()).unwrap(),
        };
        events.iter().enumerate().map(entry).collect()
    }

    #[track_caller]
    fn check(events: &[(i64, &str)], story: &[&str]) {
        let told: Vec<String> = tell(&history(events))
            .into_iter()
            .map(|moment| format!("{} {}", moment.after_ms, moment.text))
            .collect();
        assert_eq!(told, story);
    }

    #[test]
    fn an_order_that_is_undone() {
        check(
            &[
                (0, r#"{"started":{"namespace":"default","workflow":"place-order","version":1}}"#),
                (2, r#"{"offered":{"step":"stock/0","action":"forward","attempt":1}}"#),
                (
                    3,
                    r#"{"succeeded":{"step":"stock/0","attempt":1,"output":{},"external_id":"RES-1"}}"#,
                ),
                (
                    4,
                    r#"{"succeeded":{"step":"stock/1","attempt":1,"output":{},"external_id":"RES-2"}}"#,
                ),
                (
                    6,
                    r#"{"succeeded":{"step":"payment","attempt":1,"output":{},"external_id":"PAY-1"}}"#,
                ),
                (8, r#"{"gave_up":{"step":"stock/2","fate":"unknown"}}"#),
                (
                    9,
                    r#"{"failed":{"step":"shipment","action":"forward","attempt":1,"error":{"kind":"permanent","code":"carrier_refused","message":"the carrier says no"}}}"#,
                ),
                (
                    9,
                    r#"{"run_failed":{"step":"shipment","error":{"kind":"permanent","code":"carrier_refused","message":"no"}}}"#,
                ),
                (9, r#"{"compensation_started":{"cause":"failure","steps":["payment","stock"]}}"#),
                (11, r#"{"undone":{"step":"payment","attempt":1}}"#),
                (13, r#"{"undone":{"step":"stock/1","attempt":1}}"#),
                (14, r#"{"undone":{"step":"stock/0","attempt":1}}"#),
                (14, r#"{"ended":{"outcome":"compensated"}}"#),
            ],
            &[
                "0 the order comes in",
                "3 stock/0, stock/1 reserved",
                "6 payment charged as PAY-1",
                "8 stock/2 was under way and is called off; it may have happened",
                "9 shipment refused: the carrier says no (carrier_refused)",
                "9 it cannot go on; what was done is undone, last things first",
                "11 payment refunded",
                "13 stock/1, stock/0 released",
                "14 it has ended: compensated",
            ],
        );
    }

    const FAILED: &str = r#"{"failed":{"step":"payment","action":"forward","attempt":1,"error":{"kind":"retryable","code":"unavailable","message":"not now"}}}"#;
    const RETRY: &str =
        r#"{"retry_scheduled":{"step":"payment","action":"forward","attempt":2,"at":1143}}"#;
    const PAID: &str = r#"{"succeeded":{"step":"payment","attempt":2,"output":{}}}"#;

    #[test]
    fn retries_are_told_with_their_delays() {
        check(
            &[(0, FAILED), (3, RETRY)],
            &["0 payment attempt 1 failed: not now (unavailable); tried again in 140 ms"],
        );
        let tries = tries(&history(&[(0, FAILED), (3, RETRY), (150, PAID)]), "payment");
        let first = Try {
            attempt: 1,
            after_ms: 0,
            error: Some("unavailable".to_owned()),
            put_off_ms: Some(140),
        };
        let second = Try { attempt: 2, after_ms: 150, error: None, put_off_ms: None };
        assert_eq!(tries, [first, second]);
    }

    #[test]
    fn a_doubt_is_told_with_what_came_of_it() {
        const DOUBT: &str = r#"{"failed":{"step":"payment","action":"forward","attempt":1,"error":{"kind":"unknown","code":"timeout","message":"timed out"}}}"#;
        const ASKED: &str =
            r#"{"leased":{"step":"payment","action":"verify","attempt":1,"worker":"w","until":9}}"#;
        let doubt = "0 payment attempt 1: no answer, so it may have happened (timeout)";
        check(
            &[
                (0, DOUBT),
                (1, ASKED),
                (2, r#"{"happened":{"step":"payment","attempt":1}}"#),
                (2, r#"{"succeeded":{"step":"payment","attempt":0,"output":{}}}"#),
            ],
            &[doubt, "1 payment: the service is asked whether it happened: it had, and it stands"],
        );
        check(
            &[
                (0, DOUBT),
                (1, ASKED),
                (2, r#"{"not_happened":{"step":"payment","attempt":1}}"#),
                (3, RETRY),
            ],
            &[
                doubt,
                "1 payment: the service is asked whether it happened: it had not; tried again in 140 ms",
            ],
        );
    }

    #[test]
    fn a_person_who_undoes_is_quoted() {
        check(
            &[(
                5,
                r#"{"compensation_started":{"cause":"manual","by":{"actor":"ann","reason":"wrong size"},"steps":[]}}"#,
            )],
            &[r#"0 a person asks to undo it: "wrong size""#],
        );
    }
}

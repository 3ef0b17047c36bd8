//! Report of the demo: what arrived, the result for each, and whether anything is missing.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Sent;
use crate::demo::voice::Voice;

/// Everything that is there in the end.
pub(super) struct World {
    /// The documents sent, in order.
    pub(super) sent: Vec<Sent>,
    /// Each document of the server, by its id.
    pub(super) intake: BTreeMap<String, Value>,
    /// The log.
    pub(super) events: Vec<Value>,
    /// The runs, by key.
    pub(super) runs: Vec<Value>,
    /// `true` for each order that was seen to wait for its customer.
    pub(super) waited: usize,
}

/// A line of the table.
struct Line {
    what: String,
    answer: String,
    document: String,
    event: String,
    run: String,
}

impl World {
    fn event(&self, id: &Value) -> Option<&Value> {
        self.events.iter().find(|event| event["id"] == *id && !id.is_null())
    }

    /// Returns the run that was started for an event.
    fn run_of(&self, event: &Value) -> Option<&Value> {
        let ends = format!("/{}", event["position"]);
        self.runs.iter().find(|run| {
            let of = match event["type"].as_str() {
                Some("customer") => "know-customer",
                _ => "accept-order",
            };
            run["workflow"] == of && run["key"].as_str().is_some_and(|key| key.ends_with(&ends))
        })
    }

    fn line(&self, sent: &Sent) -> Line {
        let document = sent.intake.as_ref().and_then(|id| self.intake.get(id));
        let mapped = document.and_then(|view| self.event(&view["mapping"]["event_id"]));
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let event = mapped.map_or("-".to_owned(), |event| {
            let said = if event["noop"] == true {
                "nothing new"
            } else {
                event["op"].as_str().unwrap_or("-")
            };
            format!("{} {said}", text(&event["stream"]))
        });
        Line {
            what: format!("{} {}", sent.source, sent.what),
            answer: match sent.duplicate {
                true => format!("{} again", sent.status),
                false => sent.status.to_string(),
            },
            document: document.map_or("-".to_owned(), |view| {
                format!("{}, {}", text(&view["verdict"]), text(&view["mapping"]["state"]))
            }),
            event,
            run: mapped.and_then(|event| self.run_of(event)).map_or("-".to_owned(), |run| {
                format!("{} {}", text(&run["workflow"]), text(&run["outcome"]))
            }),
        }
    }

    /// Shows the table.
    pub(super) fn show(&self, voice: &Voice) {
        let head = Line {
            what: "sent".to_owned(),
            answer: "answer".to_owned(),
            document: "document".to_owned(),
            event: "event".to_owned(),
            run: "run".to_owned(),
        };
        for line in [head].into_iter().chain(self.sent.iter().map(|sent| self.line(sent))) {
            let Line { what, answer, document, event, run } = line;
            voice.say(format_args!("  {what:<14} {answer:<10} {document:<18} {event:<26} {run}"));
        }
    }

    /// Lists everything that does not add up; nothing in a good world.
    pub(super) fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut must = |holds: bool, what: &str| {
            if !holds {
                wrong.push(what.to_owned());
            }
        };
        let positions: Vec<u64> =
            self.events.iter().filter_map(|event| event["position"].as_u64()).collect();
        let dense = positions.iter().copied().eq(1..=self.events.len() as u64);
        must(dense, "the positions of the log have a gap");
        let first = self.sent.iter().filter(|sent| !sent.duplicate);
        must(first.count() == self.intake.len(), "a document is missing, or there twice");
        for (id, view) in &self.intake {
            let taken = view["verdict"] == "accepted" && view["mapping"]["state"] == "mapped";
            must(taken, &format!("document {id} is not mapped"));
            for event in [&view["event_id"], &view["mapping"]["event_id"]] {
                must(self.event(event).is_some(), &format!("an event of document {id} is missing"));
            }
        }
        self.runs_add_up(&mut must);
        self.vendors_agree(&mut must);
        wrong
    }

    /// Checks that each customer and order that came into being has one run that succeeded, and its
    /// own event.
    fn runs_add_up(&self, must: &mut impl FnMut(bool, &str)) {
        let mut made = 0;
        for event in self.events.iter().filter(|event| event["op"] == "C") {
            made += 1;
            let stream = event["stream"].as_str().unwrap_or_default();
            let succeeded = self.run_of(event).is_some_and(|run| run["outcome"] == "succeeded");
            must(succeeded, &format!("the run for {stream} did not succeed"));
            let told = self.events.iter().filter(|other| {
                let done = other["type"] == "customer.known" || other["type"] == "order.accepted";
                done && other["stream"] == event["stream"] && other["causation_id"] == event["id"]
            });
            must(
                told.count() == 1,
                &format!("what was done about {stream} is not in the log once"),
            );
        }
        must(made == self.runs.len(), "there are other runs than customers and orders");
        let orders = self.events.iter().filter(|event| event["type"] == "order").count();
        must(self.waited == orders, "an order did not wait for its customer");
    }

    /// Checks that what both vendors sent of a customer is the same in the canonical shape, and is
    /// there once.
    fn vendors_agree(&self, must: &mut impl FnMut(bool, &str)) {
        let mut by_stream: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for event in self.events.iter().filter(|event| event["type"] == "customer") {
            by_stream.entry(event["stream"].as_str().unwrap_or_default()).or_default().push(event);
        }
        let both = by_stream.values().filter(|events| events.len() > 1);
        must(both.count() > 0, "no customer came from both vendors");
        for (stream, events) in by_stream {
            let (first, others) = events.split_at(1);
            let same = others
                .iter()
                .all(|event| event["noop"] == true && event["data"] == first[0]["data"]);
            must(same, &format!("the vendors do not agree on {stream}"));
        }
    }

    /// Returns everything as JSON.
    pub(super) fn json(&self, wrong: &[String]) -> Value {
        let lines: Vec<Value> = self
            .sent
            .iter()
            .map(|sent| {
                let Line { what, answer, document, event, run } = self.line(sent);
                json!({"sent": what, "answer": answer, "document": document, "event": event, "run": run})
            })
            .collect();
        json!({
            "good": wrong.is_empty(), "wrong": wrong, "lines": lines,
            "documents": self.intake.len(), "events": self.events.len(), "runs": self.runs.len(),
        })
    }
}

//! Senders of documents during a random plan. Every document that was answered must be in the log once, as the event
//! that the answer named, and mapped once; each run has told once that it began and that it ended; positions are dense,
//! and versions of streams in their order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use backstitch_tests::chance::Chance;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::client::{Api, Saw};
use crate::evidence::Violation;

const DOOR: &str = "/v1/in/default/field";
const TOKEN: &str = "a-token-of-the-field";
/// How many senders there are.
const SENDERS: u64 = 3;
/// The number of streams that the documents belong to: few, so that senders compete for them.
const STREAMS: u64 = 8;
/// How long anything may take.
const WITHIN: Duration = Duration::from_secs(60);

/// Documents that were answered, with their events.
type Answered = BTreeMap<String, String>;

/// Senders of documents.
pub struct Senders {
    stopping: Arc<AtomicBool>,
    all: JoinSet<anyhow::Result<Answered>>,
}

fn violation(what: String) -> Violation {
    Violation { invariant: "I16", run: None, what }
}

impl Senders {
    /// Configures a source and begins to send to all engines.
    ///
    /// # Errors
    /// When the source is refused.
    pub async fn begin(api: &Api, chance: &mut Chance) -> anyhow::Result<Senders> {
        set_up(api).await.context("the source of the senders")?;
        let stopping = Arc::new(AtomicBool::new(false));
        let mut all = JoinSet::new();
        for sender in 0..SENDERS {
            all.spawn(send(api.clone(), sender, Arc::clone(&stopping), chance.fork()));
        }
        Ok(Senders { stopping, all })
    }

    /// Lets the documents that are under way be answered, and compares all answers, and the `runs` that have ended,
    /// with the log. Returns how many documents were answered.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn end(
        mut self,
        api: &Api,
        runs: &[Uuid],
    ) -> anyhow::Result<(usize, Vec<Violation>)> {
        self.stopping.store(true, Ordering::Relaxed);
        let (mut answered, mut violations) = (Answered::new(), Vec::new());
        while let Some(sender) = self.all.join_next().await {
            match sender.context("a sender")? {
                Ok(documents) => answered.extend(documents),
                Err(error) => violations.push(violation(format!("a sender gave up: {error:#}"))),
            }
        }
        let events = log(api, answered.len(), runs.len()).await?;
        violations.extend(compare(&events, &answered));
        violations.extend(starts_and_ends(&events, runs));
        Ok((answered.len(), violations))
    }
}

async fn set_up(api: &Api) -> anyhow::Result<()> {
    let text = json!({ "type": "string" });
    let schema = json!({ "type": "object", "properties": { "id": text, "of": text }, "required": ["id", "of"] });
    let rules = json!([{ "to": "/id", "copy": "/id" }, { "to": "/of", "copy": "/of" }]);
    let transform =
        json!({ "transform": { "stream": "parcel:{/of}", "rules": rules }, "reason": "chaos" });
    let spec = json!({
        "verify": { "scheme": "bearer" }, "accepts": [{ "contract": "field.parcel", "to": "parcel@1" }],
        "version_from": { "fixed": 1 }, "dedupe": [{ "pointer": "/id" }],
    });
    for (method, path, body) in [
        (Method::POST, "/v1/contracts/field.parcel/versions", json!({ "schema": schema })),
        (Method::POST, "/v1/contracts/parcel/versions", json!({ "schema": schema })),
        (Method::PUT, "/v1/transforms/field.parcel/1/parcel/1", transform),
        (Method::PUT, "/v1/sources/field", json!({ "spec": spec, "secret": TOKEN })),
    ] {
        match api.ask(method, path, Some(&body), "", WITHIN).await {
            Saw::Ok(_) => {}
            other => anyhow::bail!("{path}: {other:?}"),
        }
    }
    Ok(())
}

/// Sends documents one by one, each until it is answered by some engine. Some are sent again after their answer.
async fn send(
    api: Api,
    sender: u64,
    stopping: Arc<AtomicBool>,
    mut chance: Chance,
) -> anyhow::Result<Answered> {
    let mut answered = Answered::new();
    for number in 0.. {
        if stopping.load(Ordering::Relaxed) {
            break;
        }
        let id = format!("{sender}-{number}");
        let text = json!({ "id": id, "of": chance.below(STREAMS).to_string() }).to_string();
        let times = if chance.percent(20) { 2 } else { 1 };
        for _ in 0..times {
            let engine = usize::try_from(chance.below(3)).unwrap_or(0);
            let (status, told) = until_answered(&api, engine, &text).await?;
            let event = told["event_id"].as_str();
            let event = event.with_context(|| format!("{id} is answered {status} {told}"))?;
            let before = answered.insert(id.clone(), event.to_owned());
            anyhow::ensure!(before.is_none_or(|before| before == event), "{id} became two events");
        }
        tokio::time::sleep(Duration::from_millis(30 + chance.below(100))).await;
    }
    Ok(answered)
}

/// Sends a document to one engine after the other until one answers.
async fn until_answered(api: &Api, first: usize, text: &str) -> anyhow::Result<(u16, Value)> {
    let until = Instant::now() + WITHIN;
    for engine in first.. {
        let client = api.at(engine);
        let once = client.send(DOOR, TOKEN, ("application/json", text), Duration::ZERO);
        match once.await {
            Ok((status, told)) if status < 500 => return Ok((status, told)),
            _ => anyhow::ensure!(Instant::now() < until, "no engine answers"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("no engine answers")
}

/// Reads the log once it has both events of so many documents and runs, or no more come.
async fn log(api: &Api, documents: usize, runs: usize) -> anyhow::Result<Vec<Value>> {
    let until = Instant::now() + WITHIN;
    let (mut events, mut after) = (Vec::new(), 0);
    loop {
        let page = api.get(&format!("/v1/events?limit=1000&after={after}")).await?;
        let items = page["items"].as_array().context("a page has items")?;
        events.extend(items.iter().cloned());
        after = page["next"].as_u64().context("a page says how far it looked")?;
        if page["next"] != page["head"] {
            continue;
        }
        let count = |wanted: &dyn Fn(&str) -> bool| {
            events.iter().filter(|event| event["type"].as_str().is_some_and(wanted)).count()
        };
        let mapped = count(&|kind| kind == "parcel");
        let told = count(&|kind| kind.starts_with("run."));
        if (mapped >= documents && told >= 2 * runs) || Instant::now() > until {
            return Ok(events);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn compare(events: &[Value], answered: &Answered) -> Vec<Violation> {
    let mut wrong = Vec::new();
    let mut versions: BTreeMap<&str, u64> = BTreeMap::new();
    let mut found: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for (event, position) in events.iter().zip(1..) {
        if event["position"] != position {
            wrong.push(violation(format!("position {position} is not given, or twice: {event}")));
            break;
        }
        if let (Some(stream), Some(version)) = (event["stream"].as_str(), event["version"].as_u64())
        {
            let last = versions.entry(stream).or_default();
            if version != *last + 1 {
                wrong.push(violation(format!("version {version} of {stream} follows {last}")));
            }
            *last = version;
        }
        if let (Some(kind), Some(of), Some(id)) =
            (event["type"].as_str(), event["data"]["id"].as_str(), event["id"].as_str())
            && kind.ends_with("parcel")
        {
            found.entry((kind, of)).or_default().push(id);
        }
    }
    let twice = found.iter().filter(|(_, ids)| ids.len() > 1);
    wrong.extend(twice.map(|(of, ids)| violation(format!("{of:?} became the events {ids:?}"))));
    for (document, event) in answered {
        let of = |kind| found.get(&(kind, document.as_str())).and_then(|ids| ids.first());
        if of("field.parcel") != Some(&event.as_str()) {
            let what = format!("{document} was answered with {event}, which is not in the log");
            wrong.push(violation(what));
        }
        if of("parcel").is_none() {
            wrong.push(violation(format!("{document} was not mapped")));
        }
    }
    wrong
}

/// Each run has told once that it began, and then once that it ended.
fn starts_and_ends(events: &[Value], runs: &[Uuid]) -> Vec<Violation> {
    let mut told: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for event in events {
        if let (Some(kind), Some(run)) = (event["type"].as_str(), event["data"]["run"].as_str()) {
            told.entry(run).or_default().push(kind);
        }
    }
    let is_right = |kinds: &[&str]| matches!(kinds, ["run.started", end] if *end != "run.started");
    let wrong = runs.iter().filter_map(|run| {
        let kinds = told.get(&*run.to_string()).map_or(&[][..], Vec::as_slice);
        (!is_right(kinds)).then(|| Violation::of("I16", *run, format!("it told {kinds:?}")))
    });
    wrong.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(position: u64, kind: &str, of: &str, id: &str) -> Value {
        json!({ "position": position, "type": kind, "id": id, "data": { "id": of } })
    }

    #[test]
    fn a_document_that_is_lost_or_there_twice_is_a_violation() {
        let answered = Answered::from([("a".to_owned(), "e1".to_owned())]);
        let right = [event(1, "field.parcel", "a", "e1"), event(2, "parcel", "a", "e2")];
        assert!(compare(&right, &answered).is_empty());
        assert_eq!(compare(&right[..1], &answered).len(), 1);
        assert_eq!(compare(&[], &answered).len(), 2);
        let twice = [&right[..], &[event(3, "field.parcel", "a", "e3")]].concat();
        assert_eq!(compare(&twice, &answered).len(), 1);
        let gap = [right[0].clone(), event(3, "parcel", "a", "e2")];
        assert_eq!(compare(&gap, &answered).len(), 2);
        let other = [event(1, "field.parcel", "a", "e9"), right[1].clone()];
        assert_eq!(compare(&other, &answered).len(), 1);
    }

    #[test]
    fn a_run_that_told_nothing_or_too_much_is_a_violation() {
        let run = Uuid::from_u128(7);
        let told = |kind: &str| json!({ "type": kind, "data": { "run": run } });
        let right = [told("run.started"), told("run.succeeded")];
        assert!(starts_and_ends(&right, &[run]).is_empty());
        for wrong in [&right[..1], &[], &[right[1].clone(), right[0].clone()]] {
            assert_eq!(starts_and_ends(wrong, &[run]).len(), 1, "{wrong:?}");
        }
        let again = [&right[..], &right[1..]].concat();
        assert_eq!(starts_and_ends(&again, &[run]).len(), 1);
    }

    #[test]
    fn versions_of_a_stream_that_are_not_in_order_are_a_violation() {
        let of = |position: u64, version: u64| {
            let mut one = event(position, "parcel", &position.to_string(), &position.to_string());
            one["stream"] = json!("parcel:1");
            one["version"] = json!(version);
            one
        };
        assert!(compare(&[of(1, 1), of(2, 2)], &Answered::new()).is_empty());
        assert_eq!(compare(&[of(1, 1), of(2, 3)], &Answered::new()).len(), 1);
    }
}

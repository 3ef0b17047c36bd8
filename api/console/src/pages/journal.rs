//! The journal of a run: every event in order, with who did what and why.

use std::collections::HashMap;

use askama::Template;
use backstitch_saga::protocol::{HistoryEntry, RunView};
use serde_json::Value;

use super::changes::{Change, changes};
use super::filter::Filter;
use super::run::title;
use crate::ask::{Ask, Problem, encoded};
use crate::page::{Frame, Shown, ok};
use crate::show::{cut, instant, moment, pretty, spoken};

/// Number of events on a page.
const LIMIT: u32 = 200;
/// Largest number of changed places of an input that an event shows.
const MOST_CHANGES: usize = 50;

/// An event for reading.
struct Entry {
    seq: u64,
    at: String,
    moment: String,
    name: String,
    /// Where, and what of it fits into a line.
    about: String,
    /// Its actor.
    actor: Option<String>,
    reason: String,
    document: String,
    /// Places at which a person changed an input.
    changes: Vec<Change>,
}

/// Documents of earlier events, to show what a change of an input changes.
#[derive(Default)]
struct Told {
    run: Value,
    inputs: HashMap<String, Value>,
    outputs: HashMap<String, Value>,
}

impl Told {
    /// Takes note of the documents of an event. Returns the changes of an input that an earlier event had.
    fn note(&mut self, name: &str, data: &Value) -> Vec<Change> {
        let step = data["step"].as_str().or(data["from"].as_str()).unwrap_or_default().to_owned();
        let mut found = Vec::new();
        match name {
            "started" => self.run = data["input"].clone(),
            "succeeded" => {
                self.outputs.insert(step, data["output"].clone());
            }
            "offered" => {
                let input = match data["input"]["same"].as_str() {
                    Some("/input") => Some(self.run.clone()),
                    Some(place) => place
                        .strip_prefix("/steps/")
                        .and_then(|step| self.outputs.get(step))
                        .cloned(),
                    None => data.get("input").cloned(),
                };
                self.inputs.extend(input.map(|input| (step, input)));
            }
            "input_edited" | "rerun_requested" if !data["input"].is_null() => {
                if let Some(was) = self.inputs.insert(step, data["input"].clone()) {
                    changes("", Some(&was), data.get("input"), &mut found);
                    found.truncate(MOST_CHANGES);
                }
            }
            _ => {}
        }
        found
    }
}

impl Entry {
    fn of(entry: &HistoryEntry, told: &mut Told) -> Entry {
        let event = entry.event.to::<Value>().unwrap_or_default();
        let (name, data) = event
            .as_object()
            .and_then(|members| members.iter().next())
            .map_or(("unknown", &Value::Null), |(name, data)| (name.as_str(), data));
        let text = |member: &str| data[member].as_str().map(str::to_owned);
        let mut about: Vec<String> = ["step", "action", "signal", "worker", "outcome", "kind"]
            .into_iter()
            .filter_map(|member| text(member).map(|text| spoken(&text)))
            .collect();
        if let Some(attempt) = data["attempt"].as_u64().filter(|attempt| *attempt > 0) {
            about.push(format!("attempt {attempt}"));
        }
        if let Some(code) = data["error"]["code"].as_str() {
            let message = data["error"]["message"].as_str().unwrap_or_default();
            about.push(format!("{code}: {message}"));
        }
        about.extend(text("message"));
        Entry {
            seq: entry.seq,
            at: instant(entry.at),
            moment: moment(entry.at),
            name: spoken(name),
            about: cut(&about.join(" · "), 300),
            actor: data["by"]["actor"].as_str().map(str::to_owned),
            reason: data["by"]["reason"].as_str().unwrap_or_default().to_owned(),
            document: pretty(entry.event.text()),
            changes: told.note(name, data),
        }
    }
}

#[derive(Template)]
#[template(path = "journal.html")]
struct JournalPage {
    frame: Frame,
    view: RunView,
    entries: Vec<Entry>,
    next: Option<String>,
    paged: bool,
}

pub(crate) async fn show(ask: Ask, axum::extract::Path(id): axum::extract::Path<String>) -> Shown {
    match page(&ask, &encoded(&id)).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

async fn page(ask: &Ask, id: &str) -> Result<JournalPage, Problem> {
    let who = ask.who().await?;
    let view: RunView = ask.get(&format!("/v1/runs/{id}")).await?;
    let paged = ask.param("after").is_some();
    let path = format!("/v1/runs/{id}/history");
    let page = ask.list::<HistoryEntry>(&path, LIMIT, &Filter::of(ask, &[])).await?;
    let frame = Frame::new(ask, who, "runs", format!("Journal of {}", title(&view)));
    let mut told = Told::default();
    let entries = page.items.iter().map(|entry| Entry::of(entry, &mut told)).collect();
    Ok(JournalPage { frame, view, entries, next: page.next, paged })
}

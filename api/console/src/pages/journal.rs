//! The journal of a run: every event in order, with who did what and why.

use askama::Template;
use backstitch_saga::protocol::{HistoryEntry, RunView};
use serde_json::Value;

use super::filter::Filter;
use super::run::title;
use crate::ask::{Ask, Problem, encoded};
use crate::page::{Frame, Shown, ok};
use crate::show::{cut, instant, moment, pretty, spoken};

/// Number of events on a page.
const LIMIT: u32 = 200;

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
}

impl Entry {
    fn of(entry: &HistoryEntry) -> Entry {
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
    let entries = page.items.iter().map(Entry::of).collect();
    Ok(JournalPage { frame, view, entries, next: page.next, paged })
}

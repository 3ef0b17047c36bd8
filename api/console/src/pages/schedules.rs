//! Schedules: what is due next, and one with its starts.

use askama::Template;
use axum::extract::Path;
use backstitch_saga::protocol::{
    NextStarts, Page, ScheduleLine, ScheduleStart, ScheduleView, StartOutcome,
};
use serde_json::json;

use super::filter::Filter;
use crate::ask::{Ask, Problem, encoded};
use crate::form::{Deed, Field};
use crate::page::{Frame, Shown, ok};
use crate::show::{Badge, Tone, instant, moment, pretty};

/// Returns the date and the time of a clock, without its zone, which is said beside it.
fn clock(local: &str) -> String {
    local.get(..16).unwrap_or(local).replace('T', " ")
}

struct Line {
    line: ScheduleLine,
    next: Option<(String, String, String)>,
}

#[derive(Template)]
#[template(path = "schedules.html")]
struct SchedulesPage {
    frame: Frame,
    lines: Vec<Line>,
    next: Option<String>,
    deeds: Vec<Deed>,
}

pub(crate) async fn list(ask: Ask) -> Shown {
    match list_page(&ask).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

/// Returns the form for a new schedule.
fn new() -> Deed {
    let example = json!({
        "cron": "30 2 * * *", "time_zone": "Europe/Berlin", "workflow": "", "input": null,
        "overlap": "skip", "catch_up": "1h"
    });
    Deed::make("put-schedule", "New schedule", "/v1/schedules/{name}", &example)
        .about(
            "Starts runs of a workflow by the calendar, from now on. One of this name is replaced.",
        )
        .then("/console/schedules/{name}")
}

async fn list_page(ask: &Ask) -> Result<SchedulesPage, Problem> {
    let who = ask.who().await?;
    let page = ask.list::<ScheduleLine>("/v1/schedules", 100, &Filter::of(ask, &[])).await?;
    let line = |line: ScheduleLine| Line {
        next: line
            .next
            .as_ref()
            .map(|next| (instant(next.starts_at), moment(next.starts_at), clock(&next.local))),
        line,
    };
    Ok(SchedulesPage {
        frame: Frame::new(ask, who, "schedules", "Schedules"),
        lines: page.items.into_iter().map(line).collect(),
        next: page.next,
        deeds: vec![new()],
    })
}

struct Start {
    start: ScheduleStart,
    badge: Badge,
    at: String,
    moment: String,
    due: String,
}

#[derive(Template)]
#[template(path = "schedule.html")]
struct SchedulePage {
    frame: Frame,
    view: ScheduleView,
    upcoming: Vec<(String, String, String)>,
    starts: Vec<Start>,
    deeds: Vec<Deed>,
    spec: String,
}

pub(crate) async fn show(ask: Ask, Path(name): Path<String>) -> Shown {
    match page(&ask, &name).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

async fn page(ask: &Ask, name: &str) -> Result<SchedulePage, Problem> {
    let who = ask.who().await?;
    let path = format!("/v1/schedules/{}", encoded(name));
    let view: ScheduleView = ask.get(&path).await?;
    let next: NextStarts = ask.get(&format!("{path}/next")).await?;
    let starts: Page<ScheduleStart> = ask.get(&format!("{path}/starts?limit=50")).await?;
    let of = |word: &str| format!("{path}/{word}");
    let mut deeds = vec![
        Deed::new("trigger", "Start now", of("trigger"))
            .about("Starts a run now, beside the calendar."),
    ];
    deeds.push(match view.paused {
        Some(_) => Deed::new("resume", "Resume", of("resume"))
            .about("What was due meanwhile is started as far as its catch-up window says."),
        None => {
            Deed::new("pause", "Pause", of("pause")).about("Starts nothing until it is resumed.")
        }
    });
    deeds.push(
        Deed::new("backfill", "Backfill", of("backfill"))
            .about("Starts runs for instants of the past.")
            .field(Field::text("from", "From").hint("2026-01-31T00:00:00Z").required())
            .field(Field::text("to", "Up to").hint("2026-02-01T00:00:00Z").required()),
    );
    deeds.push(
        Deed::put("put-schedule", "Change", path.clone(), &view.spec)
            .about("Starts from now on are as this says; one that is being made stays as it was."),
    );
    deeds.push(
        Deed::delete("delete-schedule", "Delete", path)
            .about("Starts nothing any more. Its runs stay."),
    );
    let start = |start: ScheduleStart| Start {
        badge: Badge::new(
            match start.outcome {
                StartOutcome::Started => Tone::Good,
                StartOutcome::Skipped | StartOutcome::Missed => Tone::Calm,
                StartOutcome::Refused => Tone::Bad,
            },
            start.outcome.as_str(),
        ),
        at: instant(start.at),
        moment: moment(start.at),
        due: moment(start.scheduled_for),
        start,
    };
    let spec = serde_json::to_string(&view.spec).unwrap_or_default();
    Ok(SchedulePage {
        frame: Frame::new(ask, who, "schedules", name),
        upcoming: next
            .items
            .iter()
            .take(8)
            .map(|one| (instant(one.starts_at), moment(one.starts_at), clock(&one.local)))
            .collect(),
        starts: starts.items.into_iter().map(start).collect(),
        deeds,
        spec: pretty(&spec),
        view,
    })
}

//! Incidents: groups of one cause, the incidents of a group, and one with what can be done about it.

use askama::Template;
use axum::extract::Path;
use backstitch_saga::protocol::{
    IncidentCounts, IncidentGroup, IncidentLine, IncidentState, IncidentView, Page, Verb,
};

use super::filter::Filter;
use super::overview::Group;
use crate::ask::{Ask, Problem, encoded};
use crate::form::{Deed, Field};
use crate::page::{Frame, Shown, ok};
use crate::show::{instant, moment, number, pretty, spoken};

/// Parameters of the search, each a parameter of the API with the same name.
const PARAMETERS: [&str; 8] =
    ["state", "kind", "workflow", "step", "fingerprint", "run", "assignee", "older_than"];

/// An incident in a list.
struct Line {
    line: IncidentLine,
    kind: String,
    at: String,
    moment: String,
}

impl Line {
    fn of(line: IncidentLine) -> Line {
        let kind = spoken(&line.kind);
        Line { kind, at: instant(line.opened_at), moment: moment(line.opened_at), line }
    }
}

#[derive(Template)]
#[template(path = "incidents.html")]
struct IncidentsPage {
    frame: Frame,
    mark: u64,
    open: String,
    kinds: Vec<(String, String)>,
    groups: Vec<Group>,
    lines: Vec<Line>,
    filter: Filter,
    /// The filter as the query of the page of a job.
    job: String,
    next: Option<String>,
}

pub(crate) async fn list(ask: Ask) -> Shown {
    match list_page(&ask).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

async fn list_page(ask: &Ask) -> Result<IncidentsPage, Problem> {
    let who = ask.who().await?;
    let (counts, mark): (IncidentCounts, u64) = ask.get_live("/v1/incidents/counts").await?;
    let filter = Filter::of(ask, &PARAMETERS);
    let asked = filter.asked(&[("state", "open")]);
    let lines: Page<IncidentLine> = ask.get(&format!("/v1/incidents?limit=50&{asked}")).await?;
    let groups = match filter.is_empty() {
        true => ask.get::<Page<IncidentGroup>>("/v1/incidents/groups").await?.items,
        false => Vec::new(),
    };
    Ok(IncidentsPage {
        frame: Frame::new(ask, who, "incidents", "Incidents"),
        mark,
        open: number(counts.open),
        kinds: counts.kinds.iter().map(|one| (one.kind.clone(), number(one.open))).collect(),
        groups: groups.into_iter().map(Group::of).collect(),
        next: filter.next("/console/incidents", lines.next),
        lines: lines.items.into_iter().map(Line::of).collect(),
        job: filter.query(),
        filter,
    })
}

/// An attempt, for reading.
struct Attempt {
    action: &'static str,
    attempt: u32,
    worker: String,
    at: String,
    moment: String,
    error: Option<(String, String)>,
}

/// A note or an assignment.
struct Note {
    at: String,
    moment: String,
    actor: String,
    text: String,
}

#[derive(Template)]
#[template(path = "incident.html")]
struct IncidentPage {
    frame: Frame,
    view: IncidentView,
    open: bool,
    kind: String,
    opened: (String, String),
    attempts: Vec<Attempt>,
    notes: Vec<Note>,
    deeds: Vec<Deed>,
    input: Option<String>,
    others: String,
}

pub(crate) async fn show(ask: Ask, Path(id): Path<String>) -> Shown {
    match page(&ask, &encoded(&id)).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

async fn page(ask: &Ask, id: &str) -> Result<IncidentPage, Problem> {
    let who = ask.who().await?;
    let view: IncidentView = ask.get(&format!("/v1/incidents/{id}")).await?;
    let attempt = |one: &backstitch_saga::protocol::AttemptView| Attempt {
        action: one.action.as_str(),
        attempt: one.attempt,
        worker: one.worker.split('/').next().unwrap_or_default().to_owned(),
        at: instant(one.began_at),
        moment: moment(one.began_at),
        error: one.error.as_ref().map(|error| (error.code.clone(), error.message.clone())),
    };
    let note = |one: &backstitch_saga::protocol::IncidentNote| Note {
        at: instant(one.at),
        moment: moment(one.at),
        actor: one.actor.clone(),
        text: match (&one.assignee, &one.note) {
            (Some(person), Some(note)) => format!("assigned it to {person}: {note}"),
            (Some(person), None) if person.is_empty() => "took the assignment away".to_owned(),
            (Some(person), None) => format!("assigned it to {person}"),
            (None, note) => note.clone().unwrap_or_default(),
        },
    };
    let mut deeds: Vec<Deed> = view.next.iter().map(|verb| deed(*verb, id)).collect();
    deeds.push(
        Deed::new("assign", "Assign", format!("/v1/incidents/{id}/assign"))
            .without_reason()
            .field(
                Field::new("w", "assignee", "To whom")
                    .value(who.name.clone())
                    .hint("Empty: to nobody."),
            )
            .field(Field::text("note", "Note")),
    );
    deeds.push(
        Deed::new("note", "Note", format!("/v1/incidents/{id}/note"))
            .without_reason()
            .field(Field::text("note", "Note").required()),
    );
    Ok(IncidentPage {
        frame: Frame::new(ask, who, "incidents", "Incident"),
        open: view.line.state == IncidentState::Open,
        kind: spoken(&view.line.kind),
        opened: (instant(view.line.opened_at), moment(view.line.opened_at)),
        attempts: view.attempts.iter().map(attempt).collect(),
        notes: view.notes.iter().map(note).collect(),
        input: view
            .task
            .as_ref()
            .and_then(|task| task.output.as_ref())
            .map(|output| pretty(output.text())),
        others: format!("/console/incidents?fingerprint={}", encoded(&view.line.fingerprint)),
        deeds,
        view,
    })
}

/// Returns a verb about an incident.
fn deed(verb: Verb, id: &str) -> Deed {
    let of = |word: &str| format!("/v1/incidents/{id}/{word}");
    match verb {
        Verb::Retry => Deed::new("retry", "Retry", of("retry"))
            .about("Tries the step again with fresh attempts.")
            .field(Field::json("input", "Input instead").hint("JSON. Empty: the input of before.")),
        Verb::Skip => Deed::new("skip", "Skip", of("skip"))
            .about("Goes on without the step.")
            .field(Field::json("output", "Output in its place").hint("JSON. Empty: it has none.")),
        Verb::Resolve => Deed::new("resolve", "Resolve", of("resolve"))
            .about("Says that the step was done by hand, and what came of it.")
            .field(
                Field::json("output", "Output")
                    .hint("JSON, as a worker would report it.")
                    .required(),
            )
            .field(Field::text("external_id", "What the other system calls it")),
        Verb::MarkCompensated => {
            Deed::new("mark-compensated", "Mark compensated", of("mark-compensated"))
                .about("Vouches that the step is undone, or needs not be.")
        }
        Verb::Compensate => Deed::new("compensate", "Compensate", of("compensate"))
            .about("Undoes what the run did. The page of the run shows the plan first.")
            .field(Field::tick("force", "Although the point of no return is passed")),
        Verb::Cancel => Deed::new("cancel", "Cancel", of("cancel"))
            .about("Stops the run and undoes what was done."),
        Verb::Abandon => Deed::new("abandon", "Abandon", of("abandon"))
            .about("Ends the run as it stands. Nothing is undone, now or later.")
            .danger(),
    }
}

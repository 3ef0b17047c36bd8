//! The log of events, one event with what came before and after it, and the subscriptions that start runs for events.

use askama::Template;
use axum::extract::Path;
use backstitch_saga::protocol::{
    EventLineage, EventPage, EventView, LineageEvent, Page, SubscriptionState, SubscriptionView,
};
use serde_json::json;

use super::filter::Filter;
use crate::ask::{Ask, Problem, encoded};
use crate::form::{Deed, Field};
use crate::live::NEWEST_EVENT;
use crate::page::{Frame, Shown, ok};
use crate::show::{Badge, Tone, instant, moment, number, pretty};

const PARAMETERS: [&str; 3] = ["type", "stream", "correlation"];
/// Number of events on a page.
const LIMIT: u64 = 50;

struct Line {
    event: EventView,
    position: String,
    at: String,
    moment: String,
    op: String,
}

impl Line {
    fn of(event: EventView) -> Line {
        let op = event.op.and_then(|op| serde_json::to_value(op).ok());
        Line {
            position: event.position.map_or_else(|| "–".to_owned(), number),
            at: instant(event.received_at),
            moment: moment(event.received_at),
            op: op.and_then(|op| op.as_str().map(str::to_owned)).unwrap_or_default(),
            event,
        }
    }
}

struct Subscription {
    view: SubscriptionView,
    badge: Badge,
    behind: String,
    types: String,
    deeds: Vec<Deed>,
}

impl Subscription {
    fn of(view: SubscriptionView) -> Subscription {
        let path = format!("/v1/subscriptions/{}", encoded(&view.name));
        let of = |word: &'static str, label, about| {
            Deed::new(word, label, format!("{path}/{word}")).about(about)
        };
        let mut deeds = Vec::new();
        match view.state {
            SubscriptionState::Paused => {
                deeds.push(of("resume", "Resume", "Goes on with the event after the last one."));
            }
            SubscriptionState::Active | SubscriptionState::Stopped => {
                deeds.push(of("pause", "Pause", "Starts no run until it is resumed."));
            }
        }
        if view.state == SubscriptionState::Stopped {
            deeds.push(of(
                "skip",
                "Skip the event",
                "Goes on without the event that it stands at.",
            ));
        }
        let reset = of(
            "reset",
            "Replay from",
            "Begins again after a position: each event starts a run once more.",
        );
        deeds.push(
            Deed::put("put-subscription", "Change", path.clone(), &view.spec)
                .about("What it wants and starts from the next event on."),
        );
        deeds.push(
            Deed::delete("delete-subscription", "Delete", path.clone())
                .about("Starts nothing any more. Its runs stay."),
        );
        deeds.push(reset.danger().field(Field::new("n", "position", "Position").required()));
        let (tone, word) = match view.state {
            SubscriptionState::Active => (Tone::Good, "active"),
            SubscriptionState::Stopped => (Tone::Bad, "stopped"),
            SubscriptionState::Paused => (Tone::Calm, "paused"),
        };
        let types = view.spec.filter.types.join(", ");
        Subscription {
            badge: Badge::new(tone, word),
            behind: number(view.behind),
            types: if types.is_empty() { "all".to_owned() } else { types },
            deeds,
            view,
        }
    }
}

#[derive(Template)]
#[template(path = "events.html")]
struct EventsPage {
    frame: Frame,
    lines: Vec<Line>,
    head: String,
    /// The mark by which the next event is noticed, if the page has the newest.
    mark: Option<u64>,
    filter: Filter,
    next: Option<String>,
    before: Option<String>,
    subscriptions: Vec<Subscription>,
    deeds: Vec<Deed>,
    tabs: &'static [(&'static str, &'static str)],
    address: String,
}

pub(crate) async fn list(ask: Ask) -> Shown {
    match list_page(&ask).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

/// Returns the events after a position, or after the last one that is past retention.
async fn events(ask: &Ask, after: u64, filter: &str) -> Result<(u64, EventPage), Problem> {
    let path = |after: u64| format!("/v1/events?limit={LIMIT}&after={after}&{filter}");
    match ask.get::<EventPage>(path(after).trim_end_matches('&')).await {
        Ok(page) => Ok((after, page)),
        Err(problem) => {
            let Some(oldest) = problem.oldest_position else { return Err(problem) };
            let after = oldest.saturating_sub(1);
            Ok((after, ask.get(path(after).trim_end_matches('&')).await?))
        }
    }
}

/// Returns the form for a new subscription.
fn subscribe() -> Deed {
    let example = json!({ "filter": { "types": ["order.*"] }, "workflow": "" });
    Deed::make("put-subscription", "New subscription", "/v1/subscriptions/{name}", &example)
        .about("Starts a run for each event that it wants, from the next one on, or after the position `from`.")
}

async fn list_page(ask: &Ask) -> Result<EventsPage, Problem> {
    let who = ask.who().await?;
    let filter = Filter::of(ask, &PARAMETERS);
    let asked = ask.param("after").and_then(|after| after.parse::<u64>().ok());
    let (end, mark): (EventPage, u64) = ask.get_live(NEWEST_EVENT).await?;
    let after = match asked {
        Some(after) => after,
        // The newest, as far as one page goes; with a filter, the log is searched from its beginning.
        None if filter.is_empty() => end.head.saturating_sub(LIMIT),
        None => 0,
    };
    let (after, page) = events(ask, after, &filter.query()).await?;
    let subscriptions: Page<SubscriptionView> = ask.get("/v1/subscriptions?limit=100").await?;
    let at = |after: u64| filter.next("/console/events", Some(after.to_string()));
    Ok(EventsPage {
        frame: Frame::new(ask, who, "events", "Events"),
        head: number(page.head),
        mark: (page.next >= page.head).then_some(mark),
        deeds: vec![subscribe()],
        tabs: super::readers::TABS,
        address: "/console/events".to_owned(),
        next: (page.next < page.head).then(|| at(page.next)).flatten(),
        before: (after > 0).then(|| at(after.saturating_sub(LIMIT))).flatten(),
        lines: page.items.into_iter().rev().map(Line::of).collect(),
        subscriptions: subscriptions.items.into_iter().map(Subscription::of).collect(),
        filter,
    })
}

/// An event or a run of a lineage, as a link.
struct Link {
    href: String,
    name: String,
    about: String,
}

fn link_of(event: &LineageEvent) -> Link {
    let position = event.position.map_or_else(String::new, |at| format!("{} · ", number(at)));
    Link {
        href: format!("/console/events/{}", event.id),
        name: event.event_type.clone(),
        about: format!("{position}{} · {}", event.source, moment(event.received_at)),
    }
}

#[derive(Template)]
#[template(path = "event.html")]
struct OneEventPage {
    frame: Frame,
    line: Line,
    data: String,
    /// Its causes and consequences, each group with its title.
    lineage: Vec<(&'static str, Vec<Link>)>,
    more: bool,
}

pub(crate) async fn show(ask: Ask, Path(id): Path<String>) -> Shown {
    match page(&ask, &encoded(&id)).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

async fn page(ask: &Ask, id: &str) -> Result<OneEventPage, Problem> {
    let who = ask.who().await?;
    let event: EventView = ask.get(&format!("/v1/events/{id}")).await?;
    let lineage: EventLineage = ask.get(&format!("/v1/events/{id}/lineage")).await?;
    let documents = lineage.documents.iter().map(|one| Link {
        href: format!("/console/intakes/{}", one.id),
        name: format!("document of {}", one.source),
        about: format!("{} bytes · {}", number(one.bytes), moment(one.received_at)),
    });
    let runs = lineage.runs.iter().map(|run| Link {
        href: format!("/console/runs/{}", run.id),
        name: run.key.clone().unwrap_or_else(|| run.workflow.clone()),
        about: format!("{} · {}", run.workflow, moment(run.started_at)),
    });
    Ok(OneEventPage {
        frame: Frame::new(ask, who, "events", "Event"),
        data: pretty(event.data.text()),
        lineage: vec![
            ("Because of", lineage.causes.iter().map(link_of).collect()),
            ("Came in as", documents.collect()),
            ("Led to", lineage.effects.iter().map(link_of).collect()),
            ("Runs of the story", runs.collect()),
        ],
        more: lineage.more,
        line: Line::of(event),
    })
}

//! Who sends documents, what they sent, and what became of it.

use askama::Template;
use axum::extract::Path;
use backstitch_saga::protocol::{IntakeVerdict, IntakeView, MappingState, Page, SourceView};

use super::filter::Filter;
use crate::ask::{Ask, Problem, encoded};
use crate::form::Deed;
use crate::page::{Frame, Shown, ok};
use crate::show::{Badge, Tone, instant, moment, number, pretty, word};

const PARAMETERS: [&str; 4] = ["source", "verdict", "code", "contract"];

struct Source {
    view: SourceView,
    badge: Badge,
    /// How it is verified.
    scheme: String,
    trust: String,
    /// The contracts that it is held to, and what they are mapped to.
    accepts: Vec<String>,
}

impl Source {
    fn of(view: SourceView) -> Source {
        let scheme = serde_json::to_value(&view.spec.verify).unwrap_or_default();
        let accepts = view.spec.accepts.iter().map(|one| match &one.to {
            Some(to) => format!("{} → {to}", one.contract),
            None => one.contract.clone(),
        });
        Source {
            badge: match view.spec.enabled {
                true => Badge::new(Tone::Good, "enabled"),
                false => Badge::new(Tone::Idle, "disabled"),
            },
            scheme: scheme["scheme"].as_str().unwrap_or_default().to_owned(),
            trust: word(&view.spec.trust_ceiling),
            accepts: accepts.collect(),
            view,
        }
    }
}

struct Intake {
    view: IntakeView,
    badge: Badge,
    mapped: Option<Badge>,
    at: String,
    moment: String,
    bytes: String,
}

impl Intake {
    fn of(view: IntakeView) -> Intake {
        let mapped = view.mapping.as_ref().map(|mapping| match mapping.state {
            MappingState::Mapped => Badge::new(Tone::Good, "mapped"),
            MappingState::Failed => Badge::new(Tone::Bad, "not mapped"),
            MappingState::Overtaken => Badge::new(Tone::Calm, "overtaken"),
        });
        Intake {
            badge: match view.verdict {
                IntakeVerdict::Accepted => Badge::new(Tone::Good, "accepted"),
                IntakeVerdict::Refused => Badge::new(Tone::Bad, "refused"),
            },
            mapped,
            at: instant(view.received_at),
            moment: moment(view.received_at),
            bytes: number(view.bytes),
            view,
        }
    }
}

#[derive(Template)]
#[template(path = "sources.html")]
struct SourcesPage {
    frame: Frame,
    sources: Vec<Source>,
    intakes: Vec<Intake>,
    filter: Filter,
    next: Option<String>,
}

pub(crate) async fn list(ask: Ask) -> Shown {
    match list_page(&ask).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

async fn list_page(ask: &Ask) -> Result<SourcesPage, Problem> {
    let who = ask.who().await?;
    let filter = Filter::of(ask, &PARAMETERS);
    let sources: Page<SourceView> = ask.get("/v1/sources?limit=100").await?;
    let intakes: Page<IntakeView> =
        ask.get(&format!("/v1/intakes?limit=50&{}", filter.asked(&[]))).await?;
    Ok(SourcesPage {
        frame: Frame::new(ask, who, "sources", "Sources"),
        next: filter.next("/console/sources", intakes.next),
        sources: sources.items.into_iter().map(Source::of).collect(),
        intakes: intakes.items.into_iter().map(Intake::of).collect(),
        filter,
    })
}

#[derive(Template)]
#[template(path = "intake.html")]
struct IntakePage {
    frame: Frame,
    intake: Intake,
    trust: String,
    /// What the transform says of it: a title, and a document.
    told: Vec<(&'static str, String)>,
    deeds: Vec<Deed>,
}

pub(crate) async fn intake(ask: Ask, Path(id): Path<String>) -> Shown {
    match intake_page(&ask, &encoded(&id)).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

async fn intake_page(ask: &Ask, id: &str) -> Result<IntakePage, Problem> {
    let who = ask.who().await?;
    let view: IntakeView = ask.get(&format!("/v1/intakes/{id}")).await?;
    let told = view.mapping.iter().flat_map(|mapping| {
        [
            ("What could not be mapped", &mapping.failures),
            ("What was changed", &mapping.changes),
            ("What no rule read", &mapping.unmapped),
        ]
    });
    let told =
        told.filter_map(|(title, told)| told.as_ref().map(|told| (title, pretty(told.text()))));
    let reprocess = Deed::new("reprocess", "Process again", format!("/v1/intakes/{id}/reprocess"))
        .about("Holds the document to its source, its contract and its transform as they are now.");
    Ok(IntakePage {
        frame: Frame::new(ask, who, "sources", "Document"),
        trust: word(&view.trust),
        told: told.collect(),
        deeds: vec![reprocess],
        intake: Intake::of(view),
    })
}

//! Sources of documents, the documents that they sent, and the results.

use askama::Template;
use axum::body::Bytes;
use axum::extract::Path;
use axum::http::Method;
use backstitch_saga::protocol::{IntakeVerdict, IntakeView, MappingState, Page, SourceView};
use serde_json::json;

use super::filter::Filter;
use crate::ask::{Ask, Problem, encoded};
use crate::form::{Deed, Field};
use crate::page::{Frame, Shown, ok};
use crate::show::{Badge, Tone, instant, moment, number, pretty, word};

/// The pages about documents that come in.
pub(crate) const TABS: &[(&str, &str)] = &[
    ("Sources", "/console/sources"),
    ("Imports", "/console/imports"),
    ("Mapping", "/console/mapping"),
    ("Links", "/console/links"),
];

const PARAMETERS: [&str; 4] = ["source", "verdict", "code", "contract"];

/// The most bytes of a document that a page shows.
const MOST_RAW: usize = 64 * 1024;

struct Source {
    view: SourceView,
    badge: Badge,
    /// Its method of verification.
    scheme: String,
    trust: String,
    /// The contracts that it is held to, and what they are mapped to.
    accepts: Vec<String>,
    deeds: Vec<Deed>,
}

impl Source {
    /// Returns the actions of an admin on it.
    fn deeds(view: &SourceView) -> Vec<Deed> {
        let path = format!("/v1/sources/{}", encoded(&view.name));
        let spec = serde_json::to_string_pretty(&view.spec).unwrap_or_default();
        vec![
            Deed::new("put-source", "Change", path.clone())
                .about("Documents are held to this from now on.")
                .method("PUT")
                .field(Field::json("spec", "Definition").value(spec).required()),
            Deed::new("rotate", "Rotate the secret", format!("{path}/rotate"))
                .about("The old secret is good for a while beside the new one.")
                .field(
                    Field::text("secret", "New secret")
                        .hint("As the other side has it.")
                        .required(),
                )
                .field(Field::text("overlap", "The old one is good for").value("1d")),
            Deed::delete("delete-source", "Delete", path)
                .about("Nothing is taken in from it any more. What it sent stays."),
        ]
    }

    fn of(view: SourceView, admin: bool) -> Source {
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
            deeds: if admin { Source::deeds(&view) } else { Vec::new() },
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
    /// Forms for an admin.
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

/// Returns the form for a new source.
fn new() -> Deed {
    let spec = json!({
        "verify": { "scheme": "bearer" }, "accepts": [{ "contract": "crm.contact" }],
        "version_from": { "fixed": 1 }
    });
    let spec = serde_json::to_string_pretty(&spec).unwrap_or_default();
    let secret = Field::text("secret", "Secret").hint("As the other side has it; not shown again.");
    Deed::new("put-source", "New source", "/v1/sources/{name}".to_owned())
        .about("Gives whoever sends documents an address, and says how they are verified and to which contracts they are held.")
        .method("PUT")
        .field(Field::path("name", "Name"))
        .field(Field::json("spec", "Definition").value(spec).required())
        .field(secret)
}

async fn list_page(ask: &Ask) -> Result<SourcesPage, Problem> {
    let who = ask.who().await?;
    let filter = Filter::of(ask, &PARAMETERS);
    let admin = who.is_admin();
    let sources: Page<SourceView> = ask.get("/v1/sources?limit=100").await?;
    let intakes = ask.list::<IntakeView>("/v1/intakes", 50, &filter).await?;
    Ok(SourcesPage {
        frame: Frame::new(ask, who, "sources", "Sources"),
        next: intakes.next,
        sources: sources.items.into_iter().map(|one| Source::of(one, admin)).collect(),
        deeds: if admin { vec![new()] } else { Vec::new() },
        tabs: TABS,
        address: "/console/sources".to_owned(),
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
    /// Results of the transform for it: a title, and a document.
    told: Vec<(&'static str, String)>,
    /// Its bytes as they came, as far as they are text.
    raw: String,
    raw_is_cut: bool,
    /// The page that tries its transform on it.
    tried_at: Option<String>,
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
    let raw = ask.call(Method::GET, &format!("/v1/intakes/{id}/raw"), None, None).await;
    let raw = if raw.status.is_success() { raw.body } else { Bytes::new() };
    let tried_at = view.mapping.as_ref().and_then(|mapping| {
        let (from, to) = (view.contract.as_deref()?.split_once('@')?, mapping.to.split_once('@')?);
        let parts = [from.0, from.1, to.0, to.1].map(encoded);
        Some(format!("/console/transforms/{}?intake={id}", parts.join("/")))
    });
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
        raw: String::from_utf8_lossy(&raw[..raw.len().min(MOST_RAW)]).into_owned(),
        raw_is_cut: raw.len() > MOST_RAW,
        tried_at,
        deeds: vec![reprocess],
        intake: Intake::of(view),
    })
}

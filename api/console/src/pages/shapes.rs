//! Contracts with their versions, and transforms between them with a place to try a document.

use askama::Template;
use axum::extract::Path;
use backstitch_saga::protocol::{
    ContractLine, ContractState, ContractView, Page, TransformLine, TransformTest, TransformView,
};
use serde_json::json;

use crate::ask::{Ask, Problem, encoded};
use crate::form::{Deed, Field};
use crate::page::{Frame, Shown, ok};
use crate::show::{Badge, Tone, instant, moment, pretty, word};

struct Contract {
    line: ContractLine,
    kind: String,
    mode: String,
    at: String,
    moment: String,
}

struct Transform {
    line: TransformLine,
    href: String,
    at: String,
    moment: String,
}

#[derive(Template)]
#[template(path = "contracts.html")]
struct ContractsPage {
    frame: Frame,
    contracts: Vec<Contract>,
    transforms: Vec<Transform>,
    next: Option<String>,
}

pub(crate) async fn list(ask: Ask) -> Shown {
    match list_page(&ask).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

async fn list_page(ask: &Ask) -> Result<ContractsPage, Problem> {
    let who = ask.who().await?;
    let after = ask.param("after").map(|after| format!("&after={}", encoded(after)));
    let contracts: Page<ContractLine> =
        ask.get(&format!("/v1/contracts?limit=100{}", after.unwrap_or_default())).await?;
    let transforms: Page<TransformLine> = ask.get("/v1/transforms?limit=200").await?;
    let contract = |line: ContractLine| Contract {
        kind: word(&line.kind),
        mode: word(&line.mode),
        at: instant(line.changed_at),
        moment: moment(line.changed_at),
        line,
    };
    let transform = |line: TransformLine| Transform {
        href: format!(
            "/console/transforms/{}/{}/{}/{}",
            encoded(&line.from),
            line.from_version,
            encoded(&line.to),
            line.to_version
        ),
        at: instant(line.changed_at),
        moment: moment(line.changed_at),
        line,
    };
    Ok(ContractsPage {
        frame: Frame::new(ask, who, "contracts", "Contracts"),
        contracts: contracts.items.into_iter().map(contract).collect(),
        transforms: transforms.items.into_iter().map(transform).collect(),
        next: contracts.next.map(|next| format!("/console/contracts?after={}", encoded(&next))),
    })
}

/// A version of a contract.
struct Version {
    version: u32,
    badge: Badge,
    by: String,
    at: String,
    moment: String,
    breaks: Vec<String>,
}

#[derive(Template)]
#[template(path = "contract.html")]
struct ContractPage {
    frame: Frame,
    subject: String,
    kind: String,
    mode: String,
    versions: Vec<Version>,
    readers: Vec<(String, u32)>,
    deeds: Vec<Deed>,
}

pub(crate) async fn contract(ask: Ask, Path(subject): Path<String>) -> Shown {
    match contract_page(&ask, &encoded(&subject)).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

async fn contract_page(ask: &Ask, subject: &str) -> Result<ContractPage, Problem> {
    let who = ask.who().await?;
    let view: ContractView = ask.get(&format!("/v1/contracts/{subject}")).await?;
    let version = |one: backstitch_saga::protocol::ContractVersionView| Version {
        version: one.version,
        badge: match one.state {
            ContractState::Active => Badge::new(Tone::Good, "active"),
            state => Badge::new(Tone::Idle, &word(&state)),
        },
        by: one.registered_by,
        at: instant(one.registered_at),
        moment: moment(one.registered_at),
        breaks: one
            .breaks
            .into_iter()
            .map(|broken| format!("{}: {}", broken.at, broken.message))
            .collect(),
    };
    let set_mode = Deed::new("set-mode", "Set the mode", format!("/v1/contracts/{subject}"));
    let mut set_mode = set_mode
        .about("What later versions may change without breaking their readers.")
        .field(Field {
            choices: backstitch_saga::protocol::ContractMode::ALL
                .iter()
                .map(|mode| mode.as_str().to_owned())
                .collect(),
            ..Field::text("mode", "Mode").required().value(word(&view.mode))
        });
    set_mode.method = "PUT";
    Ok(ContractPage {
        frame: Frame::new(ask, who, "contracts", format!("Contract {}", view.subject)),
        kind: word(&view.kind),
        mode: word(&view.mode),
        subject: view.subject,
        versions: view.versions.into_iter().rev().map(version).collect(),
        readers: view.readers.into_iter().map(|one| (one.name, one.version)).collect(),
        deeds: vec![set_mode],
    })
}

#[derive(Template)]
#[template(path = "transform.html")]
struct TransformPage {
    frame: Frame,
    name: String,
    view: TransformView,
    text: String,
    /// What was tried.
    document: String,
    tried: Option<Tried>,
    wrong: Option<Problem>,
    deeds: Vec<Deed>,
}

/// What a transform made of a document.
struct Tried {
    mapped: bool,
    made: String,
    trace: String,
}

pub(crate) async fn transform(
    ask: Ask,
    Path((from, from_version, to, to_version)): Path<(String, String, String, String)>,
) -> Shown {
    let path = [from, from_version, to, to_version].map(|part| encoded(&part)).join("/");
    match transform_page(&ask, &format!("/v1/transforms/{path}")).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

async fn transform_page(ask: &Ask, path: &str) -> Result<TransformPage, Problem> {
    let who = ask.who().await?;
    let view: TransformView = ask.get(path).await?;
    let document = ask.param("document").unwrap_or_default().to_owned();
    let (mut tried, mut wrong) = (None, None);
    if !document.is_empty() {
        match serde_json::from_str::<serde_json::Value>(&document) {
            Err(error) => {
                let detail = format!("The document is not JSON: {error}.");
                wrong =
                    Some(Problem::new(422, "invalid_json", "The document was not read", &detail));
            }
            Ok(read) => {
                let body = json!({ "document": read }).to_string();
                match ask.post::<TransformTest>(&format!("{path}/test"), body).await {
                    Ok(test) => tried = Some(Tried::of(&test)),
                    Err(problem) if problem.status == 422 => wrong = Some(problem),
                    Err(problem) => return Err(problem),
                }
            }
        }
    }
    let activate = Deed::new("activate", "Use a revision", format!("{path}/activate"))
        .about("Documents are mapped by it from now on.")
        .field(Field::new("n", "revision", "Revision").required());
    let name = format!("{}@{} → {}@{}", view.from, view.from_version, view.to, view.to_version);
    Ok(TransformPage {
        frame: Frame::new(ask, who, "contracts", name.clone()),
        text: pretty(view.transform.text()),
        name,
        document,
        tried,
        wrong,
        deeds: vec![activate],
        view,
    })
}

impl Tried {
    fn of(test: &TransformTest) -> Tried {
        let made = test.result.as_ref().or(test.failures.as_ref());
        Tried {
            mapped: test.mapped,
            made: made.map_or_else(String::new, |made| pretty(made.text())),
            trace: pretty(test.trace.text()),
        }
    }
}

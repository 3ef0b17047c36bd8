//! Contracts with their versions, and transforms between them with a place to try a document.

use askama::Template;
use axum::extract::Path;
use axum::http::Method;
use backstitch_saga::protocol::{
    ContractBreak, ContractCheck, ContractLine, ContractMode, ContractReaderView, ContractState,
    ContractVersionView, ContractView, Page, TransformLine, TransformTest, TransformView,
    TransformWhatIf,
};
use serde_json::json;

use super::filter::Filter;
use crate::ask::{Ask, Problem, encoded};
use crate::form::{Deed, Field};
use crate::page::{Frame, Shown, ok};
use crate::show::{Badge, Tone, instant, moment, pretty, word};
use crate::table::{Cell, Part, Row, TablePage};

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
    /// Forms for a new contract, and for a new transform.
    deeds: [Vec<Deed>; 2],
}

pub(crate) async fn list(ask: Ask) -> Shown {
    match list_page(&ask).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

async fn list_page(ask: &Ask) -> Result<ContractsPage, Problem> {
    let who = ask.who().await?;
    let filter = Filter::of(ask, &[]);
    let contracts = ask.list::<ContractLine>("/v1/contracts", 100, &filter).await?;
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
        next: contracts.next,
        deeds: [vec![new_contract()], vec![new_transform()]],
    })
}

/// Returns the form for a new contract, with its first version.
fn new_contract() -> Deed {
    let schema = json!({ "type": "object", "properties": { "id": { "type": "string" } }, "required": ["id"] });
    let mut mode = Field::text("mode", "Mode").hint("What later versions may change.");
    mode.choices = ContractMode::ALL.iter().map(|mode| mode.as_str().to_owned()).collect();
    Deed::new("register-version", "New contract", "/v1/contracts/{subject}/versions".to_owned())
        .about("A shape that documents follow: JSON Schema, in the part of it whose versions can be compared.")
        .field(Field::path("subject", "Subject").hint("Such as customer, or crm.contact of a vendor."))
        .field(Field::json("schema", "Schema").value(pretty(&schema.to_string())).required())
        .field(mode)
        .then("/console/contracts/{subject}")
}

/// Returns the form for a new transform, with its first revision.
fn new_transform() -> Deed {
    let rules = json!({ "rules": [{ "to": "/id", "copy": "/id" }] });
    let place = "/transforms/{from}/{from_version}/{to}/{to_version}";
    Deed::new("put-transform", "New transform", format!("/v1{place}"))
        .about("Makes documents of one contract from those of another, rule by rule.")
        .method("PUT")
        .field(Field::path("from", "From the contract"))
        .field(Field::path("from_version", "Its version").value("1"))
        .field(Field::path("to", "To the contract"))
        .field(Field::path("to_version", "Its version").value("1"))
        .field(Field::json("transform", "Transform").value(pretty(&rules.to_string())).required())
        .then(&format!("/console{place}"))
}

/// A program that is pinned to a version.
struct Reader {
    name: String,
    version: u32,
    deeds: Vec<Deed>,
}

/// A version of a contract.
struct Version {
    version: u32,
    badge: Badge,
    by: String,
    at: String,
    moment: String,
    breaks: Vec<String>,
    href: String,
    deeds: Vec<Deed>,
}

#[derive(Template)]
#[template(path = "contract.html")]
struct ContractPage {
    frame: Frame,
    subject: String,
    kind: String,
    mode: String,
    versions: Vec<Version>,
    readers: Vec<Reader>,
    deeds: Vec<Deed>,
    /// A schema that is tried.
    schema: String,
    checked: Option<ContractCheck>,
    wrong: Option<Problem>,
}

pub(crate) async fn contract(ask: Ask, Path(subject): Path<String>) -> Shown {
    match contract_page(&ask, &encoded(&subject)).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

/// Returns the result of checking a schema as the next version, or the mistake in it.
async fn checked(
    ask: &Ask,
    subject: &str,
    schema: &str,
) -> Result<(Option<ContractCheck>, Option<Problem>), Problem> {
    if schema.is_empty() {
        return Ok((None, None));
    }
    let read = match serde_json::from_str::<serde_json::Value>(schema) {
        Ok(read) => read,
        Err(error) => {
            let detail = format!("The schema is not JSON: {error}.");
            let wrong = Problem::new(422, "invalid_json", "The schema was not read", &detail);
            return Ok((None, Some(wrong)));
        }
    };
    let body = json!({ "schema": read }).to_string();
    match ask.post(&format!("/v1/contracts/{subject}/check"), body).await {
        Ok(checked) => Ok((Some(checked), None)),
        Err(problem) if problem.status == 422 => Ok((None, Some(problem))),
        Err(problem) => Err(problem),
    }
}

pub(crate) async fn version(ask: Ask, Path((subject, version)): Path<(String, u32)>) -> Shown {
    ask.show(version_page(&ask, &subject, version).await).await
}

async fn version_page(ask: &Ask, subject: &str, version: u32) -> Result<TablePage, Problem> {
    let who = ask.who().await?;
    let path = format!("/v1/contracts/{}/versions/{version}", encoded(subject));
    let view: ContractVersionView = ask.get(&path).await?;
    let frame = Frame::new(ask, who, "contracts", format!("{subject}@{version}"));
    let mut page = TablePage::new(frame, format!("{subject}@{version}"))
        .below("Contracts", "/console/contracts")
        .below(subject, format!("/console/contracts/{}", encoded(subject)));
    page.fact("State", Cell::text(word(&view.state)));
    page.fact(
        "Registered",
        Cell::at(view.registered_at).below(format!("by {}", view.registered_by)),
    );
    page.fact("Digest", Cell::code(&view.digest[..view.digest.len().min(16)]));
    let row = |one: &ContractBreak| -> Row {
        let document = one.document.as_ref().map_or_else(String::new, |one| one.text().to_owned());
        vec![
            Cell::code(one.at.clone()).below(one.rule.clone()),
            Cell::text(one.message.clone()),
            Cell::code(document),
        ]
        .into()
    };
    if !view.breaks.is_empty() {
        page.parts.push(Part {
            title: "What it breaks",
            heads: vec!["Where", "How", "A document that shows it"],
            rows: view.breaks.iter().map(row).collect(),
            ..Part::default()
        });
    }
    for (title, document) in [
        ("Schema", &view.schema),
        ("From the version before", &view.up),
        ("To the version before", &view.down),
    ] {
        if let Some(document) = document {
            page.parts.push(Part {
                title,
                document: Some(pretty(document.text())),
                ..Part::default()
            });
        }
    }
    Ok(page)
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
        href: format!("/console/contracts/{subject}/{}", one.version),
        deeds: vec![
            Deed::new(
                "set-state",
                "Set the state",
                format!("/v1/contracts/{subject}/versions/{}/state", one.version),
            )
            .about("Whether documents and readers of the version are accepted.")
            .method("PUT")
            .field(
                Field::text("state", "State").of(&["active", "deprecated", "retired"]).required(),
            ),
        ],
    };
    let set_mode = Deed::new("set-mode", "Set the mode", format!("/v1/contracts/{subject}"));
    let set_mode = set_mode
        .method("PUT")
        .about("What later versions may change without breaking their readers.")
        .field(Field {
            choices: ContractMode::ALL.iter().map(|mode| mode.as_str().to_owned()).collect(),
            ..Field::text("mode", "Mode").required().value(word(&view.mode))
        });
    let reader = |one: ContractReaderView| {
        let path = format!("/v1/contracts/{subject}/readers/{}", encoded(&one.name));
        let pin = Deed::new("pin", "Pin to a version", path.clone())
            .about("The version cannot be retired while a reader is pinned to it.")
            .method("PUT")
            .field(Field::new("n", "version", "Version").required());
        let unpin = Deed::delete("unpin", "Unpin", path).about("The reader counts no more.");
        Reader { name: one.name, version: one.version, deeds: vec![pin, unpin] }
    };
    let pin = Deed::new("pin", "Pin a reader", format!("/v1/contracts/{subject}/readers/{{name}}"))
        .about("A program that reads a version, which cannot be retired then.")
        .method("PUT")
        .field(Field::path("name", "Reader"))
        .field(Field::new("n", "version", "Version").required());
    let register = Deed::new(
        "register-version",
        "Register a version",
        format!("/v1/contracts/{subject}/versions"),
    )
    .about("A schema that breaks its readers is refused, with a document that shows it.")
    .field(Field::json("schema", "Schema").hint("JSON Schema.").required());
    let schema = ask.param("schema").unwrap_or_default().to_owned();
    let (checked, wrong) = checked(ask, subject, &schema).await?;
    Ok(ContractPage {
        schema,
        checked,
        wrong,
        frame: Frame::new(ask, who, "contracts", format!("Contract {}", view.subject)),
        kind: word(&view.kind),
        mode: word(&view.mode),
        subject: view.subject,
        versions: view.versions.into_iter().rev().map(version).collect(),
        readers: view.readers.into_iter().map(reader).collect(),
        deeds: vec![set_mode, register, pin],
    })
}

#[derive(Template)]
#[template(path = "transform.html")]
struct TransformPage {
    frame: Frame,
    name: String,
    view: TransformView,
    text: String,
    /// The document that was tried.
    document: String,
    tried: Option<Tried>,
    wrong: Option<Problem>,
    deeds: Vec<Deed>,
    /// Results of another revision for the last documents.
    compared: Option<TransformWhatIf>,
}

/// Result of a transform for a document.
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

/// Returns the results of a revision for the last documents, compared with the active one.
async fn compared(ask: &Ask, path: &str) -> Result<Option<TransformWhatIf>, Problem> {
    let Some(revision) = ask.param("revision").and_then(|text| text.parse::<u32>().ok()) else {
        return Ok(None);
    };
    let body = json!({ "revision": revision }).to_string();
    ask.post(&format!("{path}/what-if"), body).await.map(Some)
}

/// Returns the document that is to be tried: as it was written, or as it came in.
async fn document_of(ask: &Ask) -> Result<String, Problem> {
    let Some(intake) = ask.param("intake") else {
        return Ok(ask.param("document").unwrap_or_default().to_owned());
    };
    let path = format!("/v1/intakes/{}/raw", encoded(intake));
    let raw = ask.call(Method::GET, &path, None, None).await;
    if !raw.status.is_success() {
        raw.read::<serde_json::Value>()?;
    }
    Ok(String::from_utf8_lossy(&raw.body).into_owned())
}

async fn transform_page(ask: &Ask, path: &str) -> Result<TransformPage, Problem> {
    let who = ask.who().await?;
    let view: TransformView = ask.get(path).await?;
    let document = document_of(ask).await?;
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
    let put = Deed::new("put-transform", "Write a revision", path.to_owned())
        .about("The next revision. Another one stays in use unless it is said so.")
        .method("PUT")
        .field(
            Field::json("transform", "Transform").value(pretty(view.transform.text())).required(),
        )
        .field(Field::json("activate", "Use it at once").of(&["false", "true"]).required());
    let compared = compared(ask, path).await?;
    let name = format!("{}@{} → {}@{}", view.from, view.from_version, view.to, view.to_version);
    Ok(TransformPage {
        frame: Frame::new(ask, who, "contracts", name.clone()),
        text: pretty(view.transform.text()),
        name,
        document,
        tried,
        wrong,
        deeds: vec![activate, put],
        compared,
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

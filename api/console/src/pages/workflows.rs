//! Workflows: their versions, one version as a picture, which runs are on which, and pauses.

use askama::Template;
use axum::extract::Path;
use backstitch_saga::Graph;
use backstitch_saga::protocol::{
    Page, PauseView, RetentionView, UndoApprovalView, VersionLoad, WorkflowView,
};
use serde_json::json;

use super::filter::Filter;
use crate::ask::{Ask, Problem, encoded};
use crate::form::{Deed, Field};
use crate::graph::{Picture, plain};
use crate::page::{Frame, Shown, ok};
use crate::show::{instant, moment, pretty};

/// A version in a list.
struct Line {
    name: String,
    version: u32,
    at: String,
    moment: String,
    paused: bool,
}

#[derive(Template)]
#[template(path = "workflows.html")]
struct WorkflowsPage {
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

/// Returns the form for a new version.
fn register() -> Deed {
    let example = json!({
        "name": "order", "version": 1,
        "steps": [{ "id": "pay", "task": {
            "name": "charge-card", "input": { "path": "/input" }, "compensate": { "name": "refund-card" }
        } }]
    });
    let path = "/v1/workflows/{name}/versions/{version}".to_owned();
    Deed::put("register", "Register a version", path, &example)
        .about("It is checked and rehearsed first. A version stays as it is for ever; the next one has another number.")
        .then("/console/workflows/{name}/{version}")
}

async fn list_page(ask: &Ask) -> Result<WorkflowsPage, Problem> {
    let who = ask.who().await?;
    let page = ask.list::<WorkflowView>("/v1/workflows", 200, &Filter::of(ask, &[])).await?;
    let pauses: Page<PauseView> = ask.get("/v1/pauses").await?;
    let paused = |name: &str| {
        pauses.items.iter().any(|one| one.workflow == name && one.resumed_at.is_none())
    };
    let line = |one: WorkflowView| Line {
        paused: paused(&one.name),
        version: one.version,
        at: instant(one.registered_at),
        moment: moment(one.registered_at),
        name: one.name,
    };
    Ok(WorkflowsPage {
        // Operators start and stop workflows; what they do is for those who write them.
        deeds: if who.is_admin() { vec![register()] } else { Vec::new() },
        frame: Frame::new(ask, who, "workflows", "Workflows"),
        lines: page.items.into_iter().map(line).collect(),
        next: page.next,
    })
}

/// Runs of a version.
struct Load {
    load: VersionLoad,
    states: Vec<(String, u64)>,
    here: bool,
}

#[derive(Template)]
#[template(path = "workflow.html")]
struct WorkflowPage {
    frame: Frame,
    view: WorkflowView,
    registered: (String, String),
    description: String,
    picture: Option<Picture>,
    definition: String,
    loads: Vec<Load>,
    pause: Option<PauseView>,
    deeds: Vec<Deed>,
    start: Deed,
    keep: Option<String>,
}

pub(crate) async fn show(ask: Ask, Path((name, version)): Path<(String, u32)>) -> Shown {
    match page(&ask, &name, version).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

/// Returns the forms of an admin's settings for a workflow.
async fn rules(ask: &Ask, path: &str) -> Result<[Deed; 2], Problem> {
    let approval: UndoApprovalView = ask.get(&format!("{path}/undo-approval")).await?;
    let approval = serde_json::to_string(&approval.approval).unwrap_or_default();
    let retention: RetentionView = ask.get(&format!("{path}/retention")).await?;
    let keep = if retention.own { retention.keep.to_string() } else { "server".to_owned() };
    let keep = Field::text("keep", "Kept for")
        .hint("30d, forever, or server: as long as the server says.")
        .value(keep);
    let approval = Field::json("approval", "A second person is needed")
        .hint("\"never\", \"always\", or {\"above\": 20}: for undos of more steps and items.")
        .value(approval);
    Ok([
        Deed::new("set-undo-approval", "Undos by two", format!("{path}/undo-approval"))
            .about("Whether an undo that a person asks for must be approved by another.")
            .method("PUT")
            .field(approval.required()),
        Deed::new("set-retention", "Retention", format!("{path}/retention"))
            .about("How long runs are kept after their end.")
            .method("PUT")
            .field(keep.required()),
    ])
}

async fn page(ask: &Ask, name: &str, version: u32) -> Result<WorkflowPage, Problem> {
    let who = ask.who().await?;
    let path = format!("/v1/workflows/{}", encoded(name));
    let view: WorkflowView = ask.get(&format!("{path}/versions/{version}")).await?;
    let loads: Page<VersionLoad> = ask.get(&format!("{path}/drain")).await?;
    let pauses: Page<PauseView> = ask.get("/v1/pauses").await?;
    let pause =
        pauses.items.into_iter().find(|one| one.workflow == name && one.resumed_at.is_none());
    let admin = who.is_admin();
    let mut deeds = match &pause {
        Some(_) => vec![
            Deed::new("resume", "Resume", format!("{path}/resume")).about("Lets its runs go on."),
        ],
        None => vec![
            Deed::new("pause", "Pause", format!("{path}/pause"))
                .about("Holds its new runs until it is resumed."),
        ],
    };
    if admin {
        deeds.extend(rules(ask, &path).await?);
    }
    let mut start = Deed::new("start-run", "Start a run", "/v1/runs".to_owned())
        .without_reason()
        .fixed("f.s.workflow", name)
        .fixed("f.n.version", version.to_string())
        .field(Field::text("key", "Key").hint("There is one run per workflow and key."))
        .field(Field::json("input", "Input").hint("JSON."));
    start.then = Some("/console/runs/{id}".to_owned());
    let graph = view.definition.clone().and_then(|definition| Graph::check(definition).ok());
    let definition = view.definition.as_ref().and_then(|one| serde_json::to_string(one).ok());
    let load = |load: VersionLoad| Load {
        states: load.states.iter().map(|(state, count)| (state.clone(), *count)).collect(),
        here: load.version == version,
        load,
    };
    Ok(WorkflowPage {
        frame: Frame::new(ask, who, "workflows", format!("{name} v{version}")),
        registered: (instant(view.registered_at), moment(view.registered_at)),
        description: view
            .definition
            .as_ref()
            .and_then(|one| one.description.clone())
            .unwrap_or_default(),
        picture: graph.as_ref().map(plain),
        definition: pretty(&definition.unwrap_or_default()),
        loads: loads.items.into_iter().map(load).collect(),
        keep: view.retention.as_ref().and_then(|one| {
            let keep = serde_json::to_value(one.keep).ok()?;
            keep.as_str().map(str::to_owned)
        }),
        pause,
        deeds,
        start,
        view,
    })
}

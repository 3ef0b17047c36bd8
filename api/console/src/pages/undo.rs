//! The undo planner: what would be undone, in which order and with which inputs, drawn on the picture before anything
//! is written.

use std::collections::BTreeMap;

use askama::Template;
use backstitch_saga::protocol::{
    CompensateRun, Forward, Plan, PlannedUndo, RerunPlan, RunView, Scope, UndoApprovalView,
};
use serde_json::json;

use super::plans::written_down;
use super::run::{graph_of, title};
use crate::ask::{Ask, Problem, encoded};
use crate::form::{Deed, Field};
use crate::graph::{Picture, draw_back, of_run};
use crate::page::{Frame, Shown, ok};
use crate::show::{Badge, Tone, number, pretty};

/// Number of undos of a plan on a page; the items of one step share one line of the picture.
const LIMIT: u32 = 200;

/// The requested scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    All,
    BackTo,
    Steps,
    /// Back to a step, and forward again.
    Rerun,
}

/// One undo of the plan.
pub(crate) struct Undo {
    pub(crate) wave: u32,
    pub(crate) step: String,
    pub(crate) name: String,
    pub(crate) input: String,
    pub(crate) doubt: bool,
}

impl Undo {
    pub(crate) fn of(one: PlannedUndo) -> Undo {
        Undo {
            wave: one.wave + 1,
            step: one.step.to_string(),
            name: one.name,
            input: pretty(one.input.text()),
            doubt: !matches!(one.forward, Forward::Succeeded(_)),
        }
    }
}

#[derive(Template)]
#[template(path = "undo.html")]
struct UndoPage {
    frame: Frame,
    view: RunView,
    way: Way,
    /// The step to go back to.
    step: String,
    /// Those that are chosen one by one.
    chosen: Vec<String>,
    all_steps: Vec<String>,
    picture: Option<Picture>,
    undos: Vec<Undo>,
    total: String,
    more: bool,
    irreversible: Vec<String>,
    past_pivot: bool,
    dependents: Vec<(String, String)>,
    again: Vec<String>,
    deeds: Vec<Deed>,
    /// One person may not undo so much alone.
    needs_another: bool,
    /// The plan that is changed, with its revision.
    changes: Option<(String, String)>,
    refused: Option<Problem>,
}

impl UndoPage {
    fn is(&self, word: &str) -> bool {
        let own = match self.way {
            Way::All => "all",
            Way::BackTo => "back_to",
            Way::Steps => "steps",
            Way::Rerun => "rerun",
        };
        own == word
    }

    fn is_chosen(&self, step: &str) -> bool {
        self.chosen.iter().any(|one| one == step)
    }
}

pub(crate) async fn show(ask: Ask, axum::extract::Path(id): axum::extract::Path<String>) -> Shown {
    match page(&ask, &encoded(&id)).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

async fn page(ask: &Ask, id: &str) -> Result<UndoPage, Problem> {
    let who = ask.who().await?;
    let view: RunView = ask.get(&format!("/v1/runs/{id}")).await?;
    let all_steps: Vec<String> = view
        .steps
        .iter()
        .filter(|one| one.step.item.is_none())
        .map(|one| one.step.to_string())
        .collect();
    let way = match ask.param("way") {
        Some("back_to") => Way::BackTo,
        Some("steps") => Way::Steps,
        Some("rerun") => Way::Rerun,
        _ => Way::All,
    };
    let step = ask
        .param("step")
        .map(str::to_owned)
        .or_else(|| all_steps.first().cloned())
        .unwrap_or_default();
    let chosen: Vec<String> = ask
        .query
        .iter()
        .filter(|(name, value)| name == "choose" && !value.is_empty())
        .map(|(_, value)| value.clone())
        .collect();
    let scope = match way {
        Way::All | Way::Rerun => Scope::All,
        Way::BackTo => Scope::BackTo(step.clone()),
        Way::Steps => Scope::Steps(chosen.clone()),
    };
    let planned = match (way, chosen.is_empty()) {
        // Nothing is chosen yet.
        (Way::Steps, true) => Err(None),
        (Way::Rerun, _) => {
            let body = json!({ "from": step, "dry_run": true }).to_string();
            let plan =
                ask.post::<RerunPlan>(&format!("/v1/runs/{id}/rerun?limit={LIMIT}"), body).await;
            plan.map(|plan| (plan.undo, plan.again)).map_err(Some)
        }
        _ => {
            let body = CompensateRun {
                scope: scope.clone(),
                reason: String::new(),
                dry_run: true,
                force: false,
            };
            let body = serde_json::to_string(&body).unwrap_or_default();
            let plan =
                ask.post::<Plan>(&format!("/v1/runs/{id}/compensate?limit={LIMIT}"), body).await;
            plan.map(|plan| (plan, Vec::new())).map_err(Some)
        }
    };
    let graph = graph_of(ask, &view).await;
    let mut picture = graph.as_ref().map(|graph| of_run(graph, &view, false));
    let (plan, again, refused) = match planned {
        Ok((plan, again)) => (Some(plan), again, None),
        Err(problem) => (None, Vec::new(), problem),
    };
    let waves = plan.as_ref().map(waves).unwrap_or_default();
    if let Some(picture) = &mut picture {
        for spot in &mut picture.spots {
            if let Some(wave) = waves.get(spot.id.as_str()) {
                spot.mark = Some((wave + 1).to_string());
                spot.badge = Badge::new(Tone::Back, "undone");
                spot.sub = "is undone".to_owned();
            }
        }
        for step in plan.iter().flat_map(|plan| &plan.irreversible) {
            if let Some(spot) = picture.spot_mut(step) {
                spot.badge = Badge::new(Tone::Bad, "irreversible");
                spot.sub = "cannot be undone".to_owned();
            }
        }
        draw_back(picture, |step| waves.contains_key(step));
    }
    let changes = changes(ask);
    let needs_another = needs_another(ask, &view, plan.as_ref()).await?;
    let may_act = who.may_act();
    let mut deeds = Vec::new();
    if let Some(plan) = plan.as_ref().filter(|_| may_act) {
        if !needs_another && changes.is_none() {
            deeds.push(deed(&view, way, &step, &scope, plan));
        }
        if way != Way::Rerun {
            deeds.push(written_down(changes.as_ref(), id, &scope, plan.past_pivot));
        }
    }
    let empty = Plan {
        steps: Vec::new(),
        total: 0,
        next: None,
        irreversible: Vec::new(),
        past_pivot: false,
        dependents: Vec::new(),
    };
    let plan = plan.unwrap_or(empty);
    let dependents =
        plan.dependents.iter().map(|one| (one.run.to_string(), format!("{} {}", one.fact, one.on)));
    Ok(UndoPage {
        frame: Frame::new(ask, who, "runs", format!("Undo of {}", title(&view))),
        way,
        step,
        chosen,
        all_steps,
        picture,
        total: number(plan.total),
        more: plan.next.is_some(),
        irreversible: plan.irreversible.clone(),
        past_pivot: plan.past_pivot,
        dependents: dependents.collect(),
        undos: plan.steps.into_iter().map(Undo::of).collect(),
        again,
        deeds,
        needs_another,
        changes,
        refused,
        view,
    })
}

/// Returns whether one person may not undo so much of the run's workflow alone.
async fn needs_another(ask: &Ask, view: &RunView, plan: Option<&Plan>) -> Result<bool, Problem> {
    let Some(plan) = plan else { return Ok(false) };
    let path = format!("/v1/workflows/{}/undo-approval", encoded(&view.workflow));
    let UndoApprovalView { approval, .. } = ask.get(&path).await?;
    Ok(approval.alone().is_some_and(|most| plan.total > u64::from(most)))
}

/// Returns the plan that is changed, if it is one.
fn changes(ask: &Ask) -> Option<(String, String)> {
    let (plan, revision) = ask.param("plan").zip(ask.param("revision"))?;
    let is_id = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    let is_number = revision.bytes().all(|byte| byte.is_ascii_digit());
    (is_id(plan) && is_number).then(|| (plan.to_owned(), revision.to_owned()))
}

/// Returns in which wave each step is undone first.
fn waves(plan: &Plan) -> BTreeMap<String, u32> {
    let mut waves = BTreeMap::new();
    for one in &plan.steps {
        let wave = waves.entry(one.step.step.to_string()).or_insert(one.wave);
        *wave = one.wave.min(*wave);
    }
    waves
}

fn deed(view: &RunView, way: Way, step: &str, scope: &Scope, plan: &Plan) -> Deed {
    let then = Some(format!("/console/runs/{}", view.id));
    let mut deed = match way {
        Way::Rerun => {
            Deed::new("rerun", "Undo and go forward again", format!("/v1/runs/{}/rerun", view.id))
                .fixed("f.s.from", step)
                .field(
                    Field::json("input", "Input of the step instead")
                        .hint("JSON. Empty: as before."),
                )
        }
        _ => Deed::new("compensate", "Undo this", format!("/v1/runs/{}/compensate", view.id))
            .fixed("f.j.scope", serde_json::to_string(scope).unwrap_or_default()),
    };
    if plan.past_pivot {
        deed = deed.field(Field::tick("force", "Although the point of no return is passed"));
    }
    deed.then = then;
    deed
}

//! Compensation plans: those that there are, and one with what it undoes and what can be done about it.

use askama::Template;
use axum::extract::Path;
use backstitch_saga::protocol::{CompensationPlan, Page, PlanState, PlanView, Scope};

use super::filter::Filter;
use super::undo::Undo;
use crate::ask::{Ask, Problem, encoded};
use crate::form::{Deed, Field};
use crate::page::{Frame, Shown, ok};
use crate::show::{Badge, Tone, instant, moment, number};

const PARAMETERS: [&str; 3] = ["state", "run", "workflow"];

/// Returns the badge of a plan's state.
fn badge(plan: &CompensationPlan) -> Badge {
    match (plan.state, plan.needs_approval, &plan.approved_by) {
        (PlanState::Open, true, None) => Badge::new(Tone::Doubt, "needs approval"),
        (PlanState::Open, _, Some(_)) => Badge::new(Tone::Good, "approved"),
        (PlanState::Open, ..) => Badge::new(Tone::Calm, "open"),
        (PlanState::Applied, ..) => Badge::new(Tone::Back, "applied"),
        (PlanState::Withdrawn, ..) => Badge::new(Tone::Idle, "withdrawn"),
        (PlanState::Expired, ..) => Badge::new(Tone::Bad, "expired"),
    }
}

/// Describes the scope of a plan.
fn about(scope: &Scope) -> String {
    match scope {
        Scope::All => "everything".to_owned(),
        Scope::BackTo(step) => format!("back to {step}"),
        Scope::Steps(steps) => steps.join(", "),
    }
}

/// A plan in a list.
struct Line {
    plan: CompensationPlan,
    badge: Badge,
    about: String,
    undos: String,
    at: String,
    moment: String,
}

impl Line {
    fn of(plan: CompensationPlan) -> Line {
        Line {
            badge: badge(&plan),
            about: about(&plan.scope),
            undos: number(plan.undos),
            at: instant(plan.made_at),
            moment: moment(plan.made_at),
            plan,
        }
    }
}

#[derive(Template)]
#[template(path = "plans.html")]
struct PlansPage {
    frame: Frame,
    lines: Vec<Line>,
    filter: Filter,
    next: Option<String>,
}

pub(crate) async fn list(ask: Ask) -> Shown {
    match list_page(&ask).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

async fn list_page(ask: &Ask) -> Result<PlansPage, Problem> {
    let who = ask.who().await?;
    let filter = Filter::of(ask, &PARAMETERS);
    let page: Page<CompensationPlan> =
        ask.get(&format!("/v1/plans?limit=50&{}", filter.asked(&[]))).await?;
    Ok(PlansPage {
        frame: Frame::new(ask, who, "plans", "Plans"),
        next: filter.next("/console/plans", page.next),
        lines: page.items.into_iter().map(Line::of).collect(),
        filter,
    })
}

#[derive(Template)]
#[template(path = "plan.html")]
struct PlanPage {
    frame: Frame,
    line: Line,
    open: bool,
    holds: bool,
    undos: Vec<Undo>,
    more: bool,
    irreversible: Vec<String>,
    /// Address of the page that changes the plan.
    edit: String,
    deeds: Vec<Deed>,
}

pub(crate) async fn show(ask: Ask, Path(id): Path<String>) -> Shown {
    match page(&ask, &encoded(&id)).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

async fn page(ask: &Ask, id: &str) -> Result<PlanPage, Problem> {
    let who = ask.who().await?;
    let PlanView { plan, holds, undo } =
        ask.get::<PlanView>(&format!("/v1/plans/{id}?limit=200")).await?;
    let open = plan.state == PlanState::Open;
    let deeds = if open { deeds(&plan, holds, &who.name) } else { Vec::new() };
    let (more, irreversible) = undo
        .as_ref()
        .map_or((false, Vec::new()), |undo| (undo.next.is_some(), undo.irreversible.clone()));
    let way = match &plan.scope {
        Scope::All => "way=all".to_owned(),
        Scope::BackTo(step) => format!("way=back_to&step={}", encoded(step)),
        Scope::Steps(steps) => {
            let steps: Vec<String> =
                steps.iter().map(|step| format!("&choose={}", encoded(step))).collect();
            format!("way=steps{}", steps.concat())
        }
    };
    Ok(PlanPage {
        frame: Frame::new(ask, who, "plans", "Plan"),
        open,
        holds,
        undos: undo.map_or(Vec::new(), |undo| undo.steps.into_iter().map(Undo::of).collect()),
        more,
        irreversible,
        edit: format!(
            "/console/runs/{}/undo?{way}&plan={}&revision={}",
            plan.run, plan.id, plan.revision
        ),
        deeds,
        line: Line::of(plan),
    })
}

/// Returns the actions of `who` on an open plan.
fn deeds(plan: &CompensationPlan, holds: bool, who: &str) -> Vec<Deed> {
    let of = |word: &'static str, label| {
        let path = format!("/v1/plans/{}/{word}", plan.id);
        let deed = Deed::new(word, label, path);
        match word {
            "withdraw" => deed,
            _ => deed.fixed("f.n.revision", plan.revision.to_string()),
        }
    };
    let mut deeds = Vec::new();
    if holds && plan.approved_by.is_none() && plan.made_by != who {
        deeds.push(of("approve", "Approve").about("Says that you agree with this undo."));
    }
    if holds && (!plan.needs_approval || plan.approved_by.is_some()) {
        let mut deed = of("apply", "Undo this").without_reason();
        deed.then = Some(format!("/console/runs/{}", plan.run));
        deeds.push(deed.about("Begins to undo the run as it stands here."));
    }
    deeds.push(of("withdraw", "Withdraw").about("Ends the plan; nothing is undone."));
    deeds
}

/// Returns the form that stores an undo as a plan, or changes a plan: its id and revision.
pub(crate) fn written_down(
    changes: Option<&(String, String)>,
    run: &str,
    scope: &Scope,
    past_pivot: bool,
) -> Deed {
    let scope = serde_json::to_string(scope).unwrap_or_default();
    let mut deed = match changes {
        Some((plan, revision)) => {
            let path = format!("/v1/plans/{plan}");
            let mut deed = Deed::new("edit", "Change the plan to this", path)
                .about("An approval of before is void then.")
                .fixed("f.n.revision", revision.as_str());
            deed.method = "PUT";
            deed
        }
        None => Deed::new("plan", "Write it down as a plan", format!("/v1/runs/{run}/plans"))
            .about("For others to look at, to change and to approve. It is applied while the run has not moved."),
    };
    deed = deed.fixed("f.j.scope", scope);
    if past_pivot {
        deed = deed.field(Field::tick("force", "Although the point of no return is passed"));
    }
    deed.then = Some("/console/plans/{id}".to_owned());
    deed
}

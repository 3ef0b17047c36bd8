//! One run: its state in a sentence; the picture; its times; the reasons of its state with the actions that help; its
//! effects.

use askama::Template;
use backstitch_saga::protocol::{
    HistoryEntry, IncidentLine, Page, RunTree, RunView, State, StepView, Why, WorkflowView,
};
use backstitch_saga::{Graph, Time, Timestamp};

use super::deeds::{self, Wait};
use crate::ask::{Ask, Problem, encoded};
use crate::form::Deed;
use crate::graph::{Picture, of_run};
use crate::page::{Frame, Shown, ok};
use crate::show::{
    Badge, instant, length, moment, pretty, run_badge, spoken, step_badge, view_badge,
};
use crate::timeline::{self, Timeline};

/// Largest number of events of a run from which the timeline is drawn.
const MOST_EVENTS: usize = 3_000;
/// Largest number of waits that a page shows.
const MOST_WAITS: usize = 20;
/// Largest number of steps of a graph in which each step is drawn by itself.
const MOST_UNFOLDED: usize = 30;
/// Largest number of steps that a page lists.
const MOST_STEPS: usize = 500;

/// A step in the list.
pub(crate) struct StepLine {
    pub(crate) step: StepView,
    pub(crate) badge: Badge,
    pub(crate) href: String,
    pub(crate) effect: Option<&'static str>,
    pub(crate) kind: String,
}

impl StepLine {
    pub(crate) fn of(view: &RunView, step: StepView) -> StepLine {
        StepLine {
            badge: step_badge(&step),
            href: format!("/console/runs/{}/steps/{}", view.id, encoded(&step.step.to_string())),
            effect: effect_of(&step),
            kind: spoken(&step.kind),
            step,
        }
    }
}

/// Describes the state of a step's effect, if it has one.
fn effect_of(step: &StepView) -> Option<&'static str> {
    let of = |word: &str| step.effects.get(word).copied().unwrap_or(0) > 0;
    ["unknown", "open", "applied", "reverted", "not_applied"].into_iter().find(|word| of(word))
}

/// A run of the tree.
struct TreeLine {
    indent: u32,
    id: String,
    name: String,
    badge: Badge,
    here: bool,
}

#[derive(Template)]
#[template(path = "run.html")]
struct RunPage {
    frame: Frame,
    view: RunView,
    badge: Badge,
    mark: u64,
    started: (String, String),
    ended: Option<(String, String)>,
    took: String,
    /// As long as the run goes forward.
    deadline: Option<(String, String)>,
    waits: Vec<Wait>,
    more_waits: usize,
    why: Option<String>,
    deeds: Vec<Deed>,
    /// The deadline, and the time that is reserved for the undo.
    end_by: Option<(String, String, String)>,
    may_undo: bool,
    picture: Option<Picture>,
    /// Rows of steps that are done are drawn as one each.
    fold: bool,
    may_fold: bool,
    timeline: Timeline,
    cut_history: bool,
    steps: Vec<StepLine>,
    more_steps: usize,
    effects: Vec<(String, u32)>,
    incidents: Vec<IncidentLine>,
    tree: Vec<TreeLine>,
    input: String,
    output: Option<String>,
    /// The record after which it is shown; the last without it.
    as_of: Option<u64>,
    last: u64,
}

impl RunPage {
    /// Returns the record after which it is shown.
    fn at(&self) -> u64 {
        self.as_of.unwrap_or(self.last)
    }

    fn earlier(&self) -> Option<u64> {
        let at = self.as_of.unwrap_or(self.last);
        (at > 1).then(|| at - 1)
    }

    fn later(&self) -> Option<u64> {
        self.as_of.filter(|at| *at < self.last).map(|at| at + 1)
    }
}

fn now() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let millis = now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
    Timestamp(Time(millis))
}

pub(crate) async fn show(ask: Ask, axum::extract::Path(id): axum::extract::Path<String>) -> Shown {
    match page(&ask, &encoded(&id)).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

/// Returns the definition of a run, as a checked graph.
pub(crate) async fn graph_of(ask: &Ask, view: &RunView) -> Option<Graph> {
    let path = format!("/v1/workflows/{}/versions/{}", encoded(&view.workflow), view.version);
    let workflow: WorkflowView = ask.get(&path).await.ok()?;
    Graph::check(workflow.definition?).ok()
}

/// Returns the history of a run, as far as it is drawn; and whether there is more.
async fn history(ask: &Ask, id: &str) -> Result<(Vec<HistoryEntry>, bool), Problem> {
    let (mut all, mut after) = (Vec::new(), None::<String>);
    loop {
        let from = after.map(|after| format!("&after={}", encoded(&after))).unwrap_or_default();
        let path = format!("/v1/runs/{id}/history?limit=1000{from}");
        let page: Page<HistoryEntry> = ask.get(&path).await?;
        all.extend(page.items);
        match page.next {
            None => return Ok((all, false)),
            Some(_) if all.len() >= MOST_EVENTS => return Ok((all, true)),
            next => after = next,
        }
    }
}

async fn page(ask: &Ask, id: &str) -> Result<RunPage, Problem> {
    let who = ask.who().await?;
    let (present, mark): (RunView, u64) = ask.get_live(&format!("/v1/runs/{id}")).await?;
    let last = present.seq;
    let as_of = ask.param("as_of").and_then(|at| at.parse::<u64>().ok());
    let as_of = as_of.filter(|at| *at < last).map(|at| at.max(1));
    let view = match as_of {
        Some(at) => ask.get(&format!("/v1/runs/{id}?as_of={at}")).await?,
        None => present,
    };
    let graph = graph_of(ask, &view).await;
    let fold = folds(ask, graph.as_ref());
    let (mut entries, cut_history) = history(ask, id).await?;
    if let Some(at) = as_of {
        entries.retain(|entry| entry.seq <= at);
    }
    let until = match (as_of, view.ended_at) {
        (Some(_), _) => entries.last().map_or(view.started_at, |entry| entry.at),
        (None, Some(ended)) => ended,
        (None, None) => now(),
    };
    let moving = as_of.is_none() && view.state != State::Ended;
    let why: Option<Why> = match moving {
        true => Some(ask.get(&format!("/v1/runs/{id}/why")).await?),
        false => None,
    };
    let is_undone = matches!(view.state, State::Compensating | State::CompensationBlocked);
    let always: Vec<String> =
        why.iter().flat_map(|why| &why.waits_for).flat_map(|wait| wait.verbs.clone()).collect();
    let summary = why.as_ref().map(|why| why.summary.clone());
    let waits = why.map(|why| why.waits_for).unwrap_or_default();
    let deeds = match as_of {
        None => deeds::of_run(&view, &always, who.is_admin()),
        Some(_) => Vec::new(),
    };
    let incidents: Page<IncidentLine> = match as_of {
        None => ask.get(&format!("/v1/incidents?run={id}&state=open")).await?,
        Some(_) => Page { items: Vec::new(), next: None },
    };
    let related = view.parent.is_some() || view.steps.iter().any(|step| step.child.is_some());
    let tree = match related {
        true => tree(&ask.get(&format!("/v1/runs/{id}/tree")).await?, &view),
        false => Vec::new(),
    };
    let at = |at: Timestamp| (instant(at), moment(at));
    let steps: Vec<&StepView> = view.steps.iter().collect();
    let more_steps = steps.len().saturating_sub(MOST_STEPS);
    let steps = steps.into_iter().take(MOST_STEPS).map(|step| StepLine::of(&view, step.clone()));
    Ok(RunPage {
        badge: view_badge(&view),
        mark,
        started: at(view.started_at),
        ended: view.ended_at.map(at),
        took: length(until.0.since(view.started_at.0).0),
        deadline: (!is_undone).then(|| at(view.deadline)),
        why: summary,
        more_waits: waits.len().saturating_sub(MOST_WAITS),
        waits: waits.into_iter().take(MOST_WAITS).map(|wait| deeds::of_wait(&view, wait)).collect(),
        deeds,
        end_by: view.end_by.map(|end| {
            let reserved = end.reserved.filter(|_| view.ended_at.is_none());
            let reserved = reserved.map_or_else(String::new, |span| length(span.0));
            (instant(end.at), moment(end.at), reserved)
        }),
        may_undo: as_of.is_none() && !is_undone,
        picture: graph.as_ref().map(|graph| of_run(graph, &view, fold)),
        fold,
        may_fold: graph.as_ref().is_some_and(|graph| graph.nodes.len() > MOST_UNFOLDED),
        timeline: timeline::of(&entries, until),
        cut_history,
        steps: steps.collect(),
        more_steps,
        effects: view.progress.effects.iter().map(|(word, count)| (spoken(word), *count)).collect(),
        incidents: incidents.items,
        tree,
        input: pretty(view.input.text()),
        output: view.output.as_ref().map(|output| pretty(output.text())),
        as_of,
        last,
        frame: Frame::new(ask, who, "runs", title(&view)),
        view,
    })
}

/// Returns whether rows of steps that are done are drawn as one: as the address says, or where there are many.
fn folds(ask: &Ask, graph: Option<&Graph>) -> bool {
    let many = graph.is_some_and(|graph| graph.nodes.len() > MOST_UNFOLDED);
    ask.param("fold").map_or(many, |fold| fold == "yes")
}

/// Returns the title of a run: its key, if it has one.
pub(crate) fn title(view: &RunView) -> String {
    match &view.key {
        Some(key) => format!("{} {key}", view.workflow),
        None => format!("{} {}", view.workflow, view.id),
    }
}

fn tree(tree: &RunTree, view: &RunView) -> Vec<TreeLine> {
    let line = |run: &backstitch_saga::protocol::TreeRun| TreeLine {
        indent: run.depth.min(12),
        id: run.run.to_string(),
        name: match &run.step {
            Some(step) => format!("{step}: {} v{}", run.workflow, run.version),
            None => format!("{} v{}", run.workflow, run.version),
        },
        badge: run_badge(run.state, run.outcome),
        here: run.run == view.id,
    };
    tree.runs.iter().take(200).map(line).collect()
}

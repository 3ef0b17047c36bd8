//! The list of runs, searched by all that the API searches by.

use askama::Template;
use backstitch_saga::SEARCHED;
use backstitch_saga::protocol::{Outcome, Page, RunLine, State, WorkflowView};

use super::counts::StateCount;
use crate::ask::{Ask, Problem, encoded};
use crate::page::{Frame, Shown, ok};
use crate::show::{Badge, instant, length, line_badge, moment};

/// A run in a list.
pub(crate) struct Line {
    pub(crate) run: RunLine,
    pub(crate) badge: Badge,
    pub(crate) started: String,
    pub(crate) started_at: String,
    /// Duration of the run; nothing while it proceeds.
    pub(crate) took: Option<String>,
}

impl Line {
    pub(crate) fn of(run: RunLine) -> Line {
        let took = run.ended_at.map(|ended| length(ended.0.since(run.started_at.0).0));
        Line {
            badge: line_badge(&run),
            started: moment(run.started_at),
            started_at: instant(run.started_at),
            took,
            run,
        }
    }
}

/// Parameters of the search, each a parameter of the API with the same name.
const PARAMETERS: [&str; 15] = [
    "workflow",
    "state",
    "outcome",
    "key",
    "label",
    "condition",
    "correlation_id",
    "incident",
    "unknown_in",
    "assignee",
    "started_from",
    "started_to",
    "ended_from",
    "ended_to",
    "after",
];
/// Those behind "more".
const RARE: [&str; 9] = [
    "condition",
    "correlation_id",
    "incident",
    "unknown_in",
    "assignee",
    "started_from",
    "started_to",
    "ended_from",
    "ended_to",
];
/// Number of runs on a page.
const LIMIT: u32 = 50;

#[derive(Template)]
#[template(path = "runs.html")]
struct RunsPage {
    frame: Frame,
    lines: Vec<Line>,
    /// The page with the runs that follow.
    next: Option<String>,
    filter: Vec<(String, String)>,
    workflows: Vec<String>,
    states: Vec<&'static str>,
    outcomes: Vec<&'static str>,
    conditions: &'static [&'static str],
    searched: bool,
    /// Counts of runs that move, where nothing is searched.
    counts: Vec<StateCount>,
    rare: bool,
    paged: bool,
    /// Address of the form for a job on all of these.
    job: String,
    wrong: Option<Problem>,
}

impl RunsPage {
    fn value(&self, name: &str) -> &str {
        let found = self.filter.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value.as_str())
    }

    fn labels(&self) -> Vec<&str> {
        let named = self.filter.iter().filter(|(known, _)| known == "label");
        named.map(|(_, value)| value.as_str()).collect()
    }
}

/// Returns a query of these pairs.
pub(crate) fn query(pairs: &[(String, String)]) -> String {
    let pairs: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    pairs.join("&")
}

pub(crate) async fn show(ask: Ask) -> Shown {
    match page(&ask).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

async fn page(ask: &Ask) -> Result<RunsPage, Problem> {
    let who = ask.who().await?;
    let known = |(name, value): &&(String, String)| {
        PARAMETERS.contains(&name.as_str()) && !value.is_empty()
    };
    let asked: Vec<(String, String)> = ask.query.iter().filter(known).cloned().collect();
    let path = format!("/v1/runs?limit={LIMIT}&{}", query(&asked));
    // A filter that the API refuses is shown beside what it says of it.
    let (found, wrong) = match ask.get::<Page<RunLine>>(path.trim_end_matches('&')).await {
        Ok(found) => (found, None),
        Err(problem) if matches!(problem.status, 400 | 422) => {
            (Page { items: Vec::new(), next: None }, Some(problem))
        }
        Err(problem) => return Err(problem),
    };
    let workflows: Page<WorkflowView> = ask.get("/v1/workflows?limit=200").await?;
    let mut workflows: Vec<String> = workflows.items.into_iter().map(|one| one.name).collect();
    workflows.dedup();
    let counts = match asked.is_empty() {
        true => StateCount::moving(&ask.get("/v1/status").await?),
        false => Vec::new(),
    };
    let filter: Vec<(String, String)> =
        asked.iter().filter(|(name, _)| name != "after").cloned().collect();
    let next = found.next.map(|next| {
        let mut pairs = filter.clone();
        pairs.push(("after".to_owned(), next));
        format!("/console/runs?{}", query(&pairs))
    });
    Ok(RunsPage {
        frame: Frame::new(ask, who, "runs", "Runs"),
        lines: found.items.into_iter().map(Line::of).collect(),
        next,
        workflows,
        states: vec![
            State::Queued.as_str(),
            State::Waiting.as_str(),
            State::Running.as_str(),
            State::Paused.as_str(),
            State::Compensating.as_str(),
            State::CompensationBlocked.as_str(),
            State::Ended.as_str(),
        ],
        outcomes: Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect(),
        conditions: &SEARCHED,
        searched: !filter.is_empty(),
        counts,
        rare: filter.iter().any(|(name, _)| RARE.contains(&name.as_str())),
        paged: asked.len() > filter.len(),
        job: query(&filter),
        filter,
        wrong,
    })
}

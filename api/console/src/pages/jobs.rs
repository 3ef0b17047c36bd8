//! One verb on many incidents or runs: first its preview, then the job, then its progress.

use askama::Template;
use axum::extract::Path;
use backstitch_saga::protocol::{ItemState, JobItem, JobPlan, JobState, JobView, Page};
use serde_json::{Map, Value, json};

use super::filter::Filter;
use super::runs::query;
use crate::ask::{Ask, Problem, encoded};
use crate::form::{Deed, Field};
use crate::page::{Frame, Shown, ok};
use crate::show::{Badge, Tone, instant, moment, number, spoken};

/// Verbs for incidents, and for runs.
const OF_INCIDENTS: [&str; 6] =
    ["retry", "skip", "mark-compensated", "compensate", "cancel", "abandon"];
const OF_RUNS: [&str; 8] =
    ["rerun", "retry", "compensate", "cancel", "kill", "pause", "resume", "signal"];
/// Members of a filter of incidents, and of one of runs.
const BY_INCIDENTS: [&str; 7] =
    ["kind", "workflow", "step", "fingerprint", "run", "assignee", "older_than"];
const BY_RUNS: [&str; 13] = [
    "workflow",
    "state",
    "outcome",
    "key",
    "correlation_id",
    "condition",
    "incident",
    "unknown_in",
    "assignee",
    "started_from",
    "started_to",
    "ended_from",
    "ended_to",
];

/// Returns the badge of a job's state.
fn badge(state: JobState) -> Badge {
    let tone = match state {
        JobState::Canary | JobState::Running => Tone::Busy,
        JobState::Paused => Tone::Calm,
        JobState::Stopped => Tone::Bad,
        JobState::Done => Tone::Good,
    };
    Badge::new(tone, state.as_str())
}

fn item_badge(state: ItemState) -> Badge {
    let tone = match state {
        ItemState::Waiting => Tone::Calm,
        ItemState::Left => Tone::Idle,
        ItemState::Done => Tone::Good,
        ItemState::CameBack | ItemState::Refused => Tone::Bad,
    };
    Badge::new(tone, state.as_str())
}

fn verb_of(view: &JobView) -> String {
    let verb = serde_json::to_value(view.asked.verb).unwrap_or_default();
    verb.as_str().unwrap_or_default().to_owned()
}

struct Line {
    id: String,
    verb: String,
    badge: Badge,
    actor: String,
    reason: String,
    at: String,
    moment: String,
    done: String,
}

#[derive(Template)]
#[template(path = "jobs.html")]
struct JobsPage {
    frame: Frame,
    lines: Vec<Line>,
    next: Option<String>,
}

pub(crate) async fn list(ask: Ask) -> Shown {
    match list_page(&ask).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

async fn list_page(ask: &Ask) -> Result<JobsPage, Problem> {
    let who = ask.who().await?;
    let page = ask.list::<JobView>("/v1/jobs", 50, &Filter::of(ask, &[])).await?;
    let line = |view: JobView| Line {
        id: view.id.to_string(),
        verb: verb_of(&view),
        badge: badge(view.state),
        reason: view.asked.reason.clone(),
        at: instant(view.created_at),
        moment: moment(view.created_at),
        done: format!("{} of {}", number(view.progress.done), number(view.progress.total)),
        actor: view.actor,
    };
    Ok(JobsPage {
        frame: Frame::new(ask, who, "jobs", "Jobs"),
        lines: page.items.into_iter().map(line).collect(),
        next: page.next,
    })
}

#[derive(Template)]
#[template(path = "job_new.html")]
struct NewJobPage {
    frame: Frame,
    of_incidents: bool,
    filter: Vec<(String, String)>,
    verbs: &'static [&'static str],
    verb: String,
    from: String,
    signal: String,
    count: String,
    ended: Option<String>,
    first: Vec<JobItem>,
    dependents: usize,
    deed: Option<Deed>,
    refused: Option<Problem>,
    back: String,
}

pub(crate) async fn plan(ask: Ask) -> Shown {
    match plan_page(&ask).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

/// Returns the filter of a query as a document of the API.
fn filter_of(filter: &[(String, String)]) -> Value {
    let (mut members, mut labels) = (Map::new(), Map::new());
    for (name, value) in filter {
        match name.as_str() {
            "label" => {
                let (name, value) = value.split_once(':').unwrap_or((value, ""));
                labels.insert(name.to_owned(), value.into());
            }
            "incident" => {
                members.insert(name.clone(), (value == "true").into());
            }
            _ => {
                members.insert(name.clone(), value.as_str().into());
            }
        }
    }
    if !labels.is_empty() {
        members.insert("labels".to_owned(), Value::Object(labels));
    }
    Value::Object(members)
}

async fn plan_page(ask: &Ask) -> Result<NewJobPage, Problem> {
    let who = ask.who().await?;
    let of_incidents = ask.param("of") != Some("runs");
    let (verbs, by): (&'static [&str], &[&str]) = match of_incidents {
        true => (&OF_INCIDENTS, &BY_INCIDENTS),
        false => (&OF_RUNS, &BY_RUNS),
    };
    let verb = ask.param("verb").filter(|verb| verbs.contains(verb)).unwrap_or(verbs[0]).to_owned();
    let known = |(name, value): &&(String, String)| {
        let known = by.contains(&name.as_str()) || (!of_incidents && name == "label");
        known && !value.is_empty()
    };
    let filter: Vec<(String, String)> = ask.query.iter().filter(known).cloned().collect();
    let (from, signal) =
        (ask.param("from").unwrap_or_default(), ask.param("signal").unwrap_or_default());
    let what = if of_incidents { "incidents" } else { "runs" };
    let chosen = filter_of(&filter);
    let mut asked = json!({ "verb": verb, what: chosen, "dry_run": true });
    if verb == "rerun" {
        asked["from"] = from.into();
    }
    if verb == "signal" {
        asked["signal"] = signal.into();
    }
    let planned = ask.post::<JobPlan>("/v1/jobs", asked.to_string()).await;
    let (plan, refused) = match planned {
        Ok(plan) => (Some(plan), None),
        Err(problem) if matches!(problem.status, 401 | 403) => return Err(problem),
        Err(problem) => (None, Some(problem)),
    };
    let some = plan.as_ref().is_some_and(|plan| plan.count > 0);
    let deed = some.then(|| {
        let mut deed = Deed::new("start-job", "Start the job", "/v1/jobs".to_owned())
            .fixed("f.s.verb", verb.as_str())
            .fixed(&format!("f.j.{what}"), chosen.to_string());
        if verb == "rerun" {
            deed = deed.fixed("f.s.from", from);
            deed = deed.field(
                Field::json("input", "Input of the step instead").hint("JSON. Empty: as before."),
            );
        }
        if verb == "signal" {
            deed = deed.fixed("f.s.signal", signal);
            deed = deed.field(Field::json("data", "Data").hint("JSON."));
        }
        deed = deed
            .field(
                Field::new("n", "canary.first", "First try it on")
                    .value("5")
                    .hint("So many are done first; the others when each of them has held."),
            )
            .field(Field::text("canary.wait", "and look at those for").value("2m"))
            .field(Field::new("n", "rate", "At most a second").value("10"))
            .field(Field::new("n", "stop_when.count", "Stop when so many come back").value("3"));
        deed.then = Some("/console/jobs/{id}".to_owned());
        if matches!(verb.as_str(), "kill" | "abandon") { deed.danger() } else { deed }
    });
    let back = match of_incidents {
        true => format!("/console/incidents?{}", query(&filter)),
        false => format!("/console/runs?{}", query(&filter)),
    };
    let plan = plan.unwrap_or(JobPlan {
        count: 0,
        ended: None,
        first: Vec::new(),
        dependents: Vec::new(),
    });
    Ok(NewJobPage {
        frame: Frame::new(ask, who, "jobs", "Plan a job"),
        of_incidents,
        verbs,
        from: from.to_owned(),
        signal: signal.to_owned(),
        count: number(plan.count),
        ended: plan.ended.filter(|ended| *ended > 0).map(number),
        first: plan.first.into_iter().take(10).collect(),
        dependents: plan.dependents.len(),
        filter,
        verb,
        deed,
        refused,
        back,
    })
}

struct Item {
    item: JobItem,
    badge: Badge,
}

#[derive(Template)]
#[template(path = "job.html")]
struct JobPage {
    frame: Frame,
    mark: u64,
    view: JobView,
    verb: String,
    total: String,
    badge: Badge,
    created: (String, String),
    /// State, count, and its part of a thousand.
    parts: Vec<(String, String, String)>,
    /// Position of each part, its width, and its class.
    bars: Vec<(u64, u64, &'static str)>,
    items: Vec<Item>,
    next: Option<String>,
    deeds: Vec<Deed>,
    over: bool,
}

pub(crate) async fn show(ask: Ask, Path(id): Path<String>) -> Shown {
    match page(&ask, &encoded(&id)).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

async fn page(ask: &Ask, id: &str) -> Result<JobPage, Problem> {
    let who = ask.who().await?;
    let (view, mark): (JobView, u64) = ask.get_live(&format!("/v1/jobs/{id}")).await?;
    let mut asked = vec![];
    for name in ["state", "after"] {
        if let Some(value) = ask.param(name) {
            asked.push((name.to_owned(), value.to_owned()));
        }
    }
    let items: Page<JobItem> =
        ask.get(&format!("/v1/jobs/{id}/items?limit=100&{}", query(&asked))).await?;
    let progress = view.progress;
    let parts = [
        (ItemState::Done, progress.done),
        (ItemState::CameBack, progress.came_back),
        (ItemState::Refused, progress.refused),
        (ItemState::Left, progress.left),
        (ItemState::Waiting, progress.waiting),
    ];
    let (mut bars, mut at) = (Vec::new(), 0);
    for (state, count) in parts {
        let width = count * 1_000 / progress.total.max(1);
        bars.push((at, width, item_badge(state).class()));
        at += width;
    }
    let over = matches!(view.state, JobState::Done | JobState::Stopped);
    let deed = |word: &'static str, label: &'static str| {
        Deed::new(word, label, format!("/v1/jobs/{id}/{word}"))
    };
    let deeds = match view.state {
        JobState::Done | JobState::Stopped => Vec::new(),
        JobState::Paused => vec![deed("resume", "Resume"), deed("stop", "Stop").danger()],
        JobState::Canary | JobState::Running => {
            vec![deed("pause", "Pause"), deed("stop", "Stop").danger()]
        }
    };
    Ok(JobPage {
        frame: Frame::new(ask, who, "jobs", "Job"),
        mark,
        verb: verb_of(&view),
        total: number(progress.total),
        badge: badge(view.state),
        created: (instant(view.created_at), moment(view.created_at)),
        parts: parts
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(state, count)| {
                (state.as_str().to_owned(), spoken(state.as_str()), number(*count))
            })
            .collect(),
        bars,
        next: items.next.map(|next| {
            let mut pairs: Vec<_> = asked.into_iter().filter(|(name, _)| name != "after").collect();
            pairs.push(("after".to_owned(), next));
            format!("/console/jobs/{id}?{}", query(&pairs))
        }),
        items: items
            .items
            .into_iter()
            .map(|item| Item { badge: item_badge(item.state), item })
            .collect(),
        deeds,
        over,
        view,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_becomes_the_filter_of_a_job() {
        let pairs = [("workflow", "w"), ("label", "team:a:b"), ("incident", "true")];
        let pairs: Vec<_> = pairs.map(|(a, b)| (a.to_owned(), b.to_owned())).into();
        let wanted = json!({ "workflow": "w", "incident": true, "labels": { "team": "a:b" } });
        assert_eq!(filter_of(&pairs), wanted);
    }
}

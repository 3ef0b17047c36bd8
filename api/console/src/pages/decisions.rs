//! Decisions that people are asked for: runs that wait for a signal, with a form for it.

use askama::Template;
use backstitch_saga::protocol::{Page, RunLine, RunView};

use super::deeds::signal;
use super::runs::query;
use crate::ask::{Ask, Problem};
use crate::form::Deed;
use crate::page::{Frame, Shown, ok};
use crate::show::{instant, moment};

/// Number of runs on a page.
const LIMIT: u32 = 20;

/// One question.
struct Question {
    run: String,
    name: String,
    step: String,
    title: String,
    assignee: Option<String>,
    until: Option<(String, String)>,
    deeds: Vec<Deed>,
}

#[derive(Template)]
#[template(path = "decisions.html")]
struct DecisionsPage {
    frame: Frame,
    questions: Vec<Question>,
    assignee: String,
    me: String,
    next: Option<String>,
}

pub(crate) async fn show(ask: Ask) -> Shown {
    match page(&ask).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

async fn page(ask: &Ask) -> Result<DecisionsPage, Problem> {
    let who = ask.who().await?;
    let mut pairs: Vec<(String, String)> = Vec::new();
    for name in ["assignee", "workflow"] {
        if let Some(value) = ask.param(name) {
            pairs.push((name.to_owned(), value.to_owned()));
        }
    }
    let mut asked = pairs.clone();
    if let Some(after) = ask.param("after") {
        asked.push(("after".to_owned(), after.to_owned()));
    }
    let path = format!("/v1/runs?condition=SignalAwaited&limit={LIMIT}&{}", query(&asked));
    let runs: Page<RunLine> = ask.get(path.trim_end_matches('&')).await?;
    let mut questions = Vec::new();
    for line in &runs.items {
        // It may not exist any more.
        let Ok(view) = ask.get::<RunView>(&format!("/v1/runs/{}", line.id)).await else { continue };
        questions.extend(questions_of(&view));
    }
    let next = runs.next.map(|next| {
        pairs.push(("after".to_owned(), next));
        format!("/console/decisions?{}", query(&pairs))
    });
    Ok(DecisionsPage {
        assignee: ask.param("assignee").unwrap_or_default().to_owned(),
        me: who.name.clone(),
        frame: Frame::new(ask, who, "decisions", "Decisions"),
        questions,
        next,
    })
}

fn questions_of(view: &RunView) -> Vec<Question> {
    let waiting = view.steps.iter().filter(|step| step.state == "awaiting_signal");
    let question = |step: &backstitch_saga::protocol::StepView| {
        let awaits = step.awaits.as_ref()?;
        let names: Vec<&str> = match awaits.signals.is_empty() {
            true => vec![&awaits.signal],
            false => awaits.signals.iter().map(|one| one.signal.as_str()).collect(),
        };
        Some(Question {
            run: view.id.to_string(),
            name: super::run::title(view),
            step: step.step.to_string(),
            title: awaits.title.clone().unwrap_or_else(|| format!("The signal {}", awaits.signal)),
            assignee: awaits.assignee.clone(),
            until: step.next_at.map(|at| (instant(at), moment(at))),
            deeds: names.into_iter().map(|name| signal(view.id, name, Some(awaits))).collect(),
        })
    };
    waiting.filter_map(question).collect()
}

//! One step of a run, or one item: its state, its output, and the items of a fan-out.

use askama::Template;
use backstitch_saga::protocol::{Page, RunView, StepView};

use super::run::{StepLine, title};
use crate::ask::{Ask, Problem, encoded};
use crate::page::{Frame, Shown, ok};
use crate::show::{Badge, Tone, instant, moment, number, pretty, step_words};

/// Number of items on a page.
const LIMIT: u32 = 100;

/// Number of items in a state, and the address of their list.
struct Count {
    state: String,
    count: String,
    badge: Badge,
    chosen: bool,
}

#[derive(Template)]
#[template(path = "step.html")]
struct StepPage {
    frame: Frame,
    view: RunView,
    line: StepLine,
    output: Option<String>,
    error: Option<(String, String)>,
    next_at: Option<(String, String)>,
    counts: Vec<Count>,
    items: Vec<StepLine>,
    next: Option<String>,
    state: Option<String>,
}

pub(crate) async fn show(
    ask: Ask,
    axum::extract::Path((id, step)): axum::extract::Path<(String, String)>,
) -> Shown {
    match page(&ask, &encoded(&id), &step).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

async fn page(ask: &Ask, id: &str, step: &str) -> Result<StepPage, Problem> {
    let who = ask.who().await?;
    let view: RunView = ask.get(&format!("/v1/runs/{id}")).await?;
    let path = format!("/v1/runs/{id}/steps/{}", encoded(step));
    let found: StepView = ask.get(&path).await?;
    let state = ask.param("state").map(str::to_owned);
    let is_map = &*found.kind == "map";
    let (mut items, mut next) = (Vec::new(), None);
    if is_map {
        let mut query = format!("?limit={LIMIT}");
        for name in ["state", "after", "key"] {
            if let Some(value) = ask.param(name) {
                query += &format!("&{name}={}", encoded(value));
            }
        }
        let page: Page<StepView> = ask.get(&format!("{path}/items{query}")).await?;
        items = page.items.into_iter().map(|item| StepLine::of(&view, item)).collect();
        next = page.next.map(|next| {
            let state = state.as_ref().map(|state| format!("&state={}", encoded(state)));
            let state = state.unwrap_or_default();
            format!("/console/runs/{id}/steps/{}?after={}{state}", encoded(step), encoded(&next))
        });
    }
    let count = |(word, count): (&String, &u32)| Count {
        state: word.clone(),
        count: number((*count).into()),
        badge: match step_words(word, None) {
            badge if *count > 0 => badge,
            badge => Badge { tone: Tone::Idle, ..badge },
        },
        chosen: state.as_deref() == Some(word),
    };
    let error = found.error.as_ref().map(|error| (error.code.clone(), error.message.clone()));
    Ok(StepPage {
        frame: Frame::new(ask, who, "runs", format!("{step} of {}", title(&view))),
        output: found.output.as_ref().map(|output| pretty(output.text())),
        error,
        next_at: found.next_at.map(|at| (instant(at), moment(at))),
        counts: found.items.iter().map(count).collect(),
        items,
        next,
        line: StepLine::of(&view, found),
        state,
        view,
    })
}

//! The rehearsal of a version of a workflow: a table of failure points, and the traces of defects.

use askama::Template;
use axum::extract::Path;
use backstitch_saga::protocol::{FailurePoint, OpenTrace, RehearsalView};

use crate::ask::{Ask, Problem, encoded};
use crate::page::{Frame, Shown, ok};
use crate::show::{number, spoken};

/// A failure point in the table.
struct Point {
    class: &'static str,
    /// Numbers of its traces that closed, wait for a person, broke a rule.
    text: String,
    about: String,
}

struct Line {
    step: String,
    points: Vec<Option<Point>>,
}

#[derive(Template)]
#[template(path = "rehearsal.html")]
struct RehearsalPage {
    frame: Frame,
    name: String,
    view: RehearsalView,
    traces: String,
    outcomes: Vec<(String, String)>,
    faults: Vec<(String, String)>,
    lines: Vec<Line>,
    defects: Vec<OpenTrace>,
}

pub(crate) async fn show(ask: Ask, Path((name, version)): Path<(String, u32)>) -> Shown {
    match page(&ask, &name, version).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

fn point(step: &str, one: &FailurePoint) -> Point {
    let (class, text) = match (one.traces, one.open, one.parked) {
        (0, ..) => ("idle", "–".to_owned()),
        (_, 0, 0) => ("good", "✓".to_owned()),
        (_, 0, parked) => ("calm", format!("{} wait", number(parked))),
        (_, open, _) => ("bad", format!("{} open", number(open))),
    };
    let about = format!(
        "{step} {}: {} traces, {} wait for a person, {} do not close",
        one.about,
        number(one.traces),
        number(one.parked),
        number(one.open)
    );
    Point { class, text, about }
}

async fn page(ask: &Ask, name: &str, version: u32) -> Result<RehearsalPage, Problem> {
    let who = ask.who().await?;
    let path = format!("/v1/workflows/{}/versions/{version}/rehearsal", encoded(name));
    let view: RehearsalView = ask.get(&path).await?;
    let mut faults: Vec<(String, String)> = Vec::new();
    for one in view.steps.iter().flat_map(|step| &step.faults) {
        if !faults.iter().any(|(fault, _)| *fault == one.fault) {
            faults.push((one.fault.clone(), one.about.clone()));
        }
    }
    let lines = view.steps.iter().map(|step| Line {
        step: step.step.clone(),
        points: faults
            .iter()
            .map(|(fault, _)| {
                let found = step.faults.iter().find(|one| one.fault == *fault);
                found.map(|one| point(&step.step, one))
            })
            .collect(),
    });
    Ok(RehearsalPage {
        frame: Frame::new(ask, who, "workflows", format!("Rehearsal of {name} v{version}")),
        name: name.to_owned(),
        traces: number(view.traces),
        outcomes: view
            .outcomes
            .iter()
            .map(|(word, count)| (spoken(word), number(*count)))
            .collect(),
        lines: lines.collect(),
        faults: faults.into_iter().map(|(fault, about)| (spoken(&fault), about)).collect(),
        defects: view.defects.clone(),
        view,
    })
}

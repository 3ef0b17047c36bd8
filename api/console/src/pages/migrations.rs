//! Migrations of runs in flight to another version of their workflow: obstacles, progress, and the result for each.

use axum::extract::Path;
use backstitch_saga::protocol::{
    CheckedRun, MigratedRun, MigrationCheck, MigrationView, OnObstacle, Page, WorkflowView,
};
use serde_json::{Value, json};

use super::filter::Filter;
use crate::ask::{Ask, Problem, encoded};
use crate::form::{Deed, Field};
use crate::page::{Frame, Shown};
use crate::show::{Badge, Tone, number, pretty, spoken};
use crate::table::{Cell, Part, Row, SearchField, TablePage};

/// Number of runs that are checked before anything moves.
const CHECKED: u32 = 1_000;

fn badge(state: &str) -> Badge {
    let tone = match state {
        "done" => Tone::Good,
        "stopped" => Tone::Bad,
        _ => Tone::Busy,
    };
    Badge::new(tone, state)
}

fn place(name: &str) -> String {
    format!("/console/workflows/{}/migrations", encoded(name))
}

/// Describes the results for the runs.
fn counts(one: &MigrationView) -> String {
    let counts = one.runs.iter().filter(|(_, count)| **count > 0);
    let words: Vec<String> =
        counts.map(|(word, count)| format!("{} {}", number(*count), spoken(word))).collect();
    words.join(", ")
}

pub(crate) async fn list(ask: Ask, Path(name): Path<String>) -> Shown {
    ask.show(list_page(&ask, &name).await).await
}

async fn list_page(ask: &Ask, name: &str) -> Result<TablePage, Problem> {
    let who = ask.who().await?;
    let path = format!("/v1/workflows/{}", encoded(name));
    let versions: Page<WorkflowView> = ask.get(&format!("{path}?limit=200")).await?;
    let versions: Vec<String> = versions.items.iter().map(|one| one.version.to_string()).collect();
    let filter = Filter::of(ask, &["from", "to", "mapping"]);
    let listed =
        ask.list::<MigrationView>(&format!("{path}/migrations"), 50, &filter.only_after()).await?;
    let row = |one: MigrationView| -> Row {
        vec![
            Cell::link(format!("{} → {}", one.from, one.to), format!("{}/{}", place(name), one.id))
                .with(badge(&one.state)),
            Cell::number(one.total).below(counts(&one)),
            Cell::text(one.reason).below(format!("by {}", one.actor)),
            Cell::at(one.created_at),
        ]
        .into()
    };
    let frame = Frame::new(ask, who, "workflows", format!("Migrations of {name}"));
    let may_act = frame.may_act();
    let mut page = TablePage::new(frame, format!("Migrations of {name}"))
        .below("Workflows", "/console/workflows");
    if let Some(newest) = versions.last() {
        page = page.below(name, format!("/console/workflows/{}/{newest}", encoded(name)));
    }
    page.parts.push(check(ask, &path, &filter, may_act).await?);
    page.parts.push(Part {
        title: "Migrations",
        heads: vec!["Versions", "Runs", "Why", "Begun"],
        rows: listed.items.into_iter().map(row).collect(),
        next: listed.next,
        empty: "No run of it was moved to another version.",
        ..Part::default()
    });
    Ok(page)
}

/// Returns the obstacles of runs, and the form that moves them.
async fn check(ask: &Ask, path: &str, filter: &Filter, may_act: bool) -> Result<Part, Problem> {
    let mut part = Part {
        title: "Move runs in flight",
        about: "What would be in the way is looked for first; nothing is written. The mapping says how steps become others: {\"steps\": {\"old\": \"new\"}}.",
        search: vec![
            SearchField::new(filter, "from", "From version"),
            SearchField::new(filter, "to", "To version"),
            SearchField::new(filter, "mapping", "Mapping (JSON)"),
        ],
        look: "Look",
        look_at_all: "Neither",
        heads: vec!["Run", "What is in its way"],
        empty: "Name two versions to see what would be in the way of their runs.",
        ..Part::default()
    };
    let number_of = |name: &str| filter.value(name).parse::<u32>().ok();
    let (Some(from), Some(to)) = (number_of("from"), number_of("to")) else { return Ok(part) };
    let mapping = match filter.value("mapping") {
        "" => json!({}),
        text => serde_json::from_str(text).map_err(|error| {
            let detail = format!("The mapping is not JSON: {error}.");
            Problem::new(422, "invalid_json", "The mapping was not read", &detail)
        })?,
    };
    if !may_act {
        part.empty = "Only who may act on runs checks and moves them.";
        return Ok(part);
    }
    let asked =
        json!({ "from": from, "to": to, "mapping": mapping, "dry_run": true, "limit": CHECKED });
    let found: MigrationCheck = ask.post(&format!("{path}/migrations"), asked.to_string()).await?;
    part.empty = if found.next.is_some() {
        "Nothing is in the way of the first thousand runs."
    } else if found.checked == 0 {
        "No run is on that version."
    } else {
        "Nothing is in the way of any of them."
    };
    part.found = match found.checked {
        0 => String::new(),
        checked if found.next.is_some() => {
            format!("Of the first {} runs {} can be moved.", number(checked), number(found.clean))
        }
        checked => format!("Of {} runs {} can be moved.", number(checked), number(found.clean)),
    };
    part.rows = found.samples.iter().map(in_the_way).collect();
    part.deeds.push(move_runs(ask, path, (from, to), &mapping));
    Ok(part)
}

/// Returns a run that cannot be moved, and why.
fn in_the_way(run: &CheckedRun) -> Row {
    let obstacles = run.obstacles.iter().map(|one| match &one.step {
        Some(step) => format!("{step}: {}", one.message),
        None => one.message.clone(),
    });
    let obstacles: Vec<String> = obstacles.collect();
    vec![
        Cell::link(run.run.to_string(), format!("/console/runs/{}", run.run)),
        Cell::text(obstacles.join("; ")),
    ]
    .into()
}

/// Returns the form that moves runs as they were checked.
fn move_runs(ask: &Ask, path: &str, (from, to): (u32, u32), mapping: &Value) -> Deed {
    let ways = [OnObstacle::Stop.as_str(), OnObstacle::Leave.as_str()];
    let mut deed = Deed::new("migrate", "Move the runs", format!("{path}/migrations"))
        .about("Each run goes on with the steps of the new version. Those that cannot be moved stay, or stop all.")
        .fixed("f.n.from", from.to_string())
        .fixed("f.n.to", to.to_string())
        .fixed("f.j.mapping", mapping.to_string())
        .field(Field::text("on_obstacle", "If some cannot be moved").of(&ways).value("stop"));
    deed.then = ask.place.split('?').next().map(|here| format!("{here}/{{id}}"));
    deed
}

pub(crate) async fn show(ask: Ask, Path((name, id)): Path<(String, String)>) -> Shown {
    ask.show(page(&ask, &name, &encoded(&id)).await).await
}

async fn page(ask: &Ask, name: &str, id: &str) -> Result<TablePage, Problem> {
    let who = ask.who().await?;
    let path = format!("/v1/workflows/{}/migrations/{id}", encoded(name));
    let (one, mark): (MigrationView, u64) = ask.get_live(&path).await?;
    let filter = Filter::of(ask, &["result"]);
    let runs = ask.list::<MigratedRun>(&format!("{path}/runs"), 100, &filter).await?;
    let frame = Frame::new(ask, who, "workflows", "Migration");
    let mut page = TablePage::new(frame, format!("{name}: {} → {}", one.from, one.to))
        .below("Workflows", "/console/workflows")
        .below(format!("Migrations of {name}"), place(name));
    page.badge = Some(badge(&one.state));
    page.sentence = one.reason.clone();
    page.warning = one.stopped_because.clone().or(one.damaged.clone());
    page.fact("Runs", Cell::number(one.total));
    for (word, count) in &one.runs {
        page.fact(spoken(word), Cell::number(*count));
    }
    page.fact("Begun", Cell::at(one.created_at));
    page.fact("By", Cell::text(one.actor.clone()));
    if let Some(at) = one.ended_at {
        page.fact("Ended", Cell::at(at));
    } else {
        page.live = Some(mark);
        let stop = Deed::new("stop", "Stop", format!("{path}/stop"))
            .about("Moves no more runs. Those that were moved stay on the new version.");
        page.deeds.push(stop);
    }
    let row = |one: MigratedRun| -> Row {
        let tone = match one.result.as_str() {
            "moved" => Tone::Good,
            "left" | "refused" => Tone::Bad,
            _ => Tone::Idle,
        };
        vec![
            Cell::link(one.run.to_string(), format!("/console/runs/{}", one.run)),
            Cell::badge(Badge::new(tone, &one.result)),
            Cell::text(one.message.unwrap_or_default()),
        ]
        .into()
    };
    page.parts.push(Part {
        title: "Runs",
        search: vec![SearchField::new(&filter, "result", "Result").of(MigratedRun::RESULTS)],
        heads: vec!["Run", "Result", "Why"],
        rows: runs.items.into_iter().map(row).collect(),
        next: runs.next,
        empty: "No run is like that.",
        ..Part::default()
    });
    let mapping = serde_json::to_string(&one.mapping).unwrap_or_default();
    page.parts.push(Part { title: "Mapping", document: Some(pretty(&mapping)), ..Part::default() });
    Ok(page)
}

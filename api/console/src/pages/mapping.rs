//! Documents that cannot be mapped, with the reasons, and documents that are processed again.

use axum::extract::Path;
use backstitch_saga::protocol::{MappingProblem, MappingProblems, ReprocessState, ReprocessView};

use super::filter::Filter;
use super::sources::TABS;
use super::work::{self, Work};
use crate::ask::{Ask, Problem, encoded};
use crate::form::{Deed, Field};
use crate::page::{Frame, Shown};
use crate::show::{Badge, Tone, cut, pretty};
use crate::table::{Cell, Part, Row, SearchField, TablePage, address};

/// Number of characters that are shown of a value that cannot be mapped.
const VALUE: usize = 80;

fn badge(state: ReprocessState) -> Badge {
    match state {
        ReprocessState::Running => Badge::new(Tone::Busy, "running"),
        ReprocessState::Done => Badge::new(Tone::Good, "done"),
        ReprocessState::Stopped => Badge::new(Tone::Idle, "stopped"),
    }
}

pub(crate) async fn list(ask: Ask) -> Shown {
    ask.show(list_page(&ask).await).await
}

/// Returns the form that processes documents again.
fn reprocess() -> Deed {
    let mut deed = Deed::new("reprocess", "Process documents again", "/v1/reprocessings".to_owned())
        .about("Holds documents to their source, contract and transform as they are now. Only what differs is written.")
        .field(Field::text("source", "Source").hint("Empty: all."))
        .field(Field::text("contract", "Contract").hint("Such as crm.contact@3. Empty: all."))
        .field(Field::text("verdict", "Verdict").of(&["accepted", "refused"]))
        .field(Field::text("mapping", "Mapping").of(&["mapped", "failed", "overtaken"]))
        .field(Field::text("code", "Code of the refusal"))
        .field(Field::text("from", "Received from").hint("2026-01-31T00:00:00Z"))
        .field(Field::text("to", "Received before").hint("2026-02-01T00:00:00Z"))
        .field(Field::tick("dry_run", "Only count what would change"));
    deed.then = Some("/console/reprocessings/{id}".to_owned());
    deed
}

async fn list_page(ask: &Ask) -> Result<TablePage, Problem> {
    let who = ask.who().await?;
    let filter = Filter::of(ask, &["source"]);
    let found: MappingProblems =
        ask.get(format!("/v1/mapping-problems?{}", filter.query()).trim_end_matches('?')).await?;
    let jobs = ask.list::<ReprocessView>("/v1/reprocessings", 20, &filter.only_after()).await?;
    let problem = |one: MappingProblem| -> Row {
        let value = one.value.map_or_else(String::new, |value| cut(value.text(), VALUE));
        vec![
            Cell::code(one.code).below(one.message),
            Cell::code(one.pointer).below(value),
            Cell::text(format!("{} → {}", one.contract, one.to)),
            Cell::number(one.documents),
            Cell::at(one.last_at),
            Cell::link("the last", address("intakes", &one.intake_id.to_string())),
        ]
        .into()
    };
    let mut page = TablePage::new(Frame::new(ask, who, "sources", "Mapping"), "Mapping");
    page.tabs = TABS;
    page.deeds.push(reprocess());
    page.warning =
        found.more.then(|| "More documents cannot be mapped than were looked at.".to_owned());
    page.parts.push(Part {
        title: "What cannot be mapped",
        search: vec![SearchField::new(&filter, "source", "Source")],
        heads: vec!["Why", "Where", "Mapping", "Documents", "Last", "Document"],
        rows: found.items.into_iter().map(problem).collect(),
        empty: "Every document that came in was mapped, or needs not be.",
        ..Part::default()
    });
    let job = |one: ReprocessView| -> Row {
        vec![
            Cell::link("documents", address("reprocessings", &one.id.to_string()))
                .with(badge(one.state)),
            Cell::number(one.changed),
            Cell::number(one.same),
            Cell::number(one.failed),
            Cell::number(one.refused),
            Cell::number(one.overtaken),
            Cell::at(one.created_at).below(format!("by {}", one.actor)),
        ]
        .into()
    };
    page.parts.push(Part {
        title: "Processed again",
        heads: vec!["What", "Changed", "Same", "Not mapped", "Refused", "Overtaken", "Begun"],
        rows: jobs.items.into_iter().map(job).collect(),
        next: jobs.next,
        empty: "Nobody has had many documents processed again.",
        ..Part::default()
    });
    Ok(page)
}

pub(crate) async fn show(ask: Ask, Path(id): Path<String>) -> Shown {
    ask.show(page(&ask, &encoded(&id)).await).await
}

async fn page(ask: &Ask, id: &str) -> Result<TablePage, Problem> {
    let path = format!("/v1/reprocessings/{id}");
    let read = work::read::<ReprocessView>(ask, &path, "sources", "Processed again").await?;
    let (one, mark, frame) = read;
    let page =
        TablePage::new(frame, "Documents processed again").below("Mapping", "/console/mapping");
    let stop = Deed::new("stop", "Stop", format!("{path}/stop"))
        .about("Processes no more documents. What was written stays.");
    let told = Work {
        badge: badge(one.state),
        moves: one.state == ReprocessState::Running,
        waits_for: one.waits_for,
        counts: &[
            ("Changed", one.changed),
            ("Same", one.same),
            ("Not mapped", one.failed),
            ("Refused", one.refused),
            ("Overtaken", one.overtaken),
        ],
        begun: ("Begun", one.created_at),
        by: Some(("By", one.actor)),
        ended_at: one.ended_at,
        stop: Some(stop),
    };
    let mut page = told.told_on(page, mark);
    page.parts.push(Part {
        title: "What was asked for",
        document: Some(pretty(one.asked.text())),
        ..Part::default()
    });
    Ok(page)
}

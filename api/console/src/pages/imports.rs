//! Files of sources, and the results for their rows.

use axum::extract::Path;
use backstitch_saga::protocol::{ImportState, ImportView, RefusedRow};

use super::filter::Filter;
use super::sources::TABS;
use super::work::{self, Work};
use crate::ask::{Ask, Problem, encoded};
use crate::form::Deed;
use crate::page::{Frame, Shown};
use crate::show::{Badge, Tone};
use crate::table::{Cell, Part, Row, SearchField, TablePage, address};

const PARAMETERS: [&str; 2] = ["source", "state"];

fn badge(state: ImportState) -> Badge {
    let tone = match state {
        ImportState::Receiving | ImportState::Running => Tone::Busy,
        ImportState::Done => Tone::Good,
        ImportState::Cancelled => Tone::Idle,
    };
    Badge::new(tone, state.as_str())
}

pub(crate) async fn list(ask: Ask) -> Shown {
    ask.show(list_page(&ask).await).await
}

async fn list_page(ask: &Ask) -> Result<TablePage, Problem> {
    let who = ask.who().await?;
    let filter = Filter::of(ask, &PARAMETERS);
    let imports = ask.list::<ImportView>("/v1/imports", 50, &filter).await?;
    let row = |one: ImportView| -> Row {
        vec![
            Cell::link(one.source, address("imports", &one.id.to_string())).with(badge(one.state)),
            Cell::number(one.rows),
            Cell::number(one.accepted),
            Cell::number(one.duplicates),
            Cell::number(one.refused),
            Cell::number(one.left),
            Cell::at(one.received_at).below(one.waits_for.unwrap_or_default()),
        ]
        .into()
    };
    let mut page = TablePage::new(Frame::new(ask, who, "sources", "Imports"), "Imports");
    page.tabs = TABS;
    page.parts.push(Part {
        about: "A file that a source sends is kept whole, and its rows are taken in one after the other.",
        search: vec![
            SearchField::new(&filter, "source", "Source"),
            SearchField::new(&filter, "state", "State").of(&ImportState::ALL.map(ImportState::as_str)),
        ],
        heads: vec!["Source", "Rows", "Accepted", "Duplicates", "Refused", "Left", "Received"],
        rows: imports.items.into_iter().map(row).collect(),
        next: imports.next,
        empty: "No source has sent a file like that. One is sent with the secret of its source:",
        command: "curl -T rows.ndjson -H 'Content-Type: application/x-ndjson' SERVER/v1/in/NAMESPACE/SOURCE/files",
        ..Part::default()
    });
    Ok(page)
}

pub(crate) async fn show(ask: Ask, Path(id): Path<String>) -> Shown {
    ask.show(page(&ask, &encoded(&id)).await).await
}

async fn page(ask: &Ask, id: &str) -> Result<TablePage, Problem> {
    let path = format!("/v1/imports/{id}");
    let (one, mark, frame) = work::read::<ImportView>(ask, &path, "sources", "Import").await?;
    let filter = Filter::of(ask, &[]);
    let refused = ask.list::<RefusedRow>(&format!("{path}/refused"), 100, &filter).await?;
    let page = TablePage::new(frame, format!("File of {}", one.source))
        .below("Imports", "/console/imports");
    let cancel = Deed::new("cancel", "Cancel", format!("{path}/cancel"))
        .about("Takes in no more rows. What was taken in stays.")
        .danger();
    let told = Work {
        badge: badge(one.state),
        moves: matches!(one.state, ImportState::Receiving | ImportState::Running),
        waits_for: one.waits_for,
        counts: &[
            ("Bytes", one.bytes),
            ("Rows", one.rows),
            ("Accepted", one.accepted),
            ("Duplicates", one.duplicates),
            ("Refused", one.refused),
            ("Left", one.left),
        ],
        begun: ("Received", one.received_at),
        by: one.peer.map(|peer| ("From", peer)),
        ended_at: one.ended_at,
        stop: Some(cancel),
    };
    let mut page = told.told_on(page, mark);
    page.fact("Form", Cell::text(one.content_type));
    let row = |one: RefusedRow| -> Row {
        let document = match one.intake_id {
            Some(id) => Cell::link("document", address("intakes", &id.to_string())),
            None => Cell::text("–"),
        };
        vec![Cell::number(one.row), Cell::code(one.code).below(one.message), document].into()
    };
    page.parts.push(Part {
        title: "Refused rows",
        heads: vec!["Row", "Why", "Kept as"],
        rows: refused.items.into_iter().map(row).collect(),
        next: refused.next,
        empty: "No row was refused.",
        ..Part::default()
    });
    Ok(page)
}

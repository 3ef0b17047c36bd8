//! Readers of the log by their cursors: the position of each, and its distance from the end.

use backstitch_saga::protocol::CursorView;

use super::filter::Filter;
use crate::ask::{Ask, Problem, encoded};
use crate::form::Deed;
use crate::page::{Frame, Shown};
use crate::table::{Cell, Part, Row, TablePage};

/// The pages about the log.
pub(crate) const TABS: &[(&str, &str)] =
    &[("Events", "/console/events"), ("Readers", "/console/readers")];

pub(crate) async fn show(ask: Ask) -> Shown {
    ask.show(page(&ask).await).await
}

async fn page(ask: &Ask) -> Result<TablePage, Problem> {
    let who = ask.who().await?;
    let filter = Filter::of(ask, &[]);
    let cursors = ask.list::<CursorView>("/v1/cursors", 100, &filter).await?;
    let row = |one: CursorView| {
        let path = format!("/v1/cursors/{}", encoded(&one.name));
        let forget = Deed::delete("delete", "Forget", path)
            .about("The reader begins anew, as it says itself, when it comes back.");
        Row {
            cells: vec![
                Cell::text(one.name),
                Cell::number(one.position),
                Cell::number(one.behind),
                Cell::at(one.changed_at).below(format!("by {}", one.changed_by)),
            ],
            deeds: vec![forget],
        }
    };
    let mut page = TablePage::new(Frame::new(ask, who, "events", "Readers"), "Readers of the log");
    page.tabs = TABS;
    page.parts.push(Part {
        about: "A reader keeps its place in the log as a cursor of a name, and moves it itself.",
        heads: vec!["Name", "Position", "Behind", "Moved"],
        rows: cursors.items.into_iter().map(row).collect(),
        next: cursors.next,
        empty: "No reader keeps its place here.",
        command: "backstitch cursor move billing --position 0",
        ..Part::default()
    });
    Ok(page)
}

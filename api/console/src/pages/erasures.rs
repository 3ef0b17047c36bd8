//! Erasures of the data about an entity: documents, events and runs.

use axum::extract::Path;
use backstitch_saga::protocol::{ErasureState, ErasureView};

use super::filter::Filter;
use super::work::{self, Work};
use crate::ask::{Ask, Problem, encoded};
use crate::form::{Deed, Field};
use crate::page::{Frame, Shown};
use crate::show::{Badge, Tone};
use crate::table::{Cell, Part, Row, TablePage, address};

const HIDDEN: &str = "Only an admin of the namespace sees and asks for erasures.";

fn badge(state: ErasureState) -> Badge {
    match state {
        ErasureState::Running => Badge::new(Tone::Busy, "running"),
        ErasureState::Done => Badge::new(Tone::Good, "done"),
    }
}

/// Returns the form that erases all data of an entity.
fn erase(label: &'static str, fields: Vec<Field>) -> Deed {
    let mut deed = Deed::new("erase", label, "/v1/erasures".to_owned())
        .about("Bytes of documents, data of events, identifiers, and the documents of runs of their stories are gone for ever. The reason stays, so it should name nobody.")
        .danger();
    deed.fields = fields;
    deed.fields
        .push(Field::tick("kill", "Kill runs that have not ended; otherwise it waits for them"));
    deed.then = Some("/console/erasures/{id}".to_owned());
    deed
}

pub(crate) async fn list(ask: Ask) -> Shown {
    ask.show(list_page(&ask).await).await
}

async fn list_page(ask: &Ask) -> Result<TablePage, Problem> {
    let who = ask.who().await?;
    let admin = who.is_admin();
    let mut page = TablePage::new(Frame::new(ask, who, "erasures", "Erasures"), "Erasures");
    if !admin {
        page.parts.push(Part { empty: HIDDEN, ..Part::default() });
        return Ok(page);
    }
    let filter = Filter::of(ask, &[]);
    let erasures = ask.list::<ErasureView>("/v1/erasures", 50, &filter).await?;
    let stream = Field::text("stream", "Stream").hint("Such as customer:42.").required();
    let hint = vec![
        Field::text("hint.kind", "Kind").hint("email, phone, or another.").required(),
        Field::text("hint.value", "Value").required(),
        Field::text("hint.region", "Country of a national phone number").hint("Such as DE."),
    ];
    page.deeds = vec![erase("Erase a stream", vec![stream]), erase("Erase by an identifier", hint)];
    let row = |one: ErasureView| -> Row {
        vec![
            Cell::link(one.reason, address("erasures", &one.id.to_string()))
                .with(badge(one.state))
                .below(one.waits_for.unwrap_or_default()),
            Cell::number(one.documents),
            Cell::number(one.events),
            Cell::number(one.runs),
            Cell::at(one.created_at).below(format!("by {}", one.actor)),
        ]
        .into()
    };
    page.parts.push(Part {
        heads: vec!["Why", "Documents", "Events", "Runs", "Asked for"],
        rows: erasures.items.into_iter().map(row).collect(),
        next: erasures.next,
        empty: "Nothing was erased. An erasure takes all of a stream, or all documents that had an identifier:",
        command: "backstitch erasure create --stream customer:42 --reason 'asked for by letter of May 5'",
        ..Part::default()
    });
    Ok(page)
}

pub(crate) async fn show(ask: Ask, Path(id): Path<String>) -> Shown {
    ask.show(page(&ask, &encoded(&id)).await).await
}

async fn page(ask: &Ask, id: &str) -> Result<TablePage, Problem> {
    let path = format!("/v1/erasures/{id}");
    let (one, mark, frame) = work::read::<ErasureView>(ask, &path, "erasures", "Erasure").await?;
    let mut page = TablePage::new(frame, "Erasure").below("Erasures", "/console/erasures");
    page.sentence = one.reason;
    let told = Work {
        badge: badge(one.state),
        moves: one.state == ErasureState::Running,
        waits_for: one.waits_for,
        counts: &[("Documents", one.documents), ("Events", one.events), ("Runs", one.runs)],
        begun: ("Asked for", one.created_at),
        by: Some(("By", one.actor)),
        ended_at: one.ended_at,
        stop: None,
    };
    Ok(told.told_on(page, mark))
}

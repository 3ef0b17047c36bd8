//! Under which ids entities are known elsewhere, ids that two claim, and identifiers that documents had.

use backstitch_saga::protocol::{ConflictState, HintView, LinkConflictView, LinkView, Page};

use super::filter::Filter;
use super::sources::TABS;
use crate::ask::{Ask, Problem, encoded};
use crate::form::{Deed, Field};
use crate::page::{Frame, Shown};
use crate::show::{Badge, Tone, word};
use crate::table::{Cell, Part, Row, SearchField, TablePage, address};

fn stream(stream: &str) -> Cell {
    Cell::link(stream, format!("/console/events?stream={}", encoded(stream)))
}

fn path_of(system: &str, external_id: &str) -> String {
    format!("/v1/links/{}/{}", encoded(system), encoded(external_id))
}

pub(crate) async fn show(ask: Ask) -> Shown {
    ask.show(page(&ask).await).await
}

async fn page(ask: &Ask) -> Result<TablePage, Problem> {
    let who = ask.who().await?;
    let filter = Filter::of(ask, &["stream", "system", "id", "kind", "value", "region"]);
    let mut page = TablePage::new(Frame::new(ask, who, "sources", "Links"), "Links");
    page.tabs = TABS;
    let link = Deed::new("put-link", "Link an id", "/v1/links/{system}/{external_id}".to_owned())
        .about("Says under which id an entity is known in another system.")
        .method("PUT")
        .field(Field::path("system", "System"))
        .field(Field::path("external_id", "Id there"))
        .field(
            Field::text("stream", "Stream of the entity").hint("Such as customer:42.").required(),
        );
    page.deeds = vec![link];
    page.parts =
        vec![links(ask, &filter).await?, conflicts(ask).await?, hints(ask, &filter).await?];
    Ok(page)
}

fn link(one: LinkView) -> Row {
    let path = path_of(&one.system, &one.external_id);
    let give = Deed::new("put-link", "Give to another", path.clone())
        .about("Says to which entity the id belongs.")
        .field(Field::text("stream", "Stream of the entity").required())
        .method("PUT");
    let cut = Deed::delete("delete-link", "Cut", path).about("The id belongs to nobody then.");
    Row {
        cells: vec![
            Cell::text(one.system),
            Cell::code(one.external_id),
            stream(&one.stream),
            Cell::at(one.linked_at).below(format!("by {}", one.linked_by)),
        ],
        deeds: vec![give, cut],
    }
}

async fn links(ask: &Ask, filter: &Filter) -> Result<Part, Problem> {
    let (system, id) = (filter.value("system"), filter.value("id"));
    let (items, next) = if id.is_empty() || system.is_empty() {
        let asked = filter.kept(&["stream", "system"]);
        // The cursor of the list is that of the identifiers, if these are searched.
        let asked = if filter.value("value").is_empty() { asked } else { asked.first() };
        let listed = ask.list::<LinkView>("/v1/links", 50, &asked).await?;
        (listed.items, listed.next)
    } else {
        match ask.get::<LinkView>(&path_of(system, id)).await {
            Ok(link) => (vec![link], None),
            Err(problem) if problem.status == 404 => (Vec::new(), None),
            Err(problem) => return Err(problem),
        }
    };
    Ok(Part {
        about: "An entity of the log, with the id that it has in another system. Nothing is merged by it.",
        search: vec![
            SearchField::new(filter, "system", "System"),
            SearchField::new(filter, "id", "Id there"),
            SearchField::new(filter, "stream", "Stream"),
        ],
        heads: vec!["System", "Id there", "Entity", "Linked"],
        rows: items.into_iter().map(link).collect(),
        next,
        empty: "No entity has such an id elsewhere. Whoever makes one there says it:",
        command: "backstitch link put erp 4711 --stream customer:42 --reason 'made by the ERP'",
        ..Part::default()
    })
}

async fn conflicts(ask: &Ask) -> Result<Part, Problem> {
    let found: Page<LinkConflictView> = ask.get("/v1/link-conflicts?limit=50&state=open").await?;
    let row = |one: LinkConflictView| {
        let keep = Field::text("keep", "It belongs to").of(&["holder", "claimant"]).required();
        let resolve =
            Deed::new("resolve", "Resolve", format!("/v1/link-conflicts/{}/resolve", one.id))
                .about("Says to whom the id belongs.")
                .field(keep);
        let badge = match one.state {
            ConflictState::Open => Badge::new(Tone::Bad, "open"),
            ConflictState::Resolved => Badge::new(Tone::Good, "resolved"),
        };
        Row {
            cells: vec![
                Cell::text(one.system).with(badge),
                Cell::code(one.external_id),
                stream(&one.holder),
                stream(&one.stream),
                Cell::at(one.claimed_at).below(format!("by {}", one.claimed_by)),
            ],
            deeds: vec![resolve],
        }
    };
    Ok(Part {
        title: "Ids that two claim",
        heads: vec!["System", "Id there", "Holder", "Claimant", "Claimed"],
        rows: found.items.into_iter().map(row).collect(),
        empty: "No id is claimed by two.",
        ..Part::default()
    })
}

async fn hints(ask: &Ask, filter: &Filter) -> Result<Part, Problem> {
    let mut part = Part {
        title: "Identifiers of documents",
        about: "Raw identifiers that documents of sources had, by kind and value.",
        search: vec![
            SearchField::new(filter, "kind", "Kind"),
            SearchField::new(filter, "value", "Value"),
            SearchField::new(filter, "region", "Country"),
        ],
        heads: vec!["Identifier", "Where", "Document", "Entity", "Received"],
        empty: "Name a kind and a value, such as email and ann@example.com, to see which documents had it.",
        ..Part::default()
    };
    if filter.value("kind").is_empty() || filter.value("value").is_empty() {
        return Ok(part);
    }
    let asked = filter.kept(&["kind", "value", "region"]);
    let found = ask.list::<HintView>("/v1/hints", 50, &asked).await?;
    let row = |one: HintView| -> Row {
        let normal = one.value_norm.unwrap_or_else(|| {
            if one.junk { "identifies nobody".to_owned() } else { String::new() }
        });
        let entity = one.stream.as_deref().map_or_else(|| Cell::text("–"), stream);
        vec![
            Cell::code(one.value_raw).below(normal),
            Cell::code(one.at),
            Cell::link(one.source, address("intakes", &one.intake_id.to_string()))
                .below(word(&one.verdict)),
            entity,
            Cell::at(one.received_at),
        ]
        .into()
    };
    part.rows = found.items.into_iter().map(row).collect();
    part.empty = "No document had it.";
    part.next = found.next;
    Ok(part)
}

//! Quotas of the namespace with their use, and the roles of the database that act for it.

use backstitch_saga::protocol::{DatabaseRoleView, Page, QuotaSource, QuotaView, QuotasView};

use crate::ask::{Ask, Problem, encoded};
use crate::form::{Deed, Field};
use crate::page::{Frame, Shown};
use crate::show::{Badge, Tone, number, spoken};
use crate::table::{Cell, Part, Row, TablePage};

pub(crate) async fn show(ask: Ask) -> Shown {
    ask.show(page(&ask).await).await
}

/// Returns the badge of a quota, by the distance of its use from the limit.
fn badge(one: &QuotaView) -> Option<Badge> {
    let (limit, used) = (u64::from(one.limit?), u64::from(one.used?));
    match used * 10 {
        _ if used >= limit => Some(Badge::new(Tone::Bad, "used up")),
        ten if ten >= limit * 9 => Some(Badge::new(Tone::Doubt, "nearly used up")),
        _ => None,
    }
}

async fn page(ask: &Ask) -> Result<TablePage, Problem> {
    let who = ask.who().await?;
    let admin = who.is_admin();
    let view: QuotasView = ask.get("/v1/quotas").await?;
    let mut page = TablePage::new(Frame::new(ask, who, "limits", "Limits"), "Limits");
    if let (Some(at), Some(by)) = (view.changed_at, &view.changed_by) {
        page.fact("Set by an admin", Cell::at(at).below(format!("by {by}")));
    }
    if admin {
        page.deeds = deeds(&view);
    }
    let quota = |one: &QuotaView| -> Row {
        let limit =
            one.limit.map_or_else(|| Cell::text("none"), |limit| Cell::number(limit.into()));
        let name = Cell::text(spoken(&one.quota));
        vec![
            match badge(one) {
                Some(badge) => name.with(badge),
                None => name,
            },
            Cell { is_number: true, ..limit },
            Cell {
                is_number: true,
                ..Cell::text(one.used.map_or_else(|| "–".to_owned(), |used| number(used.into())))
            },
            Cell::text(match one.set_by {
                Some(QuotaSource::Namespace) => "an admin of the namespace",
                Some(QuotaSource::Server) => "the server",
                None => "nobody",
            }),
        ]
        .into()
    };
    page.parts.push(Part {
        title: "Quotas",
        about: "What is used was counted within the last seconds; rates are not counted.",
        heads: vec!["Quota", "Limit", "Used", "Set by"],
        rows: view.quotas.iter().map(quota).collect(),
        empty: "Nothing is limited.",
        ..Part::default()
    });
    if admin {
        page.parts.push(roles(ask).await?);
    }
    Ok(page)
}

fn deeds(view: &QuotasView) -> Vec<Deed> {
    let own = view.quotas.iter().filter(|one| one.set_by == Some(QuotaSource::Namespace));
    let own: serde_json::Map<String, serde_json::Value> =
        own.map(|one| (one.quota.clone(), one.limit.into())).collect();
    let set = Deed::put("set-quotas", "Set quotas", "/v1/quotas".to_owned(), &own)
        .about("Limits of the namespace, each below that of the server. What is left out has the limit of the server.");
    let lift = Deed::delete("lift-quotas", "Lift all", "/v1/quotas".to_owned())
        .about("The limits of the server hold.");
    vec![set, lift]
}

async fn roles(ask: &Ask) -> Result<Part, Problem> {
    let roles: Page<DatabaseRoleView> = ask.get("/v1/database-roles").await?;
    let row = |one: DatabaseRoleView| {
        let path = format!("/v1/database-roles/{}", encoded(&one.role));
        let revoke = Deed::delete("revoke", "Revoke", path)
            .about("Transactions of the role ask for nothing of the namespace any more.");
        Row {
            cells: vec![
                Cell::code(one.role),
                Cell::at(one.granted_at).below(format!("by {}", one.granted_by)),
            ],
            deeds: vec![revoke],
        }
    };
    Ok(Part {
        title: "Roles of the database",
        about: "Whose transactions may start runs of the namespace and complete its tasks.",
        heads: vec!["Role", "Granted"],
        deeds: vec![
            Deed::new("grant", "Grant to a role", "/v1/database-roles/{role}".to_owned())
                .about("Transactions of the role, and of who is a member of it, act for the namespace.")
                .method("PUT")
                .without_reason()
                .field(Field::path("role", "Role").hint("Its name in PostgreSQL.")),
        ],
        rows: roles.items.into_iter().map(row).collect(),
        empty: "No role of the database acts for the namespace.",
        command: "backstitch database-role grant shop",
        ..Part::default()
    })
}

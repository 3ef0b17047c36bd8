//! The credentials of the namespace, for its admins.

use askama::Template;
use backstitch_saga::protocol::{CredentialState, CredentialView};

use super::filter::Filter;
use crate::ask::{Ask, Problem, encoded};
use crate::form::{Deed, Field};
use crate::page::{Frame, Shown, ok};
use crate::show::{Badge, Tone, instant, moment, word};
use crate::table::Listed;

struct Line {
    view: CredentialView,
    badge: Badge,
    role: String,
    /// Its scope.
    reach: String,
    used: Option<(String, String)>,
    deeds: Vec<Deed>,
}

impl Line {
    fn of(view: CredentialView) -> Line {
        let path = format!("/v1/credentials/{}", encoded(&view.name));
        let mut rotate = Deed::new("rotate", "Rotate", format!("{path}/rotate"))
            .about("It gets another secret, which is shown once.")
            .without_reason()
            .field(Field::text("overlap", "The old one is good for").value("1h").required())
            .field(Field::text("expires_in", "Good for").hint("Such as 90d. Empty: as before."));
        // A secret is kept nowhere, so that it cannot be answered twice.
        rotate.key.clear();
        let revoke = Deed::delete("revoke", "Revoke", path)
            .about("It is refused everywhere from now on, and its name is given to nobody.");
        let named = |what: &str, patterns: &Option<Vec<String>>| {
            patterns.as_ref().map(|patterns| format!("{what} {}", patterns.join(", ")))
        };
        let reach: Vec<String> = named("queues", &view.queues)
            .into_iter()
            .chain(named("workflows", &view.workflows))
            .collect();
        let active = view.state == CredentialState::Active;
        Line {
            badge: match active {
                true => Badge::new(Tone::Good, "active"),
                false => Badge::new(Tone::Idle, &word(&view.state)),
            },
            role: word(&view.role),
            reach: if reach.is_empty() { "everything".to_owned() } else { reach.join("; ") },
            used: view.used_at.map(|at| (instant(at), moment(at))),
            deeds: if active { vec![rotate, revoke] } else { Vec::new() },
            view,
        }
    }
}

#[derive(Template)]
#[template(path = "credentials.html")]
struct CredentialsPage {
    frame: Frame,
    lines: Vec<Line>,
    next: Option<String>,
    /// Only an admin sees them.
    hidden: bool,
    deeds: Vec<Deed>,
}

/// Returns the form for a new credential.
fn new() -> Deed {
    let patterns = "JSON, such as [\"mail\", \"erp-*\"]. Empty: all.";
    Deed::new("create-credential", "New credential", "/v1/credentials/{name}".to_owned())
        .about("Its secret is shown once. People sign in with it; programs send it.")
        .method("PUT")
        .without_reason()
        .field(
            Field::path("name", "Name")
                .hint("As it stands in histories. It is never given to another."),
        )
        .field(
            Field::text("role", "Role")
                .of(&["viewer", "starter", "worker", "operator", "admin"])
                .required(),
        )
        .field(Field::text("expires_in", "Good for").hint("Such as 90d. Empty: for ever."))
        .field(Field::json("queues", "Queues that it reaches").hint(patterns))
        .field(Field::json("workflows", "Workflows that it reaches").hint(patterns))
}

pub(crate) async fn show(ask: Ask) -> Shown {
    match page(&ask).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

async fn page(ask: &Ask) -> Result<CredentialsPage, Problem> {
    let who = ask.who().await?;
    let listed = ask.list::<CredentialView>("/v1/credentials", 100, &Filter::of(ask, &[])).await;
    let (page, hidden) = match listed {
        Ok(page) => (page, false),
        Err(problem) if problem.status == 403 => (Listed { items: Vec::new(), next: None }, true),
        Err(problem) => return Err(problem),
    };
    Ok(CredentialsPage {
        frame: Frame::new(ask, who, "credentials", "Credentials"),
        lines: page.items.into_iter().map(Line::of).collect(),
        next: page.next,
        deeds: if hidden { Vec::new() } else { vec![new()] },
        hidden,
    })
}

//! The credentials of the namespace, for its admins.

use askama::Template;
use backstitch_saga::protocol::{CredentialState, CredentialView};

use super::filter::Filter;
use crate::ask::{Ask, Problem, encoded};
use crate::form::Deed;
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
        let mut revoke =
            Deed::new("revoke", "Revoke", format!("/v1/credentials/{}", encoded(&view.name)))
                .about("It is refused everywhere from now on, and its name is given to nobody.")
                .without_reason()
                .danger();
        revoke.method = "DELETE";
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
            deeds: if active { vec![revoke] } else { Vec::new() },
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
        hidden,
    })
}

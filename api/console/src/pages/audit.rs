//! The audit: acts with actor and reason.

use askama::Template;
use backstitch_saga::protocol::{ActFilter, ActLine, Page};

use super::filter::Filter;
use crate::ask::{Ask, Problem};
use crate::page::{Frame, Shown, ok};
use crate::show::{instant, moment};

const PARAMETERS: [&str; 6] = ["actor", "verb", "workflow", "run", "from", "to"];

struct Line {
    act: ActLine,
    at: String,
    moment: String,
    /// The object of the act, if it is no run.
    thing: String,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    frame: Frame,
    lines: Vec<Line>,
    filter: Filter,
    verbs: &'static [&'static str],
    next: Option<String>,
}

pub(crate) async fn show(ask: Ask) -> Shown {
    match page(&ask).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

async fn page(ask: &Ask) -> Result<AuditPage, Problem> {
    let who = ask.who().await?;
    let filter = Filter::of(ask, &PARAMETERS);
    let page: Page<ActLine> = ask.get(&format!("/v1/acts?limit=100&{}", filter.asked(&[]))).await?;
    let line = |act: ActLine| Line {
        at: instant(act.at),
        moment: moment(act.at),
        thing: [
            ("queue", &act.queue),
            ("schedule", &act.schedule),
            ("job", &act.job),
            ("subject", &act.subject),
            ("credential", &act.credential),
            ("database role", &act.database_role),
            ("contract", &act.contract),
            ("subscription", &act.subscription),
            ("source", &act.source),
        ]
        .iter()
        .filter_map(|(word, name)| name.as_ref().map(|name| format!("{word} {name}")))
        .collect::<Vec<_>>()
        .join(", "),
        act,
    };
    Ok(AuditPage {
        frame: Frame::new(ask, who, "audit", "Audit"),
        next: filter.next("/console/audit", page.next),
        lines: page.items.into_iter().map(line).collect(),
        filter,
        verbs: ActFilter::VERBS,
    })
}

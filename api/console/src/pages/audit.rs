//! Who did what, and why.

use askama::Template;
use backstitch_saga::protocol::{ActFilter, ActLine, Page};

use super::runs::query;
use crate::ask::{Ask, Problem};
use crate::page::{Frame, Shown, ok};
use crate::show::{instant, moment};

const PARAMETERS: [&str; 6] = ["actor", "verb", "workflow", "run", "from", "to"];

struct Line {
    act: ActLine,
    at: String,
    moment: String,
    /// What it was about, beside a run.
    thing: String,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    frame: Frame,
    lines: Vec<Line>,
    filter: Vec<(String, String)>,
    verbs: &'static [&'static str],
    next: Option<String>,
}

impl AuditPage {
    fn value(&self, name: &str) -> &str {
        let found = self.filter.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value.as_str())
    }
}

pub(crate) async fn show(ask: Ask) -> Shown {
    match page(&ask).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

async fn page(ask: &Ask) -> Result<AuditPage, Problem> {
    let who = ask.who().await?;
    let known = |(name, value): &&(String, String)| {
        PARAMETERS.contains(&name.as_str()) && !value.is_empty()
    };
    let filter: Vec<(String, String)> = ask.query.iter().filter(known).cloned().collect();
    let mut asked = filter.clone();
    if let Some(after) = ask.param("after") {
        asked.push(("after".to_owned(), after.to_owned()));
    }
    let page: Page<ActLine> = ask.get(&format!("/v1/acts?limit=100&{}", query(&asked))).await?;
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
        ]
        .iter()
        .filter_map(|(word, name)| name.as_ref().map(|name| format!("{word} {name}")))
        .collect::<Vec<_>>()
        .join(", "),
        act,
    };
    let next = page.next.map(|next| {
        let mut pairs = filter.clone();
        pairs.push(("after".to_owned(), next));
        format!("/console/audit?{}", query(&pairs))
    });
    Ok(AuditPage {
        frame: Frame::new(ask, who, "audit", "Audit"),
        lines: page.items.into_iter().map(line).collect(),
        filter,
        verbs: ActFilter::VERBS,
        next,
    })
}

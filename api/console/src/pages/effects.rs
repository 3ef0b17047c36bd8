//! Open effects of all runs: effects in other systems that remain and should not, or that may
//! remain.

use askama::Template;
use backstitch_saga::protocol::{EffectCounts, EffectLine, Page, SystemCount};

use super::filter::Filter;
use crate::ask::{Ask, Problem, encoded};
use crate::page::{Frame, Shown, ok};
use crate::show::{Badge, instant, moment, number, run_badge};

const PARAMETERS: [&str; 4] = ["system", "status", "workflow", "older_than"];

/// A system with open effects.
struct System {
    name: String,
    href: String,
    runs: String,
    standing: String,
    unknown: String,
    at: String,
    moment: String,
}

impl System {
    fn of(count: SystemCount) -> System {
        System {
            href: format!("/console/effects?system={}", encoded(&count.system)),
            name: count.system,
            runs: number(count.runs),
            standing: number(count.standing),
            unknown: number(count.unknown),
            at: instant(count.oldest),
            moment: moment(count.oldest),
        }
    }
}

/// The open effects of a step.
struct Line {
    effect: EffectLine,
    badge: Badge,
    href: String,
    at: String,
    moment: String,
}

impl Line {
    fn of(effect: EffectLine) -> Line {
        Line {
            badge: run_badge(effect.state, effect.outcome),
            href: format!("/console/runs/{}/steps/{}", effect.run, encoded(&effect.step)),
            at: instant(effect.since),
            moment: moment(effect.since),
            effect,
        }
    }
}

#[derive(Template)]
#[template(path = "effects.html")]
struct EffectsPage {
    frame: Frame,
    mark: u64,
    systems: Vec<System>,
    more: bool,
    lines: Vec<Line>,
    filter: Filter,
    next: Option<String>,
}

pub(crate) async fn show(ask: Ask) -> Shown {
    match page(&ask).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

async fn page(ask: &Ask) -> Result<EffectsPage, Problem> {
    let who = ask.who().await?;
    let (counts, mark): (EffectCounts, u64) = ask.get_live("/v1/effects/counts").await?;
    let filter = Filter::of(ask, &PARAMETERS);
    let lines: Page<EffectLine> =
        ask.get(&format!("/v1/effects?limit=50&{}", filter.asked(&[]))).await?;
    Ok(EffectsPage {
        frame: Frame::new(ask, who, "effects", "Effects"),
        mark,
        systems: counts.systems.into_iter().map(System::of).collect(),
        more: counts.more,
        next: filter.next("/console/effects", lines.next),
        lines: lines.items.into_iter().map(Line::of).collect(),
        filter,
    })
}

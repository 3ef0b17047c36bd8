//! `backstitch demo`: the shop example, with everything it needs around it.
//!
//! It sets the [`stage`], plays orders, lets a person undo one, tells the stories of those that met trouble, and lays
//! the ledgers of the services beside what the runs say. It is good only if every run ended as it should and the
//! ledgers agree.

mod integration;
mod play;
mod report;
mod scenario;
mod stage;
mod story;
mod voice;

use std::path::PathBuf;
use std::pin::pin;
use std::time::Instant;

use anyhow::{Context, anyhow, bail};
use backstitch_saga::Retry;
use backstitch_saga::protocol::Outcome;
use backstitch_sdk::Workflow;
use backstitch_shop::check::audit;
use backstitch_shop::effect::Kind;
use backstitch_shop::faults::{Faults, Storm};
use backstitch_shop::orders;
use backstitch_workflows::place_order::Receipt;
use backstitch_workflows::{Order, place_order};
use clap::{Args, Subcommand};

use crate::cli::{asked_to_stop, open_browser};
use crate::print;
use play::Played;
use report::{Findings, Told};
use scenario::{Scenario, scenarios};
use stage::{Shop, Stage};
use voice::Voice;

/// Suggestions after the demo.
const NEXT: &str = "
Everything is stopped. Next:
  backstitch demo --keep    the same, and leaves it running for you to look around
  backstitch dev            a server of your own on this machine, which keeps its data
  docs/api.md               a first workflow over REST; docs/sdk.md: one in Rust
  docs/worker-protocol.md   workers in other languages";

/// Another demonstration than that of the shop.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Show {
    /// Follow documents of two vendors and an order system into runs, with a file that is sent twice, a mapping that
    /// fails and a schema that changes
    Integration(integration::IntegrationOptions),
}

/// What the demo shows.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct DemoOptions {
    /// Another demonstration than that of the shop
    #[command(subcommand)]
    pub(crate) show: Option<Show>,
    /// Orders to run, one JSON object a line, instead of the demo's own
    #[arg(long, value_name = "FILE")]
    pub(crate) orders: Option<PathBuf>,
    /// How many of them; all without it
    #[arg(long)]
    pub(crate) count: Option<usize>,
    /// Let the services misbehave at random; the same seed makes the same weather
    #[arg(long, value_name = "SEED")]
    pub(crate) faults: Option<u64>,
    /// Leave everything running at the end, with the URLs to try
    #[arg(long)]
    pub(crate) keep: bool,
    /// Open the console in the browser
    #[arg(long, requires = "keep")]
    pub(crate) open_browser: bool,
    /// Say nothing but one JSON document at the end
    #[arg(long, conflicts_with = "keep")]
    pub(crate) json: bool,
}

/// Runs the demo; `false` when a run did not end as it should, or the ledgers disagree.
///
/// # Errors
/// When the orders cannot be read, or something that the demo needs cannot be started.
pub(crate) async fn run(options: DemoOptions) -> anyhow::Result<bool> {
    if let Some(Show::Integration(options)) = &options.show {
        return integration::run(options).await;
    }
    let programme = Programme::read(&options)?;
    let voice = Voice::new(options.json);
    let since = Instant::now();
    let mut stopped = pin!(asked_to_stop());
    let mut stage = tokio::select! {
        stage = set_stage(&voice) => stage?,
        () = &mut stopped => bail!("interrupted; everything is stopped"),
    };
    if options.keep {
        voice.say(format_args!("The console: {}\n", stage.console()));
    }
    let shop = stage.shop();
    let findings = tokio::select! {
        findings = stage.guard(programme.perform(&shop, &voice)) => findings?,
        () = &mut stopped => bail!("interrupted; everything is stopped"),
    };
    findings.say(&voice);
    if options.json {
        print::line(format_args!("{:#}", findings.json(since.elapsed().as_millis())));
    }
    if options.keep {
        stage.invite(&programme.orders, &voice)?;
        if options.open_browser {
            open_browser(&stage.console());
        }
        let for_ever = std::future::pending::<anyhow::Result<()>>();
        tokio::select! {
            ended = stage.guard(for_ever) => ended?,
            () = &mut stopped => voice.say("\nStopping."),
        }
    }
    stage.strike().await;
    if !options.keep {
        voice.say(NEXT);
    }
    Ok(findings.good())
}

async fn set_stage(voice: &Voice) -> anyhow::Result<Stage> {
    voice.say("A shop, its three services, and what Backstitch makes of their troubles.\n");
    Stage::set(voice).await
}

/// The programme of the demo.
struct Programme {
    orders: Vec<Order>,
    /// Those orders that meet planned trouble; none with orders from a file or with random faults.
    scenarios: Vec<Scenario>,
    storm: Option<Storm>,
}

impl Programme {
    fn read(options: &DemoOptions) -> anyhow::Result<Programme> {
        let (mut orders, own) = match &options.orders {
            None => (orders::own().map_err(anyhow::Error::msg)?, true),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("the orders {} cannot be read", path.display()))?;
                let read = orders::read(&text);
                (read.map_err(|problem| anyhow!("{}, {problem}", path.display()))?, false)
            }
        };
        orders.truncate(options.count.unwrap_or(usize::MAX));
        let storm =
            options.faults.map(|seed| Storm { seed, trouble_percent: 15, refuse_percent: 2 });
        let mut scenarios = if own && storm.is_none() { scenarios() } else { Vec::new() };
        scenarios.retain(|scenario| orders.iter().any(|order| order.order_id == scenario.order));
        Ok(Programme { orders, scenarios, storm })
    }

    /// Plays everything and finds out what came of it.
    async fn perform(&self, shop: &Shop, voice: &Voice) -> anyhow::Result<Findings<'_>> {
        let workflow = place_order()?;
        shop.client.register(&workflow).await?;
        voice.say(format_args!(
            "  {:<11} {} {}\n",
            "workflow",
            workflow.name(),
            workflow.version()
        ));
        self.set_faults(shop).await?;
        let lines: usize = self.orders.iter().map(|order| order.lines.len()).sum();
        voice.say(format_args!("Running {} orders with {lines} lines", self.orders.len()));
        let mut played = play::play(&shop.client, &workflow, &self.orders, voice).await?;
        let mut told = Vec::new();
        for scenario in &self.scenarios {
            let index = played.iter().position(|played| played.order == scenario.order);
            let index = index.with_context(|| format!("{} was not played", scenario.order))?;
            if let Some(played) = played.get_mut(index) {
                told.push(tell(shop, scenario, index, played).await?);
            }
        }
        let stories: Vec<_> = played.iter().map(Played::story).collect();
        let audit = audit(&stories, &shop.ledgers().await?);
        let unexpected = self.unexpected(&played, &told);
        Ok(Findings { played, told, audit, unexpected, retry: payment_retry(&workflow) })
    }

    async fn set_faults(&self, shop: &Shop) -> anyhow::Result<()> {
        if !self.scenarios.is_empty() {
            shop.fill_shelves(&orders::own_shelves().map_err(anyhow::Error::msg)?).await?;
        }
        for kind in Kind::ALL {
            let planned = self.scenarios.iter().flat_map(|scenario| &scenario.faults);
            let rules =
                planned.filter(|(service, _)| *service == kind).map(|(_, rule)| rule.clone());
            let faults = Faults { rules: rules.collect(), storm: self.storm };
            shop.misbehave(kind, &faults).await?;
        }
        Ok(())
    }

    /// Lists runs that did not end as they should have, or whose history does not show what they were to
    /// show.
    fn unexpected(&self, played: &[Played], told: &[Told<'_>]) -> Vec<String> {
        let mut unexpected = Vec::new();
        for (index, played) in played.iter().enumerate() {
            let told = told.iter().find(|told| told.index == index);
            let as_expected = |outcome: Outcome| match (told, self.storm) {
                (Some(told), _) => outcome == told.scenario.ends,
                (None, Some(_)) => outcome == Outcome::Succeeded || outcome.is_clean(),
                (None, None) => outcome == Outcome::Succeeded,
            };
            if !played.view.outcome.is_some_and(as_expected) {
                unexpected.push(format!("{}: {}", played.order, played.view.summary));
            }
            for event in told.map_or(&[][..], |told| &told.missing) {
                unexpected.push(format!("{}: its history has no `{event}`", played.order));
            }
        }
        unexpected
    }
}

/// Lets a person undo the run if the scenario says so, and reads its story.
async fn tell<'a>(
    shop: &Shop,
    scenario: &'a Scenario,
    index: usize,
    played: &mut Played,
) -> anyhow::Result<Told<'a>> {
    let plan = match scenario.undone_by_hand {
        Some(reason) => play::undo_by_hand(&shop.client, played, reason).await?,
        None => Vec::new(),
    };
    let history = play::history(&shop.client, played.view.id).await?;
    let missing = scenario.shows.iter().copied().filter(|event| !story::has(&history, event));
    Ok(Told {
        index,
        moments: story::tell(&history),
        tries: story::tries(&history, "payment"),
        plan,
        missing: missing.collect(),
        scenario,
    })
}

/// Returns the retry policy of the payment.
fn payment_retry(workflow: &Workflow<Order, Receipt>) -> Retry {
    let steps = &workflow.definition().steps;
    let payment =
        steps.iter().find(|step| step.id == "payment").and_then(|step| step.task.as_ref());
    payment.map(|task| task.retry.clone()).unwrap_or_default()
}

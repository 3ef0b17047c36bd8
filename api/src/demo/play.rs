//! Runs orders through `place-order` and waits for every one of them to end.

use std::time::Duration;

use anyhow::Context;
use backstitch_saga::RunId;
use backstitch_saga::protocol::{HistoryEntry, RunView, Scope, StepView};
use backstitch_sdk::{Client, Workflow};
use backstitch_shop::check::{Bill, FAN_OUT, RunStory};
use backstitch_shop::orders;
use backstitch_workflows::Order;
use backstitch_workflows::place_order::Receipt;
use futures::{StreamExt, TryStreamExt, stream};

use super::voice::Voice;

/// Number of concurrent orders.
const AT_ONCE: usize = 128;

/// Time that one run may take.
const RUN_WITHIN: Duration = Duration::from_secs(300);

/// An order and what became of it.
#[derive(Debug)]
pub(crate) struct Played {
    /// The order's number.
    pub(crate) order: String,
    bill: Bill,
    /// Its run, at the end.
    pub(crate) view: RunView,
    items: Vec<StepView>,
}

impl Played {
    /// Returns the effects of the run as its journal has them.
    pub(crate) fn story(&self) -> RunStory {
        RunStory::told(&self.order, self.bill.clone(), &self.view, &self.items)
    }
}

/// Starts a run for each order and waits until all have ended; in the order of the orders.
pub(crate) async fn play(
    client: &Client,
    workflow: &Workflow<Order, Receipt>,
    orders: &[Order],
    voice: &Voice,
) -> anyhow::Result<Vec<Played>> {
    let mut progress = voice.progress(orders.len(), "orders have ended");
    let mut played: Vec<(usize, Played)> = stream::iter(orders.iter().enumerate())
        .map(|(index, order)| async move {
            play_one(client, workflow, order).await.map(|played| (index, played))
        })
        .buffer_unordered(AT_ONCE)
        .inspect_ok(|_| progress.step())
        .try_collect()
        .await?;
    progress.finish();
    played.sort_by_key(|(index, _)| *index);
    Ok(played.into_iter().map(|(_, played)| played).collect())
}

async fn play_one(
    client: &Client,
    workflow: &Workflow<Order, Receipt>,
    order: &Order,
) -> anyhow::Result<Played> {
    let id = &order.order_id;
    let bill = orders::bill(order).map_err(anyhow::Error::msg)?;
    let run = client
        .start(workflow, order)
        .key(id)
        .label("carrier", &order.carrier)
        .await
        .with_context(|| format!("the order {id} cannot be started"))?;
    let view = run.ended(RUN_WITHIN).await?;
    let items = client.items(view.id, FAN_OUT, None).all().await?;
    Ok(Played { order: id.clone(), bill, view, items })
}

/// Returns the plan of undoing a run by hand, in lines for people, after which it was done.
pub(crate) async fn undo_by_hand(
    client: &Client,
    played: &mut Played,
    reason: &str,
) -> anyhow::Result<Vec<String>> {
    let run = played.view.id;
    let plan = client.plan(run, Scope::All).await?;
    let waves = plan.steps.iter().map(|undo| undo.wave + 1).max().unwrap_or(0);
    let mut lines = vec![format!(
        "the plan, before anything is done{}:",
        if plan.past_pivot {
            " (past the point of no return: it takes force and a reason)"
        } else {
            ""
        }
    )];
    for wave in 0..waves {
        let undos = plan.steps.iter().filter(|undo| undo.wave == wave);
        let undos: Vec<_> = undos.map(|undo| format!("{} ({})", undo.step, undo.name)).collect();
        lines.push(format!("  {}. {}", wave + 1, undos.join(", ")));
    }
    if !plan.irreversible.is_empty() {
        lines.push(format!("  stays: {}, since nothing undoes it", plan.irreversible.join(", ")));
    }
    client.force_compensate(run, Scope::All, reason).await?;
    played.view = client.wait(run, RUN_WITHIN).await?;
    played.items = client.items(run, FAN_OUT, None).all().await?;
    Ok(lines)
}

/// Returns everything that happened to a run.
pub(crate) async fn history(client: &Client, run: RunId) -> anyhow::Result<Vec<HistoryEntry>> {
    Ok(client.history(run).all().await?)
}

//! Processes are killed in the middle of many runs, and the ledgers of the services say whether anything was lost or
//! done twice. The services live in the test and know nothing of the engine.
//!
//! `BACKSTITCH_CHAOS_RUNS` says how many runs, 200 without it.

use std::time::Duration;

use backstitch_saga::protocol::{Outcome, State};
use backstitch_saga::{Definition, Retry, RunId, Span};
use backstitch_sdk::{Client, ClientError};
use backstitch_shop::check::{FAN_OUT, RunStory};
use backstitch_shop::effect::Kind;
use backstitch_shop::faults::{Faults, Storm};
use backstitch_shop::orders;
use backstitch_tests::postgres;
use backstitch_tests::processes::{Program, Server, Services};
use backstitch_workflows::place_order::Receipt;
use backstitch_workflows::{Order, place_order};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::timeout;

const PROGRAM: &str = env!("CARGO_BIN_EXE_backstitch-under-test");

/// Time that a run may take once everything is up again.
const RUN_WITHIN: Duration = Duration::from_secs(120);

/// Number of concurrent requests of the test.
const AT_ONCE: usize = 32;

fn run_count() -> usize {
    let count = std::env::var("BACKSTITCH_CHAOS_RUNS").ok();
    count.map_or(200, |count| count.parse().expect("BACKSTITCH_CHAOS_RUNS must be a number"))
}

/// So many orders, each with a number of its own.
fn many_orders(count: usize) -> Vec<Order> {
    let own = orders::own().unwrap();
    let numbered = |(index, order): (usize, &Order)| Order {
        order_id: format!("CHAOS-{index:05}"),
        ..order.clone()
    };
    own.iter().cycle().take(count).enumerate().map(numbered).collect()
}

/// `place-order`, in a hurry: leases are lost and retries are made within seconds.
fn hasty_place_order() -> Definition {
    let mut definition = place_order().unwrap().definition().clone();
    let hasty = |retry: &mut Retry| {
        retry.first_delay = Span::millis(50);
        retry.max_delay = Span::secs(1);
    };
    for step in &mut definition.steps {
        let mapped = step.map.as_mut().map(|map| &mut map.task);
        let task = step.task.as_mut().or(mapped).unwrap();
        task.timeouts.heartbeat = Span::secs(2);
        hasty(&mut task.retry);
        if let Some(undo) = &mut task.compensate {
            hasty(&mut undo.retry);
        }
        if let Some(verify) = &mut task.verify {
            hasty(&mut verify.retry);
        }
    }
    definition
}

/// Returns a fresh, migrated database.
async fn database(name: &str) -> String {
    let server = postgres::server().await;
    server.create_database(name).await.unwrap();
    let url = server.url(name);
    backstitch_engine::migrate(&url).await.unwrap();
    url
}

async fn start(client: &Client, order: &Order) -> Result<RunId, ClientError> {
    let start = client.start_named::<Order, Receipt>("place-order", order);
    Ok(start.key(&order.order_id).await?.id())
}

/// Starts a run for each order, in a few at a time; in the order of the orders.
async fn start_all(client: &Client, orders: &[Order]) -> Vec<RunId> {
    stream::iter(orders)
        .map(|order| start(client, order))
        .buffered(AT_ONCE)
        .try_collect()
        .await
        .unwrap()
}

/// Waits until each run has ended, and collects what it says.
async fn stories(client: &Client, orders: &[Order], runs: &[RunId]) -> Vec<RunStory> {
    stream::iter(orders.iter().zip(runs))
        .map(|(order, run)| async move {
            let view = client.wait(*run, RUN_WITHIN).await.unwrap();
            assert_eq!(view.state, State::Ended, "{} {run}: {}", order.order_id, view.summary);
            let ends = [Outcome::Succeeded, Outcome::Compensated, Outcome::FailedClean];
            let outcome = view.outcome.unwrap();
            assert!(ends.contains(&outcome), "{} {run}: {}", order.order_id, view.summary);
            let items = client.items(*run, FAN_OUT, None).all().await.unwrap();
            RunStory::told(&order.order_id, orders::bill(order).unwrap(), &view, &items)
        })
        .buffered(AT_ONCE)
        .collect()
        .await
}

/// The journal of a run is gapless from 1.
async fn assert_gapless(client: &Client, run: RunId) {
    let mut last = 0;
    for entry in client.history(run).all().await.unwrap() {
        assert!(entry.seq == last || entry.seq == last + 1, "{run}: {} after {last}", entry.seq);
        last = entry.seq;
    }
    assert!(last > 0, "{run} has no history");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_three_times_in_the_middle_of_many_runs_loses_and_repeats_nothing() {
    let program = Program::new(PROGRAM, "chaos-server");
    let mut server = Server::start(&program, &database("chaos_server").await).await;
    let services = Services::open().await;
    let storm = Storm { seed: 7, trouble_percent: 5, refuse_percent: 2 };
    services.misbehave(&Faults { rules: Vec::new(), storm: Some(storm) });
    let client = server.client();
    client.register_definition(&hasty_place_order()).await.unwrap();
    let _worker = services.worker(&program, &server, 32, None).await;

    let orders = many_orders(run_count());
    let kills = async {
        for quarter in 1..=3 {
            let charged = services.desk(Kind::Payment).reached(orders.len() * quarter / 4);
            timeout(RUN_WITHIN, charged).await.expect("the runs go on");
            server.kill_and_start().await;
        }
    };
    let (runs, ()) = tokio::join!(start_all(&client, &orders), kills);

    let stories = stories(&client, &orders, &runs).await;
    assert_eq!(services.audit(&stories).differences, Vec::<String>::new());
    let undone = stories.iter().filter(|story| !story.succeeded).count();
    assert!(undone > 0, "nothing was undone: the storm was too mild to show anything");
    assert_eq!(start_all(&client, &orders).await, runs, "the same keys name the same runs");
    for run in runs.iter().step_by(20) {
        assert_gapless(&client, *run).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_between_its_effect_and_its_report_repeats_nothing() {
    const DEATHS: usize = 8;
    let program = Program::new(PROGRAM, "chaos-worker");
    let server = Server::start(&program, &database("chaos_worker").await).await;
    let services = Services::open().await;
    let client = server.client();
    client.register_definition(&hasty_place_order()).await.unwrap();

    let orders = many_orders(run_count() / 4);
    let runs = start_all(&client, &orders).await;
    for _ in 0..DEATHS {
        let died = services.worker(&program, &server, 8, Some(12)).await.died().await;
        assert!(!died.success(), "it was to be killed: {died}");
    }
    let _worker = services.worker(&program, &server, 8, None).await;

    let stories = stories(&client, &orders, &runs).await;
    assert_eq!(services.audit(&stories).differences, Vec::<String>::new());
    assert!(services.repeats() > 0, "no effect was asked for twice: nothing was shown");
}

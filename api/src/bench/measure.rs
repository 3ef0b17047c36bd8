//! The workloads: what is started, what is waited for, and what is counted meanwhile.

use std::time::{Duration, Instant};

use anyhow::ensure;
use backstitch_engine::bench::{self, FloorOptions, Gauge, Template};
use backstitch_sdk::Client;
use tokio::task::JoinSet;

use super::figures::Figures;
use super::flight::Flight;
use super::flows::{self, Parcel, STEPS, Size};
use super::population::Population;
use super::stage::{Cast, Ground, Stage};
use super::{BenchOptions, cpu};

/// Steps that one record of a fan-out ends at the best, for its floor: the size of a full batch.
const FULL: u32 = 256;
/// Tasks that a worker of a fan-out holds at most.
const CONCURRENCY: usize = 1_024;

/// A steady load of sagas.
#[derive(Clone, Copy)]
pub(super) struct Load {
    pub(super) in_flight: usize,
    pub(super) nodes: usize,
    pub(super) fails: bool,
    pub(super) hand_offs: bool,
    /// Starts and ends are events of the log.
    pub(super) told: bool,
}

/// The counters at one moment.
struct Reading {
    at: Instant,
    server: f64,
    worker: f64,
    postgres: Option<f64>,
    driver: f64,
    wal_bytes: i64,
    ended: Vec<u64>,
    started: u64,
}

async fn read(
    ground: &Ground,
    stage: &Stage,
    gauge: &mut Gauge,
    flight: &Flight,
) -> anyhow::Result<Reading> {
    let wal_bytes = gauge.numbers().await?.wal_bytes;
    let (server, worker) = stage.cpu();
    Ok(Reading {
        at: Instant::now(),
        server,
        worker,
        postgres: ground.postgres_cpu(),
        driver: cpu::of_process(std::process::id()),
        wal_bytes,
        ended: flight.ended(),
        started: flight.started(),
    })
}

/// Sets what lies between two readings: `steps` ended meanwhile.
#[expect(clippy::cast_precision_loss, reason = "rates for people")]
fn between(figures: &mut Figures, before: &Reading, after: &Reading, runs: f64, steps: f64) {
    let seconds = after.at.duration_since(before.at).as_secs_f64();
    figures.set("seconds", seconds);
    figures.set("runs", runs);
    figures.set("runs_per_s", runs / seconds);
    figures.set("steps_per_s", steps / seconds);
    let per_thousand = |used: f64| used / steps * 1_000.0;
    let (server, worker) = (after.server - before.server, after.worker - before.worker);
    figures.set("server_cpu_s_per_1000_steps", per_thousand(server));
    figures.set("worker_cpu_s_per_1000_steps", per_thousand(worker));
    let postgres = after.postgres.zip(before.postgres).map(|(after, before)| after - before);
    figures.set_some("postgres_cpu_s_per_1000_steps", postgres.map(per_thousand));
    let all = postgres.map(|postgres| per_thousand(postgres + server + worker));
    figures.set_some("cpu_s_per_1000_steps", all);
    figures.set("driver_cpu_s_per_1000_steps", per_thousand(after.driver - before.driver));
    figures.set("wal_bytes_per_step", (after.wal_bytes - before.wal_bytes) as f64 / steps);
}

/// Keeps sagas in flight for the given time and measures between a warm-up and the end.
pub(super) async fn sagas(
    ground: &mut Ground,
    options: &BenchOptions,
    load: Load,
    population: Option<&Population>,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let workflow = if load.told { flows::told()? } else { flows::saga(load.fails)? };
    let cast =
        Cast { nodes: load.nodes, workers: true, hand_offs: load.hand_offs, concurrency: 512 };
    let mut stage = Stage::set(ground, cast, &workflow).await?;
    let mut standing = 0;
    if let Some(population) = population {
        standing = population.settle(ground, &stage).await?;
    }
    let mut gauge = Gauge::connect(&stage.database).await?;
    let first = gauge.numbers().await?;
    let flight = Flight::new(load.in_flight, load.nodes);
    let listeners = listen(&flight, &mut stage);
    let servers: Vec<String> = stage.pairs.iter().map(|pair| pair.url.clone()).collect();
    let connections = load.in_flight.min(options.connections).div_ceil(load.nodes);
    let starters = flight
        .begin(
            &servers,
            (connections, options.starts_per_request),
            workflow.name(),
            &Parcel::new(),
            true,
        )
        .await?;
    tokio::time::sleep(options.warm_up()).await;
    flight.record(true);
    let before = read(ground, &stage, &mut gauge, &flight).await?;
    window(options, &flight, &before).await;
    let after = read(ground, &stage, &mut gauge, &flight).await?;
    flight.record(false);
    stage.check_alive()?;
    flight.land(starters).await?;
    let (started, times, hand_offs) = (flight.started(), flight.times(), flight.hand_offs());

    let steps_per_run = if load.fails { 2 * STEPS - 1 } else { STEPS } as f64;
    let runs = (after.ended.iter().sum::<u64>() - before.ended.iter().sum::<u64>()) as f64;
    ensure!(runs > 0.0, "no run ended while it was measured; measure longer with --seconds");
    between(figures, &before, &after, runs, runs * steps_per_run);
    match load.hand_offs {
        true => figures.latency("hand-off", hand_offs),
        false => figures.latency("run", times),
    }
    if load.nodes > 1 {
        let shares = after.ended.iter().zip(&before.ended).map(|(a, b)| (a - b) as f64 / runs);
        let shares: Vec<f64> = shares.collect();
        figures.set_some("smallest_node_share", shares.iter().copied().min_by(f64::total_cmp));
        figures.set_some("largest_node_share", shares.into_iter().max_by(f64::total_cmp));
    }
    figures.set_some("server_peak_mib", stage.peak_mib());
    let (name, database) = (stage.name.clone(), stage.database.clone());
    stage.strike().await;
    listeners.join_all().await;
    let transactions = (gauge.numbers().await?.transactions - first.transactions) as f64;
    figures.set("transactions_per_step", transactions / (started as f64 * steps_per_run));
    let wanted = if load.fails { "compensated" } else { "succeeded" };
    let expected = started + if load.fails { 0 } else { standing };
    agree(&mut gauge, workflow.name(), wanted, expected).await?;
    if options.floor {
        let template = Template::shortest(&database, workflow.name()).await?;
        ground.drop_database(&name).await?;
        return floor(ground, options, &template, load.in_flight, figures).await;
    }
    ground.drop_database(&name).await
}

/// Waits until the time is over, or so many runs have ended.
async fn window(options: &BenchOptions, flight: &Flight, before: &Reading) {
    let until = before.at + options.time();
    let runs = options.runs.map(|runs| runs + before.ended.iter().sum::<u64>());
    while Instant::now() < until {
        if runs.is_some_and(|runs| flight.ended().iter().sum::<u64>() >= runs) {
            return;
        }
        let left = until.saturating_duration_since(Instant::now());
        tokio::time::sleep(left.min(Duration::from_millis(if runs.is_some() { 5 } else { 1_000 })))
            .await;
    }
}

fn listen(flight: &std::sync::Arc<Flight>, stage: &mut Stage) -> JoinSet<()> {
    let mut listeners = JoinSet::new();
    for (node, pair) in stage.pairs.iter_mut().enumerate() {
        if let Some(lines) = pair.lines.take() {
            listeners.spawn(std::sync::Arc::clone(flight).listen(node, lines));
        }
    }
    listeners
}

/// Checks that the tables say that every run that was started ended as it should; else the figures are worth
/// nothing.
async fn agree(
    gauge: &mut Gauge,
    workflow: &str,
    wanted: &str,
    started: u64,
) -> anyhow::Result<()> {
    let found = gauge.outcomes(workflow).await?;
    let expected = vec![(wanted.to_owned(), i64::try_from(started)?)];
    ensure!(
        found == expected,
        "{workflow}: expected {expected:?} runs in the tables, found {found:?}"
    );
    Ok(())
}

/// Starts runs that nobody works on.
pub(super) async fn starts(
    ground: &mut Ground,
    options: &BenchOptions,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let workflow = flows::saga(false)?;
    let cast = Cast { nodes: 1, workers: false, hand_offs: false, concurrency: 0 };
    let mut stage = Stage::set(ground, cast, &workflow).await?;
    let mut gauge = Gauge::connect(&stage.database).await?;
    let first = gauge.numbers().await?;
    let at_once = options.starts_per_request;
    let connections = options.in_flight.div_ceil(at_once).max(options.connections);
    let flight = Flight::new(connections * at_once, 1);
    let servers = [stage.pairs[0].url.clone()];
    let starters = flight
        .begin(&servers, (connections, at_once), workflow.name(), &Parcel::new(), false)
        .await?;
    tokio::time::sleep(options.warm_up()).await;
    flight.record(true);
    let before = read(ground, &stage, &mut gauge, &flight).await?;
    tokio::time::sleep(options.time()).await;
    let after = read(ground, &stage, &mut gauge, &flight).await?;
    flight.record(false);
    stage.check_alive()?;
    let busy = flight.land(starters).await?;
    let runs = (after.started - before.started) as f64;
    ensure!(runs > 0.0, "no run was started while it was measured");
    // Nothing ends: a start counts as the step.
    between(figures, &before, &after, runs, runs);
    figures.set("busy_answers", busy as f64);
    figures.latency("start", flight.times());
    figures.set_some("server_peak_mib", stage.peak_mib());
    let (name, database) = (stage.name.clone(), stage.database.clone());
    stage.strike().await;
    let transactions = (gauge.numbers().await?.transactions - first.transactions) as f64;
    figures.set("transactions_per_step", transactions / flight.started() as f64);
    let found: i64 = gauge.outcomes(workflow.name()).await?.iter().map(|(_, count)| count).sum();
    ensure!(found == i64::try_from(flight.started())?, "the tables hold {found} runs");
    if options.floor {
        let template = Template::start(&database, workflow.name()).await?;
        ground.drop_database(&name).await?;
        return floor(ground, options, &template, options.in_flight, figures).await;
    }
    ground.drop_database(&name).await
}

/// Measures one fan-out after the other, of `items` items each.
pub(super) async fn fan_out(
    ground: &mut Ground,
    options: &BenchOptions,
    items: u32,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let workflow = flows::fan_out()?;
    let cast = Cast { nodes: 1, workers: true, hand_offs: false, concurrency: CONCURRENCY };
    let mut stage = Stage::set(ground, cast, &workflow).await?;
    let mut gauge = Gauge::connect(&stage.database).await?;
    let first = gauge.numbers().await?;
    let flight = Flight::new(1, 1);
    let listeners = listen(&flight, &mut stage);
    let client = Client::new(&stage.pairs[0].url)?;
    let runs = (20_000 / items).clamp(1, 10);
    let one = async |items: u32| -> anyhow::Result<Duration> {
        let ended = flight.ended()[0];
        let asked = Instant::now();
        client.start(&workflow, &Size { size: items }).await?;
        let limit = options.time() * 10 + Duration::from_secs(120);
        while flight.ended()[0] == ended {
            ensure!(asked.elapsed() < limit, "a run of {items} items did not end within {limit:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(asked.elapsed())
    };
    one(items.min(1_000)).await?;
    let before = read(ground, &stage, &mut gauge, &flight).await?;
    let mut times = Vec::new();
    for _ in 0..runs {
        times.push(u64::try_from(one(items).await?.as_micros())?);
    }
    let after = read(ground, &stage, &mut gauge, &flight).await?;
    stage.check_alive()?;
    between(figures, &before, &after, f64::from(runs), f64::from(runs) * f64::from(items));
    let busy: u64 = times.iter().sum();
    figures.set("us_per_item", busy as f64 / f64::from(runs) / f64::from(items));
    figures.latency("run", times);
    figures.set_some("server_peak_mib", stage.peak_mib());
    let (name, database) = (stage.name.clone(), stage.database.clone());
    stage.strike().await;
    listeners.join_all().await;
    let steps = f64::from(runs) * f64::from(items) + f64::from(items.min(1_000));
    let transactions = (gauge.numbers().await?.transactions - first.transactions) as f64;
    figures.set("transactions_per_step", transactions / steps);
    agree(&mut gauge, workflow.name(), "succeeded", u64::from(runs) + 1).await?;
    if options.floor {
        let template =
            Template::newest(&database, workflow.name()).await?.with_steps_per_record(FULL);
        ground.drop_database(&name).await?;
        return floor(ground, options, &template, 1, figures).await;
    }
    ground.drop_database(&name).await
}

/// Measures the floor of what was just measured, with nothing else at work, and sets the share of it.
async fn floor(
    ground: &mut Ground,
    options: &BenchOptions,
    template: &Template,
    in_flight: usize,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    ground.rest().await?;
    let mut best = bench::Floor::default();
    // One run at a time can have one record under way; many fill two connections with batches of these sizes.
    let shapes: &[(usize, usize)] = if in_flight == 1 { &[(1, 1)] } else { &[(2, 128), (2, 256)] };
    for (connections, batch) in shapes {
        let (name, url) = ground.database().await?;
        let time = options.floor_time() / u32::try_from(shapes.len())?;
        let options = FloorOptions { connections: *connections, batch: *batch, time };
        let found = bench::floor(&url, template, options).await?;
        ground.drop_database(&name).await?;
        if found.runs_per_s > best.runs_per_s {
            best = found;
        }
    }
    // A floor of starts has no steps: the start counts as the step, as above.
    let ended = if best.steps_per_s > 0.0 { best.steps_per_s } else { best.runs_per_s };
    figures.set("floor_steps_per_s", ended);
    figures.set("floor_records_per_run", template.records() as f64);
    figures.set("commit_p50_ms", best.p50_ms);
    figures.set("commit_p99_ms", best.p99_ms);
    if let Some(rate) = figures.get("steps_per_s") {
        figures.set("share_of_floor", rate / ended);
    }
    if figures.latency_of == "hand-off" {
        let commits = |name| figures.get(name).map(|time| time / best.p50_ms);
        let (p50, p99) = (commits("p50_ms"), commits("p99_ms"));
        figures.set_some("p50_in_commits", p50);
        figures.set_some("p99_in_commits", p99);
    }
    ground.rest().await
}

//! Intake under load: signed documents of 1 kB, one a request or in batches, taken in by a server or by what a team
//! would write by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use backstitch_engine::bench::{self, ByHand, FloorOptions, Gauge, SECRET};
use backstitch_shop::child;
use backstitch_shop::process::Process;
use clap::Args;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::figures::Figures;
use super::stage::{Cast, Ground, Stage, program};
use super::{BenchOptions, cpu, flows};

/// Connections with a request each, and those with a batch each.
const CONNECTIONS: (usize, usize) = (64, 8);
/// Documents of a batch.
const BATCH: usize = 500;
const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
/// The header with the signature.
const SIGNATURE: &str = "X-Hub-Signature-256";

/// The subject of the measurement: requests, batches, and requests to the hand-written intake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Requests,
    Batches,
    ByHand,
}

impl Kind {
    /// Returns the kind with this number, from 1 on.
    pub(super) fn of(number: u32) -> Kind {
        match number {
            1 => Kind::Requests,
            2 => Kind::Batches,
            _ => Kind::ByHand,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Requests => "one a request",
            Kind::Batches => "batches of 500",
            Kind::ByHand => "by hand",
        }
    }
}

/// What the process that does it by hand is told.
#[derive(Args)]
pub(crate) struct ByHandArgs {
    /// The database
    #[arg(long)]
    database: String,
}

/// Takes in documents as a team would by hand, until standard input ends.
pub(crate) async fn by_hand(args: ByHandArgs) -> anyhow::Result<()> {
    let state = Arc::new(ByHand::open(&args.database).await?);
    let router = Router::new().route("/in", post(take)).with_state(state);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    child::announce("taking in at", &format!("http://{}", listener.local_addr()?));
    axum::serve(listener, router).with_graceful_shutdown(child::told_to_stop(true)).await?;
    Ok(())
}

async fn take(State(state): State<Arc<ByHand>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let shown = headers.get(SIGNATURE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match state.take(shown, &body).await {
        Ok(Ok(true)) => StatusCode::ACCEPTED,
        Ok(Ok(false)) => StatusCode::OK,
        Ok(Err(bench::Refused::Signature)) => StatusCode::UNAUTHORIZED,
        Ok(Err(bench::Refused::Schema)) => StatusCode::UNPROCESSABLE_ENTITY,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The address that documents are sent to, and their form.
#[derive(Clone)]
struct Door {
    url: String,
    kind: Kind,
    /// Documents that were named.
    named: Arc<AtomicU64>,
}

impl Door {
    /// Sends the next request. Returns how many documents it had.
    async fn send(&self, http: &Client) -> anyhow::Result<u64> {
        let count = if self.kind == Kind::Batches { BATCH as u64 } else { 1 };
        let first = self.named.fetch_add(count, Ordering::Relaxed);
        let documents =
            (first..first + count).map(|at| bench::document(&format!("d-{at}")).to_string());
        let body = documents.collect::<Vec<_>>().join("\n");
        let kind = if self.kind == Kind::Batches { LINES } else { JSON };
        let request = http.post(&self.url).header("content-type", kind);
        let request = request.header(SIGNATURE, bench::signature(body.as_bytes())?);
        let answer = request.body(body).send().await?;
        ensure!(answer.status().as_u16() == 202, "a document is answered {}", answer.status());
        answer.bytes().await?;
        Ok(count)
    }

    /// Sends for a while over all connections; with `pause` each of them waits so long between the beginnings of two
    /// requests. Returns how many documents were taken in, and the microseconds of each request from when it was due.
    async fn run(
        &self,
        time: Duration,
        pause: Option<Duration>,
    ) -> anyhow::Result<(u64, Vec<u64>)> {
        let (one, batches) = CONNECTIONS;
        let connections = if self.kind == Kind::Batches { batches } else { one };
        let until = Instant::now() + time;
        let mut senders = JoinSet::new();
        for number in 0..connections {
            let door = self.clone();
            senders.spawn(async move {
                let http = Client::builder().pool_max_idle_per_host(1).build()?;
                let (mut sent, mut times) = (0, Vec::new());
                // They begin one after the other.
                let (number, all) = (u32::try_from(number)?, u32::try_from(connections)?);
                let mut due = Instant::now() + pause.unwrap_or_default() * number / all;
                while due < until && Instant::now() < until {
                    tokio::time::sleep_until(due.into()).await;
                    sent += door.send(&http).await?;
                    times.push(u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX));
                    due = pause.map_or_else(Instant::now, |pause| due + pause);
                }
                anyhow::Ok((sent, times))
            });
        }
        let (mut sent, mut times) = (0, Vec::new());
        while let Some(done) = senders.join_next().await {
            let (more, took) = done.context("a sender is gone")??;
            sent += more;
            times.extend(took);
        }
        Ok((sent, times))
    }
}

/// Asks a server that is set up, and expects that it does it.
async fn ask(
    http: &Client,
    method: reqwest::Method,
    url: String,
    body: Value,
) -> anyhow::Result<()> {
    http.request(method, &url).json(&body).send().await?.error_for_status().context(url)?;
    Ok(())
}

/// Registers contracts, the transform and the source.
async fn set_up(url: &str) -> anyhow::Result<()> {
    let http = Client::new();
    let [post, put] = [reqwest::Method::POST, reqwest::Method::PUT];
    for (subject, schema) in
        [("crm.contact", bench::vendor_schema()), ("customer", bench::canonical_schema())]
    {
        let path = format!("{url}/v1/contracts/{subject}/versions");
        ask(&http, post.clone(), path, json!({"schema": schema})).await?;
    }
    let rules = json!([
        {"to": "/id", "copy": "/id"}, {"to": "/name", "copy": "/full_name"}, {"to": "/email", "email": "/mail"},
        {"to": "/status", "enum": "/st", "map": {"A": "active", "I": "inactive"}}, {"to": "/note", "copy": "/note"},
        {"to": "/city", "copy": "/city"},
    ]);
    let transform =
        json!({"transform": {"stream": "customer:{/id}", "rules": rules}, "reason": "bench"});
    let path = format!("{url}/v1/transforms/crm.contact/1/customer/1");
    ask(&http, put.clone(), path, transform).await?;
    let spec = json!({
        "verify": {"scheme": "github"}, "accepts": [{"contract": "crm.contact", "to": "customer@1"}],
        "version_from": {"fixed": 1}, "dedupe": [{"pointer": "/id"}], "hints": [{"kind": "email", "at": "/mail"}],
    });
    ask(&http, put, format!("{url}/v1/sources/crm"), json!({"spec": spec, "secret": SECRET})).await
}

/// A server that takes in documents, on a database of its own.
enum Side {
    Server(Stage),
    ByHand { name: String, database: String, process: Box<Process> },
}

impl Side {
    async fn set(ground: &mut Ground, kind: Kind) -> anyhow::Result<(Side, Door)> {
        let named = Arc::new(AtomicU64::new(0));
        if kind == Kind::ByHand {
            let (name, database) = ground.database().await?;
            let mut command = program()?;
            command.args(["bench-by-hand", "--database", &database]);
            let log = ground.logs.join("by-hand.log");
            let (process, url) = Process::start("by-hand", &mut command, &log).await?;
            let door = Door { url: format!("{url}/in"), kind, named };
            let process = Box::new(process);
            return Ok((Side::ByHand { name, database, process }, door));
        }
        let cast = Cast { nodes: 1, workers: false, hand_offs: false, concurrency: 0 };
        let stage = Stage::set(ground, cast, &flows::saga(false)?).await?;
        let url = &stage.pairs[0].url;
        set_up(url).await?;
        let batch = if kind == Kind::Batches { "/batch" } else { "" };
        let door = Door { url: format!("{url}/v1/in/default/crm{batch}"), kind, named };
        Ok((Side::Server(stage), door))
    }

    fn cpu(&self) -> f64 {
        match self {
            Side::Server(stage) => stage.cpu().0,
            Side::ByHand { process, .. } => process.pid().map_or(0.0, cpu::of_process),
        }
    }

    fn database(&self) -> (&str, &str) {
        match self {
            Side::Server(stage) => (&stage.name, &stage.database),
            Side::ByHand { name, database, .. } => (name, database),
        }
    }

    fn peak_mib(&self) -> Option<f64> {
        match self {
            Side::Server(stage) => stage.peak_mib(),
            Side::ByHand { process, .. } => cpu::peak_mib(process.pid()?),
        }
    }

    async fn strike(self) {
        match self {
            Side::Server(stage) => stage.strike().await,
            Side::ByHand { process, .. } => process.stop().await,
        }
    }
}

/// Takes in documents as fast as it goes, then at half that rate, for the times.
#[expect(clippy::cast_precision_loss, reason = "rates for people")]
pub(super) async fn measure(
    ground: &mut Ground,
    options: &BenchOptions,
    kind: Kind,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let (side, door) = Side::set(ground, kind).await?;
    let (mut taken, _) = door.run(options.warm_up(), None).await?;
    let mut gauge = Gauge::connect(side.database().1).await?;
    let used = (side.cpu(), ground.postgres_cpu(), cpu::of_process(std::process::id()));
    let first = gauge.numbers().await?;
    let began = Instant::now();
    let (documents, times) = door.run(options.time(), None).await?;
    let seconds = began.elapsed().as_secs_f64();
    let steps = documents as f64;
    ensure!(steps > 0.0, "nothing was taken in while it was measured");
    let per_thousand = |used: f64| used / steps * 1_000.0;
    figures.set("seconds", seconds);
    // A document counts as the step.
    figures.set("steps_per_s", steps / seconds);
    figures.set("server_cpu_s_per_1000_steps", per_thousand(side.cpu() - used.0));
    let postgres = ground.postgres_cpu().zip(used.1).map(|(after, before)| after - before);
    figures.set_some("postgres_cpu_s_per_1000_steps", postgres.map(per_thousand));
    let driver = cpu::of_process(std::process::id()) - used.2;
    figures.set("driver_cpu_s_per_1000_steps", per_thousand(driver));
    let last = gauge.numbers().await?;
    figures.set("transactions_per_step", (last.transactions - first.transactions) as f64 / steps);
    figures.set("wal_bytes_per_step", (last.wal_bytes - first.wal_bytes) as f64 / steps);
    // Each connection as often as at the full rate, in twice the time.
    let busy: u64 = times.iter().sum();
    let mean = Duration::from_micros(busy / u64::try_from(times.len().max(1))?);
    let (more, times) = door.run(options.time() / 2, Some(mean * 2)).await?;
    figures.latency("request at half", times);
    taken += documents + more;
    figures.set_some("server_peak_mib", side.peak_mib());
    let found = gauge.documents(kind == Kind::ByHand).await?;
    ensure!(found == i64::try_from(taken)?, "{taken} documents were answered, {found} are there");
    let name = side.database().0.to_owned();
    side.strike().await;
    ground.drop_database(&name).await?;
    if options.floor && kind != Kind::ByHand {
        floor(ground, options, figures).await?;
    }
    Ok(())
}

/// Measures the bare statements of documents, and sets the share of them that was reached.
async fn floor(
    ground: &mut Ground,
    options: &BenchOptions,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    ground.rest().await?;
    let mut best = bench::Floor::default();
    for batch in [128, 256] {
        let (name, url) = ground.database().await?;
        let options = FloorOptions { connections: 2, batch, time: options.floor_time() / 2 };
        let found = bench::intake_floor(&url, options).await?;
        ground.drop_database(&name).await?;
        if found.runs_per_s > best.runs_per_s {
            best = found;
        }
    }
    figures.set("floor_steps_per_s", best.steps_per_s);
    figures.set("commit_p50_ms", best.p50_ms);
    figures.set("commit_p99_ms", best.p99_ms);
    if let Some(rate) = figures.get("steps_per_s") {
        figures.set("share_of_floor", rate / best.steps_per_s);
    }
    Ok(())
}

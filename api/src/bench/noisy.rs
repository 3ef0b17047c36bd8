//! A noisy neighbour: one namespace floods a server while another starts, claims, reports and lists at a small steady
//! rate, and is timed: before the flood, while it goes on, and from a second after it on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::BenchOptions;
use super::figures::{Figures, percentile};
use super::flows;
use super::stage::{Cast, Ground, Stage};

/// Interval at which the calm namespace starts a run.
const EVERY: Duration = Duration::from_millis(25);
/// Pause after the flood before the calm namespace is timed again.
const REST: Duration = Duration::from_secs(1);
/// The bytes of a large output.
const LARGE: usize = 200_000;
/// Number of starts in a batch.
const BATCH: usize = 1_000;

/// The load of the noisy namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Noise {
    /// Batches of 1,000 starts, 24 at once.
    Batches,
    /// Tasks with outputs of 200,000 bytes, over 8 connections.
    Outputs,
    /// Lists that find little or much, 16 at once.
    Lists,
}

impl Noise {
    /// Returns over how many connections it is made.
    fn connections(self) -> usize {
        match self {
            Noise::Batches => 24,
            Noise::Outputs => 8,
            Noise::Lists => 16,
        }
    }
}

const NOISES: [Noise; 3] = [Noise::Batches, Noise::Outputs, Noise::Lists];

/// Returns the kinds of noise, by number.
pub(super) fn variants() -> Vec<u32> {
    (0..).take(NOISES.len()).collect()
}

/// The timed actions, and the names of their figures: calm, noisy and after.
pub(super) const TIMED: [(&str, [&str; 3]); 4] = [
    ("start", ["start_calm_p99_ms", "start_noisy_p99_ms", "start_after_p99_ms"]),
    ("claim", ["claim_calm_p99_ms", "claim_noisy_p99_ms", "claim_after_p99_ms"]),
    ("report", ["report_calm_p99_ms", "report_noisy_p99_ms", "report_after_p99_ms"]),
    ("list", ["list_calm_p99_ms", "list_noisy_p99_ms", "list_after_p99_ms"]),
];

/// The times of the calm namespace's requests, in microseconds, by what they were.
type Times = BTreeMap<&'static str, Vec<u64>>;

/// A namespace that talks to the server.
struct Side {
    http: reqwest::Client,
    server: String,
    namespace: &'static str,
}

impl Side {
    fn new(server: &str, namespace: &'static str) -> Arc<Side> {
        Arc::new(Side { http: reqwest::Client::new(), server: server.to_owned(), namespace })
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let request = self.http.request(method, format!("{}{path}", self.server));
        let mut request = request.header("backstitch-namespace", self.namespace);
        if let Some(body) = body {
            request = request.header(reqwest::header::CONTENT_TYPE, "application/json").body(body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        let body = answer.bytes().await?;
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    async fn register(&self) -> anyhow::Result<()> {
        let task = json!({ "name": "h", "class": "read_only", "input": { "path": "/input" } });
        let steps = json!([{ "id": "a", "task": task }]);
        let definition = json!({ "name": "one", "version": 1, "steps": steps }).to_string();
        let (status, said) =
            self.ask(Method::PUT, "/v1/workflows/one/versions/1", Some(definition)).await?;
        ensure!(status.is_success(), "the workflow of {}: {status} {said}", self.namespace);
        Ok(())
    }

    /// Claims at most `most` tasks and reports each with `output`.
    async fn work(&self, session: Uuid, most: u32, output: &Value) -> anyhow::Result<()> {
        let (_, claimed) =
            self.ask(Method::POST, "/v1/tasks/claim", Some(claim(session, most))).await?;
        let results: Vec<Value> = claimed["tasks"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|task| done(task, output))
            .collect();
        if !results.is_empty() {
            let body = json!({ "results": results }).to_string();
            self.ask(Method::POST, "/v1/tasks/complete", Some(body)).await?;
        }
        Ok(())
    }
}

fn claim(session: Uuid, most: u32) -> String {
    let worker = format!("bench-{session}");
    json!({
        "worker": worker, "session": session, "queues": { "default": ["h"] }, "max": most, "wait": "5s",
    })
    .to_string()
}

fn done(task: &Value, output: &Value) -> Value {
    let mut result = json!({ "outcome": { "succeeded": { "output": output } } });
    for name in ["run", "step", "action", "attempt", "lease"] {
        if let Some(value) = task.get(name) {
            result[name] = value.clone();
        }
    }
    result
}

/// The namespace that is timed.
struct Calm {
    side: Arc<Side>,
    times: Mutex<Times>,
    /// Sessions that have nothing to do.
    idle: Mutex<Vec<Uuid>>,
    failed: AtomicU64,
}

impl Calm {
    /// Begins a run at each instant of `span`, also while earlier ones wait, and returns how long its requests took.
    async fn work(self: &Arc<Self>, span: Duration) -> Times {
        let (began, mut under_way) = (Instant::now(), JoinSet::new());
        let mut ticks = tokio::time::interval(EVERY);
        while began.elapsed() < span {
            ticks.tick().await;
            while under_way.try_join_next().is_some() {}
            let own = Arc::clone(self);
            under_way.spawn(async move {
                let idle = own.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let session = idle.unwrap_or_else(Uuid::new_v4);
                if own.once(session).await.is_err() {
                    own.failed.fetch_add(1, Ordering::Relaxed);
                }
                own.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
            });
        }
        under_way.join_all().await;
        std::mem::take(&mut *self.times.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn once(&self, session: Uuid) -> anyhow::Result<()> {
        let start = json!({ "workflow": "one", "input": 1 }).to_string();
        self.timed("start", Method::POST, "/v1/runs", Some(start)).await?;
        let claimed =
            self.timed("claim", Method::POST, "/v1/tasks/claim", Some(claim(session, 1))).await?;
        let task = claimed.pointer("/tasks/0").context("a claim came back without a task")?;
        let report = json!({ "results": [done(task, &Value::Null)] }).to_string();
        self.timed("report", Method::POST, "/v1/tasks/complete", Some(report)).await?;
        self.timed("list", Method::GET, "/v1/runs?limit=20", None).await?;
        Ok(())
    }

    async fn timed(
        &self,
        what: &'static str,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> anyhow::Result<Value> {
        let began = Instant::now();
        let answer = self.side.ask(method, path, body).await;
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.entry(what).or_default().push(took);
        drop(times);
        let (status, said) = answer?;
        ensure!(status.is_success(), "{what}: {status}");
        Ok(said)
    }
}

/// A flood, until it is dropped. It has a thread of its own, so that what is timed waits for the server and not for the
/// flood's own work here.
struct Flood {
    _stop: oneshot::Sender<()>,
}

impl Flood {
    /// Begins to flood a server; counts what was asked.
    fn begin(noise: Noise, server: &str, asked: &Arc<AtomicU64>) -> anyhow::Result<Flood> {
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (server, asked) = (server.to_owned(), Arc::clone(asked));
        let flood = async move {
            let (side, sounds) = (Side::new(&server, "noisy"), Arc::new(Sounds::new()));
            let mut all = JoinSet::new();
            for number in 0..noise.connections() {
                let (side, sounds, asked) =
                    (Arc::clone(&side), Arc::clone(&sounds), Arc::clone(&asked));
                all.spawn(async move {
                    let session = Uuid::new_v4();
                    loop {
                        // A flood minds no answer.
                        let _ = make_noise(noise, &side, &sounds, (number, session)).await;
                        asked.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            // An error says that it was dropped.
            let _ = stopped.await;
        };
        let thread = std::thread::Builder::new().name("flood".to_owned());
        thread.spawn(move || runtime.block_on(flood)).context("the flood does not start")?;
        Ok(Flood { _stop: stop })
    }
}

/// Requests that are sent repeatedly, built once.
struct Sounds {
    many: String,
    some: String,
    output: Value,
}

impl Sounds {
    fn new() -> Sounds {
        let batch = |size| {
            let runs = vec![json!({ "workflow": "one", "input": 1 }); size];
            json!({ "runs": runs }).to_string()
        };
        Sounds { many: batch(BATCH), some: batch(20), output: json!("x".repeat(LARGE)) }
    }
}

async fn make_noise(
    noise: Noise,
    side: &Side,
    sounds: &Sounds,
    (number, session): (usize, Uuid),
) -> anyhow::Result<()> {
    let start = |batch: &String| side.ask(Method::POST, "/v1/runs/batch", Some(batch.clone()));
    match noise {
        Noise::Batches => {
            start(&sounds.many).await?;
        }
        Noise::Outputs => {
            start(&sounds.some).await?;
            side.work(session, 20, &sounds.output).await?;
        }
        Noise::Lists => {
            let paths = [
                "/v1/runs?limit=1000",
                "/v1/runs?incident=false&outcome=cancelled",
                "/v1/runs?label=shop:south",
                "/v1/status",
            ];
            side.ask(Method::GET, paths[number % paths.len()], None).await?;
        }
    }
    Ok(())
}

/// Times the calm namespace before, during and after one kind of noise.
pub(super) async fn measure(
    ground: &mut Ground,
    options: &BenchOptions,
    variant: u32,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let noise = *NOISES.get(usize::try_from(variant)?).context("there is no such noise")?;
    figures.variant = Some(format!("{noise:?}").to_lowercase());
    let cast = Cast { nodes: 1, workers: false, hand_offs: false, concurrency: 0 };
    let mut stage = Stage::set(ground, cast, &flows::saga(false)?).await?;
    let server = stage.pairs.first().context("there is no server")?.url.clone();
    let (calm, noisy) = (Side::new(&server, "calm"), Side::new(&server, "noisy"));
    calm.register().await?;
    noisy.register().await?;
    if noise == Noise::Lists {
        let sounds = Sounds::new();
        for _ in 0..10 {
            make_noise(Noise::Batches, &noisy, &sounds, (0, Uuid::new_v4())).await?;
        }
    }
    let calm = Arc::new(Calm {
        side: calm,
        times: Mutex::default(),
        idle: Mutex::default(),
        failed: AtomicU64::new(0),
    });
    calm.work(options.warm_up()).await;
    let before = calm.work(options.time()).await;
    let asked = Arc::default();
    let (began, flood) = (Instant::now(), Flood::begin(noise, &server, &asked)?);
    let during = calm.work(options.time()).await;
    figures.set("noisy_requests_per_s", rate(&asked, began));
    drop(flood);
    tokio::time::sleep(REST).await;
    let after = calm.work(options.time()).await;
    stage.check_alive()?;
    for (what, names) in TIMED {
        for (times, name) in [&before, &during, &after].into_iter().zip(names) {
            let mut times = times.get(what).cloned().unwrap_or_default();
            times.sort_unstable();
            figures.set_some(name, percentile(&times, 99));
        }
    }
    figures.latency("start", during.get("start").cloned().unwrap_or_default());
    figures.set_some("server_peak_mib", stage.peak_mib());
    let failed = calm.failed.load(Ordering::Relaxed);
    let name = stage.name.clone();
    stage.strike().await;
    ground.drop_database(&name).await?;
    ensure!(failed == 0, "{failed} runs of the calm namespace were refused, or got no task");
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "rates for people")]
fn rate(asked: &AtomicU64, began: Instant) -> f64 {
    asked.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64()
}

//! The log under load: consumers that read it over HTTP from a position on.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use backstitch_engine::bench::Gauge;
use reqwest::Client;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use tokio::task::JoinSet;

use super::figures::Figures;
use super::stage::{Cast, Ground, Stage};
use super::{BenchOptions, cpu, flows};

/// Events of one request that appends, and of one page.
const AT_ONCE: usize = 500;
const PAGE: usize = 1_000;
/// Number of concurrent writers.
const WRITERS: usize = 8;
/// Number of concurrent readers.
const READERS: usize = 4;
/// Bytes of the data of an event.
const BYTES: usize = 1_000;
/// Time that events may take to get their positions.
const NUMBERED_WITHIN: Duration = Duration::from_secs(30);

/// A page as far as a consumer that only counts looks at it.
#[derive(Deserialize)]
struct Page {
    items: Vec<IgnoredAny>,
    next: u64,
    head: u64,
}

/// Reads the log again and again with four consumers, each from its beginning.
#[expect(clippy::cast_precision_loss, reason = "rates for people")]
pub(super) async fn consume(
    ground: &mut Ground,
    options: &BenchOptions,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let cast = Cast { nodes: 1, workers: false, hand_offs: false, concurrency: 0 };
    let mut stage = Stage::set(ground, cast, &flows::saga(false)?).await?;
    let url = format!("{}/v1/events", stage.pairs[0].url);
    fill(&url, options.events).await?;
    read_for(&url, options.warm_up()).await?;
    let mut gauge = Gauge::connect(&stage.database).await?;
    let used = (stage.cpu().0, ground.postgres_cpu(), cpu::of_process(std::process::id()));
    let first = gauge.numbers().await?;
    let began = Instant::now();
    let (events, times) = read_for(&url, options.time()).await?;
    let seconds = began.elapsed().as_secs_f64();
    stage.check_alive()?;
    let events = events as f64;
    ensure!(events > 0.0, "nothing was read while it was measured");
    let per_thousand = |used: f64| used / events * 1_000.0;
    figures.set("seconds", seconds);
    // An event counts as the step.
    figures.set("steps_per_s", events / seconds);
    figures.set("server_cpu_s_per_1000_steps", per_thousand(stage.cpu().0 - used.0));
    let postgres = ground.postgres_cpu().zip(used.1).map(|(after, before)| after - before);
    figures.set_some("postgres_cpu_s_per_1000_steps", postgres.map(per_thousand));
    let driver = cpu::of_process(std::process::id()) - used.2;
    figures.set("driver_cpu_s_per_1000_steps", per_thousand(driver));
    let transactions = (gauge.numbers().await?.transactions - first.transactions) as f64;
    figures.set("transactions_per_step", transactions / events);
    figures.latency("page", times);
    figures.set_some("server_peak_mib", stage.peak_mib());
    let name = stage.name.clone();
    stage.strike().await;
    ground.drop_database(&name).await
}

/// Appends so many events, and waits until all have their positions.
async fn fill(url: &str, events: usize) -> anyhow::Result<()> {
    let text = "x".repeat(BYTES);
    let requests = events.div_ceil(AT_ONCE);
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (url, text) = (url.to_owned(), text.clone());
        writers.spawn(async move {
            let http = Client::new();
            for request in (writer..requests).step_by(WRITERS) {
                let of = |at: usize| json!({"type": "bench.filled", "stream": format!("thing:{}", (request + at) % 1_000), "data": text});
                let body = json!({"events": (0..AT_ONCE).map(of).collect::<Vec<_>>()});
                http.post(&url).json(&body).send().await?.error_for_status()?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = writers.join_next().await {
        done.context("a writer is gone")??;
    }
    let (http, wanted) = (Client::new(), u64::try_from(requests * AT_ONCE)?);
    let since = Instant::now();
    while page(&http, url, 0, 1).await?.head < wanted {
        ensure!(since.elapsed() < NUMBERED_WITHIN, "the events do not get their positions");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Reads with all consumers for a while. Returns how many events they have read, and the microseconds of each page.
async fn read_for(url: &str, time: Duration) -> anyhow::Result<(u64, Vec<u64>)> {
    let until = Instant::now() + time;
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let url = url.to_owned();
        readers.spawn(async move {
            let http = Client::new();
            let (mut events, mut times, mut after) = (0_u64, Vec::new(), 0);
            while Instant::now() < until {
                let asked = Instant::now();
                let page = page(&http, &url, after, PAGE).await?;
                times.push(u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX));
                events += u64::try_from(page.items.len())?;
                after = if page.next < page.head { page.next } else { 0 };
            }
            anyhow::Ok((events, times))
        });
    }
    let (mut events, mut times) = (0, Vec::new());
    while let Some(done) = readers.join_next().await {
        let (read, took) = done.context("a reader is gone")??;
        events += read;
        times.extend(took);
    }
    Ok((events, times))
}

async fn page(http: &Client, url: &str, after: u64, limit: usize) -> anyhow::Result<Page> {
    let query = [("after", after.to_string()), ("limit", limit.to_string())];
    let answer = http.get(url).query(&query).send().await?.error_for_status()?;
    Ok(serde_json::from_slice(&answer.bytes().await?)?)
}

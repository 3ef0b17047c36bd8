//! Keeps runs in flight: starts one whenever one has ended, and notes how long each took.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::bail;
use backstitch_saga::RunId;
use serde::Serialize;
use tokio::io::{BufReader, Lines};
use tokio::process::ChildStdout;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::starter::Starter;

/// Time that the last runs may take to end.
const LAND_WITHIN: Duration = Duration::from_secs(60);

/// Runs under way, and those that have ended.
pub(super) struct Flight {
    places: Semaphore,
    /// Held by the connection that collects places for its next request; the others wait behind it.
    collecting: tokio::sync::Mutex<()>,
    size: usize,
    /// Between the start request and the end. `None`: the end was heard of before the start was answered.
    under_way: Mutex<HashMap<RunId, Option<Instant>>>,
    /// Of runs that ended, or requests that were answered, while it was on: microseconds.
    times: Mutex<Vec<u64>>,
    /// Of hand-offs, alike.
    hand_offs: Mutex<Vec<u64>>,
    recording: AtomicBool,
    stopping: AtomicBool,
    started: AtomicU64,
    /// By node.
    ended: Vec<AtomicU64>,
}

impl Flight {
    /// Returns room for `size` runs over `nodes` nodes.
    pub(super) fn new(size: usize, nodes: usize) -> Arc<Flight> {
        Arc::new(Flight {
            places: Semaphore::new(size),
            collecting: tokio::sync::Mutex::default(),
            size,
            under_way: Mutex::default(),
            times: Mutex::default(),
            hand_offs: Mutex::default(),
            recording: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            started: AtomicU64::new(0),
            ended: (0..nodes).map(|_| AtomicU64::new(0)).collect(),
        })
    }

    /// Returns the number of started runs.
    pub(super) fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    /// Returns the number of ended runs, by the node whose worker did the last task.
    pub(super) fn ended(&self) -> Vec<u64> {
        self.ended.iter().map(|ended| ended.load(Ordering::Relaxed)).collect()
    }

    /// Notes times from now on, or stops it.
    pub(super) fn record(&self, on: bool) {
        self.recording.store(on, Ordering::Relaxed);
    }

    /// Returns the times of runs or requests, in microseconds.
    pub(super) fn times(&self) -> Vec<u64> {
        std::mem::take(&mut *self.times.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the times of hand-offs, in microseconds.
    pub(super) fn hand_offs(&self) -> Vec<u64> {
        std::mem::take(&mut *self.hand_offs.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, times: &Mutex<Vec<u64>>, micros: u128) {
        if self.recording.load(Ordering::Relaxed) {
            let micros = u64::try_from(micros).unwrap_or(u64::MAX);
            times.lock().unwrap_or_else(PoisonError::into_inner).push(micros);
        }
    }

    fn took_off(&self, run: RunId, asked: Instant) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if under_way.remove(&run).is_none() {
            under_way.insert(run, Some(asked));
            return;
        }
        drop(under_way);
        self.landed(asked);
    }

    fn heard_of_the_end(&self, run: RunId, node: usize) {
        if let Some(ended) = self.ended.get(node) {
            ended.fetch_add(1, Ordering::Relaxed);
        }
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        match under_way.remove(&run) {
            Some(Some(asked)) => {
                drop(under_way);
                self.landed(asked);
            }
            _ => {
                under_way.insert(run, None);
            }
        }
    }

    fn landed(&self, asked: Instant) {
        self.note(&self.times, asked.elapsed().as_micros());
        self.places.add_permits(1);
    }

    /// Listens to the worker of `node` until it ends.
    pub(super) async fn listen(
        self: Arc<Self>,
        node: usize,
        mut lines: Lines<BufReader<ChildStdout>>,
    ) {
        while let Ok(Some(line)) = lines.next_line().await {
            match line.split_at_checked(2) {
                Some(("e ", run)) => {
                    if let Ok(run) = run.parse() {
                        self.heard_of_the_end(run, node);
                    }
                }
                Some(("h ", micros)) => {
                    if let Ok(micros) = micros.parse::<u64>() {
                        self.note(&self.hand_offs, micros.into());
                    }
                }
                _ => {}
            }
        }
    }

    /// Starts runs over one connection as long as there is room, at most `at_once` in a request, until told to stop.
    /// `watch_ends`: a run keeps its place until its end is heard of, and its whole time is noted; otherwise the time
    /// of the request.
    async fn start_runs(
        self: Arc<Self>,
        mut starter: Starter,
        at_once: usize,
        watch_ends: bool,
    ) -> anyhow::Result<u64> {
        loop {
            let collecting = self.collecting.lock().await;
            let mut places = self.places.acquire().await?;
            // Ends come in batches; those of one batch are to share a request.
            tokio::task::yield_now().await;
            let mut count = 1;
            while count < at_once
                && let Ok(place) = self.places.try_acquire()
            {
                places.merge(place);
                count += 1;
            }
            drop(collecting);
            if self.stopping.load(Ordering::Relaxed) {
                return Ok(starter.busy);
            }
            let asked = Instant::now();
            let runs = starter.start(count).await?;
            self.started.fetch_add(runs.len() as u64, Ordering::Relaxed);
            if watch_ends {
                // A busy server may have refused some; their places are free again.
                if let Some(taken) = places.split(runs.len()) {
                    taken.forget();
                }
                runs.into_iter().for_each(|run| self.took_off(run, asked));
            } else {
                self.note(&self.times, asked.elapsed().as_micros());
            }
        }
    }

    /// Begins to start runs: `connections` to each of `servers`, at most `at_once` runs in a request.
    pub(super) async fn begin<T: Serialize>(
        self: &Arc<Self>,
        servers: &[String],
        (connections, at_once): (usize, usize),
        workflow: &str,
        input: &T,
        watch_ends: bool,
    ) -> anyhow::Result<JoinSet<anyhow::Result<u64>>> {
        let mut starters = JoinSet::new();
        for _ in 0..connections {
            for server in servers {
                let starter = Starter::connect(server, workflow, input).await?;
                starters.spawn(Arc::clone(self).start_runs(starter, at_once, watch_ends));
            }
        }
        Ok(starters)
    }

    /// Starts no more, and waits until all have ended. Returns how often a server was too busy.
    pub(super) async fn land(
        &self,
        mut starters: JoinSet<anyhow::Result<u64>>,
    ) -> anyhow::Result<u64> {
        self.stopping.store(true, Ordering::Relaxed);
        let size = u32::try_from(self.size)?;
        let all = async {
            drop(self.places.acquire_many(size).await?);
            let mut busy = 0;
            while let Some(ended) = starters.join_next().await {
                busy += ended??;
            }
            anyhow::Ok(busy)
        };
        match tokio::time::timeout(LAND_WITHIN, all).await {
            Ok(busy) => busy,
            Err(_) => {
                let left = self.size - self.places.available_permits();
                bail!(
                    "{left} runs did not end within {LAND_WITHIN:?}; look into the logs with --logs DIR"
                )
            }
        }
    }
}

//! The namespace that nobody attacks: a small steady load of starts, claims, reports and lists, each of which is timed.
//! A cycle begins at its instant, also while earlier ones wait, so that a server that stands still is seen as slow.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::scene::Secrets;
use super::wire::{Wire, request};

/// Interval of cycles.
const EVERY: Duration = Duration::from_millis(25);
/// The most cycles under way; beyond them none begins, which the counts show.
const AT_ONCE: usize = 400;
/// The workflow of the victim.
const WORKFLOW: &str = "steady";

/// The timed requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A run is started.
    Start,
    /// A task is claimed.
    Claim,
    /// A task is reported.
    Report,
    /// Runs are listed.
    List,
    /// An orchestrator asks if the process lives.
    Health,
}

impl Kind {
    /// All of them, in the order in which they are printed.
    pub(super) const ALL: [Kind; 5] =
        [Kind::Start, Kind::Claim, Kind::Report, Kind::List, Kind::Health];
}

/// Responses of the server over some time.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    times: BTreeMap<Kind, Vec<Duration>>,
    /// Number of responses that no attack on another may cause, or of requests without one.
    pub(super) wrong: BTreeMap<String, u64>,
}

impl Seen {
    /// Returns the time within which `permille` of the requests of a kind were answered, in milliseconds.
    #[must_use]
    pub(super) fn within(&self, kind: Kind, permille: usize) -> u64 {
        let mut times = self.times.get(&kind).cloned().unwrap_or_default();
        times.sort_unstable();
        let place = (times.len() * permille).div_ceil(1_000).saturating_sub(1);
        let time = times.get(place).copied().unwrap_or_default();
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
    }

    fn add(&mut self, kind: Kind, took: Duration) {
        self.times.entry(kind).or_default().push(took);
    }

    fn add_wrong(&mut self, wrong: &str) {
        *self.wrong.entry(wrong.to_owned()).or_default() += 1;
    }
}

/// A worker's connection and session, for one cycle after the other.
struct Slot {
    wire: Wire,
    claim: Vec<u8>,
}

/// The victim.
pub(super) struct Victim {
    server: SocketAddr,
    idle: Mutex<Vec<Slot>>,
    seen: Mutex<Seen>,
    cycles: AtomicU64,
    secrets: Secrets,
    list: Vec<u8>,
    health: Vec<u8>,
}

impl Victim {
    /// Returns a victim whose workflow is registered.
    ///
    /// # Errors
    /// When the server does not take it.
    pub(super) async fn new(server: SocketAddr, secrets: &Secrets) -> anyhow::Result<Arc<Victim>> {
        let timeouts = json!({ "heartbeat": "30s", "attempt": "60s" });
        let task = json!({ "name": "h", "class": "read_only", "input": { "path": "/input" }, "timeouts": timeouts });
        let definition =
            json!({ "name": WORKFLOW, "version": 1, "steps": [{ "id": "a", "task": task }] });
        let path = format!("/v1/workflows/{WORKFLOW}/versions/1");
        let put = request("PUT", &path, &secrets.admin, &definition.to_string());
        let answer = Wire::new(server, None).ask(&put, true).await?;
        let said = String::from_utf8_lossy(&answer.body).into_owned();
        ensure!(answer.status < 300, "the victim's workflow: {} {said}", answer.status);
        Ok(Arc::new(Victim {
            server,
            idle: Mutex::default(),
            seen: Mutex::default(),
            cycles: AtomicU64::new(0),
            list: request("GET", "/v1/runs?limit=20", &secrets.viewer, ""),
            health: request("GET", "/livez", &secrets.viewer, ""),
            secrets: secrets.clone(),
        }))
    }

    /// Works for `span` and waits until all is answered.
    pub(super) async fn work(self: &Arc<Self>, span: Duration) -> Seen {
        self.seen().times.clear();
        self.seen().wrong.clear();
        let (began, mut under_way) = (Instant::now(), JoinSet::new());
        let mut ticks = tokio::time::interval(EVERY);
        while began.elapsed() < span {
            ticks.tick().await;
            while under_way.try_join_next().is_some() {}
            if under_way.len() >= AT_ONCE {
                self.seen().add_wrong("cycle that could not begin");
                continue;
            }
            let own = Arc::clone(self);
            under_way.spawn(async move { own.cycle().await });
        }
        under_way.join_all().await;
        std::mem::take(&mut *self.seen())
    }

    /// Starts a run, does what there is to do, and looks. A request that failed is noted, and ends the cycle.
    async fn cycle(&self) {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut slot = idle.unwrap_or_else(|| self.slot());
        // It was noted.
        let _ = self.steps(&mut slot).await;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
    }

    async fn steps(&self, slot: &mut Slot) -> Option<()> {
        let number = self.cycles.fetch_add(1, Ordering::Relaxed);
        let start = json!({ "workflow": WORKFLOW, "input": { "number": number } }).to_string();
        let start = request("POST", "/v1/runs", &self.secrets.starter, &start);
        self.timed(Kind::Start, &mut slot.wire, &start).await?;
        let claimed = self.timed(Kind::Claim, &mut slot.wire, &slot.claim).await?;
        match report_of(&claimed) {
            Ok(report) => {
                let report = report.to_string();
                let report = request("POST", "/v1/tasks/complete", &self.secrets.worker, &report);
                self.timed(Kind::Report, &mut slot.wire, &report).await?;
            }
            Err(_) => self.seen().add_wrong("Claim without a task"),
        }
        self.timed(Kind::List, &mut slot.wire, &self.list).await?;
        self.timed(Kind::Health, &mut slot.wire, &self.health).await?;
        Some(())
    }

    fn slot(&self) -> Slot {
        let session = Uuid::new_v4();
        let claim = json!({
            "worker": format!("victim-{session}"), "session": session, "queues": { "default": ["h"] }, "max": 1,
            "wait": "5s",
        });
        let claim = request("POST", "/v1/tasks/claim", &self.secrets.worker, &claim.to_string());
        Slot { wire: Wire::new(self.server, None), claim }
    }

    /// Asks, notes how long it took, and answers the body if all was well.
    async fn timed(&self, kind: Kind, wire: &mut Wire, request: &[u8]) -> Option<Vec<u8>> {
        let began = Instant::now();
        let answer = wire.ask(request, true).await;
        let took = began.elapsed();
        let (body, wrong) = match answer {
            Ok(answer) if answer.status < 300 => (Some(answer.body), None),
            Ok(answer) => (None, Some(format!("{kind:?} {}", answer.status))),
            Err(error) => (None, Some(format!("{kind:?} {}", error.kind()))),
        };
        self.seen().add(kind, took);
        wrong.iter().for_each(|wrong| self.seen().add_wrong(wrong));
        body
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the report of a claimed task: it was done.
fn report_of(claimed: &[u8]) -> anyhow::Result<Value> {
    let claimed: Value = serde_json::from_slice(claimed)?;
    let task = claimed.pointer("/tasks/0").context("no task")?;
    Ok(json!({ "results": [done(task)] }))
}

/// Returns the element of a report that says that `task` was done. What proves that its lease is ours comes back as it
/// came.
#[must_use]
pub(super) fn done(task: &Value) -> Value {
    let mut result = json!({ "outcome": { "succeeded": { "output": null } } });
    for name in ["run", "step", "action", "attempt", "lease"] {
        if let Some(value) = task.get(name) {
            result[name] = value.clone();
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_99_of_100_is_the_second_longest_of_200() {
        let mut seen = Seen::default();
        (1..=200).for_each(|ms| seen.add(Kind::List, Duration::from_millis(ms)));
        assert_eq!(seen.within(Kind::List, 990), 198);
        assert_eq!(seen.within(Kind::List, 500), 100);
        assert_eq!(seen.within(Kind::Start, 990), 0);
    }
}

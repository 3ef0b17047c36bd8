//! The services of the bad night as processes, and what their ledgers say; and what the journals say of the bank.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use backstitch_sdk::{Client, RunQuery};
use backstitch_shop::desk::LedgerView;
use backstitch_shop::ledger::{Fact, Ledger, Standing};
use backstitch_shop::process::Process;
use serde_json::{Value, json};
use tokio::process::Command;
use uuid::Uuid;

use super::PATIENCE;

/// A process with a ledger in a file, always at one address.
pub(super) struct Service {
    name: &'static str,
    address: SocketAddr,
    directory: PathBuf,
    process: Process,
    http: reqwest::Client,
}

impl Service {
    pub(super) async fn start(name: &'static str) -> Service {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let directory = std::env::temp_dir().join(format!("backstitch-night-{}", Uuid::new_v4()));
        std::fs::create_dir_all(&directory).unwrap();
        let process = spawn(name, address, &directory).await;
        Service { name, address, directory, process, http: reqwest::Client::new() }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `kill -9`.
    pub(super) async fn kill(&mut self) {
        self.process.kill().await.unwrap();
    }

    pub(super) async fn start_again(&mut self) {
        self.process = spawn(self.name, self.address, &self.directory).await;
    }

    async fn ledger(&self) -> LedgerView {
        let answer = self.http.get(format!("{}/ledger", self.url())).send().await.unwrap();
        answer.json().await.unwrap()
    }

    /// Waits until so many effects happened.
    pub(super) async fn reached(&self, count: usize) {
        let began = Instant::now();
        while self.ledger().await.entries.len() < count {
            assert!(began.elapsed() < PATIENCE, "{} has not {count} entries", self.name);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Sets the switchboard of its faults.
    pub(super) async fn misbehave(&self, faults: &Value) {
        let request = self.http.put(format!("{}/faults", self.url())).json(faults);
        assert!(request.send().await.unwrap().status().is_success());
    }

    /// An operator gives money back at the bank's own console.
    pub(super) async fn refund_by_hand(&self, order: &str, key: Uuid) {
        let own = Uuid::new_v4().to_string();
        let request = self.http.post(format!("{}/refunds", self.url()));
        let request = request.header("idempotency-key", own);
        let answer = request.json(&json!({ "order": order, "key": key })).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// Returns the remaining effects, by order.
    pub(super) async fn standing(&self) -> Vec<(String, Value)> {
        let view = self.ledger().await;
        let mut ledger = Ledger::new("");
        for entry in &view.entries {
            ledger.restore(entry.clone()).unwrap();
        }
        let done = view.entries.iter().filter_map(|entry| match (&entry.fact, entry.key) {
            (Fact::Done { effect, .. }, key) => match ledger.standing(key) {
                Standing::Done { .. } => Some((entry.order.clone(), json!(effect))),
                _ => None,
            },
            _ => None,
        });
        let mut done: Vec<(String, Value)> = done.collect();
        done.sort_by(|a, b| a.0.cmp(&b.0));
        done
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

async fn spawn(name: &str, address: SocketAddr, directory: &std::path::Path) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backstitch-under-test"));
    command.args(["shop", name, "--with-parent", "--listen", &address.to_string(), "--ledger"]);
    command.arg(directory.join("ledger"));
    let (process, _) = Process::start(name, &mut command, &directory.join("log")).await.unwrap();
    process
}

/// Failures of attempts at the bank.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Attempts {
    /// It was not reached, which spends no attempt.
    pub(super) unavailable: usize,
    /// In any other way.
    pub(super) spent: usize,
}

/// Returns the failures of attempts at the bank, from the histories of all runs.
pub(super) async fn attempts_at_the_bank(client: &Client) -> Attempts {
    let mut attempts = Attempts::default();
    for run in client.runs(RunQuery::new().limit(1_000)).all().await.unwrap() {
        for entry in client.history(run.id).all().await.unwrap() {
            let event: Value = serde_json::from_str(entry.event.text()).unwrap();
            let failed = &event["failed"];
            if failed["step"] == "charge" {
                match failed["error"]["kind"].as_str().unwrap() {
                    "unavailable" => attempts.unavailable += 1,
                    _ => attempts.spent += 1,
                }
            }
        }
    }
    attempts
}

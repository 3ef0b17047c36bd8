//! Means of an attack: the secrets of its namespace, connections of its own, and a count of the responses.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::scene::Secrets;
use super::wire::{self, Answer, Wire, request};

/// Orders of the attacking process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Orders {
    /// The attacks, which go on at once.
    pub(super) attacks: Vec<String>,
    /// The server.
    pub(super) server: SocketAddr,
    /// Its database, for what applications may do there.
    pub(super) database_url: String,
    /// The secrets of the namespace that attacks.
    pub(super) secrets: Secrets,
    /// For how many seconds.
    pub(super) seconds: u64,
    /// From which all that is left to chance follows.
    pub(super) seed: u64,
}

/// Number of responses to the attacker: by status with the code of the problem.
pub(super) type Tally = BTreeMap<String, u64>;

/// Means of an attack.
pub(super) struct Arms {
    /// Orders of the process.
    pub(super) orders: Arc<Orders>,
    tally: Arc<Mutex<Tally>>,
    /// Held until the attack is prepared.
    preparing: Mutex<Option<mpsc::Sender<()>>>,
    begun: watch::Receiver<Option<Instant>>,
}

impl Arms {
    /// Arms of an attack that begins when `begun` says so; `preparing` is dropped when it could.
    #[must_use]
    pub(super) fn new(
        orders: &Arc<Orders>,
        tally: &Arc<Mutex<Tally>>,
        preparing: mpsc::Sender<()>,
        begun: watch::Receiver<Option<Instant>>,
    ) -> Arc<Arms> {
        Arc::new(Arms {
            orders: Arc::clone(orders),
            tally: Arc::clone(tally),
            preparing: Mutex::new(Some(preparing)),
            begun,
        })
    }

    /// Returns the secrets.
    #[must_use]
    pub(super) fn secrets(&self) -> &Secrets {
        &self.orders.secrets
    }

    /// Waits for the beginning once all is prepared.
    pub(super) async fn prepared(&self) {
        drop(self.preparing.lock().unwrap_or_else(PoisonError::into_inner).take());
        // An error says that nobody will begin any more, and so that it is over.
        drop(self.begun.clone().wait_for(Option::is_some).await);
    }

    /// Returns whether it goes on.
    #[must_use]
    pub(super) fn goes_on(&self) -> bool {
        !self.left().is_zero()
    }

    /// Returns the time left.
    #[must_use]
    pub(super) fn left(&self) -> Duration {
        let span = Duration::from_secs(self.orders.seconds);
        self.begun.borrow().map_or(span, |begun| span.saturating_sub(begun.elapsed()))
    }

    /// Does something until it is over.
    pub(super) async fn until_over(&self, doing: impl Future<Output = ()>) {
        // That it is over is no failure.
        let _ = tokio::time::timeout(self.left(), doing).await;
    }

    /// Counts an answer.
    pub(super) fn count(&self, answer: &std::io::Result<Answer>) {
        let line = match answer {
            Ok(answer) if answer.status < 400 => answer.status.to_string(),
            Ok(answer) => format!("{} {}", answer.status, code_of(&answer.body)),
            Err(error) => error.kind().to_string(),
        };
        self.note(line);
    }

    /// Counts something else.
    pub(super) fn note(&self, line: String) {
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner).entry(line).or_default() += 1;
    }

    /// Returns a connection.
    #[must_use]
    pub(super) fn wire(&self) -> Wire {
        Wire::new(self.orders.server, wire::ATTACKER.parse().ok())
    }

    /// Asks once, and answers the status and the body.
    ///
    /// # Errors
    /// When there is no answer.
    pub(super) async fn ask(
        &self,
        secret: &str,
        method: &str,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<(u16, Value)> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.wire().ask(&request(method, path, secret, &body), true).await;
        self.count(&answer);
        let answer = answer?;
        Ok((answer.status, serde_json::from_slice(&answer.body).unwrap_or_default()))
    }

    /// Registers a workflow, and says if it was taken.
    ///
    /// # Errors
    /// When there is no answer.
    pub(super) async fn register(&self, definition: &Value) -> anyhow::Result<bool> {
        let path = format!(
            "/v1/workflows/{}/versions/{}",
            definition["name"].as_str().unwrap_or_default(),
            definition["version"]
        );
        let (status, _) = self.ask(&self.secrets().worker, "PUT", &path, definition).await?;
        Ok(status < 300)
    }

    /// Registers a workflow that is as it should be.
    ///
    /// # Errors
    /// When it is refused.
    pub(super) async fn must_register(&self, definition: &Value) -> anyhow::Result<()> {
        ensure!(self.register(definition).await?, "{} is refused", definition["name"]);
        Ok(())
    }

    /// Starts a run and answers its id.
    ///
    /// # Errors
    /// When it is refused.
    pub(super) async fn start(&self, workflow: &str, input: &Value) -> anyhow::Result<String> {
        let body = json!({ "workflow": workflow, "input": input });
        let (status, said) = self.ask(&self.secrets().starter, "POST", "/v1/runs", &body).await?;
        let id = said["id"].as_str().or_else(|| said["run"].as_str());
        Ok(id.with_context(|| format!("a start of {workflow}: {status} {said}"))?.to_owned())
    }

    /// Sends requests until it is over, over `tasks` connections, each one after the other; `make` makes the n-th
    /// request of a task.
    pub(super) async fn hammer(
        self: &Arc<Self>,
        tasks: usize,
        make: impl Fn(usize, usize) -> Arc<[u8]> + Send + Sync + 'static,
    ) {
        let (make, mut all) = (Arc::new(make), JoinSet::new());
        for task in 0..tasks {
            let (arms, make) = (Arc::clone(self), Arc::clone(&make));
            all.spawn(async move {
                let mut wire = arms.wire();
                for number in 0.. {
                    if !arms.goes_on() {
                        return;
                    }
                    let request = make(task, number);
                    let asked = tokio::time::timeout(arms.left(), wire.ask(&request, false));
                    // What is not answered when it is over is nobody's any more.
                    let Ok(answer) = asked.await else { return };
                    arms.count(&answer);
                }
            });
        }
        all.join_all().await;
    }

    /// The same with one request, over and over.
    pub(super) async fn repeat(self: &Arc<Self>, tasks: usize, request: Vec<u8>) {
        let request: Arc<[u8]> = request.into();
        self.hammer(tasks, move |_, _| Arc::clone(&request)).await;
    }

    /// Opens connections, sends `bytes` on each, and holds them until it is over; what was closed is opened again. With
    /// `deaf`, nothing is read: an answer stays where it is.
    pub(super) async fn hold(self: &Arc<Self>, connections: usize, bytes: Vec<u8>, deaf: bool) {
        let (bytes, mut all): (Arc<[u8]>, _) = (bytes.into(), JoinSet::new());
        for number in 0..connections {
            let (arms, bytes) = (Arc::clone(self), Arc::clone(&bytes));
            all.spawn(async move {
                // Not all in the same instant, which the attacker's machine would feel most.
                let turn = u32::try_from(number).unwrap_or_default();
                tokio::time::sleep(Duration::from_micros(100) * turn).await;
                while arms.goes_on() {
                    let line = match tokio::time::timeout(arms.left(), arms.hold_one(&bytes, deaf))
                        .await
                    {
                        Ok(Ok(line)) => line,
                        Ok(Err(error)) => error.kind().to_string(),
                        Err(_) => "held".to_owned(),
                    };
                    arms.note(line);
                    arms.until_over(tokio::time::sleep(Duration::from_millis(500))).await;
                }
            });
        }
        all.join_all().await;
    }

    /// Holds one connection until the server answers or closes it; which of them.
    async fn hold_one(&self, bytes: &[u8], deaf: bool) -> std::io::Result<String> {
        let mut stream = wire::connect(self.orders.server, wire::ATTACKER.parse().ok()).await?;
        stream.write_all(bytes).await?;
        if deaf {
            std::future::pending::<()>().await;
        }
        let mut beginning = [0; 512];
        let read = stream.read(&mut beginning).await?;
        let status = beginning.get(9..12).filter(|_| read > 12);
        let status = status.map(|status| String::from_utf8_lossy(status).into_owned());
        Ok(status.unwrap_or_else(|| "closed".to_owned()))
    }
}

/// Returns the code of a problem, as far as its beginning tells.
fn code_of(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let code = body.pointer("/violations/0/code").or_else(|| body.pointer("/code"));
    code.and_then(Value::as_str).unwrap_or_default().to_owned()
}

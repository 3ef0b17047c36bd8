//! The shape `office`: everything that people and applications ask of an engine beside starting runs and working on
//! them, one thing after the other. Each is asked for until it is known what came of it, since the engine may die.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tokio::time::sleep;
use uuid::Uuid;

use crate::client::{Api, Saw};
use crate::program::Program;
use crate::worker::Script;

/// Time that anything here may take.
pub(crate) const WITHIN: Duration = Duration::from_secs(40);

/// Does all of it, on the database at `database_url`. Returns the runs on which it acted.
///
/// # Errors
/// When something could not be brought to its end.
pub async fn work(api: &Api, database_url: &str) -> anyhow::Result<Vec<Uuid>> {
    Office::new(api, database_url).all().await
}

/// Somebody who asks for everything.
pub(crate) struct Office<'a> {
    api: &'a Api,
    database_url: &'a str,
    /// The runs on which it acted.
    pub(crate) runs: Vec<Uuid>,
    session: Uuid,
}

pub(crate) fn reason() -> Value {
    json!({ "reason": "chaos" })
}

fn scripted(script: &Script) -> Value {
    json!({ "object": { "script": { "const": script } } })
}

/// Returns the workflows of the office.
fn definitions() -> Vec<Value> {
    let reads = Script { adds: 1, reads: true, ..Script::default() };
    let timeouts = json!({ "heartbeat": "1500ms", "attempt": "20s" });
    let solo = json!({ "id": "a", "task": { "name": "do", "class": "read_only", "input": scripted(&reads),
        "timeouts": timeouts } });
    let nobody = json!({ "id": "a", "task": { "name": "nobody", "class": "read_only", "input": { "const": null } } });
    // It gives up after one attempt; tried again by hand it succeeds.
    let fails = Script { fails: 1, ..reads };
    let stuck = json!({ "id": "a", "task": { "name": "do", "class": "read_only", "input": scripted(&fails),
        "on_failure": "incident", "retry": { "max_attempts": 1 }, "timeouts": timeouts } });
    let tx = json!({ "id": "a", "task": { "name": "tx", "transactional": true, "input": { "const": null },
        "compensate": { "name": "tx-undo" }, "timeouts": timeouts } });
    let wait = json!({ "id": "a", "wait": { "signal": "go" } });
    let workflow = |name: &str, version: u32, step: &Value| json!({ "name": name, "version": version, "steps": [step] });
    vec![
        workflow("office-solo", 1, &solo),
        workflow("office-nobody", 1, &nobody),
        workflow("office-stuck", 1, &stuck),
        workflow("office-tx", 1, &tx),
        workflow("office-wait", 1, &wait),
        workflow("office-wait", 2, &wait),
    ]
}

impl<'a> Office<'a> {
    /// Somebody who asks `api`, and the database at `database_url`.
    pub(crate) fn new(api: &'a Api, database_url: &'a str) -> Office<'a> {
        Office { api, database_url, runs: Vec::new(), session: Uuid::new_v4() }
    }

    async fn all(mut self) -> anyhow::Result<Vec<Uuid>> {
        for definition in definitions() {
            let (name, version) = (&definition["name"], &definition["version"]);
            let path = format!("/v1/workflows/{}/versions/{version}", name.as_str().unwrap_or(""));
            self.ask(Method::PUT, &path, Some(&definition)).await?;
        }
        self.ask(Method::GET, "/readyz", None).await.context("readiness")?;
        self.credentials().await.context("credentials")?;
        self.governed().await.context("a governed queue")?;
        self.paused().await.context("a paused workflow")?;
        self.schedule().await.context("a schedule")?;
        self.early_signal().await.context("an early signal")?;
        self.in_transactions().await.context("starts in transactions")?;
        self.incidents().await.context("incidents and a job")?;
        self.migration().await.context("a migration")?;
        self.transactional().await.context("transactional tasks")?;
        self.refused().await.context("refused requests")?;
        Ok(self.runs)
    }

    /// Asks until it is known what came of it. That it was done before, or is not there any more, is no error: the
    /// engine may have died after the commit, before the answer was kept.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let key = if method == Method::POST { Uuid::new_v4().to_string() } else { String::new() };
        match self.api.ask(method.clone(), path, body, &key, WITHIN).await {
            Saw::Ok(value) => Ok(value),
            Saw::Refused { status: 404 | 409, .. } => Ok(Value::Null),
            other => bail!("{method} {path}: {other:?}"),
        }
    }

    pub(crate) async fn start(&mut self, workflow: &str, key: &str) -> anyhow::Result<Uuid> {
        let run = self.api.start(workflow, &format!("office-{key}")).await?;
        self.runs.push(run);
        Ok(run)
    }

    /// Looks at a document until `is` holds of it.
    pub(crate) async fn until(
        &self,
        path: &str,
        is: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let until = Instant::now() + WITHIN;
        loop {
            if let Saw::Ok(value) = self.api.once(Method::GET, path, None, "").await
                && is(&value)
            {
                return Ok(value);
            }
            if Instant::now() > until {
                bail!("{path} does not become what it should");
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the database knows of no fact that a run awaits.
    pub(crate) async fn awaits_nothing(&self, run: Uuid) -> anyhow::Result<()> {
        let until = Instant::now() + WITHIN;
        let awaits = "select exists (select from awaited where run_id = $1)";
        let mut sql = PgConnection::connect(self.database_url).await?;
        while sqlx::query_scalar(awaits).bind(run).fetch_one(&mut sql).await? {
            ensure!(Instant::now() < until, "{run} awaits a fact that it was let begin without");
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    pub(crate) async fn ended(&self, run: Uuid) -> anyhow::Result<Value> {
        self.until(&format!("/v1/runs/{run}"), |run| run["state"] == "ended").await
    }

    async fn credentials(&self) -> anyhow::Result<()> {
        // A name is given once.
        let path = format!("/v1/credentials/office-{}", Uuid::new_v4().simple());
        self.ask(Method::PUT, &path, Some(&json!({ "role": "worker" }))).await?;
        self.ask(Method::POST, &format!("{path}/rotate"), Some(&json!({ "overlap": "1m" })))
            .await?;
        self.ask(Method::DELETE, &path, None).await?;
        let role = "/v1/database-roles/pg_monitor";
        self.ask(Method::PUT, role, None).await?;
        self.ask(Method::DELETE, role, None).await?;
        Ok(())
    }

    /// A queue is governed while a task waits on it that came before.
    async fn governed(&mut self) -> anyhow::Result<()> {
        let waits = self.start("office-nobody", "before").await?;
        let path = "/v1/queues/default";
        self.ask(Method::PUT, path, Some(&json!({ "concurrency": 2 }))).await?;
        for number in 0..3 {
            let run = self.start("office-solo", &format!("governed-{number}")).await?;
            self.ended(run).await?;
        }
        self.ask(Method::DELETE, path, None).await?;
        self.ask(Method::POST, &format!("/v1/runs/{waits}/cancel"), Some(&reason())).await?;
        Ok(())
    }

    async fn paused(&mut self) -> anyhow::Result<()> {
        self.ask(Method::POST, "/v1/workflows/office-solo/pause", Some(&reason())).await?;
        let run = self.start("office-solo", "paused").await?;
        self.ask(Method::POST, "/v1/workflows/office-solo/resume", Some(&reason())).await?;
        self.ended(run).await.map(|_| ())
    }

    async fn schedule(&self) -> anyhow::Result<()> {
        let spec = json!({ "cron": "* * * * *", "time_zone": "UTC", "workflow": "office-solo" });
        self.ask(Method::PUT, "/v1/schedules/office", Some(&spec)).await?;
        self.ask(Method::POST, "/v1/schedules/office/trigger", Some(&reason())).await?;
        self.ask(Method::POST, "/v1/schedules/office/pause", Some(&reason())).await?;
        self.ask(Method::DELETE, "/v1/schedules/office", None).await?;
        Ok(())
    }

    async fn early_signal(&mut self) -> anyhow::Result<()> {
        let early = json!({ "workflow": "office-wait", "key": "office-early", "signal": "go", "data": { "v": 1 } });
        self.ask(Method::POST, "/v1/signals", Some(&early)).await?;
        let run = self.start("office-wait", "early").await?;
        self.ended(run).await.map(|_| ())
    }

    async fn sql(&self) -> anyhow::Result<PgConnection> {
        Ok(PgConnection::connect(self.database_url).await?)
    }

    async fn in_transactions(&mut self) -> anyhow::Result<()> {
        let mut sql = self.sql().await?;
        let start = "select backstitch.start_run($1, 'null'::jsonb)";
        let run: Uuid = sqlx::query_scalar(start).bind("office-solo").fetch_one(&mut sql).await?;
        self.runs.push(run);
        self.ended(run).await?;
        let _: Uuid = sqlx::query_scalar(start).bind("office-nowhere").fetch_one(&mut sql).await?;
        let refused = self
            .until("/v1/start-requests?state=refused", |list| list["items"][0]["id"].is_string())
            .await?;
        let id = refused["items"][0]["id"].as_str().unwrap_or_default().to_owned();
        self.ask(Method::POST, &format!("/v1/start-requests/{id}/dismiss"), Some(&reason()))
            .await?;
        Ok(())
    }

    /// Two runs need a person, who looks at one and lets a job try both again, one of them as a canary.
    async fn incidents(&mut self) -> anyhow::Result<()> {
        let runs =
            [self.start("office-stuck", "one").await?, self.start("office-stuck", "two").await?];
        let list = "/v1/incidents?workflow=office-stuck";
        let both = |list: &Value| list["items"].as_array().is_some_and(|all| all.len() == 2);
        let found = self.until(list, both).await?;
        let first = found["items"][0]["id"].as_str().unwrap_or_default().to_owned();
        let assign = json!({ "assignee": "ann" });
        self.ask(Method::POST, &format!("/v1/incidents/{first}/assign"), Some(&assign)).await?;
        let note = json!({ "note": "seen" });
        self.ask(Method::POST, &format!("/v1/incidents/{first}/note"), Some(&note)).await?;
        let job = json!({
            "verb": "retry", "incidents": { "workflow": "office-stuck" }, "reason": "chaos",
            "canary": { "first": 1, "wait": "20s" },
        });
        let job = self.ask(Method::POST, "/v1/jobs", Some(&job)).await?;
        let path = format!("/v1/jobs/{}", job["id"].as_str().unwrap_or_default());
        self.until(&path, |job| job["state"] == "done" || job["state"] == "stopped").await?;
        // It stops when the attempt of its canary is lost with the engine; then a person goes on.
        let until = Instant::now() + WITHIN;
        for run in runs {
            while !self.ended_now(run).await && Instant::now() < until {
                self.ask(Method::POST, &format!("/v1/runs/{run}/retry"), Some(&reason())).await?;
                sleep(Duration::from_millis(500)).await;
            }
            self.ended(run).await?;
        }
        let stopped = json!({ "verb": "retry", "incidents": { "workflow": "office-solo" }, "reason": "chaos" });
        let job = self.ask(Method::POST, "/v1/jobs", Some(&stopped)).await?;
        let id = job["id"].as_str().unwrap_or_default();
        self.ask(Method::POST, &format!("/v1/jobs/{id}/stop"), Some(&reason())).await?;
        Ok(())
    }

    async fn migration(&mut self) -> anyhow::Result<()> {
        let body =
            json!({ "workflow": "office-wait", "version": 1, "key": "moves", "input": null });
        let started = self.ask(Method::POST, "/v1/runs", Some(&body)).await?;
        let run = crate::client::id_of(&started)?;
        self.runs.push(run);
        let ask = json!({ "from": 1, "to": 2, "reason": "chaos" });
        self.ask(Method::POST, "/v1/workflows/office-wait/migrations", Some(&ask)).await?;
        self.until(&format!("/v1/runs/{run}"), |run| run["version"] == 2).await?;
        self.api.signal(run, "go", 1).await?;
        self.ended(run).await.map(|_| ())
    }

    /// One task is completed in a transaction and never reported, one is completed and reported, one is cancelled.
    async fn transactional(&mut self) -> anyhow::Result<()> {
        for key in ["silent", "told", "cancelled"] {
            let run = self.start("office-tx", key).await?;
            let until = Instant::now() + WITHIN;
            loop {
                if self.ended_now(run).await || Instant::now() > until {
                    break;
                }
                let task = self.claim_tx().await;
                let Some(task) = task.filter(|task| task["run"] == json!(run)) else { continue };
                if task["action"] == "compensate" || key == "told" {
                    self.complete(&task).await;
                    self.api.report(&[&task], &json!({ "v": 1 })).await;
                } else if key == "silent" {
                    self.complete(&task).await;
                } else {
                    let path = format!("/v1/runs/{run}/cancel");
                    self.ask(Method::POST, &path, Some(&reason())).await?;
                }
            }
            self.ended(run).await?;
        }
        Ok(())
    }

    async fn ended_now(&self, run: Uuid) -> bool {
        let saw = self.api.once(Method::GET, &format!("/v1/runs/{run}"), None, "").await;
        matches!(saw, Saw::Ok(view) if view["state"] == "ended")
    }

    async fn claim_tx(&self) -> Option<Value> {
        let names = json!({ "default": ["tx", "tx-undo"] });
        let body = json!({
            "worker": "office", "session": self.session, "max": 1, "wait": "300ms", "queues": names,
        });
        match self.api.once(Method::POST, "/v1/tasks/claim", Some(&body), "").await {
            Saw::Ok(claimed) => claimed["tasks"].as_array()?.first().cloned(),
            _ => None,
        }
    }

    /// Completes a task in a transaction. One whose attempt is over is refused, and comes again.
    async fn complete(&self, task: &Value) {
        let Ok(mut sql) = self.sql().await else { return };
        let text = |name: &str| task[name].as_str().unwrap_or_default().to_owned();
        let run: Uuid = text("run").parse().unwrap_or_default();
        let attempt = task["attempt"].as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or(0);
        let complete =
            "select backstitch.complete_task($1, $2, $3, $4, '{\"v\": 1}'::jsonb, lease => $5)";
        let query = sqlx::query(complete).bind(run).bind(text("step")).bind(text("action"));
        let _ = query.bind(attempt).bind(text("lease")).execute(&mut sql).await;
    }

    /// Requests under a key that do nothing: what they ask for is not there, or cannot be written.
    async fn refused(&mut self) -> anyhow::Result<()> {
        let nobody = format!("/v1/runs/{}/cancel", Uuid::now_v7());
        self.ask(Method::POST, &nobody, Some(&reason())).await?;
        let run = self.start("office-wait", "pill").await?;
        let mut sql = self.sql().await?;
        sqlx::query(
            "alter table journal add constraint no_pill check (payloads not like '%pill%')",
        )
        .execute(&mut sql)
        .await?;
        let pill = json!({ "data": { "pill": true } });
        let path = format!("/v1/runs/{run}/signals/go");
        let key = Uuid::new_v4().to_string();
        // It is answered 500, which is as it should be.
        let _ = self.api.ask(Method::POST, &path, Some(&pill), &key, WITHIN).await;
        sqlx::query("alter table journal drop constraint no_pill").execute(&mut sql).await?;
        self.api.signal(run, "go", 1).await?;
        self.ended(run).await.map(|_| ())
    }
}

/// Returns the program whose runs go on beside it.
#[must_use]
pub fn program() -> Program {
    let adds = |adds| Script { adds, ..Script::default() };
    Program::new("office").task("a", &[], adds(1)).task("b", &["a"], adds(2))
}

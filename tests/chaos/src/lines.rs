//! The shape `lines`: everything about serial keys and facts, one thing after the other. Each is asked for until it is
//! known what came of it, since the engine may die.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::sleep;
use uuid::Uuid;

use crate::client::{Api, Saw};
use crate::office::{Office, WITHIN, reason};
use crate::program::Program;
use crate::worker::Script;

/// Does all of it, on the database at `database_url`. Returns the runs on which it acted.
///
/// # Errors
/// When something could not be brought to its end.
pub async fn work(api: &Api, database_url: &str) -> anyhow::Result<Vec<Uuid>> {
    let mut lines = Lines { office: Office::new(api, database_url), api };
    for definition in definitions() {
        let name = definition["name"].as_str().unwrap_or_default();
        let path = format!("/v1/workflows/{name}/versions/1");
        lines.office.ask(Method::PUT, &path, Some(&definition)).await?;
    }
    lines.policies().await.context("policies of a serial key")?;
    lines.promised().await.context("a fact that another run promises")?;
    lines.overdue().await.context("a fact that does not come")?;
    Ok(lines.office.runs)
}

/// Returns the program whose runs go on beside it: one at a time, and none before its fact.
#[must_use]
pub fn program() -> Program {
    let adds = |adds| Script { adds, ..Script::default() };
    let two = Program::new("lines").task("a", &[], adds(1)).task("b", &["a"], adds(2));
    two.in_line("lines-key", "lines.open", "lines-door")
}

fn definitions() -> Vec<Value> {
    let reads = Script { adds: 1, reads: true, ..Script::default() };
    let input = json!({ "object": { "script": { "const": reads } } });
    let timeouts = json!({ "heartbeat": "1500ms", "attempt": "20s" });
    let task = json!({ "id": "a", "task": { "name": "do", "class": "read_only", "input": input, "timeouts": timeouts } });
    let wait = json!({ "id": "a", "wait": { "signal": "go" } });
    let fact = json!([{ "fact": "lines.made", "on": { "path": "/input" } }]);
    let workflow = |name: &str, step: &Value, sequence: Value| json!({ "name": name, "version": 1, "steps": [step], "sequence": sequence });
    vec![
        workflow("lines-hold", &wait, json!({ "serial_key": { "const": "lines-hold" } })),
        workflow("lines-maker", &task, json!({ "produces": fact })),
        workflow("lines-taker", &task, json!({ "requires": fact })),
        workflow(
            "lines-late",
            &wait,
            json!({
                "requires": [{ "fact": "lines.late", "on": { "path": "/input" } }], "requires_within": "1s",
            }),
        ),
    ]
}

struct Lines<'a> {
    office: Office<'a>,
    api: &'a Api,
}

impl Lines<'_> {
    /// Starts a run, and asks until it is known. `None` when it was refused.
    async fn start(
        &mut self,
        workflow: &str,
        key: &str,
        policy: &str,
        input: &str,
    ) -> anyhow::Result<Option<Uuid>> {
        let body = json!({
            "workflow": workflow, "key": format!("lines-{key}"), "input": input,
            "sequence": { "on_conflict": policy },
        });
        match self.api.ask(Method::POST, "/v1/runs", Some(&body), "", WITHIN).await {
            Saw::Ok(started) => {
                let run = crate::client::id_of(&started)?;
                self.office.runs.push(run);
                Ok(Some(run))
            }
            Saw::Refused { status: 409, code } if code == "key_held" => Ok(None),
            other => anyhow::bail!("a start of {workflow} with {policy}: {other:?}"),
        }
    }

    /// One holds the key, others come to the line in every way.
    async fn policies(&mut self) -> anyhow::Result<()> {
        let holds = self.start("lines-hold", "holds", "queue", "").await?.context("no run")?;
        let path = format!("/v1/runs/{holds}");
        self.office.until(&path, |run| run["state"] == "waiting").await?;
        let queued = self.start("lines-hold", "queues", "queue", "").await?.context("no run")?;
        let last =
            self.start("lines-hold", "coalesces", "coalesce", "").await?.context("no run")?;
        let same = self.start("lines-hold", "existing", "use_existing", "").await?;
        ensure!(same == Some(holds), "use_existing was answered with {same:?}, not {holds}");
        let refused = self.start("lines-hold", "rejects", "reject", "").await?;
        ensure!(refused.is_none(), "a start that rejects was let in as {refused:?}");
        let replaced = self.office.ended(queued).await?;
        ensure!(replaced["outcome"] == "cancelled", "{queued} was replaced: {replaced}");
        self.api.signal(holds, "go", 1).await?;
        self.office.ended(holds).await?;
        self.api.signal(last, "go", 1).await?;
        self.office.ended(last).await.map(drop)
    }

    /// A run requires what another establishes when it has succeeded.
    async fn promised(&mut self) -> anyhow::Result<()> {
        let taker =
            self.start("lines-taker", "takes", "queue", "thing").await?.context("no run")?;
        self.start("lines-maker", "makes", "queue", "thing").await?;
        let taken = self.office.ended(taker).await?;
        ensure!(taken["outcome"] == "succeeded", "{taker} required what was made: {taken}");
        Ok(())
    }

    /// A fact does not come: a person has the run wait once more, then begin without; for another it comes after all.
    async fn overdue(&mut self) -> anyhow::Result<()> {
        let skips = self.start("lines-late", "skips", "queue", "never").await?.context("no run")?;
        let comes = self.start("lines-late", "comes", "queue", "late").await?.context("no run")?;
        for run in [skips, comes] {
            self.unmet(run).await?;
        }
        self.act(skips, "retry").await?;
        self.unmet(skips).await?;
        self.act(skips, "skip-requirements").await?;
        self.api.establish("lines.late", "late").await?;
        for run in [skips, comes] {
            // A run that ends at once is forgotten as one that has ended, not as one that waits no more.
            self.office.awaits_nothing(run).await?;
            self.api.signal(run, "go", 1).await?;
            self.office.ended(run).await?;
        }
        let withdraw = "/v1/facts/late/lines.late/withdraw";
        self.office.ask(Method::POST, withdraw, Some(&reason())).await.map(drop)
    }

    async fn act(&self, run: Uuid, verb: &str) -> anyhow::Result<()> {
        self.office.ask(Method::POST, &format!("/v1/runs/{run}/{verb}"), Some(&reason())).await?;
        Ok(())
    }

    /// Waits until a person is asked about a run.
    async fn unmet(&self, run: Uuid) -> anyhow::Result<()> {
        let until = Instant::now() + WITHIN;
        while Instant::now() < until {
            let run = self.api.get(&format!("/v1/runs/{run}")).await?;
            if run["conditions"].to_string().contains("IncidentOpen") {
                return Ok(());
            }
            sleep(Duration::from_millis(50)).await;
        }
        anyhow::bail!("nobody was told that {run} waits in vain")
    }
}

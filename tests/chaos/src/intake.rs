//! The shape `intake`: everything about sources, documents, events and those who read them, one thing after the other,
//! and in the end a look whether all that was answered is in the log once.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::Api;
use crate::office::{Office, WITHIN, reason};
use crate::program::Program;
use crate::worker::Script;

/// Address for documents.
const DOOR: &str = "/v1/in/default/crm";
const TOKEN: &str = "a-token-of-the-crm";
const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";

/// Does all of it, on the database at `database_url`. Returns the runs that came of it.
///
/// # Errors
/// When something could not be brought to its end, or is not in the log once.
pub async fn work(api: &Api, database_url: &str) -> anyhow::Result<Vec<Uuid>> {
    let intake = Intake { office: Office::new(api, database_url), api, answered: BTreeMap::new() };
    intake.all().await
}

/// Returns the program whose runs go on beside it.
#[must_use]
pub fn program() -> Program {
    let adds = |adds| Script { adds, ..Script::default() };
    Program::new("intake").task("a", &[], adds(1)).task("b", &["a"], adds(2))
}

/// Returns a workflow that events start, and that emits others.
fn seen() -> Value {
    let reads = Script { adds: 1, reads: true, ..Script::default() };
    let input = json!({ "object": { "script": { "const": reads } } });
    let timeouts = json!({ "heartbeat": "1500ms", "attempt": "20s" });
    let task = json!({ "name": "do", "class": "read_only", "input": input, "timeouts": timeouts });
    let emits = json!([{ "type": "intake.seen", "entity": "seen", "stream": { "path": "/input/id" }, "release": "at_success" }]);
    json!({ "name": "intake-seen", "version": 1, "milestones": ["ended"],
        "steps": [{ "id": "a", "task": task, "emits": emits }] })
}

/// A workflow that events start one after the other.
fn turns() -> Value {
    let mut workflow = seen();
    workflow["name"] = json!("intake-turns");
    workflow["milestones"] = json!([]);
    if let Some(step) = workflow["steps"][0].as_object_mut() {
        step.remove("emits");
    }
    workflow
}

fn transform(states: &Value) -> Value {
    let rules =
        json!([{ "to": "/id", "copy": "/id" }, { "to": "/state", "enum": "/st", "map": states }]);
    json!({ "transform": { "stream": "customer:{/id}", "rules": rules }, "reason": "chaos" })
}

fn contact(id: &str, state: &str) -> Value {
    json!({ "id": id, "st": state, "mail": format!("{id}@chaos.internal") })
}

struct Intake<'a> {
    office: Office<'a>,
    api: &'a Api,
    /// Documents that were answered, with their events.
    answered: BTreeMap<String, String>,
}

impl Intake<'_> {
    async fn all(mut self) -> anyhow::Result<Vec<Uuid>> {
        self.set_up().await.context("contracts, sources and a subscription")?;
        self.documents().await.context("documents")?;
        self.files().await.context("files")?;
        self.again().await.context("documents that are processed again")?;
        self.links().await.context("links")?;
        self.events().await.context("events of an application")?;
        self.erased().await.context("an erasure")?;
        self.once().await.context("the log")?;
        self.started().await.context("runs that events started")
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> anyhow::Result<Value> {
        self.office.ask(method, path, Some(&body)).await
    }

    async fn send(&self, door: &str, kind: &str, text: &str) -> anyhow::Result<(u16, Value)> {
        self.api.send(&format!("{DOOR}{door}"), TOKEN, (kind, text), WITHIN).await
    }

    async fn set_up(&self) -> anyhow::Result<()> {
        let text = json!({ "type": "string" });
        let members = json!({ "id": text, "st": text, "mail": text, "state": text });
        for (subject, required) in
            [("crm.contact", json!(["id", "st"])), ("customer", json!(["id", "state"]))]
        {
            let schema = json!({ "type": "object", "properties": members, "required": required });
            let path = format!("/v1/contracts/{subject}/versions");
            self.ask(Method::POST, &path, json!({ "schema": schema })).await?;
        }
        let set = json!({ "mode": "none", "reason": "chaos" });
        self.ask(Method::PUT, "/v1/contracts/crm.contact", set).await?;
        let path = "/v1/transforms/crm.contact/1/customer/1";
        self.ask(Method::PUT, path, transform(&json!({ "A": "active" }))).await?;
        let spec = json!({
            "verify": { "scheme": "bearer" }, "accepts": [{ "contract": "crm.contact", "to": "customer@1" }],
            "version_from": { "fixed": 1 }, "dedupe": [{ "pointer": "/id" }], "hints": [{ "kind": "email", "at": "/mail" }],
        });
        self.ask(Method::PUT, "/v1/sources/crm", json!({ "spec": spec, "secret": TOKEN })).await?;
        self.ask(Method::PUT, "/v1/workflows/intake-seen/versions/1", seen()).await?;
        let subscription = json!({ "workflow": "intake-seen", "input": "data", "filter": { "types": ["customer"] } });
        self.ask(Method::PUT, "/v1/subscriptions/intake", subscription).await?;
        self.ask(Method::PUT, "/v1/workflows/intake-turns/versions/1", turns()).await?;
        let in_turn = json!({ "workflow": "intake-turns", "input": "data", "filter": { "types": ["customer"] }, "key": "/state" });
        self.ask(Method::PUT, "/v1/subscriptions/turns", in_turn).await.map(drop)
    }

    fn note(&mut self, id: &str, told: &Value) -> anyhow::Result<()> {
        let event = told["event_id"].as_str().with_context(|| format!("{id}: {told}"))?;
        let before = self.answered.insert(id.to_owned(), event.to_owned());
        ensure!(before.is_none_or(|before| before == event), "{id} became two events");
        Ok(())
    }

    async fn documents(&mut self) -> anyhow::Result<()> {
        for (id, state) in [("d-1", "A"), ("d-2", "X"), ("d-3", "A"), ("d-1", "A")] {
            let text = contact(id, state).to_string();
            let (_, told) = self.send("", JSON, &text).await?;
            self.note(id, &told)?;
        }
        let refused = json!({ "id": 7, "mail": "d-7@chaos.internal" }).to_string();
        let (status, told) = self.send("", JSON, &refused).await?;
        ensure!(status == 422, "it is refused: {status} {told}");
        let batch = json!([contact("b-1", "A"), contact("b-2", "X"), { "id": 8 }]).to_string();
        let (_, told) = self.send("/batch", JSON, &batch).await?;
        for (place, id) in ["b-1", "b-2"].into_iter().enumerate() {
            self.note(id, &told["records"][place])?;
        }
        Ok(())
    }

    async fn files(&mut self) -> anyhow::Result<()> {
        let rows: Vec<String> =
            (0..5).map(|row| contact(&format!("f-{row}"), "A").to_string()).collect();
        let file = rows.join("\n") + "\n{\"id\": 9}\n";
        let mut imports = BTreeSet::new();
        for _ in 0..2 {
            let (status, told) = self.send("/files", LINES, &file).await?;
            let id = told["import_id"].as_str().with_context(|| format!("{status} {told}"))?;
            imports.insert(id.to_owned());
            let view = self
                .office
                .until(&format!("/v1/imports/{id}"), |one| one["state"] == "done")
                .await?;
            let counted =
                ["accepted", "duplicates", "refused"].map(|name| view[name].as_u64().unwrap_or(99));
            ensure!(
                counted.iter().sum::<u64>() == 6 && counted[2] == 1,
                "6 rows, 1 refused: {view}"
            );
        }
        ensure!(imports.len() == 1, "the same file is one import");
        let more = file + "{\"id\": 10}\n";
        let (_, told) = self.send("/files", LINES, &more).await?;
        let id = told["import_id"].as_str().unwrap_or_default().to_owned();
        self.ask(Method::POST, &format!("/v1/imports/{id}/cancel"), reason()).await.map(drop)
    }

    async fn again(&self) -> anyhow::Result<()> {
        let refused = self.api.get("/v1/intakes?verdict=refused").await?;
        let id = refused["items"][0]["id"].as_str().context("what was refused is kept")?.to_owned();
        self.ask(Method::POST, &format!("/v1/intakes/{id}/reprocess"), reason()).await?;
        let failed = self.api.get("/v1/intakes?mapping=failed").await?;
        let id =
            failed["items"][0]["id"].as_str().context("what cannot be mapped is kept")?.to_owned();
        self.ask(Method::POST, &format!("/v1/intakes/{id}/reprocess"), reason()).await?;
        let path = "/v1/transforms/crm.contact/1/customer/1";
        self.ask(Method::PUT, path, transform(&json!({ "A": "active", "X": "gone" }))).await?;
        self.ask(Method::POST, "/v1/reprocessings", reason()).await?;
        // One that was asked for again, since its answer was lost, finds nothing left.
        let done = |page: &Value| {
            page["items"].as_array().is_some_and(|all| all.iter().all(|one| one["state"] == "done"))
        };
        let page = self.office.until("/v1/reprocessings", done).await?;
        let changed = page["items"].as_array().into_iter().flatten();
        let changed: u64 = changed.filter_map(|one| one["changed"].as_u64()).sum();
        ensure!(changed == 2, "two are mapped now: {page}");
        Ok(())
    }

    async fn links(&self) -> anyhow::Result<()> {
        for stream in ["customer:d-1", "customer:d-3"] {
            self.ask(Method::PUT, "/v1/links/erp/4711", json!({ "stream": stream })).await?;
        }
        let open = self.api.get("/v1/link-conflicts?state=open").await?;
        let id = open["items"][0]["id"].as_str().context("two claim one id")?.to_owned();
        let keep = json!({ "keep": "holder", "reason": "chaos" });
        self.ask(Method::POST, &format!("/v1/link-conflicts/{id}/resolve"), keep).await.map(drop)
    }

    async fn events(&self) -> anyhow::Result<()> {
        for version in 0..3 {
            let event = json!({ "type": "stock.counted", "stream": "stock:chai", "source": "shop", "id": format!("e-{version}"),
                "data": { "id": "chai" } });
            self.ask(Method::POST, "/v1/events", json!({ "events": [event] })).await?;
        }
        self.office
            .until("/v1/events?type=stock.*", |page| {
                page["items"].as_array().is_some_and(|all| all.len() == 3)
            })
            .await?;
        self.ask(Method::PUT, "/v1/cursors/intake", json!({ "position": 1 })).await.map(drop)
    }

    /// Somebody is erased of whom nothing else came than what was refused.
    async fn erased(&self) -> anyhow::Result<()> {
        let hint = json!({ "hint": { "kind": "email", "value": "d-7@chaos.internal" }, "reason": "chaos" });
        let made = self.ask(Method::POST, "/v1/erasures", hint).await?;
        let Some(id) = made["id"].as_str() else { bail!("an erasure has an id: {made}") };
        // The first pass is made at once, or a minute later by who finds it.
        self.office
            .until(&format!("/v1/erasures/{id}"), |one| {
                one["documents"] == 1 || one["state"] == "running"
            })
            .await
            .map(drop)
    }

    /// Every document that was answered is in the log once, and mapped; positions are dense, and versions of streams in
    /// their order.
    async fn once(&self) -> anyhow::Result<()> {
        let mapped = |page: &Value| {
            let all = page["items"].as_array().map_or(&[][..], Vec::as_slice);
            all.iter().filter(|event| event["type"] == "customer").count()
                >= self.answered.len() + 5
        };
        let page = self.office.until("/v1/events?limit=1000", mapped).await?;
        let mut seen: BTreeMap<(&str, &str), u32> = BTreeMap::new();
        let mut versions: BTreeMap<&str, u64> = BTreeMap::new();
        for (event, position) in page["items"].as_array().into_iter().flatten().zip(1..) {
            ensure!(event["position"] == position, "positions are dense: {event}");
            if let Some(stream) = event["stream"].as_str() {
                let version = versions.entry(stream).or_default();
                *version += 1;
                ensure!(
                    event["version"] == *version,
                    "versions are in the order of positions: {event}"
                );
            }
            let (kind, of) =
                (event["type"].as_str().unwrap_or(""), event["data"]["id"].as_str().unwrap_or(""));
            if ["customer", "crm.contact"].contains(&kind) {
                *seen.entry((kind, of)).or_default() += 1;
            }
            if let ("crm.contact", Some(first)) = (kind, self.answered.get(of)) {
                ensure!(
                    event["id"] == first.as_str(),
                    "{of} was answered with another event: {event}"
                );
            }
        }
        let wrong: Vec<_> = seen.iter().filter(|(_, count)| **count != 1).collect();
        ensure!(wrong.is_empty(), "each is there once: {wrong:?}");
        let rows = (0..5).map(|row| format!("f-{row}"));
        for id in self.answered.keys().cloned().chain(rows) {
            for kind in ["crm.contact", "customer"] {
                ensure!(seen.contains_key(&(kind, id.as_str())), "{id} is missing: {kind}");
            }
        }
        Ok(())
    }

    /// Checks that each customer has started a run, which says so once.
    async fn started(self) -> anyhow::Result<Vec<Uuid>> {
        let wanted = self.answered.len() + 5;
        let all = |page: &Value| page["items"].as_array().is_some_and(|runs| runs.len() >= wanted);
        let page =
            self.office.until("/v1/runs?workflow=intake-seen&limit=1000&state=ended", all).await?;
        let runs = page["items"].as_array().into_iter().flatten();
        let runs: Vec<Uuid> = runs.filter_map(|run| run["id"].as_str()?.parse().ok()).collect();
        ensure!(runs.len() == wanted, "{wanted} customers started {} runs", runs.len());
        let told =
            |page: &Value| page["items"].as_array().is_some_and(|events| events.len() >= wanted);
        for kind in ["intake.seen", "run.succeeded"] {
            let page =
                self.office.until(&format!("/v1/events?limit=1000&type={kind}"), told).await?;
            let events = page["items"].as_array().map_or(0, Vec::len);
            ensure!(events == wanted, "{wanted} runs told {kind} {events} times");
        }
        let page =
            self.office.until("/v1/runs?workflow=intake-turns&limit=1000&state=ended", all).await?;
        let in_turn = page["items"].as_array().into_iter().flatten();
        let in_turn: Vec<Uuid> =
            in_turn.filter_map(|run| run["id"].as_str()?.parse().ok()).collect();
        ensure!(
            in_turn.len() == wanted,
            "{wanted} customers started {} runs in turn",
            in_turn.len()
        );
        Ok(runs.into_iter().chain(in_turn).collect())
    }
}

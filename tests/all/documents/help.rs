//! The examples of `--help`, which `docs/cli.md` lists: each is pasted into a shell with a run, an incident or a job in
//! the state that it needs.

use backstitch_api::Access;
use backstitch_sdk::StartInTransaction;
use backstitch_tests::node::{NS, ask, chain};
use backstitch_tests::server::{Server, send, with_json};
use serde_json::json;
use sqlx::{Connection, PgConnection};

use super::scene::{Scene, definition};
use super::shell::Shell;

/// Verbs that tell by their exit code how something ended: the run of this example was killed.
const ENDS: &[(&str, i32)] = &[("run watch", 7)];

/// Returns the two words that say which verb an example is of.
fn verb(example: &str) -> String {
    let words = example.split(' ').skip(1);
    let words = words.take_while(|word| word.starts_with(|c: char| c.is_ascii_lowercase()));
    words.take(2).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn every_example_of_help_can_be_pasted_into_a_shell() {
    let scene = Scene::new(Server::start(Access::Open).await);
    scene.register(&definition("place-order", 1)).await;
    scene.register(&chain("nightly-report", &["report"])).await;
    let shell = Shell::new(&scene.server, "help");
    let mut failed = Vec::new();
    for (example, _) in backstitch_api::cli::verbs() {
        let verb = verb(&example);
        let words = prepare(&verb, &scene, &shell).await;
        let (code, told) = shell.run(&example, &words).await;
        let ends = ENDS.iter().find(|(of, _)| *of == verb).map_or(0, |(_, code)| *code);
        // A migration of few runs may be over before it can be stopped.
        let over = verb == "workflow stop" && told.contains("(migration_over)");
        if code != ends && !over {
            failed.push(format!("{verb}: exit code {code} of\n{told}"));
        }
    }
    assert!(failed.is_empty(), "{} examples fail:\n{}", failed.len(), failed.join("\n\n"));
    scene.server.stopped().await;
}

/// Makes what the example of `verb` needs, and says what stands for what.
async fn prepare(verb: &str, scene: &Scene, shell: &Shell) -> Vec<(String, String)> {
    let (group, act) = verb.split_once(' ').unwrap_or((verb, ""));
    let word = |word: &str, value: String| vec![(word.to_owned(), value)];
    match group {
        "run" => word("RUN", run(act, scene, shell).await),
        "incident" => {
            let run = match act {
                "mark-compensated" => scene.blocked("place-order").await,
                _ => scene.parked("place-order").await,
            };
            word("INCIDENT", incident(scene, &run.to_string()).await)
        }
        "job" => word("JOB", job(act, scene).await),
        "plan" => {
            let run = scene.paid("place-order").await;
            let make = json!({"scope": {"back_to": "payment"}, "reason": "r"});
            let request = scene.server.request("POST", &format!("/v1/runs/{run}/plans"));
            let made = send(with_json(request.header("backstitch-actor", "bob"), make)).await;
            word("PLAN", made.json()["id"].as_str().unwrap_or_default().to_owned())
        }
        "queue" => {
            let policy = json!({"concurrency": 20, "breaker": {}});
            scene.put("/v1/queues/erp", policy).await;
            Vec::new()
        }
        "fact" if act == "withdraw" => {
            let path = "/v1/facts/customer:42/customer.created/establish";
            scene.act(path, json!({"reason": "r"})).await;
            Vec::new()
        }
        "contract" if act != "register" => {
            let members = json!({"id": {"type": "string"}, "name": {"type": "string"}});
            let schema = json!({"type": "object", "properties": members, "required": ["id"]});
            let path = "/v1/contracts/customer/versions";
            scene.act(path, json!({"schema": schema})).await;
            if act == "unpin" {
                scene.put("/v1/contracts/customer/readers/billing", json!({"version": 1})).await;
            }
            Vec::new()
        }
        "source" | "intake" | "import" => {
            let members = json!({"id": {"type": "string"}, "full_name": {"type": "string"}});
            let schema = json!({"type": "object", "properties": members, "required": ["id"]});
            scene.act("/v1/contracts/crm.contact/versions", json!({"schema": schema})).await;
            if act == "put" {
                return Vec::new();
            }
            let mut spec = json!({
                "verify": {"scheme": "bearer"}, "accepts": [{"contract": "crm.contact"}],
                "version_from": {"fixed": 1},
            });
            if group == "import" {
                spec["rate"] = json!(10);
            }
            let secret = "a-token-of-the-crm";
            scene.put("/v1/sources/crm", json!({"spec": spec, "secret": secret})).await;
            if group == "import" {
                // So many that the second piece of them waits.
                let path = format!("/v1/in/{NS}/crm/files");
                let request = scene.server.bare("POST", &path).bearer_auth(secret);
                let request = request.header("content-type", "application/x-ndjson");
                let told = send(request.body("{}\n".repeat(600))).await.json();
                return word("ID", told["import_id"].as_str().unwrap_or_default().to_owned());
            }
            if group == "source" {
                return Vec::new();
            }
            let request = scene.server.request("POST", &format!("/v1/in/{NS}/crm"));
            let refused = with_json(request.bearer_auth(secret), json!({"id": 7}));
            let told = send(refused).await.json();
            word("ID", told["intake_id"].as_str().unwrap_or_default().to_owned())
        }
        "reprocessing" if ["show", "stop"].contains(&act) => {
            let mut owner = PgConnection::connect(scene.server.database()).await.unwrap();
            let id: uuid::Uuid = sqlx::query_scalar(
                "insert into reprocess (id, namespace, asked, state, after, until, actor, created_at, due_at) \
                 select gen_random_uuid(), $1, '{\"reason\":\"r\"}', 'running', n, n, 'ann', now(), now() + interval '1 hour' \
                 from (select '00000000-0000-0000-0000-000000000000'::uuid as n) n returning id",
            )
            .bind(NS)
            .fetch_one(&mut owner)
            .await
            .unwrap();
            word("ID", id.to_string())
        }
        "erasure" if act == "show" => {
            // Not the stream of the links: what is erased goes in the background.
            let ask = json!({"stream": "customer:43", "reason": "r"});
            let made = scene.server.post("/v1/erasures", ask).await.json();
            word("ID", made["id"].as_str().unwrap_or_default().to_owned())
        }
        "link" if act != "put" => {
            scene.put("/v1/links/erp/4711", json!({"stream": "customer:42"})).await;
            Vec::new()
        }
        "link-conflict" => {
            for stream in ["customer:1", "customer:2"] {
                let put = scene.server.request("PUT", "/v1/links/crm/c-1");
                drop(send(with_json(put, json!({"stream": stream}))).await);
            }
            let open = scene.first("/v1/link-conflicts?state=open", "id").await;
            word("ID", open.unwrap_or_default())
        }
        "event" if act == "publish" => {
            let events = json!({"events": [{"type": "order.placed"}]});
            shell.file("file.json", &events.to_string());
            Vec::new()
        }
        "cursor" => {
            scene.put("/v1/cursors/search", json!({"position": 0})).await;
            Vec::new()
        }
        "subscription" if act == "skip" => blocked_event(scene).await,
        "subscription" if act != "put" => {
            let types = json!({"types": ["refused"]});
            let spec = json!({"workflow": "no-such-workflow", "filter": types});
            scene.put("/v1/subscriptions/welcome", spec).await;
            Vec::new()
        }
        "event" if ["show", "lineage"].contains(&act) => {
            let event = json!({"events": [{"type": "order.placed"}]});
            let told = scene.server.post("/v1/events", event).await.json();
            word("ID", told["events"][0]["id"].as_str().unwrap_or_default().to_owned())
        }
        "transform" => {
            for (subject, name) in [("crm.contact", "full_name"), ("customer", "name")] {
                let members = json!({"id": {"type": "string"}, name: {"type": "string"}});
                let schema = json!({"type": "object", "properties": members, "required": ["id"]});
                let path = format!("/v1/contracts/{subject}/versions");
                scene.act(&path, json!({"schema": schema})).await;
            }
            let rules =
                json!([{"to": "/id", "copy": "/id"}, {"to": "/name", "copy": "/full_name"}]);
            let path = "/v1/transforms/crm.contact/1/customer/1";
            scene.put(path, json!({"transform": {"rules": rules}})).await;
            Vec::new()
        }
        "credential" if act == "rotate" => {
            let role = backstitch_engine::Role::Worker;
            scene.server.engine.create_credential(NS, "worker-2", role).await.unwrap();
            Vec::new()
        }
        "database-role" => {
            let mut owner = PgConnection::connect(scene.server.database()).await.unwrap();
            let shop = "do $$ begin create role shop; exception when duplicate_object or unique_violation then null; end $$;";
            sqlx::raw_sql(shop).execute(&mut owner).await.unwrap();
            let by = backstitch_saga::By { actor: "ops".into(), reason: String::new() };
            scene.server.engine.grant_database_role(NS, "shop", &by).await.unwrap();
            Vec::new()
        }
        "credential" if act == "revoke" => {
            let _ = scene
                .server
                .engine
                .create_credential(NS, "worker-1", backstitch_engine::Role::Worker)
                .await;
            Vec::new()
        }
        "schedule" => {
            let schedule = json!({"cron": "30 2 * * *", "time_zone": "Europe/Berlin", "workflow": "nightly-report",
                "input": {"shop": "north"}, "instant_as": "scheduled_for"});
            scene.put("/v1/schedules/nightly-report", schedule).await;
            if act == "resume" {
                scene.act("/v1/schedules/nightly-report/pause", json!({"reason": "r"})).await;
            }
            Vec::new()
        }
        "start-request" => word("ID", start_request(scene).await),
        "workflow" => workflow(act, scene, shell).await,
        _ => Vec::new(),
    }
}

async fn run(act: &str, scene: &Scene, shell: &Shell) -> String {
    let flow = "place-order";
    let run = match act {
        "mark-compensated" => scene.blocked(flow).await,
        "resolve" | "retry" | "retry-step" | "skip" => scene.parked(flow).await,
        "compensate" | "plan" | "rerun" | "signal" => scene.paid(flow).await,
        "skip-requirements" => {
            let requires = json!([{"fact": "customer.created", "on": "customer:77"}]);
            let start = json!({"workflow": flow, "version": 1, "input": {"lines": []},
                "sequence": {"requires": requires, "requires_within": "1ms"}});
            let started = scene.act("/v1/runs", start).await;
            return started["id"].as_str().unwrap().to_owned();
        }
        _ => scene.start(flow).await,
    };
    match act {
        "resume" => {
            let pause = json!({"reason": "r", "name": "warehouse"});
            scene.act(&format!("/v1/runs/{run}/pause"), pause).await;
        }
        "watch" | "erase" => {
            drop(scene.act(&format!("/v1/runs/{run}/kill"), json!({"reason": "r"})).await);
        }
        "start-many" => {
            let runs = json!({"runs": [{"workflow": flow, "input": {"lines": []}}]});
            shell.file("file.json", &runs.to_string());
        }
        _ => {}
    }
    run.to_string()
}

/// Returns the open incident of a run, once there is one.
async fn incident(scene: &Scene, run: &str) -> String {
    loop {
        let path = format!("/v1/incidents?state=open&run={run}");
        if let Some(incident) = scene.first(&path, "id").await {
            return incident;
        }
    }
}

async fn job(act: &str, scene: &Scene) -> String {
    let runs = match act {
        // It must have something left to do.
        "pause" | "resume" | "stop" => {
            for _ in 0..3 {
                scene.start("place-order").await;
            }
            json!({"workflow": "place-order"})
        }
        _ => json!({"key": "nobody"}),
    };
    // Slow enough that it is not done before the example runs.
    let new = json!({"verb": "cancel", "reason": "r", "runs": runs, "rate": 0.1});
    let job = scene.act("/v1/jobs", new).await;
    let id = job["id"].as_str().unwrap().to_owned();
    if act == "resume" {
        scene.act(&format!("/v1/jobs/{id}/pause"), json!({"reason": "r"})).await;
    }
    id
}

/// Returns a start that was refused.
async fn start_request(scene: &Scene) -> String {
    let mut sql = PgConnection::connect(scene.server.database()).await.unwrap();
    let start = StartInTransaction::named("nobody", &json!({})).unwrap().namespace(NS);
    let id = ask(&mut sql, &start).await.to_string();
    loop {
        let state = scene.first(&format!("/v1/start-requests/{id}"), "state").await;
        if state.as_deref() == Some("refused") {
            return id;
        }
    }
}

/// Ready when no migration is under way: there is one at a time.
async fn migrated(scene: &Scene) {
    loop {
        let last = scene.first("/v1/workflows/place-order/migrations", "state").await;
        if last.is_none_or(|state| !matches!(state.as_str(), "checking" | "moving")) {
            return;
        }
    }
}

async fn workflow(act: &str, scene: &Scene, shell: &Shell) -> Vec<(String, String)> {
    let word = |word: &str, value: String| vec![(word.to_owned(), value)];
    match act {
        "register" => {
            shell.file("file.json", &definition("place-order", 2));
            Vec::new()
        }
        "pause" => word("NAME", "place-order".to_owned()),
        "resume" => {
            scene.act("/v1/workflows/place-order/pause", json!({"reason": "r"})).await;
            word("NAME", "place-order".to_owned())
        }
        "migration" | "runs" | "stop" | "start-migration" => {
            scene.register(&definition("place-order", 2)).await;
            migrated(scene).await;
            let mapping =
                json!({"skip": ["fraud-check"], "steps": {"mail": null, "payment": "charge"}});
            let new = json!({"from": 1, "to": 2, "mapping": mapping, "reason": "r"});
            if act == "start-migration" {
                return Vec::new();
            }
            let migration = scene.act("/v1/workflows/place-order/migrations", new).await;
            word("ID", migration["id"].as_str().unwrap().to_owned())
        }
        _ => Vec::new(),
    }
}

/// Makes a subscription with an event whose start is refused, so that it blocks its key.
async fn blocked_event(scene: &Scene) -> Vec<(String, String)> {
    let strict = r#""version":1,"input_schema":{"type":"integer"}"#;
    scene.register(&chain("strict", &["a"]).replacen(r#""version":1"#, strict, 1)).await;
    let types = json!({"types": ["customer.changed"]});
    let spec = json!({"workflow": "strict", "filter": types, "key": "stream"});
    scene.put("/v1/subscriptions/strict", spec).await;
    let event = json!({"events": [{"type": "customer.changed", "stream": "customer:1"}]});
    scene.server.post("/v1/events", event).await;
    let path = "/v1/subscriptions/strict/keys?state=blocked";
    let blocked = async || scene.server.get(path).await.json()["items"][0]["position"].as_u64();
    backstitch_tests::eventually("the event blocks its key", async || blocked().await.is_some())
        .await;
    let position = blocked().await.map_or_else(String::new, |position| position.to_string());
    vec![("welcome".to_owned(), "strict".to_owned()), ("10240".to_owned(), position)]
}

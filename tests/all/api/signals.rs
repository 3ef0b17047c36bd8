//! Signals over REST: checked when they come, never lost, and the first of several.

use backstitch_api::Access;
use backstitch_tests::server::{Server, send, with_json};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

async fn register(server: &Server, version: u32, steps: &Value) {
    let definition = json!({ "name": "ask", "version": version, "steps": steps });
    let put = server.request("PUT", &format!("/v1/workflows/ask/versions/{version}"));
    let registered = send(with_json(put, definition)).await;
    assert_eq!(registered.status, 201, "{registered:?}");
}

async fn start(server: &Server, body: Value) -> String {
    let started = server.post("/v1/runs", body).await.json();
    format!("/v1/runs/{}", started["id"].as_str().unwrap_or_else(|| panic!("{started:#}")))
}

fn approval(members: &Value) -> Value {
    let mut wait = json!({ "signal": "approval" });
    wait.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    json!([{ "id": "ok", "wait": wait }])
}

fn form() -> Value {
    json!({ "schema": { "type": "object", "required": ["approved"] } })
}

#[tokio::test]
async fn an_early_signal_is_held_to_the_newest_version_when_it_comes() {
    let server = Server::start(Access::Open).await;
    let signal = |name: &str, data: Value| json!({ "workflow": "ask", "key": "k1", "signal": name, "data": data });
    let good = json!({ "approved": true });
    let unknown = server.post("/v1/signals", signal("approval", good.clone())).await;
    assert_eq!(unknown.problem(404), "unknown_workflow");
    register(&server, 1, &approval(&form())).await;
    let misspelt = server.post("/v1/signals", signal("aproval", good.clone())).await;
    assert_eq!(misspelt.problem(404), "unknown_signal");
    let wrong = server.post("/v1/signals", signal("approval", json!({ "approvd": true }))).await;
    assert_eq!(wrong.problem(422), "invalid_data");
    let message = wrong.json()["errors"][0]["message"].to_string();
    assert!(message.contains("by the schema of the step 'ok'"), "{message}");
    assert_eq!(server.post("/v1/signals", signal("approval", good)).await.status, 202);
    let run = start(&server, json!({ "workflow": "ask", "key": "k1" })).await;
    assert_eq!(server.get(&format!("{run}?wait=20s")).await.json()["outcome"], "succeeded");
    server.stopped().await;
}

#[tokio::test]
async fn an_early_signal_that_the_run_cannot_take_is_told_and_leaves_room() {
    let server = Server::start(Access::Open).await;
    register(&server, 1, &approval(&form())).await;
    register(&server, 2, &approval(&json!({}))).await;
    let signal =
        |data: Value| json!({ "workflow": "ask", "key": "k1", "signal": "approval", "data": data });
    assert_eq!(server.post("/v1/signals", signal(json!(1))).await.status, 202);
    let run = start(&server, json!({ "workflow": "ask", "version": 1, "key": "k1" })).await;
    let told = loop {
        let found = server.get("/v1/runs?condition=SignalRefused").await.json();
        if !found["items"].as_array().unwrap().is_empty() {
            break server.get(&run).await.json();
        }
    };
    let conditions = told["conditions"].as_array().unwrap();
    let refused = conditions.iter().find(|one| one["type"] == "SignalRefused").unwrap();
    let message = refused["message"].as_str().unwrap();
    for word in ["/data", "object", "the schema of the step 'ok'"] {
        assert!(message.contains(word), "{message}");
    }
    assert_eq!(server.post("/v1/signals", signal(json!({ "approved": true }))).await.status, 200);
    assert_eq!(server.get(&format!("{run}?wait=10s")).await.json()["outcome"], "succeeded");
    server.stopped().await;
}

#[tokio::test]
async fn an_early_signal_whose_run_has_ended_when_it_comes_is_told() {
    let server = Server::start(Access::Open).await;
    let mut steps = approval(&form());
    steps[0]["when"] = json!({ "exists": "/input/boss" });
    register(&server, 1, &steps).await;
    let signal = json!({ "workflow": "ask", "key": "k1", "signal": "approval", "data": { "approved": true } });
    assert_eq!(server.post("/v1/signals", signal).await.status, 202);
    let run = start(&server, json!({ "workflow": "ask", "key": "k1", "input": {} })).await;
    assert_eq!(server.get(&format!("{run}?wait=20s")).await.json()["outcome"], "succeeded");
    loop {
        let found = server.get("/v1/runs?condition=SignalRefused").await.json();
        if !found["items"].as_array().unwrap().is_empty() {
            break;
        }
    }
    let view = server.get(&run).await.json();
    let told = view["conditions"].as_array().unwrap().iter();
    let told = told.filter_map(|one| one["message"].as_str()).collect::<Vec<_>>();
    assert!(told.iter().any(|one| one.contains("run_ended")), "{view:#}");
    assert_eq!((&view["state"], &view["outcome"]), (&json!("ended"), &json!("succeeded")));
    server.stopped().await;
}

#[tokio::test]
async fn kept_signals_reach_their_run_in_the_order_in_which_they_came() {
    let server = Server::start(Access::Open).await;
    let several =
        json!([{ "id": "ok", "wait": { "timeout": "1d", "signals": ["approved", "rejected"] } }]);
    register(&server, 1, &several).await;
    let signal =
        |key: &str, name: &str| json!({ "workflow": "ask", "key": key, "signal": name, "data": 1 });
    // The name that comes later in the alphabet comes first.
    let keys: Vec<String> = (0..8).map(|at| format!("k{at}")).collect();
    for key in &keys {
        for name in ["rejected", "approved"] {
            assert_eq!(server.post("/v1/signals", signal(key, name)).await.status, 202);
        }
    }
    for key in &keys {
        let run = start(&server, json!({ "workflow": "ask", "key": key })).await;
        let view = server.get(&format!("{run}?wait=20s")).await.json();
        assert_eq!(view["steps"][0]["output"]["signal"], "rejected", "{view:#}");
    }
    server.stopped().await;
}

#[tokio::test]
async fn a_kept_signal_goes_before_one_that_comes_after_the_start() {
    let server = Server::start(Access::Open).await;
    let several =
        json!([{ "id": "ok", "wait": { "timeout": "1d", "signals": ["approved", "rejected"] } }]);
    register(&server, 1, &several).await;
    let signal =
        |key: &str, name: &str| json!({ "workflow": "ask", "key": key, "signal": name, "data": 1 });
    for at in 0..8 {
        let key = format!("k{at}");
        assert_eq!(server.post("/v1/signals", signal(&key, "rejected")).await.status, 202);
        let run = start(&server, json!({ "workflow": "ask", "key": key })).await;
        // By the key and by the id, before the kept one is looked at.
        let sent = match at % 2 {
            0 => server.post("/v1/signals", signal(&key, "approved")).await,
            _ => server.post(&format!("{run}/signals/approved"), json!({ "data": 1 })).await,
        };
        assert!([200, 404, 409].contains(&sent.status), "{sent:?}");
        let view = server.get(&format!("{run}?wait=20s")).await.json();
        assert_eq!(view["steps"][0]["output"]["signal"], "rejected", "{view:#}");
    }
    server.stopped().await;
}

#[tokio::test]
async fn the_first_of_several_signals_ends_a_wait() {
    let server = Server::start(Access::Open).await;
    let several = json!([{ "id": "ok", "wait": { "timeout": "1d", "signals": [
        { "signal": "approved", "schema": { "type": "object", "required": ["by"] } }, "rejected"] } }]);
    register(&server, 1, &several).await;
    let run = start(&server, json!({ "workflow": "ask", "key": "k1" })).await;
    let view = server.get(&run).await.json();
    assert_eq!(view["steps"][0]["awaits"]["signals"][1], "rejected", "{view:#}");
    let why = server.get(&format!("{run}/why")).await.json();
    assert!(
        why["waits_for"][0]["message"].as_str().unwrap().contains("'approved' or 'rejected'"),
        "{why:#}"
    );
    let wrong = server.post(&format!("{run}/signals/approved"), json!({ "data": {} })).await;
    assert_eq!(wrong.problem(422), "invalid_data");
    let sent = server.post(&format!("{run}/signals/rejected"), json!({ "data": "too dear" })).await;
    assert_eq!(sent.status, 200);
    let view = server.get(&format!("{run}?wait=10s")).await.json();
    let output = json!({ "signal": "rejected", "data": "too dear" });
    assert_eq!((&view["outcome"], &view["steps"][0]["output"]), (&json!("succeeded"), &output));
    let late =
        server.post(&format!("{run}/signals/approved"), json!({ "data": { "by": "ann" } })).await;
    assert_eq!(late.problem(409), "run_ended");
    server.stopped().await;
}

#[tokio::test]
async fn what_a_person_gives_for_a_signal_is_what_the_signal_would_have_brought() {
    let server = Server::start(Access::Open).await;
    let several = json!([
        { "id": "one", "wait": { "signal": "input", "schema": { "type": "integer" } } },
        { "id": "first", "wait": { "signals": [
            { "signal": "approved", "schema": { "type": "object", "required": ["by"] } }, "rejected"] } },
    ]);
    register(&server, 1, &several).await;
    let run = start(&server, json!({ "workflow": "ask", "key": "k1" })).await;
    for (step, output) in [
        ("one", json!("1")),
        ("first", json!(3)),
        ("first", json!({ "signal": "aproved", "data": { "by": "ann" } })),
        ("first", json!({ "signal": "rejected" })),
        ("first", json!({ "signal": "approved", "data": {} })),
    ] {
        for verb in ["resolve", "skip"] {
            let ask = json!({ "output": output, "reason": "by telephone" });
            let refused = server.post(&format!("{run}/steps/{step}/{verb}"), ask).await;
            assert_eq!(refused.problem(422), "invalid_output", "{step} {verb} {output}");
        }
    }
    for (step, output) in
        [("one", json!(1)), ("first", json!({ "signal": "rejected", "data": "too dear" }))]
    {
        let ask = json!({ "output": output, "reason": "by telephone" });
        let taken = server.post(&format!("{run}/steps/{step}/resolve"), ask).await;
        assert!(taken.status < 300, "{taken:?}");
    }
    let view = server.get(&format!("{run}?wait=10s")).await.json();
    assert_eq!(view["outcome"], "succeeded", "{view:#}");
    server.stopped().await;
}

#[tokio::test]
async fn a_run_that_is_moved_takes_the_signal_that_came_unless_the_new_version_asks_for_other_data()
{
    let server = Server::start(Access::Open).await;
    let steps = |signal: &str, schema: Value| {
        json!([{ "id": "a", "wait": { "signal": "go" } },
            { "id": "b", "after": ["a"], "wait": { "signal": signal, "schema": schema } }])
    };
    register(&server, 1, &steps("typo", json!(true))).await;
    register(&server, 2, &steps("go", json!({ "type": "integer" }))).await;
    let migrate = async || {
        let ask = json!({ "from": 1, "to": 2, "reason": "a typo" });
        server.post("/v1/workflows/ask/migrations", ask).await
    };
    let (fits, other) = (
        start(&server, json!({ "workflow": "ask", "version": 1, "key": "fits" })).await,
        start(&server, json!({ "workflow": "ask", "version": 1, "key": "other" })).await,
    );
    for (run, data) in [(&fits, json!(7)), (&other, json!("seven"))] {
        assert_eq!(
            server.post(&format!("{run}/signals/go"), json!({ "data": data })).await.status,
            200
        );
    }
    let moved = migrate().await;
    assert!(moved.status < 300, "{moved:?}");
    assert_eq!(server.get(&format!("{fits}?wait=20s")).await.json()["outcome"], "succeeded");
    loop {
        let view = server.get(&other).await.json();
        if view["conditions"].as_array().unwrap().iter().any(|one| one["type"] == "SignalRefused") {
            break;
        }
    }
    assert_eq!(server.post(&format!("{other}/signals/go"), json!({ "data": 8 })).await.status, 200);
    assert_eq!(server.get(&format!("{other}?wait=10s")).await.json()["outcome"], "succeeded");
    server.stopped().await;
}

#[tokio::test]
async fn signals_that_cannot_be_brought_to_their_runs_keep_no_others_back() {
    let server = Server::start(Access::Open).await;
    register(&server, 1, &approval(&json!({}))).await;
    let stuck = start(&server, json!({ "workflow": "ask", "key": "stuck" })).await;
    let mut connection = PgConnection::connect(server.database()).await.unwrap();
    // More than are taken at once, older than any other, and not readable.
    sqlx::query(
        "insert into early_signals (namespace, workflow, key, signal, data, actor, at) \
         select $1, 'ask', 'stuck', 's' || n, '{', 'nobody', clock_timestamp() - interval '1 hour' \
         from generate_series(1, 1100) n",
    )
    .bind(backstitch_tests::node::NS)
    .execute(&mut connection)
    .await
    .unwrap();
    let signal = json!({ "workflow": "ask", "key": "k1", "signal": "approval", "data": 1 });
    assert_eq!(server.post("/v1/signals", signal).await.status, 202);
    let run = start(&server, json!({ "workflow": "ask", "key": "k1" })).await;
    assert_eq!(server.get(&format!("{run}?wait=20s")).await.json()["outcome"], "succeeded");
    assert_ne!(server.get(&stuck).await.json()["state"], "ended");
    server.stopped().await;
}

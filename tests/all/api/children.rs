//! Runs that are steps of other runs, with a real server: done once, told to the parent, undone with it.

use std::time::Duration;

use backstitch_api::Access;
use backstitch_tests::server::{Server, send, with_json};
use serde_json::{Value, json};

async fn register(server: &Server, name: &str, steps: Value) {
    let definition =
        json!({"name": name, "version": 1, "steps": steps, "output": {"path": "/input"}});
    let put = server.request("PUT", &format!("/v1/workflows/{name}/versions/1"));
    let registered = send(with_json(put, definition)).await;
    assert_eq!(registered.status, 201, "{registered:?}");
}

fn task(name: &str) -> Value {
    json!({"name": name, "input": {"path": "/input"}, "compensate": {"name": format!("undo_{name}")},
        "retry": {"max_attempts": 1}})
}

/// Does the next task of `handler`, with this outcome.
async fn work(server: &Server, handler: &str, outcome: Value) -> Value {
    let ask = json!({"worker": "w", "session": "0190aaaa-0000-7000-8000-000000000001",
        "queues": {"default": [handler]}, "max": 1, "wait": "10s"});
    for _ in 0..6 {
        let mut claimed = server.post("/v1/tasks/claim", &ask).await.json();
        let Some(task) = claimed["tasks"].as_array_mut().and_then(Vec::pop) else { continue };
        let mut report = json!({"outcome": outcome});
        for name in ["run", "step", "action", "attempt"] {
            report[name] = task[name].clone();
        }
        let answer = server.post("/v1/tasks/complete", json!({"results": [report]})).await;
        assert_eq!(answer.json()["results"][0]["status"], 200, "{answer:?}");
        return task;
    }
    panic!("no task came for {handler}");
}

fn done() -> Value {
    json!({"succeeded": {"output": 1}})
}

fn refused() -> Value {
    json!({"failed": {"kind": "permanent", "code": "refused", "message": "no"}})
}

async fn parent(server: &Server) -> (String, String) {
    register(server, "payments", json!([{"id": "charge", "task": task("charge")}])).await;
    let steps = json!([
        {"id": "pay", "child": {"workflow": "payments", "input": {"path": "/input"}}},
        {"id": "ship", "task": task("ship"), "after": ["pay"]}]);
    register(server, "order", steps).await;
    let started =
        server.post("/v1/runs", r#"{"workflow":"order","input":{"amount":5}}"#).await.json();
    let run = format!("/v1/runs/{}", started["id"].as_str().unwrap());
    let view = server.get(&run).await.json();
    let child = format!("/v1/runs/{}", view["steps"][0]["child"].as_str().unwrap());
    (run, child)
}

#[tokio::test]
async fn a_child_is_done_once_and_undone_with_its_parent() {
    let server = Server::start(Access::Open).await;
    let (run, child) = parent(&server).await;
    let charged = work(&server, "charge", done()).await;
    assert_eq!(charged["input"]["amount"], 5);
    let ended = server.get(&format!("{child}?wait=10s")).await.json();
    assert_eq!(ended["outcome"], "succeeded");
    let id = run.trim_start_matches("/v1/runs/");
    assert_eq!(ended["parent"], json!({"run": id, "step": "pay"}));
    assert_eq!(ended["correlation_id"], id);
    work(&server, "ship", refused()).await;
    work(&server, "undo_charge", done()).await;
    let ended = server.get(&format!("{run}?wait=20s")).await.json();
    assert_eq!(ended["outcome"], "compensated", "{ended:#}");
    assert_eq!(server.get(&child).await.json()["outcome"], "compensated");
    let listed = server.get("/v1/runs?workflow=payments").await.json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "the child was started once");
    server.stopped().await;
}

#[tokio::test]
async fn a_child_that_fails_fails_its_step() {
    let server = Server::start(Access::Open).await;
    let (run, _) = parent(&server).await;
    work(&server, "charge", refused()).await;
    let ended = server.get(&format!("{run}?wait=20s")).await.json();
    assert_eq!(
        (&ended["outcome"], &ended["error"]["failure"]["code"]),
        (&json!("failed_clean"), &json!("child_failed")),
        "{ended:#}"
    );
    server.stopped().await;
}

#[tokio::test]
async fn a_parent_that_is_cancelled_takes_its_child_along() {
    let server = Server::start(Access::Open).await;
    let (run, child) = parent(&server).await;
    let cancelled = server.post(&format!("{run}/cancel"), r#"{"reason":"not wanted"}"#).await;
    assert_eq!(cancelled.status, 200);
    let ended = server.get(&format!("{run}?wait=20s")).await.json();
    assert_eq!(ended["state"], "ended", "{ended:#}");
    let end =
        tokio::time::timeout(Duration::from_secs(10), server.get(&format!("{child}?wait=10s")))
            .await;
    assert_eq!(end.unwrap().json()["state"], "ended");
    server.stopped().await;
}

#[tokio::test]
async fn a_child_of_an_unknown_workflow_fails_its_step() {
    let server = Server::start(Access::Open).await;
    let steps =
        json!([{"id": "pay", "child": {"workflow": "nobody", "input": {"path": "/input"}}}]);
    register(&server, "order", steps).await;
    let started = server.post("/v1/runs", r#"{"workflow":"order"}"#).await.json();
    let run = format!("/v1/runs/{}", started["id"].as_str().unwrap());
    let ended = server.get(&format!("{run}?wait=20s")).await.json();
    assert_eq!(ended["outcome"], "failed_clean", "{ended:#}");
    server.stopped().await;
}

#[tokio::test]
async fn parents_and_children_are_one_tree() {
    let server = Server::start(Access::Open).await;
    register(&server, "payments", json!([{"id": "charge", "task": task("charge")}])).await;
    let child = |id: &str, workflow: &str| json!({"id": id, "child": {"workflow": workflow, "input": {"path": "/input"}}});
    register(&server, "order", json!([child("first", "payments"), child("second", "payments")]))
        .await;
    register(&server, "cart", json!([child("buy", "order")])).await;
    let root = server.post("/v1/runs", r#"{"workflow":"cart","input":{}}"#).await.json();
    work(&server, "charge", done()).await;
    work(&server, "charge", done()).await;
    let root = root["id"].as_str().unwrap();
    server.get(&format!("/v1/runs/{root}?wait=10s")).await;
    let tree = server.get(&format!("/v1/runs/{root}/tree")).await.json();
    let runs = tree["runs"].as_array().unwrap();
    let told: Vec<_> = runs
        .iter()
        .map(|run| {
            (
                run["depth"].as_u64().unwrap(),
                run["step"].as_str(),
                run["workflow"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (0, None, "cart"),
            (1, Some("buy"), "order"),
            (2, Some("first"), "payments"),
            (2, Some("second"), "payments")
        ]
    );
    assert!(runs.iter().all(|run| run["outcome"] == "succeeded"), "{tree}");
    assert_eq!((&runs[3]["parent"], &tree["more"]), (&runs[1]["run"], &json!(false)));
    // It is the same tree from wherever it is looked at.
    let leaf = runs[2]["run"].as_str().unwrap();
    assert_eq!(server.get(&format!("/v1/runs/{leaf}/tree")).await.json(), tree);
    server.stopped().await;
}

fn child(id: &str, workflow: &str) -> Value {
    json!({"id": id, "child": {"workflow": workflow, "input": {"path": "/input"}}})
}

/// Starts a run of `gran`, whose child is a run of `mum`, whose child is a run of `kid` with the task `pay`. Answers
/// their paths.
async fn family(server: &Server, mum: Value) -> [String; 3] {
    register(server, "kid", json!([{"id": "pay", "task": task("pay")}])).await;
    register(server, "mum", json!([mum])).await;
    register(server, "gran", json!([child("mum", "mum")])).await;
    let started = server.post("/v1/runs", r#"{"workflow":"gran"}"#).await.json();
    let gran = format!("/v1/runs/{}", started["id"].as_str().unwrap());
    let mum = child_of(server, &gran).await;
    let kid = child_of(server, &mum).await;
    [gran, mum, kid]
}

/// Returns the path of the child of a run, once it is there.
async fn child_of(server: &Server, run: &str) -> String {
    let view = until(server, run, |view| view["steps"][0]["child"].is_string()).await;
    let child = format!("/v1/runs/{}", view["steps"][0]["child"].as_str().unwrap());
    until(server, &child, |view| view["state"].is_string()).await;
    child
}

async fn until(server: &Server, run: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let began = std::time::Instant::now();
    loop {
        let view = server.get(run).await.json();
        if wanted(&view) {
            return view;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{view:#}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn act(server: &Server, run: &str, verb: &str) -> Value {
    let answer = server.post(&format!("{run}/{verb}"), r#"{"reason":"it hangs"}"#).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn nothing_to_do(server: &Server, handler: &str) {
    let ask = json!({"worker": "w", "session": "0190aaaa-0000-7000-8000-000000000002",
        "queues": {"default": [handler]}, "max": 1, "wait": "200ms"});
    let claimed = server.post("/v1/tasks/claim", &ask).await.json();
    assert_eq!(claimed["tasks"], json!([]));
}

#[tokio::test]
async fn a_kill_reaches_children_and_grandchildren() {
    let server = Server::start(Access::Open).await;
    let [gran, mum, kid] = family(&server, child("kid", "kid")).await;
    let killed = act(&server, &gran, "kill").await;
    assert!(killed.get("children_left").is_none(), "{killed:#}");
    let ended = server.get(&format!("{kid}?wait=10s")).await.json();
    assert_eq!((&ended["state"], &ended["outcome"]), (&json!("ended"), &json!("cancelled")));
    nothing_to_do(&server, "pay").await;
    // Nothing had been done, and as each hears so of the one below, it says so itself.
    for run in [&mum, &gran] {
        let ended = until(&server, run, |view| view["outcome"] == "cancelled").await;
        assert_eq!(ended["conditions"], json!([]), "{ended:#}");
    }
    let acts = server.get("/v1/acts?verb=kill").await.json();
    let acts = acts["items"].as_array().unwrap();
    assert_eq!(acts.len(), 3, "{acts:#?}");
    let by_gran = format!("run:{}", gran.trim_start_matches("/v1/runs/"));
    let of_mum = acts.iter().find(|act| mum.ends_with(act["run"].as_str().unwrap())).unwrap();
    assert_eq!(of_mum["actor"], by_gran, "{of_mum}");
    server.stopped().await;
}

#[tokio::test]
async fn a_pause_reaches_children_and_grandchildren_and_ends_with_it() {
    let server = Server::start(Access::Open).await;
    let [gran, mum, kid] = family(&server, child("kid", "kid")).await;
    act(&server, &gran, "pause").await;
    let paused = until(&server, &kid, |view| view["state"] == "paused").await;
    assert_eq!(paused["conditions"][0]["type"], "ParentPaused", "{paused:#}");
    let why = server.get(&format!("{kid}/why")).await.json();
    let wait = &why["waits_for"][0];
    assert_eq!(
        (&wait["kind"], wait["other"].as_str()),
        (&json!("paused"), mum.split('/').next_back())
    );
    nothing_to_do(&server, "pay").await;
    let refused = server.post(&format!("{kid}/resume"), r#"{"reason":"it hangs"}"#).await;
    assert_eq!(refused.problem(404), "unknown_pause", "its parent is paused");
    nothing_to_do(&server, "pay").await;
    act(&server, &gran, "resume").await;
    work(&server, "pay", done()).await;
    let ended = server.get(&format!("{gran}?wait=10s")).await.json();
    assert_eq!(ended["outcome"], "succeeded", "{ended:#}");
    server.stopped().await;
}

#[tokio::test]
async fn a_child_that_its_step_leaves_is_named_and_goes_on() {
    let server = Server::start(Access::Open).await;
    let mut leaves = child("kid", "kid");
    leaves["child"]["on_kill"] = json!("leave");
    leaves["child"]["on_pause"] = json!("leave");
    register(&server, "kid", json!([{"id": "pay", "task": task("pay")}])).await;
    register(&server, "mum", json!([leaves])).await;
    let started = server.post("/v1/runs", r#"{"workflow":"mum"}"#).await.json();
    let mum = format!("/v1/runs/{}", started["id"].as_str().unwrap());
    let kid = child_of(&server, &mum).await;
    let left = json!([kid.trim_start_matches("/v1/runs/")]);
    assert_eq!(act(&server, &mum, "pause").await["children_left"], left);
    assert_eq!(server.get(&kid).await.json()["conditions"], json!([]));
    act(&server, &mum, "resume").await;
    assert_eq!(act(&server, &mum, "kill").await["children_left"], left);
    let orphan = until(&server, &kid, |view| view["conditions"] != json!([])).await;
    assert_eq!(orphan["conditions"][0]["type"], "Orphaned", "{orphan:#}");
    assert_eq!(server.get(&mum).await.json()["children_left"], left);
    let tree = server.get(&format!("{kid}/tree")).await.json();
    assert_eq!(tree["runs"][1]["conditions"], json!(["Orphaned"]), "{tree:#}");
    let found = server.get("/v1/runs?condition=Orphaned").await.json();
    assert_eq!(found["items"].as_array().unwrap().len(), 1, "{found}");
    work(&server, "pay", done()).await;
    let ended = server.get(&format!("{kid}?wait=10s")).await.json();
    assert_eq!(ended["outcome"], "succeeded");
    server.stopped().await;
}

#[tokio::test]
async fn a_child_in_line_for_a_serial_key_is_killed_with_its_parent_and_leaves_the_line() {
    let server = Server::start(Access::Open).await;
    let serial = json!({"name": "kid", "version": 1, "steps": [{"id": "pay", "task": task("pay")}],
        "sequence": {"serial_key": {"const": "account:1"}}});
    let put = server.request("PUT", "/v1/workflows/kid/versions/1");
    assert_eq!(send(with_json(put, serial)).await.status, 201);
    register(&server, "mum", json!([child("kid", "kid")])).await;
    let holder = server.post("/v1/runs", r#"{"workflow":"kid"}"#).await.json();
    let mum = server.post("/v1/runs", r#"{"workflow":"mum"}"#).await.json();
    let mum = format!("/v1/runs/{}", mum["id"].as_str().unwrap());
    let kid = child_of(&server, &mum).await;
    act(&server, &mum, "pause").await;
    until(&server, &kid, |view| view["state"] == "paused").await;
    act(&server, &mum, "kill").await;
    let ended = server.get(&format!("{kid}?wait=10s")).await.json();
    assert_eq!(ended["outcome"], "cancelled", "{ended:#}");
    work(&server, "pay", done()).await;
    server.get(&format!("/v1/runs/{}?wait=10s", holder["id"].as_str().unwrap())).await;
    let last = server.post("/v1/runs", r#"{"workflow":"kid"}"#).await.json();
    work(&server, "pay", done()).await;
    let last = format!("/v1/runs/{}?wait=10s", last["id"].as_str().unwrap());
    assert_eq!(server.get(&last).await.json()["outcome"], "succeeded");
    server.stopped().await;
}

/// A workflow whose runs can be compensated by hand for a millisecond after their end.
async fn register_short(server: &Server, name: &str, steps: Value) {
    let definition = json!({"name": name, "version": 1, "steps": steps, "compensable_for": "1ms"});
    let put = server.request("PUT", &format!("/v1/workflows/{name}/versions/1"));
    assert_eq!(send(with_json(put, definition)).await.status, 201);
}

#[tokio::test]
async fn children_past_their_window_are_undone_with_their_parent() {
    let server = Server::start(Access::Open).await;
    let child = |workflow: &str| json!({"workflow": workflow, "input": {"path": "/input"}});
    register_short(&server, "inner", json!([{"id": "charge", "task": task("charge")}])).await;
    register_short(&server, "middle", json!([{"id": "in", "child": child("inner")}])).await;
    let steps = json!([
        {"id": "pay", "child": child("middle")},
        {"id": "rest", "sleep": {"for": "50ms"}, "after": ["pay"]},
        {"id": "ship", "task": task("ship"), "after": ["rest"]}]);
    register(&server, "order", steps).await;
    let started = server.post("/v1/runs", r#"{"workflow":"order","input":{}}"#).await.json();
    let run = format!("/v1/runs/{}", started["id"].as_str().unwrap());
    work(&server, "charge", done()).await;
    work(&server, "ship", done()).await;
    let ended = server.get(&format!("{run}?wait=20s")).await.json();
    assert_eq!(ended["outcome"], "succeeded", "{ended:#}");
    let middle = format!("/v1/runs/{}", ended["steps"][0]["child"].as_str().unwrap());
    let ask = r#"{"scope":"all","reason":"not wanted"}"#;
    let by_hand = server.post(&format!("{middle}/compensate"), ask).await;
    assert_eq!(
        (by_hand.status, &by_hand.json()["code"]),
        (409, &json!("compensation_window_closed")),
        "by hand the window counts"
    );
    assert_eq!(server.post(&format!("{run}/compensate"), ask).await.status, 202);
    work(&server, "undo_ship", done()).await;
    work(&server, "undo_charge", done()).await;
    let ended = server.get(&format!("{run}?wait=30s")).await.json();
    assert_eq!(ended["outcome"], "compensated", "{ended:#}");
    assert_eq!(server.get(&middle).await.json()["outcome"], "compensated");
    server.stopped().await;
}

#[tokio::test]
async fn a_child_that_cannot_be_undone_says_what_stands_and_why() {
    let server = Server::start(Access::Open).await;
    let charge = json!({"name": "charge", "input": {"path": "/input"}, "class": "pivot"});
    register(&server, "payments", json!([{"id": "charge", "task": charge}])).await;
    let steps = json!([
        {"id": "pay", "child": {"workflow": "payments", "input": {"path": "/input"}}},
        {"id": "ship", "task": task("ship"), "after": ["pay"]}]);
    register(&server, "order", steps).await;
    let started = server.post("/v1/runs", r#"{"workflow":"order","input":{}}"#).await.json();
    let run = format!("/v1/runs/{}", started["id"].as_str().unwrap());
    work(&server, "charge", done()).await;
    work(&server, "ship", refused()).await;
    let id = run.trim_start_matches("/v1/runs/");
    let mut incident = Value::Null;
    for _ in 0..200 {
        let open = server.get(&format!("/v1/incidents?state=open&run={id}")).await.json();
        incident = open["items"][0].clone();
        if !incident.is_null() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(incident["kind"], "compensation_blocked", "{incident:#}");
    let message = incident["message"].as_str().unwrap();
    assert!(message.contains("'charge' was done, and nothing undoes it"), "{message}");
    server.stopped().await;
}

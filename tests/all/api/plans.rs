//! Compensation plans: written down, changed, approved by a second person, applied while the run has not moved.

use backstitch_api::Access;
use backstitch_engine::Role;
use backstitch_saga::RunId;
use backstitch_saga::protocol::{
    Approval, FailureKind, MakePlan, PlanFilter, PlanState, Scope, SetUndoApproval, TaskOffer,
};
use backstitch_sdk::Client;
use backstitch_tests::node::{Hand, NS, chain, start};
use backstitch_tests::server::{Answer, Server, send, with_json};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

/// A server at which ann and bob are operators and ops is an admin.
struct Office {
    server: Server,
    hand: Hand,
    secrets: Vec<(&'static str, String)>,
}

impl Office {
    async fn open() -> Office {
        let server = Server::start(Access::Keys).await;
        let parks = r#""on_failure":"incident","retry":{"first_delay":"20ms""#;
        let steps = chain("order", &["pay", "ship", "mail"]);
        let steps = steps.replace(r#""retry":{"first_delay":"20ms""#, parks);
        server.engine.register(NS, &steps).await.unwrap();
        let mut secrets = Vec::new();
        for (name, role) in [
            ("ann", Role::Operator),
            ("bob", Role::Operator),
            ("ops", Role::Admin),
            ("eve", Role::Viewer),
        ] {
            secrets.push((name, server.engine.create_credential(NS, name, role).await.unwrap()));
        }
        Office { hand: Hand::new(&server.engine), server, secrets }
    }

    fn secret(&self, who: &str) -> &str {
        self.secrets.iter().find(|(name, _)| *name == who).map_or("", |(_, secret)| secret)
    }

    async fn ask(&self, who: &str, method: &str, path: &str, body: Value) -> Answer {
        let request = self.server.bare(method, path).bearer_auth(self.secret(who));
        send(if method == "GET" { request } else { with_json(request, body) }).await
    }

    async fn get(&self, path: &str) -> Value {
        self.ask("ann", "GET", path, Value::Null).await.json()
    }

    /// Returns a run with so many steps done; the next has failed and waits for a person.
    async fn run(&self, done: usize) -> String {
        let run = self.server.engine.start_run(NS, start("order", "1")).await.unwrap().id;
        for _ in 0..done {
            let task = self.next(run).await;
            self.hand.succeed(&[task]).await;
        }
        self.hand.fail(&self.next(run).await, FailureKind::Permanent).await;
        run.to_string()
    }

    /// Returns the next task of a run; those of others are done.
    async fn next(&self, run: RunId) -> TaskOffer {
        loop {
            let task = self.hand.one().await;
            if task.run == run {
                return task;
            }
            self.hand.succeed(&[task]).await;
        }
    }

    async fn plan(&self, who: &str, run: &str, scope: Value) -> Value {
        let make = json!({ "scope": scope, "reason": "the customer withdrew" });
        let made = self.ask(who, "POST", &format!("/v1/runs/{run}/plans"), make).await;
        assert_eq!(made.status, 201, "{made:?}");
        made.json()
    }

    async fn approve(&self, who: &str, plan: &Value, revision: u64) -> Answer {
        let path = format!("/v1/plans/{}/approve", plan["id"].as_str().unwrap());
        self.ask(who, "POST", &path, json!({ "revision": revision, "reason": "seen" })).await
    }

    async fn apply(&self, who: &str, plan: &Value, revision: u64) -> Answer {
        let path = format!("/v1/plans/{}/apply", plan["id"].as_str().unwrap());
        self.ask(who, "POST", &path, json!({ "revision": revision })).await
    }

    async fn need_approval(&self, approval: Value) {
        let path = "/v1/workflows/order/undo-approval";
        let set = json!({ "approval": approval, "reason": "two look at refunds" });
        assert_eq!(self.ask("ops", "PUT", path, set).await.status, 200);
    }
}

#[tokio::test]
async fn a_plan_does_what_it_says_and_once() {
    let office = Office::open().await;
    let run = office.run(2).await;
    let plan = office.plan("ann", &run, json!("all")).await;
    assert_eq!(
        (&plan["undos"], &plan["holds"], &plan["state"], &plan["made_by"], &plan["revision"]),
        (&json!(2), &json!(true), &json!("open"), &json!("ann"), &json!(1)),
        "{plan:#}"
    );
    let order: Vec<&Value> =
        plan["undo"]["steps"].as_array().unwrap().iter().map(|undo| &undo["step"]).collect();
    assert_eq!(order, [&json!("ship"), &json!("pay")]);
    assert_eq!(
        office.get(&format!("/v1/runs/{run}")).await["state"],
        "waiting",
        "nothing is written"
    );
    for _ in 0..2 {
        let applied = office.apply("ann", &plan, 1).await;
        assert_eq!(
            (applied.status, &applied.json()["state"]),
            (202, &json!("applied")),
            "{applied:?}"
        );
    }
    assert_eq!(office.apply("bob", &plan, 1).await.problem(409), "plan_over");
    let view = office.get(&format!("/v1/runs/{run}")).await;
    assert_eq!(view["state"], "compensating", "{view:#}");
    let history = office.get(&format!("/v1/runs/{run}/history?limit=1000")).await;
    let begun: Vec<&Value> = history["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|entry| entry["event"].get("compensation_started"))
        .collect();
    assert_eq!(begun.len(), 1);
    assert_eq!(begun[0]["by"]["actor"], "ann");
    let reason = begun[0]["by"]["reason"].as_str().unwrap();
    assert_eq!(reason, format!("the customer withdrew (plan {})", plan["id"].as_str().unwrap()));
    office.server.stopped().await;
}

#[tokio::test]
async fn a_plan_expires_when_something_else_would_be_undone() {
    let office = Office::open().await;
    let run = office.run(1).await;
    let plan = office.plan("ann", &run, json!("all")).await;
    let path = format!("/v1/plans/{}", plan["id"].as_str().unwrap());
    // Labels change nothing of it.
    let label = json!({ "set": { "team": "refunds" }, "reason": "r" });
    assert_eq!(
        office.ask("ann", "PATCH", &format!("/v1/runs/{run}/labels"), label).await.status,
        200
    );
    assert_eq!(office.get(&path).await["holds"], true);
    let retry = json!({ "reason": "r" });
    assert_eq!(
        office.ask("ann", "POST", &format!("/v1/runs/{run}/retry"), retry).await.status,
        200
    );
    let task = office.next(run.parse().unwrap()).await;
    assert_eq!(office.get(&path).await["holds"], false, "another step may have happened");
    office.hand.succeed(&[task]).await;
    let now = office.get(&path).await;
    assert_eq!(
        (&now["holds"], &now["state"], &now["undo"]),
        (&json!(false), &json!("open"), &Value::Null)
    );
    assert_eq!(office.apply("ann", &plan, 1).await.problem(409), "plan_expired");
    assert_eq!(office.get(&path).await["state"], "expired");
    assert_eq!(office.apply("ann", &plan, 1).await.problem(409), "plan_over");
    assert_eq!(office.get(&format!("/v1/runs/{run}")).await["state"], "running");
    // Of two plans the second finds the run being undone.
    let (first, second) = (
        office.plan("ann", &run, json!("all")).await,
        office.plan("bob", &run, json!("all")).await,
    );
    assert_eq!(office.apply("ann", &first, 1).await.status, 202);
    assert_eq!(office.apply("bob", &second, 1).await.problem(409), "plan_expired");
    let late = json!({ "scope": "all", "reason": "r" });
    let late = office.ask("ann", "POST", &format!("/v1/runs/{run}/plans"), late).await;
    assert_eq!(late.problem(409), "already_compensating");
    office.server.stopped().await;
}

#[tokio::test]
async fn a_plan_is_changed_within_what_the_graph_has_and_by_revision() {
    let office = Office::open().await;
    let run = office.run(2).await;
    let plan = office.plan("ann", &run, json!("all")).await;
    let path = format!("/v1/plans/{}", plan["id"].as_str().unwrap());
    assert_eq!(office.approve("bob", &plan, 1).await.status, 200);
    let edit = |revision: u64, scope: Value| json!({ "revision": revision, "scope": scope, "reason": "less" });
    let unknown = office.ask("bob", "PUT", &path, edit(1, json!({ "back_to": "fly" }))).await;
    assert_eq!(unknown.problem(404), "unknown_step");
    let edited = office.ask("bob", "PUT", &path, edit(1, json!({ "back_to": "ship" }))).await;
    let told = edited.json();
    assert_eq!(
        (edited.status, &told["revision"], &told["undos"], &told["made_by"], &told["approved_by"]),
        (200, &json!(2), &json!(1), &json!("bob"), &Value::Null),
        "{told:#}"
    );
    for (who, revision) in [("ann", 1), ("ann", 3)] {
        let stale = office.ask(who, "PUT", &path, edit(revision, json!("all"))).await;
        assert_eq!(stale.problem(409), "plan_changed");
        assert_eq!(office.approve(who, &plan, revision).await.problem(409), "plan_changed");
        assert_eq!(office.apply(who, &plan, revision).await.problem(409), "plan_changed");
    }
    let withdrawn =
        office.ask("ann", "POST", &format!("{path}/withdraw"), json!({ "reason": "no" })).await;
    assert_eq!((withdrawn.status, &withdrawn.json()["end_reason"]), (200, &json!("no")));
    assert_eq!(office.apply("ann", &plan, 2).await.problem(409), "plan_over");
    assert_eq!(office.get("/v1/plans?state=open").await["items"], json!([]));
    let acts = office.get("/v1/acts?workflow=order&limit=100").await;
    let verbs: Vec<&str> =
        acts["items"].as_array().unwrap().iter().map(|act| act["verb"].as_str().unwrap()).collect();
    assert_eq!(verbs, ["withdraw", "plan", "approve", "plan"]);
    office.server.stopped().await;
}

#[tokio::test]
async fn a_second_person_approves_what_one_may_not_undo_alone() {
    let office = Office::open().await;
    let run = office.run(2).await;
    office.need_approval(json!({ "above": 1 })).await;
    let all = json!({ "scope": "all", "reason": "r" });
    let reason = json!({ "reason": "r" });
    let at = format!("/v1/runs/{run}");
    for (verb, body) in [
        ("compensate", all.clone()),
        ("cancel", reason.clone()),
        ("rerun", json!({ "from": "pay", "reason": "r" })),
    ] {
        let refused = office.ask("ann", "POST", &format!("{at}/{verb}"), body).await;
        assert_eq!(refused.problem(409), "approval_needed", "{verb}");
    }
    let job = json!({ "verb": "cancel", "runs": { "workflow": "order" }, "reason": "r" });
    let job = office.ask("ann", "POST", "/v1/jobs", job).await.json();
    let items = format!("/v1/jobs/{}/items", job["id"].as_str().unwrap());
    backstitch_tests::eventually("the job is refused its item", async || {
        office.get(&items).await["items"][0]["code"] == "approval_needed"
    })
    .await;
    let dry = json!({ "scope": "all", "dry_run": true });
    assert_eq!(office.ask("ann", "POST", &format!("{at}/compensate"), dry).await.status, 200);

    let plan = office.plan("ann", &run, json!("all")).await;
    assert_eq!(plan["needs_approval"], true);
    assert_eq!(office.apply("ann", &plan, 1).await.problem(409), "approval_needed");
    assert_eq!(office.approve("ann", &plan, 1).await.problem(409), "own_plan");
    assert_eq!(office.approve("eve", &plan, 1).await.problem(403), "forbidden");
    for _ in 0..2 {
        let approved = office.approve("bob", &plan, 1).await;
        assert_eq!(
            (approved.status, &approved.json()["approved_by"]),
            (200, &json!("bob")),
            "{approved:?}"
        );
    }
    assert_eq!(office.apply("ann", &plan, 1).await.status, 202);
    let history = office.get(&format!("{at}/history?limit=1000")).await.to_string();
    assert!(history.contains(&format!("(plan {}, approved by bob)", plan["id"].as_str().unwrap())));

    // Little may be undone alone, and nobody is asked for what the rules undo.
    let small = office.run(1).await;
    let plan = office.plan("ann", &small, json!("all")).await;
    assert_eq!(
        (&plan["needs_approval"], office.apply("ann", &plan, 1).await.status),
        (&json!(false), 202)
    );
    office.need_approval(json!("always")).await;
    let plan = office.run(1).await;
    let refused = office.ask("ann", "POST", &format!("/v1/runs/{plan}/cancel"), reason).await;
    assert_eq!(refused.problem(409), "approval_needed");
    // A plan from before is held to it, too.
    office.need_approval(json!("never")).await;
    let plan = office.plan("ann", &plan, json!("all")).await;
    office.need_approval(json!("always")).await;
    assert_eq!(office.apply("ann", &plan, 1).await.problem(409), "approval_needed");
    assert_eq!(office.approve("bob", &plan, 1).await.status, 200);
    assert_eq!(office.apply("bob", &plan, 1).await.status, 202);
    let set = json!({ "approval": "never", "reason": "r" });
    let path = "/v1/workflows/order/undo-approval";
    assert_eq!(office.ask("ann", "PUT", path, set).await.problem(403), "forbidden");
    assert_eq!(office.get(path).await["changed_by"], "ops");
    office.server.stopped().await;
}

#[tokio::test]
async fn an_apply_that_was_interrupted_is_finished_by_the_next_in_the_name_of_the_first() {
    let office = Office::open().await;
    let run = office.run(2).await;
    let plan = office.plan("ann", &run, json!("all")).await;
    // As a process leaves it that dies before it asks the run, or after.
    let mut sql = PgConnection::connect(office.server.database()).await.unwrap();
    sqlx::query("update compensation_plans set applied_by = 'ann'")
        .execute(&mut sql)
        .await
        .unwrap();
    let path = format!("/v1/plans/{}", plan["id"].as_str().unwrap());
    let withdraw =
        office.ask("bob", "POST", &format!("{path}/withdraw"), json!({ "reason": "r" })).await;
    assert_eq!(withdraw.problem(409), "plan_being_applied");
    assert_eq!(office.apply("bob", &plan, 1).await.status, 202);
    sqlx::query("update compensation_plans set state = 'open', ended_by = null, ended_at = null")
        .execute(&mut sql)
        .await
        .unwrap();
    let again = office.apply("bob", &plan, 1).await;
    assert_eq!((again.status, &again.json()["ended_by"]), (202, &json!("ann")), "{again:?}");
    let history = office.get(&format!("/v1/runs/{run}/history?limit=1000")).await;
    let begun: Vec<&Value> = history["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|entry| entry["event"].get("compensation_started"))
        .collect();
    assert_eq!((begun.len(), &begun[0]["by"]["actor"]), (1, &json!("ann")));
    office.server.stopped().await;
}

#[tokio::test]
async fn plans_are_listed_bounded_and_seen_by_their_namespace_alone() {
    let office = Office::open().await;
    let run = office.run(1).await;
    let client = Client::new(office.server.url()).unwrap().api_key(office.secret("ann")).unwrap();
    let make = MakePlan { scope: Scope::All, reason: "r".to_owned(), force: false };
    let id = run.parse().unwrap();
    let mut made = Vec::new();
    for _ in 0..20 {
        made.push(client.make_plan(id, &make).await.unwrap().plan.id);
    }
    let more = json!({ "scope": "all", "reason": "r" });
    let more = office.ask("ann", "POST", &format!("/v1/runs/{run}/plans"), more).await;
    assert_eq!(more.problem(409), "too_many_plans");
    let filter =
        PlanFilter { state: Some(PlanState::Open), run: Some(id), ..PlanFilter::default() };
    let listed = client.plans(&filter).next_page().await.unwrap().unwrap();
    made.reverse();
    assert_eq!(listed.iter().map(|plan| plan.id).collect::<Vec<_>>(), made, "newest first");
    for (query, found) in
        [("state=applied", 0), ("workflow=order", 20), ("workflow=none", 0), ("limit=3", 3)]
    {
        let page = office.get(&format!("/v1/plans?{query}")).await;
        assert_eq!(page["items"].as_array().unwrap().len(), found, "{query}");
    }
    let path = format!("/v1/plans/{}", made[0]);
    let other =
        office.server.engine.create_credential("elsewhere", "ann", Role::Admin).await.unwrap();
    let elsewhere = send(office.server.bare("GET", &path).bearer_auth(&other)).await;
    assert_eq!(elsewhere.problem(404), "unknown_plan");
    let apply =
        with_json(office.server.bare("POST", &format!("{path}/apply")), json!({ "revision": 1 }));
    assert_eq!(send(apply.bearer_auth(&other)).await.problem(404), "unknown_plan");
    let ops = Client::new(office.server.url()).unwrap().api_key(office.secret("ops")).unwrap();
    let set = SetUndoApproval { approval: Approval::Always, reason: "r".to_owned() };
    assert_eq!(ops.set_undo_approval("order", &set).await.unwrap().approval, Approval::Always);
    let viewed = client.compensation_plan(made[0]).await.unwrap();
    let edit = backstitch_saga::protocol::EditPlan {
        revision: viewed.plan.revision,
        scope: Scope::All,
        reason: "again".to_owned(),
        force: false,
    };
    let edited = client.edit_plan(made[0], &edit).await.unwrap();
    assert!(edited.plan.needs_approval && edited.holds);
    let bob = Client::new(office.server.url()).unwrap().api_key(office.secret("bob")).unwrap();
    bob.approve_plan(made[0], 2, "seen").await.unwrap();
    client.withdraw_plan(made[1], "one is enough").await.unwrap();
    let applied = client.apply_plan(made[0], 2).await.unwrap();
    assert_eq!(applied.plan.state, PlanState::Applied);
    office.server.stopped().await;
}

//! The SDK's client in the hands of an operator: what REST can do, it can.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use backstitch_api::Access;
use backstitch_engine::BackgroundTask;
use backstitch_saga::Span;
use backstitch_saga::protocol::{
    ActFilter, BreakerPolicy, BreakerState, IncidentFilter, IncidentLine, IncidentState, JobState,
    JobVerb, NewJob, OnConflict, OnObstacle, QueuePolicy, Rate, Scope,
};
use backstitch_sdk::{Client, RunQuery, StartInTransaction};
use backstitch_tests::node::{Hand, NS, ask, chain, json, start};
use backstitch_tests::server::Server;
use sqlx::{Connection, PgConnection};

use super::incidents::{fail, failing, parking};

fn client(server: &Server) -> Client {
    Client::new(server.url()).unwrap().namespace(NS).unwrap().actor("ann").unwrap()
}

async fn open(client: &Client) -> Vec<IncidentLine> {
    let filter = IncidentFilter { state: Some(IncidentState::Open), ..IncidentFilter::default() };
    client.incidents(&filter).all().await.unwrap()
}

#[tokio::test]
async fn incidents_are_found_and_settled_one_by_one() {
    let server = Server::start(Access::Open).await;
    let client = client(&server);
    server.engine.register(NS, &parking("order", &["pay"])).await.unwrap();
    let hand = Hand::new(&server.engine);
    failing(&server, &hand, "order", 7, "card_declined").await;
    let filter = IncidentFilter { workflow: Some("order".to_owned()), ..IncidentFilter::default() };
    let groups = client.incident_groups(&filter).all().await.unwrap();
    assert_eq!((groups.len(), groups[0].count), (1, 7));
    assert_eq!(client.incident_counts().await.unwrap().open, 7);
    assert_eq!(client.status().await.unwrap().incidents.open, 7);
    assert_eq!(client.runs(RunQuery::new().incident(true)).all().await.unwrap().len(), 7);
    let ids: Vec<_> = open(&client).await.into_iter().map(|line| line.id).collect();
    let noted = client.assign_incident(ids[0], "bob", Some("yours")).await.unwrap();
    assert_eq!(noted.line.assignee.as_deref(), Some("bob"));
    let noted = client.note_incident(ids[0], "the bank is down").await.unwrap();
    assert_eq!(noted.notes.len(), 2);

    client.retry_incident(ids[0], Some(json("8")), "a better card").await.unwrap();
    let task = hand.one().await;
    assert_eq!(task.input.text(), "8");
    hand.succeed(&[task]).await;
    client.skip_incident(ids[1], Some(json("1")), "paid in cash").await.unwrap();
    client.resolve_incident(ids[2], json("2"), "seen at the bank").await.unwrap();
    client.cancel_incident(ids[3], "withdrawn").await.unwrap();
    client.abandon_incident(ids[4], "a test order").await.unwrap();
    client.compensate_incident(ids[5], Scope::All, false, "undo it").await.unwrap();
    assert_eq!(open(&client).await.len(), 1);
    let shown = client.incident(ids[5]).await.unwrap();
    assert!(shown.line.resolved_at.is_some(), "{shown:?}");
    let gone = client.mark_incident_compensated(ids[6], "?").await.unwrap_err();
    assert_eq!(gone.status(), Some(409), "nothing is being undone: {gone}");
    assert_eq!(client.why(ids[6].run).await.unwrap().waits_for.len(), 1);

    let job = NewJob {
        incidents: Some(filter),
        reason: "the bank is back".to_owned(),
        rate: 100.0,
        ..NewJob::new(JobVerb::Retry)
    };
    assert_eq!(client.plan_job(&job).await.unwrap().count, 1);
    let made = client.create_job(&job).await.unwrap();
    let began = Instant::now();
    while client.job(made.id).await.unwrap().state != JobState::Done {
        server.engine.run_once(BackgroundTask::WorkJobs).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(60));
    }
    assert_eq!(client.job_items(made.id, None).all().await.unwrap().len(), 1);
    assert_eq!(client.jobs(Some(JobState::Done)).all().await.unwrap().len(), 1);
    for refused in [
        client.pause_job(made.id, "?").await,
        client.resume_job(made.id, "?").await,
        client.stop_job(made.id, "?").await,
    ] {
        assert_eq!(refused.unwrap_err().code(), Some("job_not_moving"));
    }
    let verbs = client.acts(&ActFilter::default()).all().await.unwrap();
    let verbs: BTreeSet<String> = verbs.into_iter().map(|act| act.verb).collect();
    let expected = ["cancel", "compensate", "create", "kill", "resolve", "retry", "skip"];
    assert!(expected.iter().all(|verb| verbs.contains(*verb)), "{verbs:?}");
    server.stopped().await;
}

#[tokio::test]
async fn queues_and_workflows_are_steered() {
    let server = Server::start(Access::Open).await;
    let client = client(&server);
    assert_eq!(client.queue("erp").await.unwrap_err().code(), Some("unknown_queue"));
    let rate = Rate { limit: 5, per: Span::secs(1), burst: None };
    let breaker = Some(BreakerPolicy::default());
    let policy = QueuePolicy { rate: Some(rate), breaker, ..QueuePolicy::default() };
    assert_eq!(client.set_queue("erp", &policy).await.unwrap().policy, policy);
    assert!(client.pause_queue("erp", "maintenance").await.unwrap().paused.is_some());
    assert!(client.resume_queue("erp", "done").await.unwrap().paused.is_none());
    let opened = client.open_queue("erp", "it is slow").await.unwrap().breaker.unwrap();
    assert_eq!(opened.state, BreakerState::Open);
    let closed = client.close_queue("erp", "it is fast").await.unwrap().breaker.unwrap();
    assert_eq!(closed.state, BreakerState::Closed);
    assert_eq!(client.queues().all().await.unwrap().len(), 1);
    client.remove_queue("erp").await.unwrap();

    let order = chain("order", &["pay"]);
    server.engine.register(NS, &order).await.unwrap();
    assert_eq!(client.pause_workflow("order", "a bad deploy").await.unwrap()[0].workflow, "order");
    assert_eq!(client.status().await.unwrap().paused_workflows, ["order"]);
    assert!(client.resume_workflow("order", "rolled back").await.unwrap()[0].resumed_at.is_some());
    assert_eq!(client.pauses().all().await.unwrap().len(), 1);

    let run = server.engine.start_run(NS, start("order", "1")).await.unwrap().id;
    server.engine.register(NS, &order.replace(r#""version":1"#, r#""version":2"#)).await.unwrap();
    let load = client.drain_status("order").all().await.unwrap();
    assert_eq!(load.len(), 2, "{load:?}");
    let asked = serde_json::from_str(r#"{"from":1,"to":2,"reason":"a faster one"}"#).unwrap();
    assert_eq!(client.check_migration("order", &asked).await.unwrap().clean, 1);
    assert_eq!(asked.on_obstacle, OnObstacle::default());
    let migration = client.migrate("order", &asked).await.unwrap();
    let began = Instant::now();
    while client.run(run).await.unwrap().version != 2 {
        server.engine.run_once(BackgroundTask::Migrate).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(60));
    }
    let moved = client.migrated_runs("order", migration.id, None).all().await.unwrap();
    assert_eq!(moved.len(), 1);
    assert_eq!(client.migrations("order").all().await.unwrap().len(), 1);
    client.migration("order", migration.id).await.unwrap();
    let over = client.stop_migration("order", migration.id, "?").await;
    assert!(over.is_err() || over.is_ok_and(|view| view.ended_at.is_some()));
    assert!(client.workers(true).all().await.unwrap().is_empty());
    assert_eq!(client.whoami().await.unwrap().namespace, NS);
    server.stopped().await;
}

#[tokio::test]
async fn keys_and_facts_are_seen_and_steered() {
    let server = Server::start(Access::Open).await;
    let client = client(&server);
    server.engine.register(NS, &chain("order", &["pay"])).await.unwrap();
    // A subject may be any text.
    let on = "customer/4?2 #é";
    let begin = async |input: i32| {
        let order = client.start_named::<_, i32>("order", &input);
        order.serial_key("a/b", OnConflict::Queue).requires("paid", on).await.unwrap().id()
    };
    let (first, second) = (begin(1).await, begin(2).await);
    let line = client.key_line("a/b").await.unwrap();
    assert_eq!(line.iter().map(|place| place.run).collect::<Vec<_>>(), [first, second]);
    assert_eq!(client.facts(on).await.unwrap().waiting.len(), 2);
    client.skip_requirements(second, "paid in cash").await.unwrap();
    let hand = Hand::new(&server.engine);
    let task = hand.one().await;
    assert_eq!(task.run, second, "the first waits for a fact, so it does not keep the key");
    let facts = client.establish("paid", on, "by transfer").await.unwrap().facts;
    assert_eq!((facts[0].fact.as_str(), facts[0].on.as_str()), ("paid", on));
    hand.succeed(&[task]).await;
    let task = hand.one().await;
    assert_eq!(task.run, first);
    hand.succeed(&[task]).await;
    let facts = client.withdraw("paid", on, "it bounced").await.unwrap().facts;
    assert!(facts[0].withdrawn_at.is_some());
    assert!(client.withdraw("paid", on, "it bounced").await.is_err());
    let filter = ActFilter { subject: Some(on.to_owned()), ..ActFilter::default() };
    let acts = client.acts(&filter).next_page().await.unwrap().unwrap();
    let told: Vec<_> = acts.iter().map(|act| (act.verb.as_str(), act.reason.as_str())).collect();
    assert_eq!(told, [("withdraw", "it bounced"), ("establish", "by transfer")]);
    server.stopped().await;
}

#[tokio::test]
async fn refused_start_requests_are_settled() {
    let server = Server::start(Access::Open).await;
    let client = client(&server);
    let mut shop = PgConnection::connect(server.database()).await.unwrap();
    let mut requests = Vec::new();
    for number in 0..2 {
        let start = StartInTransaction::named("order", &number).unwrap().namespace(NS);
        requests.push(ask(&mut shop, &start).await.0);
    }
    while client.start_requests(None).all().await.unwrap().iter().any(|one| one.refusal.is_none()) {
        server.engine.run_once(BackgroundTask::TakeAsked).await.unwrap();
    }
    server.engine.register(NS, &chain("order", &["pay"])).await.unwrap();
    client.retry_start_request(requests[0], "it is there now").await.unwrap();
    client.dismiss_start_request(requests[1], "not needed").await.unwrap();
    let hand = Hand::new(&server.engine);
    let task = hand.one().await;
    assert_eq!(task.run.0, requests[0]);
    fail(&hand, &task, "no", "no").await;
    let left = client.start_request(requests[1]).await.unwrap();
    assert_eq!(left.state.as_str(), "dismissed");
    server.stopped().await;
}

//! Steps completed in the worker's own transaction: business rows, output and fence commit together, or not at all.

use std::time::Duration;

use backstitch_engine::{BackgroundTask, Engine};

use backstitch_saga::protocol::{FailureKind, Outcome, TaskOffer, TaskOutcome};
use backstitch_saga::{Action, By, Command, RunId, Span};
use backstitch_sdk::CompleteInTransaction;
use backstitch_tests::eventually;
use backstitch_tests::node::{Hand, NS, chain, fan, json, metric, node, report, start};
use backstitch_tests::postgres::database;
use sqlx::{Connection, PgConnection};

/// Two steps in a row; leases last two seconds, and what is lost is tried again at once.
fn definition() -> String {
    let definition =
        chain("two", &["a", "b"]).replace(r#""heartbeat":"1s""#, r#""heartbeat":"2s""#);
    definition.replace(r#""task":{"#, r#""task":{"transactional":true,"#)
}

/// A node, a worker of it, and a run of which the worker has the first step.
struct Stage {
    url: String,
    engine: Engine,
    hand: Hand,
    run: RunId,
    task: TaskOffer,
    shop: PgConnection,
}

async fn stage() -> Stage {
    let url = database().await;
    let engine = node(&url, |_| {}).await;
    engine.register(NS, &definition()).await.unwrap();
    let mut shop = PgConnection::connect(&url).await.unwrap();
    let table = "create table charges (run uuid, attempt integer)";
    sqlx::query(table).execute(&mut shop).await.unwrap();
    let hand = Hand::new(&engine);
    let run = engine.start_run(NS, start("two", "1")).await.unwrap().id;
    let task = hand.one().await;
    Stage { url, engine, hand, run, task, shop }
}

/// The business row and the completion, in whatever transaction the connection is in.
async fn charge(shop: &mut PgConnection, task: &TaskOffer) -> Result<(), sqlx::Error> {
    let row = "insert into charges values ($1, $2)";
    let attempt = i32::try_from(task.attempt).unwrap();
    sqlx::query(row).bind(task.run.0).bind(attempt).execute(&mut *shop).await?;
    let completion = CompleteInTransaction::of(task, &"charged").unwrap();
    let mut query = sqlx::query(CompleteInTransaction::SQL);
    for parameter in completion.parameters() {
        query = query.bind(parameter);
    }
    query.execute(shop).await.map(|_| ())
}

fn code(error: &sqlx::Error) -> String {
    error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned()
}

async fn count(connection: &mut PgConnection, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(connection).await.unwrap()
}

const CHARGES: &str = "select count(*) from charges";
// What was revoked is remembered for a day, what was completed for as long as answers are.
const FENCES: &str = "select count(*) from fences where revoked_at is null and closed_at is null";

impl Stage {
    /// Does the second step by an ordinary report; the run succeeds, and no fence is left.
    async fn finish(&mut self) {
        let last = self.hand.one().await;
        assert_eq!((last.run, last.step.to_string().as_str()), (self.run, "b"));
        assert_eq!(self.hand.succeed(&[last]).await[0].status, 200);
        let view = self.engine.wait(NS, self.run, Duration::from_secs(60)).await.unwrap();
        assert_eq!(view.outcome, Some(Outcome::Succeeded), "{view:?}");
        assert_eq!(view.steps[0].output.as_ref().unwrap().text(), "\"charged\"");
        assert_eq!(count(&mut self.shop, CHARGES).await, 1);
        while count(&mut self.shop, FENCES).await > 0 {
            self.engine.run_once(BackgroundTask::TakeAsked).await.unwrap();
        }
        assert_eq!(self.engine.doctor(false).await.unwrap().differences, Vec::<String>::new());
    }

    /// Waits until the engine has met the worker's open transaction.
    async fn met(&self) {
        while metric(&self.engine, "fences_held_total") < 1.0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_worker_that_dies_after_its_commit_has_succeeded() {
    let mut stage = stage().await;
    let mut transaction = stage.shop.begin().await.unwrap();
    charge(&mut transaction, &stage.task).await.unwrap();
    transaction.commit().await.unwrap();
    // It never reports. The lease may be over by now or not: the attempt stands.
    stage.finish().await;
}

#[tokio::test]
async fn a_commit_after_the_lease_ran_out_wins_if_it_began_before() {
    let stage = stage().await;
    let mut shop = PgConnection::connect(&stage.url).await.unwrap();
    let mut transaction = shop.begin().await.unwrap();
    charge(&mut transaction, &stage.task).await.unwrap();
    // The lease is over, but the engine cannot own the fence and does not wait for it.
    stage.met().await;
    let other = stage.engine.start_run(NS, start("two", "2")).await.unwrap().id;
    let task = stage.hand.one().await;
    assert_eq!(task.run, other, "others go on meanwhile");
    transaction.commit().await.unwrap();
    stage.hand.succeed(&[task]).await;
    let mut steps = Vec::new();
    for _ in 0..2 {
        let task = stage.hand.one().await;
        steps.push(task.step.to_string());
        stage.hand.succeed(&[task]).await;
    }
    assert_eq!(steps, ["b", "b"], "no second attempt was made");
    let view = stage.engine.wait(NS, stage.run, Duration::from_secs(60)).await.unwrap();
    assert_eq!((view.outcome, view.steps[0].attempts), (Some(Outcome::Succeeded), 1));
    assert_eq!(view.steps[0].output.as_ref().unwrap().text(), "\"charged\"");
}

#[tokio::test]
async fn a_stale_attempt_cannot_commit() {
    let mut stage = stage().await;
    let stale = stage.task.clone();
    // The lease runs out first.
    let next = stage.hand.one().await;
    assert_eq!((next.run, next.attempt), (stage.run, 2));
    let mut transaction = stage.shop.begin().await.unwrap();
    let refused = charge(&mut transaction, &stale).await.unwrap_err();
    assert_eq!(code(&refused), "BS001", "{refused}");
    drop(transaction);
    let mut transaction = stage.shop.begin().await.unwrap();
    charge(&mut transaction, &next).await.unwrap();
    transaction.commit().await.unwrap();
    // Its worker lives, and reports as usual; once more is the same.
    let done = TaskOutcome::Succeeded { output: json("\"charged\""), external_id: None };
    for _ in 0..2 {
        let answers = stage.engine.complete(NS, vec![report(&next, done.clone())]).await;
        assert_eq!(answers[0].status, 200, "{answers:?}");
    }
    let attempt: i32 =
        sqlx::query_scalar("select attempt from charges").fetch_one(&mut stage.shop).await.unwrap();
    assert_eq!(attempt, 2);
    let last = stage.hand.one().await;
    stage.hand.succeed(&[last]).await;
    let view = stage.engine.wait(NS, stage.run, Duration::from_secs(60)).await.unwrap();
    assert_eq!((view.outcome, view.steps[0].attempts), (Some(Outcome::Succeeded), 2));
    assert_eq!(count(&mut stage.shop, FENCES).await, 0);
}

#[tokio::test]
async fn a_transaction_that_is_rolled_back_did_nothing() {
    let mut stage = stage().await;
    let mut transaction = stage.shop.begin().await.unwrap();
    charge(&mut transaction, &stage.task).await.unwrap();
    transaction.rollback().await.unwrap();
    let next = stage.hand.one().await;
    assert_eq!((next.run, next.attempt), (stage.run, 2));
    assert_eq!(count(&mut stage.shop, CHARGES).await, 0);
    let mut transaction = stage.shop.begin().await.unwrap();
    charge(&mut transaction, &next).await.unwrap();
    transaction.commit().await.unwrap();
    stage.finish().await;
}

#[tokio::test]
async fn a_failure_reported_after_the_commit_does_not_count() {
    let mut stage = stage().await;
    let mut transaction = stage.shop.begin().await.unwrap();
    charge(&mut transaction, &stage.task).await.unwrap();
    transaction.commit().await.unwrap();
    // The answer to the commit was lost, so the worker tries again and is told, or takes it for a failure.
    let mut transaction = stage.shop.begin().await.unwrap();
    assert_eq!(code(&charge(&mut transaction, &stage.task).await.unwrap_err()), "BS002");
    drop(transaction);
    let told = stage.hand.fail(&stage.task, FailureKind::Retryable).await;
    let answer = (told[0].status, told[0].code.as_deref());
    assert_eq!(answer, (409, Some("already_reported")), "the commit was its first report");
    let view = stage.engine.run(NS, stage.run, None).await.unwrap();
    assert!(view.conditions.iter().any(|condition| condition.kind == "LateResult"), "{view:?}");
    stage.finish().await;
}

#[tokio::test]
async fn what_was_committed_counts_whatever_is_reported_after_it() {
    let mut stage = stage().await;
    let mut transaction = stage.shop.begin().await.unwrap();
    charge(&mut transaction, &stage.task).await.unwrap();
    transaction.commit().await.unwrap();
    // Before the engine has looked for what was committed.
    let other = TaskOutcome::Succeeded { output: json("\"other\""), external_id: None };
    let none = TaskOutcome::DoneWithoutOutput { code: "gone".to_owned(), message: String::new() };
    for outcome in [other, none] {
        let answers = stage.engine.complete(NS, vec![report(&stage.task, outcome)]).await;
        assert!([200, 409].contains(&answers[0].status), "{answers:?}");
    }
    stage.finish().await;
}

#[tokio::test]
async fn a_task_that_was_given_back_cannot_be_committed_any_more() {
    let mut stage = stage().await;
    let released = stage.hand.release(&stage.task).await;
    assert_eq!(released.status, 200, "{released:?}");
    let mut transaction = stage.shop.begin().await.unwrap();
    assert_eq!(code(&charge(&mut transaction, &stage.task).await.unwrap_err()), "BS001");
    drop(transaction);
    let again = stage.hand.one().await;
    assert_eq!((again.run, again.attempt), (stage.run, stage.task.attempt), "no attempt is lost");
    let mut transaction = stage.shop.begin().await.unwrap();
    charge(&mut transaction, &again).await.unwrap();
    transaction.commit().await.unwrap();
    stage.finish().await;
}

#[tokio::test]
async fn a_task_that_is_given_back_after_its_commit_has_succeeded() {
    let mut stage = stage().await;
    let mut transaction = stage.shop.begin().await.unwrap();
    charge(&mut transaction, &stage.task).await.unwrap();
    transaction.commit().await.unwrap();
    let released = stage.hand.release(&stage.task).await;
    assert_eq!(released.status, 409, "{released:?}");
    stage.finish().await;
}

#[tokio::test]
async fn a_completion_that_is_repeated_long_after_its_end_is_answered_as_completed() {
    let mut stage = stage().await;
    let mut transaction = stage.shop.begin().await.unwrap();
    charge(&mut transaction, &stage.task).await.unwrap();
    transaction.commit().await.unwrap();
    let first = stage.task.clone();
    stage.finish().await;
    let closed = "select count(*) from fences where closed_at is not null and output is null";
    assert_eq!(count(&mut stage.shop, closed).await, 1);
    let mut transaction = stage.shop.begin().await.unwrap();
    assert_eq!(code(&charge(&mut transaction, &first).await.unwrap_err()), "BS002");
    drop(transaction);
    stage.engine.run_once(BackgroundTask::ForgetAnswers).await.unwrap();
    assert_eq!(count(&mut stage.shop, closed).await, 1, "it is too early to forget it");
    let long_ago = "update fences set closed_at = closed_at - interval '8 days'";
    sqlx::query(long_ago).execute(&mut stage.shop).await.unwrap();
    stage.engine.run_once(BackgroundTask::ForgetAnswers).await.unwrap();
    assert_eq!(count(&mut stage.shop, closed).await, 0);
}

#[tokio::test]
async fn cancelling_waits_for_an_open_transaction_and_undoes_what_it_committed() {
    let mut stage = stage().await;
    let mut shop = PgConnection::connect(&stage.url).await.unwrap();
    let mut transaction = shop.begin().await.unwrap();
    charge(&mut transaction, &stage.task).await.unwrap();
    let by = By { actor: "ann".into(), reason: "wrong order".to_owned() };
    let (engine, run) = (stage.engine.clone(), stage.run);
    let cancel = tokio::spawn(async move { engine.command(NS, run, Command::Cancel { by }).await });
    stage.met().await;
    assert!(!cancel.is_finished());
    transaction.commit().await.unwrap();
    cancel.await.unwrap().unwrap();
    // The second step may have been handed out in between; then it is undone first.
    let mut undo = stage.hand.one().await;
    while undo.step.to_string() == "b" {
        stage.hand.succeed(&[undo]).await;
        undo = stage.hand.one().await;
    }
    assert_eq!((undo.action, undo.step.to_string().as_str()), (Action::Compensate, "a"));
    let forward = serde_json::to_string(&undo.forward).unwrap();
    assert!(forward.contains("charged"), "the undo knows what was done: {forward}");
    // The undo is transactional, too.
    let mut transaction = stage.shop.begin().await.unwrap();
    sqlx::query("delete from charges").execute(&mut *transaction).await.unwrap();
    let completion = CompleteInTransaction::of(&undo, &()).unwrap();
    let mut query = sqlx::query(CompleteInTransaction::SQL);
    for parameter in completion.parameters() {
        query = query.bind(parameter);
    }
    query.execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
    let view = stage.engine.wait(NS, stage.run, Duration::from_secs(60)).await.unwrap();
    assert!(view.outcome.is_some(), "{view:?}");
    assert_eq!(count(&mut stage.shop, CHARGES).await, 0);
}

#[tokio::test]
async fn cancelling_revokes_the_right_to_commit() {
    let mut stage = stage().await;
    let by = By { actor: "ann".into(), reason: "wrong order".to_owned() };
    stage.engine.command(NS, stage.run, Command::Cancel { by }).await.unwrap();
    let mut transaction = stage.shop.begin().await.unwrap();
    assert_eq!(code(&charge(&mut transaction, &stage.task).await.unwrap_err()), "BS001");
    drop(transaction);
    assert_eq!(count(&mut stage.shop, CHARGES).await, 0);
}

#[tokio::test]
async fn a_node_that_is_slow_to_make_a_fence_does_not_make_it_after_it_was_revoked() {
    let mut stage = stage().await;
    // As if the node that handed the task out had not come to it yet.
    sqlx::query("delete from fences").execute(&mut stage.shop).await.unwrap();
    let by = By { actor: "ann".into(), reason: "wrong order".to_owned() };
    stage.engine.command(NS, stage.run, Command::Cancel { by }).await.unwrap();
    let late = "insert into fences (run_id, step, action, attempt, namespace, opened_at) \
        values ($1, 'a', 'forward', 1, 'test', now()) on conflict do nothing";
    let made = sqlx::query(late).bind(stage.run.0).execute(&mut stage.shop).await.unwrap();
    assert_eq!(made.rows_affected(), 0);
    assert_eq!(code(&charge(&mut stage.shop, &stage.task).await.unwrap_err()), "BS001");
}

#[tokio::test]
async fn of_many_items_only_those_that_did_not_commit_are_tried_again() {
    let url = database().await;
    let engine = node(&url, |_| {}).await;
    let definition =
        fan("fan", 20, r#""all""#).replace(r#""heartbeat":"1s""#, r#""heartbeat":"2s""#);
    let definition = definition.replace(r#""task":{"#, r#""task":{"transactional":true,"#);
    engine.register(NS, &definition).await.unwrap();
    let mut shop = PgConnection::connect(&url).await.unwrap();
    sqlx::query("create table charges (run uuid, attempt integer)")
        .execute(&mut shop)
        .await
        .unwrap();
    let hand = Hand::new(&engine);
    let items: Vec<u32> = (0..20).collect();
    let run = engine.start_run(NS, start("fan", &format!("{items:?}"))).await.unwrap().id;
    let mut tasks = Vec::new();
    while tasks.len() < 20 {
        tasks.extend(hand.claim(20, Span::secs(30)).await);
    }
    let mut transaction = shop.begin().await.unwrap();
    for task in &tasks[..10] {
        charge(&mut transaction, task).await.unwrap();
    }
    transaction.commit().await.unwrap();
    // No worker reports anything. Those that did not commit are lost, and come again one by one.
    for _ in 0..10 {
        let again = hand.one().await;
        assert!(again.alone && tasks[10..].iter().any(|lost| lost.step == again.step));
        hand.succeed(&[again]).await;
    }
    let last = hand.one().await;
    assert_eq!(last.step.to_string(), "last");
    hand.succeed(&[last]).await;
    let view = engine.wait(NS, run, Duration::from_secs(60)).await.unwrap();
    assert_eq!(view.outcome, Some(Outcome::Succeeded), "{view:?}");
    assert_eq!(engine.doctor(false).await.unwrap().differences, Vec::<String>::new());
}

#[tokio::test]
async fn the_fence_outlives_the_node_that_made_it() {
    let mut stage = stage().await;
    let second =
        node(&stage.url, |options| options.tuning.dead_after = Duration::from_secs(2)).await;
    let Stage { engine, hand, .. } = stage;
    drop((engine, hand));
    let mut transaction = stage.shop.begin().await.unwrap();
    charge(&mut transaction, &stage.task).await.unwrap();
    transaction.commit().await.unwrap();
    let hand = Hand::new(&second);
    let next = hand.one().await;
    assert_eq!((next.step.to_string().as_str(), next.attempt), ("b", 1));
    hand.succeed(&[next]).await;
    let view = second.wait(NS, stage.run, Duration::from_secs(60)).await.unwrap();
    assert_eq!((view.outcome, view.steps[0].attempts), (Some(Outcome::Succeeded), 1));
}

#[tokio::test]
async fn what_is_no_output_and_what_is_not_transactional_is_refused() {
    let mut stage = stage().await;
    let complete =
        "select backstitch.complete_task($1, 'a', 'forward', 1, $2::text::jsonb, lease => $3)";
    let deep = format!("{}{}", "[".repeat(65), "]".repeat(65));
    let large = format!("\"{}\"", "x".repeat(262_144));
    let numbers = ["1e400", r#"{"a":[1,{"b":-1e400}]}"#].map(str::to_owned);
    for output in [deep, large].into_iter().chain(numbers) {
        let asked = sqlx::query(complete).bind(stage.run.0).bind(output).bind(&stage.task.lease);
        let asked = asked.execute(&mut stage.shop).await;
        assert_eq!(code(&asked.unwrap_err()), "BS003");
    }
    stage.engine.register(NS, &chain("plain", &["a"])).await.unwrap();
    let plain = stage.engine.start_run(NS, start("plain", "1")).await.unwrap().id;
    let task = stage.hand.claim(1, Span::secs(30)).await.pop().unwrap();
    let asked = sqlx::query(complete).bind(plain.0).bind("1").bind(&task.lease);
    let asked = asked.execute(&mut stage.shop).await;
    assert_eq!(code(&asked.unwrap_err()), "BS001");
    stage.hand.succeed(&[task]).await;
}

#[tokio::test]
async fn what_was_committed_was_done_though_its_output_cannot_be_read() {
    let mut stage = stage().await;
    let mut transaction = stage.shop.begin().await.unwrap();
    charge(&mut transaction, &stage.task).await.unwrap();
    let damaged = "update fences set output = '{'";
    sqlx::query(damaged).execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
    // It is done, and what follows has no output to go by: it is undone.
    let undo = stage.hand.one().await;
    assert_eq!((undo.run, undo.action), (stage.run, Action::Compensate));
    stage.hand.succeed(&[undo]).await;
    let view = stage.engine.wait(NS, stage.run, Duration::from_secs(60)).await.unwrap();
    assert_eq!(view.outcome, Some(Outcome::Compensated), "{view:?}");
    let error = serde_json::to_string(&view.error).unwrap();
    assert!(error.contains("its output in the table fences cannot be read"), "{error}");
    let told = stage.engine.status(NS).await.conditions;
    assert!(told.iter().all(|one| one.kind != "CompletionsStuck"), "{told:?}");
}

#[tokio::test]
async fn a_completion_whose_row_cannot_be_used_is_told_and_keeps_no_other_back() {
    for step in ["a/b", "ghost"] {
        let mut stage = stage().await;
        let other = stage.engine.start_run(NS, start("two", "2")).await.unwrap().id;
        let second = stage.hand.one().await;
        assert_eq!(second.run, other);
        let mut transaction = stage.shop.begin().await.unwrap();
        charge(&mut transaction, &stage.task).await.unwrap();
        charge(&mut transaction, &second).await.unwrap();
        let damaged = sqlx::query("update fences set step = $2 where run_id = $1");
        let damaged = damaged.bind(stage.run.0).bind(step);
        damaged.execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
        let engine = stage.engine.clone();
        eventually("the other is reported", async || {
            let view = engine.run(NS, other, None).await.unwrap();
            view.steps[0].state == "succeeded"
        })
        .await;
        let told = async || {
            let conditions = engine.status(NS).await.conditions;
            conditions.into_iter().find(|one| one.kind == "CompletionsStuck")
        };
        eventually("it is told", async || {
            told().await.is_some_and(|one| one.message.contains(&stage.run.to_string()))
        })
        .await;
        let gone = sqlx::query("delete from fences where step = $1").bind(step);
        gone.execute(&mut stage.shop).await.unwrap();
        eventually("it is over", async || told().await.is_none()).await;
    }
}

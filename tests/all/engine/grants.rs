//! Rights of roles of the database by the functions in `backstitch`: in the namespaces that they have a grant for, with
//! the token of the lease, and within the limits of the API.

use std::time::Duration;

use backstitch_engine::BackgroundTask;
use backstitch_saga::protocol::{Outcome, StartRequestState};
use backstitch_sdk::{CompleteInTransaction, StartInTransaction};
use backstitch_tests::node::{Hand, NS, chain, node, start};
use backstitch_tests::postgres::database;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

/// A role of the database with the rights of docs/transactions.md, and a connection as it. Dropped with its database.
struct Role {
    name: String,
    connection: PgConnection,
}

async fn role(url: &str) -> Role {
    let name = format!("shop_{}", Uuid::new_v4().simple());
    let mut connection = PgConnection::connect(url).await.unwrap();
    let script = format!(
        "create role {name};
        grant usage on schema backstitch to {name};
        grant execute on function backstitch.start_run, backstitch.start_run_at, backstitch.complete_task to {name};
        set session authorization {name};"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(script)).execute(&mut connection).await.unwrap();
    Role { name, connection }
}

impl Role {
    async fn grant(&self, url: &str, namespace: &str) {
        let mut owner = PgConnection::connect(url).await.unwrap();
        sqlx::query("select backstitch.grant_namespace($1, $2)")
            .bind(&self.name)
            .bind(namespace)
            .execute(&mut owner)
            .await
            .unwrap();
    }

    async fn start(&mut self, start: &StartInTransaction) -> Result<Uuid, sqlx::Error> {
        let mut query = sqlx::query_scalar(StartInTransaction::SQL);
        for parameter in start.parameters() {
            query = query.bind(parameter);
        }
        query.fetch_one(&mut self.connection).await
    }

    async fn complete(&mut self, completion: &CompleteInTransaction) -> Result<(), sqlx::Error> {
        let mut query = sqlx::query(CompleteInTransaction::SQL);
        for parameter in completion.parameters() {
            query = query.bind(parameter);
        }
        query.execute(&mut self.connection).await.map(|_| ())
    }

    /// Goes back to who it was, and is dropped.
    async fn gone(mut self) {
        let script = format!(
            "reset session authorization; drop owned by {name}; drop role {name};",
            name = self.name
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(script)).execute(&mut self.connection).await.unwrap();
    }
}

fn buy(namespace: &str) -> StartInTransaction {
    StartInTransaction::named("one", &1).unwrap().namespace(namespace)
}

/// Returns the code and the hint of an error of PostgreSQL.
fn told(error: &sqlx::Error) -> (String, String) {
    let error = error.as_database_error().unwrap();
    let hint = error.downcast_ref::<sqlx::postgres::PgDatabaseError>().hint().unwrap_or_default();
    (error.code().unwrap().into_owned(), hint.to_owned())
}

#[tokio::test]
async fn a_role_starts_runs_in_the_namespaces_that_it_was_granted_alone() {
    let url = database().await;
    let engine = node(&url, |_| {}).await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let foreign = StartInTransaction::named("one", &1).unwrap().namespace("other").key("k1");
    let mut owner = PgConnection::connect(&url).await.unwrap();
    let mut query = sqlx::query(StartInTransaction::SQL);
    for parameter in foreign.parameters() {
        query = query.bind(parameter);
    }
    query.execute(&mut owner).await.expect("the owner needs no grant");
    let mut shop = role(&url).await;
    let (code, hint) = told(&shop.start(&buy(NS)).await.unwrap_err());
    assert_eq!(code, "BS005");
    assert!(hint.contains("backstitch.grant_namespace"), "{hint}");
    shop.grant(&url, NS).await;
    shop.grant(&url, NS).await;
    let run = shop.start(&buy(NS).key("k1")).await.unwrap();
    assert_eq!(shop.start(&buy(NS).key("k1")).await.unwrap(), run);
    let (code, _) = told(&shop.start(&foreign).await.unwrap_err());
    assert_eq!(code, "BS005", "the id of another namespace's run is not told");
    for forbidden in [
        "select * from lease_keys",
        "insert into namespace_grants (namespace, role, granted_by) values ('other', session_user, 'x')",
        "select backstitch.grant_namespace(session_user, 'other')",
        "select backstitch.must_be_granted('other')",
    ] {
        let refused = sqlx::query(forbidden).execute(&mut shop.connection).await.unwrap_err();
        // The schema of the tables is not even seen.
        let code = told(&refused).0;
        assert!(["42501", "42P01"].contains(&code.as_str()), "{forbidden} {code}");
    }
    sqlx::query("select backstitch.revoke_namespace($1, $2)")
        .bind(&shop.name)
        .bind(NS)
        .execute(&mut owner)
        .await
        .unwrap();
    assert_eq!(told(&shop.start(&buy(NS)).await.unwrap_err()).0, "BS005");
    let verbs: Vec<String> = sqlx::query_scalar(
        "select verb from acts_beside_runs where kind = 'database_role' and name = $1 order by id",
    )
    .bind(&shop.name)
    .fetch_all(&mut owner)
    .await
    .unwrap();
    assert_eq!(verbs, ["grant", "revoke"]);
    shop.gone().await;
}

#[tokio::test]
async fn members_of_a_granted_role_start_runs() {
    let url = database().await;
    let engine = node(&url, |_| {}).await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let (team, mut member) = (role(&url).await, role(&url).await);
    team.grant(&url, NS).await;
    let mut owner = PgConnection::connect(&url).await.unwrap();
    let grant = format!("grant {} to {}", team.name, member.name);
    sqlx::raw_sql(sqlx::AssertSqlSafe(grant)).execute(&mut owner).await.unwrap();
    member.start(&buy(NS)).await.unwrap();
    member.gone().await;
    team.gone().await;
}

#[tokio::test]
async fn a_start_beyond_the_limits_of_the_api_fails_in_the_transaction_that_asks() {
    let url = database().await;
    let _engine = node(&url, |_| {}).await;
    let mut shop = role(&url).await;
    shop.grant(&url, NS).await;
    let large = StartInTransaction::named("one", &"x".repeat(262_143)).unwrap().namespace(NS);
    let workflow = StartInTransaction::named("a\nb", &1).unwrap().namespace(NS);
    for bad in [
        large,
        workflow,
        StartInTransaction::named("", &1).unwrap().namespace(NS),
        buy(NS).key("line\nbreak"),
        buy(NS).key("x".repeat(256)),
        buy(NS).key(""),
        buy(NS).correlation_id("\u{85}"),
        buy(NS).label("a", "\u{1b}[0m"),
        buy(NS).label("a", "x".repeat(40_000)),
    ] {
        assert_eq!(told(&shop.start(&bad).await.unwrap_err()).0, "BS006", "{bad:?}");
    }
    let fits = StartInTransaction::named("one", &"x".repeat(262_142)).unwrap().namespace(NS);
    shop.start(&fits.key("ä".repeat(127))).await.unwrap();
    shop.gone().await;
}

#[tokio::test]
async fn a_task_is_completed_in_a_transaction_by_who_has_its_lease_and_a_grant_alone() {
    let url = database().await;
    let engine = node(&url, |_| {}).await;
    let definition =
        chain("one", &["a"]).replace(r#""task":{"#, r#""task":{"transactional":true,"#);
    engine.register(NS, &definition).await.unwrap();
    let run = engine.start_run(NS, start("one", "1")).await.unwrap().id;
    let other = engine.start_run(NS, start("one", "2")).await.unwrap().id;
    let hand = Hand::new(&engine);
    let mut tasks = [hand.one().await, hand.one().await];
    tasks.sort_by_key(|task| task.run != run);
    let mut shop = role(&url).await;
    let ask = |lease: Option<String>| {
        let mut task = tasks[0].clone();
        task.lease = lease;
        CompleteInTransaction::of(&task, &"forged").unwrap()
    };
    let forged = tasks[1].lease.clone().unwrap();
    for lease in [None, Some(String::new()), Some("0".repeat(64)), Some(forged)] {
        let (code, hint) = told(&shop.complete(&ask(lease)).await.unwrap_err());
        assert_eq!((code.as_str(), hint.contains("lease =>")), ("BS004", true));
    }
    let mine = ask(tasks[0].lease.clone());
    assert_eq!(told(&shop.complete(&mine).await.unwrap_err()).0, "BS005");
    shop.grant(&url, "other").await;
    assert_eq!(told(&shop.complete(&mine).await.unwrap_err()).0, "BS005");
    shop.grant(&url, NS).await;
    shop.complete(&mine).await.unwrap();
    assert_eq!(told(&shop.complete(&mine).await.unwrap_err()).0, "BS002");
    let view = engine.wait(NS, run, Duration::from_secs(60)).await.unwrap();
    assert_eq!(view.outcome, Some(Outcome::Succeeded), "{view:?}");
    hand.succeed(&tasks[1..]).await;
    engine.wait(NS, other, Duration::from_secs(60)).await.unwrap();
    shop.gone().await;
}

#[tokio::test]
async fn requests_are_taken_by_bytes_and_refused_ones_do_not_stay_for_ever() {
    let url = database().await;
    let engine = node(&url, |_| {}).await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let mut owner = PgConnection::connect(&url).await.unwrap();
    // Five times as much as is taken at once, in one transaction.
    sqlx::query(
        "select backstitch.start_run('one', to_jsonb(repeat('x', 262142)), namespace => $1) from generate_series(1, 160)",
    )
    .bind(NS)
    .execute(&mut owner)
    .await
    .unwrap();
    let waiting = "select count(*) from start_requests where state = 'waiting'";
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut owner).await.unwrap() > 0 {
        engine.run_once(BackgroundTask::TakeAsked).await.unwrap();
    }
    let runs: i64 =
        sqlx::query_scalar("select count(*) from runs").fetch_one(&mut owner).await.unwrap();
    assert_eq!(runs, 160);
    sqlx::query("select backstitch.start_run('nowhere', 'null', namespace => $1)")
        .bind(NS)
        .execute(&mut owner)
        .await
        .unwrap();
    let refused = Some(StartRequestState::Refused);
    while engine.start_requests(NS, refused, None, 10).await.unwrap().items.is_empty() {
        engine.run_once(BackgroundTask::TakeAsked).await.unwrap();
    }
    engine.run_once(BackgroundTask::ForgetAnswers).await.unwrap();
    assert_eq!(engine.start_requests(NS, refused, None, 10).await.unwrap().items.len(), 1);
    sqlx::query("update start_requests set refused_at = refused_at - interval '30 days'")
        .execute(&mut owner)
        .await
        .unwrap();
    engine.run_once(BackgroundTask::ForgetAnswers).await.unwrap();
    assert!(engine.start_requests(NS, refused, None, 10).await.unwrap().items.is_empty());
}

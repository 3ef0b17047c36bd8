//! The role that servers connect as: it works without owning anything, and can do no more than its work needs.
//! docs/operations.md shows how it is made.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use backstitch_engine::{BackgroundTask, Engine, Options, grant_server, grants_of_server, migrate};
use backstitch_saga::protocol::Outcome;
use backstitch_saga::{RunId, Time};
use backstitch_tests::node::{Hand, NS, chain, metric, node, start};
use backstitch_tests::postgres::{as_server, database, server};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

const WEEK: i64 = 7 * 86_400_000;

async fn execute(connection: &mut PgConnection, text: &str) -> Result<u64, String> {
    let done = sqlx::raw_sql(AssertSqlSafe(text.to_owned())).execute(connection).await;
    done.map(|done| done.rows_affected()).map_err(|error| error.to_string())
}

async fn list(connection: &mut PgConnection, text: &str) -> Vec<String> {
    sqlx::query_scalar(AssertSqlSafe(text.to_owned())).fetch_all(connection).await.unwrap()
}

async fn refused(url: &str) -> String {
    let Err(error) = Engine::start(Options::new(url)).await else { panic!("{url} started") };
    error.to_string()
}

/// Returns a role of its own, which the server forgets with the last test.
async fn role(connection: &mut PgConnection, name: &str) -> String {
    let name = format!("{name}_{}", uuid::Uuid::new_v4().simple());
    execute(connection, &format!("create role {name} login")).await.unwrap();
    name
}

fn of(url: &str, role: &str) -> String {
    url.replace("://backstitch@", &format!("://{role}@"))
}

#[tokio::test]
async fn the_servers_role_changes_drops_and_truncates_nothing() {
    let url = database().await;
    let engine = node(&url, |_| {}).await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    engine.start_run(NS, start("one", "1")).await.unwrap();
    let mut as_server = PgConnection::connect(&as_server(&url)).await.unwrap();
    let tables = "select c.relname::text from pg_class c where c.relkind in ('r', 'p') \
        and c.relnamespace = 'backstitch_data'::regnamespace order by 1";
    let tables = list(&mut as_server, tables).await;
    assert!(tables.iter().any(|table| table.starts_with("journal_p")), "{tables:?}");
    for table in tables {
        for text in ["drop table $", "truncate $", "alter table $ add column x text"] {
            let text = text.replace('$', &table);
            let error = execute(&mut as_server, &text).await.unwrap_err();
            assert!(
                error.contains("must be owner") || error.contains("permission denied"),
                "{text}: {error}"
            );
        }
    }
    let partition = "select c.relname::text from pg_class c join pg_inherits i on i.inhrelid = c.oid \
        where i.inhparent = 'journal'::regclass and c.relname <> 'journal_default' order by 1 limit 1";
    let partition = list(&mut as_server, partition).await.remove(0);
    for text in [
        "update journal set events = '[]'",
        "delete from journal",
        &format!("delete from {partition}"),
        "update acts set actor = 'somebody else'",
        "delete from acts",
        "delete from acts_beside_runs",
        "update incident_notes set note = ''",
        "update upkeep set keep_at_least = '0'",
        "delete from acts_replaced",
        "insert into _sqlx_migrations select 999, '', now(), true, '', 0",
        "create table mine (id integer)",
        "create table backstitch.mine (id integer)",
        "create schema mine",
        "create or replace function backstitch.stop_writers() returns void language sql as ''",
    ] {
        let error = execute(&mut as_server, text).await.unwrap_err();
        assert!(
            error.contains("permission denied") || error.contains("must be owner"),
            "{text}: {error}"
        );
    }
}

#[tokio::test]
async fn partitions_are_made_and_dropped_only_where_they_are_ours() {
    let url = database().await;
    let mut owner = PgConnection::connect(&url).await.unwrap();
    let mut as_server = PgConnection::connect(&as_server(&url)).await.unwrap();
    for call in [
        "make_partition('credentials', '2026-01-05')",
        "make_partition('journal; drop table runs', '2026-01-05')",
        "make_partition(null, '2026-01-05')",
        "make_partition('journal', null)",
        "make_partition('journal', '1999-01-04')",
        "make_partition('journal', '2199-01-07')",
        "make_partition('journal', date_trunc('week', now())::date + 1)",
        "make_partition('journal', 'infinity')",
        "drop_week(null, now())",
        "drop_week(date_trunc('week', now())::date + 1, now())",
        "delete_runs(null, now(), 1)",
        "erase_run(null, '{}', '{}', '{}')",
        "erase_run(gen_random_uuid(), '{1}', '{}', '{}')",
        "erase_run(gen_random_uuid(), '{}', '{}', '{}')",
        "delete_runs(array_fill(gen_random_uuid(), array[1001]), now(), 1)",
    ] {
        let error =
            execute(&mut as_server, &format!("select backstitch.{call}")).await.unwrap_err();
        assert!(error.contains("backstitch."), "{call}: {error}");
    }
    // What looks like a week and is none of ours stays; so do weeks that are not over, or that the owner keeps.
    execute(
        &mut owner,
        "create table backstitch_data.runs_p20200106 (id uuid, state text, ended_at timestamptz)",
    )
    .await
    .unwrap();
    let dropped = async |connection: &mut PgConnection, week: &str, before: &str| -> bool {
        let text = format!("select backstitch.drop_week({week}, {before})");
        sqlx::query_scalar(AssertSqlSafe(text)).fetch_one(connection).await.unwrap()
    };
    assert!(!dropped(&mut as_server, "'2020-01-06'", "now()").await);
    let this = "date_trunc('week', now() at time zone 'UTC')::date";
    assert!(!dropped(&mut as_server, this, "now()").await);
    assert!(!dropped(&mut as_server, this, "'2999-01-01'").await, "its end has not come");
    let weeks_ago = format!("{this} - 14");
    for table in ["journal", "snapshots", "runs", "incidents"] {
        let text = format!("select backstitch.make_partition('{table}', {weeks_ago})");
        execute(&mut as_server, &text).await.unwrap();
    }
    execute(&mut owner, "update upkeep set keep_at_least = '90 days'").await.unwrap();
    assert!(!dropped(&mut as_server, &weeks_ago, "now()").await, "the owner keeps 90 days");
    execute(&mut owner, "update upkeep set keep_at_least = '1 hour'").await.unwrap();
    assert!(dropped(&mut as_server, &weeks_ago, "now()").await);
    // Nobody else has a right to these functions.
    let stranger = role(&mut owner, "stranger").await;
    execute(&mut owner, &format!("grant usage on schema backstitch to {stranger}")).await.unwrap();
    let mut stranger = PgConnection::connect(&of(&url, &stranger)).await.unwrap();
    for call in [
        "make_partition('journal', '2026-01-05')",
        "drop_week('2020-01-06', now())",
        "stop_writers()",
        "set_acts_aside(gen_random_uuid())",
        "delete_runs(array[gen_random_uuid()], now(), 1)",
        "erase_run(gen_random_uuid(), '{}', '{}', '{}')",
        "first_id('2026-01-05')",
    ] {
        let error = execute(&mut stranger, &format!("select backstitch.{call}")).await.unwrap_err();
        assert!(error.contains("permission denied"), "{call}: {error}");
    }
}

/// By how much the clock of the simulated month differs from the real one, in milliseconds.
static SHIFT: AtomicI64 = AtomicI64::new(0);

fn shifted(at: Time) -> Time {
    Time(at.0 + SHIFT.load(Ordering::Relaxed))
}

#[tokio::test]
async fn in_a_month_nothing_goes_to_the_default_partition_and_old_weeks_are_dropped() {
    let url = database().await;
    let mut owner = PgConnection::connect(&url).await.unwrap();
    // As long ago as the simulation begins, nothing was made yet.
    let made = "select c.relname::text from pg_class c join pg_inherits i on i.inhrelid = c.oid \
        where c.relname ~ '_p[0-9]{8}$' and c.relkind = 'r'";
    for partition in list(&mut owner, made).await {
        execute(&mut owner, &format!("drop table {partition}")).await.unwrap();
    }
    let mut runs: Vec<RunId> = Vec::new();
    let mut dropped = 0.0;
    for week in 0..6 {
        SHIFT.store((week - 6) * WEEK, Ordering::Relaxed);
        let engine = node(&url, |options| {
            options.tuning.database_clock = Some(shifted);
            options.retention = Some(Duration::from_secs(14 * 86_400));
        })
        .await;
        engine.run_once(BackgroundTask::Maintenance).await.unwrap();
        assert_eq!(metric(&engine, "partition_weeks"), 5.0);
        engine.register(NS, &chain("one", &["a"])).await.unwrap();
        let run = engine.start_run(NS, start("one", "1")).await.unwrap().id;
        let hand = Hand::new(&engine);
        let task = hand.one().await;
        hand.succeed(&[task]).await;
        let view = engine.wait(NS, run, Duration::from_secs(60)).await.unwrap();
        assert_eq!(view.outcome, Some(Outcome::Succeeded));
        runs.push(run);
        dropped += metric(&engine, "partitions_dropped_total");
        engine.stop().await;
    }
    for table in ["journal", "snapshots", "runs", "incidents"] {
        let there =
            list(&mut owner, &format!("select tableoid::regclass::text from {table}")).await;
        assert!(there.iter().all(|name| !name.ends_with("_default")), "{table}: {there:?}");
    }
    assert!(dropped >= 3.0, "{dropped}");
    let left = list(&mut owner, "select id::text from runs order by id").await;
    let newest: Vec<String> =
        runs[runs.len() - left.len()..].iter().map(RunId::to_string).collect();
    assert_eq!(left, newest);
    assert!((2..=3).contains(&left.len()), "{left:?}");
}

#[tokio::test]
async fn weeks_without_partitions_show_before_they_are_needed() {
    let url = database().await;
    let engine = node(&url, |_| {}).await;
    engine.run_once(BackgroundTask::Maintenance).await.unwrap();
    assert_eq!(metric(&engine, "partition_weeks"), 5.0);
    let mut owner = PgConnection::connect(&url).await.unwrap();
    let text = "revoke execute on function backstitch.make_partition from server_of_tests; \
        drop table journal_default cascade";
    execute(&mut owner, text).await.unwrap();
    let last = "select c.relname::text from pg_class c join pg_inherits i on i.inhrelid = c.oid \
        where c.relname ~ '^snapshots_p' and c.relkind = 'r' order by 1 desc limit 1";
    let last = list(&mut owner, last).await.remove(0);
    execute(&mut owner, &format!("drop table {last}")).await.unwrap();
    let error = engine.run_once(BackgroundTask::Maintenance).await.unwrap_err().to_string();
    assert!(error.contains("permission denied for function make_partition"), "{error}");
    let fresh = node(&url, |_| {}).await;
    assert!(fresh.run_once(BackgroundTask::Maintenance).await.is_err());
    assert!(metric(&fresh, "partition_weeks") < 5.0);
}

#[tokio::test]
async fn a_schema_that_is_not_up_to_date_is_refused_with_who_must_migrate() {
    let url = database().await;
    let mut owner = PgConnection::connect(&url).await.unwrap();
    execute(&mut owner, "delete from _sqlx_migrations where version >= 43").await.unwrap();
    let error = refused(&as_server(&url)).await;
    assert!(error.contains("run `backstitch migrate` as backstitch, who owns it"), "{error}");
    let error = migrate(&as_server(&url)).await.unwrap_err().to_string();
    assert!(error.contains("run `backstitch migrate` as backstitch"), "{error}");
    let error = grants_of_server(&url, "x").await.unwrap_err().to_string();
    assert!(error.contains("run `backstitch migrate`"), "{error}");
}

#[tokio::test]
async fn a_role_without_rights_is_told_which_command_gives_them() {
    let url = database().await;
    let mut owner = PgConnection::connect(&url).await.unwrap();
    let app = role(&mut owner, "app").await;
    let command = format!("run `backstitch database grant --app-role {app}` as backstitch");
    let error = refused(&of(&url, &app)).await;
    assert!(error.contains(&command), "{error}");
    // Rights that it has beyond a server's are taken from it.
    execute(
        &mut owner,
        &format!("grant usage on schema backstitch_data to {app}; grant all on journal to {app}"),
    )
    .await
    .unwrap();
    grant_server(&url, &app, Some(Duration::from_secs(90 * 86_400))).await.unwrap();
    let printed = grants_of_server(&url, &app).await.unwrap();
    assert!(printed.contains(&format!(
        "grant select, insert on \"backstitch_data\".\"journal\" to \"{app}\";"
    )));
    let kept = list(&mut owner, "select keep_at_least::text from upkeep").await;
    assert_eq!(kept, ["2160:00:00"]);
    let engine = Engine::start(Options::new(of(&url, &app))).await.unwrap();
    engine.run_once(BackgroundTask::Maintenance).await.unwrap();
    engine.probe().await.unwrap();
    engine.stop().await;
    let error =
        execute(&mut PgConnection::connect(&of(&url, &app)).await.unwrap(), "truncate journal")
            .await;
    assert!(error.unwrap_err().contains("permission denied"));
    // A migration that comes later gives it the rights to what is new.
    execute(&mut owner, &format!("revoke all on facts from {app}")).await.unwrap();
    migrate(&url).await.unwrap();
    let may = format!("select has_table_privilege('{app}', 'facts', 'delete')::text");
    assert_eq!(list(&mut owner, &may).await, ["true"]);
    let error = grant_server(&url, "backstitch", None).await.unwrap_err().to_string();
    assert!(error.contains("owns the tables"), "{error}");
    let error = grant_server(&of(&url, &app), &app, None).await.unwrap_err().to_string();
    assert!(error.contains("rights are granted by backstitch"), "{error}");
}

#[tokio::test]
async fn every_table_of_ours_is_known_to_the_grants() {
    let url = database().await;
    let mut owner = PgConnection::connect(&url).await.unwrap();
    let script = grants_of_server(&url, "x").await.unwrap();
    let tables = "select c.relname::text from pg_class c where c.relkind in ('r', 'p', 'v') \
        and c.relnamespace = 'backstitch_data'::regnamespace order by 1";
    for table in list(&mut owner, tables).await {
        assert!(script.contains(&format!(" on \"backstitch_data\".\"{table}\" to ")), "{table}");
    }
}

#[tokio::test]
async fn tables_stand_in_a_schema_of_their_own_unless_they_are_in_public_already() {
    let server = server().await;
    let count = "select count(*)::text from pg_class c join pg_namespace n on n.oid = c.relnamespace \
        where n.nspname = 'public' and c.relkind in ('r', 'p', 'S', 'v')";
    let url = database().await;
    let mut owner = PgConnection::connect(&url).await.unwrap();
    assert_eq!(list(&mut owner, count).await, ["0"]);
    // An installation of before.
    let name = format!("before_{}", uuid::Uuid::new_v4().simple());
    server.create_database(&name).await.unwrap();
    let url = server.url(&name);
    migrate(&format!("{url}&options=-c%20search_path%3Dpublic")).await.unwrap();
    migrate(&url).await.unwrap();
    grant_server(&url, "server_of_tests", None).await.unwrap();
    // What others have in that schema is not granted.
    let mut owner = PgConnection::connect(&url).await.unwrap();
    execute(&mut owner, "create table public.theirs (id integer)").await.unwrap();
    grant_server(&url, "server_of_tests", None).await.unwrap();
    let may = "select has_table_privilege('server_of_tests', 'public.theirs', 'select')::text";
    assert_eq!(list(&mut owner, may).await, ["false"]);
    let ours = "select count(*)::text from pg_namespace where nspname = 'backstitch_data'";
    assert_eq!(list(&mut owner, ours).await, ["0"]);
    let engine = node(&url, |_| {}).await;
    engine.run_once(BackgroundTask::Maintenance).await.unwrap();
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let run = engine.start_run(NS, start("one", "1")).await.unwrap().id;
    let hand = Hand::new(&engine);
    hand.succeed(&[hand.one().await]).await;
    let view = engine.wait(NS, run, Duration::from_secs(60)).await.unwrap();
    assert_eq!(view.outcome, Some(Outcome::Succeeded));
    engine.stop().await;
}

#[tokio::test]
async fn a_named_search_path_is_used_as_it_is_named() {
    let server = server().await;
    let name = format!("named_{}", uuid::Uuid::new_v4().simple());
    server.create_database(&name).await.unwrap();
    let mut owner = PgConnection::connect(&server.url(&name)).await.unwrap();
    execute(&mut owner, "create schema orchestration").await.unwrap();
    let url = format!("{}&options[search_path]=orchestration", server.url(&name));
    migrate(&url).await.unwrap();
    let engine = Engine::start(Options::new(&url)).await.unwrap();
    engine.run_once(BackgroundTask::Maintenance).await.unwrap();
    engine.stop().await;
    let there = "select n.nspname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace \
        where c.relname = 'journal'";
    assert_eq!(list(&mut owner, there).await, ["orchestration"]);
}

//! Turns between namespaces in the background work: one thing of a namespace is done with the first ones of a flood of
//! another, whatever is due earlier.

use std::time::Duration;

use backstitch_engine::{BackgroundTask, Engine, Options, statements_in_turns};
use backstitch_saga::RunId;
use backstitch_saga::protocol::{Outcome, Requirement, StartSequence};
use backstitch_tests::node::{by, chain, node, start};
use backstitch_tests::postgres::database;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

const FLOOD: &str = "a-flood";
const CALM: &str = "calm";
const HOUR: Duration = Duration::from_secs(3_600);

/// A node that does nothing of this by itself.
fn quiet(options: &mut Options) {
    options.tuning.wake_every = HOUR;
    options.tuning.inbox_every = HOUR;
    options.tuning.schedules_every = HOUR;
    options.tuning.beat_every = HOUR;
    options.tuning.check_every = Duration::MAX;
}

/// A database of which is written down in which order rows of a table change.
struct Watch {
    url: String,
    connection: PgConnection,
}

impl Watch {
    async fn new() -> Watch {
        let url = database().await;
        let connection = PgConnection::connect(&url).await.unwrap();
        Watch { url, connection }
    }

    async fn run(&mut self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut self.connection).await.unwrap();
    }

    /// Runs `sql` and begins to write down which rows of `table` are changed or deleted, in one transaction.
    async fn after(&mut self, sql: &str, table: &str) {
        self.run(&format!(
            "{sql}; create table watched (n bigint generated always as identity, namespace text not null); \
             create function note_change() returns trigger language plpgsql security definer \
               set search_path from current as $$ begin insert into watched (namespace) values (old.namespace); \
               return null; end $$; \
             create trigger watch after update or delete on {table} for each row execute function note_change()"
        ))
        .await;
    }

    /// Returns how many rows of the flood were changed before the first of the calm namespace; `None` when none was.
    async fn before_calm(&mut self) -> Option<i64> {
        sqlx::query_scalar(
            "select (select count(*) from watched w where w.namespace = 'a-flood' and w.n < c.n) \
             from (select min(n) as n from watched where namespace = 'calm') c where c.n is not null",
        )
        .fetch_optional(&mut self.connection)
        .await
        .unwrap()
    }

    async fn count(&mut self, sql: &str) -> i64 {
        let query = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()));
        query.fetch_one(&mut self.connection).await.unwrap()
    }

    /// Puts runs into the index: `count` of the flood, and one of the calm namespace that is due last and comes last.
    async fn index_runs(&mut self, count: u32, columns: &str, values: &str) {
        let runs = format!(
            "insert into runs (id, namespace, workflow, version, definition, state, started_at, {columns}) \
             select case when n > {count} then 'ffffffff-ffff-7fff-bfff-ffffffffffff'::uuid else gen_random_uuid() end, \
             case when n > {count} then 'calm' else 'a-flood' end, 'w', 1, 'd', 'running', clock_timestamp(), {values} \
             from generate_series(1, {count} + 1) n"
        );
        self.after(&runs, "runs").await;
    }

    /// Has a node do a chore until the calm namespace had its turn, which came after at most `most` changes of the
    /// flood.
    async fn calm_has_its_turn(&mut self, engine: &Engine, chore: BackgroundTask, most: i64) {
        for _ in 0..200 {
            engine.run_once(chore).await.unwrap();
            if let Some(before) = self.before_calm().await {
                assert!(before <= most, "{before} of the flood came before it");
                return;
            }
        }
        panic!("the calm namespace never had its turn");
    }
}

#[tokio::test]
async fn a_due_run_is_woken_with_the_first_of_a_flood() {
    let mut watch = Watch::new().await;
    let engine = node(&watch.url, quiet).await;
    let due = "clock_timestamp() - interval '1 hour' + n * interval '1 millisecond'";
    watch.index_runs(1_700, "wake_at", due).await;
    watch.calm_has_its_turn(&engine, BackgroundTask::Wake, 500).await;
    engine.stop().await;
}

#[tokio::test]
async fn a_run_of_a_node_that_is_gone_is_taken_over_with_the_first_of_a_flood() {
    let mut watch = Watch::new().await;
    let engine = node(&watch.url, quiet).await;
    watch.run("insert into nodes (name, seen_at, stopped_at) values ('gone', now(), now())").await;
    watch.index_runs(1_700, "node", "(select id from nodes where name = 'gone')").await;
    watch.calm_has_its_turn(&engine, BackgroundTask::TakeOver, 500).await;
    engine.stop().await;
}

#[tokio::test]
async fn a_run_that_is_adrift_is_found_with_the_first_of_a_flood() {
    let mut watch = Watch::new().await;
    let engine = node(&watch.url, quiet).await;
    watch.index_runs(1_700, "node", "null::integer").await;
    watch.calm_has_its_turn(&engine, BackgroundTask::Sweep, 500).await;
    engine.stop().await;
}

#[tokio::test]
async fn a_start_request_is_taken_with_the_first_of_a_flood() {
    let mut watch = Watch::new().await;
    let engine = node(&watch.url, quiet).await;
    watch
        .after(
            "insert into start_requests (id, namespace, run_id, workflow, input) \
             select ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, \
             case when n > 1700 then 'calm' else 'a-flood' end, gen_random_uuid(), 'unknown', 'null' \
             from generate_series(1, 1701) n",
            "start_requests",
        )
        .await;
    watch.calm_has_its_turn(&engine, BackgroundTask::TakeAsked, 500).await;
    engine.stop().await;
}

#[tokio::test]
async fn of_a_flood_of_requests_over_which_a_node_stopped_another_namespaces_is_tried_second() {
    let mut watch = Watch::new().await;
    let engine = node(&watch.url, quiet).await;
    watch
        .after(
            "insert into start_requests (id, namespace, run_id, workflow, input, tries) \
             select ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, \
             case when n > 50 then 'calm' else 'a-flood' end, gen_random_uuid(), 'unknown', 'null', 1 \
             from generate_series(1, 51) n",
            "start_requests",
        )
        .await;
    // Each is reserved and refused.
    watch.calm_has_its_turn(&engine, BackgroundTask::TakeAsked, 2).await;
    engine.stop().await;
}

#[tokio::test]
async fn a_schedule_is_looked_at_with_the_first_of_a_flood() {
    let mut watch = Watch::new().await;
    let engine = node(&watch.url, quiet).await;
    let spec = serde_json::from_str(r#"{"cron":"* * * * *","workflow":"one","catch_up":"1d"}"#);
    let spec: backstitch_saga::protocol::ScheduleSpec = spec.unwrap();
    for namespace in [FLOOD, CALM] {
        engine.register(namespace, &chain("one", &["a"])).await.unwrap();
        engine.put_schedule(namespace, "s", spec.clone(), &by("a test")).await.unwrap();
    }
    watch
        .after(
            "insert into schedules (namespace, name, spec, state, due_at) \
             select namespace, 's' || n, spec, state, due_at from schedules, generate_series(1, 200) n \
             where namespace = 'a-flood'; \
             update schedules set due_at = now() - case namespace when 'calm' then interval '1 second' \
               else interval '1 hour' end",
            "schedules",
        )
        .await;
    watch.calm_has_its_turn(&engine, BackgroundTask::Schedules, 64).await;
    engine.stop().await;
}

#[tokio::test]
async fn a_job_is_worked_on_with_the_first_of_a_flood_and_one_that_fails_keeps_none_back() {
    let mut watch = Watch::new().await;
    let engine = node(&watch.url, quiet).await;
    watch
        .after(
            r#"insert into jobs (id, namespace, asked, state, proven, actor, created_at, next_at)
             select gen_random_uuid(), case when n > 40 then 'calm' else 'a-flood' end,
             case when n between 1 and 8 then 'no JSON' else '{"verb":"pause","reason":"r","runs":{}}' end, 'running', true, 'ann',
             clock_timestamp(), clock_timestamp() - interval '1 hour' + n * interval '1 second'
             from generate_series(1, 41) n"#,
            "jobs",
        )
        .await;
    watch.calm_has_its_turn(&engine, BackgroundTask::WorkJobs, 16).await;
    let done = "select count(*) from jobs where namespace = 'calm' and state = 'done'";
    while watch.count(done).await == 0 {
        engine.run_once(BackgroundTask::WorkJobs).await.unwrap();
    }
    engine.stop().await;
}

#[tokio::test]
async fn a_job_over_which_nodes_stop_is_paused_with_the_reason() {
    let mut watch = Watch::new().await;
    let engine = node(&watch.url, quiet).await;
    watch
        .run(
            r#"insert into jobs (id, namespace, asked, state, proven, actor, created_at, next_at, tries)
             values (gen_random_uuid(), 'calm', '{"verb":"pause","reason":"r","runs":{}}', 'running', true, 'ann',
             clock_timestamp(), clock_timestamp(), 5)"#,
        )
        .await;
    while watch.count("select count(*) from jobs where state = 'running'").await > 0 {
        engine.run_once(BackgroundTask::WorkJobs).await.unwrap();
    }
    let set_aside = "select count(*) from jobs where state = 'paused' and why like 'set aside: 5 times%' and tries = 0";
    assert_eq!(watch.count(set_aside).await, 1);
    engine.stop().await;
}

#[tokio::test]
async fn an_early_signal_is_brought_with_the_first_of_a_flood() {
    let mut watch = Watch::new().await;
    let engine = node(&watch.url, quiet).await;
    watch
        .after(
            "insert into early_signals (namespace, workflow, key, signal, data, actor, at) \
             select case when n > 1200 then 'calm' else 'a-flood' end, 'w', 'k' || n, 's', 'null', 'ann', \
             clock_timestamp() - interval '1 hour' + n * interval '1 second' from generate_series(1, 1201) n; \
             insert into run_keys (namespace, key, workflow, run_id, input_digest) \
             select namespace, key, workflow, gen_random_uuid(), '' from early_signals where key <> 'k7'",
            "early_signals",
        )
        .await;
    // So many are brought side by side; which of them is written first is left open.
    watch.calm_has_its_turn(&engine, BackgroundTask::DeliverSignals, 16).await;
    let left = "select count(*) from early_signals";
    while watch.count(left).await > 1 {
        engine.run_once(BackgroundTask::DeliverSignals).await.unwrap();
    }
    assert_eq!(watch.count("select count(*) from early_signals where key = 'k7'").await, 1);
    engine.stop().await;
}

#[tokio::test]
async fn a_completed_attempt_is_reported_with_the_first_of_a_flood() {
    let mut watch = Watch::new().await;
    let engine = node(&watch.url, quiet).await;
    watch
        .after(
            "insert into fences (run_id, step, action, attempt, namespace, opened_at, completed_at, output) \
             select gen_random_uuid(), 'a', 'forward', 1, case when n > 1200 then 'calm' else 'a-flood' end, now(), \
             clock_timestamp() - interval '1 hour' + n * interval '1 second', 'null' from generate_series(1, 1201) n",
            "fences",
        )
        .await;
    watch.calm_has_its_turn(&engine, BackgroundTask::TakeAsked, 500).await;
    engine.stop().await;
}

#[tokio::test]
async fn a_migration_has_its_turn_after_one_of_a_flood() {
    let mut watch = Watch::new().await;
    let engine = node(&watch.url, quiet).await;
    for (namespace, count) in [(FLOOD, 6), (CALM, 1)] {
        for number in 0..count {
            let name = format!("w{number}");
            engine.register(namespace, &chain(&name, &["a"])).await.unwrap();
            let second = chain(&name, &["a", "b"]).replace(r#""version":1"#, r#""version":2"#);
            engine.register(namespace, &second).await.unwrap();
        }
    }
    watch
        .after(
            r#"insert into migrations (namespace, id, workflow, from_version, to_version, mapping, on_obstacle, state,
             actor, reason, created_at)
             select d.namespace, ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, d.name, 1, 2, '{}', 'leave',
             'checking', 'ann', 'r', now() from (select namespace, name, row_number() over (order by namespace, name) as n
             from definitions where version = 1) d"#,
            "migrations",
        )
        .await;
    // Each is claimed, goes on to move and is over: three changes.
    watch.calm_has_its_turn(&engine, BackgroundTask::Migrate, 3).await;
    while watch.count("select count(*) from migrations where state = 'done'").await < 7 {
        engine.run_once(BackgroundTask::Migrate).await.unwrap();
    }
    engine.stop().await;
}

#[tokio::test]
async fn a_migration_over_which_nodes_stop_is_stopped_with_the_reason() {
    let mut watch = Watch::new().await;
    let engine = node(&watch.url, quiet).await;
    watch
        .run(
            r#"insert into migrations (namespace, id, workflow, from_version, to_version, mapping, on_obstacle, state,
             actor, reason, created_at, tries) values ('calm', gen_random_uuid(), 'w', 1, 2, '{}', 'leave', 'checking', 'ann',
             'r', now(), 5)"#,
        )
        .await;
    let stopped = "select count(*) from migrations where state = 'stopped' and stopped_because like '5 times%'";
    while watch.count(stopped).await == 0 {
        engine.run_once(BackgroundTask::Migrate).await.unwrap();
    }
    engine.stop().await;
}

#[tokio::test]
async fn runs_of_a_workflow_that_goes_on_are_let_go_with_the_first_of_a_flood() {
    let mut watch = Watch::new().await;
    let engine = node(&watch.url, quiet).await;
    watch
        .after(
            "insert into workflow_pauses (namespace, workflow, since, actor, reason, resumed_at, resumed_by, resume_reason) \
             select case when n > 40 then 'calm' else 'a-flood' end, 'w' || n, now() - interval '1 day', 'ann', 'r', \
             now() - interval '1 hour' + n * interval '1 second', 'ann', 'r' from generate_series(1, 41) n",
            "workflow_pauses",
        )
        .await;
    watch.calm_has_its_turn(&engine, BackgroundTask::Guard, 16).await;
    engine.stop().await;
}

/// Runs of a namespace that require what nobody establishes.
async fn waiting(engine: &Engine, namespace: &str, count: usize) -> Vec<RunId> {
    engine.register(namespace, &chain("one", &["a"])).await.unwrap();
    let requires = vec![Requirement { fact: "paid".to_owned(), on: "order".to_owned() }];
    let sequence = StartSequence { requires, ..StartSequence::default() };
    let starts = (0..count).map(|_| {
        let mut start = start("one", "1");
        start.sequence = Some(sequence.clone());
        start
    });
    let answers = engine.start_runs(namespace, starts.collect()).await;
    answers.into_iter().map(|answer| answer.id.expect("a run")).collect()
}

#[tokio::test]
async fn who_waits_for_a_fact_too_long_is_told_with_the_first_of_a_flood() {
    let mut watch = Watch::new().await;
    let engine = node(&watch.url, quiet).await;
    waiting(&engine, FLOOD, 700).await;
    let calm = waiting(&engine, CALM, 1).await[0];
    watch
        .run(
            "update awaited set until = now() - case namespace when 'calm' then interval '1 second' \
             else interval '1 hour' end",
        )
        .await;
    engine.run_once(BackgroundTask::Sequence).await.unwrap();
    let told = format!("select count(*) from awaited where run_id = '{calm}' and overdue");
    assert_eq!(watch.count(&told).await, 1);
    engine.stop().await;
}

#[tokio::test]
async fn what_a_line_has_to_tell_is_told_whatever_others_have() {
    let mut watch = Watch::new().await;
    let engine = node(&watch.url, quiet).await;
    engine.register(CALM, &chain("one", &["a"])).await.unwrap();
    let mut first = start("one", "1");
    first.sequence = Some(StartSequence { serial_key: Some("k".to_owned()), ..Default::default() });
    engine.start_run(CALM, first).await.unwrap();
    // Whatever they have to tell, nobody hears it: there are no such runs.
    watch
        .run(
            "insert into serial_keys (namespace, key, run_id, state, since) select 'a-flood', 'k' || n, \
             gen_random_uuid(), 'holding', now() - interval '1 day' from generate_series(1, 600) n; \
             update serial_keys set granted = false, since = now() - interval '1 hour' where namespace = 'calm'",
        )
        .await;
    engine.run_once(BackgroundTask::Sequence).await.unwrap();
    let granted = "select count(*) from serial_keys where namespace = 'calm' and granted";
    assert_eq!(watch.count(granted).await, 1);
    engine.stop().await;
}

#[tokio::test]
async fn a_run_that_has_ended_leaves_its_rows_whatever_others_hold() {
    let mut watch = Watch::new().await;
    let engine = node(&watch.url, quiet).await;
    engine.register(CALM, &chain("one", &["a"])).await.unwrap();
    let run = engine.start_run(CALM, start("one", "1")).await.unwrap().id;
    engine.command(CALM, run, backstitch_saga::Command::Cancel { by: by("a test") }).await.unwrap();
    let view = engine.wait(CALM, run, Duration::from_secs(60)).await.unwrap();
    assert_eq!(view.outcome, Some(Outcome::Cancelled));
    watch
        .run(&format!(
            "insert into sequenced (run_id, namespace, since) select ('00000000-0000-7000-8000-' || \
             lpad(to_hex(n), 12, '0'))::uuid, 'a-flood', clock_timestamp() from generate_series(1, 6000) n; \
             insert into sequenced (run_id, namespace, since) values ('{run}', 'calm', clock_timestamp())"
        ))
        .await;
    engine.run_once(BackgroundTask::Sequence).await.unwrap();
    assert_eq!(watch.count("select count(*) from sequenced where namespace = 'calm'").await, 0);
    // The flood is gone through, too, some pages a time.
    assert_eq!(watch.count("select count(*) from sequenced").await, 6_000);
    engine.stop().await;
}

/// The index by which each statement is to find its rows.
const INDEXES: [(&str, &str); 10] = [
    ("start_requests_reserve", "start_requests_waiting"),
    ("schedules_take", "schedules_due"),
    ("jobs_claim", "jobs_due"),
    ("early_signals_deliverable", "early_signals_pkey"),
    ("fences_completed", "fences_completed"),
    ("serial_keys_to_tell", "serial_keys_to_tell"),
    ("sequenced_all_standing", "sequenced_by_namespace"),
    ("awaited_overdue", "awaited_until"),
    ("pauses_over", "workflow_pauses_over"),
    ("migrations_claim", "migrations_under_way"),
];

#[tokio::test]
async fn rows_of_each_namespace_are_found_by_an_index() {
    let mut watch = Watch::new().await;
    node(&watch.url, quiet).await.stop().await;
    watch
        .run(
            "set plan_cache_mode = force_generic_plan; set enable_seqscan = off; set enable_hashjoin = off; \
             set enable_mergejoin = off",
        )
        .await;
    let statements = statements_in_turns();
    assert_eq!(statements.len(), INDEXES.len());
    for (statement, (name, index)) in statements.iter().zip(INDEXES) {
        assert!(statement.starts_with(&format!("-- {name}\n")), "{statement}");
        watch.run(&format!("prepare {name} as {statement}")).await;
        let parameters = (1..10).take_while(|number| statement.contains(&format!("${number}")));
        let nulls = parameters.map(|_| "null").collect::<Vec<_>>().join(", ");
        let explain = format!("explain execute {name}({nulls})");
        let plan: Vec<String> = sqlx::query_scalar(AssertSqlSafe(explain))
            .fetch_all(&mut watch.connection)
            .await
            .unwrap();
        let plan = plan.join("\n");
        assert!(!plan.contains("Seq Scan"), "{name}:\n{plan}");
        // The first namespace, the next one, and the rows of each.
        let by = format!("using {index} on");
        assert!(plan.matches(&by).count() >= 3, "{name} is to use {index} three times:\n{plan}");
        assert!(plan.matches("(namespace > ").count() >= 2, "{name}:\n{plan}");
    }
}

//! Schedules for real: two nodes at once, a node that dies in between, and each overlap policy with a run in the way.

use std::time::Duration;

use backstitch_engine::{BackgroundTask, Engine, RunFilter};
use backstitch_saga::protocol::{
    BackfillSchedule, Outcome, Overlap, RunLine, ScheduleSpec, ScheduleStart, StartOutcome, State,
};
use backstitch_saga::{RunId, Span, Time, Timestamp};
use backstitch_tests::node::{Hand, NS, by, chain, json, node};
use backstitch_tests::postgres::database;
use sqlx::{Connection, PgConnection};

pub(super) const NAME: &str = "every";
pub(super) const MINUTE: i64 = 60_000;

/// A schedule on nodes that look at it only when they are told to.
pub(super) struct Stage {
    pub(super) url: String,
    pub(super) engine: Engine,
    /// Two hours ago, on the minute, in milliseconds.
    pub(super) base: i64,
}

pub(super) async fn quiet(url: &str) -> Engine {
    node(url, |options| options.tuning.schedules_every = Duration::from_secs(3_600)).await
}

impl Stage {
    pub(super) async fn new(change: impl FnOnce(&mut ScheduleSpec)) -> Stage {
        let url = database().await;
        let engine = quiet(&url).await;
        engine.register(NS, &chain("one", &["a"])).await.unwrap();
        let text = r#"{"cron":"* * * * *","workflow":"one","catch_up":"1d"}"#;
        let mut spec: ScheduleSpec = serde_json::from_str(text).unwrap();
        change(&mut spec);
        engine.put_schedule(NS, NAME, spec, &by("a test")).await.unwrap();
        let mut connection = PgConnection::connect(&url).await.unwrap();
        let sql =
            "select (extract(epoch from date_trunc('minute', clock_timestamp())) * 1000)::bigint";
        let now: i64 = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
        Stage { url, engine, base: now - 120 * MINUTE }
    }

    pub(super) async fn sql(
        &self,
        cron: Option<String>,
        considered: Option<i64>,
        waiting: Option<String>,
    ) {
        let mut connection = PgConnection::connect(&self.url).await.unwrap();
        let sql = "update schedules set revision = nextval('schedule_revisions'), due_at = clock_timestamp() - interval '1 minute', \
            spec = coalesce(jsonb_set(spec::jsonb, '{cron}', to_jsonb($1::text)), spec::jsonb)::text, \
            state = jsonb_set(jsonb_set(state::jsonb, '{considered}', \
              coalesce(to_jsonb($2::bigint), state::jsonb -> 'considered')), '{waiting}', \
              coalesce($3::text::jsonb, state::jsonb -> 'waiting'))::text";
        let done = sqlx::query(sql).bind(cron).bind(considered).bind(waiting);
        assert_eq!(done.execute(&mut connection).await.unwrap().rows_affected(), 1);
    }

    /// The schedule's next instant is `minute` minutes after `base`.
    pub(super) async fn prepare(&self, minute: i64) {
        let instant = self.base + minute * MINUTE;
        let (hours, minutes) = (instant / 3_600_000 % 24, instant / MINUTE % 60);
        self.sql(Some(format!("{minutes} {hours} * * *")), Some(instant - 1), None).await;
    }

    /// The schedule's next instant is `minute` minutes after `base`, and has come.
    pub(super) async fn comes(&self, minute: i64) -> usize {
        self.prepare(minute).await;
        self.engine.run_once(BackgroundTask::Schedules).await.unwrap()
    }

    /// The second has passed after which the schedule is looked at again.
    pub(super) async fn looks_again(&self) -> usize {
        self.sql(None, None, None).await;
        self.engine.run_once(BackgroundTask::Schedules).await.unwrap()
    }

    pub(super) async fn starts(&self) -> Vec<ScheduleStart> {
        let mut starts = self.engine.schedule_starts(NS, NAME, None, 1_000).await.unwrap().items;
        starts.reverse();
        starts
    }

    pub(super) async fn outcomes(&self) -> Vec<StartOutcome> {
        self.starts().await.iter().map(|start| start.outcome).collect()
    }

    pub(super) async fn runs(&self) -> Vec<RunLine> {
        let filter = RunFilter {
            labels: vec![("schedule".to_owned(), NAME.to_owned())],
            limit: 1_000,
            ..RunFilter::default()
        };
        let mut runs = self.engine.runs(NS, filter).await.unwrap().items;
        runs.reverse();
        runs
    }

    pub(super) async fn ended(&self, run: RunId) -> Outcome {
        let view = self.engine.wait(NS, run, Duration::from_secs(60)).await.unwrap();
        view.outcome.expect("an end")
    }
}

use StartOutcome::{Missed, Skipped, Started};

#[tokio::test]
async fn two_nodes_start_each_instant_once() {
    let stage = Stage::new(|spec| spec.overlap = Overlap::Allow).await;
    let second = quiet(&stage.url).await;
    for hour in 0..2 {
        stage.sql(None, Some(stage.base + hour * 50 * MINUTE), None).await;
        for _ in 0..3 {
            let (one, other) = tokio::join!(
                stage.engine.run_once(BackgroundTask::Schedules),
                second.run_once(BackgroundTask::Schedules)
            );
            one.unwrap();
            other.unwrap();
            // Both look at it, whoever took it.
            stage.sql(None, None, None).await;
        }
    }
    let runs = stage.runs().await;
    let instants: std::collections::BTreeSet<_> =
        runs.iter().map(|run| run.labels["scheduled_for"].clone()).collect();
    assert!(runs.len() >= 120, "{}", runs.len());
    assert_eq!(instants.len(), runs.len(), "no instant twice");
    let first: Timestamp = instants.first().unwrap().parse().unwrap();
    let last: Timestamp = instants.last().unwrap().parse().unwrap();
    let minutes = last.0.since(first.0).0 / 60_000 + 1;
    assert_eq!(minutes, runs.len() as u64, "none lost");
    // The second hour began before the first had ended: what was started before is told with its run.
    let told = stage.starts().await;
    let counts = stage.engine.schedule(NS, NAME).await.unwrap().counts;
    let all = (counts.started + counts.skipped, counts.missed + counts.refused);
    assert_eq!(all, (told.len() as u64, 0), "each start is told once, by whoever made it");
    let began = told.iter().filter(|start| start.outcome == Started).count();
    assert_eq!(began as u64, counts.started);
    let of_told: std::collections::BTreeSet<_> =
        told.iter().filter_map(|start| start.run).collect();
    let of_runs: std::collections::BTreeSet<_> = runs.iter().map(|run| run.id).collect();
    assert_eq!(of_told, of_runs, "each with its run");
    assert!(told.len() > runs.len());
}

#[tokio::test]
async fn a_start_that_a_dead_node_left_is_made_once() {
    let stage = Stage::new(|_| {}).await;
    let instant = stage.base;
    let key = format!("schedule/{NAME}/{}", Time(instant));
    let going = format!(
        r#"[{{"key":"{key}","origin":"cron","instant":{instant},"overlap":"skip","since":{instant},
            "actor":null,"going":true,"cancelled":null}}]"#
    );
    // It died before the start.
    stage.sql(None, None, Some(going.clone())).await;
    assert_eq!(stage.engine.run_once(BackgroundTask::Schedules).await.unwrap(), 1);
    let runs = stage.runs().await;
    assert_eq!((runs.len(), runs[0].key.as_deref()), (1, Some(key.as_str())));
    // It died after the start, before it could say so.
    stage.sql(None, None, Some(going)).await;
    assert_eq!(stage.engine.run_once(BackgroundTask::Schedules).await.unwrap(), 1);
    assert_eq!(stage.runs().await.len(), 1);
    let starts = stage.starts().await;
    assert!(starts.iter().all(|start| start.run == Some(runs[0].id)), "{starts:?}");
    assert!(stage.engine.schedule(NS, NAME).await.unwrap().waiting.is_empty());
}

#[tokio::test]
async fn skip_leaves_out_while_a_run_is_active() {
    let stage = Stage::new(|_| {}).await;
    let hand = Hand::new(&stage.engine);
    assert_eq!(stage.comes(1).await, 1);
    assert_eq!(stage.comes(2).await, 0);
    let task = hand.one().await;
    hand.succeed(&[task]).await;
    stage.ended(stage.runs().await[0].id).await;
    assert_eq!(stage.comes(3).await, 1);
    assert_eq!(stage.outcomes().await, [Started, Skipped, Started]);
    assert_eq!(stage.runs().await.len(), 2);
}

#[tokio::test]
async fn queue_starts_when_the_last_run_has_ended() {
    let stage = Stage::new(|spec| spec.overlap = Overlap::Queue).await;
    let hand = Hand::new(&stage.engine);
    assert_eq!(stage.comes(1).await, 1);
    assert_eq!(stage.comes(2).await, 0);
    assert_eq!(stage.comes(3).await, 0);
    let view = stage.engine.schedule(NS, NAME).await.unwrap();
    assert_eq!(view.waiting.len(), 1);
    assert_eq!(stage.outcomes().await, [Started, Skipped], "one may wait");
    let task = hand.one().await;
    hand.succeed(&[task]).await;
    stage.ended(stage.runs().await[0].id).await;
    assert_eq!(stage.looks_again().await, 1);
    let starts = stage.starts().await;
    assert_eq!(starts[2].scheduled_for, Timestamp(Time(stage.base + 2 * MINUTE)));
    assert_eq!(stage.runs().await.len(), 2);
}

#[tokio::test]
async fn replace_undoes_the_last_run_and_then_starts() {
    let stage = Stage::new(|spec| spec.overlap = Overlap::Replace).await;
    let hand = Hand::new(&stage.engine);
    assert_eq!(stage.comes(1).await, 1);
    let first = stage.runs().await[0].id;
    let task = hand.one().await;
    assert_eq!(stage.comes(2).await, 0);
    let run = stage.engine.run(NS, first, None).await.unwrap();
    assert_eq!(run.state, State::Compensating);
    let history = stage.engine.history(NS, first, None, 100).await.unwrap();
    let history = serde_json::to_string(&history.items).unwrap();
    assert!(history.contains("schedule every"), "{history}");
    assert_eq!(stage.looks_again().await, 0, "it has not ended yet");
    // What was in a worker's hands may have happened, so it is undone.
    assert_eq!(hand.succeed(&[task]).await[0].status, 409);
    let undo = hand.one().await;
    hand.succeed(&[undo]).await;
    assert_eq!(stage.ended(first).await, Outcome::Compensated);
    assert_eq!(stage.looks_again().await, 1);
    assert_eq!(stage.outcomes().await, [Started, Started]);
    assert_eq!(stage.runs().await.len(), 2);
}

#[tokio::test]
async fn allow_starts_beside_what_is_active() {
    let stage = Stage::new(|spec| spec.overlap = Overlap::Allow).await;
    assert_eq!(stage.comes(1).await, 1);
    assert_eq!(stage.comes(2).await, 1);
    assert!(stage.runs().await.iter().all(|run| run.state != State::Ended));
}

#[tokio::test]
async fn what_no_engine_was_there_for_is_missed_and_can_be_backfilled() {
    let stage = Stage::new(|spec| {
        spec.catch_up = Span::secs(3_600);
        spec.input = json(r#"{"shop":"north"}"#);
        spec.instant_as = Some("at".to_owned());
    })
    .await;
    assert_eq!(stage.comes(0).await, 0);
    assert_eq!(stage.outcomes().await, [Missed]);
    let at = Timestamp(Time(stage.base));
    let ask = BackfillSchedule {
        from: at,
        to: at,
        overlap: Overlap::Queue,
        limit: 10,
        reason: String::new(),
        dry_run: false,
    };
    for again in [false, true] {
        if again {
            // Clocks of nodes are less than a second apart.
            tokio::time::sleep(Duration::from_millis(1_100)).await;
        }
        let plan = stage.engine.backfill_schedule(NS, NAME, &ask, &by("a test")).await.unwrap();
        assert_eq!((plan.count, &plan.instants), (1, &vec![at]));
        assert_eq!(stage.looks_again().await, usize::from(!again));
        if !again {
            let hand = Hand::new(&stage.engine);
            let task = hand.one().await;
            let input: serde_json::Value = task.input.to().unwrap();
            assert_eq!(input, serde_json::json!({"at": at, "shop": "north"}));
            hand.succeed(&[task]).await;
            stage.ended(stage.runs().await[0].id).await;
        }
    }
    assert_eq!(stage.outcomes().await, [Missed, Started, Skipped]);
    let (runs, starts) = (stage.runs().await, stage.starts().await);
    assert_eq!(runs.len(), 1, "an instant has one run");
    assert_eq!(starts[2].run, Some(runs[0].id));
    let counts = stage.engine.schedule(NS, NAME).await.unwrap().counts;
    assert_eq!((counts.started, counts.skipped), (1, 1));
}

#[tokio::test]
async fn a_start_that_is_refused_is_told_and_the_next_one_comes() {
    let stage = Stage::new(|_| {}).await;
    let key = format!("schedule/{NAME}/{}", Time(stage.base + MINUTE));
    let mut taken = backstitch_tests::node::start("one", "7");
    taken.key = Some(key);
    stage.engine.start_run(NS, taken).await.unwrap();
    assert_eq!(stage.comes(1).await, 0);
    let starts = stage.starts().await;
    assert_eq!(
        (starts[0].outcome, starts[0].code.as_deref()),
        (StartOutcome::Refused, Some("key_conflict"))
    );
    assert_eq!(stage.comes(2).await, 1);
}

#[tokio::test]
async fn a_schedule_runs_by_itself() {
    let engine = node(&database().await, |_| {}).await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let text = r#"{"cron":"* * * * * *","workflow":"one","overlap":"allow"}"#;
    let spec: ScheduleSpec = serde_json::from_str(text).unwrap();
    engine.put_schedule(NS, NAME, spec, &by("a test")).await.unwrap();
    let limit = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let starts = engine.schedule_starts(NS, NAME, None, 100).await.unwrap().items;
        if starts.len() >= 3 {
            let instants: Vec<i64> = starts.iter().map(|one| one.scheduled_for.0.0).collect();
            assert!(instants.windows(2).all(|two| two[0] - two[1] == 1_000), "{instants:?}");
            break;
        }
        assert!(tokio::time::Instant::now() < limit, "{starts:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_node_that_dies_leaves_no_instant_out() {
    let url = database().await;
    let (first, second) = (node(&url, |_| {}).await, node(&url, |_| {}).await);
    first.register(NS, &chain("one", &["a"])).await.unwrap();
    let text = r#"{"cron":"* * * * * *","workflow":"one","overlap":"allow"}"#;
    let spec: ScheduleSpec = serde_json::from_str(text).unwrap();
    first.put_schedule(NS, NAME, spec, &by("a test")).await.unwrap();
    let started = async || second.schedule(NS, NAME).await.unwrap().counts.started;
    while started().await < 2 {
        tokio::task::yield_now().await;
    }
    drop(first);
    let limit = tokio::time::Instant::now() + Duration::from_secs(30);
    while started().await < 6 {
        assert!(tokio::time::Instant::now() < limit, "nobody goes on");
        tokio::task::yield_now().await;
    }
    second.pause_schedule(NS, NAME, &by("a test")).await.unwrap();
    let starts = second.schedule_starts(NS, NAME, None, 100).await.unwrap().items;
    let instants: Vec<i64> = starts.iter().map(|one| one.scheduled_for.0.0).collect();
    assert!(instants.windows(2).all(|two| two[0] - two[1] == 1_000), "{instants:?}");
    let runs: std::collections::HashSet<_> = starts.iter().map(|one| one.run).collect();
    assert_eq!(runs.len(), starts.len(), "each instant has its own run");
}

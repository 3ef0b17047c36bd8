//! Schedules that are changed while a start is being made: between the write that decides it and the write of its
//! result. The start is held up by a lock on the table that it writes, so that each change falls between the two.

use std::time::{Duration, Instant};

use backstitch_engine::BackgroundTask;
use backstitch_saga::protocol::{BackfillSchedule, Overlap, ScheduleSpec, StartOutcome};
use backstitch_saga::{Time, Timestamp};
use backstitch_tests::node::{NS, by, chain, json};
use sqlx::{Connection, PgConnection};

use super::schedules::{MINUTE, NAME, Stage, quiet};

/// Holds up every start until it is let go.
struct HeldUp(PgConnection);

impl HeldUp {
    async fn new(url: &str) -> HeldUp {
        let mut connection = PgConnection::connect(url).await.unwrap();
        sqlx::raw_sql("begin; lock table runs in share mode")
            .execute(&mut connection)
            .await
            .unwrap();
        HeldUp(connection)
    }

    /// Waits until a start is written down as going.
    async fn until_going(&self, stage: &Stage) {
        let mut connection = PgConnection::connect(&stage.url).await.unwrap();
        let began = Instant::now();
        loop {
            let sql = "select state::jsonb -> 'waiting' @> '[{\"going\": true}]' from schedules";
            if sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap() {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "nothing is going");
            tokio::task::yield_now().await;
        }
    }

    async fn let_go(mut self) {
        sqlx::raw_sql("commit").execute(&mut self.0).await.unwrap();
    }
}

async fn change(stage: &Stage, change: impl FnOnce(&mut ScheduleSpec)) {
    let mut spec = stage.engine.schedule(NS, NAME).await.unwrap().spec;
    change(&mut spec);
    stage.engine.put_schedule(NS, NAME, spec, &by("a test")).await.unwrap();
}

/// Makes the start of `minute` while `act` happens between its two writes. It has one run, of the workflow `one` and
/// with the input `null`, which the schedule knows.
async fn started_once(stage: &Stage, minute: i64, act: impl AsyncFnOnce()) {
    let before = (stage.runs().await.len(), stage.starts().await.len());
    stage.prepare(minute).await;
    let held_up = HeldUp::new(&stage.url).await;
    let meanwhile = async {
        held_up.until_going(stage).await;
        act().await;
        held_up.let_go().await;
    };
    let (started, ()) = tokio::join!(stage.engine.run_once(BackgroundTask::Schedules), meanwhile);
    started.unwrap();
    let (runs, starts) = (stage.runs().await, stage.starts().await);
    assert_eq!(
        (runs.len(), starts.len()),
        (before.0 + 1, before.1 + 1),
        "minute {minute}: {starts:?}"
    );
    let (run, start) = (&runs[before.0], &starts[before.1]);
    assert_eq!((start.outcome, start.run), (StartOutcome::Started, Some(run.id)));
    assert_eq!(start.scheduled_for.0, Time(stage.base + minute * MINUTE));
    let view = stage.engine.run(NS, run.id, None).await.unwrap();
    assert_eq!((view.workflow.as_str(), view.version), ("one", 1));
    assert_eq!(stage.engine.schedule(NS, NAME).await.unwrap().last_run, Some(run.id));
}

#[tokio::test]
async fn a_start_that_is_being_made_is_made_once_whatever_is_changed_meanwhile() {
    let stage = Stage::new(|spec| spec.overlap = Overlap::Allow).await;
    stage.engine.register(NS, &chain("two", &["a"])).await.unwrap();
    started_once(&stage, 1, async || change(&stage, |spec| spec.input = json("7")).await).await;
    change(&stage, |spec| spec.input = json("null")).await;
    started_once(&stage, 2, async || {
        change(&stage, |spec| spec.workflow = "two".to_owned()).await;
        change(&stage, |spec| spec.labels = [("team".to_owned(), "x".to_owned())].into()).await;
    })
    .await;
    change(&stage, |spec| spec.workflow = "one".to_owned()).await;
    started_once(&stage, 3, async || {
        change(&stage, |spec| {
            (spec.cron, spec.time_zone) = ("0 0 1 1 *".into(), "Asia/Tokyo".into());
        })
        .await;
    })
    .await;
    change(&stage, |spec| spec.time_zone = "UTC".to_owned()).await;
    started_once(&stage, 4, async || {
        stage.engine.pause_schedule(NS, NAME, &by("a test")).await.unwrap();
        // The newest version would not take the input.
        let strict = chain("one", &["a"])
            .replacen('{', r#"{"input_schema":{"type":"object"},"#, 1)
            .replacen(r#""version":1"#, r#""version":2"#, 1);
        assert!(strict.contains(r#""version":2"#), "{strict}");
        stage.engine.register(NS, &strict).await.unwrap();
    })
    .await;
    assert_eq!(stage.engine.schedule(NS, NAME).await.unwrap().counts.refused, 0);
}

#[tokio::test]
async fn two_nodes_make_a_start_once_although_the_schedule_is_changed_in_between() {
    let stage = Stage::new(|_| {}).await;
    let other = quiet(&stage.url).await;
    stage.prepare(1).await;
    let held_up = HeldUp::new(&stage.url).await;
    let meanwhile = async {
        held_up.until_going(&stage).await;
        change(&stage, |spec| spec.input = json("7")).await;
        // It is due for everybody.
        stage.sql(None, None, None).await;
        tokio::join!(other.run_once(BackgroundTask::Schedules), held_up.let_go()).0
    };
    let (here, there) = tokio::join!(stage.engine.run_once(BackgroundTask::Schedules), meanwhile);
    here.unwrap();
    there.unwrap();
    assert_eq!(stage.engine.schedule(NS, NAME).await.unwrap().counts.started, 1);
    let (runs, starts) = (stage.runs().await, stage.starts().await);
    assert_eq!((runs.len(), starts.len()), (1, 1), "{starts:?}");
    assert_eq!((starts[0].outcome, starts[0].run), (StartOutcome::Started, Some(runs[0].id)));
}

#[tokio::test]
async fn a_backfill_starts_no_instant_again_that_another_workflow_had() {
    let stage = Stage::new(|spec| spec.overlap = Overlap::Allow).await;
    stage.engine.register(NS, &chain("two", &["a"])).await.unwrap();
    assert_eq!(stage.comes(1).await, 1);
    change(&stage, |spec| spec.workflow = "two".to_owned()).await;
    let at = Timestamp(Time(stage.base + MINUTE));
    let ask = BackfillSchedule {
        from: at,
        to: at,
        overlap: Overlap::Allow,
        limit: 10,
        reason: String::new(),
        dry_run: false,
    };
    stage.engine.backfill_schedule(NS, NAME, &ask, &by("a test")).await.unwrap();
    assert_eq!(stage.looks_again().await, 0);
    let (runs, starts) = (stage.runs().await, stage.starts().await);
    assert_eq!((runs.len(), starts.len()), (1, 2), "{starts:?}");
    assert_eq!((starts[1].outcome, starts[1].run), (StartOutcome::Refused, None));
    assert_eq!(starts[1].code.as_deref(), Some("key_conflict"));
    let why = format!("the instant has started run {} of 'one'", runs[0].id);
    assert_eq!(starts[1].message.as_deref(), Some(why.as_str()));
    // One that has not run goes as the schedule says now, once although the calendar and a backfill both ask for it.
    stage.prepare(3).await;
    let at = Timestamp(Time(stage.base + 3 * MINUTE));
    let ask = BackfillSchedule { from: at, to: at, ..ask };
    stage.engine.backfill_schedule(NS, NAME, &ask, &by("a test")).await.unwrap();
    stage.looks_again().await;
    let runs = stage.runs().await;
    assert_eq!((runs.len(), runs[1].workflow.as_str()), (2, "two"));
}

#[tokio::test]
async fn the_overlap_policy_looks_at_the_run_that_was_made_during_an_edit() {
    let stage = Stage::new(|_| {}).await;
    started_once(&stage, 1, async || change(&stage, |spec| spec.input = json("7")).await).await;
    assert_eq!(stage.comes(2).await, 0);
    assert_eq!(stage.outcomes().await, [StartOutcome::Started, StartOutcome::Skipped]);
    assert_eq!(stage.runs().await.len(), 1);
}

#[tokio::test]
async fn a_schedule_that_is_deleted_while_a_start_is_being_made_has_that_start_in_its_history() {
    let stage = Stage::new(|_| {}).await;
    stage.prepare(1).await;
    let held_up = HeldUp::new(&stage.url).await;
    let reason = by("a test");
    let deletion = async {
        held_up.until_going(&stage).await;
        let deletion = stage.engine.delete_schedule(NS, NAME, &reason);
        let (deleted, ()) = tokio::join!(deletion, held_up.let_go());
        deleted.unwrap();
    };
    let (looked, ()) = tokio::join!(stage.engine.run_once(BackgroundTask::Schedules), deletion);
    looked.unwrap();
    let runs = stage.runs().await;
    assert_eq!(runs.len(), 1);
    // Made anew under the same name it has the history of that name, and knows no run.
    let spec = r#"{"cron":"* * * * *","workflow":"one","input":7}"#;
    let (view, created) = stage
        .engine
        .put_schedule(NS, NAME, serde_json::from_str(spec).unwrap(), &reason)
        .await
        .unwrap();
    assert_eq!((created, view.last_run, view.waiting.len()), (true, None, 0));
    let starts = stage.starts().await;
    assert_eq!(starts.len(), 1, "{starts:?}");
    assert_eq!((starts[0].outcome, starts[0].run), (StartOutcome::Started, Some(runs[0].id)));
}

#[tokio::test]
async fn what_waited_when_a_schedule_was_deleted_stands_in_its_history() {
    let stage = Stage::new(|spec| spec.overlap = Overlap::Queue).await;
    assert_eq!(stage.comes(1).await, 1);
    assert_eq!(stage.comes(2).await, 0);
    let text = serde_json::to_string(&stage.engine.schedule(NS, NAME).await.unwrap().spec).unwrap();
    stage.engine.delete_schedule(NS, NAME, &by("a test")).await.unwrap();
    let spec = serde_json::from_str(&text).unwrap();
    stage.engine.put_schedule(NS, NAME, spec, &by("a test")).await.unwrap();
    assert_eq!(stage.outcomes().await, [StartOutcome::Started, StartOutcome::Skipped]);
    let why = stage.starts().await[1].message.clone();
    assert_eq!(why.as_deref(), Some("the schedule was deleted"));
}

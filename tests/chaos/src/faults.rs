//! The faults of a random plan: each is inflicted, lasts a while, and is healed.

use std::time::Duration;

use backstitch_tests::chance::Chance;
use sqlx::Connection as _;
use tokio::time::sleep;

use crate::field::{ENGINES, Field};
use crate::proxy::{Proxy, Way};
use crate::stage::signal;
use crate::worker::Death;

/// A way to be hurt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An engine is killed, `kill -9`, and started again.
    EngineKilled,
    /// Two engines are killed at once.
    EnginesKilled,
    /// An engine stands still for longer than leases and its own life last, and goes on.
    EngineFrozen,
    /// All engines are restarted in order, one after the other; with another build, where there is one.
    EnginesRestarted,
    /// A worker dies before, between or after one of its effects.
    WorkerKilled,
    /// A worker stands still for longer than its leases, and goes on.
    WorkerFrozen,
    /// PostgreSQL is restarted, cutting connections in order.
    PostgresRestarted,
    /// PostgreSQL dies and recovers.
    PostgresCrashed,
    /// Connections to PostgreSQL are killed while they commit.
    BackendsKilled,
    /// The primary dies with its data; a standby takes its place, read-only first, and is promoted.
    FailedOver,
    /// The disk of PostgreSQL is full.
    DiskFull,
    /// PostgreSQL takes no writes, as a server does that is not the first any more.
    ReadOnly,
    /// PostgreSQL has no connection left.
    NoConnections,
    /// Nobody hears NOTIFY.
    NotifyLost,
    /// The ways between engines and PostgreSQL.
    Postgres(Way),
    /// The ways between workers and engines.
    Engine(Way),
    /// The way between workers and the ledger.
    Ledger(Way),
}

const SLOW: Way = Way::Slow(Duration::from_millis(150));

/// All faults.
pub const ALL: &[Fault] = &[
    Fault::EngineKilled,
    Fault::EnginesKilled,
    Fault::EngineFrozen,
    Fault::EnginesRestarted,
    Fault::WorkerKilled,
    Fault::WorkerFrozen,
    Fault::PostgresRestarted,
    Fault::PostgresCrashed,
    Fault::BackendsKilled,
    Fault::FailedOver,
    Fault::DiskFull,
    Fault::ReadOnly,
    Fault::NoConnections,
    Fault::NotifyLost,
    Fault::Postgres(Way::Cut),
    Fault::Postgres(Way::Silent),
    Fault::Postgres(Way::Mute),
    Fault::Postgres(SLOW),
    Fault::Engine(Way::Cut),
    Fault::Engine(Way::Silent),
    Fault::Engine(Way::Mute),
    Fault::Engine(SLOW),
    Fault::Ledger(Way::Cut),
    Fault::Ledger(Way::Mute),
];

fn way_name(way: Way) -> &'static str {
    match way {
        Way::Open => "open",
        Way::Slow(_) => "slow",
        Way::Silent => "half-open",
        Way::Mute => "answers lost",
        Way::Cut => "cut",
    }
}

impl Fault {
    /// Returns its name in reports.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Fault::EngineKilled => "engine killed".to_owned(),
            Fault::EnginesKilled => "two engines killed".to_owned(),
            Fault::EngineFrozen => "engine frozen".to_owned(),
            Fault::EnginesRestarted => "engines restarted in turn".to_owned(),
            Fault::WorkerKilled => "worker killed".to_owned(),
            Fault::WorkerFrozen => "worker frozen".to_owned(),
            Fault::PostgresRestarted => "PostgreSQL restarted".to_owned(),
            Fault::PostgresCrashed => "PostgreSQL crashed".to_owned(),
            Fault::BackendsKilled => "backends killed in commits".to_owned(),
            Fault::FailedOver => "failed over to a standby".to_owned(),
            Fault::DiskFull => "disk full".to_owned(),
            Fault::ReadOnly => "PostgreSQL read-only".to_owned(),
            Fault::NoConnections => "out of connections".to_owned(),
            Fault::NotifyLost => "NOTIFY lost".to_owned(),
            Fault::Postgres(way) => format!("engine-PostgreSQL {}", way_name(way)),
            Fault::Engine(way) => format!("worker-engine {}", way_name(way)),
            Fault::Ledger(way) => format!("worker-ledger {}", way_name(way)),
        }
    }

    /// Hurts the field and heals it again.
    ///
    /// # Errors
    /// When it could not be healed.
    pub async fn inflict(self, field: &Field, chance: &mut Chance) -> anyhow::Result<()> {
        field.timeline.note(format!("{} ...", self.name()));
        let done = self.hurt(field, chance).await;
        field.timeline.note(format!("... {}: over", self.name()));
        done
    }

    async fn hurt(self, field: &Field, chance: &mut Chance) -> anyhow::Result<()> {
        let number = usize::try_from(chance.below(ENGINES as u64)).unwrap_or(0);
        let millis =
            |from: u64, chance: &mut Chance| Duration::from_millis(from + chance.below(from));
        match self {
            Fault::EngineKilled => {
                let mut engine = field.engines[number].lock().await;
                engine.kill().await?;
                sleep(millis(300, chance)).await;
                engine.start().await?;
            }
            Fault::EnginesKilled => {
                let other = (number + 1) % ENGINES;
                let mut one = field.engines[number].lock().await;
                let mut two = field.engines[other].lock().await;
                one.kill().await?;
                two.kill().await?;
                // The third takes over.
                sleep(millis(2_000, chance)).await;
                one.start().await?;
                two.start().await?;
            }
            Fault::EngineFrozen => {
                let engine = field.engines[number].lock().await;
                engine.signal("STOP").await?;
                sleep(millis(2_500, chance)).await;
                engine.signal("CONT").await?;
            }
            Fault::EnginesRestarted => {
                let other = field.ground.lock().await.has_other();
                for engine in &field.engines {
                    let mut engine = engine.lock().await;
                    engine.stop().await;
                    engine.change_build();
                    engine.start().await?;
                    if other {
                        field.timeline.note(format!("{} is of another build", engine.name));
                    }
                }
            }
            Fault::WorkerKilled => {
                let nth = 1 + chance.below(4);
                let death = match chance.below(3) {
                    0 => Death::Before(nth),
                    1 => Death::Between(nth),
                    _ => Death::After(nth),
                };
                field.new_worker(number, Some(death)).await?;
                sleep(millis(500, chance)).await;
            }
            Fault::WorkerFrozen => {
                if let Some(pid) = field.worker_pid(number).await {
                    signal(pid, "STOP").await?;
                    sleep(millis(2_000, chance)).await;
                    signal(pid, "CONT").await?;
                }
            }
            Fault::PostgresRestarted => field.ground.lock().await.server.restart("INT").await?,
            Fault::PostgresCrashed => field.ground.lock().await.server.restart("QUIT").await?,
            Fault::BackendsKilled => kill_backends(field, chance).await?,
            Fault::FailedOver => fail_over(field, chance).await?,
            Fault::DiskFull => {
                field.ground.lock().await.server.move_to_small_disk().await?;
                sleep(millis(300, chance)).await;
                field.ground.lock().await.server.fill_disk().await?;
                field.timeline.note("the disk is full");
                sleep(millis(1_500, chance)).await;
                if field.ground.lock().await.server.make_room().await? {
                    field.timeline.note("PostgreSQL had died of it");
                }
            }
            Fault::ReadOnly => {
                set(field, "default_transaction_read_only", "on").await?;
                sleep(millis(1_000, chance)).await;
                set(field, "default_transaction_read_only", "off").await?;
            }
            Fault::NoConnections => use_up_connections(field, millis(1_500, chance)).await?,
            Fault::NotifyLost => {
                let mut sql = field.sql().await?;
                sqlx::query("select pg_terminate_backend(pid) from pg_stat_activity where query ilike 'listen%'")
                    .execute(&mut sql)
                    .await?;
            }
            Fault::Postgres(way) => {
                // All at once, or one while the others go on.
                let ways: Vec<&Proxy> = match chance.percent(50) {
                    true => field.to_postgres.iter().collect(),
                    false => vec![&field.to_postgres[number]],
                };
                block(&ways, way, millis(1_500, chance)).await;
            }
            Fault::Engine(way) => {
                let ways: Vec<&Proxy> = field.to_engine.iter().collect();
                block(&ways, way, millis(1_500, chance)).await;
            }
            Fault::Ledger(way) => block(&[&field.to_ledger], way, millis(1_000, chance)).await,
        }
        Ok(())
    }
}

/// The primary dies; everybody is led to the standby, which takes no writes for a while, and is promoted then.
async fn fail_over(field: &Field, chance: &mut Chance) -> anyhow::Result<()> {
    let standby = field.ground.lock().await.server.stand_by().await?;
    field.timeline.note("a standby has everything that is acknowledged");
    sleep(Duration::from_millis(500 + chance.below(1_000))).await;
    field.to_postgres.iter().for_each(|proxy| proxy.set(Way::Cut));
    let mut ground = field.ground.lock().await;
    ground.server.die_before(standby).await?;
    field.timeline.note("the primary is dead, the standby takes no writes");
    let target = ground.postgres_target()?;
    for proxy in &field.to_postgres {
        proxy.lead_to(target.clone());
        proxy.set(Way::Open);
    }
    sleep(Duration::from_millis(500 + chance.below(1_000))).await;
    ground.server.promote().await?;
    field.timeline.note("the standby is the primary");
    Ok(())
}

async fn block(ways: &[&Proxy], way: Way, span: Duration) {
    ways.iter().for_each(|proxy| proxy.set(way));
    sleep(span).await;
    ways.iter().for_each(|proxy| proxy.set(Way::Open));
}

async fn set(field: &Field, name: &str, value: &str) -> anyhow::Result<()> {
    let mut sql = field.sql().await?;
    sqlx::query("set default_transaction_read_only = off").execute(&mut sql).await?;
    let text = format!("alter system set {name} = {value}");
    sqlx::query(sqlx::AssertSqlSafe(text)).execute(&mut sql).await?;
    sqlx::query("select pg_reload_conf()").execute(&mut sql).await?;
    Ok(())
}

/// Kills connections of engines at random for a second and a half, often: some are in the middle of a commit.
async fn kill_backends(field: &Field, chance: &mut Chance) -> anyhow::Result<()> {
    let mut sql = field.sql().await?;
    for _ in 0..30 {
        let share = f64::from(u32::try_from(20 + chance.below(40)).unwrap_or(0)) / 100.0;
        sqlx::query(
            "select pg_terminate_backend(pid) from pg_stat_activity \
             where application_name = 'backstitch' and state = 'active' and random() < $1",
        )
        .bind(share)
        .execute(&mut sql)
        .await?;
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Takes all connections that are left, after those of the engines were killed.
async fn use_up_connections(field: &Field, span: Duration) -> anyhow::Result<()> {
    let mut sql = field.sql().await?;
    let mut taken = Vec::new();
    let mut kill = true;
    let until = std::time::Instant::now() + span;
    while std::time::Instant::now() < until {
        if let Ok(more) = field.sql().await {
            taken.push(more);
            continue;
        }
        if std::mem::take(&mut kill) {
            sqlx::query(
                "select pg_terminate_backend(pid) from pg_stat_activity \
                 where application_name = 'backstitch' and random() < 0.7",
            )
            .execute(&mut sql)
            .await?;
        }
        sleep(Duration::from_millis(20)).await;
    }
    for connection in taken {
        // It is of no use any more whatever the answer.
        let _ = connection.close().await;
    }
    Ok(())
}

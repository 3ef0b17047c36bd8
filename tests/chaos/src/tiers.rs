//! The tiers: how much of everything is tried, and what must have been reached in the end.

use std::time::{Duration, Instant};

use crate::drills;
use crate::evidence_counts::MUST;
use crate::plan::{self, Plan};
use crate::points::{self, Choice};
use crate::report::Report;
use crate::stage::Ground;

/// Number of crash points in the short tier, and shortest time of random faults: until each fault has come.
const SHORT_POINTS: usize = 64;
const SHORT_PLAN: Duration = Duration::from_secs(30);
/// Duration of one random plan of the long tier; then another begins, on a new database.
const LONG_PLAN: Duration = Duration::from_secs(180);

/// A few minutes of everything.
///
/// # Errors
/// When the harness itself failed.
pub async fn short(ground: Ground, seed: u64, report: &mut Report) -> anyhow::Result<()> {
    drills::run(&ground, None, report).await?;
    drills::test_the_tester(&ground, None, report).await?;
    let choice = Choice { shape: None, point: None, most: Some(SHORT_POINTS), seed };
    points::run(&ground, &choice, report).await?;
    let plan = Plan { seed, span: SHORT_PLAN, only: None, bug: None };
    plan::run(ground, &plan, report).await?;
    MUST.iter().for_each(|counter| report.must_count(counter));
    Ok(())
}

/// Every crash point, and random plans one after the other until `span` is over.
///
/// # Errors
/// When the harness itself failed.
pub async fn long(
    mut ground: Ground,
    seed: u64,
    span: Duration,
    report: &mut Report,
) -> anyhow::Result<()> {
    let until = Instant::now() + span;
    drills::run(&ground, None, report).await?;
    drills::test_the_tester(&ground, None, report).await?;
    let choice = Choice { shape: None, point: None, most: None, seed };
    points::run(&ground, &choice, report).await?;
    for number in 0.. {
        let plan = Plan { seed: seed + number, span: LONG_PLAN, only: None, bug: None };
        ground = plan::run(ground, &plan, report).await?;
        if Instant::now() + LONG_PLAN > until {
            break;
        }
    }
    MUST.iter().for_each(|counter| report.must_count(counter));
    Ok(())
}

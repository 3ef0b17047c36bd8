//! Drills: small scenes with a known script, each after one way to go wrong. Without a bug they must be clean and reach
//! what they are after; with the bug that they are for they must not be.

mod database;
mod fleet;
mod nodes;
mod scene;
mod single;

use futures::{StreamExt as _, stream};

use crate::report::Report;
use crate::stage::Ground;
pub use scene::Came;

/// Number of concurrent drills; each waits most of the time.
const AT_ONCE: usize = 6;

/// A drill, by what it is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drill {
    /// Reports of attempts that have lost their leases.
    LateReports,
    /// Two engines take reports and acts on the same runs at the same moment.
    TwoEngines,
    /// Many commands for one run in one batch.
    ManyAtOnce,
    /// An engine dies while its commit hangs.
    HungCommit,
    /// An engine dies that had reserved tasks.
    ReservedTasks,
    /// An engine dies right after a commit.
    AfterCommit,
    /// A diamond is undone.
    Undo,
    /// Clocks differ by an hour.
    Clocks,
    /// NOTIFY is not heard.
    Unheard,
    /// The answer to a commit is lost.
    LostAnswer,
    /// Another namespace asks.
    Namespaces,
    /// An engine is restarted while an attempt is under way.
    Restart,
    /// The database refuses one record of a batch.
    Culprit,
    /// Many start with one key.
    OneKey,
    /// Timers while nothing is wrong.
    Timers,
    /// Schedules of seconds while engines die.
    Instants,
    /// Clocks of engines and workers are wrong by hours, and jump.
    LyingClocks,
    /// Engines go one by one from one build to another, and back.
    Upgrade,
    /// Schedules are edited all the time.
    EditedSchedules,
    /// The only engine crashes over and over while workers work.
    CrashLoop,
    /// New sessions take no writes for a while.
    ReadOnlySessions,
    /// The clock of the database jumps ahead for a moment.
    DatabaseClock,
    /// Rows of the indexes are lost.
    LostRows,
    /// Runs move to a version that waits for a signal which has come already.
    MovedSignals,
}

impl Drill {
    /// All of them.
    pub const ALL: &[Drill] = &[
        Drill::LateReports,
        Drill::TwoEngines,
        Drill::ManyAtOnce,
        Drill::HungCommit,
        Drill::ReservedTasks,
        Drill::AfterCommit,
        Drill::Undo,
        Drill::Clocks,
        Drill::Unheard,
        Drill::LostAnswer,
        Drill::Namespaces,
        Drill::Restart,
        Drill::Culprit,
        Drill::OneKey,
        Drill::Timers,
        Drill::Instants,
        Drill::LyingClocks,
        Drill::Upgrade,
        Drill::EditedSchedules,
        Drill::CrashLoop,
        Drill::ReadOnlySessions,
        Drill::DatabaseClock,
        Drill::LostRows,
        Drill::MovedSignals,
    ];

    /// Returns the drill that is to find a bug.
    #[must_use]
    pub fn of_bug(bug: &str) -> Option<Drill> {
        Some(match bug {
            "no-fence" | "no-lease" => Drill::LateReports,
            "conflict-ignored" | "stray-index-row" => Drill::TwoEngines,
            "two-records" => Drill::ManyAtOnce,
            "reply-before-commit" => Drill::HungCommit,
            "claim-new-only" => Drill::ReservedTasks,
            "enqueue-outside" => Drill::AfterCommit,
            "forward-order-undo" => Drill::Undo,
            "local-clock" => Drill::Clocks,
            "notify-only" => Drill::Unheard,
            "unknown-is-failure" => Drill::LostAnswer,
            "no-namespace" => Drill::Namespaces,
            "attempts-reset" => Drill::Restart,
            _ => return None,
        })
    }

    /// Carries it out.
    ///
    /// # Errors
    /// When the drill itself could not be made.
    pub async fn run(self, ground: &Ground, bug: Option<&str>) -> anyhow::Result<Came> {
        match self {
            Drill::LateReports => single::late_reports(ground, bug).await,
            Drill::TwoEngines => nodes::two_engines(ground, bug).await,
            Drill::ManyAtOnce => single::many_at_once(ground, bug).await,
            Drill::HungCommit => single::hung_commit(ground, bug).await,
            Drill::ReservedTasks => single::reserved_tasks(ground, bug).await,
            Drill::AfterCommit => single::after_commit(ground, bug).await,
            Drill::Undo => single::undo(ground, bug).await,
            Drill::Clocks => nodes::clocks(ground, bug).await,
            Drill::Unheard => single::unheard(ground, bug).await,
            Drill::LostAnswer => single::lost_answer(ground, bug).await,
            Drill::Namespaces => single::namespaces(ground, bug).await,
            Drill::Restart => single::restart(ground, bug).await,
            Drill::Culprit => single::culprit(ground, bug).await,
            Drill::OneKey => nodes::one_key(ground, bug).await,
            Drill::Timers => fleet::timers(ground, bug).await,
            Drill::Instants => fleet::instants(ground, bug).await,
            Drill::LyingClocks => fleet::lying_clocks(ground, bug).await,
            Drill::Upgrade => fleet::upgrade(ground, bug).await,
            Drill::EditedSchedules => fleet::edited_schedules(ground, bug).await,
            Drill::CrashLoop => fleet::crash_loop(ground, bug).await,
            Drill::ReadOnlySessions => database::read_only_sessions(ground, bug).await,
            Drill::DatabaseClock => database::database_clock(ground, bug).await,
            Drill::LostRows => database::lost_rows(ground, bug).await,
            Drill::MovedSignals => nodes::moved_signals(ground, bug).await,
        }
    }
}

/// All drills, which must be clean.
///
/// # Errors
/// When one could not be made.
pub async fn run(ground: &Ground, only: Option<&str>, report: &mut Report) -> anyhow::Result<()> {
    let chosen = Drill::ALL.iter().copied();
    let chosen: Vec<Drill> =
        chosen.filter(|drill| only.is_none_or(|only| format!("{drill:?}") == only)).collect();
    let mut results = stream::iter(chosen)
        .map(|drill| async move { (drill, drill.run(ground, None).await) })
        .buffer_unordered(AT_ONCE);
    while let Some((drill, came)) = results.next().await {
        let came = came.map_err(|error| error.context(format!("{drill:?}")))?;
        report.case(&format!("drills --only {drill:?}"), &came.violations, &came.evidence);
        for (counter, value) in &came.counts {
            report.count(counter, *value);
        }
        crate::evidence_counts::count(&came.evidence, report);
        came.lines.iter().for_each(|line| report.say(line));
        if let Some(why) = &came.skipped {
            report.skip(format!("{drill:?}: {why}"));
        }
    }
    Ok(())
}

/// Returns the bugs that can be planted.
#[must_use]
pub fn bugs() -> &'static [&'static str] {
    #[cfg(feature = "planted-bugs")]
    return backstitch_saga::planted::BUGS;
    #[cfg(not(feature = "planted-bugs"))]
    &[]
}

/// Tests the tester: each planted bug must be found by its drill.
///
/// # Errors
/// When this program has no bugs to be found.
pub async fn test_the_tester(
    ground: &Ground,
    only: Option<&str>,
    report: &mut Report,
) -> anyhow::Result<()> {
    anyhow::ensure!(!bugs().is_empty(), "build it with the feature planted-bugs");
    let chosen = bugs().iter().filter(|bug| only.is_none_or(|only| only == **bug));
    let mut results = stream::iter(chosen)
        .map(|bug| async move {
            let drill = Drill::of_bug(bug);
            let came = match drill {
                Some(drill) => Some(drill.run(ground, Some(bug)).await),
                None => None,
            };
            (*bug, drill, came)
        })
        .buffer_unordered(AT_ONCE);
    let (mut caught, mut lines) = (0, Vec::new());
    while let Some((bug, drill, came)) = results.next().await {
        let how = match (drill, came) {
            (Some(drill), Some(Ok(came))) => came.violations.first().map(|first| {
                let on = format!("{} in {drill:?}", first.invariant);
                if only.is_some() {
                    println!("{}", came.evidence.tell(first));
                }
                format!("{on}: {}", first.what)
            }),
            // With the bug the drill may not even come to its end, which nobody overlooks either.
            (Some(drill), Some(Err(error))) => Some(format!("{drill:?} cannot go on: {error:#}")),
            _ => None,
        };
        match how {
            Some(how) => {
                caught += 1;
                let how: String =
                    how.lines().next().unwrap_or_default().chars().take(150).collect();
                lines.push(format!("  caught  {bug:<20} by {how}"));
            }
            None => {
                lines.push(format!("  MISSED  {bug}"));
                report.fail(format!("the planted bug {bug} is not found"));
            }
        }
    }
    lines.sort();
    report.say(format!("planted bugs caught: {caught} of {}", lines.len()));
    lines.into_iter().for_each(|line| report.say(line));
    Ok(())
}

#[cfg(all(test, feature = "planted-bugs"))]
mod tests {
    use super::*;

    #[test]
    fn every_bug_has_a_drill() {
        for bug in bugs() {
            assert!(Drill::of_bug(bug).is_some(), "no drill is after {bug}");
        }
    }
}

//! Continuously compares the indexes with the journals, some runs after the other, and repairs
//! differences.
//!
//! There should be nothing to repair. But if a row is lost, by a defect, a restored table or somebody's SQL, its run
//! must not stop for ever: the journal has the truth. Six walks take turns: over the runs that have not ended, the
//! offered tasks, all journals, the schedules, the events, and the heads of logs. Each has a share of the time that it
//! does not exceed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use backstitch_saga::RunId;
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::charge::{Owned, remind};
use crate::crash::commit;
use crate::doctor::{self, Broken, Found};
use crate::node::Node;
use crate::store::walks::{self, UnendedPlace};
use crate::store::{index, nodes};
use crate::{Error, damage, log, pauses, schedules};

/// Interval of the passes of the check.
pub(crate) const EVERY: Duration = Duration::from_secs(2);
/// Share of that interval for each walk.
const BUDGET: Duration = Duration::from_millis(100);
/// Time after which a walk may take a larger share, so that it ends in time.
const HURRY_AFTER: Duration = Duration::from_secs(10);
/// That larger share: a quarter, and enough for some 50,000 runs within a minute.
const HURRIED: Duration = Duration::from_millis(500);
/// Duration from which a walk is reported.
const SLOW: Duration = Duration::from_secs(60);
/// Number of runs that are compared together.
const PAGE: i64 = 100;
/// Number of runs that are searched together for those to compare.
const SUSPECTS: i64 = 1_000;
/// Time for which writers are waited for; all later ones wait as long.
const PATIENCE: &str = "1s";

/// The subject of a walk.
#[derive(Clone, Copy, Debug)]
enum Walk {
    Unended,
    Offered,
    Journaled,
}

/// Progress of the walks.
#[derive(Debug, Default)]
pub(crate) struct Progress(Mutex<Turns>);

#[derive(Debug, Default)]
struct Turns {
    unended: Turn<UnendedPlace>,
    offered: Turn<Uuid>,
    journaled: Turn<Uuid>,
    schedules: Turn<(String, String)>,
    events: Turn<Uuid>,
    heads: Turn<String>,
}

/// A walk from one end to the other.
#[derive(Debug, Default)]
struct Turn<T> {
    began: Option<Instant>,
    /// The last that was checked; `None` if nothing was, or all.
    after: Option<T>,
    /// Duration of the last complete walk.
    took: Duration,
}

impl<T> Turn<T> {
    /// Returns whether the walk goes on now: it is in progress, or the last one began long enough
    /// ago.
    fn goes_on(&mut self, every: Duration) -> bool {
        if self.after.is_none() {
            if self.began.is_some_and(|at| at.elapsed() < every) {
                return false;
            }
            self.began = Some(Instant::now());
        }
        true
    }

    /// Notes the last that was checked; `None` when all were.
    fn stop_at(&mut self, last: Option<T>) {
        if last.is_none() {
            self.took = self.began.map(|at| at.elapsed()).unwrap_or_default();
        }
        self.after = last;
    }

    /// Returns the duration of the present walk.
    fn takes(&self) -> Duration {
        let began = self.began.filter(|_| self.after.is_some());
        began.map(|at| at.elapsed()).unwrap_or_default()
    }

    /// Returns the share of the interval that it may take now.
    fn budget(&self) -> Duration {
        if self.takes() > HURRY_AFTER { HURRIED } else { BUDGET }
    }
}

impl Progress {
    fn change<T>(&self, change: impl FnOnce(&mut Turns) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at everything again, from the beginning.
    pub(crate) fn begin_anew(&self) {
        self.change(|turns| *turns = Turns::default());
    }

    /// Returns the time that a check of every run that has not ended takes: the last one, or the present one if that is
    /// longer already.
    pub(crate) fn round(&self) -> Duration {
        self.change(|turns| turns.unended.took.max(turns.unended.takes()))
    }

    /// Returns the same, if it is so long that it is reported.
    pub(crate) fn slow_round(&self) -> Option<Duration> {
        Some(self.round()).filter(|took| *took > SLOW)
    }

    fn budget(&self, walk: Walk) -> Duration {
        self.change(|turns| match walk {
            Walk::Unended => turns.unended.budget(),
            Walk::Offered => turns.offered.budget(),
            Walk::Journaled => turns.journaled.budget(),
        })
    }

    fn goes_on(&self, walk: Walk, every: Duration) -> bool {
        self.change(|turns| match walk {
            Walk::Unended => turns.unended.goes_on(every),
            Walk::Offered => turns.offered.goes_on(every),
            Walk::Journaled => turns.journaled.goes_on(every),
        })
    }
}

/// Continues the check. Returns the number of runs that were repaired or put aside.
pub(crate) async fn check(node: &Arc<Node>) -> Result<usize, Error> {
    let every = node.options.tuning.check_every;
    let mut found = 0;
    if every == Duration::MAX {
        return Ok(found);
    }
    for walk in [Walk::Unended, Walk::Offered, Walk::Journaled] {
        let (began, budget) = (Instant::now(), node.checked.budget(walk));
        while began.elapsed() < budget && node.checked.goes_on(walk, every) {
            found += step(node, walk).await?;
            // A turn that takes less than its time ends here, however short it may be.
            if node.checked.change(|turns| turns.is_over(walk)) {
                break;
            }
        }
    }
    found += check_schedules(node, every).await?;
    found += check_events(node, every).await?;
    Ok(found + check_heads(node, every).await?)
}

/// Continues the walk over events. Returns the number of batches that were given positions.
async fn check_events(node: &Node, every: Duration) -> Result<usize, Error> {
    let budget = node.checked.change(|turns| turns.events.budget());
    let (began, mut restored) = (Instant::now(), 0);
    while began.elapsed() < budget && node.checked.change(|turns| turns.events.goes_on(every)) {
        let after = node.checked.change(|turns| turns.events.after);
        let (more, last) = log::check_positions(node, after).await?;
        restored += more;
        node.checked.change(|turns| turns.events.stop_at(last));
        if last.is_none() {
            break;
        }
    }
    Ok(restored)
}

/// Continues the walk over heads of logs. Returns the number of repairs.
async fn check_heads(node: &Node, every: Duration) -> Result<usize, Error> {
    let (began, mut mended) = (Instant::now(), 0);
    while began.elapsed() < BUDGET && node.checked.change(|turns| turns.heads.goes_on(every)) {
        let after = node.checked.change(|turns| turns.heads.after.clone());
        if after.is_none() {
            check_lease_key(node).await?;
        }
        let after = after.unwrap_or_default();
        let (more, last) = log::check_heads(node, &after).await?;
        mended += more;
        let is_over = last.is_none();
        node.checked.change(|turns| turns.heads.after = last);
        if is_over {
            break;
        }
    }
    Ok(mended)
}

/// Continues the walk over schedules. Returns the number of repairs.
async fn check_schedules(node: &Node, every: Duration) -> Result<usize, Error> {
    let (began, mut mended) = (Instant::now(), 0);
    while began.elapsed() < BUDGET && node.checked.change(|turns| turns.schedules.goes_on(every)) {
        let after = node.checked.change(|turns| turns.schedules.after.clone());
        if after.is_none() {
            set_back(node).await?;
        }
        let (more, last) = schedules::check_rows(node, after.as_ref()).await?;
        mended += more;
        let is_over = last.is_none();
        node.checked.change(|turns| turns.schedules.after = last);
        if is_over {
            break;
        }
    }
    Ok(mended)
}

/// Tells when the key of leases is lost or another.
async fn check_lease_key(node: &Node) -> Result<(), Error> {
    let mut connection = node.database.keepers.acquire().await?;
    let wrong = node.leases.check(&mut connection).await?;
    if node.health.lease_key_is(wrong)
        && let Some(wrong) = wrong
    {
        tracing::error!("{wrong}");
    }
    Ok(())
}

/// Brings back to the present what a clock that was ahead wrote about nodes and jobs.
async fn set_back(node: &Node) -> Result<(), Error> {
    if node.clock.doubt().is_some() {
        return Ok(());
    }
    let mut connection = node.database.keepers.acquire().await?;
    let now = node.clock.now();
    let rows = commit!("nodes_set_back", nodes::set_back(&mut connection, now).await)?;
    if rows > 0 {
        tracing::warn!(
            rows,
            "nodes or jobs had instants of a clock that was ahead; they are set back"
        );
    }
    Ok(())
}

impl Turns {
    fn is_over(&self, walk: Walk) -> bool {
        match walk {
            Walk::Unended => self.unended.after.is_none(),
            Walk::Offered => self.offered.after.is_none(),
            Walk::Journaled => self.journaled.after.is_none(),
        }
    }
}

/// Checks one page of a walk over runs.
async fn step(node: &Arc<Node>, walk: Walk) -> Result<usize, Error> {
    let mut connection = node.database.keepers.acquire().await?;
    let mut snapshot = connection.begin().await?;
    index::one_snapshot(&mut snapshot).await?;
    let (suspects, ours) = page(node, &mut snapshot, walk).await?;
    let found = doctor::compare(node, &mut snapshot, &suspects).await?;
    snapshot.rollback().await?;
    if matches!(walk, Walk::Unended) {
        pauses::let_go_forgotten(node, &mut connection, &suspects).await?;
    }
    remind(node, ours);
    if matches!(walk, Walk::Unended) {
        tell_keyless(node, &found);
    }
    settle(node, &mut connection, found).await
}

/// Tells of runs whose keys others have, each once.
fn tell_keyless(node: &Node, found: &Found) {
    let place = |(namespace, run, _): &(String, RunId, RunId)| (namespace.clone(), run.to_string());
    let is_over = node.checked.change(|turns| turns.is_over(Walk::Unended));
    let keyless = found.keyless.iter().map(place).collect();
    for (namespace, run) in node.health.keyless_found(keyless, is_over) {
        tracing::error!(
            namespace,
            run,
            "the line of its key was lost, and another run was started with the key; see `backstitch doctor`"
        );
    }
}

/// Returns the runs of the next page that are to be compared, and those of them that this node is in charge of.
async fn page(
    node: &Node,
    connection: &mut PgConnection,
    walk: Walk,
) -> Result<(Vec<Uuid>, Vec<Owned>), Error> {
    let progress = &node.checked;
    let is_full = |count: usize, limit| i64::try_from(count) == Ok(limit);
    let suspects = |page: Vec<(Uuid, bool)>| -> Vec<Uuid> {
        page.into_iter().filter(|(_, suspect)| *suspect).map(|(run, _)| run).collect()
    };
    match walk {
        Walk::Unended => {
            let after = progress.change(|turns| turns.unended.after.clone()).unwrap_or_default();
            let page = walks::unended(connection, &after, PAGE).await?;
            let last = page.last().filter(|_| is_full(page.len(), PAGE));
            let last = last.map(|(place, _)| place.clone());
            progress.change(|turns| turns.unended.stop_at(last));
            let ours = page.iter().filter(|(_, node_of)| *node_of == Some(node.id));
            let ours = ours.map(|((space, _, run), _)| (RunId(*run), space.clone())).collect();
            Ok((page.into_iter().map(|((.., run), _)| run).collect(), ours))
        }
        Walk::Offered => {
            let after = progress.change(|turns| turns.offered.after).unwrap_or_default();
            let page = walks::offered(connection, after, SUSPECTS).await?;
            let last = page.last().filter(|_| is_full(page.len(), SUSPECTS)).map(|(run, _)| *run);
            progress.change(|turns| turns.offered.stop_at(last));
            Ok((suspects(page), Vec::new()))
        }
        Walk::Journaled => {
            let before = progress.change(|turns| turns.journaled.after).unwrap_or(Uuid::max());
            let page = walks::journaled(connection, before, SUSPECTS).await?;
            let last = page.last().filter(|_| is_full(page.len(), SUSPECTS)).map(|(run, ..)| *run);
            progress.change(|turns| turns.journaled.stop_at(last));
            for (run, _, started) in &page {
                started.iter().for_each(|at| node.clock.note_start(RunId(*run), *at));
            }
            let page = page.into_iter().map(|(run, suspect, _)| (run, suspect));
            Ok((suspects(page.collect()), Vec::new()))
        }
    }
}

/// Mends what differs, and puts aside what cannot be read.
async fn settle(
    node: &Arc<Node>,
    connection: &mut PgConnection,
    found: Found,
) -> Result<usize, Error> {
    // Those whose timers a defect stops are left alone until a person has them tried again.
    let Found { wrong, damaged, .. } = found;
    let mut settled = 0;
    for Broken { run, what, .. } in damaged.into_iter().filter(|broken| !broken.known) {
        damage::put_aside(node, run, &what).await?;
        settled += 1;
    }
    if wrong.is_empty() {
        return Ok(settled);
    }
    for (run, differences) in &wrong {
        // The rest of a difference may be confidential.
        let tables = differences.iter().filter_map(|one| one.split(' ').next());
        let tables = tables.collect::<Vec<_>>().join(", ");
        tracing::warn!(%run, tables, "index rows are not what the journal says; they are mended");
    }
    let runs: Vec<RunId> = wrong.into_iter().map(|(run, _)| run).collect();
    let mended = doctor::mend(node, connection, &runs, PATIENCE).await?;
    let mended = usize::try_from(mended).unwrap_or_default();
    node.counters.indexes_mended.add(mended);
    node.hungry.notify_one();
    Ok(settled + mended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_that_takes_long_takes_more_of_the_time_and_is_told() {
        let progress = Progress::default();
        let began =
            |ago| progress.change(|turns| turns.unended.began = Instant::now().checked_sub(ago));
        progress.change(|turns| turns.unended.stop_at(Some(UnendedPlace::default())));
        began(Duration::from_secs(1));
        assert_eq!((progress.budget(Walk::Unended), progress.slow_round()), (BUDGET, None));
        began(HURRY_AFTER * 2);
        assert_eq!((progress.budget(Walk::Unended), progress.slow_round()), (HURRIED, None));
        assert_eq!(progress.budget(Walk::Journaled), BUDGET, "each has its own");
        began(SLOW * 2);
        assert!(progress.slow_round().is_some());
        // Told until a walk was faster.
        progress.change(|turns| turns.unended.stop_at(None));
        assert!(progress.slow_round().is_some());
        began(Duration::from_secs(1));
        progress.change(|turns| turns.unended.stop_at(None));
        assert_eq!((progress.budget(Walk::Unended), progress.slow_round()), (BUDGET, None));
    }
}

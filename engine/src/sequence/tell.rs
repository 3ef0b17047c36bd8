//! Checks runs that hold or await something, and notifies them of changes: immediately if this node made the change,
//! else by sweeping. A repeated notification changes nothing, by the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use backstitch_saga::protocol::{Outcome, Requirement, State};
use backstitch_saga::{Command, HoldKind, RefusalCode, RunId, Span, Time};
use sqlx::Connection;
use uuid::Uuid;

use super::{admit, circle, keys, unmet_hold, wanted, withdrawn};
use crate::Error;
use crate::crash::commit;
use crate::executor::request::{Answers, Request, ShardCommand};
use crate::node::Node;
use crate::reads::read;
use crate::rounds::in_turns;
use crate::store::sequence::{self as table, Standing};
use crate::store::{facts, required};

/// Number of runs that are checked together.
const PAGE: i64 = 500;
/// Runs without a place among which namespaces take turns.
const UNPLACED: i64 = 10_000;
/// Largest number of pages of one sweep.
const PAGES: usize = 10;
/// After so long a row whose run never began is forgotten.
const ORPHANED_AFTER: Duration = Duration::from_secs(60);
/// Time after which notifications that were not delivered are delivered by a sweep.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// Changes of facts by a run that has ended.
#[derive(Default)]
pub(super) struct Closing {
    established: Vec<Requirement>,
    withdrawn: Vec<Requirement>,
    reopened: bool,
}

/// Follows up the end of runs. Where one succeeded, what it promised is established; if it had, and was undone since,
/// withdrawn.
async fn over(node: &Arc<Node>, ended: Vec<Standing>) -> Result<(), Error> {
    if ended.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = ended.iter().map(|one| one.run.0).collect();
    let mut connection = node.database.keepers.acquire().await?;
    let lines = table::keys_of(&mut connection, &ids).await?;
    let mut promised: BTreeMap<RunId, Vec<Requirement>> = BTreeMap::new();
    for (run, one) in facts::promised(&mut connection, &ids).await? {
        promised.entry(run).or_default().push(one);
    }
    let leaves_something = |one: &Standing| {
        let run = one.run;
        one.reopened || promised.contains_key(&run) || lines.iter().any(|line| line.0 == run)
    };
    let (rest, done): (Vec<Standing>, Vec<Standing>) =
        ended.into_iter().partition(leaves_something);
    let done: Vec<Uuid> = done.into_iter().map(|one| one.run.0).collect();
    if !done.is_empty() {
        commit!("sequence_forget", table::forget(&mut connection, &done, false).await)?;
    }
    drop(connection);
    for one in rest {
        let produced = if one.reopened {
            match read(node, &one.namespace, one.run, wanted::produced).await {
                // It keeps what it has until its journal is repaired.
                Err(Error::Damaged(_)) => continue,
                produced => produced?,
            }
        } else {
            promised.remove(&one.run).unwrap_or_default()
        };
        let succeeded = one.outcome.as_deref() == Some(Outcome::Succeeded.as_str());
        let (established, withdrawn) =
            if succeeded { (produced, Vec::new()) } else { (Vec::new(), produced) };
        let closing = Closing { established, withdrawn, reopened: one.reopened };
        close(node, &one.namespace, one.run, &closing).await?;
    }
    Ok(())
}

/// Closes a run that is over, or never began: its facts are settled, its key goes to the next, and its rows are
/// deleted. All in one transaction, so that a node that dies here leaves everything to another.
pub(super) async fn close(
    node: &Node,
    namespace: &str,
    run: RunId,
    closing: &Closing,
) -> Result<(), Error> {
    let now = node.clock.now();
    let by = format!("run {run}");
    let Closing { established, withdrawn, reopened } = closing;
    let mut connection = node.database.keepers.acquire().await?;
    let lines = table::keys_of(&mut connection, &[run.0]).await?;
    let mut transaction = connection.begin().await?;
    let mut moved = Vec::new();
    for (_, namespace, key) in &lines {
        table::lock_key(&mut transaction, namespace, key).await?;
        table::leave(&mut transaction, run).await?;
        if keys::promote(&mut transaction, namespace, key, now).await? {
            moved.push((namespace, key));
        }
    }
    if !established.is_empty() {
        facts::establish(&mut transaction, namespace, established, &by, now).await?;
    }
    if !withdrawn.is_empty() {
        facts::withdraw_of(&mut transaction, namespace, withdrawn, &by, now).await?;
    }
    table::forget(&mut transaction, &[run.0], *reopened).await?;
    commit!("sequence_close", transaction.commit().await)?;
    drop(connection);
    for (namespace, key) in moved {
        keys::tell(node, namespace, key).await?;
    }
    for fact in established {
        release(node, namespace, fact).await?;
    }
    for fact in established.iter().chain(withdrawn) {
        withdrawn::tell_of(node, namespace, fact).await?;
    }
    Ok(())
}

/// Checks the state of runs, and does what is pending for them. Returns the number of runs that were notified
/// of a fact.
async fn look(node: &Arc<Node>, found: Vec<Standing>) -> Result<usize, Error> {
    let now = node.clock.now();
    let (mut active, mut ended) = (Vec::new(), Vec::new());
    for one in found {
        match one.state.as_deref() {
            Some(state) if state == State::Ended.as_str() => ended.push(one),
            Some(_) => active.push(one),
            None if one.since.after(ORPHANED_AFTER.into()) < now => {
                close(node, &one.namespace, one.run, &Closing::default()).await?;
            }
            None => {}
        }
    }
    over(node, ended).await?;
    if active.is_empty() {
        return Ok(0);
    }
    let runs: Vec<Uuid> = active.iter().map(|one| one.run.0).collect();
    let mut connection = node.database.keepers.acquire().await?;
    let awaited = facts::awaited(&mut connection, &runs).await?;
    let unmet = HoldKind::DependencyUnmet.condition();
    let says = |run: RunId, what: &str| {
        let standing = active.iter().find(|one| one.run == run);
        standing.is_some_and(|one| one.conditions.iter().any(|known| known == what))
    };
    // A person let them begin without.
    let skipped: Vec<(RunId, Requirement)> = awaited
        .iter()
        .filter(|awaited| !says(awaited.run, unmet))
        .map(|awaited| (awaited.run, awaited.one.clone()))
        .collect();
    if !skipped.is_empty() {
        commit!("sequence_skip", facts::released(&mut connection, &skipped).await)?;
    }
    // A person was informed, and has them wait once more.
    let again: BTreeSet<Uuid> = awaited
        .iter()
        .filter(|awaited| awaited.overdue && !says(awaited.run, "IncidentOpen"))
        .map(|awaited| awaited.run.0)
        .collect();
    if !again.is_empty() {
        let again: Vec<Uuid> = again.into_iter().collect();
        commit!("sequence_wait_again", facts::wait_again(&mut connection, &again, now).await)?;
    }
    let changed = required::changed(&mut connection, &runs).await?;
    let lines = table::lines_that_move(&mut connection, &runs).await?;
    drop(connection);
    withdrawn::tell(node, changed).await?;
    for (namespace, key) in &lines {
        keys::tell(node, namespace, key).await?;
    }
    let met = awaited.into_iter().filter(|awaited| awaited.met);
    unhold(node, met.map(|awaited| (awaited.run, awaited.one)).collect()).await
}

/// Notifies runs that required facts are established, and gives the key to those that can begin by that. Returns their
/// number.
pub(super) async fn unhold(node: &Node, met: Vec<(RunId, Requirement)>) -> Result<usize, Error> {
    if met.is_empty() {
        return Ok(0);
    }
    let commands = met
        .iter()
        .map(|(run, one)| (*run, Command::Unhold { hold: Some(unmet_hold(one)), by: None }));
    let answers = ask(node, commands.collect()).await;
    let told = met.into_iter().zip(answers).filter(|(_, answer)| is_told(answer));
    let told: Vec<(RunId, Requirement)> = told.map(|(one, _)| one).collect();
    let mut connection = node.database.keepers.acquire().await?;
    commit!("sequence_release", facts::released(&mut connection, &told).await)?;
    let runs: Vec<Uuid> = told.iter().map(|(run, _)| run.0).collect();
    let lines = table::keys_of(&mut connection, &runs).await?;
    drop(connection);
    for (namespace, key) in
        lines.into_iter().map(|(_, namespace, key)| (namespace, key)).collect::<BTreeSet<_>>()
    {
        keys::tell(node, &namespace, &key).await?;
    }
    Ok(told.len())
}

/// Returns whether a run has been notified, or needs no notification: it exists and has answered.
pub(super) fn is_told(answer: &Result<(), Error>) -> bool {
    match answer {
        Ok(()) => true,
        // A notification before the start, in one batch with it, was not received.
        Err(Error::Refused(refusal)) => refusal.code != RefusalCode::NotStarted,
        Err(_) => false,
    }
}

/// Sends commands to several runs; each has its own result.
pub(super) async fn ask(node: &Node, commands: Vec<(RunId, Command)>) -> Vec<Result<(), Error>> {
    let answers = Answers::new(commands.len());
    let envelopes = commands.into_iter().enumerate().map(|(slot, (run, command))| {
        let mut envelope = Request::own(run, ShardCommand::Command(command));
        envelope.ticket = Some(answers.ticket(slot));
        envelope
    });
    node.submit_own(envelopes.collect());
    answers.wait().await.into_iter().map(|answer| answer.map(|_| ())).collect()
}

/// Releases all runs that wait for an established fact.
async fn release(node: &Node, namespace: &str, fact: &Requirement) -> Result<(), Error> {
    let mut after = Uuid::nil();
    loop {
        let mut connection = node.database.keepers.acquire().await?;
        let page = facts::waiters(&mut connection, namespace, fact, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.0;
        let runs: Vec<Uuid> = page.iter().map(|run| run.0).collect();
        let awaited = facts::awaited(&mut connection, &runs).await?;
        drop(connection);
        let met = awaited.into_iter().filter(|awaited| awaited.met);
        unhold(node, met.map(|awaited| (awaited.run, awaited.one)).collect()).await?;
    }
}

/// Checks the state of some runs, and does what is pending for them.
async fn look_again(node: &Arc<Node>, runs: &[Uuid]) -> Result<usize, Error> {
    let mut connection = node.database.keepers.acquire().await?;
    let found = table::standing(&mut connection, runs).await?;
    drop(connection);
    look(node, found).await
}

/// Does pending work as soon as it is noted.
pub(crate) async fn serve(node: Arc<Node>) {
    loop {
        node.sequence.bell.notified().await;
        let (runs, changed, delayed) = node.sequence.change(|todo| {
            let delayed = std::mem::take(&mut todo.delayed);
            (std::mem::take(&mut todo.runs), std::mem::take(&mut todo.facts), delayed)
        });
        for (namespace, run) in delayed {
            if let Err(error) = admit::restore(&node, &namespace, run).await {
                tracing::warn!(%run, %error, "a run whose instant has come takes its place later");
            }
        }
        for page in runs.chunks(usize::try_from(PAGE).unwrap_or(1)) {
            let ids: Vec<Uuid> = page.iter().map(|(run, _)| run.0).collect();
            let begun: Vec<RunId> =
                page.iter().filter(|(_, begun)| *begun).map(|(run, _)| *run).collect();
            if let Err(error) = look_again(&node, &ids).await {
                tracing::warn!(%error, "what waits for runs is told later");
            }
            if let Err(error) = circle::tell(&node, &begun).await {
                tracing::warn!(%error, "runs that wait for each other may be found only when time is up");
            }
        }
        for (namespace, fact) in changed {
            let told = async {
                release(&node, &namespace, &fact).await?;
                withdrawn::tell_of(&node, &namespace, &fact).await
            };
            if let Err(error) = told.await {
                tracing::warn!(%error, "what waits for a fact is told later");
            }
        }
    }
}

/// Finds work that was not noted, in turns between namespaces: some pages of the runs that hold or await something,
/// lines with pending notifications, and all runs that have waited too long. Returns the number of notified runs.
pub(crate) async fn sweep(node: &Arc<Node>) -> Result<usize, Error> {
    let now = node.clock.now();
    let mut told = look_at_all(node).await?;
    let before = Time(now.0.saturating_sub_unsigned(Span::from(TOLD_WITHIN).0));
    let mut after = Some(String::new());
    while let Some(last) = after {
        let mut connection = node.database.keepers.acquire().await?;
        let found = table::to_tell(&mut connection, before, PAGE, &last).await?;
        drop(connection);
        for (namespace, key) in in_turns(found.rows, "", |(namespace, _)| namespace) {
            told += keys::tell(node, &namespace, &key).await?;
        }
        after = found.last;
    }
    Ok(told + overdue(node, now).await?)
}

/// Checks some pages of the runs that hold or await something. Returns the number of notified runs.
async fn look_at_all(node: &Arc<Node>) -> Result<usize, Error> {
    let (mut told, mut after, mut seen) = (0, String::new(), false);
    let mut places = node.last_turns.sequenced.take();
    for _ in 0..PAGES {
        let mut connection = node.database.keepers.acquire().await?;
        let all: Vec<(String, Uuid)> = places.clone().into_iter().collect();
        let found = table::all_standing(&mut connection, PAGE, &after, &all).await?;
        drop(connection);
        let mut page: BTreeMap<String, Uuid> = BTreeMap::new();
        for one in &found.rows {
            let place = page.entry(one.namespace.clone()).or_default();
            *place = one.run.0.max(*place);
        }
        seen |= !page.is_empty();
        // If a page found something, the next sweep continues there if this one does not come to the end.
        node.last_turns.sequenced.put(page.clone());
        places.append(&mut page);
        told += look(node, found.rows).await?;
        match found.last {
            Some(last) => after = last,
            None if std::mem::take(&mut seen) => after.clear(),
            None => break,
        }
    }
    Ok(told)
}

/// Finds runs that wait for their turn and have no row. Returns their number.
pub(crate) async fn sweep_unplaced(node: &Arc<Node>) -> Result<usize, Error> {
    let after = node.sequence.change(|todo| todo.swept);
    let mut connection = node.database.keepers.acquire().await?;
    let found = table::unplaced(&mut connection, after, UNPLACED).await?;
    drop(connection);
    let page = usize::try_from(PAGE).unwrap_or(usize::MAX);
    if found.len() <= page {
        node.sequence.change(|todo| todo.swept = Uuid::nil());
    } else if let Some((last, _)) = found.get(page) {
        node.sequence.change(|todo| todo.swept = last.0);
    }
    let mut restored = 0;
    for (run, namespace) in in_turns(found, "", |(_, namespace)| namespace).iter().take(page) {
        match admit::restore(node, namespace, *run).await {
            Ok(_) => restored += 1,
            // It gets its place when its journal is repaired.
            Err(Error::Damaged(_)) => {}
            Err(error) => tracing::warn!(%run, %error, "a run gets its place among others later"),
        }
    }
    Ok(restored)
}

/// Tells runs that they have waited for a fact for too long.
async fn overdue(node: &Node, now: Time) -> Result<usize, Error> {
    let (mut told, mut after) = (0, Some(String::new()));
    while let Some(last) = after {
        let mut connection = node.database.keepers.acquire().await?;
        let found = facts::overdue(&mut connection, now, PAGE, &last).await?;
        drop(connection);
        told += tell_overdue(node, now, found.rows).await?;
        after = found.last;
    }
    Ok(told)
}

async fn tell_overdue(
    node: &Node,
    now: Time,
    late: Vec<(RunId, Requirement)>,
) -> Result<usize, Error> {
    let mut runs: BTreeMap<RunId, Vec<Requirement>> = BTreeMap::new();
    for (run, one) in late {
        runs.entry(run).or_default().push(one);
    }
    let commands = runs.iter().filter_map(|(run, late)| {
        let one = late.first()?;
        let more = if late.len() > 1 {
            format!(", nor were {} more", late.len() - 1)
        } else {
            String::new()
        };
        let message = format!("{} was not established for '{}' in time{more}", one.fact, one.on);
        Some((*run, unmet(one, message)))
    });
    let answers = ask(node, commands.collect()).await;
    let told = runs.keys().zip(&answers).filter(|(_, answer)| is_told(answer));
    let told: Vec<Uuid> = told.map(|(run, _)| run.0).collect();
    if told.is_empty() {
        return Ok(0);
    }
    let mut connection = node.database.keepers.acquire().await?;
    commit!("sequence_overdue", facts::told_overdue(&mut connection, &told, now).await)?;
    Ok(told.len())
}

/// Returns the command that informs a run that a fact is not to be expected.
pub(super) fn unmet(one: &Requirement, message: String) -> Command {
    Command::Overdue { hold: unmet_hold(one), message }
}

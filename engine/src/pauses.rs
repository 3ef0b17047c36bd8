//! Workflows whose new runs are held: by a person, or by the guard against a bad deployment. Starts are accepted; no
//! task of the run is handed out until the workflow is resumed. Runs that have begun are left alone.
//!
//! Each node knows the pauses and reads them every second. So a start may escape a new pause for a second, and one may
//! be held a second after the end of a pause: for these, the release continues for a while.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use backstitch_saga::protocol::{Page, PauseView};
use backstitch_saga::{By, Command, Hold, HoldKind, Span, Time};
use futures::future::join_all;
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::acts::must_have_reason;
use crate::crash::commit;
use crate::cursor::Cursor;
use crate::node::Node;
use crate::page::page;
use crate::rounds::in_turns;
use crate::store::acts::{self, Act, Thing};
use crate::store::pauses::{self as table, Over, Suspicion};
use crate::{Engine, Error, definitions};

/// Name under which the guard acts.
const GUARD: &str = "backstitch";
/// Number of runs with one new cause that make a bad deployment.
const RUNS: i64 = 20;
/// Time within which they must fail.
const WINDOW: Span = Span::secs(300);
/// Time for which a cause must not have occurred to be new.
const NEW: Span = Span::secs(3_600);
/// Number of resumed workflows in one pass.
const OVER: i64 = 16;
/// Number of runs of each that are released in one pass.
const RELEASED: i64 = 100;
/// Time after a resume for which runs are searched that were held late.
const LATE: Span = Span::secs(30);

/// Paused workflows, as this node knows them: the reason by namespace and workflow.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    paused: RwLock<HashMap<(String, String), String>>,
    /// Rings when this may have changed.
    changed: Notify,
}

impl Pauses {
    /// Returns the holds of a run of this workflow that starts now.
    pub(crate) fn holds(&self, namespace: &str, workflow: &str) -> Vec<(Hold, String)> {
        let paused = self.paused.read().unwrap_or_else(PoisonError::into_inner);
        if paused.is_empty() {
            return Vec::new();
        }
        let reason = paused.get(&(namespace.to_owned(), workflow.to_owned()));
        let hold = |reason: &String| {
            (Hold::new(HoldKind::WorkflowPaused, workflow), format!("paused: {reason}"))
        };
        reason.map(hold).into_iter().collect()
    }

    /// Returns whether the workflow is paused.
    pub(crate) fn is_paused(&self, namespace: &str, workflow: &str) -> bool {
        !self.holds(namespace, workflow).is_empty()
    }

    /// Returns the number of paused workflows.
    pub(crate) fn count(&self) -> usize {
        self.paused.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Waits while the workflow is paused.
    pub(crate) async fn resumed(&self, namespace: &str, workflow: &str) {
        loop {
            let changed = self.changed.notified();
            if !self.is_paused(namespace, workflow) {
                return;
            }
            changed.await;
        }
    }

    /// Returns the workflows of a namespace that are paused, sorted.
    pub(crate) fn of(&self, namespace: &str) -> Vec<String> {
        let paused = self.paused.read().unwrap_or_else(PoisonError::into_inner);
        let ours = paused.keys().filter(|(owner, _)| owner == namespace);
        let mut workflows: Vec<String> = ours.map(|(_, workflow)| workflow.clone()).collect();
        workflows.sort_unstable();
        workflows
    }

    fn learn(&self, paused: Vec<(String, String, String)>) {
        let paused = paused.into_iter().map(|(namespace, name, why)| ((namespace, name), why));
        *self.paused.write().unwrap_or_else(PoisonError::into_inner) = paused.collect();
        self.changed.notify_waiters();
    }
}

impl Engine {
    /// Holds the new runs of a workflow. One that is paused already stays so, for the reason it has.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Refused`] without a reason.
    pub async fn pause_workflow(
        &self,
        namespace: &str,
        workflow: &str,
        by: &By,
    ) -> Result<(), Error> {
        self.turn_workflow(namespace, workflow, by, true).await
    }

    /// Resumes a paused workflow: new runs begin, and held runs are released, the oldest first.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Refused`] without a reason.
    pub async fn resume_workflow(
        &self,
        namespace: &str,
        workflow: &str,
        by: &By,
    ) -> Result<(), Error> {
        self.turn_workflow(namespace, workflow, by, false).await
    }

    async fn turn_workflow(
        &self,
        namespace: &str,
        workflow: &str,
        by: &By,
        pause: bool,
    ) -> Result<(), Error> {
        definitions::view(&self.node().database, namespace, workflow, None).await?;
        must_have_reason(by)?;
        let (at, who) = (self.node().clock.now(), (&*by.actor, by.reason.as_str()));
        let mut connection = self.node().database.reader(namespace).await?;
        let mut transaction = connection.begin().await?;
        let turned = if pause {
            table::pause(&mut transaction, namespace, workflow, at, who).await?
        } else {
            // Its runs may be held although its pause no longer exists.
            table::resume(&mut transaction, namespace, workflow, at, who).await?
                || table::let_go(&mut transaction, namespace, workflow, at, who).await?
        };
        if turned {
            let verb = if pause { "pause" } else { "resume" };
            let thing = Thing::Workflow;
            let act = Act { namespace, thing, name: workflow, at, verb, by, detail: None };
            acts::add(&mut transaction, &act).await?;
        }
        commit!("pauses_turn", transaction.commit().await)?;
        self.node().pauses.learn(table::paused(&mut connection).await?);
        Ok(())
    }

    /// Lists pauses, newest first; `after` is the cursor of the page before.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn pauses(
        &self,
        namespace: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<PauseView>, Error> {
        let before = after.map(|text| Cursor::place('p', text, |place| place.parse::<i64>().ok()));
        let before = before.transpose()?.unwrap_or(i64::MAX);
        let limit = limit.clamp(1, 1_000);
        let mut connection = self.node().database.reader(namespace).await?;
        let beyond = i64::from(limit) + 1;
        let found = table::list(&mut connection, namespace, before, beyond).await?;
        let Page { items, next } =
            page(found, limit as usize, |(id, _)| Cursor::of('p', &id.to_string()));
        Ok(Page { items: items.into_iter().map(|(_, pause)| pause).collect(), next })
    }
}

/// Looks for bad deployments, reads the pauses, and releases runs that are no longer paused. Returns the number
/// of released runs.
pub(crate) async fn guard(node: &Arc<Node>) -> Result<usize, Error> {
    let mut connection = node.database.keepers.acquire().await?;
    let now = node.clock.now();
    let ago = |span: Span| Time(now.0.saturating_sub(i64::try_from(span.0).unwrap_or(0)));
    let since = ago(WINDOW);
    let suspicion = Suspicion { runs: RUNS, since, unseen_since: ago(NEW) };
    for (namespace, workflow, reason) in
        commit!("pauses_guard", table::guard(&mut connection, GUARD, now, suspicion).await)?
    {
        node.counters.guard_pauses.one();
        tracing::warn!(namespace, workflow, reason, "a workflow was paused by the guard");
    }
    node.pauses.learn(table::paused(&mut connection).await?);
    let mut released = 0;
    let last_turn = &node.last_turns.releases;
    let after = last_turn.get();
    let mut found = table::over(&mut connection, OVER, &after).await?;
    if found.rows.is_empty() && !after.is_empty() {
        found = table::over(&mut connection, OVER, "").await?;
    }
    last_turn.set(found.last);
    for over in in_turns(found.rows, &after, |over| &over.namespace) {
        let held = table::held(&mut connection, &over.namespace, &over.workflow, RELEASED).await?;
        let count = held.len();
        let done = join_all(held.into_iter().map(|run| release(node, &over, run))).await;
        released += done.iter().filter(|done| **done).count();
        if count == 0 && now > over.at.after(LATE) {
            commit!("pauses_released", table::released(&mut connection, &over, now).await)?;
        }
    }
    Ok(released)
}

/// Releases runs that are held by a pause without a row, which was deleted or lost: nothing would show why they wait.
pub(crate) async fn let_go_forgotten(
    node: &Node,
    connection: &mut PgConnection,
    runs: &[Uuid],
) -> Result<(), Error> {
    for (namespace, workflow) in table::forgotten(connection, runs).await? {
        let who = (GUARD, "the pause that held its runs was gone");
        let at = node.clock.now();
        if commit!(
            "pauses_let_go",
            table::let_go(connection, &namespace, &workflow, at, who).await
        )? {
            tracing::warn!(
                namespace,
                workflow,
                "the pause that held runs was gone; they are let go"
            );
        }
    }
    Ok(())
}

async fn release(node: &Arc<Node>, over: &Over, run: backstitch_saga::RunId) -> bool {
    let hold = Hold::new(HoldKind::WorkflowPaused, over.workflow.as_str());
    let by = By { actor: over.actor.as_str().into(), reason: over.reason.clone() };
    let command = Command::Unhold { hold: Some(hold), by: Some(by) };
    match node.ask(&over.namespace, run, command).await {
        Ok(_) => true,
        Err(error) => {
            tracing::debug!(%run, %error, "a held run is let go later");
            false
        }
    }
}

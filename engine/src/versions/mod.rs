//! Versions of a workflow: which runs are on which, and the migration of runs in flight. Whether a run can move, and
//! what that makes of it, is decided by the rules; here it is asked of many runs. `walk` moves them.

mod walk;

use std::sync::Arc;

use backstitch_saga::protocol::{
    CheckedRun, MigratedRun, MigrationCheck, MigrationView, NewMigration, Obstacle, Page, State,
    VersionLoad,
};
use backstitch_saga::{By, RunId, Timestamp, Violation};
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::acts::must_have_reason;
use crate::crash::commit;
use crate::cursor::Cursor;
use crate::definitions::{Workflow, stored};
use crate::executor::load::fold;
use crate::executor::loads::QUESTION;
use crate::node::Node;
use crate::store::journal::{self, Stored};
use crate::store::versions::{self as table, MigrationRow};
use crate::{Engine, Error};

pub(crate) use walk::work;

/// Number of runs that are checked or moved together.
const PAGE: u32 = 200;
/// At most so many samples of each kind of obstacle.
const SAMPLES: u64 = 10;

impl Engine {
    /// Lists the versions of a workflow with the number of their runs, by version.
    ///
    /// # Errors
    /// [`Error::NotFound`] for the workflow; [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn drain_of(
        &self,
        namespace: &str,
        workflow: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<VersionLoad>, Error> {
        let versions = self.workflows(namespace, Some(workflow), after, limit).await?;
        if versions.items.is_empty() && after.is_none() {
            return Err(unknown_workflow(workflow));
        }
        let numbers: Vec<i32> = versions.items.iter().map(|one| stored(one.version)).collect();
        let mut connection = self.node().database.reader(namespace).await?;
        let loads = table::load(&mut connection, namespace, workflow, &numbers).await?;
        let line = |version: u32, registered_at: Timestamp| {
            let own: Vec<_> = loads.iter().filter(|load| load.version == stored(version)).collect();
            let count = |load: &table::Load| u64::try_from(load.count).unwrap_or_default();
            let oldest = own.iter().map(|load| load.oldest).min();
            VersionLoad {
                version,
                registered_at,
                drained: own.is_empty(),
                active: own.iter().map(|load| count(load)).sum(),
                states: own.iter().map(|load| (load.state.clone(), count(load))).collect(),
                oldest: oldest.map(|(_, run)| RunId(run)),
                oldest_started_at: oldest.map(|(at, _)| Timestamp(at)),
            }
        };
        let lines = versions.items.iter().map(|one| line(one.version, one.registered_at));
        Ok(Page { items: lines.collect(), next: versions.next })
    }

    /// Returns what a migration would find, one page of runs; nothing is written.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a version, [`Error::Invalid`] for the mapping or the cursor.
    pub async fn check_migration(
        &self,
        namespace: &str,
        workflow: &str,
        new: &NewMigration,
    ) -> Result<MigrationCheck, Error> {
        let node = self.node();
        let (_, to) = both(node, namespace, workflow, new).await?;
        let after = new.after.as_deref().map(Cursor::active).transpose()?;
        let after = after.unwrap_or_default();
        let limit = new.limit.clamp(1, 1_000) as usize;
        let mut connection = self.node().database.reader(namespace).await?;
        let beyond = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let from = stored(new.from);
        let mut found =
            table::active(&mut connection, namespace, workflow, from, &after, beyond).await?;
        let more = found.len() > limit;
        found.truncate(limit);
        let mut answer = MigrationCheck {
            next: found.last().filter(|_| more).map(|(state, run)| Cursor::of_active(state, run.0)),
            ..MigrationCheck::default()
        };
        for page in found.chunks(PAGE as usize) {
            let runs: Vec<RunId> = page.iter().map(|(_, run)| *run).collect();
            for (run, verdict) in check(node, &mut connection, &runs, new, &to).await? {
                let Verdict::Active(obstacles) = verdict else { continue };
                answer.checked += 1;
                answer.clean += u64::from(obstacles.is_empty());
                let mut kinds: Vec<_> = obstacles.iter().map(|obstacle| obstacle.kind).collect();
                kinds.sort_unstable();
                kinds.dedup();
                let mut telling = false;
                for kind in kinds {
                    let count = answer.obstacles.entry(kind.as_str().to_owned()).or_default();
                    *count += 1;
                    telling |= *count <= SAMPLES;
                }
                if telling {
                    answer.samples.push(CheckedRun { run, obstacles });
                }
            }
        }
        Ok(answer)
    }

    /// Begins a migration of all runs that are on the old version now. It continues in the
    /// background.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a version, [`Error::Invalid`] for the mapping, [`Error::Conflict`] when one is under
    /// way already, [`Error::Refused`] without a reason.
    pub async fn start_migration(
        &self,
        namespace: &str,
        workflow: &str,
        new: &NewMigration,
        by: &By,
    ) -> Result<MigrationView, Error> {
        must_have_reason(by)?;
        let node = self.node();
        both(node, namespace, workflow, new).await?;
        let row = MigrationRow {
            namespace: namespace.to_owned(),
            id: node.clock.new_run().0,
            workflow: workflow.to_owned(),
            from: stored(new.from),
            to: stored(new.to),
            mapping: serde_json::to_string(&new.mapping).unwrap_or_default(),
            on_obstacle: new.on_obstacle,
            state: "checking".to_owned(),
            actor: by.actor.to_string(),
            reason: by.reason.clone(),
            created_at: node.clock.now(),
        };
        let mut connection = self.node().database.reader(namespace).await?;
        if !commit!("migrations_create", table::create(&mut connection, &row).await)? {
            return Err(Error::Conflict {
                code: "migration_under_way",
                message: format!(
                    "a migration of '{workflow}' is under way; stop it, or wait until it is done"
                ),
            });
        }
        drop(connection);
        self.migration(namespace, workflow, row.id).await
    }

    /// Returns a migration.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn migration(
        &self,
        namespace: &str,
        workflow: &str,
        id: Uuid,
    ) -> Result<MigrationView, Error> {
        let mut connection = self.node().database.reader(namespace).await?;
        let mut found =
            table::list(&mut connection, namespace, workflow, Some(id), None, 1).await?;
        found.pop().ok_or_else(|| unknown_migration(workflow, id))
    }

    /// Returns the migrations of a workflow, newest first.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn migrations(
        &self,
        namespace: &str,
        workflow: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<MigrationView>, Error> {
        let before = after.map(Cursor::run).transpose()?;
        let limit = limit.clamp(1, 1_000) as usize;
        let mut connection = self.node().database.reader(namespace).await?;
        let beyond = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let mut items =
            table::list(&mut connection, namespace, workflow, None, before, beyond).await?;
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(|one| Cursor::of_run(one.id));
        Ok(Page { items, next })
    }

    /// Lists the results of a migration by run; only those with this result if given.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn migrated_runs(
        &self,
        namespace: &str,
        workflow: &str,
        id: Uuid,
        result: Option<&str>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<MigratedRun>, Error> {
        self.migration(namespace, workflow, id).await?;
        let after = after.map(Cursor::run).transpose()?.unwrap_or_default();
        let limit = limit.clamp(1, 1_000) as usize;
        let mut connection = self.node().database.reader(namespace).await?;
        let beyond = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let mut items = table::runs(&mut connection, namespace, id, result, after, beyond).await?;
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(|one| Cursor::of_run(one.run.0));
        Ok(Page { items, next })
    }

    /// Stops a migration. Moved runs stay on the new version.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when it is over.
    pub async fn stop_migration(
        &self,
        namespace: &str,
        workflow: &str,
        id: Uuid,
        by: &By,
    ) -> Result<MigrationView, Error> {
        self.migration(namespace, workflow, id).await?;
        let mut connection = self.node().database.reader(namespace).await?;
        let because = format!("{} stopped it: {}", by.actor, by.reason);
        let now = self.node().clock.now();
        if !commit!(
            "migrations_finish",
            table::finish(&mut connection, namespace, id, Some(&because), now).await
        )? {
            let message = "the migration is over".to_owned();
            return Err(Error::Conflict { code: "migration_over", message });
        }
        drop(connection);
        self.migration(namespace, workflow, id).await
    }
}

fn unknown_workflow(name: &str) -> Error {
    let message = format!("there is no workflow '{name}' in this namespace");
    Error::NotFound { code: "unknown_workflow", message }
}

fn unknown_migration(workflow: &str, id: Uuid) -> Error {
    let message = format!("there is no migration {id} of '{workflow}' in this namespace");
    Error::NotFound { code: "unknown_migration", message }
}

/// Returns both versions, and a mapping that makes sense between them.
async fn both(
    node: &Node,
    namespace: &str,
    workflow: &str,
    new: &NewMigration,
) -> Result<(Arc<Workflow>, Arc<Workflow>), Error> {
    let database = &node.database;
    let from = node.definitions.resolve(database, namespace, workflow, Some(new.from)).await?;
    let to = node.definitions.resolve(database, namespace, workflow, Some(new.to)).await?;
    let mut violations = new.mapping.check(&from.graph, &to.graph);
    if new.from == new.to {
        violations.push(Violation::new(
            "/to",
            "same_version",
            "the runs are on this version already",
        ));
    }
    if violations.is_empty() {
        return Ok((from, to));
    }
    Err(Error::Invalid { code: "invalid_request", violations })
}

/// Result of checking a run for a migration.
enum Verdict {
    /// It has ended, or does not exist any more.
    Over,
    /// It moves on another version by now.
    Elsewhere(u32),
    /// The obstacles to its move.
    Active(Vec<Obstacle>),
    /// This node cannot read it.
    Unreadable(String),
}

/// Checks some runs.
async fn check(
    node: &Node,
    connection: &mut PgConnection,
    runs: &[RunId],
    new: &NewMigration,
    to: &Workflow,
) -> Result<Vec<(RunId, Verdict)>, Error> {
    let mut verdicts = Vec::with_capacity(runs.len());
    let mut rest = runs;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(journal::fitting(connection, rest, QUESTION).await?);
        let mut stored = journal::load(connection, now).await?;
        for run in now {
            let verdict = match stored.remove(run) {
                None => Verdict::Over,
                Some(stored) => verdict(node, connection, (*run, stored), (new, to)).await,
            };
            verdicts.push((*run, verdict));
        }
        rest = later;
    }
    Ok(verdicts)
}

/// Checks one run.
async fn verdict(
    node: &Node,
    connection: &mut PgConnection,
    (run, stored): (RunId, Stored),
    (new, to): (&NewMigration, &Workflow),
) -> Verdict {
    match fold(&node.definitions, connection, run, stored, node.clock.now()).await {
        Ok(cached) if cached.run.state() == State::Ended => Verdict::Over,
        Ok(cached) if cached.run.version() == new.from => {
            Verdict::Active(cached.run.obstacles(&to.graph, &new.mapping))
        }
        Ok(cached) => Verdict::Elsewhere(cached.run.version()),
        Err(error) => Verdict::Unreadable(error.to_string()),
    }
}

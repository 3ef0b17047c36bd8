//! A migration in progress: checks every run before the first is moved, moves them, and records the results.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstitch_saga::protocol::{MigratedRun, NewMigration, OnObstacle};
use backstitch_saga::{By, CheckedSignal, Command, Migration, RefusalCode, RunId, Time};
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::{PAGE, Verdict, both, check};
use crate::crash::commit;
use crate::definitions::Workflow;
use crate::executor::request::{Answer, Answers, Request, ShardCommand};
use crate::jobs::TRIES;
use crate::node::Node;
use crate::store::versions::{self as table, MigrationRow};
use crate::{Error, reads, signals};

/// Number of times that the signals of a run are checked that come while it is being moved.
const CHECKS: usize = 5;
/// Time that a migration continues before the next namespace has its turn.
const TURN: Duration = Duration::from_secs(1);

/// Continues migrations that no node works on, in turns between namespaces, until there is none. Returns the number of
/// runs checked.
pub(crate) async fn work(node: &Arc<Node>) -> Result<usize, Error> {
    let last_turn = &node.last_turns.migrations;
    let mut seen = 0;
    loop {
        let mut connection = node.database.keepers.acquire().await?;
        let (now, until, after) = (node.clock.now(), own_until(node), last_turn.get());
        let claimed =
            commit!("migrations_claim", table::claim(&mut connection, now, until, &after).await)?;
        drop(connection);
        match claimed {
            Some((row, tries)) => {
                last_turn.set(Some(row.namespace.clone()));
                match take_turn(node, &row, tries).await {
                    Ok(count) => seen += count,
                    Err(error) => {
                        tracing::warn!(migration = %row.id, %error, "a migration failed and is tried again");
                    }
                }
            }
            None if after.is_empty() => return Ok(seen),
            None => last_turn.set(None),
        }
    }
}

/// Continues a migration for a while. Returns the number of runs checked.
async fn take_turn(node: &Arc<Node>, row: &MigrationRow, tries: i32) -> Result<usize, Error> {
    let mut connection = node.database.keepers.acquire().await?;
    if tries > TRIES {
        let because = format!(
            "{TRIES} times working on it failed or a node stopped; see the log of the servers, and begin it anew once the cause is known"
        );
        tracing::error!(migration = %row.id, namespace = row.namespace, "a migration is stopped: {because}");
        let at = node.clock.now();
        let finish = table::finish(&mut connection, &row.namespace, row.id, Some(&because), at);
        return Ok(commit!("migrations_finish", finish.await).map(|_| 0)?);
    }
    let new = NewMigration {
        from: u32::try_from(row.from).unwrap_or_default(),
        to: u32::try_from(row.to).unwrap_or_default(),
        mapping: serde_json::from_str(&row.mapping).map_err(|error| {
            Error::Store(format!("the mapping of migration {}: {error}", row.id))
        })?,
        on_obstacle: row.on_obstacle,
        reason: row.reason.clone(),
        dry_run: false,
        after: None,
        limit: PAGE,
    };
    let (_, to) = both(node, &row.namespace, &row.workflow, &new).await?;
    let turn = Instant::now() + TURN;
    let connection = &mut connection;
    let mut walk = Walk { node, connection, row, new: &new, to: &to, seen: 0, turn };
    if row.state != "checking" || walk.check_all().await? {
        walk.move_all().await?;
    }
    Ok(walk.seen)
}

/// Returns the time until which a node has a migration to itself after each page: the time that it takes to detect a
/// dead node. Two that work on one do no harm.
fn own_until(node: &Node) -> Time {
    node.clock.now().after(node.options.tuning.dead_after.into())
}

/// A migration under way.
struct Walk<'a> {
    node: &'a Arc<Node>,
    connection: &'a mut PgConnection,
    row: &'a MigrationRow,
    new: &'a NewMigration,
    to: &'a Workflow,
    seen: usize,
    /// The end of its turn.
    turn: Instant,
}

impl Walk<'_> {
    /// Returns the next runs with this result, after the given one.
    async fn page(&mut self, result: &str, after: Uuid) -> Result<Vec<RunId>, Error> {
        let MigrationRow { namespace, id, .. } = self.row;
        let limit = i64::from(PAGE);
        let page = table::runs(self.connection, namespace, *id, Some(result), after, limit).await?;
        self.seen += page.len();
        Ok(page.into_iter().map(|one| one.run).collect())
    }

    /// Records the results of a page. Returns whether the migration continues now: not when it is over, nor when its
    /// turn is.
    async fn note(&mut self, results: &[MigratedRun], state: &str) -> Result<bool, Error> {
        let MigrationRow { namespace, id, .. } = self.row;
        commit!("migrations_note", table::note(self.connection, namespace, *id, results).await)?;
        let turn_over = Instant::now() >= self.turn;
        let until = if turn_over { self.node.clock.now() } else { own_until(self.node) };
        let goes_on = commit!(
            "migrations_go_on",
            table::go_on(self.connection, namespace, *id, state, until).await
        )?;
        Ok(goes_on && !turn_over)
    }

    async fn finish(&mut self, because: Option<&str>) -> Result<(), Error> {
        let MigrationRow { namespace, id, .. } = self.row;
        let now = self.node.clock.now();
        commit!(
            "migrations_finish",
            table::finish(self.connection, namespace, *id, because, now).await
        )?;
        tracing::info!(migration = %id, because, "a migration of runs in flight is over");
        Ok(())
    }

    /// Checks every run before the first is moved. Returns whether the migration continues.
    async fn check_all(&mut self) -> Result<bool, Error> {
        let mut after = Uuid::nil();
        loop {
            let page = self.page("waiting", after).await?;
            let Some(last) = page.last() else { break };
            after = last.0;
            let verdicts = check(self.node, self.connection, &page, self.new, self.to).await?;
            let results: Vec<MigratedRun> = verdicts
                .into_iter()
                .map(|(run, verdict)| match verdict {
                    Verdict::Over => result(run, "ended", None),
                    Verdict::Elsewhere(version) if version == self.new.to => {
                        result(run, "moved", None)
                    }
                    Verdict::Elsewhere(version) => {
                        result(run, "left", Some(format!("it is on version {version} by now")))
                    }
                    Verdict::Unreadable(error) => result(run, "left", Some(error)),
                    Verdict::Active(obstacles) if obstacles.is_empty() => {
                        result(run, "clean", None)
                    }
                    Verdict::Active(obstacles) => {
                        let told: Vec<String> = obstacles
                            .iter()
                            .take(10)
                            .map(|one| format!("{}: {}", one.kind.as_str(), one.message))
                            .collect();
                        result(run, "left", Some(told.join("; ")))
                    }
                })
                .collect();
            if !self.note(&results, "checking").await? {
                return Ok(false);
            }
        }
        let results = self.results().await?;
        let left = results.get("left").copied().unwrap_or_default();
        if left > 0 && self.new.on_obstacle == OnObstacle::Stop {
            let all: u64 = results.values().sum();
            let because = format!("{left} of {all} runs cannot be moved; nothing was moved");
            self.finish(Some(&because)).await?;
            return Ok(false);
        }
        self.note(&[], "moving").await
    }

    async fn results(&mut self) -> Result<BTreeMap<String, u64>, Error> {
        let MigrationRow { namespace, id, .. } = self.row;
        Ok(table::results(self.connection, namespace, *id).await?)
    }

    /// Moves all runs that were found clean.
    async fn move_all(&mut self) -> Result<(), Error> {
        let mut after = Uuid::nil();
        loop {
            let page = self.page("clean", after).await?;
            let Some(last) = page.last() else { return self.finish(None).await };
            after = last.0;
            let results = self.move_page(&page).await?;
            let refused = results.iter().find(|one| one.result == "refused");
            let refused =
                refused.and_then(|one| Some(format!("run {}: {}", one.run, one.message.as_ref()?)));
            let goes_on = self.note(&results, "moving").await?;
            if let Some(because) = refused {
                return self.finish(Some(&because)).await;
            }
            if !goes_on {
                return Ok(());
            }
        }
    }

    async fn move_page(&mut self, page: &[RunId]) -> Result<Vec<MigratedRun>, Error> {
        let mut results = Vec::with_capacity(page.len());
        let mut rest = page.to_vec();
        for _ in 0..CHECKS {
            let answers = self.ask_to_move(&rest).await?;
            let mut again = Vec::new();
            for (run, answer) in rest.into_iter().zip(answers) {
                // A signal came in between: it is checked, too.
                if matches!(&answer, Err(Error::Refused(one)) if one.code == RefusalCode::SignalUnchecked)
                {
                    again.push(run);
                } else {
                    results.push(self.moved(run, answer)?);
                }
            }
            rest = again;
            if rest.is_empty() {
                return Ok(results);
            }
        }
        // Finished work is recognized when the page is processed again.
        Err(Error::Busy)
    }

    /// Asks runs to move, each with the signals that it has as they were checked.
    async fn ask_to_move(&mut self, page: &[RunId]) -> Result<Vec<Answer>, Error> {
        let answers = Answers::new(page.len());
        let by = By { actor: self.row.actor.as_str().into(), reason: self.row.reason.clone() };
        let mut checked = Vec::with_capacity(page.len());
        for run in page {
            checked.push(self.checked_signals(*run).await?);
        }
        let all = page.iter().zip(checked).enumerate();
        let envelopes = all.map(|(slot, (run, checked))| {
            let command = Command::Migrate(Migration {
                from: self.new.from,
                graph: self.to.graph.clone(),
                definition: self.to.hash.clone(),
                mapping: self.new.mapping.clone(),
                by: by.clone(),
                checked,
            });
            let namespace = self.row.namespace.as_str().into();
            Request::asked(*run, namespace, ShardCommand::Command(command), answers.ticket(slot))
        });
        self.node.submit(envelopes.collect()).map_err(|(error, _)| error)?;
        Ok(answers.wait().await)
    }

    /// Returns the result for a run that was requested to move.
    fn moved(&self, run: RunId, answer: Answer) -> Result<MigratedRun, Error> {
        Ok(match answer {
            Ok(_) => result(run, "moved", None),
            Err(Error::Refused(refusal)) => match refusal.code {
                RefusalCode::RunEnded => result(run, "ended", None),
                RefusalCode::CannotMigrate if self.new.on_obstacle == OnObstacle::Leave => {
                    result(run, "left", Some(refusal.message))
                }
                _ => result(run, "refused", Some(refusal.to_string())),
            },
            Err(Error::NotFound { .. }) => result(run, "ended", None),
            Err(Error::Damaged(message)) if self.new.on_obstacle == OnObstacle::Leave => {
                result(run, "left", Some(message))
            }
            Err(Error::Damaged(message)) => result(run, "refused", Some(message)),
            // Finished work is recognized when the page is processed again.
            Err(error) => return Err(error),
        })
    }
}

impl Walk<'_> {
    /// Returns the signals of a run for which the new version has schemas, held to them.
    async fn checked_signals(&self, run: RunId) -> Result<Vec<CheckedSignal>, Error> {
        let (namespace, graph) = (self.row.namespace.as_str(), Arc::clone(&self.to.graph));
        let mapping = self.new.mapping.clone();
        let received = reads::read(self.node, namespace, run, move |run| {
            run.signals_to_check(&graph, &mapping)
        });
        let received = match received.await {
            Ok(received) => received,
            Err(Error::NotFound { .. } | Error::Damaged(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut checked = Vec::with_capacity(received.len());
        for (name, data, schemas) in received {
            let mut wrong = None;
            for schema in schemas {
                let held =
                    self.node.schemas.check(namespace, &schema, &data, "/data", "invalid_data");
                match held.await {
                    Ok(()) => {}
                    Err(Error::Busy) => return Err(Error::Busy),
                    Err(error) => wrong = wrong.or_else(|| Some(signals::why(&error))),
                }
            }
            checked.push(CheckedSignal { name, data, wrong });
        }
        Ok(checked)
    }
}

fn result(run: RunId, word: &str, message: Option<String>) -> MigratedRun {
    MigratedRun { run, result: word.to_owned(), message }
}

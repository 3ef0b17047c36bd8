//! Attempts that workers may complete in transactions of their own. The row in `fences` is the right to do so: it is
//! made before the worker gets the task, and owned by the engine before the attempt may end in any other way.
//!
//! So of "completed" and "lost, revoked, failed" exactly one commits, and PostgreSQL decides which. A run without such
//! tasks pays a look at an empty set.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use backstitch_saga::protocol::TaskOutcome;
use backstitch_saga::{Action, Command, Effect, Payload, RunId, TaskKey, Time};

use super::cache::CachedRun;
use super::decide::{Decided, DecisionContext, Granted};
use super::request::{Request, ShardCommand};
use super::{Shard, TRIES};
use crate::Error;
use crate::crash::commit;
use crate::reports::Report;
use crate::store::StoreError;
use crate::store::fences::{self, Completion, Fence};

/// While a worker's transaction is open, a caller's command is decided again after this long, and
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// a timer of the run after this.
const LOOK_AFTER: Duration = Duration::from_millis(500);

/// Writes to fences that follow from records.
#[derive(Debug, Default)]
pub(crate) struct Fences {
    open: Vec<Fence>,
    namespaces: Vec<String>,
    /// Time at which they were handed out.
    at: Option<Time>,
    close: Vec<Fence>,
}

/// The tasks that a record takes from their workers.
#[derive(Default)]
struct Taken {
    /// Their attempts are over.
    ended: Vec<TaskKey>,
    /// They go to other workers under the same numbers, and so with new fences.
    given_back: Vec<TaskKey>,
}

fn taken_by(decided: &Decided) -> Taken {
    let Decided { cached, transition, .. } = decided;
    let mut taken = Taken::default();
    for task in cached.fenced.iter().filter(|task| cached.run.holder(task).is_none()) {
        let is_release =
            |effect: &Effect| matches!(effect, Effect::TaskReleased(released) if released == task);
        match transition.effects.iter().any(is_release) {
            true => taken.given_back.push(task.clone()),
            false => taken.ended.push(task.clone()),
        }
    }
    taken
}

/// Returns whether the decision is the report of what a worker committed, so that both agree.
fn tells(decided: &Decided, (task, completion): (&TaskKey, &Completion), limit: usize) -> bool {
    let Command::Report { outcome: committed, .. } =
        report(task.clone(), completion.clone(), limit)
    else {
        return false;
    };
    decided.commands.iter().any(|(envelope, result)| match &envelope.order {
        ShardCommand::Command(Command::Report { task: of, outcome }) => {
            result.is_ok() && of == task && *outcome == committed
        }
        _ => false,
    })
}

/// Returns the tasks whose work was done, by the effects of a record.
fn done(effects: &[Effect]) -> BTreeSet<&TaskKey> {
    let mut done = BTreeSet::new();
    for effect in effects {
        if let Effect::AttemptEnded(task, end) = effect
            && end.is_done()
        {
            done.insert(task);
        }
    }
    done
}

impl Shard {
    /// Closes attempts that are about to end to transactions before the end is written. Decisions about runs with an
    /// attempt that was completed in a transaction, or may be at any moment, are put back: the committed completion
    /// counts.
    pub(super) async fn own_fences(&mut self, decided: Vec<Decided>) -> Vec<Decided> {
        let (mut ended, mut namespaces): (Vec<Fence>, Vec<String>) = (Vec::new(), Vec::new());
        let mut given_back: Vec<Fence> = Vec::new();
        for one in &decided {
            let (run, taken) = (one.cached.run.id(), taken_by(one));
            for task in taken.ended {
                ended.push((run, task));
                namespaces.push(one.cached.namespace.to_string());
            }
            given_back.extend(taken.given_back.into_iter().map(|task| (run, task)));
        }
        if ended.is_empty() && given_back.is_empty() {
            return decided;
        }
        let now = self.node.clock.now();
        let left = match self.connection().await {
            Ok(connection) => commit!(
                "fences_revoke",
                fences::take(connection, (&ended, &namespaces), &given_back, now).await
            )
            .map_err(StoreError::from),
            Err(trouble) => Err(trouble),
        };
        let mut left = match left {
            Ok(left) => left,
            Err(trouble) => {
                let runs = ended.iter().chain(&given_back).map(|(run, _)| *run);
                let runs: BTreeSet<RunId> = runs.collect();
                let (theirs, others) =
                    decided.into_iter().partition(|one| runs.contains(&one.cached.run.id()));
                self.not_written(theirs, &trouble);
                return others;
            }
        };
        let limit = self.node.options.payload_limit;
        let mut owned = Vec::with_capacity(decided.len());
        for one in decided {
            let mut left = left.remove(&one.cached.run.id()).unwrap_or_default();
            left.retain(|(task, completion)| {
                let completion = completion.as_ref();
                completion.is_none_or(|completion| !tells(&one, (task, completion), limit))
            });
            match left.is_empty() {
                true => owned.push(one),
                false => self.put_back(one, left),
            }
        }
        owned
    }

    /// Reports the completions of workers first; then everything is decided again. While a worker's transaction is
    /// open, that has to wait, without holding up anybody else.
    fn put_back(&mut self, decided: Decided, left: Vec<(TaskKey, Option<Completion>)>) {
        DecisionContext::of(&self.node).give_back(&decided.granted);
        let run = decided.cached.run.id();
        self.node.counters.fences_held.one();
        let mut reported = false;
        let limit = self.node.options.payload_limit;
        for (task, completion) in left {
            if let Some(completion) = completion {
                let report = report(task, completion, limit);
                let report = Request::own(run, ShardCommand::Command(report));
                self.backlog.push_back(report.paid_by(&decided.cached.namespace));
                reported = true;
            }
        }
        let mut later = Vec::new();
        for (mut envelope, _) in decided.commands {
            match &envelope.order {
                _ if reported => self.again(envelope),
                ShardCommand::Tick { .. } => {
                    let at = self.node.clock.now().after(LOOK_AFTER.into());
                    self.timers.set(run, at, Some(&decided.cached.namespace));
                }
                order if envelope.tries >= TRIES => {
                    if let ShardCommand::HandOut { grant, .. } = order {
                        self.node.dispatcher.give_back(grant);
                    }
                    envelope.answer(Err(Error::Busy));
                }
                _ => {
                    envelope.tries += 1;
                    // One that does not end the attempt need not wait with those that do.
                    envelope.alone = true;
                    later.push(envelope);
                }
            }
        }
        if !later.is_empty() {
            let node = Arc::clone(&self.node);
            tokio::spawn(async move {
                tokio::time::sleep(AGAIN_AFTER).await;
                node.submit_own(later);
            });
        }
    }

    /// Notes what follows from a record for the fences of its run. `granted`: tasks that workers are about to get.
    pub(super) fn note_fences(
        &mut self,
        cached: &mut CachedRun,
        (at, effects): (Time, &[Effect]),
        granted: &[Granted],
    ) {
        let run = cached.run.id();
        if !cached.fenced.is_empty() {
            let CachedRun { fenced, run: held, .. } = &mut *cached;
            let done = done(effects);
            fenced.retain(|task| {
                let done = done.contains(task);
                if done {
                    self.fences.close.push((run, task.clone()));
                }
                !done && held.holder(task).is_some()
            });
        }
        for Granted { task, .. } in granted {
            if cached.run.is_transactional(task) && cached.run.holder(task).is_some() {
                self.fences.open.push((run, task.clone()));
                self.fences.namespaces.push(cached.namespace.to_string());
                let first = self.fences.at.get_or_insert(at);
                *first = at.min(*first);
                cached.fenced.insert(task.clone());
            }
        }
    }

    /// Writes what was noted. It must be done before workers get their tasks; without a fence an attempt can only be
    /// reported.
    pub(super) async fn write_fences(&mut self) {
        let Fences { open, namespaces, at, close } = std::mem::take(&mut self.fences);
        if open.is_empty() && close.is_empty() {
            return;
        }
        let at = at.unwrap_or(Time(0));
        let (shown, now) = (self.node.clock.as_shown(at), self.node.clock.now());
        let written = match self.connection().await {
            Ok(connection) => {
                let opened = match open.is_empty() {
                    true => Ok(()),
                    false => commit!(
                        "fences_open",
                        fences::open(connection, &open, &namespaces, (at, shown)).await
                    ),
                };
                match (opened, close.is_empty()) {
                    (Ok(()), false) => {
                        commit!("fences_close", fences::close(connection, &close, now).await)
                    }
                    (opened, _) => opened,
                }
                .map_err(StoreError::from)
            }
            Err(trouble) => Err(trouble),
        };
        if let Err(trouble) = written {
            tracing::warn!(
                error = trouble.message(),
                "fences were not written; attempts handed out now can be reported, but not completed in a transaction"
            );
            self.connection = None;
        }
    }
}

/// Returns the report of a worker's transaction. `limit` is the largest document, in bytes. A committed completion was
/// done, even if its output cannot be read any more.
pub(crate) fn report(task: TaskKey, completion: Completion, limit: usize) -> Command {
    let Completion { output, external_id, .. } = completion;
    let outcome = match Payload::trusted(output) {
        Ok(output) => TaskOutcome::Succeeded { output, external_id },
        // The output of an undo is ignored.
        Err(_) if task.action == Action::Compensate => {
            TaskOutcome::Succeeded { output: Payload::null(), external_id }
        }
        Err(error) => TaskOutcome::DoneWithoutOutput {
            code: "invalid_output".to_owned(),
            message: format!(
                "the work was committed, but its output in the table fences cannot be read: {error}"
            ),
        },
    };
    Report::of(task, outcome, limit).into_parts().0
}

//! Flow control: decides which tasks of a governed queue may be handed out, and when.
//!
//! A queue is governed when it has a row in `queues`. Its tasks are never born claimed: they go to `ready`, get a
//! permit under the lock of that row (`serve`), and the record that leases them is written only if the permit still
//! exists. `limiter` and the files below it, which are pure, decide by policy, time and counts. Queues without a row
//! cost the check of a flag.

pub(crate) mod breaker;
pub(crate) mod bucket;
mod budget;
mod conditions;
pub(crate) mod limiter;
pub(crate) mod pick;
mod queues;
pub(crate) mod serve;
pub(crate) mod upkeep;
mod window;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use backstitch_saga::protocol::{FailureKind, Labels, QueuePolicy};
use backstitch_saga::{AttemptEnd, Effect, Run, TaskKey, Time};
use tokio::sync::Notify;

use crate::store::batch::Rank;
use crate::store::queues::QueueRow;
use breaker::{Answer, Ending};
use limiter::Limiter;

pub(crate) use conditions::{add_conditions, conditions};
pub use queues::QueueAct;
pub(crate) use queues::damaged_rows;

/// The priority of tasks whose run names none.
const USUAL_PRIORITY: i16 = 5;
/// The key of tasks whose run has none; keys of others begin with `=`.
const NO_KEY: &str = "-";

/// Shortest interval of log messages about queues that cannot be read.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Governed queues, as this node knows them.
#[derive(Default)]
pub(crate) struct Flow {
    governs: AtomicBool,
    governed: RwLock<Arc<Governed>>,
    /// Ends of tasks of queues with a breaker at this node that their limiters have not counted
    /// yet.
    endings: Mutex<HashMap<Name, Vec<Ending>>>,
    /// Rings when a permit may be given.
    bell: Notify,
    /// At the last look there were tasks that waited for a permit.
    backlog: AtomicBool,
    /// Time of the last log message about queues that cannot be read.
    told_at: Mutex<Option<Instant>>,
}

/// Namespace and queue.
pub(crate) type Name = (Arc<str>, Arc<str>);

/// The governed queues as last read, at most a second ago.
#[derive(Debug, Default)]
pub(crate) struct Governed {
    queues: HashMap<Arc<str>, HashMap<Arc<str>, Arc<Queue>>>,
}

/// A governed queue.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) name: Name,
    pub(crate) policy: QueuePolicy,
    /// As it stood then; what counts is read under the lock.
    pub(crate) limiter: Limiter,
    /// When, by whom, why.
    pub(crate) paused: Option<(Time, String, String)>,
    /// Its row cannot be read: none of its tasks is handed out until a person sets its policy anew.
    pub(crate) damaged: Option<Damaged>,
    changed_at: Time,
    swept_at: Option<Time>,
}

/// The reason for which the row of a queue cannot be read, and the time since when this node knows.
#[derive(Clone, Debug)]
pub(crate) struct Damaged {
    pub(crate) why: String,
    pub(crate) since: Instant,
}

impl Queue {
    /// Returns a queue as its row says. One whose row cannot be read is damaged, and allows nothing.
    pub(crate) fn read(row: QueueRow) -> Queue {
        let (policy, limiter) =
            (serde_json::from_str(&row.policy), serde_json::from_str(&row.limiter));
        let bad = |column: &str, error: Option<&serde_json::Error>| {
            error
                .map(|error| format!("table queues, queue {}, column {column}: {error}", row.queue))
        };
        let why = bad("policy", policy.as_ref().err()).or(bad("limiter", limiter.as_ref().err()));
        Queue {
            policy: policy.unwrap_or_default(),
            limiter: limiter.unwrap_or_default(),
            name: (row.namespace.into(), row.queue.into()),
            paused: row.paused,
            damaged: why.map(|why| Damaged { why, since: Instant::now() }),
            changed_at: row.changed_at,
            swept_at: row.swept_at,
        }
    }

    /// Returns whether any task of it may be handed out.
    pub(crate) fn is_open(&self) -> bool {
        self.paused.is_none() && self.damaged.is_none()
    }

    /// Returns the rank of the tasks of a run.
    pub(crate) fn rank(&self, labels: &Labels) -> Rank {
        let label = |name: &Option<String>| name.as_ref().and_then(|name| labels.get(name));
        let priority = label(&self.policy.priority_by).and_then(|text| text.parse().ok());
        Rank {
            priority: priority.filter(|n| (0..=9).contains(n)).unwrap_or(USUAL_PRIORITY),
            fair_key: label(&self.policy.fair_by)
                .map_or_else(|| NO_KEY.to_owned(), |key| format!("={key}")),
        }
    }
}

impl Governed {
    pub(crate) fn get(&self, namespace: &str, queue: &str) -> Option<&Arc<Queue>> {
        self.queues.get(namespace)?.get(queue)
    }

    /// Returns the governed queue of a task of `run`.
    pub(crate) fn of_task(&self, run: &Run, task: &TaskKey) -> Option<&Arc<Queue>> {
        let queues = self.queues.get(run.namespace())?;
        queues.get(run.route(task)?.0)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Queue>> {
        self.queues.values().flat_map(HashMap::values)
    }
}

impl Flow {
    /// Returns the governed queues; `None` when there are none, as at nearly every node.
    pub(crate) fn governed(&self) -> Option<Arc<Governed>> {
        if !self.governs.load(Ordering::Acquire) {
            return None;
        }
        Some(self.governed.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Returns whether a queue is governed.
    pub(crate) fn is_governed(&self, namespace: &str, queue: &str) -> bool {
        self.governed().is_some_and(|governed| governed.get(namespace, queue).is_some())
    }

    /// Learns which queues are governed now.
    pub(crate) fn learn(&self, queues: impl Iterator<Item = Queue>) {
        let mut governed = Governed::default();
        let known = self.governed();
        for mut queue in queues {
            let before = known.as_ref().and_then(|all| all.get(&queue.name.0, &queue.name.1));
            let before = before.and_then(|before| before.damaged.as_ref());
            if let (Some(damaged), Some(before)) = (&mut queue.damaged, before) {
                damaged.since = before.since;
            }
            let (namespace, name) = queue.name.clone();
            governed.queues.entry(namespace).or_default().insert(name, Arc::new(queue));
        }
        let any = !governed.queues.is_empty();
        *self.governed.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(governed);
        self.governs.store(any, Ordering::Release);
    }

    /// Says in the log, once a minute at most, which queues cannot be read.
    fn tell_damaged(&self, known: &[Queue]) {
        let mut told_at = self.told_at.lock().unwrap_or_else(PoisonError::into_inner);
        if told_at.is_some_and(|at| at.elapsed() < TELL_EVERY) {
            return;
        }
        let mut damaged = known.iter().filter_map(|one| Some((&one.name, one.damaged.as_ref()?)));
        let Some(((namespace, queue), Damaged { why, .. })) = damaged.next() else { return };
        let more = damaged.count();
        tracing::error!(
            %namespace, %queue, more, "a queue cannot be read, so that nothing of it is handed out: {why}"
        );
        *told_at = Some(Instant::now());
    }

    /// Returns the queues of a namespace whose rows cannot be read, with the time since when the first of them has
    /// been known.
    pub(crate) fn damaged(&self, namespace: &str) -> Option<(Vec<String>, Duration)> {
        let governed = self.governed()?;
        let queues = governed.queues.get(namespace)?.values();
        let damaged = queues.filter_map(|one| Some((&one.name.1, one.damaged.as_ref()?.since)));
        let (mut names, since): (Vec<String>, Vec<Instant>) =
            damaged.map(|(name, since)| (name.to_string(), since)).unzip();
        names.sort_unstable();
        Some((names, since.into_iter().min()?.elapsed()))
    }

    /// Wakes the look for permits: tasks were offered, or others ended.
    pub(crate) fn ring(&self) {
        self.bell.notify_one();
    }

    /// Notes that a worker waits for more than this node knows of.
    pub(crate) fn hungry(&self, fresh: bool) {
        if self.governs.load(Ordering::Relaxed) && (fresh || self.backlog.load(Ordering::Relaxed)) {
            self.ring();
        }
    }

    /// Takes note of what a committed record says about destinations.
    pub(crate) fn note(&self, governed: &Governed, run: &Run, effects: &[Effect]) {
        for effect in effects {
            let Effect::AttemptEnded(task, end) = effect else { continue };
            let Some(queue) = governed.of_task(run, task) else { continue };
            if queue.policy.breaker.is_some() {
                let mut endings = self.endings.lock().unwrap_or_else(PoisonError::into_inner);
                let (task, answer) = (task.clone(), answer_of(*end));
                let ending = Ending { run: run.id(), task, answer };
                endings.entry(queue.name.clone()).or_default().push(ending);
            }
        }
    }

    /// Returns the ends of tasks since the last call.
    fn endings(&self) -> HashMap<Name, Vec<Ending>> {
        std::mem::take(&mut *self.endings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes back endings that could not be counted.
    fn untold(&self, name: &Name, mut ending: Vec<Ending>) {
        let mut endings = self.endings.lock().unwrap_or_else(PoisonError::into_inner);
        let later = endings.entry(name.clone()).or_default();
        ending.append(later);
        *later = ending;
    }
}

/// Returns the conclusion about the destination from the end of an attempt.
fn answer_of(end: AttemptEnd) -> Answer {
    match end {
        AttemptEnd::Succeeded | AttemptEnd::Verified => Answer::Given,
        AttemptEnd::Failed { kind, .. } => match kind {
            FailureKind::Permanent | FailureKind::RateLimited => Answer::Given,
            FailureKind::Retryable | FailureKind::Unknown | FailureKind::Unavailable => {
                Answer::Missing
            }
        },
        AttemptEnd::Lost => Answer::Unknown,
    }
}

/// The permits of a run's tasks that end with a record: those that workers held and hold no more, and those that were
/// taken off the offer without being handed out. `held` is what workers held before.
#[derive(Debug, Default)]
pub(crate) struct PermitChanges {
    pub(crate) taken: Vec<TaskKey>,
    pub(crate) over: Vec<TaskKey>,
}

/// Returns the changes of permits, as workers begin or cease to hold those tasks of a run that are
/// named in `touched`.
pub(crate) fn permit_changes(
    governed: &Governed,
    run: &Run,
    touched: impl Iterator<Item = (TaskKey, Before)>,
) -> PermitChanges {
    let mut changes = PermitChanges { taken: Vec::new(), over: Vec::new() };
    for (task, before) in touched {
        let leased = run.holder(&task).is_some();
        match (before, leased) {
            (Before::Held, false) => changes.over.push(task),
            (Before::Waiting, false)
                if !run.is_offered(&task) && governed.of_task(run, &task).is_some() =>
            {
                changes.over.push(task);
            }
            (Before::Waiting | Before::New, true) if governed.of_task(run, &task).is_some() => {
                changes.taken.push(task);
            }
            _ => {}
        }
    }
    changes
}

/// State of a task before a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    Held,
    Waiting,
    New,
}

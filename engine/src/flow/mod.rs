//! Flow control: which tasks of a governed queue may be handed out, and when.
//!
//! A queue is governed when it has a row in `queues`. Its tasks are never born claimed: they go to `ready`, get a permit
//! under the lock of that row (`serve`), and the record that leases them is written only if the permit is still there.
//! What follows from policy, time and counts is decided in `limiter` and the files below it, which are pure. Queues
//! without a row cost one look at a flag.

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

use backstitch_saga::protocol::{FailureKind, Labels, QueuePolicy};
use backstitch_saga::{Event, Run, TaskKey, Time};
use tokio::sync::Notify;

use crate::store::batch::Rank;
use crate::store::queues::QueueRow;
use breaker::{Answer, Ending};
use limiter::Limiter;

pub(crate) use conditions::conditions;
pub use queues::QueueAct;

/// The priority of tasks whose run names none.
const USUAL_PRIORITY: i16 = 5;
/// What stands for the key of tasks whose run has none; keys of others begin with `=`.
const NO_KEY: &str = "-";

/// What this node knows of governed queues.
#[derive(Default)]
pub(crate) struct Flow {
    governs: AtomicBool,
    governed: RwLock<Arc<Governed>>,
    /// How tasks of queues with a breaker ended here, not told to their limiters yet.
    endings: Mutex<HashMap<Name, Vec<Ending>>>,
    /// Rings when a permit may be given.
    bell: Notify,
    /// At the last look there were tasks that waited for a permit.
    backlog: AtomicBool,
}

/// Namespace and queue.
pub(crate) type Name = (Arc<str>, Arc<str>);

/// The governed queues as they were when last looked at, at most a second ago.
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
    changed_at: Time,
    swept_at: Option<Time>,
}

impl Queue {
    /// A queue as its row says.
    pub(crate) fn read(row: QueueRow) -> Result<Queue, String> {
        let bad = |column: &str, error: serde_json::Error| {
            format!("table queues, queue {}, column {column}: {error}", row.queue)
        };
        Ok(Queue {
            policy: serde_json::from_str(&row.policy).map_err(|error| bad("policy", error))?,
            limiter: serde_json::from_str(&row.limiter).map_err(|error| bad("limiter", error))?,
            name: (row.namespace.into(), row.queue.into()),
            paused: row.paused,
            changed_at: row.changed_at,
            swept_at: row.swept_at,
        })
    }

    /// What the tasks of a run are ordered by.
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

    /// The governed queue of a task of `run`.
    pub(crate) fn of_task(&self, run: &Run, task: &TaskKey) -> Option<&Arc<Queue>> {
        let queues = self.queues.get(run.namespace())?;
        queues.get(run.route(task)?.0)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Queue>> {
        self.queues.values().flat_map(HashMap::values)
    }
}

impl Flow {
    /// The governed queues; `None` when there are none, as at nearly every node.
    pub(crate) fn governed(&self) -> Option<Arc<Governed>> {
        if !self.governs.load(Ordering::Acquire) {
            return None;
        }
        Some(self.governed.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Whether a queue is governed.
    pub(crate) fn is_governed(&self, namespace: &str, queue: &str) -> bool {
        self.governed().is_some_and(|governed| governed.get(namespace, queue).is_some())
    }

    /// These are the governed queues now.
    pub(crate) fn learn(&self, queues: impl Iterator<Item = Queue>) {
        let mut governed = Governed::default();
        for queue in queues {
            let (namespace, name) = queue.name.clone();
            governed.queues.entry(namespace).or_default().insert(name, Arc::new(queue));
        }
        let any = !governed.queues.is_empty();
        *self.governed.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(governed);
        self.governs.store(any, Ordering::Release);
    }

    /// A permit may be given: tasks came up, or others ended.
    pub(crate) fn ring(&self) {
        self.bell.notify_one();
    }

    /// A worker waits for more than this node knows of.
    pub(crate) fn hungry(&self, fresh: bool) {
        if self.governs.load(Ordering::Relaxed) && (fresh || self.backlog.load(Ordering::Relaxed)) {
            self.ring();
        }
    }

    /// Takes note of what a committed record says about destinations.
    pub(crate) fn note(&self, governed: &Governed, run: &Run, events: &[Event]) {
        for event in events {
            let Some((task, answer)) = ending(event) else { continue };
            let Some(queue) = governed.of_task(run, &task) else { continue };
            if queue.policy.breaker.is_some() {
                let mut endings = self.endings.lock().unwrap_or_else(PoisonError::into_inner);
                let ending = Ending { run: run.id(), task, answer };
                endings.entry(queue.name.clone()).or_default().push(ending);
            }
        }
    }

    /// How tasks ended since this was asked last.
    fn endings(&self) -> HashMap<Name, Vec<Ending>> {
        std::mem::take(&mut *self.endings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// They could not be told: they are to be told again.
    fn untold(&self, name: &Name, mut ending: Vec<Ending>) {
        let mut endings = self.endings.lock().unwrap_or_else(PoisonError::into_inner);
        let later = endings.entry(name.clone()).or_default();
        ending.append(later);
        *later = ending;
    }
}

/// The task that an event ends, and what its end says about the destination.
fn ending(event: &Event) -> Option<(TaskKey, Answer)> {
    use backstitch_saga::Action;
    let (step, action, attempt, answer) = match event {
        Event::Succeeded { step, attempt: attempt @ 1.., .. } => {
            (step, Action::Forward, attempt, Answer::Given)
        }
        Event::Undone { step, attempt: attempt @ 1.. } => {
            (step, Action::Compensate, attempt, Answer::Given)
        }
        Event::Happened { step, attempt } | Event::NotHappened { step, attempt } => {
            (step, Action::Verify, attempt, Answer::Given)
        }
        Event::Failed { step, action, attempt, error, .. } => {
            let answer = match error.kind {
                FailureKind::Permanent | FailureKind::RateLimited => Answer::Given,
                FailureKind::Retryable | FailureKind::Unknown | FailureKind::Unavailable => {
                    Answer::Missing
                }
            };
            (step, *action, attempt, answer)
        }
        Event::Lost { step, action, attempt, .. } => (step, *action, attempt, Answer::Unknown),
        _ => return None,
    };
    Some((TaskKey { step: step.clone(), action, attempt: *attempt }, answer))
}

/// The permits of a run's tasks that end with a record: those that workers held and hold no more, and those that were
/// taken off the offer without being handed out. `held` is what workers held before.
#[derive(Debug, Default)]
pub(crate) struct PermitChanges {
    pub(crate) taken: Vec<TaskKey>,
    pub(crate) over: Vec<TaskKey>,
}

/// When a run's tasks that are named in `touched` get into workers' hands, or out of them.
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

/// How a task stood before a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    Held,
    Waiting,
    New,
}

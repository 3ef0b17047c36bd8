//! The registry of a node's background tasks. A task is one entry; its name, its rhythm, its metrics and its place
//! among the loops follow from it. Tasks only read the indexes and submit commands.

mod own;
mod stall;

use std::sync::Arc;
use std::time::{Duration, Instant};

use backstitch_saga::protocol::BackgroundTasks;
use futures::future::BoxFuture;
use tokio::task::JoinHandle;

use crate::forever::forever;
use crate::node::Node;
use crate::options::Tuning;
use crate::reads::waiters;
use crate::{Engine, Error, charge, completions, credentials, flow, inbox, schedules, signals};

pub(crate) use own::take_back;

const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// Entry of the registry.
struct Entry {
    name: &'static str,
    rhythm: Rhythm,
    /// Runs one pass. Returns the number of runs or tasks that it found, if it looks for any.
    work: fn(&Arc<Node>) -> BoxFuture<'_, Result<usize, Error>>,
}

/// Rhythm of a task.
enum Rhythm {
    /// Once in so long, and when the node begins.
    Every(fn(&Tuning) -> Duration),
    /// Driven by a loop of its own.
    Loop(Serve),
}
use Rhythm::{Every, Loop};

/// A loop that runs as long as its node lives.
type Serve = fn(Arc<Node>) -> BoxFuture<'static, ()>;

/// Loops that only wait for others, and find nothing by themselves.
const LISTENERS: [(&str, Serve); 3] = [
    ("notify_of_sequence", |node| Box::pin(crate::sequence::serve(node))),
    ("listen", |node| Box::pin(inbox::keep_listening(node))),
    ("log_heads", |node| Box::pin(crate::log::serve_heads(node))),
];

macro_rules! registry {
    ($($(#[$doc:meta])+ $task:ident: $name:literal, $rhythm:expr, |$node:ident| $work:expr;)+) => {
        /// Something that a node does without being asked.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum BackgroundTask {
            $($(#[$doc])+ $task,)+
        }

        impl BackgroundTask {
            /// All of them, in order.
            pub const ALL: &'static [BackgroundTask] = &[$(BackgroundTask::$task,)+];

            fn entry(self) -> Entry {
                match self {
                    $(BackgroundTask::$task => Entry {
                        name: $name,
                        rhythm: $rhythm,
                        work: |$node| {
                            Box::pin(async move {
                                let done: Result<usize, Error> = $work;
                                done
                            })
                        },
                    },)+
                }
            }
        }
    };
}

registry! {
    /// Set the clock, show that the node lives.
    Beat: "heartbeat",
        Every(|tuning| tuning.beat_every),
        |node| own::beat(node).await.map(|()| 0);
    /// Take over the runs of dead nodes.
    TakeOver: "take_over",
        Every(|tuning| tuning.beat_every),
        |node| charge::take_over(node).await;
    /// Take charge of parked runs that are due.
    Wake: "wake",
        Every(|tuning| tuning.wake_every),
        |node| charge::wake(node).await;
    /// Look for tasks that waiting workers could do.
    LookForTasks: "look_for_tasks",
        Loop(|node| Box::pin(own::serve_hungry(node))),
        |node| own::look_for_tasks(node).await;
    /// Take back what was put aside for workers that do not fetch it.
    TakeBack: "take_back",
        Every(|tuning| tuning.credit_grace / 4),
        |node| Ok(own::take_back(node, false));
    /// Look for bad deployments, read which workflows are paused, release runs of those that are
    /// not any more.
    Guard: "guard",
        Every(|tuning| tuning.beat_every),
        |node| own::guard(node).await;
    /// Work on jobs: one verb on many.
    WorkJobs: "jobs",
        Loop(|node| Box::pin(crate::jobs::serve(node))),
        |node| crate::jobs::work(node).await;
    /// Make partitions ahead of time, drop those past retention, forget old nodes.
    Maintenance: "maintenance",
        Every(|_| MINUTE * 60),
        |node| own::run_maintenance(node).await.map(|()| 0);
    /// Go on erasing runs, and deleting ended runs past retention whose week others keep.
    DeleteRuns: "retention",
        Every(|_| crate::retention::EVERY),
        |node| crate::erasure::erase_and_delete(node).await;
    /// Take what applications asked for in their own transactions.
    TakeAsked: "start_requests",
        Loop(|node| Box::pin(own::serve_asked(node))),
        |node| Ok(inbox::take(node).await? + completions::take(node).await?);
    /// Deliver early signals to runs that have been started since.
    DeliverSignals: "signals",
        Every(|tuning| tuning.wake_every),
        |node| signals::deliver(node).await;
    /// Record which workers have come and gone.
    Workers: "workers",
        Every(|tuning| tuning.beat_every),
        |node| crate::workers::write_down(node).await;
    /// Look for runs that nothing would wake.
    Sweep: "sweep",
        Every(|_| MINUTE / 2),
        |node| crate::sweep::sweep(node).await;
    /// Compare the indexes of some runs with their journals, and mend them.
    CheckIndexes: "index_check",
        Every(|_| crate::index_check::EVERY),
        |node| crate::index_check::check(node).await;
    /// Forget the answers to requests with an `Idempotency-Key` that are past retention.
    ForgetAnswers: "forget_answers",
        Every(|_| MINUTE),
        |node| own::forget_answers(node).await;
    /// Start what schedules have due.
    Schedules: "schedules",
        Every(|tuning| tuning.schedules_every),
        |node| schedules::fire(node).await;
    /// Go on with migrations of runs in flight.
    Migrate: "migrations",
        Every(|tuning| tuning.beat_every),
        |node| crate::versions::work(node).await;
    /// Learn which queues are governed, and look after their permits.
    KeepQueues: "queues",
        Every(|tuning| tuning.beat_every),
        |node| flow::upkeep::keep(node).await;
    /// Give the permits that can be given now.
    GivePermits: "permits",
        Loop(|node| Box::pin(flow::serve::serve(node))),
        |node| flow::serve::give(node).await.map(|given| given.permits);
    /// Deliver pending notifications about serial keys and facts.
    Sequence: "sequence",
        Every(|tuning| tuning.beat_every),
        |node| crate::sequence::sweep(node).await;
    /// Keep workers free for tasks over which a worker was lost.
    KeepFree: "suspects",
        Loop(|node| Box::pin(own::serve_alone(node))),
        |node| crate::alone::keep(node).await;
    /// Learn the quotas of namespaces.
    LearnQuotas: "quotas",
        Every(|tuning| tuning.beat_every),
        |node| crate::quotas::learn(node).await;
    /// Note which credentials were used.
    NoteUsed: "credentials",
        Every(|_| credentials::USED_EVERY),
        |node| credentials::note_used(node).await;
    /// Look for the ends of runs that are waited for.
    LookForEnds: "ends",
        Every(|_| waiters::LOOK_EVERY),
        |node| waiters::look(node).await;
    /// Give events of the log their positions.
    Number: "log",
        Loop(|node| Box::pin(crate::log::serve(node))),
        |node| crate::log::number(node).await;
    /// Start runs for events that subscriptions want.
    Dispatch: "subscriptions",
        Loop(|node| Box::pin(crate::subscriptions::serve(node))),
        |node| crate::subscriptions::dispatch(node).await;
    /// Take what runs emitted to the log.
    Emit: "emitted",
        Loop(|node| Box::pin(crate::log::serve_emitted(node))),
        |node| crate::log::take_emitted(node).await;
    /// Take in rows of files.
    Import: "imports",
        Every(|tuning| tuning.beat_every),
        |node| crate::ingress::import(node).await;
    /// Process documents of sources again.
    Reprocess: "reprocesses",
        Every(|tuning| tuning.beat_every),
        |node| crate::ingress::reprocess(node).await;
}

impl BackgroundTask {
    /// Returns the name under which it is counted.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.entry().name
    }
}

impl Engine {
    /// Returns the background tasks of this node, and how they go.
    #[must_use]
    pub fn background_tasks(&self) -> BackgroundTasks {
        let node = self.node();
        let view = |&task: &BackgroundTask| {
            let every = match task.entry().rhythm {
                Every(span) => Some(span(&node.options.tuning)),
                Loop(_) => None,
            };
            node.background.view(task, every)
        };
        let tasks = BackgroundTask::ALL.iter().map(view).collect();
        BackgroundTasks { node: node.options.node_name.clone(), tasks }
    }
}

/// Runs one pass of a task, and counts it. Returns the number of runs or tasks that it found, if it
/// looks for any.
pub(crate) async fn once(node: &Arc<Node>, task: BackgroundTask) -> Result<usize, Error> {
    counted(node, task, (task.entry().work)(node)).await
}

/// Counts `work` as one time that a task was done.
pub(crate) async fn counted<T>(
    node: &Node,
    task: BackgroundTask,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let began = Instant::now();
    let done = work.await;
    node.background.note(task, began.elapsed(), done.is_ok());
    done
}

/// Begins all loops.
pub(crate) fn spawn(node: &Arc<Node>) -> Vec<JoinHandle<()>> {
    let tasks = BackgroundTask::ALL.iter().map(|&task| match task.entry().rhythm {
        Every(span) => {
            let span = span(&node.options.tuning);
            forever(node, task.as_str(), move |node| every(node, span, task))
        }
        Loop(serve) => forever(node, task.as_str(), serve),
    });
    let listeners = LISTENERS.iter().map(|&(name, serve)| forever(node, name, serve));
    tasks.chain(listeners).collect()
}

async fn every(node: Arc<Node>, span: Duration, task: BackgroundTask) {
    let mut ticks = tokio::time::interval(span.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = once(&node, task).await {
            let task = task.as_str();
            tracing::warn!(task, %error, "a background task failed and is tried again");
        }
    }
}

//! The workflows of the benchmark and the worker that does their tasks: a process of its own, built with the SDK like
//! any user's. Its handlers do nothing.
//!
//! After it has said that it is up it prints one line for each event that the driver waits for: `e RUN` when the
//! report that ended a run has been answered, `h MICROS` for a hand-off: from the end of one handler of a run to the
//! beginning of the next.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use backstitch_sdk::protocol::{TaskOutcome, TaskReport};
use backstitch_sdk::{
    Action, Client, CompensationContext, Empty, InvalidWorkflow, Milestone, Ref, Retry, RunId,
    Span, Task, TaskContext, TaskError, Undo, Worker, Workflow, field, wire,
};
use backstitch_shop::child;
use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

const STEP: Task<Parcel, Parcel> = Task::new("step").queue("bench");
const REFUSE: Task<Parcel, Parcel> = Task::new("refuse").queue("bench");
const LATER: Task<Parcel, Parcel> = Task::new("later").queue("bench");
const UNDO: Undo<Parcel, Parcel> = Undo::new("undo").queue("bench");
const LIST: Task<Size, List> = Task::new("list").queue("bench");
const ITEM: Task<u8, u8> = Task::new("item").queue("bench");
const JOIN: Task<Size, Size> = Task::new("join").queue("bench");

/// Steps of the sagas.
pub(super) const STEPS: u64 = 5;

/// The document that steps pass on: 200 bytes as JSON.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Parcel {
    text: String,
}

impl Parcel {
    /// Returns 11 bytes around 189.
    pub(super) fn new() -> Parcel {
        Parcel { text: "x".repeat(189) }
    }
}

/// Number of items.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Size {
    pub(super) size: u32,
}

/// Items of one digit each, so that a hundred thousand fit into a payload.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct List {
    items: Vec<u8>,
}

/// Makes five steps in sequence, each with its undo. With `fails` the fifth fails for good.
pub(super) fn saga(fails: bool) -> Result<Workflow<Parcel, Parcel>, InvalidWorkflow> {
    saga_of(if fails { "bench-undone" } else { "bench-saga" }, fails, false)
}

/// Returns the same, whose start and end are events of the log.
pub(super) fn told() -> Result<Workflow<Parcel, Parcel>, InvalidWorkflow> {
    saga_of("bench-told", false, true)
}

fn saga_of(
    name: &str,
    fails: bool,
    told: bool,
) -> Result<Workflow<Parcel, Parcel>, InvalidWorkflow> {
    Workflow::build(name, 1, |saga, input: Ref<Parcel>| {
        if told {
            saga.milestones([Milestone::Started, Milestone::Ended]);
        }
        let s1 = saga.step("s1", STEP, &input).compensate(UNDO);
        let s2 = saga.step("s2", STEP, &s1).compensate(UNDO);
        let s3 = saga.step("s3", STEP, &s2).compensate(UNDO);
        let s4 = saga.step("s4", STEP, &s3).compensate(UNDO);
        let last = if fails { REFUSE } else { STEP };
        let s5 = saga.step("s5", last, &s4).compensate(UNDO).retry(Retry::never());
        wire!(Parcel { text: field!(s5.text) })
    })
}

/// Makes one step that is to be tried again in a day.
pub(super) fn waiting() -> Result<Workflow<Parcel, Parcel>, InvalidWorkflow> {
    Workflow::build("bench-waiting", 1, |saga, input: Ref<Parcel>| {
        let step = saga.step("s1", LATER, &input).compensate(UNDO);
        let step = step.retry(Retry::every(Span::days(1)));
        wire!(Parcel { text: field!(step.text) })
    })
}

/// Returns a list, a task for each of its items, and a step after all of them.
pub(super) fn fan_out() -> Result<Workflow<Size, Size>, InvalidWorkflow> {
    Workflow::build("bench-fan-out", 1, |saga, input: Ref<Size>| {
        let list = saga.step("list", LIST, &input).read_only();
        let items = saga.map("items", field!(list.items), ITEM, |item| item);
        let items = items.empty(Empty::Fail).read_only();
        let join = saga.step("join", JOIN, &input).after(&items).read_only();
        wire!(Size { size: field!(join.size) })
    })
}

/// What the worker can be told.
#[derive(Args)]
pub(crate) struct WorkerArgs {
    /// The server
    #[arg(long)]
    server: String,
    /// How many tasks to hold at once
    #[arg(long, default_value_t = 1_024)]
    concurrency: usize,
    /// Measure hand-offs
    #[arg(long)]
    hand_offs: bool,
}

/// Works until standard input ends.
pub(crate) async fn work(args: WorkerArgs) -> anyhow::Result<()> {
    let (tell, told) = unbounded_channel();
    let watch =
        Watch { last: args.hand_offs.then(|| Arc::new(Mutex::default())), tell: tell.clone() };
    let worker = worker(Client::new(&args.server)?, &watch)
        .concurrency(args.concurrency)
        .on_report(move |report| {
            if ends(report) {
                // The printer is gone only when the process ends.
                let _ = tell.send(News::Ended(report.run));
            }
        });
    child::announce("working for", &args.server);
    std::thread::spawn(move || print(told));
    worker.run(child::told_to_stop(true)).await?;
    Ok(())
}

fn worker(client: Client, watch: &Watch) -> Worker {
    let step = |watch: Watch| {
        move |context: TaskContext, parcel: Parcel| {
            let watch = watch.clone();
            async move {
                watch.begun(context.run());
                watch.done(context.run());
                Ok::<_, TaskError>(parcel)
            }
        }
    };
    Worker::new(client)
        .task(STEP, step(watch.clone()))
        .task(REFUSE, async |_, _| Err::<Parcel, _>(TaskError::permanent("refused", "it must be")))
        .task(LATER, async |_, _| Err::<Parcel, _>(TaskError::retryable("later", "not today")))
        .undo(UNDO, async |_, _: CompensationContext<Parcel, Parcel>| Ok::<_, TaskError>(()))
        .task(LIST, async |_, size: Size| {
            let items = (0..size.size).map(|item| (item % 10) as u8).collect();
            Ok::<_, TaskError>(List { items })
        })
        .task(ITEM, async |_, item: u8| Ok::<_, TaskError>(item))
        .task(JOIN, async |_, size: Size| Ok::<_, TaskError>(size))
}

/// Returns whether this report ends its run.
fn ends(report: &TaskReport) -> bool {
    let succeeded = matches!(report.outcome, TaskOutcome::Succeeded { .. });
    match (report.action, &*report.step.step) {
        (Action::Forward, "s5" | "join") => succeeded,
        (Action::Compensate, "s1") => succeeded,
        _ => false,
    }
}

/// A printed line.
enum News {
    Ended(RunId),
    HandOff(u128),
}

/// Watches the hand-offs of runs, if at all.
#[derive(Clone)]
struct Watch {
    last: Option<Arc<Mutex<HashMap<RunId, Instant>>>>,
    tell: UnboundedSender<News>,
}

impl Watch {
    fn begun(&self, run: RunId) {
        let Some(last) = &self.last else { return };
        let ended = last.lock().unwrap_or_else(PoisonError::into_inner).remove(&run);
        if let Some(ended) = ended {
            let _ = self.tell.send(News::HandOff(ended.elapsed().as_micros()));
        }
    }

    fn done(&self, run: RunId) {
        if let Some(last) = &self.last {
            last.lock().unwrap_or_else(PoisonError::into_inner).insert(run, Instant::now());
        }
    }
}

/// Prints what there is in one write, for ever.
fn print(mut told: UnboundedReceiver<News>) {
    let mut text = String::new();
    while let Some(first) = told.blocking_recv() {
        text.clear();
        let mut next = Some(first);
        while let Some(news) = next {
            // Writing to a string cannot fail.
            let _ = match news {
                News::Ended(run) => writeln!(text, "e {run}"),
                News::HandOff(micros) => writeln!(text, "h {micros}"),
            };
            next = told.try_recv().ok();
        }
        let mut out = std::io::stdout().lock();
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workflows_are_sound_and_parcels_have_200_bytes() {
        assert_eq!(saga(false).unwrap().definition().steps.len() as u64, STEPS);
        assert_eq!(saga(true).unwrap().definition().steps.len() as u64, STEPS);
        assert_eq!(waiting().unwrap().name(), "bench-waiting");
        assert_eq!(fan_out().unwrap().name(), "bench-fan-out");
        assert_eq!(serde_json::to_string(&Parcel::new()).unwrap().len(), 200);
    }
}

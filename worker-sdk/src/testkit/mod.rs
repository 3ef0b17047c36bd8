//! The test kit: runs a workflow in memory on the rules that the server runs on, with faults at any step and time that
//! moves by hand. Nothing is stored or sent, and no rule is written a second time here.
//!
//! ```
//! use backstitch_sdk::testkit::{Fault, TestKit};
//! # use backstitch_sdk::{InvalidWorkflow, Ref, Task, TaskContext, TaskError, Undo, CompensationContext, Workflow, field, wire};
//! # use backstitch_sdk::protocol::Outcome;
//! # use schemars::JsonSchema;
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Serialize, Deserialize, JsonSchema)] pub struct Order { id: String }
//! # #[derive(Serialize, Deserialize, JsonSchema)] pub struct Done { number: u32 }
//! # const PAY: Task<Order, Done> = Task::new("pay");
//! # const REFUND: Undo<Order, Done> = Undo::new("refund");
//! # const SHIP: Task<Done, Done> = Task::new("ship");
//! # fn checkout() -> Result<Workflow<Order, Done>, InvalidWorkflow> {
//! #     Workflow::build("checkout", 1, |saga, order: Ref<Order>| {
//! #         let payment = saga.step("payment", PAY, &order).compensate(REFUND);
//! #         saga.step("shipment", SHIP, &payment).pivot()
//! #     })
//! # }
//! # async fn pay(_: TaskContext, _: Order) -> Result<Done, TaskError> { Ok(Done { number: 1 }) }
//! # async fn refund(_: TaskContext, _: CompensationContext<Order, Done>) -> Result<(), TaskError> { Ok(()) }
//! # async fn ship(_: TaskContext, done: Done) -> Result<Done, TaskError> { Ok(done) }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), InvalidWorkflow> {
//! let kit = TestKit::new(&checkout()?)
//!     .task(PAY, pay)
//!     .undo(REFUND, refund)
//!     .task(SHIP, ship)
//!     .fault(Fault::at("shipment").fails(TaskError::permanent("no_carrier", "nobody goes there")));
//! let run = kit.run(&Order { id: "7".to_owned() }).await;
//! run.assert_outcome(Outcome::Compensated);
//! assert_eq!(run.effects(), ["payment", "undo payment"]);
//! # Ok(())
//! # }
//! ```

mod children;
mod fault;
mod names;
mod person;
mod run;
mod seen;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use backstitch_saga::rehearse::{Bounds, Rehearsal};
use backstitch_saga::{Payload, RunId, Span};
use serde::Serialize;
use uuid::Uuid;

use children::Cast;
pub use fault::{Fault, Place};
pub use run::TestRun;
pub use world::Call;

use crate::Workflow;
use crate::codec::{self, Codec, MaybeCodec};
use crate::handlers::{Handlers, registers_handlers};

/// Goes through everything that can go wrong with `workflow`: each step, each fault, each pair of them, within
/// `bounds`, without its handlers. [`Rehearsal::assert_closes`] fails a test with the shortest trace of what leaves
/// something behind, or ends nowhere.
///
/// ```
/// use backstitch_sdk::testkit::{Bounds, rehearse};
/// # use backstitch_sdk::{InvalidWorkflow, Ref, Task, Undo, Workflow};
/// # use schemars::JsonSchema;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize, JsonSchema)] pub struct Order { id: String }
/// # #[derive(Serialize, Deserialize, JsonSchema)] pub struct Done { number: u32 }
/// # const PAY: Task<Order, Done> = Task::new("pay");
/// # const REFUND: Undo<Order, Done> = Undo::new("refund");
/// # fn checkout() -> Result<Workflow<Order, Done>, InvalidWorkflow> {
/// #     Workflow::build("checkout", 1, |saga, order: Ref<Order>| {
/// #         saga.step("payment", PAY, &order).compensate(REFUND)
/// #     })
/// # }
/// # fn main() -> Result<(), InvalidWorkflow> {
/// rehearse(&checkout()?, Bounds { faults: 2, traces: 2_000 }).assert_closes();
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn rehearse<In, Out>(workflow: &Workflow<In, Out>, bounds: Bounds) -> Rehearsal {
    backstitch_saga::rehearse::rehearse(workflow.graph(), bounds)
}

/// A workflow with its handlers and the faults to inject. Each run begins with all of them.
pub struct TestKit<In, Out> {
    workflow: Workflow<In, Out>,
    handlers: Handlers,
    faults: Vec<Fault>,
    patience: Span,
    children: Vec<Cast>,
    codec: MaybeCodec,
    runs: AtomicU64,
}

impl<In: Serialize, Out> TestKit<In, Out> {
    /// Returns a kit for `workflow`, without handlers. A task without a handler stays on offer, as it would on a
    /// server.
    #[must_use]
    pub fn new(workflow: &Workflow<In, Out>) -> TestKit<In, Out> {
        TestKit {
            workflow: workflow.clone(),
            handlers: Handlers::new(),
            faults: Vec::new(),
            patience: Span::days(1),
            children: Vec::new(),
            codec: MaybeCodec::default(),
            runs: AtomicU64::new(0),
        }
    }

    registers_handlers!();

    /// Injects a fault into every run. If several fit, the first one given that is not used up
    /// strikes.
    ///
    /// # Panics
    /// When it could never strike: the workflow has no such step, or the step no such task.
    #[must_use]
    #[track_caller]
    pub fn fault(mut self, fault: Fault) -> Self {
        names::check(self.workflow.graph(), &fault);
        self.faults.push(fault);
        self
    }

    /// Steps that are runs of `kit`'s workflow are run with its handlers, its faults and the kits of its own children,
    /// and undone with this run. Without a kit for its workflow such a step waits for [`TestRun::child_succeeds`] or
    /// [`TestRun::child_fails`]. [`TestRun::child`] shows the run.
    #[must_use]
    pub fn child<A, B>(mut self, kit: TestKit<A, B>) -> Self {
        let TestKit { workflow, handlers, faults, patience, children, codec, .. } = kit;
        let graph = Arc::clone(workflow.graph());
        self.children.push(Cast { graph, handlers, faults, patience, children, codec });
        self
    }

    /// Lets documents go through `codec` as those of a client and a worker do: the run sees what the server would see,
    /// the handlers what they are.
    #[must_use]
    pub fn codec(mut self, codec: impl Codec) -> Self {
        self.codec = MaybeCodec::of(codec);
        self
    }

    /// Sets how far [`TestRun::until_idle`] may advance time for retries and timeouts; one day by
    /// default.
    #[must_use]
    pub fn patience(mut self, span: Span) -> Self {
        self.patience = span;
        self
    }

    /// Starts a run and does everything that needs no action of the test.
    pub async fn run(&self, input: &In) -> TestRun<Out> {
        let mut run = self.start(input);
        run.until_idle().await;
        run
    }

    /// Starts a run, and does nothing of it yet.
    ///
    /// # Panics
    /// When the input has no JSON, or the codec cannot encode it.
    #[must_use]
    pub fn start(&self, input: &In) -> TestRun<Out> {
        let input = Payload::of(input).expect("the input of a run has a JSON form");
        let context = || codec::of_start(self.workflow.name(), Some("test"));
        let input = self.codec.encode(input, context).expect("the codec encodes the input");
        // The run's id decides retry jitter and effect keys; counted, a test is the same each time.
        let number = u128::from(self.runs.fetch_add(1, Ordering::Relaxed));
        let id = RunId(Uuid::from_u128(0x019b_7661_2c00_7000_8000_0000_0000_0000 + number));
        TestRun::start(id, self.cast(), input, run::BEGIN, None)
    }
}

impl<In, Out> TestKit<In, Out> {
    fn cast(&self) -> Cast {
        Cast {
            graph: Arc::clone(self.workflow.graph()),
            handlers: self.handlers.clone(),
            faults: self.faults.clone(),
            patience: self.patience,
            children: self.children.clone(),
            codec: self.codec.clone(),
        }
    }
}

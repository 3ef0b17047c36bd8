//! Steps without a worker, while a workflow is being built: signals, sleep, and child runs.

use std::rc::Rc;

use backstitch_saga::{
    Child, Fail, OnFailure, OnKill, OnPause, Payload, Sleep, Span, Timestamp, Violation, Wait,
};
use schemars::JsonSchema;
use schemars::generate::Contract;

use crate::schema;
use crate::signal::{Names, Signal};
use crate::step::Step;
use crate::wire::{Gives, Ref};
use crate::workflow::{Saga, Workflow, empty_step};

impl Saga {
    /// Adds a step that waits for a signal, or for the first of several ([`Signal::first_of`]). Its output is the
    /// signal's data, which must satisfy the schema of `T`; of several it is what was [`Received`](crate::Received).
    ///
    /// ```
    /// use backstitch_sdk::{InvalidWorkflow, Ref, Signal, Span, Task, Undo, Workflow, field};
    /// use schemars::JsonSchema;
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Serialize, Deserialize, JsonSchema)]
    /// pub struct Order { id: String, boss: String }
    /// #[derive(Serialize, Deserialize, JsonSchema)]
    /// pub struct Decision { approved: bool }
    ///
    /// pub const CHARGE: Task<Order, String> = Task::new("charge");
    /// pub const REFUND: Undo<Order, String> = Undo::new("refund");
    ///
    /// pub fn order() -> Result<Workflow<Order, String>, InvalidWorkflow> {
    ///     Workflow::build("order", 1, |saga, order: Ref<Order>| {
    ///         let signal = Signal::<Decision>::new("approval").timeout(Span::days(3));
    ///         let decision = saga.wait("approve", signal.assignee(field!(order.boss)));
    ///         let rest = saga.sleep("cool-off", Span::secs(3_600)).after(&decision);
    ///         let payment = saga.step("payment", CHARGE, &order).compensate(REFUND);
    ///         payment.after(&rest).when(field!(decision.approved))
    ///     })
    /// }
    /// # let workflow = order().expect("it is sound");
    /// # assert_eq!(workflow.definition().steps.len(), 3);
    /// ```
    pub fn wait<T: JsonSchema, Out>(&self, id: &str, signal: Signal<T, Out>) -> Step<(), Out> {
        let index = self.steps();
        let at = format!("/steps/{index}/wait");
        let default = signal.default.map(|value| self.place(value, &format!("{at}/default")));
        let assignee = signal.assignee.map(|who| self.place(who, &format!("{at}/assignee")));
        let schema = Payload::of(&schema::of::<T>(&Contract::Deserialize));
        let schema = schema.map_err(|error| {
            self.wrong(Violation::new(format!("{at}/schema"), "schema", error.to_string()));
        });
        for fault in signal.faults {
            self.wrong(Violation::new(format!("{at}/signals"), "schema", fault));
        }
        let (one, signals) = match signal.names {
            Names::One(name) => (name, Vec::new()),
            Names::FirstOf(signals) => (String::new(), signals),
        };
        let wait = Wait {
            signal: one,
            signals,
            timeout: signal.timeout,
            default,
            on_failure: signal.on_failure,
            schema: schema.ok(),
            assignee,
            title: signal.title,
        };
        self.add(backstitch_saga::Step { wait: Some(wait), ..empty_step(id) });
        self.added(id, index)
    }

    /// Adds a step that sleeps.
    pub fn sleep(&self, id: &str, span: Span) -> Step<(), ()> {
        let index = self.steps();
        let sleep = Sleep { span: Some(span), until: None };
        self.add(backstitch_saga::Step { sleep: Some(sleep), ..empty_step(id) });
        self.added(id, index)
    }

    /// Adds a step that sleeps until an instant; an instant in the past is no wait.
    pub fn sleep_until(&self, id: &str, instant: impl Gives<Timestamp>) -> Step<(), ()> {
        let index = self.steps();
        let until = self.place(instant.wire(), &format!("/steps/{index}/sleep/until"));
        let sleep = Sleep { span: None, until: Some(until) };
        self.add(backstitch_saga::Step { sleep: Some(sleep), ..empty_step(id) });
        self.added(id, index)
    }

    /// Adds a step that fails the run on purpose, so that it is undone: the response to a decision, without a worker.
    /// Call [`Step::when`], or every run fails.
    ///
    /// ```
    /// use backstitch_sdk::{InvalidWorkflow, Ref, Signal, Task, Undo, Workflow, field};
    /// use schemars::JsonSchema;
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Serialize, Deserialize, JsonSchema)]
    /// pub struct Order { id: String }
    /// #[derive(Serialize, Deserialize, JsonSchema)]
    /// pub struct Decision { approved: bool }
    ///
    /// pub const RESERVE: Task<Order, String> = Task::new("reserve");
    /// pub const RELEASE: Undo<Order, String> = Undo::new("release");
    /// pub const CHARGE: Task<Order, String> = Task::new("charge");
    ///
    /// pub fn order() -> Result<Workflow<Order, String>, InvalidWorkflow> {
    ///     Workflow::build("order", 1, |saga, order: Ref<Order>| {
    ///         let stock = saga.step("stock", RESERVE, &order).compensate(RELEASE);
    ///         let decision = saga.wait("approve", Signal::<Decision>::new("approval")).after(&stock);
    ///         let rejected = saga
    ///             .fail("rejected", "not_approved", "the order was not approved")
    ///             .details::<bool>(field!(decision.approved))
    ///             .when(!field!(decision.approved));
    ///         saga.step("payment", CHARGE, &order).after(&rejected)
    ///     })
    /// }
    /// # let workflow = order().expect("it is sound");
    /// # assert_eq!(workflow.definition().steps.len(), 4);
    /// ```
    pub fn fail(&self, id: &str, code: &str, message: &str) -> Step<(), ()> {
        let index = self.steps();
        let fail = Fail { code: code.to_owned(), message: message.to_owned(), details: None };
        self.add(backstitch_saga::Step { fail: Some(fail), ..empty_step(id) });
        self.added(id, index)
    }

    /// Adds a step that runs another workflow, in the given version. Undoing the step undoes the run.
    pub fn child<In, Out>(
        &self,
        id: &str,
        workflow: &Workflow<In, Out>,
        input: impl Gives<In>,
    ) -> Step<In, Out> {
        self.child_of(id, workflow.name(), Some(workflow.version()), input)
    }

    /// Adds a step that runs a workflow by its name: one that is built elsewhere, or this one itself. It runs in the
    /// newest version at that time; the caller vouches that it takes an `In` and gives an `Out`.
    pub fn child_named<In, Out>(
        &self,
        id: &str,
        workflow: &str,
        input: impl Gives<In>,
    ) -> Step<In, Out> {
        self.child_of(id, workflow, None, input)
    }

    fn child_of<In, Out>(
        &self,
        id: &str,
        workflow: &str,
        version: Option<u32>,
        input: impl Gives<In>,
    ) -> Step<In, Out> {
        let index = self.steps();
        let input = self.place(input.wire(), &format!("/steps/{index}/child/input"));
        let child = Child {
            workflow: workflow.to_owned(),
            version,
            input,
            on_failure: OnFailure::default(),
            on_kill: OnKill::default(),
            on_pause: OnPause::default(),
        };
        self.add(backstitch_saga::Step { child: Some(child), ..empty_step(id) });
        self.added(id, index)
    }

    fn steps(&self) -> usize {
        self.draft().borrow().definition.steps.len()
    }

    fn place<T>(&self, wiring: Ref<T>, pointer: &str) -> backstitch_saga::Expr {
        self.draft().borrow_mut().place(wiring, pointer)
    }

    fn wrong(&self, violation: Violation) {
        self.draft().borrow_mut().violations.push(violation);
    }

    fn added<In, Out>(&self, id: &str, index: usize) -> Step<In, Out> {
        let output = Ref::path(format!("/steps/{id}"), Contract::Serialize);
        Step::new(Rc::clone(self.draft()), index, output)
    }
}

//! Steps while a workflow is being built: their compensations, conditions and retries.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Deref;
use std::rc::Rc;

use backstitch_saga::{
    Child, Class, Compensate, Definition, Empty, Join, Losers, Map, OnFailure, OnKill, OnPause,
    OnUnknown, Retry, Span, Task, Timeouts, Verify, Violation,
};

use schemars::JsonSchema;
use schemars::generate::Contract;

use crate::handle::{Probe, Undo};
use crate::wire::{Condition, Gives, Ref};
use crate::workflow::schema_of;

/// The definition as far as it has been written.
pub(crate) struct Draft {
    pub(crate) definition: Definition,
    pub(crate) violations: Vec<Violation>,
}

impl Draft {
    /// Takes wiring into the definition at `pointer`.
    pub(crate) fn place<T>(&mut self, wiring: Ref<T>, pointer: &str) -> backstitch_saga::Expr {
        let (expr, faults) = wiring.finish();
        self.violations
            .extend(faults.into_iter().map(|fault| Violation::new(pointer, "wiring", fault)));
        expr
    }
}

/// Marks a step of one task.
pub struct One;

/// Marks a step of one task for each item of a list.
pub struct Many;

/// A step, as its place in the definition. It is a [`Ref`] to its output, so that later steps can use its
/// fields; its methods set how it is done and undone.
///
/// What needs the output of a step that was skipped is skipped too; [`Ref::maybe`] makes it optional instead.
#[must_use = "a step stays in the saga; bind it with `let _ =` when nothing refers to it"]
pub struct Step<In, Out, Kind = One>
where
    Kind: Shape<Out>,
{
    pub(crate) draft: Rc<RefCell<Draft>>,
    pub(crate) index: usize,
    output: Ref<Kind::Value>,
    types: PhantomData<fn(In) -> Out>,
}

/// A step of one task for each item of a list; a [`Ref`] to the list of outputs, in the order of the items.
pub type MapStep<In, Out> = Step<In, Out, Many>;

/// The output of a step as a whole when its task gives an `Out`.
pub trait Shape<Out> {
    /// The step's output.
    type Value;
}

impl<Out> Shape<Out> for One {
    type Value = Out;
}

impl<Out> Shape<Out> for Many {
    type Value = Vec<Out>;
}

impl Step<(), ()> {
    /// Sets the cause of the failure of [`Saga::fail`](crate::Saga::fail), such as a decision: the details of its
    /// error.
    pub fn details<T>(self, details: impl Gives<T>) -> Self {
        let pointer = format!("/steps/{}/fail/details", self.index);
        let details = self.draft.borrow_mut().place(details.wire(), &pointer);
        let mut misplaced = false;
        let step = self.step(|step| match &mut step.fail {
            Some(fail) => fail.details = Some(details),
            None => misplaced = true,
        });
        if misplaced {
            let message = "only a step that fails on purpose has details";
            let violation = Violation::new(format!("/steps/{}", step.index), "not_a_fail", message);
            step.draft.borrow_mut().violations.push(violation);
        }
        step
    }
}

impl<In, Out, Kind: Shape<Out>> Step<In, Out, Kind> {
    pub(crate) fn new(
        draft: Rc<RefCell<Draft>>,
        index: usize,
        output: Ref<Kind::Value>,
    ) -> Step<In, Out, Kind> {
        Step { draft, index, output, types: PhantomData }
    }

    pub(crate) fn step(self, change: impl FnOnce(&mut backstitch_saga::Step)) -> Self {
        if let Some(step) = self.draft.borrow_mut().definition.steps.get_mut(self.index) {
            change(step);
        }
        self
    }

    fn task(mut self, change: impl FnOnce(&mut Task)) -> Self {
        let mut misplaced = false;
        self = self.step(|step| {
            let mapped = step.map.as_mut().map(|map| &mut map.task);
            match step.task.as_mut().or(mapped) {
                Some(task) => change(task),
                None => misplaced = true,
            }
        });
        if misplaced {
            let message = "no worker does this step, so it has no retries, undo, class or timeouts";
            let violation = Violation::new(format!("/steps/{}", self.index), "not_a_task", message);
            self.draft.borrow_mut().violations.push(violation);
        }
        self
    }

    fn child(mut self, change: impl FnOnce(&mut Child)) -> Self {
        let mut misplaced = false;
        self = self.step(|step| match step.child.as_mut() {
            Some(child) => change(child),
            None => misplaced = true,
        });
        if misplaced {
            let message = "this step is no run of another workflow";
            let violation =
                Violation::new(format!("/steps/{}", self.index), "not_a_child", message);
            self.draft.borrow_mut().violations.push(violation);
        }
        self
    }

    /// Sets the fate of the child run when its parent is killed; by default it is killed as well.
    pub fn on_kill(self, policy: OnKill) -> Self {
        self.child(|child| child.on_kill = policy)
    }

    /// Sets the fate of the child run while its parent is paused; by default it is paused as well.
    pub fn on_pause(self, policy: OnPause) -> Self {
        self.child(|child| child.on_pause = policy)
    }

    /// Lets the step begin only after `other` has succeeded, beside the steps that its wiring
    /// names.
    pub fn after<A, B, K: Shape<B>>(self, other: &Step<A, B, K>) -> Self {
        let id = {
            let draft = self.draft.borrow();
            draft.definition.steps.get(other.index).map(|step| step.id.clone())
        };
        self.step(|step| step.after.extend(id))
    }

    /// Skips the step unless this holds when it is about to begin.
    pub fn when(self, condition: impl Gives<bool>) -> Self {
        let pointer = format!("/steps/{}/when", self.index);
        let condition: Condition = condition.wire();
        let guard = self.draft.borrow_mut().place(condition, &pointer);
        self.step(|step| step.when = Some(guard))
    }

    /// Sets the compensation of the step. It must be of the step's own types. It does not give up, see
    /// [`Step::undo_retry`].
    pub fn compensate(self, undo: Undo<In, Out>) -> Self {
        self.task(|task| {
            let queue = other_queue(undo.queue_name(), &task.queue);
            task.compensate = Some(Compensate { queue, ..Compensate::by(undo.name()) });
        })
    }

    /// Sets the retries of the compensation; with `max_attempts` it may give up, and then the run is blocked
    /// until a person decides. Call [`Step::compensate`] first.
    pub fn undo_retry(self, retry: Retry) -> Self {
        self.undo("undo_retry", |undo| undo.retry = retry)
    }

    /// Opens an incident at this failed attempt to undo, and goes on trying; 3 by default. Call
    /// [`Step::compensate`] first.
    pub fn alert_after(self, attempts: u32) -> Self {
        self.undo("alert_after", |undo| undo.alert_after = attempts)
    }

    /// Opens that incident also when the undo has taken this time, after any number of attempts; 15 minutes by
    /// default. Call [`Step::compensate`] first.
    pub fn slow_after(self, span: Span) -> Self {
        self.undo("slow_after", |undo| undo.slow_after = span)
    }

    fn undo(self, method: &str, change: impl FnOnce(&mut Compensate)) -> Self {
        let mut found = false;
        let step = self.task(|task| {
            if let Some(undo) = &mut task.compensate {
                found = true;
                change(undo);
            }
        });
        if !found {
            let violation = Violation::new(
                format!("/steps/{}", step.index),
                "no_compensation",
                format!("`{method}` needs a compensation; say `compensate` before it"),
            );
            step.draft.borrow_mut().violations.push(violation);
        }
        step
    }

    /// Sets the probe that finds out whether an attempt in doubt happened; it is run in place of a
    /// retry.
    pub fn verify(self, probe: Probe<In, Out>) -> Self {
        self.task(|task| {
            task.verify = Some(Verify {
                name: probe.name().to_owned(),
                queue: other_queue(probe.queue_name(), &task.queue),
                retry: Retry::default(),
            });
            task.on_unknown = OnUnknown::Verify;
        })
    }

    /// Sets the retries of the probe; when it gives up, the step stays unknown. Call
    /// [`Step::verify`] first.
    pub fn verify_retry(self, retry: Retry) -> Self {
        let mut found = false;
        let step = self.task(|task| {
            if let Some(verify) = &mut task.verify {
                found = true;
                verify.retry = retry;
            }
        });
        if !found {
            let message = "`verify_retry` needs a probe; say `verify` before it";
            let violation = Violation::new(format!("/steps/{}", step.index), "no_probe", message);
            step.draft.borrow_mut().violations.push(violation);
        }
        step
    }

    /// Sets the number of workers that may be lost during it, without a heartbeat, before it is parked as poison;
    /// 3 by default.
    pub fn max_losses(self, workers: u32) -> Self {
        self.task(|task| task.max_losses = workers)
    }

    /// Sets the action on an attempt that may have happened; by default it is retried with the same
    /// effect key.
    pub fn on_unknown(self, policy: OnUnknown) -> Self {
        self.task(|task| task.on_unknown = policy)
    }

    /// Allows its handlers to complete and undo it in transactions of their own on the server's database:
    /// see [`TaskContext::completion`](crate::TaskContext::completion).
    pub fn transactional(self) -> Self {
        self.task(|task| task.transactional = true)
    }

    /// Checks an input that a person gives it: its handler must be able to read it.
    pub fn checked(self) -> Self
    where
        In: JsonSchema,
    {
        let pointer = format!("/steps/{}/task/input_schema", self.index);
        let mut violations = Vec::new();
        let schema = schema_of::<In>(&Contract::Deserialize, &pointer, &mut violations);
        self.draft.borrow_mut().violations.append(&mut violations);
        self.task(|task| task.input_schema = schema)
    }

    /// Checks the output of its handler: it must be of the type of the step. Otherwise the attempt ends with
    /// `invalid_output`: the work is done, so it is not retried.
    pub fn checked_output(self) -> Self
    where
        Out: JsonSchema,
    {
        let pointer = format!("/steps/{}/task/output_schema", self.index);
        let mut violations = Vec::new();
        let schema = schema_of::<Out>(&Contract::Serialize, &pointer, &mut violations);
        self.draft.borrow_mut().violations.append(&mut violations);
        self.task(|task| task.output_schema = schema)
    }

    /// Sets the meaning of a failure for good, also that of a wait or of a child run; by default the run is undone.
    pub fn on_failure(self, policy: OnFailure) -> Self {
        let mut done = false;
        let step = self.step(|step| {
            let of_wait = step.wait.as_mut().map(|wait| &mut wait.on_failure);
            let of_child = step.child.as_mut().map(|child| &mut child.on_failure);
            if let Some(current) = of_wait.or(of_child) {
                (*current, done) = (policy, true);
            }
        });
        if done { step } else { step.task(|task| task.on_failure = policy) }
    }

    /// Sets the number and delays of retries; by default ten attempts, with delays from one second
    /// to five minutes.
    pub fn retry(self, retry: Retry) -> Self {
        self.task(|task| task.retry = retry)
    }

    /// Sets the time limits.
    pub fn timeouts(self, timeouts: Timeouts) -> Self {
        self.task(|task| task.timeouts = timeouts)
    }

    /// Makes the step the point of no return: once it succeeded, nothing is undone automatically.
    pub fn pivot(self) -> Self {
        self.class(Class::Pivot)
    }

    /// Declares that there is nothing to undo.
    pub fn read_only(self) -> Self {
        self.class(Class::ReadOnly)
    }

    /// Retries the step until it succeeds, without a limit unless [`Step::retry`] is called after this;
    /// it is never undone.
    pub fn retriable(self) -> Self {
        self.task(|task| task.retry = Retry { max_attempts: None, ..task.retry.clone() })
            .class(Class::Retriable)
    }

    /// Sets its class explicitly. [`Step::compensate`] makes a step compensatable; [`Step::pivot`],
    /// [`Step::retriable`] and [`Step::read_only`] set the other classes.
    pub fn class(self, class: Class) -> Self {
        self.task(|task| task.class = Some(class))
    }
}

impl<In, Out> Step<In, Out, Many> {
    fn map(self, change: impl FnOnce(&mut Map)) -> Self {
        self.step(|step| {
            if let Some(map) = &mut step.map {
                change(map);
            }
        })
    }

    /// Sets the condition on which the fan-out as a whole succeeds; by default, when all items
    /// have.
    pub fn join(self, join: Join) -> Self {
        self.map(|map| map.join = join)
    }

    /// Sets the meaning of an empty list.
    pub fn empty(self, empty: Empty) -> Self {
        self.map(|map| map.empty = Some(empty))
    }

    /// Sets the largest number of items in flight at the same time; 1,000 by default.
    pub fn max_concurrency(self, items: u32) -> Self {
        self.map(|map| map.max_concurrency = items)
    }

    /// Sets the fate of items still in flight when the join has fired with success; by default they may
    /// finish.
    pub fn losers(self, losers: Losers) -> Self {
        self.map(|map| map.losers = losers)
    }
}

/// Returns the queue if it is not the step's own.
fn other_queue(queue: &str, of_step: &str) -> Option<String> {
    (queue != of_step).then(|| queue.to_owned())
}

impl<In, Out, Kind: Shape<Out>> Deref for Step<In, Out, Kind> {
    type Target = Ref<Kind::Value>;

    fn deref(&self) -> &Ref<Kind::Value> {
        &self.output
    }
}

macro_rules! gives_output {
    ($($step:ty => $value:ty),*) => {
        $(#[diagnostic::do_not_recommend]
        impl<In, Out> Gives<$value> for $step {
            fn wire(self) -> Ref<$value> {
                Gives::wire(&self.output)
            }
        })*
    };
}

gives_output! {
    Step<In, Out> => Out,
    &Step<In, Out> => Out,
    Step<In, Out> => Option<Out>,
    &Step<In, Out> => Option<Out>,
    MapStep<In, Out> => Vec<Out>,
    &MapStep<In, Out> => Vec<Out>
}

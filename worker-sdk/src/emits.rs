//! Events that steps emit, while a workflow is being built.

use backstitch_saga::protocol::EventOp;
use backstitch_saga::{Emit, Expr, Milestone, Release, Retraction, Violation};

use schemars::generate::Contract;

use crate::step::{MapStep, Shape, Step};
use crate::wire::{Gives, Ref};
use crate::workflow::Saga;

/// An event of the log that a step emits once it has succeeded: see [`Step::emits`].
///
/// Without anything else its data are the output of the step, and others see it when the run has succeeded.
#[must_use = "it is given to `Step::emits`"]
pub struct Emits {
    emit: Emit,
    faults: Vec<(&'static str, String)>,
}

impl Emits {
    /// Returns an event of this type, such as `order.placed`.
    pub fn of(event_type: impl Into<String>) -> Emits {
        Emits { emit: Emit::of(event_type), faults: Vec::new() }
    }

    fn place<T>(&mut self, place: &'static str, wiring: Ref<T>) -> Expr {
        let (expr, faults) = wiring.finish();
        self.faults.extend(faults.into_iter().map(|fault| (place, fault)));
        expr
    }

    /// Makes the event one about the stream `ENTITY:ID`, such as `order:10248`.
    pub fn about(mut self, entity: impl Into<String>, id: impl Gives<String>) -> Self {
        let expr = self.place("/stream", id.wire());
        (self.emit.entity, self.emit.stream) = (Some(entity.into()), Some(expr));
        self
    }

    /// Makes the event one about this stream.
    pub fn stream(mut self, stream: impl Gives<String>) -> Self {
        let expr = self.place("/stream", stream.wire());
        self.emit.stream = Some(expr);
        self
    }

    /// Sets the operation on the entity of the stream.
    pub fn op(mut self, op: EventOp) -> Self {
        self.emit.op = Some(op);
        self
    }

    /// Sets the contract that the data follows, such as `order@2`.
    pub fn contract(mut self, contract: impl Into<String>) -> Self {
        self.emit.contract = Some(contract.into());
        self
    }

    /// Sets the data; the output of the step without it.
    pub fn data<T>(mut self, data: impl Gives<T>) -> Self {
        let expr = self.place("/data", data.wire());
        self.emit.data = Some(expr);
        self
    }

    /// Sets the time of the release to readers; by default, when the run has succeeded.
    pub fn release(mut self, release: Release) -> Self {
        self.emit.release = release;
        self
    }

    /// Sets the type of the event that takes it back, written with the undoing of the step.
    pub fn retract(mut self, event_type: impl Into<String>) -> Self {
        self.emit.retract = Some(Retraction::of(event_type));
        self
    }

    /// Sets the operation of the retracting event on the entity of the stream. Say [`Emits::retract`]
    /// first.
    pub fn retract_op(mut self, op: EventOp) -> Self {
        match &mut self.emit.retract {
            Some(retract) => retract.op = Some(op),
            None => self.faults.push(("", "`retract_op` needs `retract` before it".to_owned())),
        }
        self
    }

    /// Sets the data of the event that takes it back; the output of the step without it. Say [`Emits::retract`] first.
    pub fn retract_data<T>(mut self, data: impl Gives<T>) -> Self {
        let expr = self.place("/retract/data", data.wire());
        match &mut self.emit.retract {
            Some(retract) => retract.data = Some(expr),
            None => self.faults.push(("", "`retract_data` needs `retract` before it".to_owned())),
        }
        self
    }
}

impl<In, Out> Step<In, Out> {
    /// Emits an event of the log once it has succeeded, written with that success. It may be wired to the output of the
    /// step itself:
    ///
    /// ```
    /// # use backstitch_sdk::{Emits, Release, Task, Undo, Workflow, field};
    /// # #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
    /// # struct Order { id: String }
    /// # #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
    /// # struct Paid { charge: String }
    /// const PAY: Task<Order, Paid> = Task::new("pay");
    /// const REFUND: Undo<Order, Paid> = Undo::new("refund");
    ///
    /// let workflow = Workflow::<Order, Paid>::build("order", 1, |saga, order| {
    ///     saga.step("pay", PAY, &order).compensate(REFUND).emits(|paid| {
    ///         Emits::of("order.paid")
    ///             .about("order", field!(order.id))
    ///             .data::<String>(field!(paid.charge))
    ///             .release(Release::AtOnce)
    ///             .retract("order.refunded")
    ///     })
    /// });
    /// assert!(workflow.is_ok());
    /// ```
    pub fn emits(self, event: impl FnOnce(&Ref<Out>) -> Emits) -> Self {
        self.emitting(event)
    }
}

impl<In, Out> MapStep<In, Out> {
    /// Emits an event of the log for each item that has succeeded, released [at once](Release::AtOnce). It may be wired
    /// to the output of the item.
    pub fn emits(self, event: impl FnOnce(&Ref<Out>) -> Emits) -> Self {
        self.emitting(event)
    }
}

impl<In, Out, Kind: Shape<Out>> Step<In, Out, Kind> {
    fn emitting(self, event: impl FnOnce(&Ref<Out>) -> Emits) -> Self {
        let id = self.draft.borrow().definition.steps.get(self.index).map(|step| step.id.clone());
        let own = Ref::path(format!("/steps/{}", id.unwrap_or_default()), Contract::Serialize);
        let Emits { emit, faults } = event(&own);
        let mut place = String::new();
        let step = self.step(|step| {
            place = format!("/emits/{}", step.emits.len());
            step.emits.push(emit);
        });
        let violations = faults.into_iter().map(|(at, fault)| {
            Violation::new(format!("/steps/{}{place}{at}", step.index), "wiring", fault)
        });
        step.draft.borrow_mut().violations.extend(violations);
        step
    }
}

impl Saga {
    /// Sets the changes of its runs that become events of the log.
    pub fn milestones(&self, milestones: impl IntoIterator<Item = Milestone>) {
        self.draft.borrow_mut().definition.milestones.extend(milestones);
    }
}

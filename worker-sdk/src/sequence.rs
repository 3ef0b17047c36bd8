//! Sequence across runs, while a workflow is being built: serial keys, and facts that runs wait for and establish.

use backstitch_saga::Span;
use backstitch_saga::protocol::{FactOn, OnConflict, OnWithdrawn, Sequence};

use crate::wire::Gives;
use crate::workflow::Saga;

impl Saga {
    /// Lets at most one run move for each `key`, across all workflows that name it; `on_conflict` says what a start
    /// does when another run has it. `key` is made of the input.
    ///
    /// ```
    /// # use backstitch_sdk::protocol::{OnConflict, OnWithdrawn};
    /// # use backstitch_sdk::{InvalidWorkflow, Ref, Span, Task, Undo, Workflow, field};
    /// # #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
    /// # pub struct Order { id: String, customer: String }
    /// # pub const PAY: Task<Order, ()> = Task::new("pay");
    /// # pub fn order() -> Result<Workflow<Order, ()>, InvalidWorkflow> {
    /// Workflow::build("order", 1, |saga, order: Ref<Order>| {
    ///     saga.serial_key(field!(order.customer), OnConflict::Queue);
    ///     saga.requires("customer.created", field!(order.customer), OnWithdrawn::Incident);
    ///     saga.requires_within(Span::hours(2));
    ///     saga.produces("order.placed", field!(order.id));
    ///     saga.step("pay", PAY, &order).pivot()
    /// })
    /// # }
    /// # order().expect("it is sound");
    /// ```
    pub fn serial_key(&self, key: impl Gives<String>, on_conflict: OnConflict) {
        let key = self.draft().borrow_mut().place(key.wire(), "/sequence/serial_key");
        self.sequence(|sequence| {
            sequence.serial_key = Some(key);
            sequence.on_conflict = on_conflict;
        });
    }

    /// Lets a run begin only when `fact` is established about `on`; it uses no attempt before. `on_withdrawn` is the
    /// policy for a run that has begun when the fact is withdrawn. With several requirements, all must be
    /// established.
    pub fn requires(&self, fact: &str, on: impl Gives<String>, on_withdrawn: OnWithdrawn) {
        self.fact("requires", fact, on, Some(on_withdrawn));
    }

    /// Sets the time that a run waits for its requirements before an incident opens; 24 hours by
    /// default.
    pub fn requires_within(&self, span: Span) {
        self.sequence(|sequence| sequence.requires_within = Some(span));
    }

    /// Establishes `fact` about `on` when a run has succeeded.
    pub fn produces(&self, fact: &str, on: impl Gives<String>) {
        self.fact("produces", fact, on, None);
    }

    fn fact(
        &self,
        list: &str,
        fact: &str,
        on: impl Gives<String>,
        on_withdrawn: Option<OnWithdrawn>,
    ) {
        let mut draft = self.draft().borrow_mut();
        let sequence = draft.definition.sequence.get_or_insert_default();
        let facts = if list == "requires" { &sequence.requires } else { &sequence.produces };
        let pointer = format!("/sequence/{list}/{}/on", facts.len());
        let on = draft.place(on.wire(), &pointer);
        let fact = FactOn { fact: fact.to_owned(), on, on_withdrawn };
        let sequence = draft.definition.sequence.get_or_insert_default();
        let facts =
            if list == "requires" { &mut sequence.requires } else { &mut sequence.produces };
        facts.push(fact);
    }

    fn sequence(&self, change: impl FnOnce(&mut Sequence)) {
        change(self.draft().borrow_mut().definition.sequence.get_or_insert_default());
    }
}

//! Workflows written in Rust: a function writes the steps once, and the result is the definition as data.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use backstitch_saga::protocol::{ScheduleSpec, Warning};
use backstitch_saga::{
    Definition, Graph, Join, Map, OnFailure, OnTimeout, OnUnknown, Payload, Retry, Span, Timeouts,
    Violation,
};
use schemars::JsonSchema;
use schemars::generate::Contract;
use serde::Serialize;

use crate::handle::Task;
use crate::schema;
use crate::step::{Draft, MapStep, Step};
use crate::wire::{Gives, Item, Ref};

/// A checked workflow that takes an `In` and gives an `Out`. Cheap to clone.
pub struct Workflow<In, Out> {
    graph: Arc<Graph>,
    types: PhantomData<fn(In) -> Out>,
}

/// An invalid workflow, with all mistakes in it.
#[derive(Clone, PartialEq, Eq)]
pub struct InvalidWorkflow {
    /// The workflow's name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// Mistakes, with JSON Pointers into the definition.
    pub violations: Vec<Violation>,
}

impl fmt::Display for InvalidWorkflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the workflow {} version {} is not sound:", self.name, self.version)?;
        self.violations.iter().try_for_each(|violation| write!(f, "\n  {violation}"))
    }
}

/// The sentences that [`fmt::Display`] writes: a `main` that returns the error prints them so.
impl fmt::Debug for InvalidWorkflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for InvalidWorkflow {}

impl<In: JsonSchema, Out: JsonSchema> Workflow<In, Out> {
    /// Builds a workflow: `write` gets the saga to write steps into and the run's input, and returns the wiring of
    /// the output.
    ///
    /// ```
    /// use backstitch_sdk::{InvalidWorkflow, Ref, Task, Undo, Workflow, field, wire};
    /// use schemars::JsonSchema;
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Serialize, Deserialize, JsonSchema)]
    /// pub struct Order { id: String, amount: u64 }
    /// #[derive(Serialize, Deserialize, JsonSchema)]
    /// pub struct Payment { authorization: String }
    /// #[derive(Serialize, Deserialize, JsonSchema)]
    /// pub struct Receipt { order: String, authorization: String }
    ///
    /// pub const CHARGE_CARD: Task<Order, Payment> = Task::new("charge_card").queue("payments");
    /// pub const REFUND_CARD: Undo<Order, Payment> = Undo::new("refund_card").queue("payments");
    ///
    /// pub fn checkout() -> Result<Workflow<Order, Receipt>, InvalidWorkflow> {
    ///     Workflow::build("checkout", 1, |saga, order: Ref<Order>| {
    ///         let payment = saga.step("payment", CHARGE_CARD, &order).compensate(REFUND_CARD);
    ///         wire!(Receipt { order: field!(order.id), authorization: field!(payment.authorization) })
    ///     })
    /// }
    /// # let workflow = checkout().expect("it is sound");
    /// # assert_eq!(workflow.definition().steps[0].id, "payment");
    /// ```
    ///
    /// # Errors
    /// [`InvalidWorkflow`] with everything that is wrong, by the same checks as the server's.
    pub fn build<W: Gives<Out>>(
        name: &str,
        version: u32,
        write: impl FnOnce(&Saga, Ref<In>) -> W,
    ) -> Result<Workflow<In, Out>, InvalidWorkflow> {
        let saga = Saga { draft: Rc::new(RefCell::new(Draft::new(name, version))) };
        let output = write(&saga, Ref::path("/input", Contract::Deserialize)).wire();
        let (mut definition, mut violations) = {
            let mut draft = saga.draft.borrow_mut();
            let output = draft.place(output, "/output");
            draft.definition.output = Some(output);
            (draft.definition.clone(), std::mem::take(&mut draft.violations))
        };
        definition.input_schema =
            schema_of::<In>(&Contract::Deserialize, "/input_schema", &mut violations);
        definition.output_schema =
            schema_of::<Out>(&Contract::Serialize, "/output_schema", &mut violations);
        let checked = Graph::check(definition).map_err(|more| violations.extend(more));
        match checked {
            Ok(graph) if violations.is_empty() => {
                Ok(Workflow { graph: Arc::new(graph), types: PhantomData })
            }
            _ => Err(InvalidWorkflow { name: name.to_owned(), version, violations }),
        }
    }
}

impl<In, Out> Workflow<In, Out> {
    /// Returns the definition, as it is registered.
    #[must_use]
    pub fn definition(&self) -> &Definition {
        &self.graph.definition
    }

    /// Returns the definition, checked and indexed.
    #[must_use]
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// Returns the workflow's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.definition().name
    }

    /// Returns the workflow's version.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.definition().version
    }

    /// Returns the parts of the definition that are valid but hardly intended, such as a sleep that is longer than the
    /// run may take. A server lists the same when it registers the workflow.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        self.graph.warnings()
    }

    /// Returns a schedule that starts runs of this version with `input` whenever the pattern `cron` is due; its methods
    /// say the rest. [`Client::put_schedule`](crate::Client::put_schedule) makes it.
    ///
    /// ```no_run
    /// # use backstitch_sdk::{Client, Workflow};
    /// # async fn shop(client: Client, close_books: Workflow<String, ()>) -> Result<(), Box<dyn std::error::Error>> {
    /// let nightly = close_books.schedule("30 2 * * *", &"all shops".to_owned())?;
    /// client.put_schedule("nightly", &nightly.time_zone("Europe/Berlin")).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the input has no JSON form.
    pub fn schedule(&self, cron: &str, input: &In) -> Result<ScheduleSpec, serde_json::Error>
    where
        In: Serialize,
    {
        ScheduleSpec::new(self.name(), cron).version(self.version()).input(input)
    }

    /// Returns the definition as JSON, indented for people.
    ///
    /// # Panics
    /// Never: a definition that was checked has a JSON form.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self.definition()).expect("a checked definition is JSON")
    }
}

impl<In, Out> Clone for Workflow<In, Out> {
    fn clone(&self) -> Self {
        Workflow { graph: Arc::clone(&self.graph), types: PhantomData }
    }
}

impl<In, Out> fmt::Debug for Workflow<In, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Workflow({} {})", self.name(), self.version())
    }
}

/// Returns the JSON Schema of `T` as a payload.
pub(crate) fn schema_of<T: JsonSchema>(
    contract: &Contract,
    pointer: &str,
    violations: &mut Vec<Violation>,
) -> Option<Payload> {
    Payload::of(&schema::of::<T>(contract))
        .map_err(|error| violations.push(Violation::new(pointer, "schema", error.to_string())))
        .ok()
}

impl Draft {
    fn new(name: &str, version: u32) -> Draft {
        let definition = Definition {
            name: name.to_owned(),
            version,
            description: None,
            input_schema: None,
            output_schema: None,
            steps: Vec::new(),
            output: None,
            timeout: Span::days(7),
            on_timeout: OnTimeout::default(),
            compensable_for: Span::days(30),
            end_within: None,
            undo_budget: None,
            sequence: None,
            milestones: Vec::new(),
        };
        Draft { definition, violations: Vec::new() }
    }
}

/// A workflow while it is being written.
pub struct Saga {
    pub(crate) draft: Rc<RefCell<Draft>>,
}

impl Saga {
    /// Sets a description, one line for people.
    pub fn description(&self, text: &str) {
        self.draft.borrow_mut().definition.description = Some(text.to_owned());
    }

    /// Sets the longest time that the whole run may take, forward; 7 days by default.
    pub fn timeout(&self, span: Span) {
        self.draft.borrow_mut().definition.timeout = span;
    }

    /// Sets the action on a run that took longer; by default it is undone.
    pub fn on_timeout(&self, policy: OnTimeout) {
        self.draft.borrow_mut().definition.on_timeout = policy;
    }

    /// Sets the time after its end in which a run may still be compensated by hand; 30 days by
    /// default.
    pub fn compensable_for(&self, span: Span) {
        self.draft.borrow_mut().definition.compensable_for = span;
    }

    /// Sets the time after its beginning by which a run is to be over, its undo included, unless its
    /// start sets another.
    pub fn end_within(&self, span: Span) {
        self.draft.borrow_mut().definition.end_within = Some(span);
    }

    /// Sets the time reserved for undoing a run with a deadline; by default, the recent time of undoing its steps.
    pub fn undo_budget(&self, span: Span) {
        self.draft.borrow_mut().definition.undo_budget = Some(span);
    }

    /// Adds a step of one task. `input` is wired to what the task takes; the compiler checks that it fits.
    pub fn step<In, Out>(
        &self,
        id: &str,
        task: Task<In, Out>,
        input: impl Gives<In>,
    ) -> Step<In, Out> {
        let index = self.draft.borrow().definition.steps.len();
        let input = input.wire();
        let work = self.work(task, input, &format!("/steps/{index}/task/input"));
        self.add(backstitch_saga::Step { task: Some(work), ..empty_step(id) });
        Step::new(
            Rc::clone(&self.draft),
            index,
            Ref::path(format!("/steps/{id}"), Contract::Serialize),
        )
    }

    /// Adds a fan-out: one task for each item of a list. `input` returns the input of the task for an
    /// item.
    pub fn map<Element, In, Out, W: Gives<In>>(
        &self,
        id: &str,
        items: impl Gives<Vec<Element>>,
        task: Task<In, Out>,
        input: impl FnOnce(Item<Element>) -> W,
    ) -> MapStep<In, Out> {
        let index = self.draft.borrow().definition.steps.len();
        let items = items.wire();
        let item = items.item();
        let key = item.named();
        let input = input(item).wire();
        let work = self.work(task, input, &format!("/steps/{index}/map/task/input"));
        let items = self.draft.borrow_mut().place(items, &format!("/steps/{index}/map/items"));
        let key = key.borrow_mut().take();
        let key =
            key.map(|key| self.draft.borrow_mut().place(key, &format!("/steps/{index}/map/key")));
        let map = Map {
            items,
            key,
            task: work,
            join: Join::All,
            empty: None,
            max_concurrency: 1_000,
            losers: backstitch_saga::Losers::default(),
        };
        self.add(backstitch_saga::Step { map: Some(map), ..empty_step(id) });
        Step::new(
            Rc::clone(&self.draft),
            index,
            Ref::path(format!("/steps/{id}"), Contract::Serialize),
        )
    }

    fn work<In, Out>(
        &self,
        task: Task<In, Out>,
        input: Ref<In>,
        pointer: &str,
    ) -> backstitch_saga::Task {
        backstitch_saga::Task {
            name: task.name().to_owned(),
            queue: task.queue_name().to_owned(),
            input: self.draft.borrow_mut().place(input, pointer),
            input_schema: None,
            output_schema: None,
            class: None,
            compensate: None,
            verify: None,
            retry: Retry::default(),
            timeouts: Timeouts::default(),
            on_failure: OnFailure::default(),
            on_unknown: OnUnknown::default(),
            max_losses: 3,
            transactional: false,
        }
    }

    pub(crate) fn draft(&self) -> &Rc<RefCell<Draft>> {
        &self.draft
    }

    pub(crate) fn add(&self, step: backstitch_saga::Step) {
        self.draft.borrow_mut().definition.steps.push(step);
    }
}

pub(crate) fn empty_step(id: &str) -> backstitch_saga::Step {
    backstitch_saga::Step {
        id: id.to_owned(),
        after: Vec::new(),
        when: None,
        task: None,
        map: None,
        wait: None,
        sleep: None,
        child: None,
        fail: None,
        emits: Vec::new(),
    }
}

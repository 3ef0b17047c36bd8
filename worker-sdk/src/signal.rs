//! Signals that a step waits for, while a workflow is being built: one, or the first of several.

use std::marker::PhantomData;

use backstitch_saga::{OnFailure, OneSignal, Payload, Span};
use schemars::JsonSchema;
use schemars::generate::Contract;
use serde::{Deserialize, Serialize};

use crate::schema;
use crate::wire::{Condition, Gives, Ref};

/// A signal that a step waits for, whose data is a `T`: from another system, or a person's decision. The step gives an
/// `Out`: the data, or with [`Signal::first_of`] a [`Received`].
#[derive(Clone, Debug)]
pub struct Signal<T, Out = T> {
    pub(crate) names: Names,
    pub(crate) timeout: Option<Span>,
    pub(crate) default: Option<Ref<Out>>,
    pub(crate) on_failure: OnFailure,
    pub(crate) assignee: Option<Ref<String>>,
    pub(crate) title: Option<String>,
    /// Mistakes in it, reported when the workflow is built.
    pub(crate) faults: Vec<String>,
    types: PhantomData<fn() -> T>,
}

/// Names of the signals that end a wait.
#[derive(Clone, Debug)]
pub(crate) enum Names {
    One(String),
    FirstOf(Vec<OneSignal>),
}

/// The output of a wait for the first of several signals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Received<T> {
    /// The name of the signal that came.
    pub signal: String,
    /// Its data.
    pub data: T,
}

impl<T> Signal<T, T> {
    /// Returns the signal `name`.
    #[must_use]
    pub fn new(name: &str) -> Signal<T, T> {
        Signal::of(Names::One(name.to_owned()))
    }

    /// Returns a wait for the first of several signals; later ones have no effect. Their data is a `T`, except for
    /// those that [`Signal::or`] adds.
    ///
    /// ```
    /// # use backstitch_sdk::{InvalidWorkflow, Ref, Signal, Span, Task, Workflow, field};
    /// # use schemars::JsonSchema;
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize, JsonSchema)] pub struct Trip { id: String }
    /// #[derive(Serialize, Deserialize, JsonSchema)]
    /// pub struct Note { by: String }
    /// #[derive(Serialize, Deserialize, JsonSchema)]
    /// pub struct Withdrawal { reason: String }
    /// # pub const BOOK: Task<Trip, String> = Task::new("book");
    ///
    /// # pub fn trip() -> Result<Workflow<Trip, String>, InvalidWorkflow> {
    /// # Workflow::build("trip", 1, |saga, trip: Ref<Trip>| {
    /// let answers = Signal::<Note>::first_of(["approved", "rejected"]).or::<Withdrawal>("withdrawn");
    /// let answer = saga.wait("answer", answers.timeout(Span::days(3)));
    /// let withdrawn = saga
    ///     .fail("withdrawn", "withdrawn", "the traveller has withdrawn the request")
    ///     .details::<Withdrawal>(answer.data_as::<Withdrawal>())
    ///     .when(answer.is("withdrawn"));
    /// let booking = saga.step("book", BOOK, &trip).pivot();
    /// booking.after(&withdrawn).when(answer.is("approved"))
    /// # })
    /// # }
    /// # trip().expect("it is sound");
    /// ```
    #[must_use]
    pub fn first_of<Name: Into<String>>(
        names: impl IntoIterator<Item = Name>,
    ) -> Signal<T, Received<T>> {
        let one = |name: Name| OneSignal { signal: name.into(), schema: None };
        Signal::of(Names::FirstOf(names.into_iter().map(one).collect()))
    }
}

impl<T> Signal<T, Received<T>> {
    /// Adds a signal whose data is a `U`: [`Ref::data_as`] takes it from what was received.
    #[must_use]
    pub fn or<U: JsonSchema>(mut self, name: &str) -> Self {
        let schema = Payload::of(&schema::of::<U>(&Contract::Deserialize));
        let schema = schema.map_err(|error| self.faults.push(error.to_string())).ok();
        if let Names::FirstOf(signals) = &mut self.names {
            signals.push(OneSignal { signal: name.to_owned(), schema });
        }
        self
    }
}

impl<T, Out> Signal<T, Out> {
    fn of(names: Names) -> Signal<T, Out> {
        Signal {
            names,
            timeout: None,
            default: None,
            on_failure: OnFailure::default(),
            assignee: None,
            title: None,
            faults: Vec::new(),
            types: PhantomData,
        }
    }

    /// Sets the time that the step waits; then it fails with `signal_timeout`.
    #[must_use]
    pub fn timeout(self, span: Span) -> Self {
        Signal { timeout: Some(span), ..self }
    }

    /// Sets the output of the step if no signal came in time, in place of a failure. Needs a
    /// [`Signal::timeout`].
    #[must_use]
    pub fn default_to(self, value: impl Gives<Out>) -> Self {
        Signal { default: Some(value.wire()), ..self }
    }

    /// Sets the meaning of a signal that did not come in time; by default the run is undone.
    #[must_use]
    pub fn on_failure(self, policy: OnFailure) -> Self {
        Signal { on_failure: policy, ..self }
    }

    /// Sets the person who is to send it.
    #[must_use]
    pub fn assignee(self, who: impl Gives<String>) -> Self {
        Signal { assignee: Some(who.wire()), ..self }
    }

    /// Sets the decision to make, for people.
    #[must_use]
    pub fn title(self, text: &str) -> Self {
        Signal { title: Some(text.to_owned()), ..self }
    }
}

impl<T: JsonSchema> Ref<Received<T>> {
    /// Returns a condition that the signal `name` is the one that came.
    #[must_use]
    pub fn is(&self, name: &str) -> Condition {
        self.project(&["signal"], |received| &received.signal).eq(name)
    }

    /// Returns the data of a signal that [`Signal::or`] added. The caller vouches that it is a `U`: test [`Ref::is`]
    /// first.
    #[must_use]
    pub fn data_as<U>(&self) -> Ref<U> {
        self.at("/data")
    }
}

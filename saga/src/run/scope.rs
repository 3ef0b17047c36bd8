//! The data of a run that expressions can refer to, and the use of their values.

use super::Run;
use super::decide::{TransitionBuilder, own_failure};
use super::state::{Activity, WorkIndex};
use crate::envelope::VALUE_ENCRYPTED;
use crate::expr::{Bounds, Evaluation, Memo};
use crate::protocol::Failure;
use crate::{Bindings, Cause, EvalError, Event, Expr, Gathered, Payload, Source, Span};

/// After this long the check of an output is asked for again.
const CHECK_AGAIN: Span = Span::secs(5);

/// A run as an expression sees it, perhaps from within a map.
pub(super) struct View<'a> {
    pub(super) run: &'a Run,
    pub(super) item: Option<(&'a Payload, u32)>,
}

impl View<'_> {
    fn items(&self, id: &str) -> Option<&super::Items> {
        self.run.items_of(self.run.graph.position(id)?)
    }
}

impl Bindings for View<'_> {
    fn input(&self) -> Payload {
        self.run.header.origin.as_ref().map_or_else(Payload::null, |origin| origin.input.clone())
    }

    fn step(&self, id: &str) -> Option<Payload> {
        self.run.output_of(self.run.graph.position(id)?)
    }

    fn gathered(&self, id: &str) -> Option<Gathered> {
        self.items(id)?.gathered()
    }

    fn gathered_item(&self, id: &str, index: usize) -> Option<Payload> {
        self.items(id)?.output(index).cloned()
    }

    fn item(&self) -> Option<Payload> {
        self.item.map(|(item, _)| item.clone())
    }

    fn index(&self) -> Option<u32> {
        self.item.map(|(_, index)| index)
    }
}

/// The bindings of the events of a step or item: the output of the step is its own.
struct OwnView<'a> {
    view: View<'a>,
    step: &'a str,
    output: Option<&'a Payload>,
}

impl Bindings for OwnView<'_> {
    fn input(&self) -> Payload {
        self.view.input()
    }

    fn step(&self, id: &str) -> Option<Payload> {
        if id == self.step { self.output.cloned() } else { self.view.step(id) }
    }

    fn gathered(&self, id: &str) -> Option<Gathered> {
        if id == self.step { None } else { self.view.gathered(id) }
    }

    fn gathered_item(&self, id: &str, index: usize) -> Option<Payload> {
        self.view.gathered_item(id, index)
    }

    fn item(&self) -> Option<Payload> {
        self.view.item()
    }

    fn index(&self) -> Option<u32> {
        self.view.index()
    }
}

/// The use of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// The input of a step or item.
    Input,
    /// The input of a child, which is checked like any other start.
    ChildInput,
    /// The list that a fan-out opens over.
    Items,
    /// A condition, an instant, a text, or a substitute for a signal.
    Value,
    /// The output of the run.
    Output,
    /// The data of an event, which is checked like any other.
    Event,
}

impl Run {
    fn bounds(&self, becomes: Use) -> Bounds {
        let limits = &self.limits;
        let bounds = Bounds::of(limits);
        match becomes {
            Use::Input | Use::Value => bounds,
            Use::ChildInput | Use::Event => Bounds { whole: limits.built, ..bounds },
            Use::Items => Bounds { built: limits.list, whole: limits.list, ..bounds },
            Use::Output => Bounds { built: limits.whole, ..bounds },
        }
    }
}

/// Returns the failure of a step whose expression has no value. A value that is too large has a
/// code of its own.
fn no_value(error: &EvalError, becomes: Use) -> Failure {
    let code = match (error.code, becomes) {
        ("result_too_large", Use::Input | Use::ChildInput) => "input_too_large",
        ("result_too_large", Use::Items) => "items_too_large",
        (
            "result_too_large" | "outputs_too_large" | "expression_too_costly" | VALUE_ENCRYPTED,
            _,
        ) => error.code,
        (_, Use::Output) => "output_failed",
        _ => "wiring_failed",
    };
    own_failure(code, error.to_string())
}

impl TransitionBuilder<'_> {
    /// Evaluates `expr` as seen from `place`, and returns where its value is to be found from now on.
    pub(super) fn evaluate(
        &mut self,
        expr: &Expr,
        place: WorkIndex,
        becomes: Use,
    ) -> Result<Source, Failure> {
        self.evaluate_with(expr, place, becomes, &Memo::default())
    }

    /// Returns the same with what was found for other items.
    pub(super) fn evaluate_with(
        &mut self,
        expr: &Expr,
        place: WorkIndex,
        becomes: Use,
        memo: &Memo,
    ) -> Result<Source, Failure> {
        let view = View { run: self.run, item: self.run.item_at(place) };
        let mut evaluation = Evaluation::new(&view, self.run.bounds(becomes), memo);
        let whole = expr.whole_root();
        let value = match whole {
            Some((path, root)) => evaluation.locate(root, path).map(|()| None),
            None => evaluation.value(expr).map(Some),
        };
        let looked_at = evaluation.looked_at();
        let held = value.map_err(|error| no_value(&error, becomes)).and_then(|value| {
            let more = value.as_ref().map_or(0, |value| value.text().len() as u64);
            self.may_hold(more).map(|()| value)
        });
        self.count_evaluation(looked_at, held.as_ref().err());
        Ok(match (held?, whole) {
            (Some(value), _) => Source::Slot(self.slot(value)),
            (None, whole) => Source::Same(whole.map_or("", |(path, _)| path).to_owned()),
        })
    }

    /// Returns the value of an expression that refers to no item.
    pub(super) fn value(&mut self, expr: &Expr, becomes: Use) -> Result<Payload, Failure> {
        self.value_for(expr, None, becomes, &Memo::default())
    }

    /// Returns the value of an expression about an item.
    pub(super) fn value_for(
        &mut self,
        expr: &Expr,
        item: Option<(&Payload, u32)>,
        becomes: Use,
        memo: &Memo,
    ) -> Result<Payload, Failure> {
        let view = View { run: self.run, item };
        let mut evaluation = Evaluation::new(&view, self.run.bounds(becomes), memo);
        let value = evaluation.value(expr).map_err(|error| no_value(&error, becomes));
        let looked_at = evaluation.looked_at();
        self.count_evaluation(looked_at, value.as_ref().err());
        value
    }

    /// Returns the value of an expression of an event of a step or item.
    pub(super) fn value_of_event(
        &mut self,
        expr: &Expr,
        place: WorkIndex,
    ) -> Result<Payload, Failure> {
        let view = View { run: self.run, item: self.run.item_at(place) };
        let output = self.run.work(place).and_then(Activity::output);
        let own = OwnView { view, step: &self.run.graph.nodes[place.step].id, output };
        let memo = Memo::default();
        let mut evaluation = Evaluation::new(&own, self.run.bounds(Use::Event), &memo);
        let value = evaluation.value(expr).map_err(|error| no_value(&error, Use::Event));
        let looked_at = evaluation.looked_at();
        self.count_evaluation(looked_at, value.as_ref().err());
        value
    }

    /// Returns whether the guard of a step lets it through.
    pub(super) fn guard(&mut self, when: &Expr) -> Result<bool, Failure> {
        let view = View { run: self.run, item: None };
        let memo = Memo::default();
        let mut evaluation = Evaluation::new(&view, self.run.bounds(Use::Value), &memo);
        let truth = evaluation.truth(when).map_err(|error| no_value(&error, Use::Value));
        let looked_at = evaluation.looked_at();
        self.count_evaluation(looked_at, truth.as_ref().err());
        truth
    }

    /// Ends a run that went forward to its end.
    pub(super) fn conclude_forward(&mut self) {
        if self.run.header.unchecked.is_some() {
            return;
        }
        let mut output = None;
        if let Some(expr) = self.run.graph.definition.output.clone() {
            match self.value(&expr, Use::Output) {
                Ok(value) => output = Some(self.slot(value)),
                Err(error) => return self.output_failed(error),
            }
        }
        if self.run.graph.outputs_checked {
            let again = self.now().after(CHECK_AGAIN);
            self.emit(Event::OutputUnchecked { output, again });
            return;
        }
        let outcome = self.run.outcome_forward();
        self.end(outcome, output);
    }

    /// Records whether the output satisfies its JSON Schema: the run ends, or it has failed and is undone where it
    /// can be.
    pub(super) fn output_checked(&mut self, violation: Option<String>) {
        let Some(unchecked) = self.run.header.unchecked.clone() else { return };
        let Some(message) = violation else {
            let outcome = self.run.outcome_forward();
            let output = unchecked.output.map(|output| self.slot(output));
            return self.end(outcome, output);
        };
        self.output_failed(own_failure("invalid_output", message));
    }

    /// Fails a run whose output cannot be made, or is not what it should be, and undoes it: not past its point of no
    /// return, nor where a person had it go on without a step.
    fn output_failed(&mut self, error: Failure) {
        self.emit(Event::RunFailed { step: None, error });
        if self.run.past_pivot() || self.run.goes_on_without_a_step() {
            let outcome = self.run.outcome_forward();
            return self.end(outcome, None);
        }
        self.compensate(Cause::Failure);
    }

    /// Requests the check of the output again, after no result came.
    pub(super) fn check_again(&mut self) {
        let due = self.run.header.unchecked.as_ref().map(|unchecked| unchecked.again);
        if due.is_some_and(|due| due <= self.now()) {
            let again = self.now().after(CHECK_AGAIN);
            self.emit(Event::OutputUnchecked { output: None, again });
        }
    }
}

impl Run {
    /// Returns the output that waits for being held to the JSON Schema of the definition, with that.
    #[must_use]
    pub fn unchecked_output(&self) -> Option<(&Payload, Payload)> {
        let unchecked = self.header.unchecked.as_ref()?;
        let output = unchecked.output.clone().unwrap_or_else(Payload::null);
        Some((self.graph.definition.output_schema.as_ref()?, output))
    }
}

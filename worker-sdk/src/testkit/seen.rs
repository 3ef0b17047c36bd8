//! Observations of a run in a test.

use backstitch_saga::protocol::{Outcome, RunView, State, StepView};
use backstitch_saga::{Action, Event, Record, Span, StepPath, Time};
use serde::de::DeserializeOwned;

use super::{Call, TestRun};

impl<Out> TestRun<Out> {
    /// Returns the state of the run.
    #[must_use]
    pub fn state(&self) -> State {
        self.run.state()
    }

    /// Returns the outcome, once the run has ended.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        self.run.outcome()
    }

    /// Returns everything that the server would show, with documents as they are.
    #[must_use]
    pub fn view(&self) -> RunView {
        self.cast.codec.show(self.run.view(self.now))
    }

    /// Returns the view of the server itself: the same, with documents as the codec encoded them.
    #[must_use]
    pub fn view_of_server(&self) -> RunView {
        self.run.view(self.now)
    }

    /// Returns one step, or one item of a map step.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    #[track_caller]
    pub fn step(&self, step: &str) -> StepView {
        let path: StepPath = step.parse().expect("a step is named like `payment` or `stock/1`");
        self.run.step_view(&path).unwrap_or_else(|| match self.run.graph().position(&path.step) {
            Some(_) => panic!("the step `{}` has no such item: {step}", path.step),
            None => panic!("{}", self.run.graph().no_step(&path.step)),
        })
    }

    /// Returns the output, if it succeeded.
    ///
    /// # Panics
    /// When the output is not of the workflow's type.
    #[must_use]
    pub fn output(&self) -> Option<Out>
    where
        Out: DeserializeOwned,
    {
        let output = self.view().output?;
        Some(self.cast.codec.read(&output).unwrap_or_else(|error| {
            panic!("the output {output:?} is not of the workflow's type: {error}")
        }))
    }

    /// Returns the time in the run.
    #[must_use]
    pub fn now(&self) -> Time {
        self.now
    }

    /// Returns the time since the run started.
    #[must_use]
    pub fn elapsed(&self) -> Span {
        self.now.since(self.run.started_at())
    }

    /// Returns the journal: every record, in order.
    #[must_use]
    pub fn journal(&self) -> &[Record] {
        &self.journal
    }

    /// Returns every event of the journal, in order.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.journal.iter().flat_map(|record| &record.events)
    }

    /// Returns every call of a handler, in order.
    #[must_use]
    pub fn calls(&self) -> &[Call] {
        &self.world.calls
    }

    /// Returns the calls that went well, in order: `payment`, `verify payment`, `undo payment`.
    #[must_use]
    pub fn effects(&self) -> Vec<String> {
        let well = self.world.calls.iter().filter(|call| call.error.is_none());
        well.map(Call::short).collect()
    }

    /// Returns the number of calls of the handler of an action on a step.
    ///
    /// # Panics
    /// When the workflow has no such step.
    #[must_use]
    #[track_caller]
    pub fn count(&self, action: Action, step: &str) -> usize {
        let path: StepPath = step.parse().expect("a step is named like `payment` or `stock/1`");
        let graph = self.run.graph();
        assert!(graph.position(&path.step).is_some(), "{}", graph.no_step(&path.step));
        let here = |call: &&Call| call.action == action && call.step.to_string() == step;
        self.world.calls.iter().filter(here).count()
    }

    /// Returns the steps and items whose effects remain, whatever the run believes: done and not undone. Read-only
    /// steps have none.
    #[must_use]
    pub fn standing(&self) -> Vec<StepPath> {
        self.world.standing()
    }

    /// Fails the test unless the run has ended with this outcome; the message has the whole
    /// history.
    ///
    /// # Panics
    /// When it has not.
    #[track_caller]
    pub fn assert_outcome(&self, outcome: Outcome) {
        assert_eq!(self.outcome(), Some(outcome), "{}", self.describe());
    }

    /// Fails the test if effects of the run or of its child runs remain.
    ///
    /// # Panics
    /// When something does.
    #[track_caller]
    pub fn assert_nothing_stands(&self) {
        let standing: Vec<String> = self.standing().iter().map(ToString::to_string).collect();
        assert!(
            standing.is_empty(),
            "what these did still stands: {}; {}",
            standing.join(", "),
            self.describe()
        );
        self.children.iter().for_each(|child| child.run.assert_nothing_stands());
    }

    /// Returns the whole story in a few lines.
    pub(super) fn describe(&self) -> String {
        let view = self.view();
        let outcome = view.outcome.map(|outcome| format!(", {}", outcome.as_str()));
        let outcome = outcome.unwrap_or_default();
        let mut text = format!("{}{outcome}: {}", view.state.as_str(), view.summary);
        for condition in &view.conditions {
            text.push_str(&format!("\n  {}: {}", condition.kind, condition.message));
        }
        for call in &self.world.calls {
            text.push_str(&format!("\n  {call}"));
        }
        for child in &self.children {
            text.push_str(&format!("\nchild {}: {}", child.step, child.run.describe()));
        }
        text
    }
}

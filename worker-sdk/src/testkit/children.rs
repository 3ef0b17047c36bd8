//! Child runs in a test: those whose workflow has a kit run on the same clock. Requests and notifications from parent
//! to child, and the end of the child, are passed on as on a server.

use std::sync::Arc;

use backstitch_saga::{
    Action, Body, By, ChildAsk, Command, Descent, Graph, Parent, RunId, Span, StepPath, Time,
};

use super::TestRun;
use super::fault::Fault;
use crate::codec::MaybeCodec;
use crate::handlers::Handlers;

/// The parts of a run in a test.
#[derive(Clone)]
pub(super) struct Cast {
    pub(super) graph: Arc<Graph>,
    pub(super) handlers: Handlers,
    pub(super) faults: Vec<Fault>,
    pub(super) patience: Span,
    /// The kits of workflows that steps may be.
    pub(super) children: Vec<Cast>,
    pub(super) codec: MaybeCodec,
}

impl Cast {
    /// Returns the kit of the workflow that a step asks for.
    fn child(&self, ask: &ChildAsk) -> Option<&Cast> {
        let mut fitting = self.children.iter().filter(|cast| {
            let own = &cast.graph.definition;
            own.name == ask.workflow && ask.version.is_none_or(|version| version == own.version)
        });
        let first = fitting.next()?;
        // Without a version it is the newest.
        Some(fitting.fold(first, |newest, cast| {
            if cast.graph.definition.version > newest.graph.definition.version {
                cast
            } else {
                newest
            }
        }))
    }
}

/// Place of a run in its tree.
pub(super) struct Place {
    pub(super) parent: Parent,
    pub(super) descent: Descent,
}

/// A run that is a step of another.
pub(super) struct ChildRun {
    pub(super) step: StepPath,
    pub(super) run: TestRun<()>,
    /// The attempt to undo it that it was last asked for.
    undone: Option<u32>,
}

impl<Out> TestRun<Out> {
    /// Returns the run that a step is, if the kit runs it; see [`TestKit::child`](super::TestKit::child).
    #[must_use]
    pub fn child(&self, step: &str) -> Option<&TestRun<()>> {
        let found = self.children.iter().rev().find(|child| child.step.to_string() == step);
        found.map(|child| &child.run)
    }

    /// Forgets the run `child`, after a test has set its end.
    pub(super) fn forget_child(&mut self, child: RunId) {
        self.children.retain(|known| known.run.run.id() != child);
    }

    /// Returns the earliest time at which something is due in a child; `due` is called for each.
    pub(super) fn next_due_of_children(
        &self,
        due: impl Fn(&TestRun<()>) -> Option<Time>,
    ) -> Option<Time> {
        self.children.iter().filter_map(|child| due(&child.run)).min()
    }

    /// Lets children begin, go on and end, as far as they do by themselves now. False when there was nothing to do.
    pub(super) async fn round_of_children(&mut self) -> bool {
        let graph = Arc::clone(self.run.graph());
        let steps = graph.nodes.iter().filter(|node| matches!(node.body, Body::Child(_)));
        let mut did_something = false;
        for step in steps.map(|node| StepPath::step(node.id.clone())) {
            did_something |= self.ask_child(&step);
            did_something |= self.tell_child(&step);
        }
        for child in &mut self.children {
            child.run.now = self.now;
            did_something |= Box::pin(child.run.round()).await;
        }
        for at in 0..self.children.len() {
            did_something |= self.hear_child(at);
        }
        did_something
    }

    /// Starts the child at `step`, or has it undo what it did, when it is asked to and was not before.
    fn ask_child(&mut self, step: &StepPath) -> bool {
        let Some(ask) = self.run.child_ask(step) else { return false };
        let known = self.children.iter_mut().find(|child| child.run.run.id() == ask.child);
        match (ask.action, known) {
            (Action::Compensate, Some(child)) if child.undone != Some(ask.attempt) => {
                child.undone = Some(ask.attempt);
                child.run.now = self.now;
                let reason =
                    format!("the step '{step}' that it is, is undone, attempt {}", ask.attempt);
                let by = By { actor: "test".into(), reason };
                // One that cannot be undone says so by how it ended.
                let _ = child.run.decide(Command::UndoForParent { by });
                true
            }
            (Action::Forward, None) => {
                let Some(cast) = self.cast.child(&ask).cloned() else { return false };
                let parent = Parent { run: self.run.id(), step: step.clone() };
                let place = Place { parent, descent: ask.descent };
                let run = TestRun::start(ask.child, cast, ask.input, self.now, Some(place));
                self.children.push(ChildRun { step: step.clone(), run, undone: None });
                true
            }
            _ => false,
        }
    }

    /// Notifies the child at `step` that its parent is paused, resumed or killed.
    fn tell_child(&mut self, step: &StepPath) -> bool {
        let Some(word) = self.run.child_word(step) else { return false };
        let known = self.children.iter_mut().find(|child| child.run.run.id() == word.ask.child);
        let Some(child) = known else { return false };
        let order = word.order;
        let _ = child.run.decide(Command::FromParent { word: word.word, order, by: word.by });
        let heard = Command::ChildHeard { step: step.clone(), child: word.ask.child, order };
        self.decide(heard).is_ok()
    }

    /// Hears how a child ended, if it is asked for and has.
    fn hear_child(&mut self, at: usize) -> bool {
        let ChildRun { step, run: child, undone } = &self.children[at];
        let Some(ask) = self.run.child_ask(step).filter(|ask| ask.child == child.run.id()) else {
            return false;
        };
        let end = match ask.action {
            Action::Compensate if *undone == Some(ask.attempt) => child.run.end_of_undo(),
            Action::Compensate => None,
            Action::Forward | Action::Verify => child.run.end(),
        };
        let Some(end) = end else { return false };
        let (step, before) = (step.clone(), self.journal.len());
        let answers = Some(ask.action);
        let _ = self.decide(Command::ChildEnded { step, child: ask.child, answers, end });
        self.journal.len() > before
    }
}

//! A definition that has been checked, with everything indexed that the rules look up while a run moves.

use std::collections::HashMap;
use std::sync::Arc;

use crate::{
    Action, Child, Class, Definition, Emit, Expr, Fail, Map, OnFailure, Release, Sleep, Step, Task,
    Violation, Wait, validate,
};

mod descent;
mod links;

pub(crate) use links::Links;

/// Largest number of names that a message lists.
pub(crate) const NAMED: usize = 20;
/// Number of steps that are compared by address before their ids are looked up.
const FEW: usize = 8;

/// A checked and indexed workflow definition. Made only by [`Graph::parse`] and [`Graph::check`].
#[derive(Debug)]
pub struct Graph {
    /// The definition as it was registered.
    pub definition: Definition,
    /// One node per step, in the order of the definition.
    pub nodes: Vec<Node>,
    /// Positions in `nodes`, each after all that it depends on.
    pub order: Vec<usize>,
    pub(crate) index: HashMap<Arc<str>, usize, foldhash::fast::RandomState>,
    /// Somebody evaluates the JSON Schema of a run's output before the run ends; see [`Graph::with_outputs_checked`].
    pub(crate) outputs_checked: bool,
    /// Two flags: the step emits events; one of them is held until the pivot.
    pub(crate) emits: (bool, bool),
}

/// One step with its place in the graph. Positions refer to [`Graph::nodes`].
#[derive(Debug)]
pub struct Node {
    /// The step's id.
    pub id: Arc<str>,
    /// Steps that must be settled before this one begins: `after` and every reference.
    pub needs: Vec<usize>,
    /// Those of `needs` without whose output this step is skipped (references outside `default` and `exists`).
    pub requires: Vec<usize>,
    /// Steps that have this one in their `needs`.
    pub feeds: Vec<usize>,
    /// The guard.
    pub when: Option<Expr>,
    /// Its action.
    pub body: Body,
    /// The events that it emits once it has succeeded.
    pub emits: Vec<Emit>,
    /// The task whose rules of attempts, failure and undo apply to the step: its own, or a substitute.
    policy: Task,
    /// `true` if a pivot comes before this step.
    pub after_pivot: bool,
}

/// The action of a step.
#[derive(Debug)]
pub enum Body {
    /// One task.
    Task(Task),
    /// A fan-out.
    Map(Map),
    /// Waiting for a signal.
    Wait(Wait),
    /// Waiting for time to pass.
    Sleep(Sleep),
    /// A run of another workflow.
    Child(Child),
    /// Failing on purpose.
    Fail(Fail),
}

impl Body {
    /// Returns the one body of a step that was checked.
    fn of(step: &Step) -> Option<Body> {
        let Step { task, map, wait, sleep, child, fail, .. } = step.clone();
        let task = task.map(Body::Task).or(map.map(Body::Map));
        let pause = wait.map(Body::Wait).or(sleep.map(Body::Sleep));
        task.or(pause).or(child.map(Body::Child)).or(fail.map(Body::Fail))
    }
}

impl Graph {
    /// Returns the same graph for runs whose outputs the engine checks against their JSON Schema: such a run waits for
    /// [`Command::OutputChecked`](crate::Command::OutputChecked) when its steps are done. Otherwise, as in a rehearsal,
    /// an output is not checked.
    #[must_use]
    pub fn with_outputs_checked(self) -> Graph {
        Graph { outputs_checked: self.definition.output_schema.is_some(), ..self }
    }

    /// Returns the position of the step `id`.
    #[must_use]
    pub fn position(&self, id: &str) -> Option<usize> {
        // Most looked-up ids are those of the steps themselves: with few steps, the address identifies
        // them.
        let same = self.nodes.iter().take(FEW).position(|node| std::ptr::eq(&*node.id, id));
        same.or_else(|| self.index.get(id).copied())
    }

    /// Says that there is no step `id`, and which steps there are.
    #[must_use]
    pub fn no_step(&self, id: &str) -> String {
        let names: Vec<&str> = self.nodes.iter().map(|node| &*node.id).take(NAMED).collect();
        let more = if self.nodes.len() > NAMED { ", …" } else { "" };
        format!("the workflow has no step '{id}'; there are {}{more}", names.join(", "))
    }

    /// Returns whether a step emits events of the log.
    #[must_use]
    pub fn emits(&self) -> bool {
        self.emits.0
    }

    /// Returns the number of child steps.
    #[must_use]
    pub fn children(&self) -> u32 {
        let children = self.nodes.iter().filter(|node| matches!(node.body, Body::Child(_)));
        u32::try_from(children.count()).unwrap_or(u32::MAX)
    }
}

impl Node {
    /// Returns the work of the step, or of each of its items; for a step that no worker does, the policy that it is
    /// held to.
    #[must_use]
    pub fn task(&self) -> &Task {
        &self.policy
    }

    /// Returns the fan-out, if the step is one.
    #[must_use]
    pub fn map(&self) -> Option<&Map> {
        match &self.body {
            Body::Map(map) => Some(map),
            _ => None,
        }
    }
}

impl Step {
    /// Returns the class of its work.
    pub(crate) fn class(&self) -> Option<Class> {
        self.policy().and_then(|task| task.class())
    }
}

impl Task {
    /// Returns the step's class; `None` for a step with effects that nothing can undo and nothing after it can fail.
    #[must_use]
    pub fn class(&self) -> Option<Class> {
        self.class.or(self.compensate.as_ref().map(|_| Class::Compensatable))
    }

    /// Returns whether the saga may have to be undone because of this step.
    #[must_use]
    pub fn can_fail(&self) -> bool {
        self.class() != Some(Class::Retriable) && self.on_failure == OnFailure::Compensate
    }
}

impl Task {
    /// Returns the queue and the handler name of its tasks for `action`.
    pub(crate) fn route(&self, action: Action) -> Option<(&str, &str)> {
        let (queue, name) = match action {
            Action::Forward => (None, &self.name),
            Action::Verify => {
                let verify = self.verify.as_ref()?;
                (verify.queue.as_deref(), &verify.name)
            }
            Action::Compensate => {
                let undo = self.compensate.as_ref()?;
                (undo.queue.as_deref(), &undo.name)
            }
        };
        Some((queue.unwrap_or(&self.queue), name))
    }
}

impl Graph {
    /// Reads and checks a definition from its JSON text, at most [`Definition::MAX_BYTES`] long.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its place: all mistakes of form at once, and beside them all
    /// mistakes of meaning in the parts whose form is right. Text that is not JSON, too long or nested too deep has
    /// that one violation.
    pub fn parse(text: &str) -> Result<Graph, Vec<Violation>> {
        validate::parse(text)
    }

    /// Checks a definition.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its place.
    pub fn check(definition: Definition) -> Result<Graph, Vec<Violation>> {
        validate::check(definition)
    }

    /// Puts together the graph of a definition that is known to be right. Steps without a body are left out; there
    /// are none.
    pub(crate) fn assemble(definition: Definition, links: Links, order: Vec<usize>) -> Graph {
        let feeds = links.feeds();
        let after_pivot = |position: usize| {
            let mut ancestors = links.ancestors(position).into_iter().zip(&definition.steps);
            ancestors.any(|(above, step)| above && step.class() == Some(Class::Pivot))
        };
        let after_pivot: Vec<bool> = (0..definition.steps.len()).map(after_pivot).collect();
        let steps = definition.steps.iter().zip(links.steps).zip(feeds).zip(after_pivot);
        let nodes: Vec<Node> = steps
            .filter_map(|(((step, links), feeds), after_pivot)| {
                Some(Node {
                    id: step.id.as_str().into(),
                    needs: links.needs,
                    requires: links.requires,
                    feeds,
                    when: step.when.clone(),
                    body: Body::of(step)?,
                    emits: step.emits.clone(),
                    policy: step.policy()?.into_owned(),
                    after_pivot,
                })
            })
            .collect();
        let index = nodes.iter().enumerate().map(|(at, node)| (node.id.clone(), at)).collect();
        let emits = || nodes.iter().flat_map(|node: &Node| &node.emits);
        let held = |emit: &Emit| emit.release == Release::AtPivot;
        let emits = (emits().next().is_some(), emits().any(held));
        Graph { definition, nodes, order, index, outputs_checked: false, emits }
    }
}

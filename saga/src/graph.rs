//! A definition that has been checked, with everything indexed that the rules look up while a run moves.

use std::collections::HashMap;
use std::sync::Arc;

use crate::{Class, Definition, Expr, Map, OnFailure, Task};

/// A checked and indexed workflow definition. Made only by [`Graph::parse`] and [`Graph::check`].
#[derive(Debug)]
pub struct Graph {
    /// The definition as it was registered.
    pub definition: Definition,
    /// One node per step, in the order of the definition.
    pub nodes: Vec<Node>,
    /// Positions in `nodes`, each after all that it depends on.
    pub order: Vec<usize>,
    pub(crate) index: HashMap<Arc<str>, usize>,
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
    /// What is done.
    pub body: Body,
    /// Whether a pivot stands before this step.
    pub after_pivot: bool,
}

/// What a step does.
#[derive(Debug)]
pub enum Body {
    /// One task.
    Task(Task),
    /// A fan-out.
    Map(Map),
}

impl Graph {
    /// The position of the step `id`.
    #[must_use]
    pub fn position(&self, id: &str) -> Option<usize> {
        self.index.get(id).copied()
    }
}

impl Node {
    /// The work of the step, or of each of its items.
    #[must_use]
    pub fn task(&self) -> &Task {
        match &self.body {
            Body::Task(task) => task,
            Body::Map(map) => &map.task,
        }
    }

    /// The fan-out, if the step is one.
    #[must_use]
    pub fn map(&self) -> Option<&Map> {
        match &self.body {
            Body::Task(_) => None,
            Body::Map(map) => Some(map),
        }
    }
}

impl Task {
    /// The step's class; `None` for a step with effects that nothing can undo and nothing after it can fail.
    #[must_use]
    pub fn class(&self) -> Option<Class> {
        self.class.or(self.compensate.as_ref().map(|_| Class::Compensatable))
    }

    /// Whether the saga may have to be undone because of this step.
    #[must_use]
    pub fn can_fail(&self) -> bool {
        self.class() != Some(Class::Retriable) && self.on_failure == OnFailure::Compensate
    }
}

impl Graph {
    /// Reads and checks a definition from its JSON text.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its place.
    pub fn parse(text: &str) -> Result<Graph, Vec<crate::Violation>> {
        let _ = text;
        todo!()
    }

    /// Checks a definition.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its place.
    pub fn check(definition: Definition) -> Result<Graph, Vec<crate::Violation>> {
        let _ = definition;
        todo!()
    }
}

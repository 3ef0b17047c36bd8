//! Workflows that start themselves: without a condition that ends it, every run has a descendant more until there are
//! too many.

use super::{Body, Graph};
use crate::Child;
use crate::protocol::Warning;

/// The code of the warning.
const CODE: &str = "starts_itself";

impl Graph {
    /// Returns the child steps that every run reaches: no guard and no signal precedes them.
    pub fn unconditional_children(&self) -> impl Iterator<Item = (usize, &Child)> {
        self.nodes.iter().enumerate().filter_map(|(step, node)| match &node.body {
            Body::Child(child) if !self.is_conditional(step) => Some((step, child)),
            _ => None,
        })
    }

    /// Returns whether a run may end, or wait for long, before the step begins, for another reason than a failure.
    fn is_conditional(&self, step: usize) -> bool {
        let (mut open, mut seen) = (vec![step], vec![false; self.nodes.len()]);
        while let Some(step) = open.pop() {
            if std::mem::replace(&mut seen[step], true) {
                continue;
            }
            let node = &self.nodes[step];
            if node.when.is_some() || matches!(node.body, Body::Wait(_)) {
                return true;
            }
            open.extend(&node.needs);
        }
        false
    }

    /// Returns the warnings of steps that are a run of this workflow itself, in this version or the newest, whatever
    /// happens.
    pub(crate) fn starts_itself(&self) -> Vec<Warning> {
        let own = &self.definition;
        let itself = |child: &Child| {
            child.workflow == own.name && child.version.is_none_or(|version| version == own.version)
        };
        let found = self.unconditional_children().filter(|(_, child)| itself(child));
        found.map(|(step, _)| self.warning_of_descent(step, &[])).collect()
    }

    /// Returns the warning that the child at `step` comes back to this workflow, by way of `through`.
    #[must_use]
    pub fn warning_of_descent(&self, step: usize, through: &[&str]) -> Warning {
        let by = match through {
            [] => String::new(),
            names => format!(" by way of '{}'", names.join("', '")),
        };
        Warning {
            pointer: format!("/steps/{step}/child"),
            code: CODE.to_owned(),
            message: format!(
                "every run of '{}' starts another one{by}, until there are too many; give the step a `when` that ends it",
                self.definition.name
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers(steps: &str) -> Vec<String> {
        let text = format!(r#"{{"name":"w","version":2,"steps":[{steps}]}}"#);
        let graph = Graph::parse(&text).unwrap_or_else(|wrong| panic!("{text}: {wrong:?}"));
        graph.starts_itself().into_iter().map(|warning| warning.pointer).collect()
    }

    #[test]
    fn a_workflow_that_starts_itself_without_a_condition_is_warned_of() {
        let child = |more: &str, step: &str| {
            format!(
                r#"{{"id":"c"{step},"child":{{"workflow":"w","input":{{"path":"/input"}}{more}}}}}"#
            )
        };
        let after = r#","after":["a"]"#;
        let look = r#"{"id":"a","task":{"name":"t","input":{"const":1},"class":"read_only"}}"#;
        let stop =
            r#"{"id":"a","when":{"path":"/input/done"},"fail":{"code":"done","message":"done"}}"#;
        let wait = r#"{"id":"a","wait":{"signal":"again","timeout":"1h"}}"#;
        assert_eq!(pointers(&child("", "")), ["/steps/0/child"]);
        assert_eq!(pointers(&child(r#","version":2"#, "")), ["/steps/0/child"]);
        assert_eq!(pointers(&format!("{look},{}", child("", after))), ["/steps/1/child"]);
        let guarded = child("", r#","when":{"path":"/input/again"}"#);
        assert_eq!(pointers(&guarded), [""; 0]);
        assert_eq!(pointers(&child(r#","version":1"#, "")), [""; 0], "another version may differ");
        assert_eq!(pointers(&format!("{stop},{}", child("", after))), [""; 0]);
        assert_eq!(pointers(&format!("{wait},{}", child("", after))), [""; 0]);
    }
}

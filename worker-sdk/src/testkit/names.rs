//! Names that a test uses, compared with those of the workflow: a misspelt one fails the test instead of doing nothing.

use backstitch_saga::{Action, Body, Graph};

use super::Fault;

/// Checks that a fault can strike.
///
/// # Panics
/// When the workflow has no such step, or the step is not what the fault stands at.
#[track_caller]
pub(super) fn check(graph: &Graph, fault: &Fault) {
    let (path, action) = fault.place();
    let Some(node) = graph.position(&path.step).and_then(|at| graph.nodes.get(at)) else {
        panic!("a fault would never strike: {}", graph.no_step(&path.step));
    };
    let is_map = matches!(node.body, Body::Map(_));
    assert!(
        is_map || path.item.is_none(),
        "a fault would never strike: `{path}` names an item, and the step `{}` is no map",
        path.step
    );
    let task = match &node.body {
        Body::Task(task) => Some(task),
        Body::Map(map) => Some(&map.task),
        _ => None,
    };
    let Some(task) = task else {
        panic!("a fault would never strike: no worker does the step `{}`", path.step);
    };
    match action {
        Action::Forward => {}
        Action::Compensate => assert!(
            task.compensate.is_some(),
            "a fault would never strike: the step `{}` has no compensation",
            path.step
        ),
        Action::Verify => assert!(
            task.verify.is_some(),
            "a fault would never strike: the step `{}` has no `verify`",
            path.step
        ),
    }
}

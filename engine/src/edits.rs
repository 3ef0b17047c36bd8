//! Inputs that people give to steps in place of their own: held to the schema that the definition has for them.

use std::sync::Arc;

use backstitch_saga::{Command, RunId, StepPath};

use crate::definitions::check_against;
use crate::node::Node;
use crate::{Error, reads};

/// Refuses a command with an input that the step's handler could not read.
pub(crate) async fn check(
    node: &Arc<Node>,
    namespace: &str,
    run: RunId,
    command: &Command,
) -> Result<(), Error> {
    let (step, input) = match command {
        Command::Retry { step: Some(step), input: Some(input), .. } => (step.clone(), input),
        Command::Rerun { from, input: Some(input), .. } => (StepPath::step(from.clone()), input),
        _ => return Ok(()),
    };
    let schema = move |run: &backstitch_saga::Run| run.input_schema(&step).cloned();
    match reads::read(node, namespace, run, schema).await? {
        Some(schema) => check_against(&schema, input, "/input", "invalid_input"),
        None => Ok(()),
    }
}

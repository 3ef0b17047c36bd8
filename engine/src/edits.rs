//! Documents that people give to steps: inputs in place of their own, held to the schema that the definition has for
//! them, and outputs. All of them must be such as can be kept and read again.

use std::sync::Arc;

use backstitch_saga::{Command, RunId, StepPath};

use crate::node::Node;
use crate::tasks::check_payload;
use crate::{Error, approvals, reads};

/// Refuses a command with a document that could not be kept, or with an input that the step's handler could not read.
pub(crate) async fn check(
    node: &Arc<Node>,
    namespace: &str,
    run: RunId,
    command: &Command,
) -> Result<(), Error> {
    can_be_kept(command, node.options.payload_limit)?;
    approvals::check(node, namespace, run, command).await?;
    if let Command::Resolve { step, output, .. }
    | Command::Skip { step, output: Some(output), .. } = command
    {
        let (step, given) = (step.clone(), output.clone());
        let promised = move |run: &backstitch_saga::Run| run.promised(&step, &given);
        return match reads::read(node, namespace, run, promised).await? {
            Ok(Some((schema, held))) => {
                node.schemas.check(namespace, &schema, &held, "/output", "invalid_output").await
            }
            Ok(None) => Ok(()),
            Err(violation) => Err(Error::invalid("invalid_output", violation)),
        };
    }
    let (step, input) = match command {
        Command::Retry { step: Some(step), input: Some(input), .. } => (step.clone(), input),
        Command::Rerun { from, input: Some(input), .. } => (StepPath::step(from.clone()), input),
        _ => return Ok(()),
    };
    let schema = move |run: &backstitch_saga::Run| run.input_schema(&step).cloned();
    match reads::read(node, namespace, run, schema).await? {
        Some(schema) => {
            node.schemas.check(namespace, &schema, input, "/input", "invalid_input").await
        }
        None => Ok(()),
    }
}

fn can_be_kept(command: &Command, limit: usize) -> Result<(), Error> {
    match command {
        Command::Retry { input, .. } | Command::Rerun { input, .. } => {
            check_payload("/input", input.as_ref(), limit)
        }
        Command::Skip { output, .. } => check_payload("/output", output.as_ref(), limit),
        Command::Resolve { output, .. } => check_payload("/output", Some(output), limit),
        _ => Ok(()),
    }
}

//! Checks outputs of steps and runs against the JSON Schemas of their definition. Most have none, and cost one check of
//! an empty member. A short output with a compiled schema is checked immediately, within the record that brings it; any
//! other by the threads for schemas, and its command is decided afterwards.

use std::sync::Arc;

use backstitch_saga::protocol::{TaskOutcome, Verdict as Found};
use backstitch_saga::{
    Action, Command, OpenTask, Payload, Refusal, RefusalCode, Run, RunId, TaskKey,
};

use super::request::{Output, Request, ShardCommand};
use crate::node::Node;
use crate::schemas::{Schemas, Verdict};

/// Looks at the output that a command brings. One that is not what the definition promises makes the attempt one that
/// is done without an output. Returns a refusal when it takes longer: the command is to be decided again.
pub(super) fn look_at(
    schemas: &Schemas,
    namespace: &Arc<str>,
    open: Option<OpenTask<'_>>,
    envelope: &mut Request,
) -> Option<Refusal> {
    if !matches!(envelope.output, Output::Unknown) {
        return None;
    }
    let ShardCommand::Command(Command::Report { task, outcome }) = &envelope.order else {
        return None;
    };
    let open = open.filter(|open| open.worker.is_some())?;
    let schema = open.output_schema?;
    let output = given(task.action, outcome)?;
    match schemas.judge_at_once(schema, &output) {
        Some(verdict) => {
            envelope.order = ShardCommand::Command(judged(task.clone(), outcome.clone(), verdict));
            envelope.output = Output::Held;
            None
        }
        None => {
            let (namespace, schema) = (namespace.clone(), schema.clone());
            envelope.output = Output::ToBeHeld { namespace, schema, output };
            Some(Refusal::new(RefusalCode::InvalidOutput, "the output is yet to be checked"))
        }
    }
}

/// Returns the output of the step that a report brings.
fn given(action: Action, outcome: &TaskOutcome) -> Option<Payload> {
    let TaskOutcome::Succeeded { output, .. } = outcome else { return None };
    match action {
        Action::Forward => Some(output.clone()),
        Action::Compensate => None,
        Action::Verify => match output.to::<Found>() {
            Ok(Found::Happened(output)) => Some(output),
            _ => None,
        },
    }
}

/// Returns the command to decide about once the output is judged.
fn judged(task: TaskKey, outcome: TaskOutcome, verdict: Verdict) -> Command {
    let Some(message) = violation(verdict) else { return Command::Report { task, outcome } };
    let outcome = TaskOutcome::DoneWithoutOutput {
        code: "invalid_output".to_owned(),
        message: format!(
            "the work was done, but its output does not satisfy its schema: {message}"
        ),
    };
    Command::Report { task, outcome }
}

/// Returns the reason for which an output is refused; `None` if it is accepted. A schema that was registered before
/// schemas were bounded, and is beyond a bound, is not held against it.
fn violation(verdict: Verdict) -> Option<String> {
    match verdict {
        Verdict::Satisfies => None,
        Verdict::Unknown("invalid_schema", violation) => {
            tracing::warn!(
                code = violation.code,
                "a schema of an output cannot be used; the output is taken as it is"
            );
            None
        }
        Verdict::Unknown(_, violation) => Some(violation.to_string()),
        Verdict::Violates(violations) => {
            let told: Vec<String> = violations.iter().take(3).map(ToString::to_string).collect();
            Some(told.join("; "))
        }
    }
}

/// Lets the output of a report be judged, and the report be decided about then.
pub(super) fn hold(node: &Arc<Node>, mut envelope: Request) {
    let Output::ToBeHeld { namespace, schema, output } = std::mem::take(&mut envelope.output)
    else {
        return;
    };
    let node = Arc::clone(node);
    tokio::spawn(async move {
        let verdict = match node.schemas.judge(&namespace, &schema, &output).await {
            Ok(verdict) => verdict,
            Err(error) => return envelope.answer(Err(error)),
        };
        if let ShardCommand::Command(Command::Report { task, outcome }) = &envelope.order {
            envelope.order = ShardCommand::Command(judged(task.clone(), outcome.clone(), verdict));
        }
        envelope.output = Output::Held;
        node.submit_own(vec![envelope]);
    });
}

/// Returns the command that completes a run whose output awaits its check, if the check takes no time.
pub(super) fn of_run(schemas: &Schemas, run: &Run) -> Option<Command> {
    let (schema, output) = run.unchecked_output()?;
    let verdict = schemas.judge_at_once(schema, &output)?;
    Some(Command::OutputChecked { violation: violation(verdict) })
}

/// Starts the check of a run's output. If no result comes, the run asks again.
pub(crate) fn check(node: &Arc<Node>, namespace: Arc<str>, id: RunId, run: &Run) {
    let Some((schema, output)) = run.unchecked_output() else { return };
    let (node, schema) = (Arc::clone(node), schema.clone());
    tokio::spawn(async move {
        if let Ok(verdict) = node.schemas.judge(&namespace, &schema, &output).await {
            let command = Command::OutputChecked { violation: violation(verdict) };
            node.submit_own(vec![Request::own(id, ShardCommand::Command(command))]);
        }
    });
}

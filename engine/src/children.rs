//! Runs that are steps of other runs: what a parent's journal asks of its child, and what the child's end tells the
//! parent. Nothing here is kept anywhere else: what was lost on the way is asked again when the parent's timer says so.

use std::sync::Arc;

use backstitch_saga::protocol::{Failure, FailureKind, Outcome, RunView, Scope, StartRun};
use backstitch_saga::{
    Action, By, ChildAsk, ChildEnd, Command, Event, Hold, HoldKind, Parent, Payload, Record,
    RefusalCode, Run, RunId,
};

use crate::executor::envelope::{Answers, Envelope, Order};
use crate::node::Node;
use crate::{Error, reads, start};

/// Does what a record that is committed asks of other runs. Most ask nothing.
pub(crate) fn after(node: &Arc<Node>, run: &Run, record: &Record) {
    for event in &record.events {
        match event {
            Event::ChildAsked { step, .. } => {
                let Some(ask) = run.child_ask(step) else { continue };
                let parent = Asking {
                    node: Arc::clone(node),
                    namespace: run.namespace().into(),
                    run: run.id(),
                    correlation_id: run.correlation_id(),
                };
                tokio::spawn(async move { parent.ask(ask).await });
            }
            Event::Ended { .. } => {
                if let (Some(parent), Some(end)) = (run.parent(), run.end()) {
                    tell(node, parent, run.id(), None, end);
                }
            }
            _ => {}
        }
    }
}

/// Tells a parent how its child ended.
fn tell(node: &Node, parent: &Parent, child: RunId, answers: Option<Action>, end: ChildEnd) {
    let command = Command::ChildEnded { step: parent.step.clone(), child, answers, end };
    node.submit_own(vec![Envelope::own(parent.run, Order::Command(command))]);
}

/// A parent that asks something of its child.
struct Asking {
    node: Arc<Node>,
    namespace: Arc<str>,
    run: RunId,
    correlation_id: String,
}

impl Asking {
    async fn ask(self, ask: ChildAsk) {
        let asked = match ask.action {
            Action::Compensate => self.undo(&ask).await,
            Action::Forward | Action::Verify => self.start(&ask, Vec::new()).await,
        };
        let end = match asked {
            Ok(()) => self.end_of(&ask).await,
            Err(error) => end_by(&error),
        };
        if let Some(end) = end {
            let parent = Parent { run: self.run, step: ask.step };
            tell(&self.node, &parent, ask.child, Some(ask.action), end);
        }
    }

    /// Starts the child, unless it was started before.
    async fn start(&self, ask: &ChildAsk, holds: Vec<(Hold, String)>) -> Result<(), Error> {
        let request = StartRun {
            workflow: ask.workflow.clone(),
            version: ask.version,
            key: None,
            input: ask.input.clone(),
            correlation_id: Some(self.correlation_id.clone()),
            labels: Default::default(),
            sequence: None,
        };
        let parent = Parent { run: self.run, step: ask.step.clone() };
        start::start_child(&self.node, &self.namespace, ask.child, request, parent, holds).await
    }

    /// Has the child undo what it did. One that was never started is started held, and cancelled: whoever comes late to
    /// start it finds it ended.
    async fn undo(&self, ask: &ChildAsk) -> Result<(), Error> {
        let by = || By {
            actor: format!("run:{}", self.run).into(),
            reason: format!("the step '{}' that it is, is undone", ask.step),
        };
        let command = Command::Compensate { scope: Scope::All, force: true, by: by() };
        match self.command(ask.child, command).await {
            Err(Error::NotFound { .. }) => {}
            done => return or_done(done),
        }
        let hold = Hold::new(HoldKind::DependencyUnmet, "parent");
        let why = "its parent was undone before it began".to_owned();
        self.start(ask, vec![(hold, why)]).await?;
        or_done(self.command(ask.child, Command::Cancel { by: by() }).await)
    }

    async fn command(&self, run: RunId, command: Command) -> Result<(), Error> {
        let answers = Answers::new(1);
        let order = Order::Command(command);
        let envelope = Envelope::asked(run, self.namespace.clone(), order, answers.ticket(0));
        self.node.submit_own(vec![envelope]);
        answers.wait().await.pop().unwrap_or(Err(Error::Busy)).map(drop)
    }

    /// How the child ended; `None` when it has not, or when that could not be found out.
    async fn end_of(&self, ask: &ChildAsk) -> Option<ChildEnd> {
        let view = reads::run(&self.node, &self.namespace, ask.child, None).await.ok()?;
        let outcome = view.outcome?;
        let nothing_stands = ask.action == Action::Compensate && stands(&view) == 0;
        Some(ChildEnd {
            outcome: if nothing_stands && !is_clean(outcome) {
                Outcome::Compensated
            } else {
                outcome
            },
            output: view.output.unwrap_or_else(Payload::null),
            error: view.error.map(|error| error.failure),
        })
    }
}

/// How many effects of a run stand, or may.
fn stands(view: &RunView) -> u32 {
    ["applied", "unknown", "in_flight"]
        .iter()
        .filter_map(|word| view.progress.effects.get(*word))
        .sum()
}

fn is_clean(outcome: Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Compensated
            | Outcome::CompensatedWithManualSteps
            | Outcome::FailedClean
            | Outcome::Cancelled
    )
}

/// What a refusal to undo means: the child is being undone already, or there is nothing that it can undo.
fn or_done(done: Result<(), Error>) -> Result<(), Error> {
    match done {
        Err(Error::Refused(refusal))
            if matches!(
                refusal.code,
                RefusalCode::AlreadyCompensating
                    | RefusalCode::NothingToCompensate
                    | RefusalCode::CompensationWindowClosed
                    | RefusalCode::RunEnded
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

/// A child that can never be started has failed, with nothing done. Anything else is asked again.
fn end_by(error: &Error) -> Option<ChildEnd> {
    let (code, message) = match error {
        Error::NotFound { code, message } => (*code, message.clone()),
        Error::Invalid { code, violations } => {
            let all: Vec<String> = violations.iter().map(ToString::to_string).collect();
            (*code, all.join("; "))
        }
        Error::Refused(refusal) => (refusal.code.as_str(), refusal.message.clone()),
        _ => return None,
    };
    let code = code.to_owned();
    let kind = FailureKind::Permanent;
    let failure = Failure { kind, code, message, details: None, retry_after: None };
    let output = Payload::null();
    Some(ChildEnd { outcome: Outcome::FailedClean, output, error: Some(failure) })
}

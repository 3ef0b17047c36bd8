//! Acts of a person on a run in a test.

use backstitch_saga::protocol::{Failure, Outcome, Plan, Scope};
use backstitch_saga::{
    Action, By, ChildEnd, Command, Payload, Refusal, RefusalCode, Reply, StepPath,
};
use serde::Serialize;

use super::TestRun;
use crate::TaskError;

impl<Out> TestRun<Out> {
    /// Returns what undoing `scope` would do.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn plan(&self, scope: &Scope) -> Result<Plan, Refusal> {
        self.run.plan(scope, self.now)
    }

    /// Undoes what `scope` says, and everything that follows from it.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub async fn compensate(&mut self, scope: Scope) -> Result<Reply, Refusal> {
        self.act(Command::Compensate { scope, force: false, by: by() }).await
    }

    /// Undoes the same, even past a pivot.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub async fn force_compensate(&mut self, scope: Scope) -> Result<Reply, Refusal> {
        self.act(Command::Compensate { scope, force: true, by: by() }).await
    }

    /// Cancels the run, and does everything that follows from it.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub async fn cancel(&mut self) -> Result<Reply, Refusal> {
        self.act(Command::Cancel { by: by() }).await
    }

    /// Ends the run without undoing anything.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub async fn kill(&mut self) -> Result<Reply, Refusal> {
        self.act(Command::Kill { by: by() }).await
    }

    /// Lets everything that is parked or blocked try again, and does everything that follows from it.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub async fn retry(&mut self) -> Result<Reply, Refusal> {
        self.act(Command::Retry { step: None, input: None, by: by() }).await
    }

    /// Vouches that the undo of a step is done, and does everything that follows from it.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub async fn mark_undone(&mut self, step: StepPath) -> Result<Reply, Refusal> {
        self.act(Command::MarkUndone { step, by: by() }).await
    }

    /// Sends a signal, also before a step waits for it, and does everything that follows. A person's approval or
    /// rejection is one. Start the run with [`TestKit::start`](super::TestKit::start) to send it early, and with a
    /// [`patience`](super::TestKit::patience) shorter than the wait's timeout, so that time does not run past it.
    ///
    /// # Errors
    /// A [`Refusal`], such as `unknown_signal` or `already_signalled`.
    ///
    /// # Panics
    /// When the data has no JSON.
    pub async fn signal(&mut self, name: &str, data: &impl Serialize) -> Result<Reply, Refusal> {
        let data = self.encoded(data);
        self.act(Command::Signal { name: name.into(), data, by: by(), checked: None }).await
    }

    /// Ends the child run at `step` with success and this output, and does everything that follows. While the run is
    /// undone, the output states that the child has undone its effects. A run that the kit runs for the step is
    /// forgotten.
    ///
    /// # Errors
    /// A [`Refusal`], when the step waits for no child.
    ///
    /// # Panics
    /// When the output has no JSON.
    pub async fn child_succeeds(
        &mut self,
        step: &str,
        output: &impl Serialize,
    ) -> Result<Reply, Refusal> {
        let output = self.encoded(output);
        self.child_ends(step, Outcome::Succeeded, output, None).await
    }

    /// Fails the child run at `step` without effects left, and does everything that follows.
    ///
    /// # Errors
    /// A [`Refusal`], when the step waits for no child.
    pub async fn child_fails(&mut self, step: &str, error: TaskError) -> Result<Reply, Refusal> {
        let error = Some(error.into_failure());
        self.child_ends(step, Outcome::FailedClean, Payload::null(), error).await
    }

    async fn child_ends(
        &mut self,
        step: &str,
        outcome: Outcome,
        output: Payload,
        error: Option<Failure>,
    ) -> Result<Reply, Refusal> {
        let none = || {
            let message = format!("the step `{step}` waits for no child now");
            Refusal::new(RefusalCode::UnknownStep, message)
        };
        let path: StepPath = step.parse().map_err(|_| none())?;
        if self.run.graph().position(&path.step).is_none() {
            let message = self.run.graph().no_step(&path.step);
            return Err(Refusal::new(RefusalCode::UnknownStep, message));
        }
        let ask = self.run.child_ask(&path).ok_or_else(none)?;
        let undoes = ask.action == Action::Compensate;
        let outcome = if undoes { Outcome::Compensated } else { outcome };
        let end = ChildEnd {
            outcome,
            output: Some(output),
            error,
            stands: outcome == Outcome::Succeeded,
            began: true,
        };
        let answers = undoes.then_some(ask.action);
        self.forget_child(ask.child);
        self.act(Command::ChildEnded { step: path, child: ask.child, answers, end }).await
    }

    /// Returns a document that a test gives, as the codec makes it.
    fn encoded(&self, document: &impl Serialize) -> Payload {
        let document = Payload::of(document).expect("what a test gives has a JSON form");
        self.cast.codec.encode(document, || "given".to_owned()).expect("the codec encodes it")
    }

    async fn act(&mut self, command: Command) -> Result<Reply, Refusal> {
        let reply = self.decide(command)?;
        self.until_idle().await;
        Ok(reply)
    }
}

fn by() -> By {
    By { actor: "test".into(), reason: "a test asks for it".to_owned() }
}

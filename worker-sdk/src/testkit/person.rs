//! What a person does with a run in a test.

use backstitch_saga::protocol::{Plan, Scope};
use backstitch_saga::{By, Command, Refusal, Reply, StepPath};

use super::TestRun;

impl<Out> TestRun<Out> {
    /// What undoing `scope` would do.
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

    /// The same, even past a pivot.
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

    /// Ends the run as it stands.
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

    async fn act(&mut self, command: Command) -> Result<Reply, Refusal> {
        let reply = self.decide(command)?;
        self.until_idle().await;
        Ok(reply)
    }
}

fn by() -> By {
    By { actor: "test".into(), reason: "a test asks for it".to_owned() }
}

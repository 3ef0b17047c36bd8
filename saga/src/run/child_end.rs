//! How a run that is a step of another ended, as its parent hears it.

use super::Run;
use super::decide::own_failure;
use crate::Payload;
use crate::protocol::{Failure, Outcome};

/// How a child ended.
#[derive(Clone, Debug)]
pub struct ChildEnd {
    /// What is true in the world.
    pub outcome: Outcome,
    /// Its output, `null` if its definition says none; `None` when it has not the output that it should have.
    pub output: Option<Payload>,
    /// What it failed of.
    pub error: Option<Failure>,
    /// Whether an effect of it stands, or may stand.
    pub stands: bool,
    /// Whether there is such a run: one that can never be started ends without having begun.
    pub began: bool,
}

impl Run {
    /// How the run ended, for its parent.
    #[must_use]
    pub fn end(&self) -> Option<ChildEnd> {
        let no_output = || self.graph.definition.output.is_none().then(Payload::null);
        Some(ChildEnd {
            outcome: self.header.outcome?,
            output: self.header.output.clone().or_else(no_output),
            error: self.header.error.as_ref().map(|error| error.failure.clone()),
            stands: self.something_stands(),
            began: true,
        })
    }

    /// How the run ended, for its parent that asked it to undo itself. When it did not, its error is what stands and why.
    #[must_use]
    pub fn end_of_undo(&self) -> Option<ChildEnd> {
        let end = self.end()?;
        let error = match self.why_it_stands() {
            Some(why) if end.stands => Some(own_failure("effects_left", why)),
            _ => end.error,
        };
        Some(ChildEnd { error, ..end })
    }
}

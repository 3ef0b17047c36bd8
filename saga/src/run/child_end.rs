//! The end of a child run, as it is reported to its parent.

use super::Run;
use super::decide::own_failure;
use crate::Payload;
use crate::protocol::{Failure, Outcome};

/// The end of a child run.
#[derive(Clone, Debug)]
pub struct ChildEnd {
    /// The outcome.
    pub outcome: Outcome,
    /// Its output, `null` if its definition says none; `None` when it has not the output that it should have.
    pub output: Option<Payload>,
    /// The error that it failed for.
    pub error: Option<Failure>,
    /// `true` if an effect of it remains or may remain.
    pub stands: bool,
    /// `true` if the run exists: a run that can never be started ends without having begun.
    pub began: bool,
}

impl Run {
    /// Returns the end of the run, for its parent.
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

    /// Returns the end of the run, for a parent that requested its undo. If it was not undone, the error says which
    /// effects remain and why.
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

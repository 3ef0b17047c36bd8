//! The end of a run's documents: it is erased once, when it has ended, and nothing can be asked of it any more.

use super::Run;
use super::decide::TransitionBuilder;
use crate::event::{By, Erasure, Event};
use crate::{Command, Refusal, RefusalCode, Reply, Time};

impl Run {
    /// Returns the time at which the run was erased; `None` while its documents are kept.
    #[must_use]
    pub fn erased_at(&self) -> Option<Time> {
        self.header.erased
    }

    /// Refuses what is asked of a run that was erased.
    ///
    /// # Errors
    /// A [`Refusal`] with the code `run_erased`.
    pub fn check_not_erased(&self) -> Result<(), Refusal> {
        match self.header.erased {
            None => Ok(()),
            Some(_) => Err(erased()),
        }
    }
}

impl TransitionBuilder<'_> {
    pub(super) fn erase(&mut self, by: By) -> Result<(), Refusal> {
        if self.run.header.outcome.is_none() {
            let message = "the run goes on; cancel it or wait for its end, then erase it";
            return Err(Refusal::new(RefusalCode::RunGoesOn, message));
        }
        if by.reason.trim().is_empty() {
            let message = "say why: it is kept as the proof that the run was erased";
            return Err(Refusal::new(RefusalCode::ReasonMissing, message));
        }
        self.emit(Event::Erased(Erasure { by }));
        Ok(())
    }
}

/// Returns the answer to what is asked of a run that was erased. Erasing it again is done; the engine's own words
/// change nothing.
pub(super) fn of_erased(command: &Command) -> Result<Reply, Refusal> {
    match command {
        Command::Erase { .. }
        | Command::Tick
        | Command::Listen { .. }
        | Command::FromParent { .. }
        | Command::ChildEnded { .. }
        | Command::ChildHeard { .. }
        | Command::Unhold { by: None, .. }
        | Command::FactWithdrawn { .. }
        | Command::FactRestored { .. }
        | Command::Overdue { .. }
        | Command::RefuseSignal { .. }
        | Command::OutputChecked { .. } => Ok(Reply::Done),
        _ => Err(erased()),
    }
}

fn erased() -> Refusal {
    let message = "the run was erased; nothing can be done to it any more";
    Refusal::new(RefusalCode::RunErased, message)
}

//! Runs that nothing would ever move: without task, timer, hold or incident, waiting for nothing outside. The rules
//! leave none. Should a defect do so, or a person settle an incident without an action, an incident opens.

use super::decide::TransitionBuilder;
use super::{Mode, Run};
use crate::event::IncidentKind;
use crate::{Span, Time};

/// Time for which a run may make no progress before a person is informed.
const PATIENCE: Span = Span::secs(30);

impl Run {
    /// Returns whether nothing is under way that would ever move it. Its deadline does not count: that may be
    /// days away.
    #[must_use]
    pub fn stands_still(&self) -> bool {
        let tally = &self.tally;
        // Parked or blocked work has an incident; without one it counts as standing still, too.
        let forward = tally.active() - tally.parked();
        let backward = tally.undo_open() - tally.undo_waiting() - tally.blocked();
        forward + backward == 0
            && self.due.is_empty()
            && self.header.mode != Mode::Ended
            && self.header.origin.is_some()
            && self.header.incidents.is_empty()
            && self.header.unchecked.is_none()
            && !self.is_held()
    }

    /// Returns the time at which a person is informed.
    pub(super) fn stuck_due(&self) -> Option<Time> {
        self.stands_still().then(|| self.header.at.after(PATIENCE))
    }
}

impl TransitionBuilder<'_> {
    /// Opens an incident for a run that has stood still for long enough.
    pub(super) fn tell_if_stuck(&mut self) {
        if self.run.stuck_due().is_some_and(|due| due <= self.now()) {
            let message = "nothing would ever move this run; its history tells how it came so far. \
                Compensate, cancel or kill it, and report this with its history";
            self.open_incident(IncidentKind::RunStuck, None, message.to_owned());
        }
    }
}

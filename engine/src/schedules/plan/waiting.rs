//! A start that has not been made yet, and the line of the history that it comes to.

use backstitch_saga::protocol::{ScheduleStart, StartOrigin, StartOutcome};
use backstitch_saga::{RunId, Span, Time};

use super::{Told, Waiting};

/// Clocks of nodes are less than this apart.
const APART: Span = Span::secs(1);

impl Waiting {
    /// Returns whether its time has come, and it is not decided.
    pub(super) fn is_open(&self) -> bool {
        !self.going && self.starts_at.is_none()
    }

    /// Returns the version that was fixed for it.
    pub(crate) fn version(&self) -> Option<u32> {
        self.version
    }

    /// Returns whether `run` began before this start was decided.
    pub(super) fn had_its_run(&self, run: RunId) -> bool {
        self.origin != StartOrigin::Trigger && run.began_at().after(APART) < self.since
    }

    pub(super) fn left_out(&self, now: Time, why: &str) -> Told {
        self.told(now, StartOutcome::Skipped, None, None, Some(why.to_owned()))
    }

    pub(super) fn told(
        &self,
        now: Time,
        outcome: StartOutcome,
        run: Option<RunId>,
        code: Option<String>,
        message: Option<String>,
    ) -> Told {
        Told {
            key: Some(self.key.clone()),
            start: ScheduleStart {
                at: now.into(),
                origin: self.origin,
                scheduled_for: self.instant.into(),
                outcome,
                run,
                count: 1,
                until: None,
                code,
                message,
                actor: self.actor.clone(),
            },
        }
    }
}

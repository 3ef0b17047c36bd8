//! Faults, and where they strike.

use backstitch_saga::protocol::Failure;
use backstitch_saga::{Action, StepPath, TaskKey};

use crate::TaskError;

/// Something that goes wrong at a step. It strikes the first time that its place is reached, unless
/// [`Fault::times`] or [`Fault::always`] says otherwise.
#[derive(Clone, Debug)]
pub struct Fault {
    place: Place,
    pub(super) kind: Kind,
    left: u32,
}

/// The place where a fault strikes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    step: StepPath,
    action: Action,
}

/// The kind of a fault.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// The handler is not called; its report is this failure.
    Fails(Failure),
    /// The handler is called; its report is that the effect may have happened.
    InDoubt,
    /// The worker dies before it calls the handler.
    LostBefore,
    /// The worker dies after the effect.
    Lost,
    /// The handler is called twice and reports twice.
    Repeated,
    /// The handler is called; its report comes after the lease is over.
    Late,
}

impl Fault {
    /// Returns a fault at the work of a step: `payment`, all items of a map `stock`, or one of
    /// them, `stock/1`.
    ///
    /// # Panics
    /// When that is no step.
    #[must_use]
    pub fn at(step: &str) -> Place {
        Place::new(step, Action::Forward)
    }

    /// Returns a fault at the undo of a step.
    ///
    /// # Panics
    /// When that is no step.
    #[must_use]
    pub fn undoing(step: &str) -> Place {
        Place::new(step, Action::Compensate)
    }

    /// Returns a fault at the probe that verifies a step.
    ///
    /// # Panics
    /// When that is no step.
    #[must_use]
    pub fn probing(step: &str) -> Place {
        Place::new(step, Action::Verify)
    }

    /// Sets the number of times that it strikes.
    #[must_use]
    pub fn times(self, times: u32) -> Fault {
        Fault { left: times, ..self }
    }

    /// Lets it strike every time.
    #[must_use]
    pub fn always(self) -> Fault {
        self.times(u32::MAX)
    }

    /// Returns the step or item, and the action on it, at which it strikes.
    pub(super) fn place(&self) -> (&StepPath, Action) {
        (&self.place.step, self.place.action)
    }

    /// Strikes at `task`, if this is its place and it is not used up.
    pub(super) fn strikes(&mut self, task: &TaskKey) -> bool {
        let Place { step, action } = &self.place;
        let here = *action == task.action
            && step.step == task.step.step
            && (step.item.is_none() || step.item == task.step.item);
        let strikes = here && self.left > 0;
        if strikes && self.left != u32::MAX {
            self.left -= 1;
        }
        strikes
    }
}

impl Place {
    fn new(step: &str, action: Action) -> Place {
        let step = step.parse().expect("a fault stands at a step like `payment` or `stock/1`");
        Place { step, action }
    }

    /// Returns the same place by its parts.
    #[must_use]
    pub fn of(step: StepPath, action: Action) -> Place {
        Place { step, action }
    }

    fn fault(self, kind: Kind) -> Fault {
        Fault { place: self, kind, left: 1 }
    }

    /// Lets the work fail with `error`, without an effect.
    #[must_use]
    pub fn fails(self, error: TaskError) -> Fault {
        self.fault(Kind::Fails(error.into_failure()))
    }

    /// Lets the work happen, while the worker knows only that it may have: a timeout after sending.
    #[must_use]
    pub fn in_doubt(self) -> Fault {
        self.fault(Kind::InDoubt)
    }

    /// Lets the work happen, after which the worker dies without a report.
    #[must_use]
    pub fn lost(self) -> Fault {
        self.fault(Kind::Lost)
    }

    /// Lets the worker die before anything happens.
    #[must_use]
    pub fn lost_before(self) -> Fault {
        self.fault(Kind::LostBefore)
    }

    /// Delivers the task twice: the handler runs twice, with the same effect key, and reports
    /// twice.
    #[must_use]
    pub fn repeated(self) -> Fault {
        self.fault(Kind::Repeated)
    }

    /// Lets the work happen, with a report after the end of its lease.
    #[must_use]
    pub fn late(self) -> Fault {
        self.fault(Kind::Late)
    }
}

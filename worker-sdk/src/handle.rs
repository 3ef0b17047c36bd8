//! Handles: the typed names of handlers. A definition refers to work by its handle and a worker registers a function
//! for it, so that a name, a queue, an input and an output are written down once.

use std::fmt;
use std::marker::PhantomData;

/// The queue of a handle that names none.
pub const DEFAULT_QUEUE: &str = "default";

macro_rules! handle {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name<In, Out> {
            name: &'static str,
            queue: &'static str,
            types: PhantomData<fn(In) -> Out>,
        }

        impl<In, Out> $name<In, Out> {
            /// Returns a handle on the queue `default`. The name is unique among the handlers of its queue.
            #[must_use]
            pub const fn new(name: &'static str) -> Self {
                Self { name, queue: DEFAULT_QUEUE, types: PhantomData }
            }

            /// Returns the same handle on another queue.
            #[must_use]
            pub const fn queue(self, queue: &'static str) -> Self {
                Self { name: self.name, queue, types: PhantomData }
            }

            /// Returns the handler's name, as in definitions and claims.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                self.name
            }

            /// Returns the queue that the work is offered on.
            #[must_use]
            pub const fn queue_name(&self) -> &'static str {
                self.queue
            }
        }

        impl<In, Out> Clone for $name<In, Out> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<In, Out> Copy for $name<In, Out> {}

        impl<In, Out> fmt::Debug for $name<In, Out> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({}/{})", stringify!($name), self.queue, self.name)
            }
        }
    };
}

handle! {
    /// Work that takes an `In` and gives an `Out`.
    ///
    /// ```
    /// use backstitch_sdk::Task;
    /// # struct Charge; struct Payment;
    /// pub const CHARGE_CARD: Task<Charge, Payment> = Task::new("charge_card").queue("payments");
    /// ```
    Task
}

handle! {
    /// Handle of the compensation of a step that takes an `In` and gives an `Out`. It fits only
    /// steps of those types.
    Undo
}

handle! {
    /// Handle of the probe that finds out whether an attempt in doubt of a step with these types
    /// happened.
    Probe
}

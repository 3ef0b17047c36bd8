//! Commands that wait for a shard: those that stop things go first. The commands of one run stay in order.

use std::collections::VecDeque;
use std::mem;

use super::envelope::Envelope;

/// Commands in the order in which they are to be decided.
#[derive(Default)]
pub(crate) struct Backlog {
    /// Kills, pauses and what else must not wait behind a flood.
    urgent: VecDeque<Envelope>,
    others: VecDeque<Envelope>,
}

impl Backlog {
    /// Adds a command. An urgent one takes those along that came before it for the same run.
    pub(crate) fn push_back(&mut self, envelope: Envelope) {
        if !envelope.urgent {
            self.others.push_back(envelope);
            return;
        }
        let run = envelope.run;
        if self.others.iter().any(|one| one.run == run) {
            let (before, others) =
                mem::take(&mut self.others).into_iter().partition(|one| one.run == run);
            self.others = others;
            self.urgent.extend::<VecDeque<_>>(before);
        }
        self.urgent.push_back(envelope);
    }

    /// Puts a command before all others.
    pub(crate) fn push_front(&mut self, envelope: Envelope) {
        self.urgent.push_front(envelope);
    }

    pub(crate) fn extend(&mut self, envelopes: impl IntoIterator<Item = Envelope>) {
        envelopes.into_iter().for_each(|envelope| self.push_back(envelope));
    }

    pub(crate) fn front(&self) -> Option<&Envelope> {
        self.urgent.front().or_else(|| self.others.front())
    }

    pub(crate) fn pop_front(&mut self) -> Option<Envelope> {
        self.urgent.pop_front().or_else(|| self.others.pop_front())
    }

    pub(crate) fn len(&self) -> usize {
        self.urgent.len() + self.others.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.others.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use backstitch_saga::RunId;
    use uuid::Uuid;

    use super::*;
    use crate::executor::envelope::Order;

    #[test]
    fn what_is_urgent_goes_before_what_came_earlier() {
        let order = || Order::tick();
        let run = |number| RunId(Uuid::from_u128(number));
        let mut backlog = Backlog::default();
        backlog.extend([1, 2].map(|number| Envelope::own(run(number), order())));
        let urgent = |number| Envelope { urgent: true, ..Envelope::own(run(number), order()) };
        backlog.extend([3, 4].map(urgent));
        backlog.push_front(Envelope::own(run(5), order()));
        assert_eq!((backlog.len(), backlog.front().map(|one| one.run)), (5, Some(run(5))));
        let taken = std::iter::from_fn(|| backlog.pop_front()).map(|one| one.run);
        assert_eq!(taken.collect::<Vec<_>>(), [5, 3, 4, 1, 2].map(run));
        assert!(backlog.is_empty());
    }

    #[test]
    fn an_urgent_command_goes_after_those_of_its_run_that_came_before() {
        let one = |run: u128, urgent, tries| {
            let order = Order::tick();
            Envelope { urgent, tries, ..Envelope::own(RunId(Uuid::from_u128(run)), order) }
        };
        let mut backlog = Backlog::default();
        backlog.extend([one(1, false, 1), one(2, false, 2), one(1, false, 3), one(3, false, 4)]);
        backlog.push_back(one(1, true, 5));
        backlog.push_back(one(1, false, 6));
        let taken = std::iter::from_fn(|| backlog.pop_front()).map(|one| one.tries);
        assert_eq!(taken.collect::<Vec<_>>(), [1, 3, 5, 2, 4, 6]);
    }
}

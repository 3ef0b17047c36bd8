//! Commands that wait for a shard. Namespaces take turns by the cost of their commands (deficit round robin), so that a
//! flood of one keeps another waiting for a turn only. Commands that stop things have lanes of their own and go first.
//!
//! The commands of one run stay in order: one that stops it takes along those that came before.

use std::sync::Arc;

use super::in_flight::{InFlight, May, Waits};
use super::lanes::{Lane, Lanes};
use super::request::Request;

/// Commands in the order in which they are to be decided.
#[derive(Default)]
pub(crate) struct Backlog {
    /// Kills, pauses and what else must not wait behind a flood.
    urgent: Lanes,
    others: Lanes,
    /// Number of urgent commands for which the present batch has room, if other commands wait.
    urgent_room: usize,
}

impl Backlog {
    /// Adds a command behind those of its namespace. An urgent one takes those of its run along that came before.
    pub(crate) fn push_back(&mut self, envelope: Request) {
        if !envelope.urgent {
            return self.others.push_back(envelope);
        }
        for before in self.others.take_run(envelope.payer(), envelope.run) {
            self.urgent.push_back(before);
        }
        self.urgent.push_back(envelope);
    }

    /// Puts a command that was taken back before those of its namespace, the last one first: it stays before what is
    /// urgent of its run.
    pub(crate) fn push_front(&mut self, envelope: Request) {
        if envelope.urgent || self.urgent.has(envelope.payer(), envelope.run) {
            return self.urgent.push_front(envelope);
        }
        self.others.push_front(envelope);
    }

    pub(crate) fn extend(&mut self, envelopes: impl IntoIterator<Item = Request>) {
        envelopes.into_iter().for_each(|envelope| self.push_back(envelope));
    }

    /// Makes a namespace pay for `bytes` of documents that its commands put together.
    pub(crate) fn charge(&mut self, namespace: &Arc<str>, bytes: usize) {
        self.others.charge(namespace, bytes);
    }

    /// Counts the commands that wait, by whether their namespace has batches under way.
    pub(crate) fn waits(&self, in_flight: &InFlight) -> Waits {
        let mut waits = Waits { first: self.urgent.count, ..Waits::default() };
        for lane in self.others.waiting() {
            waits.add(in_flight.of(lane.namespace()), lane.len());
        }
        waits
    }

    /// Begins to take a batch of about `size` commands from the lanes that `may` allows. Urgent ones get half of it at
    /// most while others wait, so that a flood of them stops nothing.
    pub(crate) fn begin_batch(&mut self, size: usize, in_flight: &InFlight, may: May) {
        self.urgent_room = if may.first { (size / 2).max(1) } else { 0 };
        self.others.open(|lane: &Lane| may.takes(in_flight.of(lane.namespace())));
        self.urgent.open(|_| may.first);
    }

    fn urgent_next(&self) -> bool {
        self.urgent.has_next() && (self.urgent_room > 0 || !self.others.has_next())
    }

    /// Returns the next command.
    pub(crate) fn front(&mut self) -> Option<&Request> {
        if self.urgent_next() { self.urgent.front() } else { self.others.front() }
    }

    /// Takes the next command.
    pub(crate) fn pop_front(&mut self) -> Option<Request> {
        if self.urgent_next() {
            self.urgent_room = self.urgent_room.saturating_sub(1);
            return self.urgent.pop_front();
        }
        self.others.pop_front()
    }

    pub(crate) fn len(&self) -> usize {
        self.urgent.count + self.others.count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use backstitch_saga::{Command, Payload, RunId};
    use uuid::Uuid;

    use super::*;
    use crate::executor::lanes::{COMMAND_COST, IDLE_LANES, QUANTUM};
    use crate::executor::request::ShardCommand;

    impl Backlog {
        fn begin(&mut self, size: usize) {
            self.begin_batch(size, &InFlight::default(), May { first: true, further: true });
        }
    }

    fn run(number: u128) -> RunId {
        RunId(Uuid::from_u128(number))
    }

    fn one(namespace: &str, number: u128) -> Request {
        Request::own(run(number), ShardCommand::tick()).paid_by(&namespace.into())
    }

    fn urgent(namespace: &str, number: u128) -> Request {
        one(namespace, number).urgent_if(true)
    }

    fn numbers(backlog: &mut Backlog) -> Vec<u128> {
        std::iter::from_fn(|| backlog.pop_front()).map(|one| one.run.0.as_u128()).collect()
    }

    /// Returns the number of commands before the command of run `number`.
    fn before(backlog: &mut Backlog, number: u128) -> usize {
        numbers(backlog).iter().position(|one| *one == number).unwrap()
    }

    #[test]
    fn commands_of_one_namespace_stay_in_order() {
        let mut backlog = Backlog::default();
        backlog.extend((0..1_000).map(|number| one("a", number)));
        assert_eq!(backlog.len(), 1_000);
        assert_eq!(numbers(&mut backlog), (0..1_000).collect::<Vec<_>>());
        assert!(backlog.is_empty());
    }

    #[test]
    fn a_flood_of_one_namespace_keeps_another_waiting_for_one_turn() {
        let mut backlog = Backlog::default();
        backlog.extend((0..20_000).map(|number| one("flood", number)));
        backlog.extend([20_001, 20_002].map(|number| one("calm", number)));
        assert!(before(&mut backlog, 20_002) <= QUANTUM / COMMAND_COST + 2);
    }

    #[test]
    fn each_of_many_floods_gets_the_same() {
        let mut backlog = Backlog::default();
        for flood in 0..10 {
            backlog.extend((0..1_000).map(|_| one(&format!("flood-{flood}"), flood)));
        }
        let mut counts = [0_i32; 10];
        for _ in 0..3_200 {
            let next = backlog.pop_front().unwrap().run.0.as_u128();
            counts[usize::try_from(next).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (count - 320).abs() <= 32), "{counts:?}");
    }

    #[test]
    fn turns_are_measured_by_bytes_and_not_by_commands() {
        let text = format!("\"{}\"", "x".repeat(100_000));
        let large = |number| {
            let details = Payload::trusted(text.clone()).unwrap();
            let task = backstitch_saga::TaskKey {
                step: backstitch_saga::StepPath::step("a"),
                action: backstitch_saga::Action::Forward,
                attempt: 1,
            };
            let order = ShardCommand::Command(Command::Beat { task, details: Some(details) });
            Request::own(run(number), order).paid_by(&"large".into())
        };
        let mut backlog = Backlog::default();
        backlog.extend((0..100).map(large));
        backlog.extend((100..400).map(|number| one("small", number)));
        let order = numbers(&mut backlog);
        let large_first = order[..300].iter().filter(|number| **number < 100).count();
        // 300 small ones cost as much as three large ones.
        assert!((1..=5).contains(&large_first), "{large_first}");
    }

    #[test]
    fn what_is_urgent_goes_before_what_came_earlier() {
        let mut backlog = Backlog::default();
        backlog.extend([1, 2].map(|number| one("a", number)));
        backlog.extend([3, 4].map(|number| urgent("b", number)));
        backlog.push_front(one("a", 5));
        backlog.begin(8);
        assert_eq!((backlog.len(), backlog.front().map(|one| one.run)), (5, Some(run(3))));
        assert_eq!(numbers(&mut backlog), [3, 4, 5, 1, 2]);
    }

    #[test]
    fn an_urgent_command_takes_along_what_came_before_for_its_run() {
        let tries = |mut one: Request, tries| {
            one.tries = tries;
            one
        };
        let mut backlog = Backlog::default();
        let before = [(1, 1), (2, 2), (1, 3), (3, 4)];
        backlog.extend(before.map(|(number, nth)| tries(one("a", number), nth)));
        backlog.push_back(tries(one("b", 9), 9));
        backlog.push_back(tries(urgent("a", 1), 5));
        backlog.push_back(tries(one("a", 1), 6));
        backlog.push_back(tries(urgent("a", 3), 7));
        assert_eq!(backlog.len(), 8);
        backlog.begin(16);
        let taken = std::iter::from_fn(|| backlog.pop_front()).map(|one| one.tries);
        assert_eq!(taken.collect::<Vec<_>>(), [1, 3, 5, 4, 7, 2, 6, 9]);
        assert!(backlog.others.runs.is_empty() && backlog.urgent.runs.is_empty());
    }

    #[test]
    fn an_urgent_command_finds_those_of_its_run_after_others_were_taken() {
        let mut backlog = Backlog::default();
        backlog.extend((0..100).map(|number| one("a", number % 10)));
        for _ in 0..35 {
            backlog.pop_front();
        }
        backlog.push_back(urgent("a", 4));
        backlog.begin(256);
        assert_eq!(numbers(&mut backlog)[..8], [4, 4, 4, 4, 4, 4, 4, 5]);
    }

    #[test]
    fn a_flood_of_urgent_commands_leaves_half_of_a_batch_to_others() {
        let mut backlog = Backlog::default();
        backlog.extend((0..1_000).map(|number| urgent("flood", number)));
        backlog.extend((1_000..1_100).map(|number| one("calm", number)));
        backlog.begin(256);
        let batch: Vec<_> = (0..256).filter_map(|_| backlog.pop_front()).collect();
        assert_eq!(batch.iter().filter(|one| !one.urgent).count(), 100);
    }

    #[test]
    fn an_urgent_command_of_one_namespace_does_not_wait_behind_those_of_another() {
        let mut backlog = Backlog::default();
        backlog.extend((0..1_000).map(|number| urgent("flood", number)));
        backlog.push_back(urgent("calm", 1_000));
        backlog.begin(2_000);
        assert!(before(&mut backlog, 1_000) <= QUANTUM / COMMAND_COST);
    }

    #[test]
    fn what_is_put_back_keeps_its_order_and_nobody_else_waiting() {
        let mut backlog = Backlog::default();
        backlog.extend((0..100).map(|number| one("flood", number)));
        backlog.begin(256);
        let taken: Vec<_> = (0..10).filter_map(|_| backlog.pop_front()).collect();
        taken.into_iter().rev().for_each(|envelope| backlog.push_front(envelope));
        backlog.push_back(one("calm", 1_000));
        backlog.push_back(urgent("flood", 5));
        backlog.begin(256);
        assert_eq!(backlog.len(), 102);
        let order = numbers(&mut backlog);
        assert_eq!(order[..2], [5, 5]);
        let calm = order.iter().position(|number| *number == 1_000).unwrap();
        assert!(calm <= 2 + QUANTUM / COMMAND_COST, "{calm}");
        let flood: Vec<u128> =
            order[2..].iter().copied().filter(|number| *number != 1_000).collect();
        assert_eq!(flood, (0..100).filter(|number| *number != 5).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_put_back_stays_before_what_is_urgent_of_its_run() {
        let tries = |mut one: Request, tries| {
            one.tries = tries;
            one
        };
        let mut backlog = Backlog::default();
        backlog.push_back(tries(one("a", 1), 1));
        backlog.push_back(tries(urgent("a", 1), 2));
        backlog.push_back(tries(one("a", 1), 3));
        backlog.begin(256);
        let taken: Vec<_> = std::iter::from_fn(|| backlog.pop_front()).collect();
        taken.into_iter().rev().for_each(|envelope| backlog.push_front(envelope));
        backlog.push_back(tries(urgent("a", 1), 4));
        backlog.begin(256);
        let order = std::iter::from_fn(|| backlog.pop_front()).map(|one| one.tries);
        assert_eq!(order.collect::<Vec<_>>(), [1, 2, 3, 4]);
    }

    #[test]
    fn a_namespace_pays_for_documents_that_its_commands_put_together() {
        let mut backlog = Backlog::default();
        backlog.extend((0..200).map(|number| one("large", number)));
        backlog.extend((200..400).map(|number| one("small", number)));
        backlog.charge(&"large".into(), 100 * QUANTUM);
        backlog.begin(1_000);
        assert_eq!(numbers(&mut backlog)[..200], (200..400).collect::<Vec<_>>());
        backlog.push_back(one("large", 1));
        backlog.begin(1_000);
        assert_eq!(numbers(&mut backlog), [1], "nobody pays while nobody else waits");
    }

    #[test]
    fn a_namespace_with_batches_under_way_leaves_the_next_to_others() {
        let mut backlog = Backlog::default();
        backlog.extend((0..100).map(|number| one("flood", number)));
        backlog.extend((100..110).map(|number| one("calm", number)));
        let mut in_flight = InFlight::default();
        in_flight.add(&["flood".into()], false);
        in_flight.add(&["flood".into()], false);
        let waits = backlog.waits(&in_flight);
        assert_eq!((waits.first, waits.further), (10, 0));
        let may = in_flight.may(waits, 64);
        backlog.begin_batch(256, &in_flight, may);
        assert_eq!(numbers(&mut backlog), (100..110).collect::<Vec<_>>());
        backlog.push_back(one("flood", 100));
        backlog.begin(256);
        assert_eq!(numbers(&mut backlog), (0..=100).collect::<Vec<_>>());
    }

    #[test]
    fn namespaces_that_are_gone_are_forgotten() {
        let mut backlog = Backlog::default();
        for number in 0..10_000 {
            backlog.push_back(one(&format!("n{number}"), number));
            if number % 100 == 99 {
                assert_eq!(numbers(&mut backlog).len(), 100);
            }
        }
        assert!(backlog.others.lanes.len() <= 2 * IDLE_LANES, "{}", backlog.others.lanes.len());
    }

    #[test]
    fn lanes_keep_their_commands_when_others_are_forgotten() {
        let mut backlog = Backlog::default();
        backlog.extend((0..10).map(|number| one("stays", number)));
        for number in 0..u128::try_from(3 * IDLE_LANES).unwrap() {
            backlog.push_back(one(&format!("n{number}"), 1_000 + number));
            while backlog.len() > 10 {
                let next = backlog.pop_front().unwrap();
                if next.run.0.as_u128() < 1_000 {
                    backlog.push_back(one("stays", next.run.0.as_u128()));
                }
            }
        }
        let mut left = numbers(&mut backlog);
        left.sort_unstable();
        assert_eq!(left, (0..10).collect::<Vec<_>>());
    }
}

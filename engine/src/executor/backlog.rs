//! Commands that wait for a shard. Namespaces take turns by the cost of their commands (deficit round robin), so that a
//! flood of one keeps another waiting for a turn only. Commands that stop things have lanes of their own and go first.
//!
//! The commands of one run stay in order: one that stops it takes along those that came before.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use backstitch_saga::RunId;

use super::envelope::Envelope;

/// The cost of a command beside the bytes that it brings.
const COMMAND_COST: usize = 1_024;
/// The cost that a namespace may spend in one turn, while others wait.
const QUANTUM: usize = 32 * COMMAND_COST;
/// How many namespaces without a waiting command are remembered.
const IDLE_LANES: usize = 256;

/// Commands in the order in which they are to be decided.
#[derive(Default)]
pub(crate) struct Backlog {
    /// What was taken before, and goes before all others.
    returned: VecDeque<Envelope>,
    /// Kills, pauses and what else must not wait behind a flood.
    urgent: Lanes,
    others: Lanes,
    /// How many urgent commands the batch that is being taken has room for, if others wait.
    urgent_room: usize,
}

/// The commands of all namespaces.
#[derive(Default)]
struct Lanes {
    /// The first is the engine's own.
    lanes: Vec<Lane>,
    places: HashMap<Arc<str>, usize>,
    /// The lanes in which something waits; the first has its turn.
    turns: VecDeque<usize>,
    /// The lane that was looked up last: commands come in groups of one namespace.
    last: usize,
    count: usize,
    /// The commands of each run, by their lane.
    runs: HashMap<(usize, RunId), Waiting>,
}

/// Where the commands of a run wait in their lane.
struct Waiting {
    /// None of them is before this position.
    first: u64,
    count: u32,
}

/// The commands of one namespace.
struct Lane {
    /// `None` for the engine itself.
    namespace: Option<Arc<str>>,
    /// `None` stands where a command was taken out of turn. Neither the first nor the last is `None`.
    waiting: VecDeque<Option<Envelope>>,
    /// The position of the first that waits.
    position: u64,
    /// The cost that it may still spend in its turn.
    credit: usize,
}

impl Lane {
    fn new(namespace: Option<Arc<str>>) -> Lane {
        Lane { namespace, waiting: VecDeque::new(), position: 0, credit: 0 }
    }

    fn front(&self) -> Option<&Envelope> {
        self.waiting.front()?.as_ref()
    }

    fn pop_front(&mut self) -> Option<Envelope> {
        let first = self.waiting.pop_front()?;
        self.position += 1;
        self.trim();
        first
    }

    /// Drops the gaps at both ends.
    fn trim(&mut self) {
        while matches!(self.waiting.front(), Some(None)) {
            self.waiting.pop_front();
            self.position += 1;
        }
        while matches!(self.waiting.back(), Some(None)) {
            self.waiting.pop_back();
        }
    }
}

fn cost(envelope: &Envelope) -> usize {
    COMMAND_COST + envelope.bytes()
}

impl Lanes {
    /// Finds the lane of a namespace, or makes one.
    fn place_of(&mut self, namespace: Option<&Arc<str>>) -> usize {
        if self.lanes.is_empty() {
            self.lanes.push(Lane::new(None));
        }
        let Some(namespace) = namespace else { return 0 };
        let is_last = |lane: &Lane| lane.namespace.as_ref().is_some_and(|last| last == namespace);
        if self.lanes.get(self.last).is_some_and(is_last) {
            return self.last;
        }
        let place = match self.places.get(namespace) {
            Some(place) => *place,
            None => {
                if self.lanes.len() > IDLE_LANES.max(2 * self.turns.len()) {
                    self.forget_idle();
                }
                self.lanes.push(Lane::new(Some(Arc::clone(namespace))));
                self.places.insert(Arc::clone(namespace), self.lanes.len() - 1);
                self.lanes.len() - 1
            }
        };
        self.last = place;
        place
    }

    /// Forgets the namespaces of which nothing waits.
    fn forget_idle(&mut self) {
        let before = std::mem::take(&mut self.lanes);
        let mut moved = HashMap::with_capacity(self.turns.len());
        for (place, lane) in before.into_iter().enumerate() {
            if place == 0 || !lane.waiting.is_empty() {
                moved.insert(place, self.lanes.len());
                self.lanes.push(lane);
            }
        }
        self.turns.iter_mut().for_each(|place| *place = moved.get(place).copied().unwrap_or(0));
        let runs = std::mem::take(&mut self.runs).into_iter();
        self.runs = runs
            .filter_map(|((place, run), waiting)| Some(((*moved.get(&place)?, run), waiting)))
            .collect();
        self.places.retain(|_, place| match moved.get(place) {
            Some(now) => {
                *place = *now;
                true
            }
            None => false,
        });
        self.last = 0;
    }

    fn push_back(&mut self, envelope: Envelope) {
        let place = self.place_of(envelope.payer());
        let lane = &mut self.lanes[place];
        if lane.waiting.is_empty() {
            lane.credit = QUANTUM;
            self.turns.push_back(place);
        }
        let position = lane.position + lane.waiting.len() as u64;
        let known = self.runs.entry((place, envelope.run));
        known.or_insert(Waiting { first: position, count: 0 }).count += 1;
        lane.waiting.push_back(Some(envelope));
        self.count += 1;
    }

    /// Takes out the commands of a run that wait in the lane of `namespace`, in order.
    fn take_run(&mut self, namespace: Option<&Arc<str>>, run: RunId) -> Vec<Envelope> {
        if self.count == 0 {
            return Vec::new();
        }
        let place = self.place_of(namespace);
        let Some(Waiting { first, count }) = self.runs.remove(&(place, run)) else {
            return Vec::new();
        };
        let lane = &mut self.lanes[place];
        let start = usize::try_from(first.saturating_sub(lane.position)).unwrap_or(usize::MAX);
        let wanted = usize::try_from(count).unwrap_or(usize::MAX);
        let is_of = |one: &Option<Envelope>| one.as_ref().is_some_and(|one| one.run == run);
        let found = lane.waiting.iter_mut().skip(start).filter(|one| is_of(one));
        let taken: Vec<Envelope> = found.take(wanted).filter_map(Option::take).collect();
        self.count -= taken.len();
        lane.trim();
        if lane.waiting.is_empty() {
            self.turns.retain(|turn| *turn != place);
        }
        taken
    }

    /// Gives the turn on until it is with a namespace that can pay for its next command.
    fn settle_turn(&mut self) {
        while self.turns.len() > 1
            && let Some(place) = self.turns.front()
        {
            let lane = &mut self.lanes[*place];
            if lane.front().is_none_or(|next| cost(next) <= lane.credit) {
                return;
            }
            lane.credit += QUANTUM;
            self.turns.rotate_left(1);
        }
    }

    fn front(&mut self) -> Option<&Envelope> {
        self.settle_turn();
        self.lanes[*self.turns.front()?].front()
    }

    fn pop_front(&mut self) -> Option<Envelope> {
        self.settle_turn();
        let place = *self.turns.front()?;
        let lane = &mut self.lanes[place];
        let envelope = lane.pop_front()?;
        self.count -= 1;
        if let Some(waiting) = self.runs.get_mut(&(place, envelope.run)) {
            waiting.count -= 1;
            if waiting.count == 0 {
                self.runs.remove(&(place, envelope.run));
            }
        }
        // Nobody pays while nobody else waits.
        if self.turns.len() > 1 {
            lane.credit = lane.credit.saturating_sub(cost(&envelope));
        }
        if lane.waiting.is_empty() {
            self.turns.pop_front();
        }
        Some(envelope)
    }
}

impl Backlog {
    /// Adds a command behind those of its namespace. An urgent one takes those of its run along that came before.
    pub(crate) fn push_back(&mut self, envelope: Envelope) {
        if !envelope.urgent {
            return self.others.push_back(envelope);
        }
        for before in self.others.take_run(envelope.payer(), envelope.run) {
            self.urgent.push_back(before);
        }
        self.urgent.push_back(envelope);
    }

    /// Puts a command before all others.
    pub(crate) fn push_front(&mut self, envelope: Envelope) {
        self.returned.push_front(envelope);
    }

    pub(crate) fn extend(&mut self, envelopes: impl IntoIterator<Item = Envelope>) {
        envelopes.into_iter().for_each(|envelope| self.push_back(envelope));
    }

    /// Begins to take a batch of about `size` commands. Urgent ones get half of it at most while others wait, so that a
    /// flood of them stops nobody.
    pub(crate) fn begin_batch(&mut self, size: usize) {
        self.urgent_room = (size / 2).max(1);
    }

    fn urgent_next(&self) -> bool {
        self.urgent.count > 0 && (self.urgent_room > 0 || self.others.count == 0)
    }

    /// Returns the next command.
    pub(crate) fn front(&mut self) -> Option<&Envelope> {
        if !self.returned.is_empty() {
            return self.returned.front();
        }
        if self.urgent_next() { self.urgent.front() } else { self.others.front() }
    }

    /// Takes the next command.
    pub(crate) fn pop_front(&mut self) -> Option<Envelope> {
        if let Some(envelope) = self.returned.pop_front() {
            return Some(envelope);
        }
        if self.urgent_next() {
            self.urgent_room = self.urgent_room.saturating_sub(1);
            return self.urgent.pop_front();
        }
        self.others.pop_front()
    }

    pub(crate) fn len(&self) -> usize {
        self.returned.len() + self.urgent.count + self.others.count
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
    use crate::executor::envelope::Order;

    fn run(number: u128) -> RunId {
        RunId(Uuid::from_u128(number))
    }

    fn one(namespace: &str, number: u128) -> Envelope {
        Envelope::own(run(number), Order::tick()).paid_by(&namespace.into())
    }

    fn urgent(namespace: &str, number: u128) -> Envelope {
        Envelope { urgent: true, ..one(namespace, number) }
    }

    fn numbers(backlog: &mut Backlog) -> Vec<u128> {
        std::iter::from_fn(|| backlog.pop_front()).map(|one| one.run.0.as_u128()).collect()
    }

    /// After how many commands the command of run `number` comes.
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
            let order = Order::Command(Command::Beat { task, details: Some(details) });
            Envelope::own(run(number), order).paid_by(&"large".into())
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
        backlog.begin_batch(8);
        assert_eq!((backlog.len(), backlog.front().map(|one| one.run)), (5, Some(run(5))));
        assert_eq!(numbers(&mut backlog), [5, 3, 4, 1, 2]);
    }

    #[test]
    fn an_urgent_command_takes_along_what_came_before_for_its_run() {
        let tries = |one: Envelope, tries| Envelope { tries, ..one };
        let mut backlog = Backlog::default();
        let before = [(1, 1), (2, 2), (1, 3), (3, 4)];
        backlog.extend(before.map(|(number, nth)| tries(one("a", number), nth)));
        backlog.push_back(tries(one("b", 9), 9));
        backlog.push_back(tries(urgent("a", 1), 5));
        backlog.push_back(tries(one("a", 1), 6));
        backlog.push_back(tries(urgent("a", 3), 7));
        assert_eq!(backlog.len(), 8);
        backlog.begin_batch(16);
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
        backlog.begin_batch(256);
        assert_eq!(numbers(&mut backlog)[..8], [4, 4, 4, 4, 4, 4, 4, 5]);
    }

    #[test]
    fn a_flood_of_urgent_commands_leaves_half_of_a_batch_to_others() {
        let mut backlog = Backlog::default();
        backlog.extend((0..1_000).map(|number| urgent("flood", number)));
        backlog.extend((1_000..1_100).map(|number| one("calm", number)));
        backlog.begin_batch(256);
        let batch: Vec<_> = (0..256).filter_map(|_| backlog.pop_front()).collect();
        assert_eq!(batch.iter().filter(|one| !one.urgent).count(), 100);
    }

    #[test]
    fn an_urgent_command_of_one_namespace_does_not_wait_behind_those_of_another() {
        let mut backlog = Backlog::default();
        backlog.extend((0..1_000).map(|number| urgent("flood", number)));
        backlog.push_back(urgent("calm", 1_000));
        backlog.begin_batch(2_000);
        assert!(before(&mut backlog, 1_000) <= QUANTUM / COMMAND_COST);
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

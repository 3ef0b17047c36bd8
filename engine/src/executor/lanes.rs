//! The lanes in which the commands of namespaces wait for a shard. Lanes take turns by the cost of their commands
//! (deficit round robin); one that may not be taken from now is closed for a batch.

use std::collections::VecDeque;
use std::sync::Arc;

use backstitch_saga::RunId;

use super::request::Request;
use crate::maps::{FastMap, map_for};

/// The cost of a command beside the bytes that it brings.
pub(super) const COMMAND_COST: usize = 1_024;
/// The cost that a namespace may spend in one turn, while others wait.
pub(super) const QUANTUM: usize = 32 * COMMAND_COST;
/// The most that a namespace owes for documents that its commands put together.
const MOST_DEBT: isize = 1024 * 1024;
/// Number of namespaces without a waiting command that are remembered.
pub(super) const IDLE_LANES: usize = 256;
/// The position of the first command of a lane: what is put back before it has room.
const FIRST_POSITION: u64 = 1 << 40;

/// The commands of all namespaces.
#[derive(Default)]
pub(super) struct Lanes {
    /// The first is the engine's own.
    pub(super) lanes: Vec<Lane>,
    places: FastMap<Arc<str>, usize>,
    /// The lanes in which something waits that may be taken; the first has its turn.
    turns: VecDeque<usize>,
    /// The lanes in which something waits that may not be taken for this batch.
    closed: Vec<usize>,
    /// The lane that was looked up last: commands come in groups of one namespace.
    last: usize,
    pub(super) count: usize,
    /// The commands of each run, by their lane.
    pub(super) runs: FastMap<(usize, RunId), Waiting>,
}

/// Place of the commands of a run in their lane.
pub(super) struct Waiting {
    /// None of them is before this position.
    first: u64,
    count: u32,
}

/// The commands of one namespace.
pub(super) struct Lane {
    /// `None` for the engine itself.
    namespace: Option<Arc<str>>,
    /// `None` marks a command that was taken out of turn. Neither the first nor the last is `None`.
    waiting: VecDeque<Option<Request>>,
    /// The position of the first that waits.
    position: u64,
    /// The cost that it may still spend in its turn; below zero while it owes for what it has had.
    credit: isize,
}

impl Lane {
    fn new(namespace: Option<Arc<str>>) -> Lane {
        Lane { namespace, waiting: VecDeque::new(), position: FIRST_POSITION, credit: 0 }
    }

    /// Returns the namespace; `None` for the engine itself.
    pub(super) fn namespace(&self) -> Option<&Arc<str>> {
        self.namespace.as_ref()
    }

    /// Returns the approximate number of waiting commands.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    fn front(&self) -> Option<&Request> {
        self.waiting.front()?.as_ref()
    }

    fn pop_front(&mut self) -> Option<Request> {
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

fn signed(cost: usize) -> isize {
    isize::try_from(cost).unwrap_or(isize::MAX)
}

fn cost(envelope: &Request) -> isize {
    signed(COMMAND_COST + envelope.bytes())
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
                if self.lanes.len() > IDLE_LANES.max(2 * (self.turns.len() + self.closed.len())) {
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

    /// Forgets the namespaces without waiting commands.
    fn forget_idle(&mut self) {
        let before = std::mem::take(&mut self.lanes);
        let mut moved = map_for(self.turns.len());
        for (place, lane) in before.into_iter().enumerate() {
            if place == 0 || !lane.waiting.is_empty() {
                moved.insert(place, self.lanes.len());
                self.lanes.push(lane);
            }
        }
        let known = self.turns.iter_mut().chain(&mut self.closed);
        known.for_each(|place| *place = moved.get(place).copied().unwrap_or(0));
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

    /// Adds a command behind those of its namespace.
    pub(super) fn push_back(&mut self, envelope: Request) {
        let place = self.place_of(envelope.payer());
        let lane = &mut self.lanes[place];
        if lane.waiting.is_empty() {
            lane.credit = lane.credit.min(0) + signed(QUANTUM);
            self.turns.push_back(place);
        }
        let position = lane.position + lane.waiting.len() as u64;
        let known = self.runs.entry((place, envelope.run));
        known.or_insert(Waiting { first: position, count: 0 }).count += 1;
        lane.waiting.push_back(Some(envelope));
        self.count += 1;
    }

    /// Puts a command back before those of its namespace.
    pub(super) fn push_front(&mut self, envelope: Request) {
        let place = self.place_of(envelope.payer());
        let lane = &mut self.lanes[place];
        if lane.waiting.is_empty() {
            self.turns.push_front(place);
        }
        lane.position -= 1;
        let known = self.runs.entry((place, envelope.run));
        let waiting = known.or_insert(Waiting { first: lane.position, count: 0 });
        waiting.first = lane.position;
        waiting.count += 1;
        lane.waiting.push_front(Some(envelope));
        self.count += 1;
    }

    /// Returns whether a command of a run waits in the lane of `namespace`.
    pub(super) fn has(&self, namespace: Option<&Arc<str>>, run: RunId) -> bool {
        if self.count == 0 {
            return false;
        }
        let place = match namespace {
            Some(namespace) => self.places.get(namespace).copied(),
            None => Some(0),
        };
        place.is_some_and(|place| self.runs.contains_key(&(place, run)))
    }

    /// Makes a namespace pay for `bytes` of documents that its commands put together.
    pub(super) fn charge(&mut self, namespace: &Arc<str>, bytes: usize) {
        if let Some(place) = self.places.get(namespace) {
            let credit = &mut self.lanes[*place].credit;
            *credit = credit.saturating_sub(signed(bytes)).max(-MOST_DEBT);
        }
    }

    /// Opens the lanes that `may` be taken from now, and closes the others.
    pub(super) fn open(&mut self, may: impl Fn(&Lane) -> bool) {
        self.turns.extend(self.closed.drain(..));
        let lanes = &self.lanes;
        let closed = &mut self.closed;
        self.turns.retain(|place| {
            let open = may(&lanes[*place]);
            if !open {
                closed.push(*place);
            }
            open
        });
    }

    /// Returns the lanes in which something waits.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Lane> {
        self.turns.iter().chain(&self.closed).map(|place| &self.lanes[*place])
    }

    /// Returns whether a command may be taken.
    pub(super) fn has_next(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Takes out the commands of a run that wait in the lane of `namespace`, in order.
    pub(super) fn take_run(&mut self, namespace: Option<&Arc<str>>, run: RunId) -> Vec<Request> {
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
        let is_of = |one: &Option<Request>| one.as_ref().is_some_and(|one| one.run == run);
        let found = lane.waiting.iter_mut().skip(start).filter(|one| is_of(one));
        let taken: Vec<Request> = found.take(wanted).filter_map(Option::take).collect();
        self.count -= taken.len();
        lane.trim();
        if lane.waiting.is_empty() {
            self.turns.retain(|turn| *turn != place);
            self.closed.retain(|closed| *closed != place);
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
            lane.credit += signed(QUANTUM);
            self.turns.rotate_left(1);
        }
    }

    /// Returns the next command.
    pub(super) fn front(&mut self) -> Option<&Request> {
        self.settle_turn();
        self.lanes[*self.turns.front()?].front()
    }

    /// Takes the next command.
    pub(super) fn pop_front(&mut self) -> Option<Request> {
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
        // A namespace pays only while others wait.
        if self.turns.len() + self.closed.len() > 1 {
            lane.credit = lane.credit.saturating_sub(cost(&envelope));
        }
        if lane.waiting.is_empty() {
            self.turns.pop_front();
        }
        Some(envelope)
    }
}

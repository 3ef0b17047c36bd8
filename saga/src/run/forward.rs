//! Going forward: steps that begin, fan-outs and their joins, and the consequences of a failed step.

use super::decide::{TransitionBuilder, own_failure};
use super::scope::Use;
use super::state::{MapStage, Stage, Undo, WorkIndex};
use super::{Mode, Run};
use crate::envelope::{self, VALUE_ENCRYPTED};
use crate::event::{Event, Fate, Source};
use crate::expr::Memo;
use crate::json::Kind;
use crate::protocol::Failure;
use crate::ratio::share;
use crate::{
    Action, Body, Cause, Empty, Expr, Fail, Join, Losers, Map, OnFailure, Payload, StepPath,
    Tolerance,
};

/// The most items that a fan-out may have.
pub(crate) const MAX_ITEMS: usize = 1_000_000;

impl TransitionBuilder<'_> {
    /// Begins every step whose needs are settled, and all that follows from that. While the run is held none
    /// begins.
    pub(super) fn advance(&mut self) {
        while let Some(step) = self.ready.pop_front() {
            let turn = self.run.header.mode == Mode::Forward && !self.run.is_held();
            if turn && !self.has_begun(step) && !self.undone_in_time(Some(step)) {
                self.begin(step);
            }
        }
    }

    fn has_begun(&self, step: usize) -> bool {
        match self.run.items_of(step) {
            Some(items) => items.stage != MapStage::Waiting,
            None => {
                self.work(WorkIndex::step(step)).is_none_or(|work| work.stage != Stage::Waiting)
            }
        }
    }

    fn begin(&mut self, step: usize) {
        if !self.has_room() {
            return self.defer(step);
        }
        let graph = self.run.graph.clone();
        let node = &graph.nodes[step];
        let missing = node.requires.iter().find(|&&need| !self.run.has_succeeded(need));
        if let Some(&need) = missing {
            let missing = Some(graph.nodes[need].id.clone());
            self.emit(Event::Skipped { step: node.id.clone(), missing });
            return;
        }
        let begun = match node.when.as_ref().map(|when| self.guard(when)) {
            Some(Ok(false)) => {
                self.emit(Event::Skipped { step: node.id.clone(), missing: None });
                return;
            }
            Some(Err(error)) => Err(error),
            Some(Ok(true)) | None => match &node.body {
                Body::Task(task) => self.input_of(step, &task.input, Use::Input).map(|source| {
                    self.first_offer(WorkIndex::step(step), source);
                }),
                Body::Map(map) => self.open(step, map),
                Body::Wait(_) | Body::Sleep(_) | Body::Child(_) => self.begin_waiting(step),
                Body::Fail(fail) => Err(self.on_purpose(fail)),
            },
        };
        if let Err(error) = begun {
            let path = StepPath::step(node.id.clone());
            self.emit(Event::GaveUp {
                step: path.clone(),
                fate: Fate::Failed,
                error: Some(error.clone()),
            });
            self.step_failed(step, Some(path), error);
        }
    }

    /// Returns the failure that a definition asks for.
    fn on_purpose(&mut self, fail: &Fail) -> Failure {
        let details = fail.details.as_ref().map(|expr| self.value(expr, Use::Value)).transpose();
        match details {
            Ok(details) => Failure { details, ..own_failure(&fail.code, fail.message.clone()) },
            Err(error) => error,
        }
    }

    /// Returns the input of a step: what a rerun gave it, or what its definition says.
    pub(super) fn input_of(
        &mut self,
        step: usize,
        expr: &Expr,
        becomes: Use,
    ) -> Result<Source, Failure> {
        let given = self.run.header.given_input.as_ref().filter(|(of, _)| *of == step);
        match given.map(|(_, input)| input.clone()) {
            Some(input) => Ok(Source::Slot(self.slot(input))),
            None => self.evaluate(expr, WorkIndex::step(step), becomes),
        }
    }

    /// Offers a work for the first time, or for the first time of a repetition.
    fn first_offer(&mut self, place: WorkIndex, input: Source) {
        let (step, attempt) = (self.run.path(place), self.next_attempt(place, Action::Forward));
        self.emit(Event::Offered { step, action: Action::Forward, attempt, input: Some(input) });
    }

    fn not_a_list(&self, step: usize, map: &Map, items: &Source) -> Failure {
        let found = self.run.document(step, items, &self.record.payloads);
        if found.as_ref().is_some_and(Payload::is_envelope) {
            return own_failure(VALUE_ENCRYPTED, envelope::refusal("the list of a fan-out"));
        }
        let found = found.map_or("nothing", |found| Kind::of(found.text()).words());
        let message = match &map.items {
            Expr::Path(path) => {
                format!("the items of a fan-out must be a list, and '{path}' is {found}")
            }
            _ => format!("the items of a fan-out must be a list, and this is {found}"),
        };
        own_failure("items_not_a_list", message)
    }

    fn open(&mut self, step: usize, map: &Map) -> Result<(), Failure> {
        let items = self.evaluate(&map.items, WorkIndex::step(step), Use::Items)?;
        let Some(elements) = self.run.elements(step, &items, &self.record.payloads) else {
            return Err(self.not_a_list(step, map, &items));
        };
        if elements.len() > MAX_ITEMS {
            let message =
                format!("a fan-out takes at most {MAX_ITEMS} items, not {}", elements.len());
            return Err(own_failure("too_many_items", message));
        }
        self.may_hold(Run::bytes_of(&elements))?;
        let total = u32::try_from(elements.len()).unwrap_or(u32::MAX);
        let id = self.run.graph.nodes[step].id.clone();
        let keys = map.key.as_ref().map(|key| self.keys_of(key, &elements)).transpose()?;
        self.emit(Event::Opened { step: id.clone(), items, total, keys });
        if let Some(message) = impossible(map.join, total) {
            return Err(own_failure("join_impossible", message));
        }
        match (total, map.empty) {
            (0, Some(Empty::Fail)) => {
                self.emit(Event::Joined { step: id.clone(), succeeded: false });
                let error = own_failure("no_items", "the list of a fan-out is empty".to_owned());
                self.step_failed(step, Some(StepPath::step(id)), error);
            }
            (0, _) => self.emit(Event::Joined { step: id, succeeded: true }),
            _ => self.fill(step),
        }
        Ok(())
    }

    /// Returns whether one more item of this map may be in flight.
    pub(super) fn has_place(&self, place: WorkIndex, action: Action) -> bool {
        let node = &self.run.graph.nodes[place.step];
        let (Some(map), Some(items)) = (node.map(), self.run.items_of(place.step)) else {
            return true;
        };
        items.tally.in_flight(action) < map.max_concurrency
    }

    /// Lets another item take an item's place that may have become free.
    pub(super) fn place_freed(&mut self, place: WorkIndex) {
        if place.item.is_some() && self.run.header.mode == Mode::Forward {
            self.fill(place.step);
        }
    }

    /// Puts items on offer as long as there are places, first those whose retry is due.
    pub(super) fn fill(&mut self, step: usize) {
        let graph = self.run.graph.clone();
        let Some(map) = graph.nodes[step].map() else { return };
        let memo = Memo::default();
        while self.has_place(WorkIndex::step(step), Action::Forward) {
            if let Some((place, action)) = self.run.take_waiting_for_place(step, false) {
                self.offer(place, action);
                continue;
            }
            let Some(items) = self.run.items_of(step) else { return };
            if items.stage != MapStage::Open || items.next as usize >= items.works.len() {
                return;
            }
            let place = WorkIndex::item(step, items.next);
            if !self.has_room() {
                return self.defer(step);
            }
            let path = self.run.path(place);
            match self.evaluate_with(&map.task.input, place, Use::Input, &memo) {
                Ok(source) => self.first_offer(place, source),
                Err(error) => {
                    self.emit(Event::GaveUp { step: path, fate: Fate::Failed, error: Some(error) });
                    if self.join_if_decided(place) {
                        return;
                    }
                }
            }
        }
    }

    /// Follows up a work that is over, forward: if it is an item, the join may fire, or another item
    /// takes its place.
    pub(super) fn item_settled(&mut self, place: WorkIndex) {
        if place.item.is_some() && !self.join_if_decided(place) {
            self.fill(place.step);
        }
    }

    /// Fires the join of a map if its rule is true or impossible. `last` is the item that was settled last.
    pub(super) fn join_if_decided(&mut self, last: WorkIndex) -> bool {
        let graph = self.run.graph.clone();
        let node = &graph.nodes[last.step];
        let (Some(map), Some(items)) = (node.map(), self.run.items_of(last.step)) else {
            return false;
        };
        if items.stage != MapStage::Open {
            return false;
        }
        let total = u32::try_from(items.works.len()).unwrap_or(u32::MAX);
        let Some(succeeded) = decided(map.join, total, items.tally.done(), items.tally.failed())
        else {
            return false;
        };
        let (failed, path) = (items.tally.failed(), StepPath::step(node.id.clone()));
        self.emit(Event::Joined { step: node.id.clone(), succeeded });
        if succeeded {
            self.dismiss_losers(last.step, map.losers);
            return true;
        }
        let error = self.last_error(last);
        let key = self.run.item_key(last).map_or(String::new(), |key| format!(" ('{key}')"));
        let of = self.run.path(last);
        let message =
            format!("{failed} of {total} items failed; the last, {of}{key}: {}", error.message);
        self.step_failed(last.step, Some(path), Failure { message, ..error });
        if self.run.header.mode == Mode::Forward {
            self.dismiss_losers(last.step, map.losers);
        }
        true
    }

    /// Handles items in flight when their join has fired.
    fn dismiss_losers(&mut self, step: usize, losers: Losers) {
        for place in self.run.places_of(step) {
            let Some(work) = self.work(place) else { continue };
            let leased = work
                .current()
                .is_some_and(|(_, hand)| matches!(hand, super::TaskState::Leased { .. }));
            let begun = matches!(work.stage, Stage::Active(..) | Stage::Parked);
            if begun && !(leased && losers == Losers::Drain) {
                self.revoke(place);
            }
            let stands =
                self.work(place).is_some_and(|work| work.may_stand() && work.undo == Undo::None);
            let lost = begun && losers == Losers::Compensate;
            if lost && stands && self.run.spec(step).compensate.is_some() {
                let path = self.run.path(place);
                self.emit(Event::UndoRequested { step: path });
            }
        }
    }

    /// Handles the failure for good of a step: the run goes on without it, or is undone, or, past the point of no
    /// return, goes on with the steps that do not need it.
    pub(super) fn step_failed(&mut self, step: usize, path: Option<StepPath>, error: Failure) {
        if self.run.header.mode != Mode::Forward
            || self.run.spec(step).on_failure == OnFailure::Continue
        {
            return;
        }
        self.emit(Event::RunFailed { step: path, error });
        if !self.run.past_pivot() {
            self.compensate(Cause::Failure);
        }
    }
}

/// Returns the reason why `total` items can never meet the rule of a join, however they end; `None` if they can. What
/// no items mean is said by `empty`.
pub(crate) fn impossible(join: Join, total: u32) -> Option<String> {
    if total == 0 || decided(join, total, 0, 0) != Some(false) {
        return None;
    }
    let wanted = match join {
        Join::Quorum(count) => count,
        _ => 1,
    };
    let there = if total == 1 { "there is 1".to_owned() } else { format!("there are {total}") };
    Some(format!("the join needs {wanted} items that succeed, and {there}"))
}

/// Returns whether the rule of a join is met (`Some(true)`), impossible (`Some(false)`), or open
/// (`None`).
fn decided(join: Join, total: u32, succeeded: u32, failed: u32) -> Option<bool> {
    let all_over = succeeded + failed == total;
    let tolerated = |count: u32| match (failed > count, all_over) {
        (true, _) => Some(false),
        (false, true) => Some(true),
        (false, false) => None,
    };
    let at_least = |count: u32| match (succeeded >= count, total - failed < count) {
        (true, _) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
    };
    match join {
        Join::All => tolerated(0),
        Join::Any => at_least(1),
        Join::Quorum(count) => at_least(count),
        Join::Tolerate(Tolerance::Count(count)) => tolerated(count),
        // Rounded down: at a tenth of 15 items, one may fail.
        Join::Tolerate(Tolerance::Ratio(ratio)) => tolerated(share(total, ratio)),
        Join::BestEffort => tolerated(total),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_join_fires_as_soon_as_its_rule_is_true_or_impossible() {
        let cases = [
            (Join::All, (3, 2, 0), None),
            (Join::All, (3, 3, 0), Some(true)),
            (Join::All, (3, 1, 1), Some(false)),
            (Join::Any, (3, 0, 2), None),
            (Join::Any, (3, 1, 2), Some(true)),
            (Join::Any, (3, 0, 3), Some(false)),
            (Join::Quorum(2), (3, 1, 1), None),
            (Join::Quorum(2), (3, 2, 0), Some(true)),
            (Join::Quorum(2), (3, 1, 2), Some(false)),
            (Join::Quorum(4), (3, 0, 0), Some(false)),
            (Join::Tolerate(Tolerance::Count(1)), (3, 1, 1), None),
            (Join::Tolerate(Tolerance::Count(1)), (3, 2, 1), Some(true)),
            (Join::Tolerate(Tolerance::Count(1)), (3, 0, 2), Some(false)),
            (Join::Tolerate(Tolerance::Ratio(0.1)), (15, 14, 1), Some(true)),
            (Join::Tolerate(Tolerance::Ratio(0.1)), (15, 0, 2), Some(false)),
            (Join::Tolerate(Tolerance::Ratio(0.29)), (100, 71, 29), Some(true)),
            (Join::Tolerate(Tolerance::Ratio(0.29)), (100, 0, 30), Some(false)),
            (Join::Tolerate(Tolerance::Ratio(0.07)), (100, 93, 7), Some(true)),
            (Join::Tolerate(Tolerance::Ratio(0.1)), (30, 27, 3), Some(true)),
            (Join::BestEffort, (2, 0, 1), None),
            (Join::BestEffort, (2, 0, 2), Some(true)),
        ];
        for (join, (total, succeeded, failed), expected) in cases {
            assert_eq!(
                decided(join, total, succeeded, failed),
                expected,
                "{join:?} {total} {succeeded} {failed}"
            );
        }
    }
}

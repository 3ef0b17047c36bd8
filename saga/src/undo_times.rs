//! Times that undoing the steps of a workflow took, from the journals of undone runs: the basis of the time that a run
//! with a deadline reserves for its undo.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::{Action, Event, Record, Span, StepPath, Time};

/// Of so many runs, one may have taken longer than what is reserved.
const ONE_IN: usize = 10;

/// Undo times by step.
#[derive(Clone, Debug, Default)]
pub struct UndoTimes {
    spans: BTreeMap<Arc<str>, Vec<Span>>,
}

impl UndoTimes {
    /// Adds what the records of a run say. Undos that waited for a person, and those that a person vouched for, say
    /// nothing.
    pub fn add<'a>(&mut self, records: impl IntoIterator<Item = &'a Record>) {
        let mut since: BTreeMap<&StepPath, Time> = BTreeMap::new();
        let mut by_hand: BTreeSet<&StepPath> = BTreeSet::new();
        let mut longest: BTreeMap<Arc<str>, Span> = BTreeMap::new();
        for record in records {
            for event in &record.events {
                match event {
                    Event::Offered { step, action: Action::Compensate, .. }
                    | Event::ChildAsked { step, action: Action::Compensate, .. } => {
                        since.entry(step).or_insert(record.at);
                    }
                    Event::UndoBlocked { step } | Event::UndoMarked { step, .. } => {
                        by_hand.insert(step);
                    }
                    Event::Undone { step, by_hand: false, .. } if !by_hand.contains(step) => {
                        let Some(began) = since.remove(step) else { continue };
                        let took = longest.entry(step.step.clone()).or_default();
                        *took = (*took).max(record.at.since(began));
                    }
                    _ => {}
                }
            }
        }
        for (step, took) in longest {
            self.spans.entry(step).or_default().push(took);
        }
    }

    /// Returns the time to reserve for each step: in nine of ten runs undoing it, or one of its items, took no longer.
    #[must_use]
    pub fn estimate(self) -> BTreeMap<Arc<str>, Span> {
        let estimates = self.spans.into_iter().map(|(step, mut spans)| {
            spans.sort_unstable();
            let beyond = spans.len() / ONE_IN;
            (step, spans[spans.len() - 1 - beyond])
        });
        estimates.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::By;

    fn step(text: &str) -> StepPath {
        text.parse().unwrap()
    }

    fn offered(text: &str) -> Event {
        Event::Offered { step: step(text), action: Action::Compensate, attempt: 1, input: None }
    }

    fn undone(text: &str) -> Event {
        Event::Undone { step: step(text), attempt: 1, by_hand: false }
    }

    fn record(seconds: i64, events: Vec<Event>) -> Record {
        Record { at: Time(seconds * 1_000), events, payloads: Vec::new() }
    }

    fn seconds(times: UndoTimes) -> Vec<(String, u64)> {
        let estimate = times.estimate().into_iter();
        estimate.map(|(step, span)| (step.to_string(), span.0 / 1_000)).collect()
    }

    #[test]
    fn a_step_takes_from_its_first_offer_to_its_end_and_a_fan_out_as_long_as_its_slowest_item() {
        let mut times = UndoTimes::default();
        times.add(&[
            record(10, vec![offered("m/0"), offered("m/1")]),
            record(12, vec![undone("m/0")]),
            record(14, vec![offered("m/1")]),
            record(17, vec![undone("m/1"), offered("pay")]),
            record(40, vec![undone("pay")]),
        ]);
        assert_eq!(seconds(times), [("m".to_owned(), 7), ("pay".to_owned(), 23)]);
    }

    #[test]
    fn undos_that_needed_a_person_say_nothing() {
        let by = By { actor: "ann".into(), reason: "seen".to_owned() };
        let mut times = UndoTimes::default();
        times.add(&[
            record(1, vec![offered("a"), offered("b"), offered("c")]),
            record(2, vec![Event::UndoBlocked { step: step("a") }]),
            record(3, vec![Event::UndoMarked { step: step("b"), by }]),
            record(
                90,
                vec![undone("a"), Event::Undone { step: step("c"), attempt: 1, by_hand: true }],
            ),
        ]);
        assert!(times.estimate().is_empty());
    }

    #[test]
    fn one_run_of_ten_may_have_taken_longer() {
        let mut times = UndoTimes::default();
        for took in [3, 2, 5, 4, 1, 6, 8, 7, 9_000, 9] {
            times.add(&[record(0, vec![offered("a")]), record(took, vec![undone("a")])]);
        }
        assert_eq!(seconds(times), [("a".to_owned(), 9)]);
    }
}

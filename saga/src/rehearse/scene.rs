//! Premises of a rehearsed run: its input, the outputs of its steps, and the order of its workers.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::domain::{Choice, Doc, Spot, usual};
use crate::{Graph, Payload};

/// Order of concurrent moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// All tasks are claimed, then reported in the order of the steps.
    Together,
    /// All tasks are claimed, then reported in the opposite order.
    LastFirst,
    /// One task is claimed and reported, then the next.
    OneByOne,
}

/// The part that is the same for all traces of one kind.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    pub(super) graph: Arc<Graph>,
    pub(super) order: Order,
    pub(super) input: Payload,
    /// By position; of each item, if the step is a fan-out.
    pub(super) outputs: Vec<Payload>,
    /// The choices that were made, for people.
    pub(super) given: Vec<String>,
}

impl Scene {
    /// Returns the scene in which these choices are made.
    pub(super) fn of(graph: &Arc<Graph>, chosen: &BTreeMap<&Spot, &Choice>) -> Scene {
        let doc = |doc: Doc| {
            let mut root = Shape::default();
            for (spot, choice) in chosen.iter().filter(|(spot, _)| spot.doc == doc) {
                root.at(&spot.tokens).choice = Some((*choice).clone());
            }
            let value = root.value(0).unwrap_or(Value::Null);
            Payload::of(&value).unwrap_or_else(|_| Payload::null())
        };
        Scene {
            graph: graph.clone(),
            order: Order::Together,
            input: doc(Doc::Input),
            outputs: (0..graph.nodes.len()).map(|step| doc(Doc::Step(step))).collect(),
            given: Vec::new(),
        }
    }

    pub(super) fn in_order(&self, order: Order) -> Scene {
        let mut scene = self.clone();
        scene.order = order;
        let words = match order {
            Order::Together => return scene,
            Order::LastFirst => "what is under way together ends the last first",
            Order::OneByOne => "there is one worker, with room for one task",
        };
        scene.given.push(words.to_owned());
        scene
    }
}

/// Describes a choice at `spot`.
pub(super) fn told(graph: &Graph, spot: &Spot, choice: &Choice) -> String {
    let mut place = match spot.doc {
        Doc::Input => "/input".to_owned(),
        Doc::Step(step) => format!("/steps/{}", graph.nodes[step].id),
    };
    for token in &spot.tokens {
        place.push('/');
        place.push_str(token);
    }
    match choice {
        Choice::Absent => format!("{place} is not there"),
        Choice::Is(value) => format!("{place} is {value}"),
        Choice::Own => format!("{place} is another one for each element"),
        Choice::List(1) => format!("{place} has 1 element"),
        Choice::List(count) => format!("{place} has {count} elements"),
    }
}

/// A document under construction.
#[derive(Default)]
struct Shape {
    choice: Option<Choice>,
    parts: BTreeMap<String, Shape>,
}

impl Shape {
    fn at(&mut self, tokens: &[String]) -> &mut Shape {
        match tokens.split_first() {
            None => self,
            Some((first, rest)) => self.parts.entry(first.clone()).or_default().at(rest),
        }
    }

    /// Returns the value in element `index` of the list around it; `None` when there is to be none.
    fn value(&self, index: usize) -> Option<Value> {
        let indexes: Vec<usize> = self.parts.keys().filter_map(|key| key.parse().ok()).collect();
        let numbered = !indexes.is_empty() && indexes.len() == self.parts.len();
        match &self.choice {
            Some(Choice::Absent) => return None,
            Some(Choice::List(count)) => return Some(self.list(*count)),
            Some(Choice::Is(value)) if self.parts.is_empty() => return Some(value.clone()),
            Some(Choice::Own) if self.parts.is_empty() => {
                return Some(json!(format!("any-{index}")));
            }
            None if self.parts.is_empty() => return None,
            _ => {}
        }
        if numbered || self.parts.contains_key("*") {
            let count = indexes.iter().max().map_or(1, |last| (last + 1).min(100));
            return Some(self.list(count));
        }
        let mut members = Map::new();
        for (key, part) in &self.parts {
            if let Some(value) = part.value(index) {
                members.insert(key.clone(), value);
            }
        }
        Some(Value::Object(members))
    }

    fn list(&self, count: usize) -> Value {
        let Choice::Is(any) = usual() else { return Value::Null };
        let element = |index: usize| {
            let of = |part: &str| self.parts.get(part).and_then(|part| part.value(index));
            of(&index.to_string()).or_else(|| of("*")).unwrap_or_else(|| any.clone())
        };
        Value::Array((0..count).map(element).collect())
    }
}

//! Values of documents that make a difference to a definition: the places that its expressions read, and for each
//! a few values that they distinguish. Nothing else of a document can change the behaviour of a run.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::expr::Root;
use crate::{Body, Expr, Graph};

/// A document that a run is given from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Doc {
    /// Its input.
    Input,
    /// The output of a step; of each item, if the step is a fan-out.
    Step(usize),
}

/// A place in a document: reference tokens, `*` for every element of a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    pub(super) doc: Doc,
    pub(super) tokens: Vec<String>,
}

/// A value at a place.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Choice {
    /// Nothing.
    Absent,
    /// This value.
    Is(Value),
    /// A text that no other element of the list has.
    Own,
    /// A list of so many elements.
    List(usize),
}

/// An instant that has passed when a rehearsed run begins, and one that has not.
const INSTANTS: [&str; 2] = ["2026-01-01T01:00:00Z", "2025-12-31T00:00:00Z"];
/// Numbers of items with which a fan-out is rehearsed, the usual one first.
pub(super) const SIZES: [usize; 3] = [3, 1, 0];

/// Returns all places that the expressions of `graph` read, with their possible values; the first is the
/// usual.
pub(super) fn domains(graph: &Graph) -> BTreeMap<Spot, Vec<Choice>> {
    let mut found = Domains { graph, at: None, found: BTreeMap::new() };
    for (step, node) in graph.nodes.iter().enumerate() {
        found.at = None;
        if let Some(when) = &node.when {
            found.truth(when);
        }
        match &node.body {
            Body::Task(task) => found.any(&task.input),
            Body::Map(map) => {
                found.any(&map.items);
                let sizes = SIZES.map(Choice::List);
                found.choices(&map.items, &sizes);
                found.at = Some(step);
                found.any(&map.task.input);
                if let Some(key) = &map.key {
                    found.any(key);
                    found.choices(key, &[Choice::Own]);
                }
            }
            Body::Wait(wait) => {
                wait.default.iter().chain(&wait.assignee).for_each(|expr| found.any(expr));
            }
            Body::Sleep(sleep) => {
                if let Some(until) = &sleep.until {
                    found.any(until);
                    found.choices(until, &INSTANTS.map(|instant| Choice::Is(json!(instant))));
                }
            }
            Body::Child(child) => found.any(&child.input),
            Body::Fail(fail) => fail.details.iter().for_each(|expr| found.any(expr)),
        }
    }
    found.at = None;
    if let Some(output) = &graph.definition.output {
        found.any(output);
    }
    found.found
}

struct Domains<'g> {
    graph: &'g Graph,
    /// The fan-out whose items the expression belongs to.
    at: Option<usize>,
    found: BTreeMap<Spot, Vec<Choice>>,
}

impl Domains<'_> {
    /// Returns the place that a path leads to, if it is one in a document that comes from outside.
    fn spot(&self, path: &str, at: Option<usize>) -> Option<Spot> {
        let root = Root::of(path)?;
        let tokens = root.rest().split('/').skip(1).map(unescaped);
        match root {
            Root::Input(_) => Some(Spot { doc: Doc::Input, tokens: tokens.collect() }),
            Root::Step(id, _) => {
                let step = self.graph.position(id)?;
                // A fan-out answers with a list of what its items did.
                let skipped = usize::from(self.graph.nodes[step].map().is_some());
                Some(Spot { doc: Doc::Step(step), tokens: tokens.skip(skipped).collect() })
            }
            Root::Item(_) => {
                let items = &self.graph.nodes[at?].map()?.items;
                let mut list = self.spot(subject(items)?, None)?;
                let of_map =
                    matches!(list.doc, Doc::Step(step) if self.graph.nodes[step].map().is_some());
                if !(of_map && list.tokens.is_empty()) {
                    list.tokens.push("*".to_owned());
                }
                list.tokens.extend(tokens);
                Some(list)
            }
            Root::Index => None,
        }
    }

    /// Looks at every path within `expr`.
    fn any(&mut self, expr: &Expr) {
        match expr {
            Expr::Path(path) => drop(self.entry(path)),
            Expr::Const(_) => {}
            Expr::Exists(path) => {
                if let Some(entry) = self.entry(path) {
                    add(entry, &[usual(), Choice::Absent]);
                }
            }
            Expr::Object(members) => members.values().for_each(|part| self.any(part)),
            Expr::Array(list) => list.iter().for_each(|part| self.any(part)),
            Expr::And(list) | Expr::Or(list) => list.iter().for_each(|part| self.truth(part)),
            Expr::Not(part) => self.truth(part),
            Expr::Length(part) => {
                self.any(part);
                self.choices(part, &SIZES.map(Choice::List));
            }
            Expr::Default(pair) => {
                self.any(&pair.0);
                self.any(&pair.1);
                if let Expr::Path(_) = &pair.0 {
                    self.choices(&pair.0, &[usual(), Choice::Absent]);
                }
            }
            Expr::Eq(pair) | Expr::Ne(pair) => self.compared(pair, |value| {
                let other = match value {
                    Value::Bool(truth) => json!(!truth),
                    Value::Number(_) => shifted(value, 1.0),
                    Value::String(text) => json!(format!("not {text}")),
                    _ => json!("other"),
                };
                vec![value.clone(), other]
            }),
            Expr::Lt(pair) | Expr::Le(pair) | Expr::Gt(pair) | Expr::Ge(pair) => {
                self.compared(pair, |value| match value {
                    Value::String(text) => {
                        vec![value.clone(), json!(format!("{text}~")), json!("")]
                    }
                    _ => vec![value.clone(), shifted(value, 1.0), shifted(value, -1.0)],
                });
            }
        }
    }

    /// Looks at an expression that is to be true or false.
    fn truth(&mut self, expr: &Expr) {
        self.any(expr);
        if subject(expr).is_some() {
            self.choices(expr, &[Choice::Is(json!(true)), Choice::Is(json!(false))]);
        }
    }

    /// Draws values for a comparison: those of the path on one side from the constant on the other.
    fn compared(&mut self, pair: &(Expr, Expr), around: impl Fn(&Value) -> Vec<Value>) {
        self.any(&pair.0);
        self.any(&pair.1);
        for (side, other) in [(&pair.0, &pair.1), (&pair.1, &pair.0)] {
            let values = match other {
                Expr::Const(value) => value.to::<Value>().map(|value| around(&value)),
                _ => Ok(vec![json!(1), json!(2)]),
            };
            let values = values.unwrap_or_default();
            if let Expr::Length(list) = side {
                let sizes: Vec<Choice> = values
                    .iter()
                    .filter_map(Value::as_u64)
                    .filter_map(|size| usize::try_from(size).ok())
                    .filter(|size| *size <= 100)
                    .map(Choice::List)
                    .collect();
                self.choices(list, &sizes);
            } else {
                let values: Vec<Choice> = values.into_iter().map(Choice::Is).collect();
                self.choices(side, &values);
            }
        }
    }

    /// Adds possible values of the place that `expr` reads, if it reads one.
    fn choices(&mut self, expr: &Expr, choices: &[Choice]) {
        if let Some(entry) = subject(expr).and_then(|path| self.entry(path)) {
            add(entry, choices);
        }
    }

    fn entry(&mut self, path: &str) -> Option<&mut Vec<Choice>> {
        let spot = self.spot(path, self.at)?;
        Some(self.found.entry(spot).or_default())
    }
}

/// Adds new values. Keys of items go first, and values that an expression names before the one for all others.
fn add(entry: &mut Vec<Choice>, choices: &[Choice]) {
    for choice in choices {
        if !entry.contains(choice) {
            entry.push(choice.clone());
        }
    }
    if entry.iter().any(|choice| !matches!(choice, Choice::Absent) && *choice != usual()) {
        entry.retain(|choice| *choice != usual());
        entry.sort_by_key(|choice| (*choice != Choice::Own, *choice == Choice::Absent));
    }
}

/// Returns the value for places at which it does not matter.
pub(super) fn usual() -> Choice {
    Choice::Is(json!("any"))
}

/// Returns the path that an expression is about, behind a `default`.
fn subject(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Path(path) => Some(path),
        Expr::Default(pair) => subject(&pair.0),
        _ => None,
    }
}

fn shifted(value: &Value, by: f64) -> Value {
    match value.as_i64() {
        Some(whole) => json!(whole.saturating_add(by as i64)),
        None => json!(value.as_f64().unwrap_or_default() + by),
    }
}

fn unescaped(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

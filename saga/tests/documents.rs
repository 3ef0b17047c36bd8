//! Properties of what reads documents from outside, over random documents, expressions and definitions.

#![expect(clippy::unwrap_used, reason = "a test that finds something missing has failed")]

mod generate;

use std::collections::HashSet;
use std::fmt;

use backstitch_saga::{Bindings, Class, Definition, Expr, Gathered, Graph, Payload, Violation};
use proptest::prelude::*;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// Reads a document with serde, by the rules for documents from outside: a second opinion on [`Payload::parse`].
#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn accepts(text: &str) -> bool {
        let mut reader = serde_json::Deserializer::from_str(text);
        let read = Strict { depth: 64 }.deserialize(&mut reader).and_then(|()| reader.end());
        read.is_ok()
    }

    fn inner<E: Error>(self) -> Result<Strict, E> {
        self.depth.checked_sub(1).map(|depth| Strict { depth }).ok_or_else(|| E::custom("depth"))
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        if text.contains('\0') { Err(E::custom("nul")) } else { Ok(()) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        while list.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        let mut keys = HashSet::new();
        while let Some(key) = object.next_key::<String>()? {
            self.visit_str(&key)?;
            if !keys.insert(key) {
                return Err(A::Error::custom("duplicate"));
            }
            object.next_value_seed(inner)?;
        }
        Ok(())
    }
}

struct Document {
    input: Payload,
    step: Option<Payload>,
}

impl Bindings for Document {
    fn input(&self) -> Payload {
        self.input.clone()
    }

    fn step(&self, _: &str) -> Option<Payload> {
        self.step.clone()
    }

    fn gathered(&self, _: &str) -> Option<Gathered> {
        None
    }

    fn gathered_item(&self, _: &str, _: usize) -> Option<Payload> {
        None
    }

    fn item(&self) -> Option<Payload> {
        self.step.clone()
    }

    fn index(&self) -> Option<u32> {
        Some(3)
    }
}

/// Finds all pointers into a document, its own included.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                pointers(value, &format!("{at}/{index}"), found);
            }
        }
        Value::Object(members) => {
            for (key, value) in members {
                let token = key.replace('~', "~0").replace('/', "~1");
                pointers(value, &format!("{at}/{token}"), found);
            }
        }
        _ => {}
    }
}

fn parsed(payload: &Payload) -> Value {
    payload.to().unwrap()
}

/// Returns whether two documents are the same, numbers by value.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) if x.is_f64() || y.is_f64() => {
            x.as_f64() == y.as_f64()
        }
        (Value::Array(x), Value::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y))
        }
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(key, x)| y.get(key).is_some_and(|y| same(x, y)))
        }
        _ => a == b,
    }
}

proptest! {
    /// A document is accepted if and only if serde would read it and finds no fault with it.
    #[test]
    fn documents_are_accepted_as_serde_would(text in generate::text()) {
        let read = Payload::parse(&text, usize::MAX);
        prop_assert_eq!(read.is_ok(), Strict::accepts(&text), "{:?}: {:?}", text, read);
        if let Ok(payload) = read {
            prop_assert_eq!(payload.text(), text.trim_matches([' ', '\n', '\r', '\t']));
            prop_assert!(payload.check(text.len()).is_ok());
        }
    }

    /// A mistake in a document has a known code and a place that is a pointer.
    #[test]
    fn refusals_name_a_place(text in generate::mutated_text()) {
        if let Err(Violation { pointer, code, .. }) = Payload::parse(&text, usize::MAX) {
            prop_assert!(pointer.is_empty() || pointer.starts_with('/'), "{}", pointer);
            let codes = ["invalid_json", "nesting_too_deep", "nul_character", "lone_surrogate",
                "number_out_of_range", "duplicate_key"];
            prop_assert!(codes.contains(&code.as_str()), "{}", code);
        }
    }

    /// The canonical form is the same document, however it is spelt.
    #[test]
    fn canonical_form(value in generate::json(), seed: u64) {
        let plain = Payload::of(&value).unwrap();
        let spelt = Payload::parse(&generate::spell(&value, seed), usize::MAX).unwrap();
        prop_assert_eq!(parsed(&plain), value);
        prop_assert_eq!(plain.canonical(), spelt.canonical());
        let again = Payload::trusted(spelt.canonical()).unwrap();
        prop_assert!(same(&parsed(&spelt), &parsed(&again)), "{:?} {:?}", spelt, again);
        prop_assert_eq!(again.canonical(), spelt.canonical());
        prop_assert!(plain.is_same_as(&spelt) && again.is_same_as(&spelt));
    }

    /// The elements of a list are its elements; nothing else has any.
    #[test]
    fn elements(value in generate::json(), seed: u64) {
        let payload = Payload::parse(&generate::spell(&value, seed), usize::MAX).unwrap();
        let elements = payload.elements().map(|list| list.iter().map(parsed).collect::<Vec<_>>());
        prop_assert_eq!(elements.as_ref(), value.as_array());
    }

    /// A path finds what a JSON Pointer finds, and passes it on as it is spelt.
    #[test]
    fn paths(value in generate::json(), seed: u64, pick: prop::sample::Index, wrong in "/[~a-c0-9/]{0,4}") {
        let text = generate::spell(&value, seed);
        let scope = Document { input: Payload::parse(&text, usize::MAX).unwrap(), step: None };
        let mut found = Vec::new();
        pointers(&value, "", &mut found);
        for pointer in [found[pick.index(found.len())].clone(), wrong] {
            let path = format!("/input{pointer}");
            let here = Expr::path(path.as_str()).eval(&scope).ok();
            let model = value.pointer(&pointer).cloned();
            prop_assert_eq!(here.as_ref().map(parsed), model);
            prop_assert!(here.as_ref().is_none_or(|here| text.contains(here.text())));
            prop_assert_eq!(Expr::Exists(path).test(&scope), Ok(here.is_some()));
        }
    }

    /// Two documents are equal however they are spelt, and a change makes a difference.
    #[test]
    fn equality(a in generate::json(), b in generate::json(), seed: u64) {
        let constant = |value: &Value, seed| {
            Expr::Const(Payload::parse(&generate::spell(value, seed), usize::MAX).unwrap())
        };
        let scope = Document { input: Payload::null(), step: None };
        let eq = |a, b| Expr::Eq(Box::new((a, b))).test(&scope);
        prop_assert_eq!(eq(constant(&a, seed), constant(&a, seed.rotate_left(9))), Ok(true));
        prop_assert_eq!(eq(constant(&a, seed), constant(&b, seed)), Ok(same(&a, &b)));
    }

    /// Evaluation is total; what it builds is JSON; `default` makes up for what is missing.
    #[test]
    fn evaluation(expr in generate::expr(), input in generate::json(), step in prop::option::of(generate::json())) {
        let payload = |value: &Value| Payload::of(value).unwrap();
        let scope = Document { input: payload(&input), step: step.as_ref().map(payload) };
        let value = expr.eval(&scope);
        if let Ok(value) = &value {
            prop_assert!(serde_json::from_str::<Value>(value.text()).is_ok());
        }
        match expr.test(&scope) {
            Ok(truth) => prop_assert_eq!(value.map(|value| value.to::<bool>().unwrap()), Ok(truth)),
            Err(error) => prop_assert!(value.is_ok() || value == Err(error)),
        }
        let fallback = Expr::Const(Payload::null());
        let defaulted = Expr::Default(Box::new((expr, fallback))).eval(&scope);
        prop_assert!(!matches!(defaulted, Err(error) if error.code == "path_not_found"));
    }

    /// A definition is what its JSON says, and nothing of it is lost on the way.
    #[test]
    fn definitions_survive_their_json(definition in generate::definition()) {
        let text = serde_json::to_string(&definition).unwrap();
        let read: Definition = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&read, &definition);
        prop_assert_eq!(serde_json::to_string(&read).unwrap(), text);
    }

    /// Checking is total, and says the same of a definition and of its text.
    #[test]
    fn checking_text_and_data_agrees(definition in generate::definition()) {
        let text = serde_json::to_string(&definition).unwrap();
        let of_text = Graph::parse(&text).map(|graph| graph.order);
        let of_data = Graph::check(definition).map(|graph| graph.order);
        prop_assert_eq!(of_text, of_data);
    }

    /// Reading a definition is total, whatever the text; what is refused is refused for a reason.
    #[test]
    fn reading_is_total(definition in generate::definition(), changes in generate::changes()) {
        let text = generate::change(&serde_json::to_string(&definition).unwrap(), &changes);
        if let Err(violations) = Graph::parse(&text) {
            prop_assert!(!violations.is_empty());
        }
    }

    /// The parts of a graph follow from its edges.
    #[test]
    fn graphs_are_consistent(definition in generate::safe_definition()) {
        let Ok(graph) = Graph::check(definition) else { return Ok(()) };
        let mut seen = vec![false; graph.nodes.len()];
        for at in &graph.order {
            let node = &graph.nodes[*at];
            prop_assert!(node.needs.iter().all(|need| seen[*need]), "all that it needs is before it");
            prop_assert!(node.requires.iter().all(|step| node.needs.contains(step)));
            prop_assert_eq!(graph.position(&node.id), Some(*at));
            let behind = node.needs.iter().map(|need| &graph.nodes[*need]);
            let after_pivot = behind.into_iter()
                .any(|need| need.after_pivot || need.task().class() == Some(Class::Pivot));
            prop_assert_eq!(node.after_pivot, after_pivot);
            for (other, feeds) in graph.nodes.iter().enumerate() {
                prop_assert_eq!(feeds.feeds.contains(at), node.needs.contains(&other));
            }
            seen[*at] = true;
        }
        prop_assert!(seen.iter().all(|seen| *seen));
    }

    /// The promise of the checks: whenever a step fails the run, all that may have been done by then can be undone,
    /// or need not be.
    #[test]
    fn an_accepted_saga_cannot_strand_itself(definition in generate::safe_definition()) {
        let Ok(graph) = Graph::check(definition) else { return Ok(()) };
        for (at, failing) in graph.nodes.iter().enumerate().filter(|(_, node)| node.task().can_fail()) {
            let mut later = vec![false; graph.nodes.len()];
            for position in &graph.order {
                let needs = &graph.nodes[*position].needs;
                later[*position] = needs.iter().any(|need| *need == at || later[*need]);
            }
            for (other, done) in graph.nodes.iter().enumerate() {
                let same = other == at;
                if later[other] || (same && failing.map().is_none()) {
                    continue;
                }
                prop_assert!(
                    matches!(
                        done.task().class(),
                        Some(Class::Compensatable | Class::ReadOnly | Class::Retriable)
                    ),
                    "{} fails when {} was done", failing.id, done.id
                );
            }
        }
    }
}

/// The generator makes enough of both kinds, or the properties above say nothing.
#[test]
fn the_generator_makes_accepted_and_refused_sagas() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let accepted = (0..500)
        .filter(|_| {
            let tree = generate::safe_definition().new_tree(&mut runner).unwrap();
            Graph::check(tree.current()).is_ok()
        })
        .count();
    assert!((50..=450).contains(&accepted), "{accepted} of 500 are accepted");
}

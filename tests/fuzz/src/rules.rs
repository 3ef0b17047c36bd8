//! Parsers of the rules: definitions, expressions, documents, and names.

use std::fmt::{Debug, Display};
use std::str::FromStr;
use std::sync::Arc;

use backstitch_saga::protocol::IncidentId;
use backstitch_saga::rehearse::{Bounds, rehearse};
use backstitch_saga::{Bindings, Expr, Gathered, Graph, Payload, RunId, Span, StepPath, Timestamp};

/// Longer documents are refused without being looked at.
const LONGEST: usize = 256 * 1024;

/// A workflow definition.
pub(crate) fn definition(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(graph) = Graph::parse(text) else { return };
    let printed = serde_json::to_string(&graph.definition).expect("a definition has JSON");
    let again = Graph::parse(&printed).expect("what was accepted is accepted when printed");
    assert_eq!(again.definition, graph.definition, "a definition that is read again is the same");
    let reprinted = serde_json::to_string(&again.definition).expect("a definition has JSON");
    assert_eq!(printed, reprinted);
    for (step, node) in graph.nodes.iter().enumerate() {
        assert_eq!(graph.position(&node.id), Some(step));
        assert!(node.needs.iter().all(|need| graph.nodes[*need].feeds.contains(&step)));
    }
}

/// A workflow definition that is accepted, and then run: nothing of it makes the rules panic or break a law.
pub(crate) fn rehearsal(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(graph) = Graph::parse(text) else { return };
    let found = rehearse(&Arc::new(graph), Bounds { faults: 2, traces: 12 });
    let of_definitions = ["nothing_left_behind", "ends_or_asks", "can_succeed"];
    let broken = found.defects.iter().find(|defect| !of_definitions.contains(&defect.rule));
    assert!(broken.is_none(), "{found}");
}

/// A run as an expression sees it.
struct Seen(Payload);

impl Bindings for Seen {
    fn input(&self) -> Payload {
        self.0.clone()
    }

    fn step(&self, id: &str) -> Option<Payload> {
        id.starts_with('a').then(|| self.0.clone())
    }

    fn gathered(&self, id: &str) -> Option<Gathered> {
        (id == "ab").then_some(Gathered { count: 3, bytes: 100 })
    }

    fn gathered_item(&self, _: &str, index: usize) -> Option<Payload> {
        (index < 3).then(|| self.0.clone())
    }

    fn item(&self) -> Option<Payload> {
        Some(self.0.clone())
    }

    fn index(&self) -> Option<u32> {
        Some(7)
    }
}

/// An expression, and its value.
pub(crate) fn expression(bytes: &[u8]) {
    let Ok(expr) = serde_json::from_slice::<Expr>(bytes) else { return };
    let printed = serde_json::to_string(&expr).expect("an expression has JSON");
    let again: Expr = serde_json::from_str(&printed).expect("what was read is read when printed");
    assert_eq!(again, expr);
    let document = r#"{"a":{"b":[1,"x",null,true]},"c":1.5,"/~":[],"d":"é"}"#;
    let seen = Seen(Payload::trusted(document.to_owned()).expect("it is JSON"));
    let value = expr.eval(&seen);
    assert_eq!(value, again.eval(&seen));
    if let Ok(value) = value {
        Payload::trusted(value.text().to_owned()).expect("a value is JSON");
    }
    let _ = expr.test(&seen);
    // A document of a quarter of what may be built: nothing that is built of it is larger than that.
    let large = format!(r#"{{"a":{{"b":["{}"]}}}}"#, "x".repeat(Expr::RESULT_LIMIT / 4));
    let large = Seen(Payload::trusted(large).expect("it is JSON"));
    if let Ok(value) = expr.eval(&large) {
        assert!(value.text().len() <= Expr::RESULT_LIMIT, "{} bytes", value.text().len());
    }
    let _ = expr.test(&large);
    assert_eq!(expr.references().len(), again.references().len());
}

/// A document.
pub(crate) fn payload(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(payload) = Payload::parse(text, LONGEST) else { return };
    assert_eq!(Payload::parse(payload.text(), LONGEST), Ok(payload.clone()));
    let canonical = payload.canonical();
    let again = Payload::parse(&canonical, usize::MAX).expect("a canonical form is a document");
    assert_eq!(again.canonical(), canonical, "the canonical form of a canonical form is itself");
    if let Some(elements) = payload.elements() {
        elements.iter().for_each(|element| assert!(element.check(LONGEST).is_ok()));
    }
}

/// Parsers of text forms: steps, spans, instants, ids.
pub(crate) fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    same_again::<RunId>(text, RunId::to_string);
    same_again::<StepPath>(text, StepPath::to_string);
    same_again::<IncidentId>(text, IncidentId::to_string);
    same_again::<Span>(text, Span::to_string);
    same_again::<Timestamp>(text, |instant| instant.0.to_string());
}

/// Checks that a value that is read, printed and read again is the same.
fn same_again<T: FromStr<Err: Display> + PartialEq + Debug>(text: &str, print: fn(&T) -> String) {
    let Ok(value) = text.parse::<T>() else { return };
    let printed = print(&value);
    match printed.parse::<T>() {
        Ok(again) => assert_eq!(again, value, "printed as {printed}"),
        Err(error) => panic!("{value:?} is printed as {printed}, which is not read: {error}"),
    }
}

//! The limits on the size of definitions and documents, each at its edge.

use backstitch_saga::{Bindings, Definition, Expr, Gathered, Graph, Payload};

/// Returns the codes of what is wrong with a workflow of these steps; empty when nothing is.
fn codes(steps: &[String], output: &str) -> Vec<String> {
    let text =
        format!(r#"{{"name":"case","version":1,"steps":[{}],"output":{output}}}"#, steps.join(","));
    match Graph::parse(&text) {
        Ok(_) => Vec::new(),
        Err(violations) => violations.into_iter().map(|found| found.code).collect(),
    }
}

fn step(id: usize, input: &str) -> String {
    format!(r#"{{"id":"s{id}","task":{{"name":"h","class":"read_only","input":{input}}}}}"#)
}

#[test]
fn five_hundred_steps() {
    let chain: Vec<String> = (0..501)
        .map(|id| match id {
            0 => step(0, r#"{"path":"/input"}"#),
            _ => step(id, &format!(r#"{{"path":"/steps/s{}"}}"#, id - 1)),
        })
        .collect();
    assert_eq!(codes(&chain[..500], "null"), [""; 0]);
    assert_eq!(codes(&chain, "null"), ["too_many_steps"]);
}

#[test]
fn five_hundred_expressions_in_one() {
    let list = |count| format!(r#"{{"array":[{}]}}"#, vec![r#"{"const":0}"#; count].join(","));
    assert_eq!(codes(&[step(0, &list(499))], "null"), [""; 0]);
    assert_eq!(codes(&[step(0, &list(500))], "null"), ["expression_too_large"]);
    assert_eq!(codes(&[step(0, r#"{"const":0}"#)], &list(500)), ["expression_too_large"]);
}

#[test]
fn the_text_of_a_definition() {
    let with_blanks = |blanks: usize| {
        let text = format!(
            r#"{{"name":"case","version":1,"steps":[{}]}}"#,
            step(0, r#"{"path":"/input"}"#)
        );
        format!("{text}{}", " ".repeat(blanks - text.len()))
    };
    assert!(Graph::parse(&with_blanks(Definition::MAX_BYTES)).is_ok());
    let violations = Graph::parse(&with_blanks(Definition::MAX_BYTES + 1)).unwrap_err();
    assert_eq!(violations[0].code, "definition_too_large");
}

#[test]
fn a_definition_that_was_not_read_from_text_is_held_to_the_same() {
    let text = format!(r#"{{"name":"case","version":1,"steps":[{}]}}"#, step(0, r#"{"const":0}"#));
    let mut definition = Graph::parse(&text).unwrap().definition;
    definition.steps[0].task.as_mut().unwrap().retry.multiplier = f64::INFINITY;
    definition.description = Some("\0".to_owned());
    let violations = Graph::check(definition).unwrap_err();
    let found: Vec<_> =
        violations.iter().map(|found| (found.pointer.as_str(), found.code.as_str())).collect();
    assert_eq!(
        found,
        [
            ("/description", "nul_character"),
            ("/steps/0/task/retry/multiplier", "invalid_multiplier")
        ]
    );
}

struct Input(Payload);

impl Bindings for Input {
    fn input(&self) -> Payload {
        self.0.clone()
    }

    fn step(&self, _: &str) -> Option<Payload> {
        None
    }

    fn gathered(&self, _: &str) -> Option<Gathered> {
        None
    }

    fn gathered_item(&self, _: &str, _: usize) -> Option<Payload> {
        None
    }

    fn item(&self) -> Option<Payload> {
        None
    }

    fn index(&self) -> Option<u32> {
        None
    }
}

#[test]
fn what_an_expression_may_build() {
    let quarter = "x".repeat(Expr::RESULT_LIMIT / 4);
    let scope = Input(Payload::of(&quarter).unwrap());
    let times = |count| Expr::Array(vec![Expr::path("/input"); count]);
    assert_eq!(times(3).eval(&scope).unwrap().elements().unwrap().len(), 3);
    assert_eq!(times(4).eval(&scope).unwrap_err().code, "result_too_large");
    assert_eq!(Expr::path("/input").eval(&scope).unwrap(), scope.0);
}

#[test]
fn a_list_of_a_hundred_thousand_elements() {
    let list: Vec<u32> = (0..100_000).collect();
    let elements = Payload::of(&list).unwrap().elements().unwrap();
    assert_eq!(elements.len(), 100_000);
    assert_eq!(elements[99_999].text(), "99999");
    assert_eq!(Payload::null().elements(), None);
}

#[test]
fn numbers_of_many_digits() {
    let digits = |count: usize| Payload::parse(&"9".repeat(count), usize::MAX);
    assert!(digits(308).is_ok());
    assert_eq!(digits(309).unwrap_err().code, "number_out_of_range");
    let small = format!("0.{}", "0".repeat(1_000));
    assert!(Payload::parse(&small, usize::MAX).is_ok());
}

#[test]
fn a_year_and_no_longer() {
    let codes_of = |timeout: &str| {
        codes(&[step(0, r#"{"const":0}"#)], &format!(r#"null,"timeout":"{timeout}""#))
    };
    assert_eq!(codes_of("366days"), [""; 0]);
    assert_eq!(codes_of("366days 1ms"), ["invalid_span"]);
    assert_eq!(codes_of("1ms"), [""; 0]);
}

/// Text that would take a naive reader very long, or its whole stack.
#[test]
fn hostile_text() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(Payload::parse(&deep, usize::MAX).unwrap_err().code, "nesting_too_deep");
    let open = "{\"a\":".repeat(100_000);
    let violation = Payload::parse(&open, usize::MAX).unwrap_err();
    assert_eq!(violation.code, "invalid_json");
    assert!(violation.pointer.len() <= 1_000, "a pointer is not as long as the document");
    let unchecked = Payload::trusted(deep.clone()).unwrap();
    assert_eq!(unchecked.canonical(), deep);
    assert_eq!(unchecked.check(usize::MAX).unwrap_err().code, "nesting_too_deep");

    let keys = |last: usize| {
        let keys = (0..50_000).chain([last]).map(|key| format!("\"\\u0061{key}\":0"));
        format!("{{{}}}", keys.collect::<Vec<_>>().join(","))
    };
    assert!(Payload::parse(&keys(50_000), usize::MAX).is_ok());
    let violation = Payload::parse(&keys(7), usize::MAX).unwrap_err();
    assert_eq!((violation.code.as_str(), violation.pointer.as_str()), ("duplicate_key", "/a7"));
}

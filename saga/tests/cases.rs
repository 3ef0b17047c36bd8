//! Runs the text cases under `testdata/`, which are the specification of what documents may come in. With
//! `UPDATE_EXPECT=1` it writes down what is the case instead; read the difference before you believe it.

#![expect(clippy::unwrap_used, reason = "a test that finds something missing has failed")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use backstitch_saga::{Bindings, Expr, Gathered, Graph, Payload};

/// Every code with which a definition can be refused. They are part of the API: clients look at them.
const DEFINITION_CODES: &[&str] = &[
    "beside_pivot",
    "can_fail_after_pivot",
    "compensatable_after_pivot",
    "compensate_missing",
    "compensate_unexpected",
    "cycle",
    "duplicate_emit",
    "duplicate_id",
    "duplicate_key",
    "duplicate_milestone",
    "emits_misplaced",
    "empty_missing",
    "expression_too_deep",
    "for_or_until",
    "invalid_attempts",
    "invalid_code",
    "invalid_fact",
    "invalid_concurrency",
    "invalid_contract",
    "invalid_delay",
    "invalid_entity",
    "invalid_event",
    "invalid_handler",
    "invalid_id",
    "invalid_json",
    "invalid_losses",
    "invalid_message",
    "invalid_multiplier",
    "invalid_name",
    "invalid_on_unknown",
    "invalid_path",
    "invalid_queue",
    "invalid_quorum",
    "invalid_ratio",
    "invalid_schema",
    "invalid_signal",
    "invalid_span",
    "invalid_value",
    "invalid_version",
    "item_outside_map",
    "missing_member",
    "no_steps",
    "not_undoable",
    "nul_character",
    "one_body",
    "one_signal_or_several",
    "retract_missing",
    "self_reference",
    "stream_missing",
    "timeout_missing",
    "too_many_emits",
    "type_mismatch",
    "unknown_member",
    "unknown_step",
    "vendor_contract",
    "verify_missing",
];

/// Codes of rules about size, which `limits.rs` looks after.
const LIMIT_CODES: &[&str] = &["definition_too_large", "expression_too_large", "too_many_steps"];

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

/// Compares a case file with what is the case.
fn expect(path: &Path, actual: &str) {
    let expected = fs::read_to_string(path).unwrap();
    if expected == actual {
        return;
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(path, actual).unwrap();
        return;
    }
    let differs = expected.lines().zip(actual.lines()).position(|(a, b)| a != b);
    let line = differs.unwrap_or(expected.lines().count().min(actual.lines().count()));
    panic!(
        "{}, line {}\nexpected: {}\nfound:    {}\nUPDATE_EXPECT=1 writes down what was found",
        path.display(),
        line + 1,
        expected.lines().nth(line).unwrap_or_default(),
        actual.lines().nth(line).unwrap_or_default()
    );
}

/// Reads a file of one-line cases, each followed by an indented answer, and gives it back with the answers of
/// `answer`. Lines that begin with `#` are for the reader.
fn with_answers(text: &str, mut answer: impl FnMut(&str) -> Option<String>) -> String {
    let mut actual = String::new();
    for line in text.lines().filter(|line| !line.starts_with("    ")) {
        writeln!(actual, "{line}").unwrap();
        if !line.is_empty() && !line.starts_with('#') {
            answer(line).into_iter().for_each(|text| writeln!(actual, "    {text}").unwrap());
        }
    }
    actual
}

#[test]
fn payloads() {
    let path = testdata("payloads.txt");
    let actual = with_answers(&fs::read_to_string(&path).unwrap(), |text| {
        Some(match Payload::parse(text, 130) {
            Ok(payload) => format!("= {}", payload.canonical()),
            Err(violation) => format!("! {violation}"),
        })
    });
    expect(&path, &actual);
}

/// A run's document, as a line of a case file gives it.
struct Document(Payload);

impl Document {
    fn get(&self, path: &str) -> Option<Payload> {
        let members: std::collections::HashMap<String, Payload> = self.0.to().unwrap();
        members.get(path).cloned()
    }
}

impl Bindings for Document {
    fn input(&self) -> Payload {
        self.get("/input").unwrap_or_else(Payload::null)
    }

    fn step(&self, id: &str) -> Option<Payload> {
        assert_ne!(id, "unread", "the output of this step is not to be built");
        self.get(&format!("/steps/{id}"))
    }

    fn gathered(&self, id: &str) -> Option<Gathered> {
        match id {
            "unread" => Some(Gathered { count: 3, bytes: 3_000 }),
            "vast" => Some(Gathered { count: 3, bytes: usize::MAX }),
            _ => None,
        }
    }

    fn gathered_item(&self, id: &str, index: usize) -> Option<Payload> {
        assert!(matches!(id, "unread" | "vast"), "{id} is no fan-out");
        (index < 3)
            .then(|| Payload::of(&std::collections::BTreeMap::from([("n", [index])])).unwrap())
    }

    fn item(&self) -> Option<Payload> {
        self.get("/item")
    }

    fn index(&self) -> Option<u32> {
        self.get("/index").map(|index| index.to().unwrap())
    }
}

#[test]
fn expressions() {
    let path = testdata("expressions.txt");
    let mut document = Document(Payload::null());
    let actual = with_answers(&fs::read_to_string(&path).unwrap(), |line| {
        if let Some(text) = line.strip_prefix("document ") {
            document = Document(Payload::trusted(text.to_owned()).unwrap());
            return None;
        }
        let expr: Expr = serde_json::from_str(line).unwrap();
        Some(match expr.eval(&document) {
            Ok(value) => format!("= {}", value.text()),
            Err(error) => format!("! {} at '{}': {}", error.code, error.pointer, error.message),
        })
    });
    expect(&path, &actual);
}

#[test]
fn references() {
    let path = testdata("references.txt");
    let actual = with_answers(&fs::read_to_string(&path).unwrap(), |line| {
        let expr: Expr = serde_json::from_str(line).unwrap();
        let references = expr.references().into_iter().map(|reference| {
            format!("{}{}", reference.step, if reference.required { "" } else { "?" })
        });
        let whole = expr.whole().map(|path| format!(" (the whole of {path})"));
        Some(format!("= {}{}", references.collect::<Vec<_>>().join(" "), whole.unwrap_or_default()))
    });
    expect(&path, &actual);
}

/// Returns the order and edges of a definition, or all mistakes in it.
fn describe(text: &str) -> (String, Vec<String>) {
    let graph = match Graph::parse(text) {
        Ok(graph) => graph,
        Err(violations) => {
            let lines: String = violations.iter().map(|found| format!("{found}\n")).collect();
            return (lines, violations.into_iter().map(|found| found.code).collect());
        }
    };
    let mut lines = String::new();
    for node in graph.order.iter().map(|at| &graph.nodes[*at]) {
        write!(lines, "{}", node.id).unwrap();
        for (word, others) in [("needs", &node.needs), ("requires", &node.requires)] {
            if !others.is_empty() {
                let ids: Vec<&str> = others.iter().map(|at| &*graph.nodes[*at].id).collect();
                write!(lines, " {word} {}", ids.join(" ")).unwrap();
            }
        }
        writeln!(lines, "{}", if node.after_pivot { " (after the pivot)" } else { "" }).unwrap();
    }
    (lines, Vec::new())
}

/// Gives back a file of cases: comments, a definition, `----`, what it comes to; `====` between cases. A definition
/// that is a list stands for a workflow with these steps.
fn with_descriptions(text: &str, codes: &mut BTreeSet<String>) -> String {
    let cases = text.split("====\n").map(|case| {
        let given = case.split("----\n").next().unwrap_or_default();
        let lines: Vec<&str> = given.lines().filter(|line| !line.starts_with('#')).collect();
        let mut definition = lines.join("\n");
        if definition.starts_with('[') {
            definition = format!(r#"{{"name":"case","version":1,"steps":{definition}}}"#);
        }
        let (description, found) = describe(&definition);
        codes.extend(found);
        format!("{given}----\n{description}")
    });
    cases.collect::<Vec<_>>().join("====\n")
}

#[test]
fn definitions() {
    let mut codes = BTreeSet::new();
    let mut files: Vec<PathBuf> =
        fs::read_dir(testdata("definitions")).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    for path in files {
        let actual = with_descriptions(&fs::read_to_string(&path).unwrap(), &mut codes);
        expect(&path, &actual);
    }
    let all: BTreeSet<String> = DEFINITION_CODES.iter().map(|code| (*code).to_owned()).collect();
    assert_eq!(codes, all, "each code has a case, and each is known");
}

/// The codes in the source of the checks are those that are listed here.
#[test]
fn every_code_is_listed() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/validate");
    let mut missing = Vec::new();
    for file in fs::read_dir(source).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        let literals = text.split('"').skip(1).step_by(2);
        let is_code = |word: &&str| {
            word.len() > 1
                && word.contains('_')
                && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        };
        let members =
            ["on_unknown", "on_failure", "max_concurrency", "max_delay", "first_delay", "to_start"];
        missing.extend(
            literals
                .filter(is_code)
                .filter(|word| !DEFINITION_CODES.contains(word) && !LIMIT_CODES.contains(word))
                .filter(|word| !members.contains(word))
                .map(str::to_owned),
        );
    }
    assert_eq!(missing, Vec::<String>::new());
}

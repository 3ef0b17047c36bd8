//! Holds the source text to the house: who uses whom, how long functions are, which words it is written in. Where the
//! code is not there yet a number says how far it is: it may only fall.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

mod cycles;

/// The most lines of code of a function, from its name to its last brace.
const MAX_FUNCTION: usize = 70;
/// The most lines that a newcomer reads along the reading order.
const MAX_READING: usize = 4_000;
/// Doc comments that open so have no verb.
const OPENINGS: [&str; 12] = [
    "What", "How", "Whether", "When", "Where", "Who", "Which", "Whom", "Whose", "Why", "Since",
    "Until",
];
/// Crates, where their sources are, and what is still to be mended at most: files in cycles, openings of doc comments.
const CRATES: [(&str, &str, usize, usize); 6] = [
    ("saga", "saga/src", 32, 0),
    ("integration", "integration/src", 3, 0),
    ("engine", "engine/src", 195, 0),
    ("worker-sdk", "worker-sdk/src", 6, 0),
    ("api", "api/src", 28, 49),
    ("api/console", "api/console/src", 8, 0),
];
/// Functions that are longer still.
const LONG: [&str; 32] = [
    "api/console/src/pages/jobs.rs plan_page",
    "api/console/src/pages/run.rs page",
    "api/console/src/pages/shapes.rs contract_page",
    "api/console/src/pages/undo.rs page",
    "api/src/bounds.rs connections",
    "api/src/routes/mod.rs collect",
    "engine/src/engine.rs start",
    "engine/src/flow/serve.rs choose",
    "engine/src/ingress/again.rs again",
    "engine/src/ingress/import.rs take_rows",
    "engine/src/ingress/sources.rs put_source",
    "engine/src/ingress/take.rs write",
    "engine/src/store/statement.rs template",
    "integration/tests/ingress.rs checks_come_in_their_order_each_with_its_code",
    "integration/tests/transforms.rs a_transform_that_cannot_work_is_refused_at_its_place",
    "saga/src/effect.rs effects",
    "saga/src/erase.rs event",
    "saga/src/run/apply.rs apply_event",
    "saga/src/run/view.rs conditions_at",
    "saga/src/spans.rs each_pair_is_warned_of_at_the_span_that_is_never_reached",
    "saga/tests/drawn/mod.rs graph",
    "saga/tests/teller/mod.rs command",
    "saga/tests/teller/words.rs event",
    "saga/tests/teller/workflow.rs step",
    "tests/all/api/robust.rs nothing_that_is_sent_breaks_anything",
    "tests/all/console/browser.rs night",
    "tests/all/documents/help.rs prepare",
    "tests/all/engine/index_check.rs a_key_whose_row_is_lost_is_given_to_nobody_else",
    "tests/all/engine/index_check.rs a_run_whose_journal_is_damaged_is_put_aside_until_it_is_repaired",
    "tests/chaos/src/faults.rs hurt",
    "tests/chaos/src/plan.rs run",
    "workflows/src/place_order.rs place_order",
];
/// Public types of one crate with one name still.
const TWICE: [&str; 2] = ["integration Outcome", "integration Refusal"];
/// Words that the glossary has better ones for, and where they must not stand in code.
const WORDS: [(&str, &[&str]); 4] = [
    ("saga/src/run", &["Hand", "Work", "Aside", "Tries", "Facts", "Decider"]),
    ("engine/src/executor", &["Desk", "Envelope", "Order", "Flight", "Landed"]),
    ("engine/src", &["Trouble", "HandOver", "Hint", "Wants", "Chore"]),
    ("worker-sdk/src", &["Undoing"]),
];

struct Source {
    path: String,
    text: String,
    /// The text with blanks for comments and what stands in quotes.
    code: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the workspace")
}

/// Returns every Rust file below these folders, by path.
fn sources(dirs: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = dirs.iter().map(|dir| root().join(dir)).collect();
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("a folder of the workspace") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file is text");
                let path = path.strip_prefix(root()).expect("below the root").display().to_string();
                found.push(Source { code: without_prose(&text), path, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Returns the same text with blanks for comments, strings and characters.
fn without_prose(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = end_of_prose(bytes, at);
        for byte in &mut code[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8_lossy(&code).into_owned()
}

/// Returns the end of the comment or text that begins at `at`; `at` if none does.
fn end_of_prose(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let find = |from: usize, what: &[u8]| {
        rest[from..]
            .windows(what.len())
            .position(|window| window == what)
            .map_or(bytes.len(), |found| at + from + found)
    };
    match rest {
        [b'/', b'/', ..] => find(2, b"\n"),
        [b'/', b'*', ..] => (find(2, b"*/") + 2).min(bytes.len()),
        [b'r', b'"' | b'#', ..] if at == 0 || !is_word(bytes[at - 1]) => {
            let marks = rest[1..].iter().take_while(|byte| **byte == b'#').count();
            if rest.get(1 + marks) != Some(&b'"') {
                return at;
            }
            let mut close = vec![b'"'];
            close.resize(1 + marks, b'#');
            (find(2 + marks, &close) + close.len()).min(bytes.len())
        }
        [b'"', ..] => end_of_quoted(bytes, at, b'"'),
        [b'\'', b'\\', ..] => end_of_quoted(bytes, at, b'\''),
        [b'\'', first, ..] => {
            let width = match first {
                0..0x80 => 1,
                0x80..0xe0 => 2,
                0xe0..0xf0 => 3,
                _ => 4,
            };
            if rest.get(1 + width) == Some(&b'\'') { at + width + 2 } else { at }
        }
        _ => at,
    }
}

fn end_of_quoted(bytes: &[u8], at: usize, quote: u8) -> usize {
    let mut end = at + 1;
    while end < bytes.len() && bytes[end] != quote {
        end += if bytes[end] == b'\\' { 2 } else { 1 };
    }
    (end + 1).min(bytes.len())
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Returns the words of a code, with where each begins.
fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let bytes = code.as_bytes();
    let begins = (0..bytes.len())
        .filter(move |&at| is_word(bytes[at]) && (at == 0 || !is_word(bytes[at - 1])));
    begins.map(|at| {
        let length = code.as_bytes()[at..].iter().take_while(|byte| is_word(**byte)).count();
        (at, &code[at..at + length])
    })
}

/// Returns the functions of a file with too many lines of code. Blank lines and comments do not count.
fn long_functions(source: &Source) -> Vec<String> {
    let all: Vec<(usize, &str)> = words(&source.code).collect();
    let mut found = Vec::new();
    for pair in all.windows(2) {
        let [(at, "fn"), (_, name)] = *pair else { continue };
        let Some(length) = body(&source.code[at..]) else { continue };
        let lines = source.code[at..at + length].lines();
        if lines.filter(|line| !line.trim().is_empty()).count() > MAX_FUNCTION {
            found.push(format!("{} {name}", source.path));
        }
    }
    found
}

/// Returns the length of a function; nothing if it has no body.
fn body(code: &str) -> Option<usize> {
    let (mut round, mut curly, mut begun) = (0_i32, 0_i32, false);
    for (at, byte) in code.bytes().enumerate() {
        match byte {
            b'(' | b'[' if !begun => round += 1,
            b')' | b']' if !begun => round -= 1,
            b';' if !begun && round == 0 => return None,
            b'{' => (curly, begun) = (curly + 1, begun || round == 0),
            b'}' => curly -= 1,
            _ => {}
        }
        if begun && curly == 0 {
            return Some(at + 1);
        }
    }
    None
}

#[test]
fn a_function_has_at_most_seventy_lines_of_code() {
    let dirs =
        ["saga", "integration", "engine", "worker-sdk", "api", "workflows", "examples", "tests"];
    let all = sources(&dirs);
    let long: BTreeSet<String> = all.iter().flat_map(long_functions).collect();
    let known: BTreeSet<String> = LONG.iter().map(|&name| name.to_owned()).collect();
    let new: Vec<&String> = long.difference(&known).collect();
    assert!(new.is_empty(), "longer than {MAX_FUNCTION} lines: {new:#?}");
    let mended: Vec<&String> = known.difference(&long).collect();
    assert!(mended.is_empty(), "no longer too long, take them from `LONG`: {mended:#?}");
}

#[test]
fn no_two_public_types_of_a_crate_have_one_name() {
    let mut twice = BTreeSet::new();
    for (name, dir, ..) in CRATES {
        let mut known = BTreeSet::new();
        for source in sources(&[dir]) {
            for line in source.code.lines() {
                let mut words = line.split_whitespace();
                let kinds = ["struct", "enum", "trait", "type", "union"];
                if words.next() == Some("pub")
                    && words.next().is_some_and(|kind| kinds.contains(&kind))
                {
                    let of: String = words
                        .next()
                        .unwrap_or_default()
                        .chars()
                        .take_while(|c| c.is_alphanumeric())
                        .collect();
                    if !known.insert(of.clone()) {
                        twice.insert(format!("{name} {of}"));
                    }
                }
            }
        }
    }
    assert_eq!(twice.iter().map(String::as_str).collect::<Vec<_>>(), TWICE);
}

#[test]
fn words_that_the_glossary_has_better_ones_for_do_not_stand_in_code() {
    for (dir, forbidden) in WORDS {
        for source in sources(&[dir]) {
            let found =
                words(&source.code).map(|(_, word)| word).find(|word| forbidden.contains(word));
            assert_eq!(found, None, "{}", source.path);
        }
    }
}

#[test]
fn doc_comments_open_with_a_verb_or_a_noun() {
    for (name, dir, _, most) in CRATES {
        let mut count = 0;
        for source in sources(&[dir]) {
            let mut inside = false;
            for line in source.text.lines().map(str::trim_start) {
                let text = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
                if let (Some(text), false) = (text, inside) {
                    count += usize::from(
                        text.split_whitespace()
                            .next()
                            .is_some_and(|first| OPENINGS.contains(&first)),
                    );
                }
                inside = text.is_some();
            }
        }
        assert!(count <= most, "{name}: {count} doc comments open without a verb, {most} did");
    }
}

#[test]
fn the_engine_interprets_no_event_of_a_run() {
    // An input of subscriptions has a variant of that name.
    let other = "SubscriptionInput::";
    for source in sources(&["engine/src"]) {
        let names_it =
            |&(at, word): &(usize, &str)| word == "Event" && !source.code[..at].ends_with(other);
        assert!(
            !words(&source.code).any(|word| names_it(&word)),
            "{}: say in `Event::effects` what is to happen",
            source.path
        );
    }
}

#[test]
fn crates_use_what_the_table_of_the_architecture_allows() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("the page");
    let Some((_, table)) = page.split_once("| crate | may use |") else {
        panic!("ARCHITECTURE.md has no table `| crate | may use |`");
    };
    let quoted = |cell: &str| -> BTreeSet<String> {
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let mut told = BTreeSet::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').collect();
        let (of, may) = (quoted(cells[1]), quoted(cells[2]));
        let dir = of.first().expect("a crate");
        let manifest =
            fs::read_to_string(root().join(dir).join("Cargo.toml")).expect("its manifest");
        let section = manifest
            .split("\n[")
            .find(|section| section.starts_with("dependencies]"))
            .unwrap_or_default();
        let uses: BTreeSet<String> = section
            .lines()
            .filter_map(|line| line.strip_prefix("backstitch-"))
            .map(|rest| rest.split(['.', ' ', '=']).next().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(uses, may, "what {dir} uses, and what the table of ARCHITECTURE.md says");
        told.insert(dir.clone());
    }
    let members = fs::read_to_string(root().join("Cargo.toml")).expect("the workspace");
    let members = members
        .split_once("members = [")
        .and_then(|(_, rest)| rest.split(']').next())
        .expect("the members of the workspace");
    for member in members
        .split('"')
        .skip(1)
        .step_by(2)
        .filter(|one| !one.starts_with("tests") && !one.ends_with("compile-fail"))
    {
        assert!(told.contains(member), "{member} is not in the table of ARCHITECTURE.md");
    }
}

#[test]
fn the_reading_order_is_short_and_leads_to_files_that_there_are() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("the page");
    let order = page
        .split("## Reading order")
        .nth(1)
        .and_then(|rest| rest.split("\n## ").next())
        .expect("the reading order");
    let mut lines = 0;
    for path in
        order.split('`').skip(1).step_by(2).filter(|path| path.contains('/') && path.contains('.'))
    {
        let text =
            fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        lines += text.lines().count();
    }
    assert!(lines <= MAX_READING, "{lines} lines");
}

#[test]
fn the_files_that_contributors_are_led_to_are_there() {
    let page = fs::read_to_string(root().join("CONTRIBUTING.md")).expect("the page");
    let is_path = |text: &&str| {
        text.contains('/') && !text.contains([' ', '*', '{', '…']) && !text.starts_with("GET")
    };
    let missing: Vec<&str> = page
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(is_path)
        .filter(|path| !path.contains("NNNN") && !root().join(path).exists())
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

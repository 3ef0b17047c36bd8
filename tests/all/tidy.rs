//! Reads the source text and holds it to the habits of the house that no compiler checks.

use std::fs;
use std::path::{Path, PathBuf};

/// Longer files are not read as one.
const MAX_LINES: usize = 500;

struct Source {
    path: String,
    text: String,
}

/// Returns every Rust file of the workspace.
fn sources() -> Vec<Source> {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the workspace");
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> =
        ["saga", "integration", "engine", "worker-sdk", "api", "workflows", "examples", "tests"]
            .map(|dir| root.join(dir))
            .into();
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("a folder of the workspace") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file is text");
                let path = path.strip_prefix(root).expect("below the root").display().to_string();
                found.push(Source { path, text });
            }
        }
    }
    assert!(found.len() > 50, "only {} source files were found", found.len());
    found
}

fn check(rule: &str, wrong: impl Fn(&Source) -> bool) {
    let all = sources();
    let wrong: Vec<&str> =
        all.iter().filter(|source| wrong(source)).map(|source| source.path.as_str()).collect();
    assert!(wrong.is_empty(), "{rule}: {wrong:#?}");
}

#[test]
fn every_file_says_what_it_is_for() {
    // The inputs of compile-fail tests are shown to people as they stand.
    check("the first line of a file says what it is for (`//!`)", |source| {
        !source.path.contains("/ui/")
            && !source.path.contains("compile_fail")
            && !source.text.starts_with("//!")
    });
}

#[test]
fn no_file_is_longer_than_a_reader_holds() {
    check(&format!("a file has at most {MAX_LINES} lines"), |source| {
        source.text.lines().count() > MAX_LINES
    });
}

#[test]
fn sql_has_one_home() {
    let is_sql = |text: &str| {
        ["\"select ", "\"insert into ", "\"update ", "\"delete from ", "sqlx::query"]
            .iter()
            .any(|sql| text.contains(sql))
    };
    // What applications send in transactions of their own.
    let offered = "worker-sdk/src/transaction.rs";
    check("SQL stands in engine/src/store/ only (tests may look at tables)", |source| {
        !source.path.starts_with("engine/src/store/")
            && source.path != offered
            && !source.path.starts_with("tests/")
            && is_sql(&source.text)
    });
}

#[test]
fn the_rules_know_no_clock_no_chance_and_no_outside() {
    let outside = [
        "SystemTime",
        "Instant::now",
        "Utc::now",
        "rand::",
        "tokio",
        "async fn",
        "std::fs",
        "std::net",
    ];
    check("saga/ and integration/ are pure", |source| {
        ["saga/src/", "integration/src/"].iter().any(|dir| source.path.starts_with(dir))
            && outside.iter().any(|word| source.text.contains(word))
    });
}

#[test]
fn nothing_is_left_to_do() {
    let marks = ["todo!(", "unimplemented!(", concat!("TO", "DO"), concat!("FIX", "ME")];
    check("nothing is left undone in the source", |source| {
        source.path != "tests/all/tidy.rs" && marks.iter().any(|mark| source.text.contains(mark))
    });
}

//! `docs/console.md` says of each operation of the API where it is done in the console, or that it is not.

use std::collections::BTreeMap;

use backstitch_tests::server::operations;

#[test]
fn the_page_about_the_console_names_each_operation_once() {
    let path = format!("{}/../docs/console.md", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let (pages, table) = text.split_once("## Where each operation is done").unwrap();
    let mut told: BTreeMap<&str, &str> = BTreeMap::new();
    for line in table.lines().filter(|line| line.starts_with("| `")) {
        let mut cells = line.trim_matches(['|', ' ']).split(" | ");
        let (operation, place) = (cells.next().unwrap().trim_matches('`'), cells.next().unwrap());
        assert!(told.insert(operation, place).is_none(), "{operation} stands twice");
        assert_ne!(place, "not yet", "{operation}");
        let said = place.starts_with("not: ") || ["every page", "leads to it"].contains(&place);
        assert!(
            said || pages.contains(&format!("| {place}"))
                || pages.contains(&format!(" {place},"))
                || pages.contains(&format!(" {place} |")),
            "{operation}: there is no page '{place}'"
        );
    }
    let all: Vec<String> =
        operations().iter().map(|one| format!("{} {}", one.method, one.path)).collect();
    for operation in &all {
        assert!(told.contains_key(operation.as_str()), "{operation} is not in docs/console.md");
    }
    assert_eq!(told.len(), all.len(), "docs/console.md names an operation that there is not");
}

/// All that the console is written in.
fn sources(folder: &std::path::Path, found: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn the_console_asks_for_each_operation_that_is_said_to_be_done_in_it() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let mut console = String::new();
    sources(std::path::Path::new(&format!("{root}/api/console/src")), &mut console);
    let text = std::fs::read_to_string(format!("{root}/docs/console.md")).unwrap();
    let (_, table) = text.split_once("## Where each operation is done").unwrap();
    for line in table.lines().filter(|line| line.starts_with("| `") && !line.contains("| not: ")) {
        let operation = line.split('`').nth(1).unwrap();
        // The last words of the path tell it from others.
        let word = operation.rsplit('/').find(|part| !part.is_empty() && !part.starts_with('{'));
        let word = word.filter(|word| !word.contains(' '));
        assert!(
            word.is_none_or(|word| console.contains(word)),
            "the console never asks for {operation}"
        );
    }
}

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
        let said = place.starts_with("not") || ["every page", "leads to it"].contains(&place);
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

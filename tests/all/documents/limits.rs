//! The page of limits says what the code says.

use super::blocks::root;

const BEGIN: &str = "<!-- the tables are printed from the code: BACKSTITCH_BLESS=1 -->\n";

#[test]
fn the_page_of_limits_has_the_bounds_of_the_code() {
    let file = root().join("docs/limits.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let (before, after) = text.split_once(BEGIN).expect("the page has the mark");
    let printed = backstitch_api::bounds::page();
    if std::env::var_os("BACKSTITCH_BLESS").is_some() {
        std::fs::write(&file, format!("{before}{BEGIN}{printed}")).unwrap();
    } else {
        assert_eq!(after, printed, "print docs/limits.md anew with BACKSTITCH_BLESS=1");
    }
}

/// Constants by which something ends that nobody is told of: how far an example is looked for, and the like.
const INNER: [&str; 12] = [
    "contracts/compare.rs LARGEST_SHOWN",
    "contracts/compare.rs MOST_TRIES",
    "contracts/example.rs LONGEST_TEXT",
    "contracts/example.rs MOST_CHOICES",
    "contracts/parse/scalar.rs LONGEST_BOUND",
    "contracts/parse/scalar.rs LONGEST_LEAST",
    "contracts/pattern.rs LONGEST_EXAMPLE",
    "contracts/pattern.rs MOST_STEPS",
    "canonical/email.rs LONGEST_LOCAL",
    "canonical/quantity.rs MOST_DIGITS_OF_A_CONVERSION",
    // As in `events/envelope.rs`.
    "transforms/run.rs LONGEST_STREAM",
    // Deeper than any document that comes in.
    "document/read.rs DEEPEST",
];

#[test]
fn bounds_of_documents_and_credentials_are_listed_or_said_to_be_inner_ones() {
    let list = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let lists = list("integration/src/bounds.rs");
    let source = root().join("integration/src");
    let mut found = 0;
    let mut inner: Vec<&str> = Vec::new();
    for file in sources(&source) {
        let name = file.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
        for (constant, public) in bounds_in(&std::fs::read_to_string(&file).unwrap()) {
            found += 1;
            if let Some(known) = INNER.iter().find(|one| **one == format!("{name} {constant}")) {
                inner.push(known);
                continue;
            }
            let stem = file.file_stem().unwrap().to_str().unwrap();
            let area = name.split('/').next().unwrap();
            let qualified = [format!("{stem}::{constant}"), format!("{area}::{constant}")];
            let is_listed = qualified.iter().any(|one| lists.contains(one))
                || (public && lists.contains(&constant));
            assert!(is_listed, "{name}: {constant} does not stand in integration/src/bounds.rs");
        }
    }
    assert!(found > 50, "{found} bounds");
    assert_eq!(inner.len(), INNER.len(), "{INNER:?} are there");
    let change = list("engine/src/credentials/change.rs");
    let (before, after) = change.split_once("pub(crate) fn bounds()").unwrap();
    for (constant, _) in bounds_in(before) {
        assert!(after.split_once("\n}\n").unwrap().0.contains(&constant), "{constant}");
    }
}

/// Returns the names of the constants that bound something, and whether they are public.
fn bounds_in(text: &str) -> Vec<(String, bool)> {
    let constant = |line: &str| {
        let (before, rest) = line.split_once("const ")?;
        let (name, _) = rest.split_once(':')?;
        let bounds = ["MOST", "MAX", "LONGEST", "LARGEST", "DEEPEST"];
        let is_bound = bounds.iter().any(|word| name.split('_').next() == Some(*word));
        (before.trim().is_empty() || before.trim().starts_with("pub"))
            .then_some(())
            .filter(|()| is_bound && !line.starts_with(' '))
            .map(|()| (name.to_owned(), before.trim() == "pub"))
    };
    text.lines().filter_map(constant).collect()
}

/// Returns all sources below a folder, but the list of bounds.
fn sources(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("bounds.rs") {
            found.push(path);
        }
    }
    found
}

//! `docs/definitions.md` beside the schema of definitions: each member and form has a row in the section of its type,
//! and stands in an example.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::document;
use super::schema::Walk;

/// Returns the names in the first cells of the tables below each heading of a type.
fn sections(page: &str) -> BTreeMap<&str, BTreeSet<String>> {
    let mut sections: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut at = None;
    for line in page.lines() {
        if line.starts_with('#') {
            at = line.strip_prefix("### ");
            continue;
        }
        let (Some(kind), Some(row)) = (at, line.strip_prefix('|')) else { continue };
        let cell = row.split('|').next().unwrap_or_default();
        let names = cell.split('`').skip(1).step_by(2).map(name_of);
        sections.entry(kind).or_default().extend(names);
    }
    sections
}

/// Returns the name in a form: `quorum` of `{"quorum": N}`, `all` of `"all"`.
fn name_of(form: &str) -> String {
    match form.split('"').nth(1) {
        Some(name) => name.to_owned(),
        None => form.to_owned(),
    }
}

/// Returns the JSON documents of a page.
fn examples(page: &str) -> Vec<Value> {
    let blocks = page.split("```json\n").skip(1);
    let texts = blocks.filter_map(|block| block.split("```").next());
    texts.map(|text| serde_json::from_str(text).unwrap()).collect()
}

/// Returns the entries that the page lacks, and those without a counterpart in the schema.
fn differences(page: &str) -> (Vec<String>, Vec<String>) {
    let document = document();
    let walk = Walk::of(&document["components"]["schemas"]);
    let (sections, nothing) = (sections(page), BTreeSet::new());
    let mut left: BTreeSet<String> = sections
        .iter()
        .flat_map(|(kind, names)| names.iter().map(move |name| format!("{kind} {name}")))
        .collect();
    let mut missing = Vec::new();
    for place in walk.wanted("Definition") {
        let (kind, name) = place.split_once(['.', '=']).unwrap();
        if !sections.get(kind).unwrap_or(&nothing).contains(name) {
            missing.push(place.clone());
        }
        left.remove(&format!("{kind} {name}"));
    }
    (missing, left.into_iter().collect())
}

fn page() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/definitions.md");
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn the_page_about_definitions_has_a_row_for_each_member_and_each_form() {
    let (missing, unknown) = differences(&page());
    assert!(missing.is_empty(), "docs/definitions.md has no row for {missing:#?}");
    assert!(unknown.is_empty(), "docs/definitions.md has rows for what is not there: {unknown:#?}");
}

#[test]
fn a_row_that_is_missing_or_too_many_is_named() {
    let without = page()
        .replace("| `losers` |", "| `winners` |")
        .replace("| `{\"quorum\": N}`", "| `{\"most\": N}`");
    let (missing, unknown) = differences(&without);
    assert_eq!(missing, ["Join.quorum", "Map.losers"]);
    assert_eq!(unknown, ["Join most", "Map winners"]);
}

#[test]
fn each_member_of_a_definition_stands_in_an_example_of_the_page_about_definitions() {
    let document = document();
    let mut walk = Walk::of(&document["components"]["schemas"]);
    let examples = examples(&page());
    assert!(examples.len() >= 10, "{} examples", examples.len());
    for example in &examples {
        walk.follow("Definition", example);
    }
    let members = walk.wanted("Definition").into_iter().filter(|place| place.contains('.'));
    let missing: Vec<String> = members.filter(|place| !walk.is_said(place)).collect();
    assert!(missing.is_empty(), "no example of docs/definitions.md has {missing:#?}");
}

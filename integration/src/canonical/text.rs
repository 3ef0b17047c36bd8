//! Texts: composed characters and single spaces, where a rule says so.

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

/// One thing that is cleaned in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clean {
    /// Characters are composed: Unicode's form NFC.
    Nfc,
    /// Replaces compatible characters: Unicode's form NFKC.
    Nfkc,
    /// White space before and behind is removed.
    Trim,
    /// Each run of white space becomes one space.
    Spaces,
    /// Letters become capitals.
    Upper,
    /// Letters become small.
    Lower,
}

/// Returns `text`, cleaned in the order that makes the result stable: case, spaces, and composition last.
#[must_use]
pub fn clean(text: &str, rules: &[Clean]) -> String {
    let has = |rule: Clean| rules.contains(&rule);
    let mut text = text.to_owned();
    // Lower case of some characters is decomposed, and compatible characters may have a case: a second pass settles it.
    for _ in 0..2 {
        if has(Clean::Nfkc) {
            text = text.nfkc().collect();
        }
        if has(Clean::Upper) {
            text = text.to_uppercase();
        }
        if has(Clean::Lower) {
            text = text.to_lowercase();
        }
        if has(Clean::Trim) {
            text = text.trim().to_owned();
        }
        if has(Clean::Spaces) {
            text = spaces(&text);
        }
        if has(Clean::Nfkc) {
            text = text.nfkc().collect();
        } else if has(Clean::Nfc) {
            text = text.nfc().collect();
        }
    }
    text
}

fn spaces(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_space = false;
    for character in text.chars() {
        if !character.is_whitespace() {
            out.push(character);
        } else if !in_space {
            out.push(' ');
        }
        in_space = character.is_whitespace();
    }
    out
}

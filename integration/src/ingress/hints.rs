//! Identity hints: raw identifiers, captured as they came and normalised beside. Nothing is merged by them.

use backstitch_saga::Violation;
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

use crate::canonical::{country, email, phone};
use crate::document::{Pattern, Pointer, Value};

/// The most hints of one document.
pub const MOST_HINTS: usize = 64;
/// The most bytes of a value that is captured.
pub(crate) const LONGEST: usize = 1_000;

/// Rule that captures hints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HintRule {
    /// Kind: `email`, `phone`, or another name, such as `legacy_id:erp`.
    pub kind: String,
    /// Places of the values.
    pub at: Pattern,
    /// Place of the country of national phone numbers.
    #[serde(default)]
    pub region_from: Option<Pointer>,
}

/// A raw identifier that a document had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hint {
    /// Kind.
    pub kind: String,
    /// Place in the document.
    pub at: Pointer,
    /// The value as it came.
    pub value_raw: String,
    /// The canonical spelling; `None` for a value that has none.
    pub value_norm: Option<String>,
    /// The value by which an e-mail address is searched: its local part in lower case, too. `None` as for `value_norm`.
    pub value_search: Option<String>,
    /// The value identifies nobody.
    pub junk: bool,
}

/// Hints of a document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Hints {
    /// The hints, in the order of the rules.
    pub captured: Vec<Hint>,
    /// The number of values that were not captured, because there are too many or they are too long.
    pub left_out: usize,
}

impl HintRule {
    /// Checks a rule.
    ///
    /// # Errors
    /// `hint_not_valid`.
    pub fn check(&self, place: &str) -> Result<(), Violation> {
        let is_kind = !self.kind.is_empty()
            && self.kind.len() <= 64
            && self.kind.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_:-.".contains(&byte)
            });
        if !is_kind {
            let message = "a kind has 1 to 64 lower-case letters, digits and _ : - .";
            return Err(Violation::new(format!("{place}/kind"), "hint_not_valid", message));
        }
        if self.region_from.is_some() && self.kind != "phone" {
            let message = "only phone numbers have a region";
            return Err(Violation::new(format!("{place}/region_from"), "hint_not_valid", message));
        }
        Ok(())
    }
}

impl Hints {
    /// Captures the hints of a document. A missing place is no error.
    #[must_use]
    pub fn capture(rules: &[HintRule], document: &Value) -> Hints {
        let mut hints = Hints::default();
        for rule in rules {
            // One more than may be, so that those left out are noticed.
            for (at, value) in rule.at.find(document, MOST_HINTS + 1) {
                let raw = match value {
                    Value::String(text) => text.clone(),
                    Value::Number(number) => number.text().to_owned(),
                    _ => continue,
                };
                if hints.captured.len() >= MOST_HINTS || raw.len() > LONGEST {
                    hints.left_out += 1;
                    continue;
                }
                let region = rule
                    .region_from
                    .as_ref()
                    .and_then(|region| country(region.find(document)?).ok());
                hints.captured.push(hint(&rule.kind, at, raw, region.as_deref()));
            }
        }
        hints
    }
}

/// Returns the value by which hints of a kind are searched. A national phone number has a `region`.
#[must_use]
pub fn search_value(kind: &str, value: &str, region: Option<&str>) -> String {
    let region = region.and_then(|region| country(&Value::from(region)).ok());
    let hint = hint(kind, Pointer::default(), value.to_owned(), region.as_deref());
    hint.value_search.unwrap_or(hint.value_raw)
}

/// Returns whether a value identifies nobody.
#[must_use]
pub fn is_junk_value(kind: &str, value: &str, region: Option<&str>) -> bool {
    is_junk(kind, value, Some(&search_value(kind, value, region)))
}

fn hint(kind: &str, at: Pointer, raw: String, region: Option<&str>) -> Hint {
    let value = Value::String(raw);
    let (norm, search) = match kind {
        "email" => match email(&value) {
            Ok(email) => (
                Some(email.address()),
                Some(format!("{}@{}", email.local.to_lowercase(), email.domain)),
            ),
            Err(_) => (None, None),
        },
        "phone" => {
            let norm = phone(&value, region).ok();
            (norm.clone(), norm)
        }
        _ => {
            let composed: String = value.as_str().unwrap_or_default().nfkc().collect();
            let norm = Some(composed.trim().to_owned()).filter(|text| !text.is_empty());
            (norm.clone(), norm)
        }
    };
    let raw = value.as_str().unwrap_or_default().to_owned();
    let junk = is_junk(kind, &raw, search.as_deref());
    Hint { kind: kind.to_owned(), at, value_raw: raw, value_norm: norm, value_search: search, junk }
}

/// Words in place of a missing value.
const PLACEHOLDERS: &[&str] = &[
    "null",
    "nil",
    "none",
    "n/a",
    "na",
    "n.a.",
    "nan",
    "undefined",
    "unknown",
    "unbekannt",
    "inconnu",
    "desconocido",
    "test",
    "tests",
    "testing",
    "dummy",
    "sample",
    "example",
    "foo",
    "bar",
    "asdf",
    "qwerty",
    "xxx",
    "tbd",
    "todo",
    "keine",
    "false",
    "true",
    "empty",
    "blank",
    "anonymous",
    "default",
    "123",
    "1234",
    "12345",
    "123456",
    "1234567",
    "12345678",
    "123456789",
    "1234567890",
    "0123456789",
];

/// Returns whether a value identifies nobody.
fn is_junk(kind: &str, raw: &str, norm: Option<&str>) -> bool {
    let text = norm.unwrap_or(raw).trim().to_lowercase();
    let marks: String = text.chars().filter(|character| character.is_alphanumeric()).collect();
    if marks.is_empty()
        || PLACEHOLDERS.contains(&text.as_str())
        || PLACEHOLDERS.contains(&marks.as_str())
    {
        return true;
    }
    let mut characters = marks.chars();
    let first = characters.next();
    // `0` and `0000` identify nobody; a single letter or another digit may identify somebody.
    if marks == "0" || (marks.chars().count() > 2 && characters.all(|other| Some(other) == first)) {
        return true;
    }
    match kind {
        "email" => {
            let Some((local, domain)) = text.rsplit_once('@') else { return norm.is_none() };
            let reserved = ["example", "test", "invalid", "localhost"];
            let labels: Vec<&str> = domain.split('.').collect();
            let is_reserved = labels.last().is_some_and(|top| reserved.contains(top))
                || ["example.com", "example.org", "example.net", "test.com", "test.de"]
                    .contains(&domain);
            let nobody = [
                "noreply",
                "no-reply",
                "donotreply",
                "do-not-reply",
                "nobody",
                "postmaster",
                "mailer-daemon",
            ];
            is_reserved || nobody.contains(&local) || PLACEHOLDERS.contains(&local)
        }
        "phone" => norm.is_none() && marks.chars().filter(char::is_ascii_digit).count() < 5,
        _ => false,
    }
}

//! Says why a document could not be read into its type: which form was expected, and what was found. Serde's own
//! sentences speak of Rust; users see these instead.

use std::borrow::Cow;

use serde_json::error::Category;

use crate::json;

/// The most characters of a document that a sentence repeats.
const SHOWN: usize = 60;

/// The rule that a document breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It is no JSON. Serde also reports this for an object with several members, or with none, in place of one of
    /// several forms.
    Syntax,
    /// A member is not known.
    Unknown,
    /// A member is duplicate.
    Twice,
    /// A member is missing.
    Missing,
    /// A value has another form than it should have.
    Form,
}

/// Returns which rule is broken, and how, in one sentence without a position.
#[must_use]
pub fn explain(error: &serde_json::Error) -> (Rule, String) {
    let said = json::without_position(error);
    match error.classify() {
        Category::Data => sentence(&said),
        _ => (Rule::Syntax, syntax(&said).into_owned()),
    }
}

/// Returns the broken rule and a message, from serde's message about a value of another form. A message of our own is
/// unchanged.
#[must_use]
pub fn sentence(said: &str) -> (Rule, String) {
    if let Some((name, known)) = split(said, "unknown field `", &["`, expected ", "`, there are "])
    {
        let message = match known {
            "no fields" => format!("there is no member `{}` here, nor any other", short(name)),
            known => {
                format!("there is no member `{}` here; known are {}", short(name), list(known))
            }
        };
        return (Rule::Unknown, message);
    }
    if let Some((word, known)) =
        split(said, "unknown variant `", &["`, expected ", "`, there are "])
    {
        return (Rule::Form, format!("expected one of {}, found `{}`", list(known), short(word)));
    }
    for twice in ["duplicate field `", "duplicate key `"] {
        if let Some(name) = said.strip_prefix(twice) {
            return (
                Rule::Twice,
                format!("`{}` stands here twice", short(name.trim_end_matches('`'))),
            );
        }
    }
    if let Some(name) = said.strip_prefix("missing field `") {
        return (Rule::Missing, format!("`{}` is missing", short(name.trim_end_matches('`'))));
    }
    for wrong in ["invalid type: ", "invalid value: ", "invalid length "] {
        if let Some((found, expected)) = split(said, wrong, &[", expected "]) {
            let found = match wrong {
                "invalid length " => format!("a list of {found}"),
                _ => self::found(found),
            };
            return (Rule::Form, format!("expected {}, found {found}", self::expected(expected)));
        }
    }
    (Rule::Form, said.to_owned())
}

/// Returns the mistake in a text that was to be a value, from the message of the standard library. A message of our own
/// is unchanged.
#[must_use]
pub fn parsed(said: &str) -> &str {
    match said {
        "invalid digit found in string" | "cannot parse integer from empty string" => {
            "expected a whole number"
        }
        "number too large to fit in target type" => "the number is too large",
        "number too small to fit in target type" => "the number is too small",
        "invalid float literal" | "cannot parse float from empty string" => "expected a number",
        "provided string was not `true` or `false`" => "expected true or false",
        ours => ours,
    }
}

/// Returns the text between `start` and the last of one of `ends`, and the text that follows.
fn split<'a>(said: &'a str, start: &str, ends: &[&str]) -> Option<(&'a str, &'a str)> {
    let rest = said.strip_prefix(start)?;
    // The found text is the document's own and may hold these words, too; the expected text is
    // ours.
    let found = ends.iter().find_map(|end| rest.rfind(end).map(|at| (at, end.len())));
    let (at, length) = found?;
    Some((rest.get(..at)?, rest.get(at + length..)?))
}

/// Returns the first characters of something that a document says.
fn short(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// Reads Serde's list of names: "one of `a`, `b`, `c`", "`a` or `b`", "`a`".
fn list(names: &str) -> String {
    names.strip_prefix("one of ").unwrap_or(names).replace("` or `", "`, `")
}

/// Returns the form that was found.
fn found(said: &str) -> String {
    let (kind, value) = said.split_once(' ').unwrap_or((said, ""));
    let number = value.trim_start_matches("point ").trim_matches('`');
    match kind {
        "integer" | "floating" => format!("the number {}", short(number)),
        "boolean" => value.to_owned(),
        "string" if value.starts_with('"') => format!("the string {}", short(value)),
        "null" | "Option" => "null".to_owned(),
        _ => match said {
            "map" | "newtype variant" | "tuple variant" | "struct variant" => "an object",
            "sequence" => "a list",
            "unit variant" => "a word alone",
            "unit value" => "null",
            "number" => "a number",
            other => return short(other).into_owned(),
        }
        .to_owned(),
    }
}

/// Returns the form that was expected.
fn expected(said: &str) -> Cow<'_, str> {
    if let Some(size) = said.strip_prefix("a tuple of size ") {
        return Cow::Owned(format!("a list of {size}"));
    }
    let (first, rest) = said.split_once(' ').unwrap_or((said, ""));
    let words = match (first, rest) {
        ("u8", _) => "a whole number from 0 to 255",
        ("u16", _) => "a whole number from 0 to 65535",
        ("u32", _) => "a whole number from 0 to 4294967295",
        ("u64" | "u128" | "usize", _) => "a whole number, 0 or more",
        ("i8" | "i16" | "i32" | "i64" | "i128" | "isize", _) => "a whole number",
        ("f32" | "f64", _) => "a number",
        ("struct" | "map", _) | ("a", "map") => "an object",
        ("a", "string" | "borrowed string" | "character") | ("string" | "str", "") => "a string",
        ("a", "sequence") | ("sequence" | "tuple", _) => "a list",
        ("a", "boolean") => "true or false",
        ("unit", "") => "null",
        // A word in place of one of several forms, such as "all" of a join.
        ("unit", _) | ("variant", _) => "a word alone",
        ("newtype", _) => "an object with one member",
        ("string", "or map") | ("enum", _) => "a word, or an object with one member",
        ("any", _) => "a value",
        _ => return Cow::Borrowed(said),
    };
    Cow::Borrowed(words)
}

/// Describes the mistake in the text of a document.
fn syntax(said: &str) -> Cow<'_, str> {
    let words = match said {
        "EOF while parsing a value" => "it ends where a value is expected",
        "EOF while parsing a string" => "it ends within a string",
        "EOF while parsing a list" => "it ends within a list",
        "EOF while parsing an object" => "it ends within an object",
        "expected ident" => "expected true, false or null",
        "expected value" => "expected a value",
        "key must be a string" => "the name of a member must be a string",
        "trailing characters" => "something follows the document",
        "trailing comma" => "a comma is too many",
        "recursion limit exceeded" => "it is nested too deeply",
        other => return Cow::Borrowed(other),
    };
    Cow::Borrowed(words)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::{Join, Retry, Timeouts};

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only reading it matters")]
    struct Sample {
        text: String,
        #[serde(default)]
        count: u32,
        #[serde(default)]
        ratio: f64,
        #[serde(default)]
        sure: bool,
        #[serde(default)]
        list: Vec<String>,
        #[serde(default)]
        join: Option<Join>,
        #[serde(default)]
        timeouts: Timeouts,
    }

    fn said<T: DeserializeOwned + std::fmt::Debug>(text: &str) -> (Rule, String) {
        explain(&serde_json::from_str::<T>(text).unwrap_err())
    }

    #[test]
    fn what_was_expected_and_what_was_found_is_said_without_words_of_rust() {
        for (member, message) in [
            (r#""text":5"#, "expected a string, found the number 5"),
            (r#""text":null"#, "expected a string, found null"),
            (r#""text":{}"#, "expected a string, found an object"),
            (
                r#""text":"a","count":-1"#,
                "expected a whole number from 0 to 4294967295, found the number -1",
            ),
            (
                r#""text":"a","count":1.5"#,
                "expected a whole number from 0 to 4294967295, found the number 1.5",
            ),
            (
                r#""text":"a","count":"many""#,
                r#"expected a whole number from 0 to 4294967295, found the string "many""#,
            ),
            (r#""text":"a","ratio":[]"#, "expected a number, found a list"),
            (r#""text":"a","sure":"yes""#, r#"expected true or false, found the string "yes""#),
            (r#""text":"a","list":true"#, "expected a list, found `true`"),
            (
                r#""text":"a","join":"quorum""#,
                "expected an object with one member, found a word alone",
            ),
            (r#""text":"a","join":{"all":1}"#, "expected null, found the number 1"),
            (
                r#""text":"a","join":"most""#,
                "expected one of `all`, `any`, `quorum`, `tolerate`, `best_effort`, found `most`",
            ),
            (r#""text":"a","timeouts":3"#, "expected an object, found the number 3"),
        ] {
            let of = said::<Sample>(&format!("{{{member}}}"));
            assert_eq!(of, (Rule::Form, message.to_owned()), "{member}");
        }
    }

    #[test]
    fn a_member_is_named_that_is_unknown_missing_or_there_twice() {
        let unknown = said::<Timeouts>(r#"{"hartbeat":"5s"}"#);
        let message = "there is no member `hartbeat` here; known are `to_start`, `attempt`, `heartbeat`, `step`";
        assert_eq!(unknown, (Rule::Unknown, message.to_owned()));
        assert_eq!(said::<Sample>("{}"), (Rule::Missing, "`text` is missing".to_owned()));
        let twice = said::<Retry>(r#"{"jitter":"full","jitter":"none"}"#);
        assert_eq!(twice, (Rule::Twice, "`jitter` stands here twice".to_owned()));
    }

    #[test]
    fn what_a_document_says_is_taken_for_no_sentence_of_serde_and_is_cut() {
        let odd = said::<Sample>(r#"{"a`, expected `b":1}"#);
        assert_eq!(odd.0, Rule::Unknown);
        assert!(
            odd.1.starts_with("there is no member `a`, expected `b` here; known are `text`"),
            "{odd:?}"
        );
        let long = said::<Sample>(&format!(r#"{{"text":"a","count":"{}"}}"#, "x".repeat(5_000)));
        assert!(long.1.len() < 150, "{long:?}");
        let long = said::<Sample>(&format!(r#"{{"{}":1}}"#, "ä".repeat(5_000)));
        assert!(long.1.len() < 300, "{long:?}");
    }

    #[test]
    fn a_text_that_is_no_number_is_told_so() {
        for (error, message) in [
            ("x".parse::<u32>().unwrap_err().to_string(), "expected a whole number"),
            ("".parse::<u32>().unwrap_err().to_string(), "expected a whole number"),
            ("300".parse::<u8>().unwrap_err().to_string(), "the number is too large"),
            ("x".parse::<f64>().unwrap_err().to_string(), "expected a number"),
            ("x".parse::<bool>().unwrap_err().to_string(), "expected true or false"),
        ] {
            assert_eq!(parsed(&error), message, "{error}");
        }
    }

    #[test]
    fn what_is_no_json_is_said_without_a_position() {
        for (text, message) in [
            ("{", "it ends within an object"),
            (r#"{"text":"a"} x"#, "something follows the document"),
            (r#"{"text":nul}"#, "expected true, false or null"),
            ("{1:2}", "the name of a member must be a string"),
            ("", "it ends where a value is expected"),
        ] {
            assert_eq!(said::<Sample>(text), (Rule::Syntax, message.to_owned()), "{text}");
        }
    }
}

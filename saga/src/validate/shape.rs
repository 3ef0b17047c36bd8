//! Mistakes of form in the text of a definition: unknown and missing members, values of the wrong type.
//!
//! Reading a document with serde ends at the first mistake. To find all, each member is read separately, in the
//! smallest document that is otherwise correct. Wrong members are left out of the repaired document, so that the others
//! can be checked further.

use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use crate::json::{self, Kind};
use crate::misread::{self, Rule};
use crate::{
    Child, Compensate, Definition, Emit, Fail, Map, Retraction, Retry, Sleep, Step, Task, Timeouts,
    Verify, Violation, Wait, value,
};

/// The form of one type of object.
struct Level {
    /// The members that it must have, each with the text of some right value.
    required: &'static [(&'static str, &'static str)],
    /// The members that are examined.
    nested: &'static [(&'static str, Nested)],
    /// Reads an object of the type.
    read: fn(&str) -> Result<(), Mistake>,
}

enum Nested {
    One(&'static Level),
    Many(&'static Level),
}

/// The mistake for which a document could not be read.
struct Mistake {
    /// JSON Pointer to it.
    pointer: String,
    rule: Rule,
    message: String,
}

const NAME: (&str, &str) = ("name", r#""x""#);
const INPUT: &str = r#"{"path":"/input"}"#;

const DEFINITION: Level = Level {
    required: &[NAME, ("version", "1"), ("steps", "[]")],
    nested: &[("steps", Nested::Many(&STEP))],
    read: read::<Definition>,
};
const STEP: Level = Level {
    required: &[("id", r#""x""#)],
    nested: &[
        ("task", Nested::One(&TASK)),
        ("map", Nested::One(&MAP)),
        ("wait", Nested::One(&WAIT)),
        ("sleep", Nested::One(&SLEEP)),
        ("child", Nested::One(&CHILD)),
        ("fail", Nested::One(&FAIL)),
        ("emits", Nested::Many(&EMIT)),
    ],
    read: read::<Step>,
};
const EMIT: Level = Level {
    required: &[("type", r#""x""#)],
    nested: &[("retract", Nested::One(&RETRACTION))],
    read: read::<Emit>,
};
const RETRACTION: Level =
    Level { required: &[("type", r#""x""#)], nested: &[], read: read::<Retraction> };
const WAIT: Level = Level { required: &[], nested: &[], read: read::<Wait> };
const SLEEP: Level = Level { required: &[], nested: &[], read: read::<Sleep> };
const CHILD: Level = Level {
    required: &[("workflow", r#""x""#), ("input", INPUT)],
    nested: &[],
    read: read::<Child>,
};
const FAIL: Level = Level {
    required: &[("code", r#""x""#), ("message", r#""x""#)],
    nested: &[],
    read: read::<Fail>,
};
const MAP: Level = Level {
    required: &[
        ("items", INPUT),
        ("task", r#"{"name":"x","input":{"path":"/input"}}"#),
        ("join", r#""all""#),
    ],
    nested: &[("task", Nested::One(&TASK))],
    read: read::<Map>,
};
const TASK: Level = Level {
    required: &[NAME, ("input", INPUT)],
    nested: &[
        ("compensate", Nested::One(&COMPENSATE)),
        ("verify", Nested::One(&VERIFY)),
        ("retry", Nested::One(&RETRY)),
        ("timeouts", Nested::One(&TIMEOUTS)),
    ],
    read: read::<Task>,
};
const COMPENSATE: Level = Level {
    required: &[NAME],
    nested: &[("retry", Nested::One(&RETRY))],
    read: read::<Compensate>,
};
const VERIFY: Level =
    Level { required: &[NAME], nested: &[("retry", Nested::One(&RETRY))], read: read::<Verify> };
const RETRY: Level = Level { required: &[], nested: &[], read: read::<Retry> };
const TIMEOUTS: Level = Level { required: &[], nested: &[], read: read::<Timeouts> };

/// Reads a definition from well-formed JSON. Mistakes in its form are added to `found`; the definition has the
/// correct parts, if they make one.
pub(super) fn read_definition(text: &str, found: &mut Vec<Violation>) -> Option<Definition> {
    let before = found.len();
    let repaired = examine(text.trim(), &DEFINITION, "", found)?;
    let right = before == found.len();
    match serde_json::from_str(if right { text } else { &repaired }) {
        Ok(definition) => Some(definition),
        Err(error) => {
            if found.is_empty() {
                found.push(Violation::new("", "invalid_value", misread::explain(&error).1));
            }
            None
        }
    }
}

/// Finds the mistakes in an object of the type of `level` at `at`, and returns its correct part.
fn examine(text: &str, level: &Level, at: &str, found: &mut Vec<Violation>) -> Option<String> {
    if Kind::of(text) != Kind::Object {
        found.push(not_an_object(text, at));
        return None;
    }
    let mut right: Vec<(String, String)> = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    for (raw, value) in json::members(text) {
        let key = json::unescape(raw).into_owned();
        let mut pointer = at.to_owned();
        json::push_token(&mut pointer, &key);
        if let Some(value) = member(&key, value, level, &pointer, at, found) {
            right.push((key.clone(), value));
        }
        seen.push(key);
    }
    for (name, some) in level.required {
        if !seen.iter().any(|key| key == name) {
            let message = format!("`{name}` is missing");
            found.push(Violation::new(at, "missing_member", message));
        }
        if !right.iter().any(|(key, _)| key == name) {
            right.push(((*name).to_owned(), (*some).to_owned()));
        }
    }
    Some(object(right.iter().map(|(key, value)| (key.as_str(), value.as_str()))))
}

/// Finds the mistakes in one member of the object at `parent`, and returns its correct part.
fn member(
    key: &str,
    value: &str,
    level: &Level,
    pointer: &str,
    parent: &str,
    found: &mut Vec<Violation>,
) -> Option<String> {
    let nested = level.nested.iter().find(|(name, _)| *name == key).map(|(_, nested)| nested);
    match (nested, Kind::of(value)) {
        (Some(Nested::One(inner)), Kind::Object) => return examine(value, inner, pointer, found),
        (Some(Nested::One(_)), kind) if kind != Kind::Null => {
            found.push(not_an_object(value, pointer));
            return None;
        }
        (Some(Nested::Many(inner)), Kind::Array) => {
            let parts = json::elements(value).enumerate().map(|(index, element)| {
                // An element that is nothing keeps its place, or the pointers to the others would shift.
                examine(element, inner, &format!("{pointer}/{index}"), found)
                    .unwrap_or_else(|| object(inner.required.iter().copied()))
            });
            return Some(format!("[{}]", parts.collect::<Vec<_>>().join(",")));
        }
        _ => {}
    }
    let others = level.required.iter().copied().filter(|(name, _)| *name != key);
    match (level.read)(&object(others.chain([(key, value)]))) {
        Ok(()) => Some(value.to_owned()),
        Err(mistake) if mistake.rule == Rule::Unknown => {
            found.push(Violation::new(pointer, "unknown_member", mistake.message));
            None
        }
        Err(mistake) => {
            let place = format!("{parent}{}", mistake.pointer);
            found.push(Violation::new(place, "invalid_value", mistake.message));
            None
        }
    }
}

fn not_an_object(text: &str, at: &str) -> Violation {
    let message = format!("expected an object, found {}", Kind::of(text).words());
    Violation::new(at, "invalid_value", message)
}

/// Returns the text of an object.
fn object<'a>(members: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::from("{");
    for (key, value) in members {
        if text.len() > 1 {
            text.push(',');
        }
        value::push_string(&mut text, key);
        text.push(':');
        text.push_str(value);
    }
    text.push('}');
    text
}

fn read<T: DeserializeOwned>(text: &str) -> Result<(), Mistake> {
    let mut reader = serde_json::Deserializer::from_str(text);
    match serde_path_to_error::deserialize::<_, T>(&mut reader) {
        Ok(_) => Ok(()),
        Err(error) => {
            let mut pointer = String::new();
            for segment in error.path() {
                match segment {
                    Segment::Seq { index } => json::push_token(&mut pointer, &index.to_string()),
                    Segment::Map { key } => json::push_token(&mut pointer, key),
                    Segment::Enum { variant } => json::push_token(&mut pointer, variant),
                    Segment::Unknown => {}
                }
            }
            let (rule, mut message) = misread::explain(error.inner());
            if rule == Rule::Syntax {
                // The message of serde_json about the choice between several forms.
                message = "expected an object with exactly one member, or one word".to_owned();
            }
            Err(Mistake { pointer, rule, message })
        }
    }
}

//! Differences of two documents, place by place.

use serde_json::Value;

use crate::show::cut;

/// Number of characters of a value that are shown.
const VALUE: usize = 400;

/// A member that is not the same.
#[derive(Debug, PartialEq)]
pub(crate) struct Change {
    /// Its place, as a JSON Pointer below its step.
    pub(crate) at: String,
    /// The value before; `None` where there was none.
    pub(crate) was: Option<String>,
    /// The value now; `None` where there is none.
    pub(crate) is: Option<String>,
}

/// Collects the differences of two documents, as JSON Pointers below `at`.
pub(crate) fn changes(at: &str, was: Option<&Value>, is: Option<&Value>, found: &mut Vec<Change>) {
    match (was, is) {
        (was, is) if was == is => {}
        (Some(Value::Object(was)), Some(Value::Object(is))) => {
            let names = was.keys().chain(is.keys().filter(|name| !was.contains_key(*name)));
            for name in names {
                let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                changes(&at, was.get(name), is.get(name), found);
            }
        }
        (was, is) => {
            let text = |value: &Value| cut(&value.to_string(), VALUE);
            let change = Change { at: at.to_owned(), was: was.map(text), is: is.map(text) };
            found.push(change);
        }
    }
}

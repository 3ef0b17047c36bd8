//! JSON documents as values: read safely from bytes, numbers kept as they were written, addressed by JSON Pointers.

mod number;
pub(crate) mod pointer;
mod read;
mod write;

use std::collections::BTreeMap;

pub use number::Number;
pub use pointer::{Pattern, Pointer};
pub use read::{LONGEST_NUMBER, read, value_of};

/// Members of an object, sorted by name.
pub type Object = BTreeMap<String, Value>;

/// A JSON value. Two values are equal if they mean the same: `1e2` equals `100`, and the order of members does not
/// count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as it was written.
    Number(Number),
    /// A string.
    String(String),
    /// A list.
    Array(Vec<Value>),
    /// An object.
    Object(Object),
}

impl Value {
    /// Returns the text of a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the members of an object.
    #[must_use]
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Value::Object(members) => Some(members),
            _ => None,
        }
    }

    /// Returns the elements of a list.
    #[must_use]
    pub fn as_array(&self) -> Option<&[Value]> {
        match self {
            Value::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// Returns whether the value is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// Returns the member `key` of an object.
    #[must_use]
    pub fn member(&self, key: &str) -> Option<&Value> {
        self.as_object()?.get(key)
    }

    /// Returns the type of the value for people, with its article.
    #[must_use]
    pub fn words(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        }
    }

    /// Returns the number of bytes that the value has at least when it is written.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Value::Null | Value::Bool(_) => 4,
            Value::Number(number) => number.text().len(),
            Value::String(text) => text.len() + 2,
            Value::Array(elements) => {
                elements.iter().map(|element| element.size() + 1).sum::<usize>() + 2
            }
            Value::Object(members) => {
                members.iter().map(|(key, value)| key.len() + value.size() + 4).sum::<usize>() + 2
            }
        }
    }

    /// Returns how deep objects and lists are nested: 0 for a scalar.
    #[must_use]
    pub fn depth(&self) -> usize {
        match self {
            Value::Array(elements) => {
                1 + elements.iter().map(Value::depth).max().unwrap_or_default()
            }
            Value::Object(members) => {
                1 + members.values().map(Value::depth).max().unwrap_or_default()
            }
            _ => 0,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::String(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::String(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Value::Number(Number::from(number))
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

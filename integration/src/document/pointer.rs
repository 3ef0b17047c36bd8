//! JSON Pointers (RFC 6901), and patterns in which `*` stands for every element of a list or member of an object.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Value;

/// The most bytes of a pointer.
pub(crate) const LONGEST: usize = 1_000;
/// The most reference tokens of a pointer: deeper than a document may be.
pub(crate) const MOST_TOKENS: usize = 65;

/// A JSON Pointer as its reference tokens, unescaped. Empty for the whole document.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pointer(Vec<String>);

impl Pointer {
    /// Reads a pointer: empty, or `/a/0/b` with `~0` for `~` and `~1` for `/`.
    ///
    /// # Errors
    /// A message for people.
    pub fn parse(text: &str) -> Result<Pointer, String> {
        if text.is_empty() {
            return Ok(Pointer::default());
        }
        if text.len() > LONGEST {
            return Err(format!("a JSON Pointer has at most {LONGEST} bytes"));
        }
        let Some(rest) = text.strip_prefix('/') else {
            return Err("a JSON Pointer is empty or begins with '/'".to_owned());
        };
        let tokens: Vec<String> = rest.split('/').map(unescape).collect::<Result<_, _>>()?;
        if tokens.len() > MOST_TOKENS {
            return Err(format!("a JSON Pointer has at most {MOST_TOKENS} parts"));
        }
        if tokens.iter().any(|token| token.contains('\0')) {
            return Err("a JSON Pointer must not contain U+0000".to_owned());
        }
        Ok(Pointer(tokens))
    }

    /// Returns the reference tokens, unescaped.
    #[must_use]
    pub fn tokens(&self) -> &[String] {
        &self.0
    }

    /// Returns the pointer to the member or element `token` of the value that this one points to.
    #[must_use]
    pub fn child(&self, token: &str) -> Pointer {
        let mut tokens = self.0.clone();
        tokens.push(token.to_owned());
        Pointer(tokens)
    }

    /// Goes down to the member or element `token`.
    pub(crate) fn push(&mut self, token: &str) {
        self.0.push(token.to_owned());
    }

    /// Goes up again.
    pub(crate) fn pop(&mut self) {
        self.0.pop();
    }

    /// Returns the pointer of the first `count` reference tokens.
    pub(crate) fn first(&self, count: usize) -> Pointer {
        Pointer(self.0.iter().take(count).cloned().collect())
    }

    /// Returns this pointer followed by `rest`.
    #[must_use]
    pub fn join(&self, rest: &Pointer) -> Pointer {
        Pointer(self.0.iter().chain(&rest.0).cloned().collect())
    }

    /// Returns the value that the pointer leads to from `value`.
    #[must_use]
    pub fn find<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        self.0.iter().try_fold(value, |value, token| step(value, token))
    }

    /// Returns whether this pointer leads to `other` or to something that contains it.
    #[must_use]
    pub fn contains(&self, other: &Pointer) -> bool {
        other.0.starts_with(&self.0)
    }
}

/// Returns the member or element `token` of `value`.
fn step<'v>(value: &'v Value, token: &str) -> Option<&'v Value> {
    match value {
        Value::Object(members) => members.get(token),
        Value::Array(elements) => elements.get(index(token)?),
        _ => None,
    }
}

/// Returns the index that a token names: digits without leading zeros.
fn index(token: &str) -> Option<usize> {
    let digits = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_digit());
    let plain = token == "0" || !token.starts_with('0');
    if digits && plain { token.parse().ok() } else { None }
}

fn unescape(token: &str) -> Result<String, String> {
    let mut out = String::with_capacity(token.len());
    let mut characters = token.chars();
    while let Some(character) = characters.next() {
        match character {
            '~' => match characters.next() {
                Some('0') => out.push('~'),
                Some('1') => out.push('/'),
                _ => return Err("'~' in a JSON Pointer is written '~0', '/' is '~1'".to_owned()),
            },
            other => out.push(other),
        }
    }
    Ok(out)
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for token in &self.0 {
            write!(f, "/{}", token.replace('~', "~0").replace('/', "~1"))?;
        }
        Ok(())
    }
}

impl Serialize for Pointer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pointer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Pointer::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// A pointer in which a token `*` stands for every element of a list, or every member of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pattern(Pointer);

impl Pattern {
    /// Reads a pattern, as [`Pointer::parse`] does.
    ///
    /// # Errors
    /// A message for people.
    pub fn parse(text: &str) -> Result<Pattern, String> {
        Pointer::parse(text).map(Pattern)
    }

    /// Returns the places in `value` that the pattern leads to, in order, `most` at most.
    #[must_use]
    pub fn find<'v>(&self, value: &'v Value, most: usize) -> Vec<(Pointer, &'v Value)> {
        let mut found = vec![(Pointer::default(), value)];
        for token in &self.0.0 {
            let mut next = Vec::new();
            for (at, value) in found {
                match (token.as_str(), value) {
                    ("*", Value::Array(elements)) => {
                        let elements =
                            elements.iter().enumerate().take(most - next.len().min(most));
                        next.extend(
                            elements.map(|(index, value)| (at.child(&index.to_string()), value)),
                        );
                    }
                    ("*", Value::Object(members)) => {
                        let members = members.iter().take(most - next.len().min(most));
                        next.extend(members.map(|(key, value)| (at.child(key), value)));
                    }
                    (token, value) => {
                        next.extend(step(value, token).map(|value| (at.child(token), value)));
                    }
                }
                if next.len() >= most {
                    break;
                }
            }
            found = next;
        }
        found.truncate(most);
        found
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::read;

    fn value(text: &str) -> Value {
        read(text.as_bytes(), 10_000).unwrap().1
    }

    #[test]
    fn the_examples_of_the_rfc_are_found() {
        let document =
            value(r#"{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"k\"l":6," ":7,"m~n":8}"#);
        for (pointer, expected) in [
            ("/foo/0", r#""bar""#),
            ("/", "0"),
            ("/a~1b", "1"),
            ("/c%d", "2"),
            ("/k\"l", "6"),
            ("/ ", "7"),
            ("/m~0n", "8"),
        ] {
            let pointer = Pointer::parse(pointer).unwrap();
            assert_eq!(pointer.find(&document), Some(&value(expected)), "{pointer}");
            assert_eq!(Pointer::parse(&pointer.to_string()).unwrap(), pointer);
        }
        for missing in ["/foo/2", "/foo/00", "/foo/-", "/foo/bar", "/x", "/foo/0/0"] {
            assert!(Pointer::parse(missing).unwrap().find(&document).is_none(), "{missing}");
        }
        for wrong in ["foo", "/~", "/~2"] {
            assert!(Pointer::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Pointer::parse(&"/a".repeat(66)).is_err());
    }

    #[test]
    fn a_star_stands_for_every_element_within_the_bound() {
        let document = value(r#"{"c":{"emails":["a","b",{"x":1}],"o":{"p":1,"q":2}}}"#);
        let found = |pattern: &str, most| {
            let found = Pattern::parse(pattern).unwrap().find(&document, most);
            found.into_iter().map(|(at, _)| at.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(found("/c/emails/*", 9), ["/c/emails/0", "/c/emails/1", "/c/emails/2"]);
        assert_eq!(found("/c/emails/*", 2).len(), 2);
        assert_eq!(found("/c/*/p", 9), ["/c/o/p"]);
        assert_eq!(found("/none/*", 9), Vec::<String>::new());
    }
}

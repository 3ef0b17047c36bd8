//! Remembers which values of a source rules have read, and lists the others.

use std::collections::BTreeMap;

use crate::document::{Object, Pointer, Value};

/// Places that were read: a tree of reference tokens.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Everything from here on was read.
    all: bool,
    below: BTreeMap<String, Touched>,
}

impl Touched {
    /// Remembers that the value at `pointer` was read, with everything in it.
    pub(super) fn mark(&mut self, pointer: &Pointer) {
        let mut at = self;
        for token in pointer.tokens() {
            at = at.below.entry(token.clone()).or_default();
        }
        at.all = true;
    }

    /// Returns the values of `source` that were not read, each with its pointer as the key.
    pub(super) fn left(&self, source: &Value) -> Object {
        let mut left = Object::new();
        self.collect(source, &mut Pointer::default(), &mut left);
        left
    }

    fn collect(&self, value: &Value, path: &mut Pointer, left: &mut Object) {
        if self.all {
            return;
        }
        if self.below.is_empty() {
            left.insert(path.to_string(), value.clone());
            return;
        }
        let unread = Touched::default();
        let mut go_on = |token: &str, value: &Value| {
            path.push(token);
            self.below.get(token).unwrap_or(&unread).collect(value, path, left);
            path.pop();
        };
        match value {
            Value::Object(members) => members.iter().for_each(|(name, value)| go_on(name, value)),
            Value::Array(elements) => {
                elements
                    .iter()
                    .enumerate()
                    .for_each(|(index, value)| go_on(&index.to_string(), value));
            }
            // A rule looked for something below a scalar: it was missing.
            scalar => {
                left.insert(path.to_string(), scalar.clone());
            }
        }
    }
}

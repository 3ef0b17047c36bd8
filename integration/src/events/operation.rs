//! Operations of events on their entity, and the operation that a body really is.

use serde::{Deserialize, Serialize};

use super::diff::changed;
use crate::document::{Object, Pointer, Value};

/// Operation of an event on the entity of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Op {
    /// The entity came into being.
    #[serde(rename = "C")]
    Created,
    /// The entity changed.
    #[serde(rename = "U")]
    Updated,
    /// The entity was deleted.
    #[serde(rename = "D")]
    Deleted,
    /// The present state of the entity, changed or not.
    #[serde(rename = "S")]
    Snapshot,
}

impl Op {
    /// Returns the operation of this letter.
    #[must_use]
    pub fn of(letter: &str) -> Option<Op> {
        [Op::Created, Op::Updated, Op::Deleted, Op::Snapshot]
            .into_iter()
            .find(|op| op.letter() == letter)
    }

    /// Returns the letter: `C`, `U`, `D` or `S`.
    #[must_use]
    pub fn letter(self) -> &'static str {
        match self {
            Op::Created => "C",
            Op::Updated => "U",
            Op::Deleted => "D",
            Op::Snapshot => "S",
        }
    }
}

/// Entity of a stream before an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head<'a> {
    /// The stream has no event.
    Unknown,
    /// The entity exists, with its last body.
    Present(&'a Value),
    /// The entity was deleted.
    Deleted,
}

/// Operation that an event really is, with what it changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Derived {
    /// The operation that is stored.
    pub op: Op,
    /// Places that differ from the body before.
    pub changed: Vec<Pointer>,
    /// The operation contradicted the stream and was corrected.
    pub op_corrected: bool,
    /// Nothing changed: the event is stored and not propagated.
    pub noop: bool,
}

/// Returns the operation that `op` with `body` means, given the state of the entity.
///
/// A creation of an existing entity is an update, and an update of a missing one is a creation; both are flagged. A
/// snapshot is the creation or the update that it implies, or nothing. A deletion of a missing entity is nothing. A
/// deletion has no body; for the others a missing body counts as `null`.
#[must_use]
pub fn derive(head: Head<'_>, op: Op, body: Option<&Value>) -> Derived {
    let nothing = Value::Object(Object::new());
    let body = body.unwrap_or(&Value::Null);
    let (stored, corrected, changed) = match (op, head) {
        (Op::Deleted, Head::Present(before)) => (Op::Deleted, false, changed(before, &nothing)),
        (Op::Deleted, Head::Unknown | Head::Deleted) => {
            return Derived { op, changed: Vec::new(), op_corrected: false, noop: true };
        }
        (Op::Created | Op::Updated | Op::Snapshot, Head::Present(before)) => {
            let changed = changed(before, body);
            if op == Op::Snapshot && changed.is_empty() {
                return Derived { op, changed, op_corrected: false, noop: true };
            }
            (Op::Updated, op == Op::Created, changed)
        }
        (Op::Created | Op::Updated | Op::Snapshot, Head::Unknown | Head::Deleted) => {
            (Op::Created, op == Op::Updated, changed(&nothing, body))
        }
    };
    // An entity without members still comes into being, and goes.
    let noop = stored == Op::Updated && changed.is_empty();
    Derived { op: stored, changed, op_corrected: corrected, noop }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::read;

    fn value(text: &str) -> Value {
        read(text.as_bytes(), 10_000).unwrap().1
    }

    #[test]
    fn the_operation_is_what_the_stream_says() {
        let (a, b) = (value(r#"{"x":1,"y":{"z":2}}"#), value(r#"{"x":1.0,"y":{"z":3}}"#));
        let same = value(r#"{"y":{"z":2},"x":1.00}"#);
        let (unknown, stands) = (Head::Unknown, Head::Present(&a));
        for (head, op, body, expected, changed, corrected, noop) in [
            (unknown, Op::Created, Some(&a), Op::Created, "/x /y", false, false),
            (unknown, Op::Updated, Some(&a), Op::Created, "/x /y", true, false),
            (unknown, Op::Snapshot, Some(&a), Op::Created, "/x /y", false, false),
            (unknown, Op::Deleted, None, Op::Deleted, "", false, true),
            (stands, Op::Created, Some(&b), Op::Updated, "/y/z", true, false),
            (stands, Op::Created, Some(&same), Op::Updated, "", true, true),
            (stands, Op::Updated, Some(&b), Op::Updated, "/y/z", false, false),
            (stands, Op::Updated, Some(&same), Op::Updated, "", false, true),
            (stands, Op::Snapshot, Some(&b), Op::Updated, "/y/z", false, false),
            (stands, Op::Snapshot, Some(&same), Op::Snapshot, "", false, true),
            (stands, Op::Deleted, None, Op::Deleted, "/x /y", false, false),
            (Head::Deleted, Op::Deleted, None, Op::Deleted, "", false, true),
            (Head::Deleted, Op::Snapshot, Some(&a), Op::Created, "/x /y", false, false),
            (Head::Deleted, Op::Updated, Some(&a), Op::Created, "/x /y", true, false),
        ] {
            let derived = derive(head, op, body);
            let places: Vec<String> = derived.changed.iter().map(ToString::to_string).collect();
            let found = (derived.op, places.join(" "), derived.op_corrected, derived.noop);
            assert_eq!(found, (expected, changed.to_owned(), corrected, noop), "{head:?} {op:?}");
        }
        let empty = value("{}");
        assert!(!derive(Head::Unknown, Op::Created, Some(&empty)).noop);
        assert!(!derive(Head::Present(&empty), Op::Deleted, None).noop);
    }

    #[test]
    fn a_file_of_snapshots_that_is_sent_again_changes_nothing() {
        let bodies = [value(r#"{"id":1}"#), value(r#"{"id":1,"a":2}"#), value(r#"{"a":2}"#)];
        let mut head = None;
        let mut changes = 0;
        for body in bodies.iter().flat_map(|body| [body, body]) {
            let derived =
                derive(head.map_or(Head::Unknown, Head::Present), Op::Snapshot, Some(body));
            changes += usize::from(!derived.noop);
            head = Some(body);
        }
        assert_eq!(changes, 3);
    }
}

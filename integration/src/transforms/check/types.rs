//! Types of places in a contract, coarse enough to decide which operations can never work.

use crate::contracts::{Kind, Node};
use crate::document::{Pointer, Value};

/// Node that a pointer leads to.
pub(super) enum Found<'n> {
    Node(&'n Node),
    /// The contract leaves it open.
    Open,
    Nowhere,
}

/// Follows a pointer through a contract.
pub(super) fn find<'n>(mut node: &'n Node, pointer: &Pointer) -> Found<'n> {
    for token in pointer.tokens() {
        node = match &*node.kind {
            Kind::Any => return Found::Open,
            Kind::Object(rule) => match &rule.members {
                None => return Found::Open,
                Some(members) => match members.get(token) {
                    Some(member) => &member.node,
                    None => return Found::Nowhere,
                },
            },
            Kind::List(rule) => match &rule.items {
                None => return Found::Open,
                Some(items) => items,
            },
            _ => return Found::Nowhere,
        };
    }
    Found::Node(node)
}

/// Types as a set of bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Types(pub(super) u8);

pub(super) const BOOLEAN: Types = Types(1);
pub(super) const NUMBER: Types = Types(2);
pub(super) const TEXT: Types = Types(4);
pub(super) const LIST: Types = Types(8);
pub(super) const OBJECT: Types = Types(16);
pub(super) const ANY: Types = Types(31);

impl Types {
    pub(super) fn or(self, other: Types) -> Types {
        Types(self.0 | other.0)
    }

    pub(super) fn meets(self, other: Types) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) fn of_value(value: &Value) -> Types {
        match value {
            Value::Null => Types(0),
            Value::Bool(_) => BOOLEAN,
            Value::Number(_) => NUMBER,
            Value::String(_) => TEXT,
            Value::Array(_) => LIST,
            Value::Object(_) => OBJECT,
        }
    }

    pub(super) fn of(node: &Node) -> Types {
        match &*node.kind {
            Kind::Any => ANY,
            Kind::Null => Types(0),
            Kind::Choice(values) => {
                values.iter().fold(Types(0), |all, value| all.or(Types::of_value(value)))
            }
            Kind::Boolean => BOOLEAN,
            Kind::Number(_) => NUMBER,
            Kind::Text(_) => TEXT,
            Kind::List(_) => LIST,
            Kind::Object(_) => OBJECT,
        }
    }
}

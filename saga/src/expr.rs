//! Expressions: the small total language that wires steps together. Data, not text: no parser, no loops.
//!
//! An expression is evaluated over a document of `input`, `steps` (outputs by step id) and, inside a map, `item`
//! and `index`. Values are never re-printed: what a path finds is passed on byte for byte.

mod eval;
mod find;
#[cfg(feature = "openapi")]
mod schema;
mod walk;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Payload;

pub use eval::{Bindings, EvalError, Gathered};
pub(crate) use eval::{Bounds, Evaluation};
pub(crate) use find::Memo;
pub use walk::Reference;
pub(crate) use walk::{Place, Root, TRUTH};

/// An expression. Each is a JSON object with one member: its operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expr {
    /// A JSON Pointer (RFC 6901): `/input/customer/id`, `/steps/payment/authorization`, `/item/sku`, `/index`.
    Path(String),
    /// A constant.
    Const(Payload),
    /// An object built member by member.
    Object(BTreeMap<String, Expr>),
    /// A list built element by element.
    Array(Vec<Expr>),
    /// Both sides are the same value (numbers by value, objects whatever their order).
    Eq(Box<(Expr, Expr)>),
    /// The two sides differ.
    Ne(Box<(Expr, Expr)>),
    /// Less than; two numbers or two strings, else an evaluation error.
    Lt(Box<(Expr, Expr)>),
    /// Less than or equal.
    Le(Box<(Expr, Expr)>),
    /// Greater than.
    Gt(Box<(Expr, Expr)>),
    /// Greater than or equal.
    Ge(Box<(Expr, Expr)>),
    /// All are `true`; `true` when there are none.
    And(Vec<Expr>),
    /// At least one is `true`.
    Or(Vec<Expr>),
    /// The opposite of a boolean.
    Not(Box<Expr>),
    /// Tests if the path finds anything, `null` included.
    Exists(String),
    /// Number of elements of a list, members of an object, or characters of a string.
    Length(Box<Expr>),
    /// The first unless it is missing or `null`, else the second.
    Default(Box<(Expr, Expr)>),
}

impl Expr {
    /// Returns the path expression `pointer`.
    #[must_use]
    pub fn path(pointer: impl Into<String>) -> Expr {
        Expr::Path(pointer.into())
    }
}

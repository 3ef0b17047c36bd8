//! Contracts: the checkable subset of JSON Schema, validation, and the compatibility of versions.
//!
//! The subset is small so that every verdict is exact. Two schemas are compatible if each document that the writer's
//! version allows is valid for the reader's. Writing is strict: members that the schema does not name are refused.
//! Reading is lenient: unknown members are ignored. So an optional member can be added and removed freely, in both
//! directions.
//!
//! An incompatible change is shown with a document that is valid for the writer and not for the reader; it is made from
//! the two schemas and validated with both before it is shown.

pub(crate) mod compare;
mod example;
mod format;
mod modes;
pub(crate) mod parse;
pub(crate) mod pattern;
mod register;
mod schema;
mod validate;

pub use compare::Break;
pub use format::Format;
pub use modes::{Direction, Incompatible, Mode, Version, check};
pub use parse::{LARGEST_SCHEMA, LONGEST_ENUM, MOST_NODES};
pub use register::{Edges, Reader, Registration, keep_from_retiring, register};
pub use schema::Schema;
pub(crate) use schema::{Kind, Node, TextRule};
pub use validate::{MOST_VIOLATIONS, World};

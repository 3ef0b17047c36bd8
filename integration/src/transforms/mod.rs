//! Transforms: twelve operations as data, which make a document of one contract from a document of another.
//!
//! The operations are `copy`, `const`, `rename`, `enum`, `date`, `money`, `unit`, `phone`, `email`, `split`, `coalesce`
//! and `each`. There are no expressions, no loops but over the elements of a list, and no functions of users: a mapping
//! that needs more is a step in Rust. A transform is checked against both contracts when it is registered. When it
//! runs, every value that it changed is listed (`changes`), and so is every value that no rule touched (`unmapped`).

mod check;
mod document;
mod evaluate;
mod outcome;
pub(crate) mod read;
mod rule;
mod run;
mod touched;
mod what_if;

pub use document::{RuleDocument, TransformDocument};
pub use outcome::{Failure, Limits, Mapped, Outcome, TraceLine};
pub use rule::{MOST_RULES, Transform};
pub use what_if::{Difference, WhatIf};

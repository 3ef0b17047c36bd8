//! Rules as they are executed: every combination that is not possible has no form.

use std::collections::BTreeMap;

use super::document::OnError;
use crate::canonical::{Clean, DateFormat, InstantRule, MoneyRule, QuantityRule};
use crate::document::{Pointer, Value};
use crate::events::Op;

/// The most rules of a transform, those within `each` counted, too.
pub const MOST_RULES: usize = 500;

/// Steps that a phone number counts.
const STEPS_OF_A_PHONE_NUMBER: usize = 40;

/// A transform that was checked against the contracts of its source and its target.
#[derive(Clone, Debug)]
pub struct Transform {
    pub(super) stream: Option<Template>,
    pub(super) op: Option<(Pointer, BTreeMap<String, Op>)>,
    pub(super) rules: Vec<Rule>,
    pub(super) target: crate::contracts::Schema,
    pub(super) canonical: String,
}

impl Transform {
    /// Returns the text that all spellings of this transform share: its digest names it.
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.canonical
    }
}

/// A text with values of the source in it.
#[derive(Clone, Debug)]
pub(super) struct Template(pub(super) Vec<Piece>);

#[derive(Clone, Debug)]
pub(super) enum Piece {
    Text(String),
    Value(Pointer),
}

/// One rule.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) to: Pointer,
    pub(super) operation: Operation,
    pub(super) required: bool,
    pub(super) default: Option<Value>,
    pub(super) on_error: OnError,
    /// The target may be null, so that a null of the source is kept.
    pub(super) allows_null: bool,
    /// JSON Pointer to the rule in its transform.
    pub(super) place: String,
}

/// Source of a value that may be written in the rule.
#[derive(Clone, Debug)]
pub(super) enum Given {
    At(Pointer),
    Is(Value),
}

/// Type that a copy makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CopyAs {
    Same,
    Text,
    Integer,
    Number,
    Boolean,
}

/// Answer of an `enum` to a value that it does not know.
#[derive(Clone, Debug)]
pub(super) enum Otherwise {
    Error(OnError),
    Value(Value),
}

#[derive(Clone, Debug)]
pub(super) enum Operation {
    Copy { from: Pointer, to_type: CopyAs, clean: Vec<Clean> },
    Const(Value),
    Rename { from: Pointer, keys: BTreeMap<String, String> },
    Enum { from: Pointer, map: BTreeMap<String, Value>, countries: bool, otherwise: Otherwise },
    Date { from: Pointer, format: Option<DateFormat> },
    Instant { from: Pointer, rule: InstantRule },
    Money { amount: Pointer, currency: Given, rule: MoneyRule },
    Unit { value: Pointer, unit: Given, rule: QuantityRule },
    Phone { from: Pointer, region: Option<Given>, map: BTreeMap<String, Value> },
    Email { from: Pointer },
    Split { from: Pointer, on: String, part: Option<i64>, clean: Vec<Clean> },
    Coalesce { from: Vec<Pointer>, clean: Vec<Clean> },
    Each { from: Pointer, rules: Vec<Rule> },
}

impl Operation {
    /// Returns the name.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Operation::Copy { .. } => "copy",
            Operation::Const(_) => "const",
            Operation::Rename { .. } => "rename",
            Operation::Enum { .. } => "enum",
            Operation::Date { .. } | Operation::Instant { .. } => "date",
            Operation::Money { .. } => "money",
            Operation::Unit { .. } => "unit",
            Operation::Phone { .. } => "phone",
            Operation::Email { .. } => "email",
            Operation::Split { .. } => "split",
            Operation::Coalesce { .. } => "coalesce",
            Operation::Each { .. } => "each",
        }
    }

    /// Returns the number of steps that the operation counts: numbering plans are a hundred times the work of
    /// other scalars.
    pub(super) fn steps(&self) -> usize {
        match self {
            Operation::Phone { .. } => STEPS_OF_A_PHONE_NUMBER,
            _ => 1,
        }
    }

    /// Returns the places in the source that the operation reads.
    pub(super) fn reads(&self) -> Vec<&Pointer> {
        match self {
            Operation::Const(_) => Vec::new(),
            Operation::Copy { from, .. }
            | Operation::Rename { from, .. }
            | Operation::Enum { from, .. }
            | Operation::Date { from, .. }
            | Operation::Instant { from, .. }
            | Operation::Email { from }
            | Operation::Split { from, .. }
            | Operation::Each { from, .. } => vec![from],
            Operation::Coalesce { from, .. } => from.iter().collect(),
            Operation::Money { amount: first, currency: second, .. }
            | Operation::Unit { value: first, unit: second, .. } => {
                [Some(first), second.pointer()].into_iter().flatten().collect()
            }
            Operation::Phone { from, region, .. } => {
                let region = region.as_ref().and_then(Given::pointer);
                [Some(from), region].into_iter().flatten().collect()
            }
        }
    }
}

impl Given {
    pub(super) fn pointer(&self) -> Option<&Pointer> {
        match self {
            Given::At(pointer) => Some(pointer),
            Given::Is(_) => None,
        }
    }
}

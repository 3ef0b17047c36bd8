//! Canonical scalars: one spelling for each kind of value, reached by rules that refuse rather than guess.
//!
//! Every function here returns the one spelling, or an error with a stable code. Nothing is rounded, cut or completed
//! silently: the caller gives rounding, zone, fold and currency. Numbers never become floats. A returned spelling is
//! returned unchanged when it is passed again.

mod country;
pub(crate) mod decimal;
pub(crate) mod email;
pub(crate) mod format;
mod instant;
mod money;
pub(crate) mod phone;
mod quantity;
mod text;
mod units;

use std::fmt;

use serde::Serialize;

use crate::document::{Pointer, Value};

pub use country::country;
pub use decimal::{Decimal, DecimalRule, Round};
pub use email::{Email, email};
pub use format::{DateFormat, FormatError};
pub use instant::{Fold, InstantRule, date, instant};
pub use money::{MoneyRule, currency, minor_digits, money};
pub use phone::phone;
pub use quantity::{QuantityRule, quantity};
pub use text::{Clean, clean};
pub use units::{Unit, unit};

/// The most characters of a scalar that is normalised.
pub const LONGEST_SCALAR: usize = 1_000;

/// Reason why a value has no canonical spelling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Stable code of the rule.
    pub code: &'static str,
    /// Explanation of the mistake with what to do, for people.
    pub message: String,
}

impl Refused {
    /// Creates a refusal.
    pub fn new(code: &'static str, message: impl Into<String>) -> Refused {
        Refused { code, message: message.into() }
    }

    /// Adds the place and the value that was refused.
    #[must_use]
    pub fn at(self, pointer: &Pointer, value: &Value) -> Refusal {
        Refusal {
            pointer: pointer.clone(),
            code: self.code,
            message: self.message,
            value: shown(value),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

/// A refusal with its place in the document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// Place of the value in the document it came from.
    pub pointer: Pointer,
    /// Stable code of the rule.
    pub code: &'static str,
    /// Explanation of the mistake with what to do, for people.
    pub message: String,
    /// The value, or its beginning as a string when it is long.
    pub value: Value,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.pointer, self.message, self.code)
    }
}

/// The most bytes of a value that is shown in a refusal or a change.
const SHOWN: usize = 256;

/// Returns `value`, or the beginning of its JSON as a string when it is long.
#[must_use]
pub fn shown(value: &Value) -> Value {
    if value.size() <= SHOWN {
        return value.clone();
    }
    let text = value.to_json();
    let mut end = SHOWN;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Value::String(format!("{}…", text.get(..end).unwrap_or_default()))
}

/// One value that a rule changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Place in the document that was made.
    pub path: Pointer,
    /// The value before, shortened when it is long.
    pub from: Value,
    /// The value after, shortened when it is long.
    pub to: Value,
    /// Place of the rule in its transform.
    pub rule: String,
    /// Name of the operation, or the code of the refusal that `on_error` answered.
    pub reason: String,
}

/// Returns the text of a string, without the white space around it.
fn trimmed<'v>(value: &'v Value, code: &'static str, kind: &str) -> Result<&'v str, Refused> {
    let Some(text) = value.as_str() else {
        return Err(Refused::new(code, format!("{} is not {kind}; send a string", value.words())));
    };
    if text.chars().count() > LONGEST_SCALAR {
        let message = format!("{kind} has at most {LONGEST_SCALAR} characters");
        return Err(Refused::new(code, message));
    }
    let text = text.trim();
    if text.is_empty() {
        return Err(Refused::new(code, format!("an empty text is not {kind}")));
    }
    Ok(text)
}

//! Transforms as they are written: JSON with the names that people write. Unknown names are refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use crate::Payload;
use crate::canonical::{Clean, Fold, Round};
use crate::document::Pointer;
use crate::events::Op;

/// A transform as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformDocument {
    /// Stream of the event: a text in which `{/pointer}` stands for a value of the source.
    #[serde(default)]
    pub stream: Option<String>,
    /// Operation of the event.
    #[serde(default)]
    pub op: Option<OpDocument>,
    /// The rules.
    pub rules: Vec<RuleDocument>,
}

/// Source of the operation of an event.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpDocument {
    /// Place of the value that says it.
    pub at: Pointer,
    /// Operation for each value.
    #[serde(rename = "enum")]
    pub values: BTreeMap<String, Op>,
}

/// Answer to a value that a rule cannot map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// The document waits for a person.
    #[default]
    Incident,
    /// The target becomes null.
    Null,
    /// The target gets the value as it came.
    KeepRaw,
    /// The document is refused.
    Reject,
}

/// A rule as it is written: a target, exactly one operation, and its options.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuleDocument {
    /// Place in the result.
    pub to: Option<Pointer>,
    /// Copies a value, perhaps to another type.
    pub copy: Option<Pointer>,
    /// Sets a constant.
    #[serde(rename = "const", deserialize_with = "present")]
    pub constant: Option<Payload>,
    /// Copies members of an object under other names.
    pub rename: Option<Pointer>,
    /// Maps a closed set of values.
    #[serde(rename = "enum")]
    pub enumeration: Option<Pointer>,
    /// Reads a date or an instant.
    pub date: Option<Pointer>,
    /// Reads an amount of money.
    pub money: Option<MoneyDocument>,
    /// Reads a quantity.
    pub unit: Option<UnitDocument>,
    /// Reads a phone number.
    pub phone: Option<Pointer>,
    /// Reads an e-mail address.
    pub email: Option<Pointer>,
    /// Takes a part of a text, or all of them.
    pub split: Option<Pointer>,
    /// Copies the first existing one of several values.
    pub coalesce: Option<Vec<Pointer>>,
    /// Applies rules to each element of a list.
    pub each: Option<Pointer>,

    /// Type of the result: `text`, `integer`, `number`, `boolean` of a copy; `date` or `instant` of a date.
    #[serde(rename = "as")]
    pub as_type: Option<String>,
    /// Cleaning of a text.
    pub clean: Option<Vec<Clean>>,
    /// Old and new names of members.
    pub keys: Option<BTreeMap<String, String>>,
    /// Results for values of an `enum`, or regions for those of a phone number.
    #[serde(deserialize_with = "present_map")]
    pub map: Option<BTreeMap<String, Payload>>,
    /// A standard set of codes beside the map: `country`.
    pub codes: Option<String>,
    /// Answer to a value that is not in the map: `incident`, `null`, `keep_raw`, `reject`, or `{"value": …}`.
    #[serde(rename = "else", deserialize_with = "present")]
    pub otherwise: Option<Payload>,
    /// Format of a date: a strftime text, `unix` or `unix_ms`.
    pub format: Option<String>,
    /// Zone of local times.
    pub zone: Option<String>,
    /// Choice where clocks change.
    pub fold: Option<Fold>,
    /// Text between the parts.
    pub on: Option<String>,
    /// Index of the part; -1 is the last.
    pub part: Option<i64>,
    /// Rules for each element.
    pub rules: Option<Vec<RuleDocument>>,
    /// Place of the country of a national phone number.
    pub region: Option<Pointer>,
    /// The country itself.
    pub region_is: Option<String>,

    /// A value that is missing is an error.
    pub required: bool,
    /// Value instead of a missing one.
    #[serde(deserialize_with = "present")]
    pub default: Option<Payload>,
    /// Answer to a value that cannot be mapped.
    pub on_error: OnError,
}

/// Source of an amount of money.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoneyDocument {
    /// Place of the amount.
    pub amount: Pointer,
    /// Place of the currency.
    #[serde(default)]
    pub currency: Option<Pointer>,
    /// The currency itself.
    #[serde(default, rename = "in")]
    pub fixed: Option<String>,
    /// The amount is in the smallest units.
    #[serde(default)]
    pub minor_units: bool,
    /// Rounding of too many digits.
    #[serde(default)]
    pub round: Option<Round>,
    /// Character before the fraction.
    #[serde(default)]
    pub point: Option<char>,
    /// Character between groups of digits.
    #[serde(default)]
    pub group: Option<char>,
}

/// Source of a quantity.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitDocument {
    /// Place of the value.
    pub value: Pointer,
    /// Place of the unit.
    #[serde(default)]
    pub unit: Option<Pointer>,
    /// The unit itself.
    #[serde(default, rename = "in")]
    pub fixed: Option<String>,
    /// Unit to convert to.
    #[serde(default, rename = "as")]
    pub target: Option<String>,
    /// Digits behind the point, with `round`.
    #[serde(default)]
    pub scale: Option<u32>,
    /// Rounding of too many digits.
    #[serde(default)]
    pub round: Option<Round>,
    /// Character before the fraction.
    #[serde(default)]
    pub point: Option<char>,
    /// Character between groups of digits.
    #[serde(default)]
    pub group: Option<char>,
}

/// Reads a member that exists, also when it is null.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Payload>, D::Error> {
    Payload::deserialize(deserializer).map(Some)
}

fn present_map<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<BTreeMap<String, Payload>>, D::Error> {
    BTreeMap::deserialize(deserializer).map(Some)
}

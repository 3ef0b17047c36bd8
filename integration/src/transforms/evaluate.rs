//! Evaluates one operation on one document.

use std::collections::BTreeMap;

use super::document::OnError;
use super::rule::{CopyAs, Given, Operation, Otherwise};
use crate::canonical::{
    Clean, Decimal, DecimalRule, Refused, clean, country, date, email, instant, money, phone,
    quantity,
};
use crate::document::{Number, Object, Pointer, Value};

/// Result of an operation.
pub(super) enum Made {
    /// The value is missing.
    Absent,
    /// The value is null.
    Null,
    /// A value, and the one it was made from.
    Value { from: Value, to: Value },
}

/// Value that an operation could not map.
pub(super) struct NotMade {
    pub(super) at: Pointer,
    pub(super) value: Value,
    pub(super) refused: Refused,
    /// Answer that the operation has of its own.
    pub(super) answer: Option<OnError>,
}

impl NotMade {
    fn new(at: &Pointer, value: &Value, refused: Refused) -> NotMade {
        NotMade { at: at.clone(), value: value.clone(), refused, answer: None }
    }
}

/// Returns what is at `from`, unless it is missing or null.
fn there<'v>(from: &Pointer, context: &'v Value) -> Result<&'v Value, Made> {
    match from.find(context) {
        None => Err(Made::Absent),
        Some(Value::Null) => Err(Made::Null),
        Some(value) => Ok(value),
    }
}

/// Evaluates an operation; `each` and `const` are the caller's.
pub(super) fn evaluate(operation: &Operation, context: &Value) -> Result<Made, NotMade> {
    let single = |from: &Pointer, make: &dyn Fn(&Value) -> Result<Value, Refused>| {
        let value = match there(from, context) {
            Ok(value) => value,
            Err(made) => return Ok(made),
        };
        make(value)
            .map(|to| Made::Value { from: value.clone(), to })
            .map_err(|refused| NotMade::new(from, value, refused))
    };
    match operation {
        Operation::Copy { from, to_type, clean } => {
            single(from, &|value| copy(value, *to_type, clean))
        }
        Operation::Const(value) => Ok(Made::Value { from: value.clone(), to: value.clone() }),
        Operation::Rename { from, keys } => single(from, &|value| rename(value, keys)),
        Operation::Enum { from, map, countries, otherwise } => {
            enumeration(from, map, *countries, otherwise, context)
        }
        Operation::Date { from, format } => {
            single(from, &|value| date(value, format.as_ref()).map(Value::from))
        }
        Operation::Instant { from, rule } => {
            single(from, &|value| instant(value, rule).map(Value::from))
        }
        Operation::Money { amount, currency, rule } => pair(
            amount,
            currency,
            "currency",
            context,
            ["amount", "currency"],
            &|amount, currency| money(amount, currency, rule),
        ),
        Operation::Unit { value, unit, rule } => {
            pair(value, unit, "unit", context, ["value", "unit"], &|value, unit| {
                quantity(value, unit, rule)
            })
        }
        Operation::Phone { from, region, map } => {
            let region = region_of(region.as_ref(), map, context)?;
            single(from, &|value| phone(value, region.as_deref()).map(Value::from))
        }
        Operation::Email { from } => {
            single(from, &|value| email(value).map(|email| Value::from(email.address())))
        }
        Operation::Split { from, on, part, clean } => split(from, on, *part, clean, context),
        Operation::Coalesce { from, clean } => {
            let is_there = |value: &&Value| !value.is_null() && value.as_str() != Some("");
            let found = from.iter().find_map(|from| from.find(context).filter(is_there));
            Ok(found.map_or(Made::Absent, |value| Made::Value {
                from: value.clone(),
                to: cleaned(value, clean),
            }))
        }
        Operation::Each { .. } => Ok(Made::Absent),
    }
}

fn cleaned(value: &Value, rules: &[Clean]) -> Value {
    match value {
        Value::String(text) if !rules.is_empty() => Value::String(clean(text, rules)),
        other => other.clone(),
    }
}

fn copy(value: &Value, to_type: CopyAs, rules: &[Clean]) -> Result<Value, Refused> {
    let refused = |kind: &str| {
        let message = format!("{} cannot be copied as {kind} without loss", value.words());
        Err(Refused::new("not_convertible", message))
    };
    match (to_type, value) {
        (CopyAs::Same, value) => Ok(cleaned(value, rules)),
        (CopyAs::Text, Value::String(text)) => Ok(Value::String(clean(text, rules))),
        (CopyAs::Text, Value::Number(number)) => Ok(Value::String(number.canonical())),
        (CopyAs::Text, Value::Bool(value)) => Ok(Value::String(value.to_string())),
        (CopyAs::Text, _) => refused("text"),
        (CopyAs::Integer, Value::Number(number)) if number.is_integer() => Ok(value.clone()),
        (CopyAs::Integer | CopyAs::Number, Value::String(_)) => {
            let decimal = Decimal::read(value, DecimalRule::default())?.trimmed();
            if to_type == CopyAs::Integer && decimal.parts().1 > 0 {
                return refused("an integer");
            }
            let number = Number::parse(&decimal.write());
            number.map_or_else(|| refused("a number"), |number| Ok(Value::Number(number)))
        }
        (CopyAs::Number, Value::Number(_)) | (CopyAs::Boolean, Value::Bool(_)) => Ok(value.clone()),
        (CopyAs::Boolean, Value::String(text)) if text == "true" || text == "false" => {
            Ok(Value::Bool(text == "true"))
        }
        (CopyAs::Integer, _) => refused("an integer"),
        (CopyAs::Number, _) => refused("a number"),
        (CopyAs::Boolean, _) => refused("a boolean"),
    }
}

fn rename(value: &Value, keys: &BTreeMap<String, String>) -> Result<Value, Refused> {
    let Some(members) = value.as_object() else {
        let message = format!("{} has no members to rename", value.words());
        return Err(Refused::new("not_an_object", message));
    };
    let renamed =
        keys.iter().filter_map(|(old, new)| Some((new.clone(), members.get(old)?.clone())));
    Ok(Value::Object(renamed.collect()))
}

/// Returns the text by which a scalar is looked up in a map.
fn map_key(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.canonical()),
        Value::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

fn enumeration(
    from: &Pointer,
    map: &BTreeMap<String, Value>,
    countries: bool,
    otherwise: &Otherwise,
    context: &Value,
) -> Result<Made, NotMade> {
    let value = match there(from, context) {
        Ok(value) => value,
        Err(made) => return Ok(made),
    };
    let known = map_key(value).and_then(|key| map.get(&key).cloned());
    let known = known.or_else(|| countries.then(|| country(value).ok().map(Value::from)).flatten());
    match (known, otherwise) {
        (Some(to), _) => Ok(Made::Value { from: value.clone(), to }),
        (None, Otherwise::Value(to)) => Ok(Made::Value { from: value.clone(), to: to.clone() }),
        (None, Otherwise::Error(answer)) => {
            let message = "the value is not in the map; add it, or say what else";
            let refused = Refused::new("enum_value_unknown", message);
            Err(NotMade { answer: Some(*answer), ..NotMade::new(from, value, refused) })
        }
    }
}

/// Evaluates an operation on a value and its currency or unit.
fn pair(
    first: &Pointer,
    second: &Given,
    what: &'static str,
    context: &Value,
    names: [&str; 2],
    make: &dyn Fn(&Value, &Value) -> Result<Value, Refused>,
) -> Result<Made, NotMade> {
    let value = match there(first, context) {
        Ok(value) => value,
        Err(made) => return Ok(made),
    };
    let (at, beside) = match second {
        Given::Is(constant) => (first, constant),
        Given::At(at) => match at.find(context).filter(|found| !found.is_null()) {
            Some(found) => (at, found),
            None => {
                let code = if what == "unit" { "unit_missing" } else { "currency_missing" };
                let message = format!("the {what} is missing; it is never assumed");
                return Err(NotMade::new(at, &Value::Null, Refused::new(code, message)));
            }
        },
    };
    let from = Value::Object(Object::from([
        (names[0].to_owned(), value.clone()),
        (names[1].to_owned(), beside.clone()),
    ]));
    match make(value, beside) {
        Ok(to) => Ok(Made::Value { from, to }),
        Err(refused) => {
            let of_second =
                refused.code.starts_with("currency") || refused.code.starts_with("unit_");
            let (at, value) = if of_second { (at, beside) } else { (first, value) };
            Err(NotMade::new(at, value, refused))
        }
    }
}

fn region_of(
    region: Option<&Given>,
    map: &BTreeMap<String, Value>,
    context: &Value,
) -> Result<Option<String>, NotMade> {
    let (at, value) = match region {
        None => return Ok(None),
        Some(Given::Is(value)) => (Pointer::default(), value),
        Some(Given::At(at)) => match there(at, context) {
            Ok(value) => (at.clone(), value),
            Err(_) => return Ok(None),
        },
    };
    let mapped = map_key(value).and_then(|key| map.get(&key));
    country(mapped.unwrap_or(value)).map(Some).map_err(|refused| NotMade::new(&at, value, refused))
}

fn split(
    from: &Pointer,
    on: &str,
    part: Option<i64>,
    rules: &[Clean],
    context: &Value,
) -> Result<Made, NotMade> {
    let value = match there(from, context) {
        Ok(value) => value,
        Err(made) => return Ok(made),
    };
    let Some(text) = value.as_str() else {
        let message = format!("{} cannot be split; a text can", value.words());
        return Err(NotMade::new(from, value, Refused::new("not_a_text", message)));
    };
    let parts: Vec<Value> = text.split(on).map(|part| Value::String(clean(part, rules))).collect();
    let to = match part {
        None => Value::Array(parts),
        Some(index) => {
            let count = i64::try_from(parts.len()).unwrap_or(i64::MAX);
            let index = if index < 0 { index.saturating_add(count) } else { index };
            let picked = usize::try_from(index).ok().and_then(|index| parts.into_iter().nth(index));
            match picked {
                Some(picked) => picked,
                None => return Ok(Made::Absent),
            }
        }
    };
    Ok(Made::Value { from: value.clone(), to })
}

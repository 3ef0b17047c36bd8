//! Makes documents that a schema allows. Chance comes in as an argument.

use super::schema::{
    Bound, Kind, ListRule, Member, Node, NumberRule, ObjectRule, Schema, TextRule,
};
use crate::canonical::{Decimal, DecimalRule};
use crate::document::{Number, Object, Value};

/// The most characters and elements that an example is given beyond what its schema asks for.
const EXTRA: u64 = 3;
/// The most choices that are made for an example.
const MOST_CHOICES: usize = 10_000;
/// The most characters of a text that is made.
pub(super) const LONGEST_TEXT: u64 = 65_536;

impl Schema {
    /// Makes a document that is valid in a closed world. `choose(n)` returns a number below `n` each time it is asked;
    /// one that always returns 0 makes the smallest document.
    #[must_use]
    pub fn example(&self, choose: &mut dyn FnMut(usize) -> usize) -> Value {
        // Shared definitions may unfold without end; when this is used up, only what is required is made.
        let mut left = MOST_CHOICES;
        let mut bounded = |n: usize| {
            if left == 0 {
                return 0;
            }
            left -= 1;
            choose(n)
        };
        self.root.example(&mut bounded).unwrap_or(Value::Null)
    }
}

impl Node {
    /// Makes a value that the node allows in a closed world. There is one for every node of a schema.
    pub(super) fn example(&self, choose: &mut dyn FnMut(usize) -> usize) -> Option<Value> {
        if self.nullable && choose(4) == 3 {
            return Some(Value::Null);
        }
        match &*self.kind {
            Kind::Any => anything().into_iter().nth(choose(anything().len())),
            Kind::Null => Some(Value::Null),
            Kind::Choice(values) => values.get(choose(values.len())).cloned(),
            Kind::Boolean => Some(Value::Bool(choose(2) == 1)),
            Kind::Number(rule) => {
                let near = rule.near(&[]);
                if near.is_empty() {
                    return None;
                }
                let picked = near.get(choose(near.len()))?;
                let moved = rule.integer.then(|| choose(2_000)).and_then(|more| {
                    let number = picked.to_i64()?.checked_add(i64::try_from(more).ok()?)?;
                    Some(Number::from(number))
                });
                let moved = moved.filter(|moved| rule.refuses(moved).is_none());
                Some(Value::Number(moved.unwrap_or_else(|| picked.clone())))
            }
            Kind::Text(rule) => rule.example(choose).map(Value::String),
            Kind::List(rule) => rule.example(choose),
            Kind::Object(rule) => rule.example(choose),
        }
    }
}

/// Returns one value of each type.
pub(super) fn anything() -> [Value; 8] {
    [
        Value::from(0),
        Value::Null,
        Value::Bool(true),
        Value::from("a"),
        Value::from(""),
        Value::Array(Vec::new()),
        Value::Object(Object::new()),
        Value::Number(Number::parse("0.5").unwrap_or_else(|| Number::from(1))),
    ]
}

impl NumberRule {
    /// Returns numbers of this range that lie at, beside and between its ends and those of `others`.
    pub(super) fn near(&self, others: &[&NumberRule]) -> Vec<Number> {
        let read = |bound: &Option<Bound>| {
            let at = bound.as_ref()?.at.clone();
            Decimal::read(&Value::Number(at), DecimalRule::default()).ok()
        };
        let ends: Vec<Decimal> = [self]
            .into_iter()
            .chain(others.iter().copied())
            .flat_map(|rule| [read(&rule.low), read(&rule.high)])
            .flatten()
            .collect();
        let mut found: Vec<Number> = Vec::new();
        let mut add = |number: Option<Decimal>| {
            let number = number.and_then(|number| Number::parse(&number.trimmed().write()));
            if let Some(number) =
                number.filter(|number| self.refuses(number).is_none() && !found.contains(number))
            {
                found.push(number);
            }
        };
        // In halves of a tenth, so that a float has values on each side.
        for tenths in [0, 10, -10, 5, -5] {
            add(Decimal::of_units(tenths, 1).ok());
            for end in &ends {
                add(plus(*end, tenths));
                add(plus(floor(*end), tenths));
                add(plus(floor(*end), tenths + 10));
            }
        }
        for one in &ends {
            for other in &ends {
                add(middle(*one, *other));
            }
        }
        found
    }
}

/// Returns `number` and so many tenths.
fn plus(number: Decimal, tenths: i128) -> Option<Decimal> {
    let (coefficient, _) = number.with_scale(number.parts().1.max(1), None).ok()?.parts();
    let scale = number.parts().1.max(1);
    let factor = 10_i128.checked_pow(scale - 1)?;
    Decimal::of_units(coefficient.checked_add(tenths.checked_mul(factor)?)?, scale).ok()
}

/// Returns the largest integer that is not above `number`.
fn floor(number: Decimal) -> Decimal {
    let (coefficient, scale) = number.parts();
    let whole = coefficient.div_euclid(10_i128.checked_pow(scale).unwrap_or(i128::MAX));
    Decimal::of_units(whole, 0).unwrap_or(number)
}

/// Returns the number half way between two.
fn middle(one: Decimal, other: Decimal) -> Option<Decimal> {
    let scale = one.parts().1.max(other.parts().1) + 1;
    let (one, _) = one.with_scale(scale, None).ok()?.parts();
    let (other, _) = other.with_scale(scale, None).ok()?.parts();
    Decimal::of_units(one.checked_add(other)? / 2, scale).ok()
}

impl TextRule {
    fn example(&self, choose: &mut dyn FnMut(usize) -> usize) -> Option<String> {
        match self {
            TextRule::Format(format) => {
                let examples = format.examples();
                examples.get(choose(examples.len())).map(|text| (*text).to_owned())
            }
            TextRule::Pattern(pattern) => {
                pattern.examples().get(choose(pattern.examples().len())).cloned()
            }
            TextRule::Length { min, max } => {
                let room = max.map_or(EXTRA, |max| (max - min).min(EXTRA));
                let length = min + choose(usize::try_from(room).unwrap_or_default() + 1) as u64;
                let letters = ['a', '0', '~', 'é'];
                let length = usize::try_from(length).ok()?;
                Some((0..length).map(|_| letters[choose(letters.len()) % letters.len()]).collect())
            }
        }
    }

    /// Returns texts of this rule that others may refuse: of many lengths, and unlike any format.
    pub(super) fn candidates(&self, other: &TextRule) -> Vec<String> {
        let TextRule::Length { min, max } = self else {
            return match self {
                TextRule::Pattern(pattern) => pattern.examples().to_vec(),
                TextRule::Format(format) => {
                    format.examples().iter().map(|text| (*text).to_owned()).collect()
                }
                TextRule::Length { .. } => Vec::new(),
            };
        };
        let mut lengths = vec![*min, min + 1, min + 2, max.unwrap_or(min + 3)];
        match other {
            TextRule::Length { min, max } => {
                lengths.push(min.saturating_sub(1));
                lengths.extend(max.map(|max| max + 1));
            }
            TextRule::Format(format) => {
                let (min, max) = format.lengths();
                lengths.push(min.saturating_sub(1));
                lengths.push(min);
                lengths.extend(max.map(|max| max + 1));
            }
            TextRule::Pattern(pattern) => {
                lengths.extend(pattern.examples().iter().map(|text| text.chars().count() as u64));
            }
        }
        let possible = lengths.into_iter().filter(|length| {
            length >= min && max.is_none_or(|max| *length <= max) && *length <= LONGEST_TEXT
        });
        let lengths: Vec<usize> =
            possible.filter_map(|length| usize::try_from(length).ok()).collect();
        let texts = lengths
            .iter()
            .flat_map(|length| ["a", "0", "~", " "].map(|letter| letter.repeat(*length)));
        texts.collect()
    }
}

impl ListRule {
    fn example(&self, choose: &mut dyn FnMut(usize) -> usize) -> Option<Value> {
        let room = self.max.map_or(EXTRA, |max| max.saturating_sub(self.min).min(EXTRA));
        let length = self.min + choose(usize::try_from(room).unwrap_or_default() + 1) as u64;
        self.of_length(length, choose)
    }

    /// Makes a list of this length.
    pub(super) fn of_length(
        &self,
        length: u64,
        choose: &mut dyn FnMut(usize) -> usize,
    ) -> Option<Value> {
        let elements = (0..length).map(|_| match &self.items {
            Some(items) => items.example(choose),
            None => Some(Value::from(0)),
        });
        elements.collect::<Option<_>>().map(Value::Array)
    }
}

impl ObjectRule {
    fn example(&self, choose: &mut dyn FnMut(usize) -> usize) -> Option<Value> {
        let Some(members) = &self.members else {
            let mut object = Object::new();
            if choose(2) == 1 {
                object
                    .insert("a".to_owned(), anything().into_iter().nth(choose(anything().len()))?);
            }
            return Some(Value::Object(object));
        };
        if let Some(format) = self.format {
            let pairs = format.pairs();
            let (first, second) = pairs.get(choose(pairs.len()))?;
            let values = [Value::from(*first), Value::from(*second)];
            let names = format.members().map(|(name, _)| name.to_owned());
            return Some(Value::Object(names.into_iter().zip(values).collect()));
        }
        let mut object = Object::new();
        for (name, Member { node, required }) in members {
            if *required || choose(2) == 1 {
                object.insert(name.clone(), node.example(choose)?);
            }
        }
        Some(Value::Object(object))
    }
}

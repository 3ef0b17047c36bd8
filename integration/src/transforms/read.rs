//! Reads rules as they are written: exactly one operation, and no option that does not belong to it.

use std::collections::BTreeMap;

use backstitch_saga::Violation;
use serde::Deserialize;

use super::document::{OnError, RuleDocument};
use super::rule::{CopyAs, MOST_RULES, Operation, Otherwise, Rule};
use crate::Payload;
use crate::document::{Pointer, Value, value_of};

mod scalar;

/// The deepest nesting of `each`.
pub(crate) const DEEPEST: usize = 5;
/// The most entries of a map and the most places of a coalesce.
pub(crate) const MOST_ENTRIES: usize = 1_000;

/// Reads rules, and collects everything that is wrong.
pub(super) struct Reader {
    pub(super) wrong: Vec<Violation>,
    rules: usize,
}

impl Reader {
    pub(super) fn new() -> Reader {
        Reader { wrong: Vec::new(), rules: 0 }
    }

    fn refuse(&mut self, pointer: &str, code: &str, message: impl Into<String>) {
        if self.wrong.len() < crate::contracts::MOST_VIOLATIONS {
            self.wrong.push(Violation::new(pointer, code, message));
        }
    }

    /// Reads the rules at `place`. Rules that are wrong are left out.
    pub(super) fn rules(&mut self, rules: &[RuleDocument], place: &str, depth: usize) -> Vec<Rule> {
        if depth > DEEPEST {
            self.refuse(place, "transform_too_deep", format!("each may be nested {DEEPEST} deep"));
            return Vec::new();
        }
        self.rules += rules.len();
        if self.rules > MOST_RULES {
            self.refuse(
                place,
                "too_many_rules",
                format!("a transform has at most {MOST_RULES} rules"),
            );
            return Vec::new();
        }
        if rules.is_empty() {
            self.refuse(place, "rule_not_valid", "at least one rule is needed");
        }
        let indexed = rules.iter().enumerate();
        indexed
            .filter_map(|(index, rule)| self.rule(rule, &format!("{place}/{index}"), depth))
            .collect()
    }

    fn rule(&mut self, written: &RuleDocument, place: &str, depth: usize) -> Option<Rule> {
        let before = self.wrong.len();
        let Some(to) = written.to.clone() else {
            self.refuse(place, "rule_not_valid", "a rule has a target; name it in 'to'");
            return None;
        };
        let operation = self.operation(written, place, depth)?;
        self.options(written, &operation, place);
        let default =
            written.default.as_ref().and_then(|value| self.value(value, place, "default"));
        if written.required && default.is_some() {
            self.refuse(
                place,
                "option_not_for_operation",
                "a rule that has a default is never missing; leave 'required' out",
            );
        }
        (self.wrong.len() == before).then(|| Rule {
            to,
            operation,
            required: written.required,
            default,
            on_error: written.on_error,
            allows_null: false,
            place: place.to_owned(),
        })
    }

    /// Refuses options that the operation does not have.
    fn options(&mut self, written: &RuleDocument, operation: &Operation, place: &str) {
        let name = operation.name();
        let allowed: &[&str] = match name {
            "copy" => &["as", "clean"],
            "rename" => &["keys"],
            "enum" => &["map", "codes", "else"],
            "date" => &["as", "format", "zone", "fold"],
            "phone" => &["region", "region_is", "map"],
            "split" => &["on", "part", "clean"],
            "coalesce" => &["clean"],
            "each" => &["rules"],
            _ => &[],
        };
        let given = [
            ("as", written.as_type.is_some()),
            ("clean", written.clean.is_some()),
            ("keys", written.keys.is_some()),
            ("map", written.map.is_some()),
            ("codes", written.codes.is_some()),
            ("else", written.otherwise.is_some()),
            ("format", written.format.is_some()),
            ("zone", written.zone.is_some()),
            ("fold", written.fold.is_some()),
            ("on", written.on.is_some()),
            ("part", written.part.is_some()),
            ("rules", written.rules.is_some()),
            ("region", written.region.is_some()),
            ("region_is", written.region_is.is_some()),
        ];
        for (option, _) in
            given.into_iter().filter(|(option, given)| *given && !allowed.contains(option))
        {
            let pointer = format!("{place}/{option}");
            self.refuse(
                &pointer,
                "option_not_for_operation",
                format!("{name} has no option '{option}'"),
            );
        }
    }

    fn operation(
        &mut self,
        written: &RuleDocument,
        place: &str,
        depth: usize,
    ) -> Option<Operation> {
        let mut found = self.plain(written, place)?;
        found.extend(self.scalars(written, place)?);
        if let Some(from) = &written.each {
            let rules = written.rules.as_deref().unwrap_or_default();
            let rules = self.rules(rules, &format!("{place}/rules"), depth + 1);
            found.push(Operation::Each { from: from.clone(), rules });
        }
        match <[Operation; 1]>::try_from(found) {
            Ok([operation]) => Some(operation),
            Err(found) => {
                let names: Vec<&str> = found.iter().map(Operation::name).collect();
                let message = if names.is_empty() {
                    "a rule has one of copy, const, rename, enum, date, money, unit, phone, email, split, coalesce, each".to_owned()
                } else {
                    format!("a rule has one operation, not {}", names.join(" and "))
                };
                self.refuse(place, "rule_not_valid", message);
                None
            }
        }
    }

    /// Reads the operations that copy and choose.
    fn plain(&mut self, written: &RuleDocument, place: &str) -> Option<Vec<Operation>> {
        let clean = written.clean.clone().unwrap_or_default();
        let mut found = Vec::new();
        if let Some(from) = &written.copy {
            let to_type = match written.as_type.as_deref() {
                None => CopyAs::Same,
                Some("text") => CopyAs::Text,
                Some("integer") => CopyAs::Integer,
                Some("number") => CopyAs::Number,
                Some("boolean") => CopyAs::Boolean,
                Some(_) => {
                    self.refuse(
                        place,
                        "rule_not_valid",
                        "a copy is made 'as' text, integer, number or boolean",
                    );
                    return None;
                }
            };
            found.push(Operation::Copy { from: from.clone(), to_type, clean: clean.clone() });
        }
        if let Some(value) = &written.constant {
            found.push(Operation::Const(self.value(value, place, "const")?));
        }
        if let Some(from) = &written.rename {
            found.push(self.rename(from, written, place)?);
        }
        if let Some(from) = &written.enumeration {
            found.push(self.enumeration(from, written, place)?);
        }
        if let Some(from) = &written.split {
            let Some(on) = written.on.clone().filter(|on| !on.is_empty()) else {
                self.refuse(
                    place,
                    "rule_not_valid",
                    "a split needs the text between the parts; name it in 'on'",
                );
                return None;
            };
            found.push(Operation::Split {
                from: from.clone(),
                on,
                part: written.part,
                clean: clean.clone(),
            });
        }
        if let Some(from) = &written.coalesce {
            if from.is_empty() || from.len() > MOST_ENTRIES {
                self.refuse(
                    place,
                    "rule_not_valid",
                    format!("a coalesce names 1 to {MOST_ENTRIES} places"),
                );
                return None;
            }
            found.push(Operation::Coalesce { from: from.clone(), clean });
        }
        Some(found)
    }

    /// Reads the operations of scalars.
    fn scalars(&mut self, written: &RuleDocument, place: &str) -> Option<Vec<Operation>> {
        let mut found = Vec::new();
        if let Some(from) = &written.date {
            found.push(self.date(from, written, place)?);
        }
        if let Some(money) = &written.money {
            found.push(self.money(money, place)?);
        }
        if let Some(unit) = &written.unit {
            found.push(self.unit(unit, place)?);
        }
        if let Some(from) = &written.phone {
            found.push(self.phone(from, written, place)?);
        }
        if let Some(from) = &written.email {
            found.push(Operation::Email { from: from.clone() });
        }
        Some(found)
    }

    fn value(&mut self, payload: &Payload, place: &str, option: &str) -> Option<Value> {
        match value_of(payload) {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.refuse(&format!("{place}/{option}"), &wrong.code, wrong.message);
                None
            }
        }
    }

    fn rename(&mut self, from: &Pointer, written: &RuleDocument, place: &str) -> Option<Operation> {
        let keys = written.keys.clone().unwrap_or_default();
        let mut targets: Vec<&String> = keys.values().collect();
        targets.sort();
        targets.dedup();
        if keys.is_empty() || keys.len() > MOST_ENTRIES || targets.len() != keys.len() {
            let message =
                format!("a rename has 1 to {MOST_ENTRIES} 'keys', each with a new name of its own");
            self.refuse(place, "rule_not_valid", message);
            return None;
        }
        Some(Operation::Rename { from: from.clone(), keys })
    }

    fn map(&mut self, written: &RuleDocument, place: &str) -> Option<BTreeMap<String, Value>> {
        let map = written.map.iter().flatten();
        let map: Option<BTreeMap<String, Value>> =
            map.map(|(key, value)| Some((key.clone(), self.value(value, place, "map")?))).collect();
        let map = map?;
        if map.len() > MOST_ENTRIES {
            self.refuse(
                place,
                "rule_not_valid",
                format!("a map has at most {MOST_ENTRIES} entries"),
            );
            return None;
        }
        Some(map)
    }

    fn enumeration(
        &mut self,
        from: &Pointer,
        written: &RuleDocument,
        place: &str,
    ) -> Option<Operation> {
        let map = self.map(written, place)?;
        let countries = match written.codes.as_deref() {
            None => false,
            Some("country") => true,
            Some(_) => {
                self.refuse(&format!("{place}/codes"), "rule_not_valid", "the codes are: country");
                return None;
            }
        };
        if map.is_empty() && !countries {
            self.refuse(place, "rule_not_valid", "an enum has a map, or codes");
            return None;
        }
        let otherwise = match &written.otherwise {
            None => Otherwise::Error(written.on_error),
            Some(payload) => {
                if let Ok(answer) = payload.to::<OnError>() {
                    Otherwise::Error(answer)
                } else if let Ok(ElseValue { value }) = payload.to::<ElseValue>() {
                    Otherwise::Value(self.value(&value, place, "else")?)
                } else {
                    let message = "'else' is incident, null, keep_raw, reject or {\"value\": …}";
                    self.refuse(&format!("{place}/else"), "rule_not_valid", message);
                    return None;
                }
            }
        };
        Some(Operation::Enum { from: from.clone(), map, countries, otherwise })
    }
}

/// A value for what a map does not have.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ElseValue {
    value: Payload,
}

//! Reads the options of dates, money, quantities and phone numbers, and the template of a stream.

use super::super::document::{MoneyDocument, RuleDocument, UnitDocument};
use super::super::rule::{Given, Operation, Piece, Template};
use super::Reader;
use crate::canonical::{
    DateFormat, DecimalRule, InstantRule, MoneyRule, QuantityRule, country, currency, unit,
};
use crate::document::{Pointer, Value};

impl Reader {
    pub(super) fn date(
        &mut self,
        from: &Pointer,
        written: &RuleDocument,
        place: &str,
    ) -> Option<Operation> {
        let from = from.clone();
        let zone = match &written.zone {
            None => None,
            Some(zone) => match zone.parse() {
                Ok(zone) => Some(zone),
                Err(_) => {
                    let message =
                        "the zone is not one of the IANA database (for example Europe/Berlin)";
                    self.refuse(&format!("{place}/zone"), "zone_not_valid", message);
                    return None;
                }
            },
        };
        let unix = matches!(written.format.as_deref(), Some("unix" | "unix_ms"));
        let format = match written.format.as_deref().filter(|_| !unix).map(DateFormat::parse) {
            None => None,
            Some(Ok(format)) => Some(format),
            Some(Err(error)) => {
                self.refuse(&format!("{place}/format"), error.code, error.message);
                return None;
            }
        };
        let is_date = match written.as_type.as_deref() {
            Some("date") => true,
            Some("instant") => false,
            _ => {
                self.refuse(&format!("{place}/as"), "rule_not_valid", "say 'as': date or instant");
                return None;
            }
        };
        let conflict = date_conflict(written, format.as_ref(), is_date, zone.is_some());
        if let Some((code, message)) = conflict {
            self.refuse(place, code, message);
            return None;
        }
        if is_date {
            return Some(Operation::Date { from, format });
        }
        let rule = match (written.format.as_deref(), format) {
            (Some("unix"), _) => InstantRule::UnixSeconds,
            (Some("unix_ms"), _) => InstantRule::UnixMillis,
            (_, Some(format)) => InstantRule::Format { format, zone, fold: written.fold },
            _ => InstantRule::Rfc3339,
        };
        Some(Operation::Instant { from, rule })
    }

    fn decimal(
        &mut self,
        point: Option<char>,
        group: Option<char>,
        place: &str,
    ) -> Option<DecimalRule> {
        let point = point.unwrap_or('.');
        let is_mark = |mark: char| !mark.is_ascii_alphanumeric() && !matches!(mark, '+' | '-');
        if Some(point) == group || !is_mark(point) || !group.is_none_or(is_mark) {
            self.refuse(place, "rule_not_valid", "'point' and 'group' are two different marks");
            return None;
        }
        Some(DecimalRule { point, group })
    }

    /// Reads a place or a constant, exactly one of the two.
    fn given(
        &mut self,
        at: Option<&Pointer>,
        is: Option<&String>,
        place: &str,
        what: &str,
    ) -> Option<Given> {
        match (at, is) {
            (Some(at), None) => Some(Given::At(at.clone())),
            (None, Some(is)) => Some(Given::Is(Value::from(is.as_str()))),
            _ => {
                let message = format!("name the place of the {what}, or the {what} itself in 'in'");
                self.refuse(place, "rule_not_valid", message);
                None
            }
        }
    }

    pub(super) fn money(&mut self, money: &MoneyDocument, place: &str) -> Option<Operation> {
        let place = format!("{place}/money");
        let in_currency =
            self.given(money.currency.as_ref(), money.fixed.as_ref(), &place, "currency")?;
        if let Given::Is(value) = &in_currency
            && let Err(refused) = currency(value)
        {
            self.refuse(&format!("{place}/in"), refused.code, refused.message);
            return None;
        }
        let decimal = self.decimal(money.point, money.group, &place)?;
        let rule = MoneyRule { decimal, minor_units: money.minor_units, round: money.round };
        Some(Operation::Money { amount: money.amount.clone(), currency: in_currency, rule })
    }

    pub(super) fn unit(&mut self, written: &UnitDocument, place: &str) -> Option<Operation> {
        let place = format!("{place}/unit");
        let of_unit = self.given(written.unit.as_ref(), written.fixed.as_ref(), &place, "unit")?;
        let fixed = match &of_unit {
            Given::Is(value) => value.as_str(),
            Given::At(_) => None,
        };
        let target = written.target.as_deref();
        for code in [fixed, target].into_iter().flatten() {
            if unit(code).is_none() {
                self.refuse(
                    &place,
                    "unit_not_valid",
                    format!("'{code}' is not a unit of the table"),
                );
                return None;
            }
        }
        let from_to = fixed.and_then(unit).zip(target.and_then(unit));
        if from_to.is_some_and(|(from, to)| from.factor_to(to).is_none()) {
            self.refuse(&place, "units_not_convertible", "the two units measure different things");
            return None;
        }
        if written.scale.is_some() != written.round.is_some()
            || written.scale.is_some_and(|scale| scale > 18)
        {
            self.refuse(
                &place,
                "rule_not_valid",
                "'scale' (at most 18) and 'round' belong together",
            );
            return None;
        }
        let decimal = self.decimal(written.point, written.group, &place)?;
        let rule = QuantityRule {
            decimal,
            target: target.and_then(unit),
            round: written.scale.zip(written.round),
        };
        Some(Operation::Unit { value: written.value.clone(), unit: of_unit, rule })
    }

    pub(super) fn phone(
        &mut self,
        from: &Pointer,
        written: &RuleDocument,
        place: &str,
    ) -> Option<Operation> {
        let region = match (&written.region, &written.region_is) {
            (None, None) => None,
            (Some(_), Some(_)) => {
                self.refuse(place, "rule_not_valid", "'region' and 'region_is' stand apart");
                return None;
            }
            (Some(at), None) => Some(Given::At(at.clone())),
            (None, Some(code)) => Some(Given::Is(Value::from(code.as_str()))),
        };
        let map = self.map(written, place)?;
        let fixed = match &region {
            Some(Given::Is(value)) => Some(value),
            _ => None,
        };
        for code in map.values().chain(fixed) {
            if let Err(refused) = country(code) {
                self.refuse(place, refused.code, refused.message);
                return None;
            }
        }
        Some(Operation::Phone { from: from.clone(), region, map })
    }

    /// Reads a template: text, and `{/pointer}` for values.
    pub(in crate::transforms) fn template(&mut self, text: &str) -> Option<Template> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((pointer, behind)) = after.split_once('}') else {
                self.refuse("/stream", "template_not_valid", "a '{' is closed by a '}'");
                return None;
            };
            match Pointer::parse(pointer) {
                Ok(pointer) => {
                    pieces.extend([Piece::Text(before.to_owned()), Piece::Value(pointer)]);
                }
                Err(message) => {
                    self.refuse("/stream", "template_not_valid", message);
                    return None;
                }
            }
            rest = behind;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        let has_value = pieces.iter().any(|piece| matches!(piece, Piece::Value(_)));
        if !has_value || text.len() > 500 || text.chars().any(char::is_control) {
            let message = "a stream is a text with at least one {/pointer} of the source, of at most 500 bytes";
            self.refuse("/stream", "template_not_valid", message);
            return None;
        }
        Some(Template(pieces))
    }
}

/// Returns the code and the message of options of a date that contradict each other.
fn date_conflict(
    written: &RuleDocument,
    format: Option<&DateFormat>,
    is_date: bool,
    has_zone: bool,
) -> Option<(&'static str, &'static str)> {
    let unix = matches!(written.format.as_deref(), Some("unix" | "unix_ms"));
    if is_date && (unix || has_zone || written.fold.is_some()) {
        Some((
            "rule_not_valid",
            "a date has a format alone; the day of an instant depends on the zone of the reader",
        ))
    } else if is_date {
        None
    } else {
        match format {
            Some(format) if !format.has_time() => {
                Some(("format_without_time", "an instant needs a time of day in its format"))
            }
            Some(format) if !format.has_offset() && !has_zone => {
                Some(("zone_missing", "a format without an offset needs a zone"))
            }
            Some(format) if format.has_offset() && (has_zone || written.fold.is_some()) => {
                Some(("rule_not_valid", "a format with an offset has no zone and no fold"))
            }
            None if has_zone || written.fold.is_some() => Some((
                "rule_not_valid",
                "RFC 3339 and unix have their zone; leave zone and fold out",
            )),
            _ => None,
        }
    }
}

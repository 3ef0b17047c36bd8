//! Formats of contracts: the canonical spellings of `canonical`, and few standard ones.

use crate::canonical::{
    Decimal, DecimalRule, InstantRule, MoneyRule, QuantityRule, country, currency, date, email,
    instant, money, quantity,
};
use crate::document::{Object, Value};

/// A format that contracts may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// RFC 3339 with any offset.
    DateTime,
    /// RFC 3339 in UTC, in its canonical spelling.
    Instant,
    /// `2025-03-30`.
    Date,
    /// An e-mail address in its canonical spelling.
    Email,
    /// E.164.
    Phone,
    /// Two letters of ISO 3166-1.
    Country,
    /// Three letters of ISO 4217.
    Currency,
    /// A decimal as text: `-12.30`.
    Decimal,
    /// A UUID.
    Uuid,
    /// An object with an amount and a currency.
    Money,
    /// An object with a value and a unit.
    Quantity,
}

use Format::{
    Country, Currency, Date, DateTime, Decimal as DecimalText, Email, Instant, Money, Phone,
    Quantity, Uuid,
};

const ALL: [(Format, &str); 11] = [
    (DateTime, "date-time"),
    (Instant, "instant"),
    (Date, "date"),
    (Email, "email"),
    (Phone, "phone"),
    (Country, "country"),
    (Currency, "currency"),
    (DecimalText, "decimal"),
    (Uuid, "uuid"),
    (Money, "money"),
    (Quantity, "quantity"),
];

impl Format {
    /// Returns the format of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Format> {
        ALL.into_iter().find(|(_, known)| *known == name).map(|(format, _)| format)
    }

    /// Returns the name.
    #[must_use]
    pub fn name(self) -> &'static str {
        ALL.into_iter().find(|(format, _)| *format == self).map_or("", |(_, name)| name)
    }

    /// Returns the names of all formats.
    pub(super) fn names() -> Vec<&'static str> {
        ALL.iter().map(|(_, name)| *name).collect()
    }

    /// Returns whether the format is one of objects.
    #[must_use]
    pub fn is_of_objects(self) -> bool {
        matches!(self, Money | Quantity)
    }

    /// Returns the members of the objects of this format, each with its own format.
    pub(super) fn members(self) -> [(&'static str, Option<Format>); 2] {
        match self {
            Money => [("amount", Some(DecimalText)), ("currency", Some(Currency))],
            _ => [("unit", None), ("value", Some(DecimalText))],
        }
    }

    /// Returns whether a text is in this format.
    pub(crate) fn accepts_text(self, text: &str) -> bool {
        let value = Value::from(text);
        let same = |canonical: Result<String, _>| {
            canonical.is_ok_and(|canonical: String| canonical == text)
        };
        match self {
            DateTime => instant(&value, &InstantRule::Rfc3339).is_ok() && text.trim() == text,
            Instant => same(instant(&value, &InstantRule::Rfc3339).map_err(drop)),
            Date => same(date(&value, None).map_err(drop)),
            Email => same(email(&value).map(|email| email.address()).map_err(drop)),
            Phone => is_e164(text),
            Country => same(country(&value).map_err(drop)),
            Currency => same(currency(&value).map_err(drop)),
            DecimalText => same(
                Decimal::read(&value, DecimalRule::default()).map(Decimal::write).map_err(drop),
            ),
            Uuid => is_uuid(text),
            Money | Quantity => false,
        }
    }

    /// Returns whether an object is in this format.
    pub(crate) fn accepts_object(self, members: &Object) -> bool {
        let (Some(first), Some(second)) =
            (members.get(self.members()[0].0), members.get(self.members()[1].0))
        else {
            return false;
        };
        let canonical = match self {
            Money => money(first, second, &MoneyRule::default()),
            Quantity => quantity(second, first, &QuantityRule::default()),
            _ => return false,
        };
        canonical.is_ok_and(|canonical| {
            let known = canonical.as_object().into_iter().flatten();
            known.into_iter().all(|(name, value)| members.get(name) == Some(value))
        })
    }

    /// Returns whether every text of this format is one of `other`, too.
    pub(crate) fn is_within(self, other: Format) -> bool {
        self == other || (self == Instant && other == DateTime)
    }

    /// Returns the fewest and the most characters of a text of this format.
    pub(super) fn lengths(self) -> (u64, Option<u64>) {
        match self {
            DateTime => (20, None),
            Instant => (20, Some(30)),
            Date => (10, Some(10)),
            Email => (6, Some(254)),
            Phone => (8, Some(16)),
            Country => (2, Some(2)),
            Currency => (3, Some(3)),
            DecimalText => (1, Some(40)),
            Uuid => (36, Some(36)),
            Money | Quantity => (0, None),
        }
    }

    /// Returns texts of this format: the shortest and the longest where they are known, and others.
    pub(super) fn examples(self) -> &'static [&'static str] {
        match self {
            DateTime => {
                &["2025-03-30T10:00:00+02:00", "2025-03-30T10:00:00Z", "2025-03-30t10:00:00.50z"]
            }
            Instant => &[
                "2025-03-30T10:00:00Z",
                "2025-12-31T23:59:59.123456789Z",
                "1999-01-01T00:00:00.5Z",
            ],
            Date => &["2025-03-30", "1996-02-29", "9999-12-31"],
            Email => &["maria@example.com", "a@b.co", "Jo.Se+tag@mail.example.org"],
            Phone => &["+4930901820", "+442079460958", "+12065550100"],
            Country => &["DE", "GB", "MX", "US"],
            Currency => &["EUR", "JPY", "KWD", "USD"],
            DecimalText => &["12.30", "0", "-1.5", "0.00001", "12345678901234567890"],
            Uuid => {
                &["0195e7a4-6c00-7000-8000-000000000001", "ffffffff-ffff-4fff-bfff-ffffffffffff"]
            }
            Money | Quantity => &[],
        }
    }

    /// Returns objects of this format, as pairs of the values of their members.
    pub(super) fn pairs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Money => &[("12.30", "EUR"), ("1230", "JPY"), ("1.230", "KWD")],
            Quantity => &[("kg", "1.5"), ("each", "3"), ("lb", "-0.25")],
            _ => &[],
        }
    }
}

/// Returns whether a text has the shape of E.164. Numbering plans change, and a document that was valid must stay so.
fn is_e164(text: &str) -> bool {
    let digits = text.strip_prefix('+').unwrap_or_default();
    (7..=15).contains(&digits.len())
        && !digits.starts_with('0')
        && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_accepts_its_examples_within_its_lengths() {
        for (format, name) in ALL {
            assert_eq!(Format::of(name), Some(format));
            let (min, max) = format.lengths();
            for example in format.examples() {
                assert!(format.accepts_text(example), "{name}: {example}");
                let length = example.chars().count() as u64;
                assert!(length >= min && max.is_none_or(|max| length <= max), "{name}: {example}");
            }
            for (first, second) in format.pairs() {
                let names = format.members();
                let members = Object::from([
                    (names[0].0.to_owned(), Value::from(*first)),
                    (names[1].0.to_owned(), Value::from(*second)),
                ]);
                assert!(format.accepts_object(&members), "{name}: {first} {second}");
            }
        }
    }

    #[test]
    fn only_the_canonical_spelling_is_accepted() {
        for (format, text) in [
            (Instant, "2025-03-30T10:00:00+00:00"),
            (Instant, "2025-03-30T10:00:00.50Z"),
            (DateTime, " 2025-03-30T10:00:00Z"),
            (Date, "2025-3-30"),
            (Email, "maria@Example.com"),
            (Phone, "+49 30 901820"),
            (Phone, "+0930901820"),
            (Phone, "+1234567890123456"),
            (Phone, "4930901820"),
            (Country, "de"),
            (Currency, "eur"),
            (DecimalText, "+1"),
            (DecimalText, "01"),
            (DecimalText, "1e3"),
            (Uuid, "0195e7a46c0070008000000000000001"),
        ] {
            assert!(!format.accepts_text(text), "{format:?}: {text}");
        }
        let members = Object::from([
            ("amount".to_owned(), Value::from("12.3")),
            ("currency".to_owned(), Value::from("EUR")),
        ]);
        assert!(!Money.accepts_object(&members));
    }
}

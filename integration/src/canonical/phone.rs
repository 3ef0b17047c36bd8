//! Phone numbers: E.164, and only numbers that can exist by the numbering plan of their country.

use phonenumber::country::Id;
use phonenumber::{Mode, parse};

use super::{Refused, trimmed};
use crate::document::Value;

/// The most characters of a phone number with everything between the digits.
pub(crate) const LONGEST: usize = 40;

/// The fewest characters of a number in E.164 that is accepted.
const SHORTEST: usize = 8;

/// Returns a phone number in E.164. A national number is read as one of `region`, two letters of ISO 3166-1.
///
/// # Errors
/// `phone_not_valid`, `phone_extension` (an extension would be lost), `phone_region_missing` (a national number whose
/// region is not known).
pub fn phone(value: &Value, region: Option<&str>) -> Result<String, Refused> {
    let text = match value {
        Value::Number(number) if number.is_integer() => number.canonical(),
        other => trimmed(other, "phone_not_valid", "a phone number")?.to_owned(),
    };
    let wrong = |why: &str| {
        let shown: String = text.chars().take(60).collect();
        Refused::new("phone_not_valid", format!("'{shown}' is not a phone number: {why}"))
    };
    if text.chars().count() > LONGEST {
        return Err(wrong("it is too long"));
    }
    let lower = text.to_lowercase();
    if ["ext", "x", "#", ";"].iter().any(|mark| lower.contains(mark)) {
        let message = "a phone number with an extension has no E.164 form; map the extension apart";
        return Err(Refused::new("phone_extension", message));
    }
    let plain: String = text
        .chars()
        .map(|character| if character.is_whitespace() { ' ' } else { character })
        .collect();
    let known = |character: char| character.is_ascii_digit() || " +()-./".contains(character);
    if !plain.chars().all(known) || plain.matches('+').count() > usize::from(plain.starts_with('+'))
    {
        return Err(wrong("digits, spaces and + ( ) - . / are"));
    }
    let region: Option<Id> = match region {
        Some(region) => Some(region.parse().map_err(|_| wrong("its region is not one"))?),
        None => None,
    };
    if region.is_none() && !plain.starts_with('+') {
        let message = "a national phone number needs its country; name it in the rule as region";
        return Err(Refused::new("phone_region_missing", message));
    }
    let digits: String = plain.chars().filter(|c| c.is_ascii_digit() || *c == '+').collect();
    let number =
        parse(region, &digits).map_err(|_| wrong("it does not follow a numbering plan"))?;
    if !number.is_valid() {
        return Err(wrong("no such number exists by the numbering plan of its country"));
    }
    let written = number.format().mode(Mode::E164).to_string();
    // Fewer digits are an abbreviation, which no other network can dial.
    if written.len() < SHORTEST {
        return Err(wrong("it is too short for E.164"));
    }
    // A number that reads otherwise when it is read again has no one spelling.
    let again = parse(None, &written).ok().map(|again| again.format().mode(Mode::E164).to_string());
    if again.as_ref() != Some(&written) {
        return Err(wrong("it is ambiguous"));
    }
    Ok(written)
}

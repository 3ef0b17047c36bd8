//! Countries: the two letters of ISO 3166-1, from two letters, three letters or three digits. Names are not guessed.

use celes::Country;

use super::{Refused, trimmed};
use crate::document::Value;

/// Returns the two letters of a country.
///
/// # Errors
/// `country_not_valid`: also for names and for codes that are no country's (`UK`); map those by an `enum`.
pub fn country(value: &Value) -> Result<String, Refused> {
    let text = match value {
        // Some senders have the numeric code as a number.
        Value::Number(number) => {
            number.to_i64().map(|code| format!("{code:03}")).unwrap_or_default()
        }
        other => trimmed(other, "country_not_valid", "a country")?.to_owned(),
    };
    let upper = text.to_ascii_uppercase();
    let found = match upper.len() {
        2 => Country::from_alpha2(&upper).ok(),
        3 if upper.bytes().all(|byte| byte.is_ascii_digit()) => {
            upper.parse().ok().and_then(|code| Country::from_value(code).ok())
        }
        3 => Country::from_alpha3(&upper).ok(),
        _ => None,
    };
    found.map(|country| country.alpha2.to_owned()).ok_or_else(|| {
        let shown: String = text.chars().take(60).collect();
        let message =
            format!("'{shown}' is not a code of ISO 3166-1; map it to two letters (UK is GB)");
        Refused::new("country_not_valid", message)
    })
}

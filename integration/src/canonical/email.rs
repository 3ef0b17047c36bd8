//! E-mail addresses: compatible characters composed, the domain in lower case and ASCII, the local part
//! unchanged.

use unicode_normalization::UnicodeNormalization;

use super::{Refused, trimmed};
use crate::document::Value;

/// The most bytes of an address and of its local part (RFC 5321).
pub(crate) const LONGEST: usize = 254;
const LONGEST_LOCAL: usize = 64;

/// An address in its canonical spelling, in two parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email {
    /// The part before the `@`. Capitals count by the standard, so they stay.
    pub local: String,
    /// The domain in lower case, international names in their ASCII form.
    pub domain: String,
}

impl Email {
    /// Returns the whole address.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}@{}", self.local, self.domain)
    }
}

/// Returns the canonical spelling of an e-mail address.
///
/// # Errors
/// `email_not_valid`: also for quoted local parts, addresses with a name, and domains without a dot.
pub fn email(value: &Value) -> Result<Email, Refused> {
    let text = trimmed(value, "email_not_valid", "an e-mail address")?;
    let wrong = |why: &str| {
        let shown: String = text.chars().take(60).collect();
        Refused::new("email_not_valid", format!("'{shown}' is not an e-mail address: {why}"))
    };
    let composed: String = text.nfkc().collect();
    let Some((local, domain)) = composed.trim().rsplit_once('@') else {
        return Err(wrong("it has no @"));
    };
    let special = |character: char| {
        character.is_control()
            || character.is_whitespace()
            || matches!(
                character,
                '"' | '(' | ')' | ',' | ':' | ';' | '<' | '>' | '@' | '[' | '\\' | ']'
            )
    };
    if local.is_empty() || local.len() > LONGEST_LOCAL || local.contains(special) {
        return Err(wrong("the part before the @ is not one"));
    }
    if local.starts_with('.') || local.ends_with('.') || local.contains("..") {
        return Err(wrong("dots stand between other characters"));
    }
    let domain =
        idna::domain_to_ascii_strict(domain).map_err(|_| wrong("the domain is not one"))?;
    let top = domain.rsplit('.').next().unwrap_or_default();
    if !domain.contains('.')
        || domain.ends_with('.')
        || top.bytes().all(|byte| byte.is_ascii_digit())
    {
        return Err(wrong("the domain is not one"));
    }
    if local.len() + 1 + domain.len() > LONGEST {
        return Err(wrong("it is too long"));
    }
    Ok(Email { local: local.to_owned(), domain })
}

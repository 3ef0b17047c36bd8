//! Verification of a request: who sent it, and how sure that is.

use backstitch_saga::Time;
use base64::Engine as _;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Sha256, Sha512};
use subtle::{Choice, ConstantTimeEq};

use super::headers::Headers;
use super::scheme::{Algorithm, Encoding, Form, Piece, Scheme, SchemeDocument};
use super::secret::{BASE64, MOST_SECRETS, Secret};
use crate::canonical::Refused;
use crate::events::Trust;

/// The most signatures in one header.
pub(crate) const MOST_SIGNATURES: usize = 10;
/// The longest tolerance, in seconds.
pub(crate) const LONGEST_TOLERANCE: u32 = 86_400;

/// A scheme with its secrets.
#[derive(Clone, Debug)]
pub struct Verification {
    scheme: Scheme,
    secrets: Vec<Secret>,
    tolerance_s: u32,
}

/// Result of a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Trust that was achieved.
    pub trust: Trust,
    /// Index of the secret that was used, so that it is seen when an old one is no longer needed.
    pub secret: Option<usize>,
}

impl Verification {
    /// Checks a scheme and its secrets.
    ///
    /// # Errors
    /// A message for people, without secrets.
    pub fn new(
        document: &SchemeDocument,
        secrets: &[&str],
        tolerance_s: u32,
    ) -> Result<Verification, String> {
        let scheme = Scheme::new(document)?;
        if scheme.has_secrets() && !(1..=MOST_SECRETS).contains(&secrets.len()) {
            return Err(format!("the scheme has 1 to {MOST_SECRETS} secrets at a time"));
        }
        if !scheme.has_secrets() && !secrets.is_empty() {
            return Err("the scheme has no secrets".to_owned());
        }
        if !(1..=LONGEST_TOLERANCE).contains(&tolerance_s) {
            return Err(format!("the tolerance is 1 to {LONGEST_TOLERANCE} seconds"));
        }
        let secret = |text: &&str| match document {
            SchemeDocument::StandardWebhooks {} => Secret::standard_webhooks(text),
            _ => Secret::plain(text),
        };
        let secrets = secrets.iter().map(secret).collect::<Result<_, _>>()?;
        Ok(Verification { scheme, secrets, tolerance_s })
    }

    /// Returns whether a header alone shows who sends a request.
    pub(super) fn is_shown_by_a_header(&self) -> bool {
        matches!(self.scheme, Scheme::Bearer | Scheme::Basic { .. } | Scheme::MutualTls { .. })
    }

    /// Verifies a request.
    ///
    /// # Errors
    /// `signature_missing`, `signature_invalid`, `timestamp_out_of_tolerance`. The messages say nothing about secrets.
    pub fn verify(
        &self,
        headers: &Headers<'_>,
        body: &[u8],
        now: Time,
    ) -> Result<Verified, Refused> {
        match &self.scheme {
            Scheme::None => Ok(Verified { trust: Trust::Unverified, secret: None }),
            Scheme::Bearer => {
                let shown = authorization(headers, "bearer")?;
                self.secret_that(|secret| secret.is(shown.as_bytes()), Trust::Authenticated)
            }
            Scheme::Basic { user } => {
                let shown =
                    BASE64.decode(authorization(headers, "basic")?).map_err(|_| invalid())?;
                let colon = shown.iter().position(|byte| *byte == b':').ok_or_else(invalid)?;
                let (name, password) = shown.split_at(colon);
                let same_user = name.ct_eq(user.as_bytes());
                let password = password.get(1..).unwrap_or_default();
                self.secret_that(|secret| secret.is(password) & same_user, Trust::Authenticated)
            }
            Scheme::MutualTls { header, allowed } => certificate(headers, header, allowed),
            Scheme::Hmac {
                header,
                algorithm,
                encoding,
                form,
                signed,
                timestamp_header,
                id_header,
            } => {
                let shown = one(headers, header)?;
                let (in_header, signatures) = form.read(shown);
                let timestamp = match timestamp_header {
                    Some(name) => Some(one(headers, name)?),
                    None => in_header,
                };
                let id = match id_header {
                    Some(name) => Some(one(headers, name)?),
                    None => None,
                };
                let needs_timestamp = signed.contains(&Piece::Timestamp);
                if signatures.is_empty() || (needs_timestamp && timestamp.is_none()) {
                    return Err(invalid());
                }
                let signatures: Vec<Vec<u8>> =
                    signatures.iter().filter_map(|text| decode(*encoding, text)).collect();
                let is_signed = |secret: &Secret| {
                    let expected = sign(*algorithm, secret, signed, timestamp, id, body);
                    signatures
                        .iter()
                        .fold(Choice::from(0), |known, shown| known | expected.ct_eq(shown))
                };
                let verified = self.secret_that(is_signed, Trust::Signed)?;
                if needs_timestamp {
                    self.check_timestamp(timestamp.unwrap_or_default(), now)?;
                }
                Ok(verified)
            }
        }
    }

    /// Returns the secret for which `is` holds. All are tested, so that the time reveals nothing.
    fn secret_that(
        &self,
        is: impl Fn(&Secret) -> Choice,
        trust: Trust,
    ) -> Result<Verified, Refused> {
        let answers: Vec<bool> = self.secrets.iter().map(|secret| bool::from(is(secret))).collect();
        match answers.iter().position(|answer| *answer) {
            Some(index) => Ok(Verified { trust, secret: Some(index) }),
            None => Err(invalid()),
        }
    }

    fn check_timestamp(&self, text: &str, now: Time) -> Result<(), Refused> {
        let digits =
            text.len() <= 12 && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let at = if digits { text.parse::<i64>().ok() } else { None };
        let seconds = at.map(|at| now.0.div_euclid(1_000).saturating_sub(at).unsigned_abs());
        if seconds.is_some_and(|seconds| seconds <= u64::from(self.tolerance_s)) {
            return Ok(());
        }
        let message = format!(
            "the request is signed for another time than now, and {} s are tolerated; check the clock of the sender, or send it anew",
            self.tolerance_s
        );
        Err(Refused::new("timestamp_out_of_tolerance", message))
    }
}

/// Compares the certificate that a proxy names with those that are allowed.
fn certificate(
    headers: &Headers<'_>,
    header: &str,
    allowed: &[String],
) -> Result<Verified, Refused> {
    let shown = one(headers, header)?;
    let known = allowed
        .iter()
        .fold(Choice::from(0), |known, allowed| known | allowed.as_bytes().ct_eq(shown.as_bytes()));
    if bool::from(known) {
        Ok(Verified { trust: Trust::Authenticated, secret: None })
    } else {
        Err(invalid())
    }
}

fn invalid() -> Refused {
    Refused::new(
        "signature_invalid",
        "the request does not show the secret of the source; check the secret and that the body is unchanged",
    )
}

/// Returns a header that must be there.
fn one<'a>(headers: &Headers<'a>, name: &str) -> Result<&'a str, Refused> {
    match headers.once(name) {
        Ok(Some(value)) if !value.is_empty() => Ok(value),
        Ok(_) => Err(Refused::new("signature_missing", format!("the header {name} is missing"))),
        Err(_) => Err(invalid()),
    }
}

/// Returns what the header Authorization has behind the name of its scheme.
fn authorization<'a>(headers: &Headers<'a>, scheme: &str) -> Result<&'a str, Refused> {
    let value = one(headers, "authorization")?;
    match value.split_once(' ') {
        Some((name, rest)) if name.eq_ignore_ascii_case(scheme) => Ok(rest.trim()),
        _ => Err(invalid()),
    }
}

impl Form {
    /// Returns the timestamp, if it is in this header, and the signatures.
    fn read<'h>(&self, header: &'h str) -> (Option<&'h str>, Vec<&'h str>) {
        match self {
            Form::Plain(prefix) => {
                (None, header.strip_prefix(prefix.as_str()).into_iter().collect())
            }
            Form::List { version } => {
                let of_version = header.split(' ').filter_map(|part| {
                    let (name, signature) = part.split_once(',')?;
                    (name == *version).then_some(signature)
                });
                (None, of_version.take(MOST_SIGNATURES).collect())
            }
            Form::Fields { timestamp, signature } => {
                let fields: Vec<(&str, &str)> =
                    header.split(',').filter_map(|field| field.trim().split_once('=')).collect();
                let all = |name: &'static str| {
                    fields.iter().filter(move |(field, _)| *field == name).map(|(_, value)| *value)
                };
                // With two timestamps it is not clear which one was signed.
                let mut timestamps = all(timestamp);
                let first = timestamps.next();
                let only = if timestamps.next().is_none() { first } else { None };
                (only, all(signature).take(MOST_SIGNATURES).collect())
            }
        }
    }
}

/// Reads a signature.
fn decode(encoding: Encoding, text: &str) -> Option<Vec<u8>> {
    match encoding {
        Encoding::Base64 => BASE64.decode(text).ok(),
        Encoding::Hex => {
            if !text.len().is_multiple_of(2) || text.len() > 256 {
                return None;
            }
            let digits: Option<Vec<u8>> = text
                .chars()
                .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
                .collect();
            let pair = |pair: &[u8]| pair.iter().fold(0, |byte, digit| (byte << 4) | digit);
            Some(digits?.chunks(2).map(pair).collect())
        }
    }
}

fn sign(
    algorithm: Algorithm,
    secret: &Secret,
    signed: &[Piece],
    timestamp: Option<&str>,
    id: Option<&str>,
    body: &[u8],
) -> Vec<u8> {
    let parts = signed.iter().map(|piece| match piece {
        Piece::Text(text) => text.as_bytes(),
        Piece::Body => body,
        Piece::Timestamp => timestamp.unwrap_or_default().as_bytes(),
        Piece::Id => id.unwrap_or_default().as_bytes(),
    });
    match algorithm {
        Algorithm::Sha256 => mac::<Hmac<Sha256>>(secret, parts),
        Algorithm::Sha512 => mac::<Hmac<Sha512>>(secret, parts),
    }
}

/// Computes an HMAC. A key may have any length.
fn mac<'p, M: Mac + KeyInit>(secret: &Secret, parts: impl Iterator<Item = &'p [u8]>) -> Vec<u8> {
    let Ok(mut mac) = <M as KeyInit>::new_from_slice(secret.bytes()) else { return Vec::new() };
    parts.for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

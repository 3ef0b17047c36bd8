//! Secrets of sources: never printed, compared in constant time.

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// The most secrets of a source at a time: the one that is used, and the one before or after it.
pub const MOST_SECRETS: usize = 2;
/// The fewest and the most bytes of a secret.
const SHORTEST: usize = 8;
pub(crate) const LONGEST: usize = 1_024;

/// Base64 with or without padding, as senders write it.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A secret.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes a secret as it was agreed: its bytes are those of the text.
    ///
    /// # Errors
    /// A message for people, without the secret.
    pub fn plain(text: &str) -> Result<Secret, String> {
        Secret::of(text.as_bytes().to_vec())
    }

    /// Takes a secret of Standard Webhooks: `whsec_` and Base64.
    ///
    /// # Errors
    /// A message for people, without the secret.
    pub fn standard_webhooks(text: &str) -> Result<Secret, String> {
        let encoded = text.strip_prefix("whsec_").unwrap_or(text);
        let bytes = BASE64.decode(encoded);
        Secret::of(
            bytes.map_err(|_| "a secret of Standard Webhooks is 'whsec_' and Base64".to_owned())?,
        )
    }

    fn of(bytes: Vec<u8>) -> Result<Secret, String> {
        if (SHORTEST..=LONGEST).contains(&bytes.len()) {
            Ok(Secret(bytes))
        } else {
            Err(format!("a secret has {SHORTEST} to {LONGEST} bytes"))
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Compares with what a caller showed, in time that depends on the length of that alone.
    pub(super) fn is(&self, shown: &[u8]) -> Choice {
        Sha256::digest(&self.0).ct_eq(&Sha256::digest(shown))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

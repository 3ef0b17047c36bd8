//! Keys of the encryption, by id.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{self, HKDF_SHA256, Salt};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::CodecError;

/// Bytes of a key.
const KEY: usize = 32;
/// Characters of an id.
const ID: usize = 64;

/// A secret of 32 bytes with the id by which what it encrypted names it.
#[derive(Clone)]
pub struct EncryptionKey {
    pub(super) id: String,
    cipher: Arc<LessSafeKey>,
    nonces: hmac::Key,
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptionKey").field("id", &self.id).finish_non_exhaustive()
    }
}

struct Bytes;

impl hkdf::KeyType for Bytes {
    fn len(&self) -> usize {
        KEY
    }
}

impl EncryptionKey {
    /// Makes a key of its 32 secret bytes. The id is stored readable beside the encrypted text: letters, digits, `-`,
    /// `_` and `.`, 64 at most.
    ///
    /// # Errors
    /// `payload_key_invalid`.
    pub fn new(id: &str, secret: &[u8]) -> Result<EncryptionKey, CodecError> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if id.is_empty() || id.len() > ID || !id.chars().all(is_part) {
            return Err(invalid(format!(
                "'{id}' is no id of a key: letters, digits, '-', '_' and '.', {ID} at most"
            )));
        }
        if secret.len() != KEY {
            let length = secret.len();
            return Err(invalid(format!("key '{id}' has {length} bytes; it must have {KEY}")));
        }
        // One secret for each use, so that neither says anything about the other.
        let pseudo_random = Salt::new(HKDF_SHA256, b"backstitch payloads").extract(secret);
        let derive = |what: &'static [u8]| {
            let mut bytes = [0; KEY];
            let whole = [what];
            let derived = pseudo_random.expand(&whole, Bytes).and_then(|okm| okm.fill(&mut bytes));
            derived.map(|()| bytes).map_err(|_| invalid(format!("key '{id}' cannot be used")))
        };
        let cipher = UnboundKey::new(&AES_256_GCM, &derive(b"A256GCM")?)
            .map_err(|_| invalid(format!("key '{id}' cannot be used")))?;
        let nonces = hmac::Key::new(hmac::HMAC_SHA256, &derive(b"nonces")?);
        Ok(EncryptionKey { id: id.to_owned(), cipher: Arc::new(LessSafeKey::new(cipher)), nonces })
    }

    /// Returns the keys of a text: one a line, its id and its 32 bytes in base64, the newest first. Lines that begin
    /// with `#` are comments.
    ///
    /// # Errors
    /// `payload_key_invalid`, with the number of the line and nothing of the secret.
    pub fn read(text: &str) -> Result<Vec<EncryptionKey>, CodecError> {
        let mut keys: Vec<EncryptionKey> = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |why: &str| invalid(format!("line {}: {why}", at + 1));
            let mut words = line.split_whitespace();
            let (Some(id), Some(secret), None) = (words.next(), words.next(), words.next()) else {
                return Err(wrong("expected an id and a key in base64"));
            };
            let secret = STANDARD.decode(secret).map_err(|_| wrong("the key is not base64"))?;
            let key = EncryptionKey::new(id, &secret).map_err(|error| wrong(&error.message))?;
            if keys.iter().any(|known| known.id == key.id) {
                return Err(wrong(&format!("the id '{id}' stands there twice")));
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(invalid("there is no key".to_owned()));
        }
        Ok(keys)
    }

    fn aad(&self) -> Aad<Vec<u8>> {
        Aad::from(format!("backstitch.enc.1\nA256GCM\n{}", self.id).into_bytes())
    }

    /// Encrypts a text. The nonce follows from the key, the context and the text, so that the same becomes the same,
    /// and another text never meets the nonce of this one.
    pub(super) fn seal(&self, text: &str, context: &str) -> Result<String, CodecError> {
        let mut mac = hmac::Context::with_key(&self.nonces);
        mac.update(&(context.len() as u64).to_be_bytes());
        mac.update(context.as_bytes());
        mac.update(text.as_bytes());
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&mac.sign().as_ref()[..NONCE_LEN]);
        let mut sealed = text.as_bytes().to_vec();
        self.cipher
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), self.aad(), &mut sealed)
            .map_err(|_| CodecError::new("payload_not_encrypted", "the document is too large"))?;
        Ok(URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat()))
    }

    /// Decrypts what [`EncryptionKey::seal`] gave.
    pub(super) fn open(&self, sealed: &str) -> Result<String, CodecError> {
        let corrupt = || {
            let message = format!(
                "what key '{}' encrypted was changed since, or the key is another one",
                self.id
            );
            CodecError::new("payload_corrupt", message)
        };
        let mut bytes = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| corrupt())?;
        let nonce = bytes.first_chunk::<NONCE_LEN>().copied().ok_or_else(corrupt)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let plain = self.cipher.open_within(nonce, self.aad(), &mut bytes, NONCE_LEN..);
        String::from_utf8(plain.map_err(|_| corrupt())?.to_vec()).map_err(|_| corrupt())
    }
}

fn invalid(message: String) -> CodecError {
    CodecError::new("payload_key_invalid", message)
}

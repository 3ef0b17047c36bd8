//! Leaf of an event: a digest that commits to its envelope, and to its body without giving it away.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// Bytes of the salt of a body.
pub const SALT_BYTES: usize = 16;

/// Returns the leaf of an event: the hash of a leaf by RFC 6962 over the envelope's fields, in their order, and the
/// HMAC-SHA-256 of the body under its salt.
///
/// A field is written as a netstring, one that is absent as `-`, so that no two envelopes are written alike.
#[must_use]
pub fn leaf(fields: &[Option<&str>], body: Option<&str>, salt: &[u8; SALT_BYTES]) -> [u8; 32] {
    let mut leaf = Sha256::new_with_prefix([0]);
    for field in fields {
        match field {
            Some(text) => {
                leaf.update(text.len().to_string());
                leaf.update(":");
                leaf.update(text);
                leaf.update(",");
            }
            None => leaf.update("-"),
        }
    }
    leaf.update(commitment(body, salt));
    leaf.finalize().into()
}

fn commitment(body: Option<&str>, salt: &[u8; SALT_BYTES]) -> [u8; 32] {
    // A key of any length is taken.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(salt) else { return [0; 32] };
    if let Some(body) = body {
        mac.update(b"1");
        mac.update(body.as_bytes());
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_leaf_changes_with_every_field_the_body_and_the_salt() {
        let salt = [7; SALT_BYTES];
        let leaves = [
            leaf(&[Some("a"), Some("b")], Some("{}"), &salt),
            leaf(&[Some("ab"), Some("")], Some("{}"), &salt),
            leaf(&[Some("a"), None, Some("b")], Some("{}"), &salt),
            leaf(&[Some("a"), Some("b"), None], Some("{}"), &salt),
            leaf(&[Some("a"), Some("b")], Some("{ }"), &salt),
            leaf(&[Some("a"), Some("b")], None, &salt),
            leaf(&[Some("a"), Some("b")], Some(""), &salt),
            leaf(&[Some("a"), Some("b")], Some("{}"), &[8; SALT_BYTES]),
            leaf(&[Some("1:a,1:b,")], Some("{}"), &salt),
        ];
        assert_eq!(leaves.iter().collect::<BTreeSet<_>>().len(), leaves.len());
    }

    #[test]
    fn a_leaf_is_what_other_programs_compute() {
        // printf '\0' '3:abc,-' and the HMAC of '1{}' under sixteen zero bytes, by openssl.
        let found = leaf(&[Some("abc"), None], Some("{}"), &[0; SALT_BYTES]);
        let text: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, "d05984e6f47bb617f05d849b27472d37832ed87e28bf28171fc07eac10b0e68e");
    }
}

//! Encryption of documents with AES-256-GCM, value by value, by keys that the server never sees.

use std::collections::BTreeSet;
use std::path::Path;

use backstitch_saga::{ENVELOPE, Payload};

use super::walk::{Seal, open_all, seal_all};
use super::{Codec, CodecError, EncryptionKey};

/// Encrypts documents before they leave the process.
///
/// Objects and lists keep their shape, and each text, number and truth in them becomes an envelope
/// `{"$enc":{"v":1,"alg":"A256GCM","key":"2026-01","data":"…"}}`. So paths of a workflow lead to the same places as
/// before and the server hands envelopes from step to step; it cannot compare them or make keys of them. Name the
/// members that it must read with [`Encryption::readable`], or the few that it must not with [`Encryption::only`].
///
/// ```
/// use backstitch_sdk::{Codec, Encryption, EncryptionKey, Payload};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let key = EncryptionKey::new("2026-01", &[7; 32])?;
/// let encryption = Encryption::new(key).readable(["total"]);
/// let order = Payload::of(&serde_json::json!({ "customer": "Ann", "total": 250 }))?;
/// let sealed = encryption.encode(&order, "an example")?;
/// assert!(sealed.text().contains(r#""total":250"#) && !sealed.text().contains("Ann"));
/// assert_eq!(encryption.decode(&sealed)?, order);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Encryption {
    /// The first encrypts; all decrypt.
    keys: Vec<EncryptionKey>,
    which: Which,
}

#[derive(Clone, Debug)]
enum Which {
    AllBut(BTreeSet<String>),
    Only(BTreeSet<String>),
}

impl Encryption {
    /// Encrypts with `key`.
    #[must_use]
    pub fn new(key: EncryptionKey) -> Encryption {
        Encryption { keys: vec![key], which: Which::AllBut(BTreeSet::new()) }
    }

    /// Decrypts with `older`, too: what it encrypted before the key was changed.
    #[must_use]
    pub fn and(mut self, older: EncryptionKey) -> Encryption {
        self.keys.push(older);
        self
    }

    /// Returns the keys of a file, see [`EncryptionKey::read`]: the first encrypts, all decrypt.
    ///
    /// # Errors
    /// `payload_key_invalid`.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Encryption, CodecError> {
        let path = path.as_ref();
        let named = |why: String| {
            CodecError::new("payload_key_invalid", format!("{}: {why}", path.display()))
        };
        let text = std::fs::read_to_string(path).map_err(|error| named(error.to_string()))?;
        let keys = EncryptionKey::read(&text).map_err(|error| named(error.message))?;
        Ok(Encryption { keys, which: Which::AllBut(BTreeSet::new()) })
    }

    /// Leaves members with these names readable everywhere, with all that is in them: values that conditions compare,
    /// and from which keys of items, serial keys and facts are made.
    #[must_use]
    pub fn readable<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Encryption {
        self.which = Which::AllBut(names.into_iter().map(Into::into).collect());
        self
    }

    /// Encrypts only members with these names, everywhere, each as a whole.
    #[must_use]
    pub fn only<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Encryption {
        self.which = Which::Only(names.into_iter().map(Into::into).collect());
        self
    }

    fn encode_with(
        &self,
        key: &EncryptionKey,
        document: &Payload,
        context: &str,
    ) -> Result<Payload, CodecError> {
        let value = document.to().map_err(|error| not_json(&error))?;
        let seal = match &self.which {
            Which::AllBut(names) => Seal::Leaves { but: names },
            Which::Only(names) => Seal::Members { of: names },
        };
        let sealed = seal_all(value, key, &seal, context)?;
        Payload::of(&sealed).map_err(|error| not_json(&error))
    }
}

impl Codec for Encryption {
    fn encode(&self, document: &Payload, context: &str) -> Result<Payload, CodecError> {
        self.encode_with(&self.keys[0], document, context)
    }

    fn decode(&self, document: &Payload) -> Result<Payload, CodecError> {
        // Most documents of a client that reads others' runs, too, have none.
        let text = document.text();
        if !text.contains(ENVELOPE) && !text.contains("\\u") {
            return Ok(document.clone());
        }
        let value = document.to().map_err(|error| not_json(&error))?;
        let opened = open_all(value, &self.keys)?;
        Payload::of(&opened).map_err(|error| not_json(&error))
    }

    fn encoded_before(&self, document: &Payload, context: &str) -> Vec<Payload> {
        let older = self.keys.iter().skip(1);
        older.filter_map(|key| self.encode_with(key, document, context).ok()).collect()
    }
}

fn not_json(error: &serde_json::Error) -> CodecError {
    CodecError::new("payload_not_json", error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use backstitch_saga::is_envelope;

    fn key(id: &str, byte: u8) -> EncryptionKey {
        EncryptionKey::new(id, &[byte; 32]).unwrap()
    }

    fn payload(value: &Value) -> Payload {
        Payload::of(value).unwrap()
    }

    #[test]
    fn every_leaf_is_sealed_and_shapes_and_nulls_stay() {
        let encryption = Encryption::new(key("k", 1)).readable(["id"]);
        let document = json!({"id": {"n": 7}, "who": "Ann", "lines": [{"id": 1, "sku": "x"}], "none": null, "no": [], "yes": true});
        let sealed: Value = encryption.encode(&payload(&document), "c").unwrap().to().unwrap();
        assert_eq!(
            (&sealed["id"], &sealed["none"], &sealed["no"]),
            (&json!({"n": 7}), &Value::Null, &json!([]))
        );
        assert_eq!(sealed["lines"][0]["id"], 1);
        for leaf in [&sealed["who"], &sealed["lines"][0]["sku"], &sealed["yes"]] {
            assert!(
                is_envelope(leaf) && leaf["$enc"]["key"] == "k" && leaf["$enc"]["alg"] == "A256GCM"
            );
        }
        // The server may have put it anywhere.
        let moved = json!({"deep": [{"who": sealed["who"]}, sealed]});
        let opened: Value = encryption.decode(&payload(&moved)).unwrap().to().unwrap();
        assert_eq!(opened, json!({"deep": [{"who": "Ann"}, document]}));
    }

    #[test]
    fn a_named_member_is_sealed_as_a_whole_and_nothing_else() {
        let encryption = Encryption::new(key("k", 1)).only(["card"]);
        let document =
            json!({"card": {"pan": "4111", "until": [1, 2]}, "total": 5, "list": [{"card": null}]});
        let sealed: Value = encryption.encode(&payload(&document), "c").unwrap().to().unwrap();
        assert!(is_envelope(&sealed["card"]) && sealed["list"][0]["card"].is_null());
        assert_eq!(sealed["total"], 5);
        assert_eq!(encryption.decode(&payload(&sealed)).unwrap().to::<Value>().unwrap(), document);
    }

    #[test]
    fn the_same_in_the_same_context_becomes_the_same_and_otherwise_nothing_does() {
        let encryption = Encryption::new(key("k", 1));
        let seal =
            |text: &str, context| encryption.encode(&payload(&json!(text)), context).unwrap();
        assert_eq!(seal("Ann", "a"), seal("Ann", "a"));
        assert_ne!(seal("Ann", "a"), seal("Ann", "b"));
        let two: Value =
            encryption.encode(&payload(&json!(["Ann", "Ann"])), "a").unwrap().to().unwrap();
        assert_ne!(two[0], two[1], "equal values of a document do not show as equal");
    }

    #[test]
    fn after_a_rotation_old_documents_are_read_and_repeated_starts_recognized() {
        let old = Encryption::new(key("old", 1));
        let document = payload(&json!("Ann"));
        let sealed = old.encode(&document, "start").unwrap();
        let rotated = Encryption::new(key("new", 2)).and(key("old", 1));
        assert_eq!(rotated.decode(&sealed).unwrap(), document);
        assert!(rotated.encode(&document, "start").unwrap().text().contains("\"new\""));
        assert_eq!(rotated.encoded_before(&document, "start"), std::slice::from_ref(&sealed));
        let lost = Encryption::new(key("new", 2)).decode(&sealed).unwrap_err();
        assert_eq!(lost.code(), "payload_key_unknown");
        assert!(lost.to_string().contains("'old'"), "{lost}");
        let wrong = Encryption::new(key("old", 3)).decode(&sealed).unwrap_err();
        assert_eq!(wrong.code(), "payload_corrupt");
    }

    #[test]
    fn what_was_tampered_with_is_refused() {
        let encryption = Encryption::new(key("k", 1)).and(key("other", 1));
        let sealed: Value = encryption.encode(&payload(&json!("Ann")), "c").unwrap().to().unwrap();
        let data = sealed["$enc"]["data"].as_str().unwrap();
        let mut cut = sealed.clone();
        cut["$enc"]["data"] = json!(data[..10]);
        let mut swapped = sealed.clone();
        swapped["$enc"]["key"] = json!("other");
        let mut unknown = sealed.clone();
        unknown["$enc"]["v"] = json!(2);
        for (changed, code) in [
            (cut, "payload_corrupt"),
            (swapped, "payload_corrupt"),
            (unknown, "payload_form_unknown"),
        ] {
            let refused = encryption.decode(&payload(&changed)).unwrap_err();
            assert_eq!(refused.code(), code);
        }
    }

    #[test]
    fn an_envelope_is_opened_however_its_member_is_spelt() {
        let encryption = Encryption::new(key("k", 1));
        let sealed = encryption.encode(&payload(&json!("Ann")), "c").unwrap();
        let respelt = sealed.text().replace("$enc", "\\u0024\\u0065nc");
        let opened = encryption.decode(&Payload::trusted(respelt).unwrap()).unwrap();
        assert_eq!(opened, payload(&json!("Ann")));
    }

    #[test]
    fn what_is_encrypted_already_stays_and_what_only_looks_so_is_refused() {
        let encryption = Encryption::new(key("k", 1));
        let sealed = encryption.encode(&payload(&json!("Ann")), "c").unwrap();
        assert_eq!(encryption.encode(&sealed, "elsewhere").unwrap(), sealed);
        for fake in [json!({"$enc": "Ann"}), json!([{"$enc": {"v": 1, "data": "Ann"}}])] {
            let refused = encryption.encode(&payload(&fake), "c").unwrap_err();
            assert_eq!(refused.code(), "payload_member_reserved");
        }
    }

    #[test]
    fn keys_are_read_from_a_text_and_mistakes_named_without_the_secret() {
        let secret = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
        let text = format!("# since January\n2026-01 {secret}\n\n2025-07 {secret}\n");
        let ids: Vec<String> =
            EncryptionKey::read(&text).unwrap().into_iter().map(|key| key.id).collect();
        assert_eq!(ids, ["2026-01", "2025-07"]);
        for (text, why) in [
            (format!("a {secret}\na {secret}"), "line 2: the id 'a' stands there twice"),
            (format!("a b {secret}"), "line 1: expected an id and a key in base64"),
            ("a BwcH".to_owned(), "line 1: key 'a' has 3 bytes; it must have 32"),
            (format!("ä {secret}"), "line 1: 'ä' is no id of a key"),
            (String::new(), "there is no key"),
        ] {
            let refused = EncryptionKey::read(&text).unwrap_err().to_string();
            assert!(refused.contains(why) && !refused.contains(secret), "{refused}");
        }
        assert!(!format!("{:?}", key("k", 7)).contains('7'));
    }
}

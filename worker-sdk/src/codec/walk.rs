//! Walks through a document and converts values to envelopes and back.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use backstitch_saga::{ENVELOPE, is_envelope};
use serde_json::{Map, Value, json};

use super::{CodecError, EncryptionKey};

/// The form of envelopes that is written.
const FORM: u64 = 1;
const ALGORITHM: &str = "A256GCM";

/// The values to encrypt.
pub(super) enum Seal<'a> {
    /// Each text, number and truth, but for what is in members of these names.
    Leaves { but: &'a BTreeSet<String> },
    /// Members of these names, each as a whole.
    Members { of: &'a BTreeSet<String> },
}

/// Puts what `seal` says into envelopes. The place of a value counts, so that equal values do not show as equal.
pub(super) fn seal_all(
    value: Value,
    key: &EncryptionKey,
    seal: &Seal<'_>,
    context: &str,
) -> Result<Value, CodecError> {
    let mut sealing = Sealing { key, seal, place: format!("{context}\n") };
    sealing.value(value)
}

struct Sealing<'a> {
    key: &'a EncryptionKey,
    seal: &'a Seal<'a>,
    place: String,
}

impl Sealing<'_> {
    fn value(&mut self, value: Value) -> Result<Value, CodecError> {
        // An envelope that came from the server goes back as it is.
        if is_envelope(&value) {
            return well_formed(value);
        }
        match value {
            Value::Object(members) => {
                let mut sealed = Map::with_capacity(members.len());
                for (name, value) in members {
                    let length = self.place.len();
                    let _ = write!(self.place, "/{}:{name}", name.len());
                    let value = self.member(&name, value)?;
                    self.place.truncate(length);
                    sealed.insert(name, value);
                }
                Ok(Value::Object(sealed))
            }
            Value::Array(list) => {
                let mut sealed = Vec::with_capacity(list.len());
                for (index, value) in list.into_iter().enumerate() {
                    let length = self.place.len();
                    let _ = write!(self.place, "/{index}");
                    sealed.push(self.value(value)?);
                    self.place.truncate(length);
                }
                Ok(Value::Array(sealed))
            }
            Value::Null => Ok(Value::Null),
            leaf => match self.seal {
                Seal::Leaves { .. } => self.envelope(&leaf),
                Seal::Members { .. } => Ok(leaf),
            },
        }
    }

    fn member(&mut self, name: &str, value: Value) -> Result<Value, CodecError> {
        match self.seal {
            Seal::Leaves { but } if but.contains(name) => Ok(value),
            Seal::Members { of }
                if of.contains(name) && !value.is_null() && !is_envelope(&value) =>
            {
                self.envelope(&value)
            }
            Seal::Leaves { .. } | Seal::Members { .. } => self.value(value),
        }
    }

    fn envelope(&self, value: &Value) -> Result<Value, CodecError> {
        let data = self.key.seal(&value.to_string(), &self.place)?;
        let inner = json!({ "v": FORM, "alg": ALGORITHM, "key": self.key.id, "data": data });
        Ok(json!({ ENVELOPE: inner }))
    }
}

/// Refuses a malformed envelope: it would be sent unchanged, and could not be read when it comes back.
fn well_formed(value: Value) -> Result<Value, CodecError> {
    let inner = &value[ENVELOPE];
    let texts = ["alg", "key", "data"].iter().all(|name| inner[name].is_string());
    if texts && inner["v"].is_u64() && inner.as_object().is_some_and(|members| members.len() == 4) {
        return Ok(value);
    }
    let message = "an object whose only member is `$enc` stands for something encrypted; name the member otherwise";
    Err(CodecError::new("payload_member_reserved", message))
}

/// Opens all envelopes of a document.
pub(super) fn open_all(value: Value, keys: &[EncryptionKey]) -> Result<Value, CodecError> {
    if is_envelope(&value) {
        return open(&value[ENVELOPE], keys);
    }
    match value {
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| Ok((name, open_all(value, keys)?)))
            .collect::<Result<Map<_, _>, _>>()
            .map(Value::Object),
        Value::Array(list) => list
            .into_iter()
            .map(|value| open_all(value, keys))
            .collect::<Result<Vec<_>, _>>()
            .map(Value::Array),
        leaf => Ok(leaf),
    }
}

fn open(envelope: &Value, keys: &[EncryptionKey]) -> Result<Value, CodecError> {
    let text = |name: &str| envelope[name].as_str();
    let known = envelope["v"].as_u64() == Some(FORM) && text("alg") == Some(ALGORITHM);
    let (true, Some(id), Some(data)) = (known, text("key"), text("data")) else {
        let message = "an envelope of a form or an algorithm that this program does not know";
        return Err(CodecError::new("payload_form_unknown", message));
    };
    let Some(key) = keys.iter().find(|key| key.id == id) else {
        let message = format!(
            "there is no key '{id}' here; give this process the key that encrypted the document"
        );
        return Err(CodecError::new("payload_key_unknown", message));
    };
    let plain = key.open(data)?;
    serde_json::from_str(&plain)
        .map_err(|_| CodecError::new("payload_corrupt", "what was encrypted is not JSON"))
}

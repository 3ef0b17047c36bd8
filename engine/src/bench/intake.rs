//! Documents of sources for the benchmark: how they are signed, what a team would write by hand to take them in, and
//! the bare statements.

use std::time::Instant;

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use jsonschema::Validator;
use serde_json::{Value, json};
use sha2::Sha256;

use super::{Floor, FloorOptions};
use crate::Error;
use crate::store::bench::{floor, intake};

/// The secret that signs documents.
pub const SECRET: &str = "a-secret-of-the-benchmark-and-nobody";

/// Signs the bytes of a document, as GitHub does.
///
/// # Errors
/// Never: a secret may have any length.
pub fn signature(body: &[u8]) -> Result<String, Error> {
    let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes());
    let mut mac = mac.map_err(|error| Error::Bug(error.to_string()))?;
    mac.update(body);
    Ok(format!("sha256={}", HEXLOWER.encode(&mac.finalize().into_bytes())))
}

/// Returns the schema of documents as they come.
#[must_use]
pub fn vendor_schema() -> Value {
    let text = json!({"type": "string"});
    json!({
        "type": "object", "required": ["id", "full_name", "mail", "st"],
        "properties": {"id": text, "full_name": text, "mail": text, "st": {"enum": ["A", "I"]}, "note": text, "city": text},
    })
}

/// Returns the schema of what they are mapped to.
#[must_use]
pub fn canonical_schema() -> Value {
    let text = json!({"type": "string"});
    json!({
        "type": "object", "required": ["id", "name", "status"],
        "properties": {"id": text, "name": text, "email": text, "status": {"enum": ["active", "inactive"]}, "note": text, "city": text},
    })
}

/// Returns a document of about 1 kB.
#[must_use]
pub fn document(id: &str) -> Value {
    json!({
        "id": id, "full_name": "Ann Example", "mail": format!("{id}@shop.internal"), "st": "A", "city": "Hull",
        "note": "x".repeat(860),
    })
}

/// The mistake in a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Its signature is not right.
    Signature,
    /// It does not follow the schema.
    Schema,
}

/// A hand-written intake of documents, for comparison: a signature, a schema, a mapping, and two rows in a transaction
/// for each request, over sixteen connections.
#[derive(Debug)]
pub struct ByHand {
    validator: Validator,
    tables: intake::ByHandTables,
}

impl ByHand {
    /// Makes its tables.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn open(url: &str) -> Result<ByHand, Error> {
        let validator = jsonschema::validator_for(&vendor_schema());
        Ok(ByHand {
            validator: validator.map_err(|error| Error::Bug(error.to_string()))?,
            tables: intake::ByHandTables::make(url).await?,
        })
    }

    /// Takes in a document. Returns whether it was new.
    ///
    /// # Errors
    /// [`Error::Store`]; what was wrong with it, within.
    pub async fn take(&self, shown: &str, body: &[u8]) -> Result<Result<bool, Refused>, Error> {
        // The caller is no attacker: the time of the comparison does not matter here.
        if signature(body)? != shown {
            return Ok(Err(Refused::Signature));
        }
        let Ok(document) = serde_json::from_slice::<Value>(body) else {
            return Ok(Err(Refused::Schema));
        };
        if !self.validator.is_valid(&document) {
            return Ok(Err(Refused::Schema));
        }
        let text = |name: &str| document[name].as_str().unwrap_or_default();
        let status = if text("st") == "A" { "active" } else { "inactive" };
        let canonical = json!({
            "id": text("id"), "name": text("full_name"), "email": text("mail"), "status": status, "note": text("note"),
            "city": text("city"),
        });
        let canonical = canonical.to_string();
        let row = (text("id"), text("mail"), canonical.as_str());
        Ok(Ok(self.tables.insert(row, body).await?))
    }

    /// Returns the number of documents that were taken in.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn count(&self) -> Result<i64, Error> {
        self.tables.count().await
    }
}

/// Writes what a document becomes again and again into the migrated scratch database `url`: the rows of the engine's
/// own statement, in full batches.
///
/// # Errors
/// [`Error::Store`].
pub async fn intake_floor(url: &str, options: FloorOptions) -> Result<Floor, Error> {
    let began = Instant::now();
    let from = began + options.time / 10;
    let until = from + options.time;
    let body = document("floor").to_string();
    let writers = (0..options.connections.max(1)).map(|_| {
        let (url, body) = (url.to_owned(), body.clone());
        tokio::spawn(async move { intake::write(&url, &body, options.batch, (from, until)).await })
    });
    let mut total = floor::Written::default();
    for writer in writers.collect::<Vec<_>>() {
        total.add(writer.await.map_err(|error| Error::Bug(error.to_string()))??);
    }
    Ok(total.rate(options.time))
}

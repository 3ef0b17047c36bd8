//! The digest of a run's input that is stored with its business key: it shows if a repeated start has the same input.

use backstitch_saga::{Payload, RunId};
use sha2::{Digest, Sha256};
use sqlx::postgres::PgConnection;

use crate::Error;
use crate::store::codec::decode;
use crate::store::journal;

/// The canonical form that digests are made of. Digests of the first form, in which strings and numbers are as they
/// were written, are stored without a number.
const FORM: u8 = 2;

/// The digest of an input, with the number of its form in front.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct InputDigest(Vec<u8>);

impl InputDigest {
    pub(crate) fn of(input: &Payload) -> InputDigest {
        let mut bytes = vec![FORM];
        bytes.extend(Sha256::digest(input.canonical()));
        InputDigest(bytes)
    }

    /// Returns the stored form of the digest.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns whether the digest `kept` is that of `input`, whose own digest this is; `None` if only the documents
    /// can tell, because it is of an earlier form.
    fn agrees(&self, kept: &[u8], input: &Payload) -> Option<bool> {
        if kept.len() == self.0.len() && kept.first() == self.0.first() {
            return Some(kept == self.0);
        }
        (*kept == *Sha256::digest(input.without_layout())).then_some(true)
    }
}

/// Returns whether `run`, with whose key the digest `kept` is stored, was started with `input`.
pub(crate) async fn began_with(
    connection: &mut PgConnection,
    run: RunId,
    kept: &[u8],
    digest: &InputDigest,
    input: &Payload,
) -> Result<bool, Error> {
    if let Some(same) = digest.agrees(kept, input) {
        return Ok(same);
    }
    let first = journal::page(connection, run, 1, 1, 1).await?;
    let Some(first) = first.first() else { return Ok(false) };
    let record = decode(run, first).map_err(Error::Damaged)?;
    let Some(begun) = record.begun() else { return Ok(false) };
    Ok(record.payloads.get(begun.input.0 as usize).is_some_and(|first| first.is_same_as(input)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Payload {
        Payload::trusted(text.to_owned()).unwrap()
    }

    #[test]
    fn a_digest_is_of_the_value_and_knows_those_of_the_first_form() {
        let (plain, escaped) = (document(r#"{"n":"café"}"#), document(r#"{"n":"caf\u00e9"}"#));
        let digest = InputDigest::of(&escaped);
        assert_eq!(digest.agrees(InputDigest::of(&plain).bytes(), &escaped), Some(true));
        assert_eq!(digest.agrees(InputDigest::of(&document("1")).bytes(), &escaped), Some(false));
        let first_form = Sha256::digest(escaped.text());
        assert_eq!(digest.agrees(&first_form, &escaped), Some(true));
        assert_eq!(InputDigest::of(&plain).agrees(&first_form, &plain), None);
    }
}

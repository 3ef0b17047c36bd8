//! Processes the rows of files, a piece at a time, in turn between namespaces.
//!
//! The id of a row's document is derived from the import and the number of the row: after the death of a node, the row
//! is found again by it and is counted once, with its piece.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use backstitch_integration::ingress::{Form, Sender, with_header};
use backstitch_saga::Span;
use futures::future::join_all;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::arrival::{Arrival, Taken};
use super::doors::OpenSource;
use super::files::rows_of;
use super::ready::Read;
use super::take::Way;
use super::unknown_source;
use crate::background::millis;
use crate::crash::commit;
use crate::log::trust_of;
use crate::node::Node;
use crate::store::imports::{self as table, ImportRow, Piece, Tally};
use crate::store::intake::verdicts;
use crate::{Engine, Error};

/// Number of namespaces whose files a node works on concurrently.
const AT_ONCE: i64 = 4;
/// Time for which a node has an import to itself.
const TAKEN_FOR: Duration = Duration::from_secs(60);
/// Delay before the next try of an import whose rows could not be processed: because too much was waiting, or for
/// another reason.
const AGAIN: (Span, Span) = (Span::secs(1), Span::secs(10));
/// Time without new data after which a file is forgotten.
const SILENT_FOR: Duration = Duration::from_secs(600);

/// Processes rows of files until none is due. Returns their number.
pub(crate) async fn import(node: &Arc<Node>) -> Result<usize, Error> {
    let engine = Engine::for_background(node);
    let mut connection = node.database.keepers.acquire().await?;
    let silent = Span::from(SILENT_FOR).0;
    let before = backstitch_saga::Time(node.clock.now().0.saturating_sub_unsigned(silent));
    commit!("import_abandon", table::remove_abandoned(&mut connection, before).await)?;
    drop(connection);
    let mut looked = 0;
    while !node.is_closing() {
        let now = node.clock.now();
        let until = now.after(TAKEN_FOR.into());
        let mut connection = node.database.keepers.acquire().await?;
        let whose = (node.id, millis(node.options.tuning.dead_after));
        let taken = table::take(&mut connection, whose, (now, until), AT_ONCE).await;
        let taken = commit!("import_take", taken)?;
        drop(connection);
        if taken.is_empty() {
            break;
        }
        let works = taken.iter().map(async |row| {
            let done = engine.take_piece(row).await;
            let done = match done {
                Ok(rows) => return Ok(rows),
                Err(error) => error,
            };
            put_off(node, row, &done).await.map(|()| 0)
        });
        for done in join_all(works).await {
            looked += done?;
        }
    }
    Ok(looked)
}

/// Records the reason for which the rows of an import could not be processed, and the time of the
/// next try.
async fn put_off(node: &Node, row: &ImportRow, error: &Error) -> Result<(), Error> {
    tracing::warn!(import = %row.id, error = error.for_log(), "rows of a file are taken in later");
    let (soon, later) = AGAIN;
    let (why, again) = match error {
        Error::Busy => ("too much waits at present".to_owned(), soon),
        Error::Store(_) => ("the database failed".to_owned(), soon),
        other => (other.to_string().chars().take(1_000).collect(), later),
    };
    let mut connection = node.database.keepers.acquire().await?;
    let due_at = node.clock.now().after(again);
    Ok(commit!("import_count", table::put_off(&mut connection, row.id, &why, due_at).await)?)
}

impl Engine {
    /// Processes the rows of the next piece of an import. Returns their number.
    async fn take_piece(&self, row: &ImportRow) -> Result<usize, Error> {
        let node = self.node();
        let found = self.open_source(&row.namespace, &row.source).await?;
        let open = found.ok_or_else(|| unknown_source(&row.source))?;
        if !open.is_enabled() {
            let message = format!("the source '{}' takes nothing at present", row.source);
            return Err(Error::Conflict { code: "source_disabled", message });
        }
        let mut connection = node.database.reader(&row.namespace).await?;
        let piece = table::next(&mut connection, row.id).await?;
        drop(connection);
        // It was cancelled in between.
        let Some(Piece { number, first_row, body }) = piece else { return Ok(0) };
        let mut tally = Tally::default();
        let count = self.take_rows(&open, row, (first_row, body), &mut tally).await?;
        let now = node.clock.now();
        let pause = open.rate().map_or(0, |rate| count as u64 * 1_000 / u64::from(rate.max(1)));
        let mut connection = node.database.actor(&row.namespace).await?;
        let times = (now, now.after(Span::millis(pause)));
        let counted = table::count(&mut connection, (row.id, number), &tally, times).await;
        commit!("import_count", counted)?;
        Ok(count)
    }

    async fn take_rows(
        &self,
        open: &Arc<OpenSource>,
        row: &ImportRow,
        (first_row, body): (i64, Vec<u8>),
        tally: &mut Tally,
    ) -> Result<usize, Error> {
        let sender =
            Sender::of_before(trust_of(row.trust).min(open.ceiling()), Form::of(&row.form));
        let arrival = Arc::new(arrival_of(row, body));
        let rows = rows_of(&arrival.body);
        let count = rows.len();
        let ids: Vec<(i64, Uuid)> =
            (first_row..).take(count).map(|number| (number, id_of_row(row.id, number))).collect();
        let wanted: Vec<Uuid> = ids.iter().map(|(_, id)| *id).collect();
        let mut connection = self.node().database.reader(&row.namespace).await?;
        let known = verdicts(&mut connection, &wanted).await?;
        drop(connection);
        // Those that a node took in which died before it counted them.
        let mut known: HashMap<Uuid, _> =
            known.into_iter().map(|(id, verdict, code, why)| (id, (verdict, code, why))).collect();
        let mut wanted = Vec::new();
        for ((number, id), bytes) in ids.into_iter().zip(rows) {
            match (known.remove(&id), bytes) {
                (Some((verdict, code, why)), _) if verdict == "refused" => {
                    let (code, why) = (code.unwrap_or_default(), why.unwrap_or_default());
                    tally.refuse(number, Some(id), &code, &why);
                }
                (Some(_), _) => tally.accepted += 1,
                (None, Some(_)) => wanted.push((number, id)),
                (None, None) => {
                    let message = format!(
                        "the row has more bytes than the {} that are allowed",
                        open.max_bytes()
                    );
                    tally.refuse(number, None, "payload_too_large", &message);
                }
            }
        }
        let header = row.header.clone();
        let places: Vec<usize> = wanted
            .iter()
            .filter_map(|(number, _)| usize::try_from(number - first_row).ok())
            .collect();
        let read = self
            .on_documents(open, &arrival, move |open, arrival| {
                let rows = rows_of(&arrival.body);
                let bytes =
                    places.into_iter().filter_map(|place| rows.get(place).copied().flatten());
                let one = |bytes: &[u8]| {
                    let raw = match &header {
                        Some(header) => with_header(header, bytes),
                        None => bytes.to_vec(),
                    };
                    let found = open.rules().read_record(&raw, &sender);
                    Read { raw, found }
                };
                bytes.map(one).collect::<Vec<_>>()
            })
            .await?;
        let ids = wanted.iter().map(|(_, id)| *id).collect();
        let taken = self.take_each(open, arrival, sender, read, (Way::File, ids)).await?;
        for ((number, _), taken) in wanted.into_iter().zip(taken) {
            match taken? {
                Taken::Accepted { receipt, .. } if receipt.duplicate => tally.duplicates += 1,
                Taken::Accepted { .. } => tally.accepted += 1,
                Taken::Refused(refused) => {
                    tally.refuse(number, refused.intake_id, refused.code, &refused.message);
                }
            }
        }
        Ok(count)
    }
}

/// Returns the request of a file, with some of its rows.
fn arrival_of(row: &ImportRow, body: Vec<u8>) -> Arrival {
    let headers: HashMap<String, String> = serde_json::from_str(&row.headers).unwrap_or_default();
    Arrival {
        headers: headers.into_iter().map(|(name, text)| (name, text.into_bytes())).collect(),
        body,
        at: row.received_at,
        peer: row.peer.clone(),
        request_id: row.request_id.clone(),
    }
}

/// Returns the id of the document of a row: a UUIDv7 of when the file began to come.
fn id_of_row(import: Uuid, number: i64) -> Uuid {
    let mut digest = Sha256::new();
    digest.update(import.as_bytes());
    digest.update(number.to_be_bytes());
    let digest: [u8; 32] = digest.finalize().into();
    let mut bytes = *import.as_bytes();
    for (byte, chance) in bytes.iter_mut().skip(6).zip(digest) {
        *byte = chance;
    }
    let number = u128::from_be_bytes(bytes);
    Uuid::from_u128(number & !(0xf << 76) & !(0x3 << 62) | (0x7 << 76) | (0x2 << 62))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_of_a_row_has_an_id_of_the_week_of_its_file() {
        let import = Uuid::now_v7();
        let ids: Vec<Uuid> = [1, 2, i64::MAX].map(|number| id_of_row(import, number)).into();
        assert_eq!(ids[0], id_of_row(import, 1));
        assert!(ids[0] != ids[1] && ids[1] != ids[2]);
        for id in ids {
            assert_eq!(
                (id.get_version_num(), id.as_bytes()[..6].to_vec()),
                (7, import.as_bytes()[..6].to_vec())
            );
            assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
        }
    }
}

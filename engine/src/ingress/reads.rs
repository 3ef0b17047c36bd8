//! Views of documents that arrived, and of their results.

use backstitch_saga::protocol::{
    EventTrust, IntakeDoor, IntakeMapping, IntakeVerdict, IntakeView, MappingState, NewReprocess,
    Page,
};
use backstitch_saga::{Payload, Timestamp};
use data_encoding::HEXLOWER;
use uuid::Uuid;

use super::trust_view;
use crate::cursor::Cursor;
use crate::log::trust_of;
use crate::page::page;
use crate::store::intake::{self as table, IntakeFilter, IntakeRow};
use crate::store::listed;
use crate::{Engine, Error};

/// The kind of the cursor of the list.
const CURSOR: char = 'w';

/// Filter of documents.
#[derive(Clone, Debug, Default)]
pub struct IntakeQuery {
    /// Only those of this source.
    pub source: Option<String>,
    /// Only those with this verdict.
    pub verdict: Option<IntakeVerdict>,
    /// Only those that were refused with this code.
    pub code: Option<String>,
    /// Only those that were mapped, or could not be.
    pub mapping: Option<MappingState>,
    /// Only those that follow this contract, such as `crm.contact@3`.
    pub contract: Option<String>,
}

impl IntakeQuery {
    /// Returns the same for the table.
    fn filter(&self) -> IntakeFilter {
        IntakeFilter {
            source: self.source.clone(),
            verdict: self.verdict.map(|verdict| match verdict {
                IntakeVerdict::Accepted => "accepted",
                IntakeVerdict::Refused => "refused",
            }),
            code: self.code.clone(),
            mapping: self.mapping.map(|mapping| match mapping {
                MappingState::Mapped => "mapped",
                MappingState::Failed => "failed",
                MappingState::Overtaken => "overtaken",
            }),
            contract: self.contract.clone(),
        }
    }
}

/// Returns the filter of the documents that are to be processed again.
pub(super) fn filter_of(asked: &NewReprocess) -> IntakeFilter {
    let NewReprocess { source, verdict, code, mapping, contract, .. } = asked.clone();
    IntakeQuery { source, verdict, code, mapping, contract }.filter()
}

fn unknown_intake(id: Uuid) -> Error {
    Error::NotFound {
        code: "unknown_intake",
        message: format!("there is no document {id} in this namespace"),
    }
}

impl Engine {
    /// Lists documents that came in, the newest first.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn intakes(
        &self,
        namespace: &str,
        query: &IntakeQuery,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<IntakeView>, Error> {
        let place = |text: &str| text.parse::<Uuid>().ok();
        let before = after.map(|text| Cursor::place(CURSOR, text, place)).transpose()?;
        let limit = limit.clamp(1, 1_000) as usize;
        let beyond = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let filter = query.filter();
        let _turn = self.node().database.page_turn(namespace).await?;
        let mut connection = self.node().database.lister(namespace).await?;
        let found = table::list(&mut connection, namespace, &filter, before, beyond).await;
        let views = listed(found)?.into_iter().map(view).collect();
        Ok(page(views, limit, |last: &IntakeView| Cursor::of(CURSOR, &last.id.to_string())))
    }

    /// Shows a document that came in.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn intake(&self, namespace: &str, id: Uuid) -> Result<IntakeView, Error> {
        self.intake_row(namespace, id).await.map(view)
    }

    pub(super) async fn intake_row(&self, namespace: &str, id: Uuid) -> Result<IntakeRow, Error> {
        let mut connection = self.node().database.reader(namespace).await?;
        let found = table::find(&mut connection, namespace, id).await?;
        found.ok_or_else(|| unknown_intake(id))
    }

    /// Reads the bytes of a document as they came, with its content type.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn intake_raw(&self, namespace: &str, id: Uuid) -> Result<(Vec<u8>, String), Error> {
        let row = self.intake_row(namespace, id).await?;
        let raw = self.raw_of(namespace, id).await?;
        Ok((raw, row.content_type))
    }

    pub(super) async fn raw_of(&self, namespace: &str, id: Uuid) -> Result<Vec<u8>, Error> {
        let _turn = self.node().database.page_turn(namespace).await?;
        let mut connection = self.node().database.reader(namespace).await?;
        let found = table::raw(&mut connection, id).await?;
        found.ok_or_else(|| unknown_intake(id))
    }
}

pub(super) fn view(row: IntakeRow) -> IntakeView {
    let trust: EventTrust = trust_view(trust_of(row.trust));
    let errors = row.errors.and_then(|text| serde_json::from_str(&text).ok());
    let document = |text: Option<String>| text.and_then(|text| Payload::trusted(text).ok());
    let mapping = row.mapping.map(|state| IntakeMapping {
        state: match state.as_str() {
            "mapped" => MappingState::Mapped,
            "overtaken" => MappingState::Overtaken,
            _ => MappingState::Failed,
        },
        to: row.mapped_to.unwrap_or_default(),
        revision: row.mapped_revision.map(i32::unsigned_abs),
        event_id: row.mapped_event,
        events: row.mappings.unsigned_abs(),
        changes: document(row.changes),
        unmapped: document(row.unmapped),
        failures: document(row.failures),
    });
    let headers = row.headers.and_then(|text| serde_json::from_str(&text).ok());
    IntakeView {
        id: row.id,
        source: row.source,
        source_version: row.source_version.unsigned_abs(),
        verdict: match row.verdict.as_str() {
            "accepted" => IntakeVerdict::Accepted,
            _ => IntakeVerdict::Refused,
        },
        code: row.code,
        message: row.message,
        errors: errors.unwrap_or_default(),
        received_at: Timestamp(row.received_at),
        processed_at: row.processed_at.map(Timestamp),
        door: match row.door.as_str() {
            "batch" => IntakeDoor::Batch,
            "file" => IntakeDoor::File,
            _ => IntakeDoor::Request,
        },
        trust,
        contract: row.contract,
        event_id: row.event,
        digest: HEXLOWER.encode(&row.digest),
        bytes: u64::from(row.bytes.unsigned_abs()),
        content_type: row.content_type,
        peer: row.peer,
        request_id: row.request_id,
        mapping,
        headers: headers.unwrap_or_default(),
    }
}

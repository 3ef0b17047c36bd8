//! Answers questions about contracts.

use backstitch_saga::protocol::{
    ContractLine, ContractReaderView, ContractVersionView, ContractView, Page,
};
use backstitch_saga::{Payload, Timestamp};

use super::{is_name, kind_of, mode_of, number, state_of, unknown_contract, unknown_version};
use crate::cursor::Cursor;
use crate::node::Node;
use crate::store::contracts::{self as table, ReaderRow, SubjectRow, VersionRow};
use crate::store::listed;
use crate::{Engine, Error};

/// Kind of cursors in the list of contracts.
const CURSOR: char = 'c';

impl Engine {
    /// Lists contracts by subject.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn contracts(
        &self,
        namespace: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<ContractLine>, Error> {
        let read = |place: &str| Some(place.to_owned());
        let after = after.map(|text| Cursor::place(CURSOR, text, read)).transpose()?;
        let limit = limit.clamp(1, 1_000) as usize;
        let mut connection = self.node().database.lister(namespace).await?;
        let rows = table::list(&mut connection, namespace, after.as_deref(), limit as i64 + 1);
        let mut rows = listed(rows.await)?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|(row, _)| Cursor::of(CURSOR, &row.subject));
        let items: Result<_, Error> =
            rows.into_iter().map(|(row, newest)| line(row, newest)).collect();
        Ok(Page { items: items?, next })
    }

    /// Shows a subject with its versions and readers.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn contract(&self, namespace: &str, subject: &str) -> Result<ContractView, Error> {
        let row = found(self.node(), namespace, subject).await?;
        let mut connection = self.node().database.reader(namespace).await?;
        let versions = table::versions(&mut connection, namespace, subject).await?;
        let readers = table::readers(&mut connection, namespace, subject).await?;
        let versions: Result<_, Error> =
            versions.into_iter().map(|version| version_view(subject, version)).collect();
        Ok(ContractView {
            kind: kind_of(subject),
            mode: mode_of(&row.mode)?,
            versions: versions?,
            readers: readers.iter().map(reader_view).collect(),
            changed_at: Timestamp(row.changed_at),
            changed_by: row.changed_by,
            subject: row.subject,
        })
    }

    /// Shows a version of a contract with its schema.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn contract_version(
        &self,
        namespace: &str,
        subject: &str,
        version: u32,
    ) -> Result<ContractVersionView, Error> {
        found(self.node(), namespace, subject).await?;
        let stored = i32::try_from(version).unwrap_or(0);
        let mut connection = self.node().database.reader(namespace).await?;
        let row = table::version(&mut connection, namespace, subject, stored).await?;
        let row = row.ok_or_else(|| unknown_version(subject, version))?;
        version_view(subject, row)
    }
}

/// Finds a subject.
pub(super) async fn found(
    node: &Node,
    namespace: &str,
    subject: &str,
) -> Result<SubjectRow, Error> {
    if !is_name(subject) {
        return Err(unknown_contract(subject));
    }
    let mut connection = node.database.reader(namespace).await?;
    let row = table::find(&mut connection, namespace, subject).await?;
    row.ok_or_else(|| unknown_contract(subject))
}

fn line(row: SubjectRow, newest: i32) -> Result<ContractLine, Error> {
    Ok(ContractLine {
        kind: kind_of(&row.subject),
        mode: mode_of(&row.mode)?,
        newest: number(newest),
        changed_at: Timestamp(row.changed_at),
        changed_by: row.changed_by,
        subject: row.subject,
    })
}

fn version_view(subject: &str, row: VersionRow) -> Result<ContractVersionView, Error> {
    let payload = |text: String| {
        Payload::trusted(text).map_err(|_| Error::Conflict {
            code: "contract_damaged",
            message: format!(
                "the registered version {} of '{subject}' cannot be read; repair its row",
                row.version
            ),
        })
    };
    let schema = if row.schema.is_empty() { None } else { Some(payload(row.schema)?) };
    let breaks = row.breaks.map(|text| serde_json::from_str(&text)).transpose();
    Ok(ContractVersionView {
        subject: subject.to_owned(),
        version: number(row.version),
        state: state_of(&row.state)?,
        digest: row.digest,
        registered_at: Timestamp(row.registered_at),
        registered_by: row.registered_by,
        schema,
        breaks: breaks.ok().flatten().unwrap_or_default(),
        up: row.up.map(payload).transpose()?,
        down: row.down.map(payload).transpose()?,
    })
}

/// Returns a reader for a view.
pub(super) fn reader_view(row: &ReaderRow) -> ContractReaderView {
    ContractReaderView {
        name: row.name.clone(),
        version: number(row.version),
        pinned_at: Timestamp(row.pinned_at),
        pinned_by: row.pinned_by.clone(),
    }
}

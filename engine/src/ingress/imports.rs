//! Views of imports, and their cancellation by people.

use backstitch_saga::protocol::{ImportForm, ImportState, ImportView, Page, RefusedRow};
use backstitch_saga::{By, Timestamp};
use data_encoding::HEXLOWER;
use sqlx::Connection;
use uuid::Uuid;

use crate::acts::must_have_reason;
use crate::crash::commit;
use crate::cursor::Cursor;
use crate::page::page;
use crate::store::acts::{self, Act, Thing};
use crate::store::imports::{self as table, ImportRow};
use crate::store::listed;
use crate::{Engine, Error};

/// The kinds of the cursors of the lists: of imports, and of rows.
const CURSORS: (char, char) = ('y', 'z');

fn unknown_import(id: Uuid) -> Error {
    Error::NotFound {
        code: "unknown_import",
        message: format!("there is no import {id} in this namespace"),
    }
}

impl Engine {
    /// Lists imports, the newest first.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn imports(
        &self,
        namespace: &str,
        (source, state): (Option<&str>, Option<ImportState>),
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<ImportView>, Error> {
        let place = |text: &str| text.parse::<Uuid>().ok();
        let before = after.map(|text| Cursor::place(CURSORS.0, text, place)).transpose()?;
        let limit = limit.clamp(1, 1_000) as usize;
        let beyond = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let wanted = (source, state.map(ImportState::as_str));
        let mut connection = self.node().database.lister(namespace).await?;
        let found = table::list(&mut connection, namespace, wanted, before, beyond).await;
        let views = listed(found)?.into_iter().map(view).collect();
        Ok(page(views, limit, |last: &ImportView| Cursor::of(CURSORS.0, &last.id.to_string())))
    }

    /// Shows an import.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn import(&self, namespace: &str, id: Uuid) -> Result<ImportView, Error> {
        let mut connection = self.node().database.reader(namespace).await?;
        let found = table::find(&mut connection, namespace, id).await?;
        found.map(view).ok_or_else(|| unknown_import(id))
    }

    /// Lists rows of an import that were refused, by their numbers.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn refused_rows(
        &self,
        namespace: &str,
        id: Uuid,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<RefusedRow>, Error> {
        self.import(namespace, id).await?;
        let place = |text: &str| text.parse::<i64>().ok();
        let after = after.map(|text| Cursor::place(CURSORS.1, text, place)).transpose()?;
        let limit = limit.clamp(1, 1_000) as usize;
        let beyond = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let mut connection = self.node().database.lister(namespace).await?;
        let found = table::refused(&mut connection, id, after.unwrap_or(0), beyond).await;
        let rows = listed(found)?.into_iter().map(|row| RefusedRow {
            row: row.number.unsigned_abs(),
            intake_id: row.intake,
            code: row.code,
            message: row.message,
        });
        let place = |last: &RefusedRow| Cursor::of(CURSORS.1, &last.row.to_string());
        Ok(page(rows.collect(), limit, place))
    }

    /// Ends an import. Accepted rows stay, the others are forgotten.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Refused`] without a reason; [`Error::Conflict`] `import_ended`.
    pub async fn cancel_import(
        &self,
        namespace: &str,
        id: Uuid,
        by: &By,
    ) -> Result<ImportView, Error> {
        must_have_reason(by)?;
        let source = self.import(namespace, id).await?.source;
        let at = self.node().clock.now();
        let mut connection = self.node().database.actor(namespace).await?;
        let mut transaction = connection.begin().await?;
        if !table::cancel(&mut transaction, (namespace, id), at).await? {
            let message = format!("the import {id} has ended");
            return Err(Error::Conflict { code: "import_ended", message });
        }
        let act = Act {
            namespace,
            thing: Thing::Source,
            name: &source,
            at,
            verb: "cancel",
            by,
            detail: Some(format!(r#"{{"import":"{id}"}}"#)),
        };
        acts::add(&mut transaction, &act).await?;
        commit!("import_cancel", transaction.commit().await)?;
        drop(connection);
        self.import(namespace, id).await
    }
}

fn view(row: ImportRow) -> ImportView {
    let counted = row.accepted + row.duplicates + row.refused;
    let state = ImportState::ALL.into_iter().find(|state| state.as_str() == row.state);
    ImportView {
        id: row.id,
        source: row.source,
        state: state.unwrap_or(ImportState::Cancelled),
        form: if row.form == "csv" { ImportForm::Csv } else { ImportForm::Lines },
        content_type: row.content_type,
        bytes: row.bytes.unsigned_abs(),
        rows: row.rows.unsigned_abs(),
        accepted: row.accepted.unsigned_abs(),
        duplicates: row.duplicates.unsigned_abs(),
        refused: row.refused.unsigned_abs(),
        left: row.rows.saturating_sub(counted).unsigned_abs(),
        waits_for: row.waits_for,
        digest: row.digest.map(|digest| HEXLOWER.encode(&digest)),
        received_at: Timestamp(row.received_at),
        ended_at: row.ended_at.map(Timestamp),
        peer: row.peer,
        request_id: row.request_id,
    }
}

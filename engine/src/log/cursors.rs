//! Named cursors: where readers of the log have come to.

use backstitch_saga::Timestamp;
use backstitch_saga::protocol::{CursorView, MoveCursor, Page};

use crate::crash::commit;
use crate::cursor::Cursor;
use crate::log::reached;
use crate::page::page;
use crate::store::listed;
use crate::store::log::{self as table, CursorRow};
use crate::{Engine, Error};

/// Cursors of a namespace. Several that are created at the same instant may pass it by as many.
pub const MOST_CURSORS: i64 = 10_000;
/// The kind of the cursor of the list of cursors.
const CURSOR: char = 'g';

fn unknown(name: &str) -> Error {
    let shown: String = name.chars().take(100).collect();
    Error::NotFound {
        code: "unknown_cursor",
        message: format!("there is no cursor '{shown}' in this namespace"),
    }
}

impl Engine {
    /// Moves a cursor that is where it is thought to be, or creates it. Returns whether it was created. One that has
    /// been moved there already is where it should be: asked again, it is answered the same.
    ///
    /// # Errors
    /// [`Error::Conflict`] `cursor_conflict` when it is elsewhere; [`Error::Invalid`] when no event has the position
    /// yet; [`Error::NotFound`]; [`Error::Quota`].
    pub async fn move_cursor(
        &self,
        namespace: &str,
        name: &str,
        ask: &MoveCursor,
        actor: &str,
    ) -> Result<(CursorView, bool), Error> {
        let node = self.node();
        let number = |position: u64| i64::try_from(position).unwrap_or(i64::MAX);
        let mut connection = node.database.actor(namespace).await?;
        let head = table::heads(&mut connection, namespace).await?.position;
        let position = reached(ask.position, head, ("invalid_request", "/position"))?;
        let moved = commit!(
            "log_cursor",
            table::move_cursor(
                &mut connection,
                (namespace, name),
                (ask.expected.map(number), position),
                (node.clock.now(), actor),
                MOST_CURSORS,
            )
            .await
        )?;
        let found = table::cursor(&mut connection, namespace, name).await?;
        match found {
            Some(row) if moved || row.position == position => {
                Ok((view(row), moved && ask.expected.is_none()))
            }
            Some(row) => Err(Error::Conflict {
                code: "cursor_conflict",
                message: format!("the cursor is at position {}", row.position),
            }),
            None if ask.expected.is_some() => Err(unknown(name)),
            None => Err(Error::Quota {
                code: "too_many_cursors",
                message: format!("a namespace has at most {MOST_CURSORS} cursors"),
                retry_after: None,
            }),
        }
    }

    /// Finds a cursor.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn cursor(&self, namespace: &str, name: &str) -> Result<CursorView, Error> {
        let mut connection = self.node().database.reader(namespace).await?;
        let found = table::cursor(&mut connection, namespace, name).await?;
        found.map(view).ok_or_else(|| unknown(name))
    }

    /// Lists cursors by name.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the cursor of the page is not one of ours.
    pub async fn cursors(
        &self,
        namespace: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<CursorView>, Error> {
        let place = |text: &str| Some(text.to_owned());
        let after = after.map(|text| Cursor::place(CURSOR, text, place)).transpose()?;
        let limit = limit.clamp(1, 1_000) as usize;
        let beyond = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let mut connection = self.node().database.lister(namespace).await?;
        let after = after.unwrap_or_default();
        let rows = listed(table::cursors(&mut connection, namespace, &after, beyond).await)?;
        let views = rows.into_iter().map(view).collect();
        Ok(page(views, limit, |last: &CursorView| Cursor::of(CURSOR, &last.name)))
    }

    /// Deletes a cursor.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn delete_cursor(&self, namespace: &str, name: &str) -> Result<(), Error> {
        let mut connection = self.node().database.actor(namespace).await?;
        let deleted =
            commit!("log_cursor", table::delete_cursor(&mut connection, namespace, name).await)?;
        if deleted { Ok(()) } else { Err(unknown(name)) }
    }
}

fn view(row: CursorRow) -> CursorView {
    CursorView {
        name: row.name,
        position: row.position.unsigned_abs(),
        behind: row.head.saturating_sub(row.position).max(0).unsigned_abs(),
        changed_at: Timestamp(row.changed_at),
        changed_by: row.changed_by,
    }
}

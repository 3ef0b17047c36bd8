//! Acts of people on runs, workflows, queues, schedules, jobs and facts: who, when, and why.

use backstitch_saga::protocol::{ActFilter, ActLine, Page};
use backstitch_saga::{By, Refusal, RefusalCode, Time};

use crate::cursor::Cursor;
use crate::page::{ANSWER_BYTES, page};
use crate::store::acts::{self as table, ActPlace};
use crate::store::listed;
use crate::{Engine, Error};

impl Engine {
    /// Lists acts of people, newest first; `after` is the cursor of the page before.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn acts(
        &self,
        namespace: &str,
        filter: &ActFilter,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<ActLine>, Error> {
        let before = after.map(place_of_cursor).transpose()?;
        let limit = limit.clamp(1, 1_000);
        let mut connection = self.node().database.lister(namespace).await?;
        let beyond = i64::from(limit) + 1;
        let bytes = i64::try_from(ANSWER_BYTES).unwrap_or(i64::MAX);
        let found =
            listed(table::list(&mut connection, namespace, filter, before, (beyond, bytes)).await)?;
        let cursor = |((at, run, seq, place), _): &(ActPlace, ActLine)| {
            Cursor::of('a', &format!("{} {run} {seq} {place}", at.0))
        };
        let Page { items, next } = page(found, limit as usize, cursor);
        Ok(Page { items: items.into_iter().map(|(_, line)| line).collect(), next })
    }
}

fn place_of_cursor(text: &str) -> Result<ActPlace, Error> {
    Cursor::place('a', text, |place| {
        let mut parts = place.split(' ');
        let mut next = || parts.next();
        Some((
            Time(next()?.parse().ok()?),
            next()?.parse().ok()?,
            next()?.parse().ok()?,
            next()?.parse().ok()?,
        ))
    })
}

/// Checks that a change that affects others has a reason.
pub(crate) fn must_have_reason(by: &By) -> Result<(), Error> {
    if by.reason.trim().is_empty() {
        let message = "say why; the reason is kept with the act";
        return Err(Refusal::new(RefusalCode::ReasonMissing, message).into());
    }
    Ok(())
}

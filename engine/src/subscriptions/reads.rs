//! Lists of the events that a subscription has taken up or passed over.

use backstitch_saga::Timestamp;
use backstitch_saga::protocol::{IncidentId, KeyState, Page, SkippedEvent, SubscriptionKey};

use super::change::unknown;
use crate::cursor::Cursor;
use crate::store::pending_events::Place;
use crate::store::pending_events::keys::{self as table, First};
use crate::store::skips::{self, Skip};
use crate::store::{listed, subscriptions};
use crate::{Engine, Error};

/// The kinds of the cursors of the lists.
const KEYS: char = 'K';
const SKIPS: char = 'S';

fn place(text: &str) -> Option<Place> {
    let (generation, position) = text.split_once(' ')?;
    Some((generation.parse().ok()?, position.parse().ok()?))
}

fn text_of(generation: u32, position: u64) -> String {
    format!("{generation} {position}")
}

impl Engine {
    /// Lists the keys of a subscription that have pending events, in the order of the first of each; only those in a state.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn subscription_keys(
        &self,
        namespace: &str,
        name: &str,
        state: Option<KeyState>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<SubscriptionKey>, Error> {
        let after = after.map(|text| Cursor::place(KEYS, text, place)).transpose()?;
        let limit = limit.clamp(1, 1_000) as usize;
        let states: &[&str] = match state {
            None => &["ready", "starting", "started", "blocked"],
            Some(KeyState::Ready) => &["ready"],
            Some(KeyState::InFlight) => &["starting", "started"],
            Some(KeyState::Blocked) => &["blocked"],
        };
        let mut connection = self.node().database.lister(namespace).await?;
        if subscriptions::find(&mut connection, namespace, name).await?.is_none() {
            return Err(unknown(name));
        }
        let beyond = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let found = table::firsts(&mut connection, (namespace, name), states, after, beyond).await;
        let found = listed(found)?.into_iter().map(key).collect();
        let cursor =
            |last: &SubscriptionKey| Cursor::of(KEYS, &text_of(last.generation, last.position));
        Ok(crate::page::page(found, limit, cursor))
    }

    /// Lists the events that a subscription passed over, the newest first.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn skipped_events(
        &self,
        namespace: &str,
        name: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<SkippedEvent>, Error> {
        let after = after.map(|text| Cursor::place(SKIPS, text, place)).transpose()?;
        let limit = limit.clamp(1, 1_000) as usize;
        let mut connection = self.node().database.lister(namespace).await?;
        if subscriptions::find(&mut connection, namespace, name).await?.is_none() {
            return Err(unknown(name));
        }
        let beyond = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let found = skips::list(&mut connection, (namespace, name), after, beyond).await;
        let found = listed(found)?.into_iter().map(skipped).collect();
        let cursor =
            |last: &SkippedEvent| Cursor::of(SKIPS, &text_of(last.generation, last.position));
        Ok(crate::page::page(found, limit, cursor))
    }
}

fn key(first: First) -> SubscriptionKey {
    let state = match first.state.as_str() {
        "blocked" => KeyState::Blocked,
        "ready" => KeyState::Ready,
        _ => KeyState::InFlight,
    };
    let incident = first.incident.and_then(|number| u32::try_from(number).ok());
    SubscriptionKey {
        key: first.key,
        state,
        position: first.place.1.unsigned_abs(),
        generation: first.place.0.unsigned_abs(),
        since: Timestamp(first.since),
        run: first.run,
        incident: first.run.zip(incident).map(|(run, number)| IncidentId { run, number }),
        code: first.code,
        message: first.message,
        waiting: first.waiting.unsigned_abs(),
    }
}

fn skipped(skip: Skip) -> SkippedEvent {
    SkippedEvent {
        position: skip.place.1.unsigned_abs(),
        generation: skip.place.0.unsigned_abs(),
        reason: skip.reason,
        key: skip.key,
        run: skip.run,
        code: skip.code,
        message: skip.message,
        at: Timestamp(skip.at),
        actor: skip.actor,
    }
}

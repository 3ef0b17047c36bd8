//! Acts of people on the progress of a subscription: pausing it, beginning again, passing over an event.

use backstitch_integration::events::SkipReason;
use backstitch_saga::By;
use backstitch_saga::protocol::SubscriptionView;

use super::change::Change;
use crate::acts::must_have_reason;
use crate::log::reached;
use crate::store::pending_events::{self, keys as pending};
use crate::store::skips::{self, Skip};
use crate::{Engine, Error};

impl Engine {
    /// Pauses a subscription, or has it go on.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Refused`] without a reason; [`Error::Busy`].
    pub async fn pause_subscription(
        &self,
        namespace: &str,
        name: &str,
        paused: bool,
        by: &By,
    ) -> Result<SubscriptionView, Error> {
        must_have_reason(by)?;
        let verb = if paused { "pause" } else { "resume" };
        let change = Change { namespace, name, verb, by };
        change
            .make(self, None, |row| {
                let changes = row.paused != paused;
                row.paused = paused;
                Ok(changes)
            })
            .await
    }

    /// Lets a subscription begin again after a position, with runs of its own.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] when no event has the position yet; [`Error::Refused`] without a reason;
    /// [`Error::Busy`].
    pub async fn reset_subscription(
        &self,
        namespace: &str,
        name: &str,
        position: u64,
        by: &By,
    ) -> Result<SubscriptionView, Error> {
        must_have_reason(by)?;
        let change = Change { namespace, name, verb: "reset", by };
        let detail = Some(format!(r#"{{"position":{position}}}"#));
        let node = self.node();
        let mut connection = node.database.reader(namespace).await?;
        let (mut transaction, mut row) = change.begin(&mut connection).await?;
        row.position = reached(position, row.head, ("invalid_request", "/position"))?;
        row.generation = row.generation.saturating_add(1);
        // What has started keeps its key until it is over.
        row.pending -= pending::drop_unstarted(&mut transaction, namespace, name).await?;
        change.finish(node, transaction, row, detail).await
    }

    /// Passes over an event: the one at this position, which blocks its key, or else the one at which the subscription stands.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] `subscription_not_stopped`, `event_not_blocked`; [`Error::Refused`] without a
    /// reason.
    pub async fn skip_event(
        &self,
        namespace: &str,
        name: &str,
        position: Option<u64>,
        by: &By,
    ) -> Result<SubscriptionView, Error> {
        must_have_reason(by)?;
        let change = Change { namespace, name, verb: "skip", by };
        let node = self.node();
        let mut connection = node.database.reader(namespace).await?;
        let (mut transaction, mut row) = change.begin(&mut connection).await?;
        let stop = match (&row.stop, position) {
            (_, Some(_)) => None,
            (Some(stop), None) => Some(stop.clone()),
            (None, None) => {
                return Err(Error::Conflict {
                    code: "subscription_not_stopped",
                    message: "it stands at no event; name the position of one that blocks its key"
                        .to_owned(),
                });
            }
        };
        let at = match (&stop, position) {
            (Some(stop), _) => stop.position,
            (None, position) => position.and_then(|at| i64::try_from(at).ok()).unwrap_or(i64::MAX),
        };
        let taken =
            pending::take_out(&mut transaction, (namespace, name), at, stop.is_some()).await?;
        if taken.is_none() && stop.is_none() {
            let message = format!("no event at position {at} blocks its key");
            return Err(Error::Conflict { code: "event_not_blocked", message });
        }
        let skip = Skip {
            place: taken.as_ref().map_or((row.generation, at), |taken| taken.place),
            reason: SkipReason::ByHand.name().to_owned(),
            key: taken.as_ref().and_then(|taken| taken.key.clone()),
            run: taken.as_ref().and_then(|taken| taken.run),
            code: stop.as_ref().map(|stop| stop.code.clone()),
            message: stop.as_ref().map(|stop| stop.message.clone()),
            at: node.clock.now(),
            actor: Some(by.actor.to_string()),
        };
        match taken {
            Some(_) => row.pending -= 1,
            None => row.position = row.position.max(at),
        }
        row.skip(SkipReason::ByHand, 1);
        skips::add(&mut transaction, &row, std::slice::from_ref(&skip)).await?;
        if let Some(key) = skip.key {
            pending_events::promote(&mut transaction, &row, &[key], skip.at).await?;
        }
        let detail = Some(format!(r#"{{"position":{at}}}"#));
        change.finish(node, transaction, row, detail).await
    }
}

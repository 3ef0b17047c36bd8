//! Lineage: what an event came from, up to the bytes of a source, and what came of it.

use std::collections::{HashMap, HashSet};

use backstitch_integration::events::MAX_HOPS;
use backstitch_saga::protocol::{EventLineage, EventView, LineageEvent, RunLine};
use uuid::Uuid;

use super::reads::view;
use crate::log::EventQuery;
use crate::store::intake as table;
use crate::{Engine, Error, RunFilter};

/// Largest number of events, and of runs, of a correlation id that are read.
const STORY: u32 = 1_000;

impl Engine {
    /// Finds what an event came from and what came of it: the chain of its causes, the documents of sources that these
    /// were, the events that it caused, and the runs of its story.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Busy`].
    pub async fn lineage(&self, namespace: &str, id: Uuid) -> Result<EventLineage, Error> {
        let event = self.event(namespace, id).await?;
        let horizon = self.log_heads(namespace).await?.horizon;
        let story = EventQuery {
            after: Some(horizon.to_string()),
            limit: STORY,
            correlation_id: Some(event.correlation_id.clone()),
            ..EventQuery::default()
        };
        let page = self.events(namespace, story).await?;
        let more = page.next < page.head;
        let story: HashMap<Uuid, EventView> =
            page.items.into_iter().map(|event| (event.id, event)).collect();
        let causes = self.causes(namespace, &event, &story).await?;
        let effects = effects(id, &story);
        let chain: Vec<Uuid> = std::iter::once(id).chain(causes.iter().map(|one| one.id)).collect();
        let mut connection = self.node().database.reader(namespace).await?;
        let documents = table::behind(&mut connection, namespace, &chain).await?;
        drop(connection);
        let (runs, more_runs) = self.runs_of(namespace, &event.correlation_id).await?;
        Ok(EventLineage {
            event: line(&event),
            causes,
            documents: documents.into_iter().map(view).collect(),
            effects,
            runs,
            more: more || more_runs,
        })
    }

    /// Returns the chain of causes of an event, the nearest first.
    async fn causes(
        &self,
        namespace: &str,
        event: &EventView,
        story: &HashMap<Uuid, EventView>,
    ) -> Result<Vec<LineageEvent>, Error> {
        let mut causes: Vec<LineageEvent> = Vec::new();
        let mut next = cause_of(event);
        while let Some(id) = next.filter(|_| causes.len() <= MAX_HOPS as usize) {
            let cause = match story.get(&id) {
                Some(cause) => cause.clone(),
                None => match self.event(namespace, id).await {
                    Ok(cause) => cause,
                    // It is past retention, or was never here.
                    Err(Error::NotFound { .. }) => break,
                    Err(error) => return Err(error),
                },
            };
            next = cause_of(&cause);
            causes.push(line(&cause));
        }
        Ok(causes)
    }

    async fn runs_of(&self, namespace: &str, story: &str) -> Result<(Vec<RunLine>, bool), Error> {
        let filter = RunFilter {
            correlation_id: Some(story.to_owned()),
            limit: STORY,
            ..RunFilter::default()
        };
        let page = self.runs(namespace, filter).await?;
        Ok((page.items, page.next.is_some()))
    }
}

fn cause_of(event: &EventView) -> Option<Uuid> {
    event.causation_id.as_ref()?.parse().ok()
}

/// Returns the events that followed from one, by their positions.
fn effects(id: Uuid, story: &HashMap<Uuid, EventView>) -> Vec<LineageEvent> {
    let mut in_order: Vec<&EventView> = story.values().collect();
    in_order.sort_by_key(|event| event.position);
    let mut known = HashSet::from([id]);
    let mut effects = Vec::new();
    // A cause has a lower position than what it caused.
    for event in in_order {
        if cause_of(event).is_some_and(|cause| known.contains(&cause)) && known.insert(event.id) {
            effects.push(line(event));
        }
    }
    effects
}

fn line(event: &EventView) -> LineageEvent {
    LineageEvent {
        id: event.id,
        position: event.position,
        event_type: event.event_type.clone(),
        stream: event.stream.clone(),
        version: event.version,
        contract: event.contract.clone(),
        source: event.source.clone(),
        trust: event.trust,
        received_at: event.received_at,
        causation_id: event.causation_id.clone(),
    }
}

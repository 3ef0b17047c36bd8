//! Finds the data of an erasure: documents, events, and the runs that came from these or from which these came.

use std::collections::BTreeSet;

use backstitch_integration::ingress::search_value;
use backstitch_saga::protocol::EraseData;
use backstitch_saga::{Run, RunId};
use uuid::Uuid;

use crate::store::data_erasures as table;
use crate::{Engine, Error, RunFilter, reads};

/// Documents or events that a round begins with.
const ROUND: i64 = 100;
/// Events that belong together at most; what is beyond them is found from other documents.
const MOST: usize = 10_000;
/// Number of runs of a correlation id that are read together.
const PAGE: u32 = 1_000;

/// Documents and events that belong together.
#[derive(Default)]
pub(super) struct Whole {
    documents: BTreeSet<Uuid>,
    events: BTreeSet<Uuid>,
    stories: BTreeSet<String>,
    /// Runs that emitted one of the events.
    emitters: BTreeSet<Uuid>,
}

impl Whole {
    pub(super) fn is_empty(&self) -> bool {
        self.documents.is_empty() && self.events.is_empty()
    }

    pub(super) fn size(&self) -> (usize, usize) {
        (self.documents.len(), self.events.len())
    }

    pub(super) fn stories(&self) -> Vec<String> {
        self.stories.iter().cloned().collect()
    }

    /// Returns its documents and its events.
    pub(super) fn into_lists(self) -> (Vec<Uuid>, Vec<Uuid>) {
        (self.documents.into_iter().collect(), self.events.into_iter().collect())
    }
}

/// Action of an erasure on a run that belongs to the entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is erased.
    Goes,
    /// Nothing says that it has to do with what is erased.
    Stays,
}

/// Origin of a run, as its journal has it.
struct Origin {
    cause: Option<String>,
    parent: Option<RunId>,
    erased: bool,
}

impl Origin {
    fn of(run: &Run) -> Origin {
        Origin {
            cause: run.causation_id().map(str::to_owned),
            parent: run.parent().map(|parent| parent.run),
            erased: run.erased_at().is_some(),
        }
    }
}

impl Engine {
    /// Finds documents and events to erase, with all that belongs to them.
    pub(super) async fn begin_whole(
        &self,
        namespace: &str,
        ask: &EraseData,
    ) -> Result<Whole, Error> {
        let mut whole = Whole::default();
        let mut connection = self.node().database.keepers.acquire().await?;
        if let Some(stream) = &ask.stream {
            let wanted = (namespace, stream.as_str());
            whole.events.extend(table::of_stream(&mut connection, wanted, ROUND).await?);
        }
        if let Some(hint) = &ask.hint {
            let value = search_value(&hint.kind, &hint.value, hint.region.as_deref());
            let wanted = (hint.kind.as_str(), value.as_str());
            let found = table::of_hint(&mut connection, namespace, wanted, ROUND).await?;
            whole.documents.extend(found);
        }
        drop(connection);
        self.complete_whole(namespace, &mut whole).await?;
        Ok(whole)
    }

    /// Adds what belongs to documents and events, along causes in both directions.
    pub(super) async fn complete_whole(
        &self,
        namespace: &str,
        whole: &mut Whole,
    ) -> Result<(), Error> {
        let mut connection = self.node().database.keepers.acquire().await?;
        let mut before = None;
        while before != Some(whole.size()) && whole.events.len() < MOST {
            before = Some(whole.size());
            let events: Vec<Uuid> = whole.events.iter().copied().collect();
            let mut origins = events.clone();
            for (story, cause, run) in table::stories(&mut connection, namespace, &events).await? {
                whole.stories.insert(story);
                origins.extend(cause.and_then(|cause| cause.parse::<Uuid>().ok()));
                whole.emitters.extend(run.and_then(|run| run.parse::<Uuid>().ok()));
            }
            let known: Vec<Uuid> = whole.documents.iter().copied().collect();
            let found = table::documents(&mut connection, namespace, &origins, &known).await?;
            for (id, event, mapped) in found {
                whole.documents.insert(id);
                whole.events.extend(event.into_iter().chain(mapped));
            }
            let stories = whole.stories();
            let caused = table::caused_by(&mut connection, namespace, &stories, &events).await?;
            whole.events.extend(caused);
        }
        Ok(())
    }

    /// Finds the runs of a correlation id, and their fate. If it has no data beside the erased, all are erased;
    /// otherwise those that one of the events caused or that emitted one.
    pub(super) async fn runs_of_story(
        &self,
        namespace: &str,
        story: &str,
        whole: &Whole,
    ) -> Result<Vec<(RunId, Fate)>, Error> {
        let events: Vec<Uuid> = whole.events.iter().copied().collect();
        let mut connection = self.node().database.keepers.acquire().await?;
        let is_shared = table::is_shared(&mut connection, (namespace, story), &events).await?;
        drop(connection);
        let mut fates = Vec::new();
        let mut after = None;
        loop {
            let correlation_id = Some(story.to_owned());
            let filter = RunFilter { correlation_id, after, limit: PAGE, ..RunFilter::default() };
            let page = self.runs(namespace, filter).await?;
            for line in page.items {
                fates.extend(self.fate(namespace, line.id, (is_shared, whole)).await?);
            }
            after = page.next;
            if after.is_none() {
                return Ok(fates);
            }
        }
    }

    async fn fate(
        &self,
        namespace: &str,
        run: RunId,
        (is_shared, whole): (bool, &Whole),
    ) -> Result<Option<(RunId, Fate)>, Error> {
        let Some(mut origin) = self.origin(namespace, run).await? else { return Ok(None) };
        let cause = origin.cause.take();
        let caused = cause.as_deref().and_then(|cause| cause.parse::<Uuid>().ok());
        let is_his = caused.is_some_and(|event| whole.events.contains(&event))
            || whole.emitters.contains(&run.0);
        // A run that is a step of another has its documents there, too.
        let mut root = run;
        while let Some(parent) = origin.parent.filter(|_| is_his) {
            root = parent;
            match self.origin(namespace, parent).await? {
                Some(of_parent) => origin = of_parent,
                None => return Ok(None),
            }
        }
        Ok(match (origin.erased, is_his || !is_shared) {
            (true, _) => None,
            (false, true) => Some((root, Fate::Goes)),
            // A run that follows from another event belongs to that, and a step of another run goes or stays with it.
            (false, false) if cause.is_some() || origin.parent.is_some() => None,
            (false, false) => Some((run, Fate::Stays)),
        })
    }

    /// Returns the origin of a run; `None` if the run no longer exists.
    async fn origin(&self, namespace: &str, run: RunId) -> Result<Option<Origin>, Error> {
        match reads::read(self.node(), namespace, run, Origin::of).await {
            Ok(origin) => Ok(Some(origin)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

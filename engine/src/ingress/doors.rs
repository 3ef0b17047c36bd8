//! Sources and contracts in the memory of a door: configurations for a moment, schemas for as long as there is room.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use backstitch_integration::contracts::{Schema, World};
use backstitch_integration::document::value_of;
use backstitch_integration::events::Trust;
use backstitch_integration::ingress::{Headers, Rejected, Request, Sender, Source, VersionState};
use backstitch_integration::transforms::Transform;
use backstitch_saga::{Payload, Time};
use uuid::Uuid;

use super::mapping::{EdgeName, Target};
use super::{damaged, document_of, sources};
use crate::store::contracts as contract_table;
use crate::store::sources::{self as table, SourceRow};
use crate::{Engine, Error};

/// Time for which a source and the states of its contracts are answered from memory.
pub(super) const REMEMBER: Duration = Duration::from_secs(1);
/// Number of sources that are kept.
const MOST: usize = 10_000;
/// Bytes that sources, and schemas, may take in memory, roughly, each.
pub const MOST_BYTES: usize = 64 * 1024 * 1024;
/// Memory that a source takes beside its spec, and a schema beside its text.
const BESIDE: usize = 4_096;
const TIMES: usize = 20;

/// A source with everything that a door asks for.
#[derive(Debug)]
pub struct OpenSource {
    pub(super) namespace: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) version: u32,
    revision: Uuid,
    source: Source,
    /// The most bytes of an event.
    pub(super) largest: usize,
    /// Time at which one of its secrets becomes invalid.
    until: Option<Time>,
    /// States of the versions of contracts that it accepts.
    states: HashMap<String, BTreeMap<u32, VersionState>>,
    /// Revisions of these contracts, in order.
    revisions: Vec<(String, i64)>,
    /// Active revisions of the transforms from these contracts, in order.
    active: Vec<table::ActiveRow>,
}

impl OpenSource {
    /// Returns the most bytes of a request with one document.
    #[must_use]
    pub fn max_bytes(&self) -> usize {
        self.source.document().max_bytes
    }

    /// Returns the most documents in a second.
    #[must_use]
    pub fn rate(&self) -> Option<u32> {
        self.source.document().rate
    }

    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Returns its namespace.
    #[must_use]
    pub fn namespace(&self) -> &Arc<str> {
        &self.namespace
    }

    /// Returns whether requests are accepted.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.source.document().enabled
    }

    /// Verifies a request, before anything looks into its body.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn admit(
        &self,
        headers: &[(&str, &[u8])],
        body: &[u8],
        now: Time,
        is_batch: bool,
    ) -> Result<Sender, Box<Rejected>> {
        let request = Request { headers: Headers::new(headers), body, now };
        if is_batch { self.source.admit_batch(&request) } else { self.source.admit(&request) }
    }

    /// Verifies who sends a file, before anything of it is read.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn admit_file(
        &self,
        headers: &[(&str, &[u8])],
        now: Time,
    ) -> Result<Sender, Box<Rejected>> {
        self.source.admit_file(Headers::new(headers), now)
    }

    /// Returns the rules of the source.
    pub(super) fn rules(&self) -> &Source {
        &self.source
    }

    /// Returns the versions of a contract that it accepts.
    pub(super) fn versions(&self, subject: &str) -> Option<BTreeMap<u32, VersionState>> {
        self.states.get(subject).cloned()
    }

    /// Returns the contract that documents of another are mapped to.
    pub(super) fn target(&self, subject: &str) -> Option<Target> {
        let mut accepts = self.source.document().accepts.iter();
        let (to, version) = accepts.find(|accept| accept.contract == subject)?.target()?;
        Some((to.to_owned(), version))
    }

    /// Returns the active revision of a transform.
    pub(super) fn active(&self, (from, version, (to, to_version)): &EdgeName) -> Option<i32> {
        let is = |edge: &&table::ActiveRow| {
            (&edge.0, edge.1.unsigned_abs(), &edge.2, edge.3.unsigned_abs())
                == (from, *version, to, *to_version)
        };
        self.active.iter().find(is).map(|edge| edge.4)
    }

    /// Returns the most trust that its events have.
    pub(super) fn ceiling(&self) -> Trust {
        self.source.document().trust_ceiling
    }
}

/// Sources and schemas seen lately.
#[derive(Debug, Default)]
pub(crate) struct Doors {
    known: Mutex<Known>,
}

/// Namespace and name of a source.
type Name = (String, String);
/// Namespace, subject and version of a schema.
type Version = (Arc<str>, String, u32);
/// Namespace, ends and number of a revision of a transform.
type Revision = (Arc<str>, EdgeName, i32);

#[derive(Debug, Default)]
struct Known {
    sources: HashMap<Name, (Instant, Arc<OpenSource>, usize)>,
    source_bytes: usize,
    schemas: HashMap<Version, Arc<Schema>>,
    schema_bytes: usize,
    transforms: HashMap<Revision, Arc<Transform>>,
    transform_bytes: usize,
    /// Grows when a source is changed here: what was read before is not kept after it.
    generation: u64,
}

impl Doors {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a source that was changed.
    pub(crate) fn forget(&self, namespace: &str, name: &str) {
        self.lock().forget(&(namespace.to_owned(), name.to_owned()));
    }

    /// Returns a revision of a transform, if it is kept.
    pub(super) fn transform(
        &self,
        namespace: &Arc<str>,
        edge: &EdgeName,
        revision: i32,
    ) -> Option<Arc<Transform>> {
        let key = (Arc::clone(namespace), edge.clone(), revision);
        self.lock().transforms.get(&key).cloned()
    }

    /// Keeps a revision of a transform, whose text has so many bytes.
    pub(super) fn keep_transform(
        &self,
        namespace: &Arc<str>,
        edge: &EdgeName,
        revision: i32,
        (transform, bytes): (&Arc<Transform>, usize),
    ) {
        let bytes = BESIDE + TIMES * bytes;
        let mut known = self.lock();
        if known.transform_bytes + bytes > MOST_BYTES {
            known.transforms.clear();
            known.transform_bytes = 0;
        }
        let key = (Arc::clone(namespace), edge.clone(), revision);
        if known.transforms.insert(key, Arc::clone(transform)).is_none() {
            known.transform_bytes += bytes;
        }
    }
}

impl Known {
    fn forget(&mut self, name: &Name) {
        self.generation += 1;
        if let Some((.., bytes)) = self.sources.remove(name) {
            self.source_bytes -= bytes;
        }
    }

    fn keep(&mut self, name: Name, open: &Arc<OpenSource>, bytes: usize) {
        if self.sources.len() >= MOST || self.source_bytes + bytes > MOST_BYTES {
            self.sources.clear();
            self.source_bytes = 0;
        }
        self.source_bytes += bytes;
        let old = self.sources.insert(name, (Instant::now(), Arc::clone(open), bytes));
        self.source_bytes -= old.map_or(0, |(.., bytes)| bytes);
    }
}

impl Engine {
    /// Finds a source as its door needs it; `None` when there is none. Changes made at other nodes are seen within a
    /// second.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::Conflict`] `source_damaged`.
    pub async fn open_source(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<OpenSource>>, Error> {
        let node = self.node();
        let key = (namespace.to_owned(), name.to_owned());
        let now = node.clock.now();
        let (generation, before) = {
            let mut known = node.doors.lock();
            let generation = known.generation;
            match known.sources.get_mut(&key) {
                Some((looked, open, _)) => {
                    let fresh = looked.elapsed() < REMEMBER;
                    if fresh && open.until.is_none_or(|until| now < until) {
                        return Ok(Some(Arc::clone(open)));
                    }
                    // One looks; the others go on with what was known.
                    *looked = Instant::now();
                    (generation, Some(Arc::clone(open)))
                }
                None => (generation, None),
            }
        };
        let mut connection = node.database.gate.acquire().await?;
        let Some(row) = table::find(&mut connection, namespace, name).await? else {
            node.doors.lock().forget(&key);
            return Ok(None);
        };
        let spec = sources::spec_of(&row)?;
        let subjects = sources::subjects(&spec);
        let mut revisions = table::subject_revisions(&mut connection, namespace, &subjects).await?;
        revisions.sort();
        let active = table::active_transforms(&mut connection, namespace, &subjects).await?;
        let unchanged = |open: &Arc<OpenSource>| {
            open.revision == row.revision
                && open.revisions == revisions
                && open.active == active
                && open.until.is_none_or(|until| now < until)
        };
        let bytes = BESIDE + TIMES * row.spec.len();
        let open = match before.filter(unchanged) {
            Some(open) => open,
            None => {
                let found = table::version_states(&mut connection, namespace, &subjects).await?;
                let mut states: HashMap<String, BTreeMap<u32, VersionState>> = HashMap::new();
                for (subject, version, state) in found {
                    let state = match state.as_str() {
                        "active" => VersionState::Active,
                        "deprecated" => VersionState::Deprecated,
                        _ => VersionState::Retired,
                    };
                    states.entry(subject).or_default().insert(version.unsigned_abs(), state);
                }
                drop(connection);
                let contracts = Contracts { states, revisions, active };
                Arc::new(opened(namespace, &row, contracts, (now, self.event_limit()))?)
            }
        };
        let mut known = node.doors.lock();
        if known.generation == generation {
            known.keep(key, &open, bytes);
        }
        Ok(Some(open))
    }

    /// Returns the schema of a version, with how members are taken that it does not name.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::Conflict`] `contract_damaged`; [`Error::Busy`].
    pub(super) async fn door_schema(
        &self,
        namespace: &Arc<str>,
        subject: &str,
        version: u32,
    ) -> Result<Arc<Schema>, Error> {
        let node = self.node();
        let key = (Arc::clone(namespace), subject.to_owned(), version);
        if let Some(schema) = node.doors.lock().schemas.get(&key) {
            return Ok(Arc::clone(schema));
        }
        let mut connection = node.database.reader(namespace).await?;
        let stored = i32::try_from(version).unwrap_or(0);
        let row = contract_table::version(&mut connection, namespace, subject, stored).await?;
        drop(connection);
        let text = row.map(|row| row.schema).unwrap_or_default();
        let bytes = BESIDE + TIMES * text.len();
        let parsed = self
            .apart(namespace, move || {
                let payload = Payload::trusted(text).ok()?;
                Schema::parse(&value_of(&payload).ok()?).ok()
            })
            .await?;
        let schema = Arc::new(parsed.ok_or_else(|| Error::Conflict {
            code: "contract_damaged",
            message: format!("version {version} of '{subject}' cannot be read; repair its row"),
        })?);
        let mut known = node.doors.lock();
        if known.schema_bytes + bytes > MOST_BYTES {
            known.schemas.clear();
            known.schema_bytes = 0;
        }
        if known.schemas.insert(key, Arc::clone(&schema)).is_none() {
            known.schema_bytes += bytes;
        }
        Ok(schema)
    }
}

/// Returns whether documents may have members that a contract does not name: those of vendors may.
pub(super) fn world_of(subject: &str) -> World {
    if subject.contains('.') { World::Open } else { World::Closed }
}

/// Contracts and transforms that a source needs.
struct Contracts {
    states: HashMap<String, BTreeMap<u32, VersionState>>,
    revisions: Vec<(String, i64)>,
    active: Vec<table::ActiveRow>,
}

fn opened(
    namespace: &str,
    row: &SourceRow,
    Contracts { states, revisions, active }: Contracts,
    (now, largest): (Time, usize),
) -> Result<OpenSource, Error> {
    let mut document = document_of(&sources::spec_of(row)?)?;
    document.max_bytes = document.max_bytes.min(largest);
    let good: Vec<&table::SecretRow> = sources::good(&row.secrets, now).collect();
    let texts: Vec<&str> = good.iter().map(|secret| secret.secret.as_str()).collect();
    Ok(OpenSource {
        namespace: namespace.into(),
        name: row.name.as_str().into(),
        version: row.version.unsigned_abs(),
        revision: row.revision,
        largest,
        source: Source::new(document, &texts).map_err(|_| damaged(&row.name))?,
        until: good.iter().filter_map(|secret| secret.until).min(),
        states,
        revisions,
        active,
    })
}

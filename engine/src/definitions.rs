//! Registered workflow definitions, checked and indexed, as the node keeps them in memory.

mod kept;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backstitch_saga::protocol::{Page, RehearsalView, Rehearsed, WorkflowView};
use backstitch_saga::rehearse::{Admission, admit, rehearse_within};
use backstitch_saga::{By, Definition, Graph, Payload, Time, Timestamp, Violation, misread};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use crate::crash::commit;
use crate::cursor::Cursor;
use crate::node::Node;
use crate::quotas;
use crate::schemas::Schemas;
use crate::store::acts::{self, Act, Thing};
use crate::store::definitions::{self as table, DefinitionRow};
use crate::store::quotas::Counted;
use crate::store::{Database, listed};
use crate::{Error, Registered};

/// The longest definition that is read by the thread that asks; longer ones are read by threads of their own.
const READ_AT_ONCE: usize = 8 * 1024;

pub(crate) use kept::KEPT;
/// The largest version that can be stored.
const MOST_VERSION: u32 = i32::MAX as u32;

/// A definition, ready to run.
#[derive(Debug)]
pub(crate) struct Workflow {
    pub(crate) graph: Arc<Graph>,
    /// SHA-256 of the text without its layout, in hexadecimal digits.
    pub(crate) hash: Arc<str>,
}

/// The definitions that this node has met.
#[derive(Debug, Default)]
pub(crate) struct Definitions(Mutex<kept::Kept>);

impl Workflow {
    /// Reads and checks a definition, but for what its JSON Schemas say.
    pub(crate) fn parse(text: &str) -> Result<Workflow, Vec<Violation>> {
        let graph = Graph::parse(text)?.with_outputs_checked();
        let layout = Payload::trusted(text.to_owned())
            .map_err(|error| vec![Violation::new("", "invalid_json", misread::explain(&error).1)])?
            .without_layout();
        Ok(Workflow {
            graph: Arc::new(graph),
            hash: HEXLOWER.encode(&Sha256::digest(layout)).into(),
        })
    }
}

/// Reads and checks a definition that is to be registered in `namespace`, with its JSON Schemas.
pub(crate) async fn examine(
    schemas: &Arc<Schemas>,
    namespace: &str,
    text: &str,
) -> Result<Workflow, Error> {
    let parsed = if text.len() <= READ_AT_ONCE {
        Workflow::parse(text)
    } else {
        let text = text.to_owned();
        let parsed = schemas.apart(namespace, move || Workflow::parse(&text)).await?;
        parsed.ok_or_else(|| Error::Bug("reading a definition failed".to_owned()))?
    };
    let invalid = |violations| Error::Invalid { code: "invalid_definition", violations };
    let workflow = parsed.map_err(invalid)?;
    let beyond = versions_beyond(&workflow.graph.definition);
    if !beyond.is_empty() {
        return Err(invalid(beyond));
    }
    schemas.admit(namespace, workflow.graph.definition.schemas()).await?;
    Ok(workflow)
}

/// Checks that the default of a signal satisfies the schema of the signal's data.
async fn check_defaults(
    schemas: &Arc<Schemas>,
    namespace: &str,
    definition: &Definition,
) -> Result<(), Error> {
    for (pointer, schema, default) in definition.constant_defaults() {
        schemas.check(namespace, schema, default, &pointer, "invalid_definition").await?;
    }
    Ok(())
}

/// Finds versions that are larger than can be stored, of the workflow and of its children.
pub(crate) fn versions_beyond(definition: &Definition) -> Vec<Violation> {
    let own = std::iter::once(("/version".to_owned(), Some(definition.version)));
    let children = definition.steps.iter().enumerate().filter_map(|(index, step)| {
        Some((format!("/steps/{index}/child/version"), step.child.as_ref()?.version))
    });
    let beyond = own.chain(children).filter(|(_, version)| *version > Some(MOST_VERSION));
    beyond
        .map(|(pointer, _)| {
            let message = format!("versions go up to {MOST_VERSION}");
            Violation::new(pointer, "invalid_version", message)
        })
        .collect()
}

/// Returns a version in its stored form; 0, which no version has, for one that cannot be stored.
pub(crate) fn stored(version: u32) -> i32 {
    i32::try_from(version).unwrap_or(0)
}

impl Definitions {
    /// Registers `text` under the name and version it carries.
    pub(crate) async fn register(
        &self,
        node: &Node,
        namespace: &str,
        text: &str,
        by: Option<(&By, Time)>,
    ) -> Result<(Registered, Option<Rehearsed>), Error> {
        let database = &node.database;
        let workflow = examine(&node.schemas, namespace, text).await?;
        let definition = &workflow.graph.definition;
        let row = DefinitionRow {
            name: definition.name.clone(),
            version: stored(definition.version),
            hash: workflow.hash.to_string(),
            registered_at: backstitch_saga::Time::default(),
            body: text.to_owned(),
        };
        let mut connection = database.reader(namespace).await?;
        let version = Some(row.version);
        let before = table::find(&mut connection, namespace, &row.name, version).await?;
        drop(connection);
        // A definition that is registered already, or conflicts, need not be rehearsed.
        let rehearsed = match before {
            Some(_) => None,
            None => {
                quotas::check(node, namespace, Counted::Definitions, 1).await?;
                Some(admission(&node.schemas, namespace, &workflow.graph).await?)
            }
        };
        let mut connection = database.reader(namespace).await?;
        if definition.sequence.is_some() {
            crate::sequence::check_definition(&mut connection, namespace, definition).await?;
        }
        let mut transaction = connection.begin().await?;
        let (there, created) = table::register(&mut transaction, namespace, &row).await?;
        if let (true, Some((by, at))) = (created, by) {
            let detail = Some(format!("{{\"version\":{}}}", row.version));
            let (thing, name) = (Thing::Workflow, row.name.as_str());
            let act = Act { namespace, thing, name, at, verb: "register", by, detail };
            acts::add(&mut transaction, &act).await?;
        }
        commit!("definitions_register", transaction.commit().await)?;
        if created {
            let actor = by.map(|(by, _)| &*by.actor);
            let version = row.version;
            tracing::info!(
                namespace,
                workflow = row.name,
                version,
                actor,
                "a definition was registered"
            );
        }
        let same = there == row.hash || spelt_otherwise(&mut connection, namespace, &row).await?;
        if !same {
            return Err(Error::Conflict {
                code: "version_conflict",
                message: format!(
                    "version {} of {} is registered with another definition; \
                     a version never changes, so register this one under the next number",
                    row.version, row.name
                ),
            });
        }
        self.kept().newest(namespace, &row.name, None);
        Ok((if created { Registered::Created } else { Registered::Unchanged }, rehearsed))
    }

    /// Returns the definition to start a run with.
    pub(crate) async fn resolve(
        &self,
        database: &Database,
        namespace: &str,
        name: &str,
        version: Option<u32>,
    ) -> Result<Arc<Workflow>, Error> {
        if let Some(workflow) = self.kept().named(namespace, name, version) {
            return Ok(workflow);
        }
        let row = find(database, namespace, name, version).await?;
        let workflow = self.keep(&row.body, &row.hash).map_err(|error| match error {
            Error::Damaged(what) => unreadable(&row.name, row.version, &what),
            other => other,
        })?;
        let number = workflow.graph.definition.version;
        let mut kept = self.kept();
        kept.name(namespace, name, number, &workflow.hash);
        if version.is_none() {
            kept.newest(namespace, name, Some(number));
        }
        Ok(workflow)
    }

    fn kept(&self) -> MutexGuard<'_, kept::Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the definition with this hash, which a journal names.
    pub(crate) async fn by_hash(
        &self,
        connection: &mut PgConnection,
        hash: &str,
    ) -> Result<Arc<Workflow>, Error> {
        if let Some(workflow) = self.kept().with_hash(hash) {
            return Ok(workflow);
        }
        let body = table::body(connection, hash).await?.ok_or_else(|| {
            Error::Damaged(format!("it names the definition {hash}, which is not registered"))
        })?;
        self.keep(&body, hash)
    }

    /// Keeps a definition that was registered, under the hash that it was registered with. Rules of validation may be
    /// loosened from version to version, never tightened, or runs in flight could not be read.
    fn keep(&self, body: &str, hash: &str) -> Result<Arc<Workflow>, Error> {
        if let Some(workflow) = self.kept().with_hash(hash) {
            return Ok(workflow);
        }
        let parsed = Workflow::parse(body).map_err(|violations| {
            let first = violations.first().map(ToString::to_string).unwrap_or_default();
            Error::Damaged(format!(
                "the registered definition {hash} cannot be read by this node: {first}"
            ))
        })?;
        let workflow = Arc::new(Workflow { hash: hash.into(), ..parsed });
        self.kept().keep(&workflow, body.len());
        Ok(workflow)
    }
}

/// Returns the error for a registered definition whose row is damaged, or was written by a newer server.
fn unreadable(name: &str, version: impl std::fmt::Display, why: &str) -> Error {
    tracing::error!(workflow = name, %version, why, "a registered definition cannot be read");
    Error::Conflict {
        code: "definition_damaged",
        message: format!(
            "the registered version {version} of '{name}' cannot be read; repair its row, or \
             register the definition under another version"
        ),
    }
}

/// Returns whether what is registered under the name and version of `row` is the same document, spelt otherwise.
async fn spelt_otherwise(
    connection: &mut PgConnection,
    namespace: &str,
    row: &DefinitionRow,
) -> Result<bool, Error> {
    let there = table::find(connection, namespace, &row.name, Some(row.version)).await?;
    let Some(there) = there else { return Ok(false) };
    let document = |text: &str| Payload::trusted(text.to_owned()).ok();
    let pair = document(&there.body).zip(document(&row.body));
    if pair.is_some_and(|(one, other)| one.is_same_as(&other)) {
        return Ok(true);
    }
    // `1h` and `60m` are the same span, and omitted members have their defaults.
    let definition = |text: &str| serde_json::from_str::<Definition>(text).ok();
    Ok(definition(&there.body).zip(definition(&row.body)).is_some_and(|(one, other)| one == other))
}

/// Rehearses a definition before it is registered, apart from what requests wait for and in turn with what else its
/// namespace has evaluated.
pub(crate) async fn admission(
    schemas: &Arc<Schemas>,
    namespace: &str,
    graph: &Arc<Graph>,
) -> Result<Rehearsed, Error> {
    check_defaults(schemas, namespace, &graph.definition).await?;
    let graph = Arc::clone(graph);
    match schemas.apart(namespace, move || admit(&graph)).await? {
        Some(Admission { refused, rehearsed }) if refused.is_empty() => Ok(rehearsed),
        Some(Admission { refused, .. }) => {
            Err(Error::Invalid { code: "invalid_definition", violations: refused })
        }
        None => Err(Error::Bug("the rehearsal of a definition failed".to_owned())),
    }
}

/// Goes through everything that can go wrong with a registered workflow, as far as a registration does.
pub(crate) async fn rehearsal(
    node: &Node,
    namespace: &str,
    name: &str,
    version: u32,
) -> Result<RehearsalView, Error> {
    let found = node.definitions.resolve(&node.database, namespace, name, Some(version)).await?;
    let graph = Arc::clone(&found.graph);
    match node.schemas.apart(namespace, move || rehearse_within(&graph)).await? {
        Some(Some(found)) => Ok(found.into()),
        Some(None) => {
            Ok(RehearsalView { workflow: name.to_owned(), version, ..RehearsalView::default() })
        }
        None => Err(Error::Bug("the rehearsal of a definition failed".to_owned())),
    }
}

/// Refuses a workflow without a registered version.
pub(crate) async fn must_be_known(
    database: &Database,
    namespace: &str,
    name: &str,
) -> Result<(), Error> {
    find(database, namespace, name, None).await.map(drop)
}

async fn find(
    database: &Database,
    namespace: &str,
    name: &str,
    version: Option<u32>,
) -> Result<DefinitionRow, Error> {
    let number = version.map(stored);
    let mut connection = database.reader(namespace).await?;
    let found = if name.contains('\0') {
        None
    } else {
        table::find(&mut connection, namespace, name, number).await?
    };
    found.ok_or_else(|| Error::NotFound {
        code: "unknown_workflow",
        message: match version {
            Some(version) => {
                format!("there is no version {version} of a workflow '{name}' in this namespace")
            }
            None => format!("there is no workflow '{name}' in this namespace"),
        },
    })
}

/// Returns one workflow version with its definition.
pub(crate) async fn view(
    database: &Database,
    namespace: &str,
    name: &str,
    version: Option<u32>,
) -> Result<WorkflowView, Error> {
    let row = find(database, namespace, name, version).await?;
    let definition = serde_json::from_str(&row.body)
        .map_err(|error| unreadable(name, row.version, &error.to_string()))?;
    Ok(WorkflowView { definition: Some(definition), ..view_of(row) })
}

/// Lists workflow versions without their definitions.
pub(crate) async fn list(
    database: &Database,
    namespace: &str,
    name: Option<&str>,
    after: Option<&str>,
    limit: u32,
) -> Result<Page<WorkflowView>, Error> {
    let after = after.map(Cursor::workflow).transpose()?;
    let limit = limit.clamp(1, 1_000) as usize;
    let mut connection = database.lister(namespace).await?;
    let mut rows = match name {
        Some(name) if name.contains('\0') => Vec::new(),
        _ => {
            let rows =
                table::list(&mut connection, namespace, name, after.as_ref(), limit as i64 + 1);
            listed(rows.await)?
        }
    };
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|row| Cursor::of_workflow(&row.name, row.version));
    Ok(Page { items: rows.into_iter().map(view_of).collect(), next })
}

fn view_of(row: DefinitionRow) -> WorkflowView {
    WorkflowView {
        name: row.name,
        version: u32::try_from(row.version).unwrap_or_default(),
        hash: row.hash,
        registered_at: Timestamp(row.registered_at),
        definition: None,
        retention: None,
        rehearsal: None,
        warnings: Vec::new(),
    }
}

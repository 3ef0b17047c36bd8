//! Transforms between versions of contracts: revisions, the active one, and tests with a trace.

mod what_if;

use backstitch_integration::contracts::{Schema, World};
use backstitch_integration::document::{read, value_of};
use backstitch_integration::transforms::{Limits, Outcome, Transform};
use backstitch_saga::protocol::{
    ActivateTransform, ContractState, Page, PutTransform, TestTransform, TransformLine,
    TransformRevision, TransformTest, TransformView,
};
use backstitch_saga::{By, Payload, Timestamp, Violation};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use sqlx::Connection;

use super::{LARGEST_TRANSFORM, is_name, number, state_of, unknown_contract, unknown_version};
use crate::acts::must_have_reason;
use crate::crash::commit;
use crate::cursor::Cursor;
use crate::node::Node;
use crate::store::acts::{self, Act, Thing};
use crate::store::contracts as contract_table;
use crate::store::listed;
use crate::store::transforms::{self as table, Edge, RevisionRow, TransformRow};
use crate::{Engine, Error, Registered};

pub use what_if::{MOST_SAMPLED, SAMPLED_BYTES};

/// Transforms that a namespace may have. Several that are created at the same instant may pass it by as many.
pub const MOST_TRANSFORMS: i64 = 2_000;
/// Revisions that a transform may have.
pub const MOST_REVISIONS: i32 = 200;
/// Bytes of a document that a transform is tested with.
pub const LARGEST_TESTED: usize = 262_144;
/// Bytes of a document that sources have sent.
const LARGEST_SAMPLE: usize = 5 * 1024 * 1024;
/// Number of times that a change is decided again because others changed the transform in between.
const TRIES: usize = 10;
/// Kind of cursors in the list of transforms.
const CURSOR: char = 'x';

/// Name of a transform from outside: subject and version of its source, subject and version of its target.
pub type TransformName<'a> = (&'a str, u32, &'a str, u32);

fn edge_of((from, from_version, to, to_version): TransformName<'_>) -> Result<Edge, Error> {
    for subject in [from, to] {
        if !is_name(subject) {
            return Err(unknown_contract(subject));
        }
    }
    let stored = |version: u32| i32::try_from(version).unwrap_or(0);
    Ok(Edge {
        from: from.to_owned(),
        from_version: stored(from_version),
        to: to.to_owned(),
        to_version: stored(to_version),
    })
}

fn words(edge: &Edge) -> String {
    format!("{}@{} to {}@{}", edge.from, edge.from_version, edge.to, edge.to_version)
}

fn unknown_transform(edge: &Edge) -> Error {
    Error::NotFound {
        code: "unknown_transform",
        message: format!("there is no transform from {} in this namespace", words(edge)),
    }
}

fn damaged(edge: &Edge) -> Error {
    Error::Conflict {
        code: "contract_damaged",
        message: format!(
            "the transform from {} or one of its contracts cannot be read; repair its row",
            words(edge)
        ),
    }
}

/// Reads the schema text of a version that may be used by something new.
async fn schema_text(
    node: &Node,
    namespace: &str,
    (subject, version): (&str, i32),
    may_be_retired: bool,
) -> Result<String, Error> {
    let mut connection = node.database.reader(namespace).await?;
    if contract_table::find(&mut connection, namespace, subject).await?.is_none() {
        return Err(unknown_contract(subject));
    }
    let row = contract_table::version(&mut connection, namespace, subject, version).await?;
    let row = row.ok_or_else(|| unknown_version(subject, number(version)))?;
    if !may_be_retired && state_of(&row.state)? == ContractState::Retired {
        return Err(Error::Conflict {
            code: "version_retired",
            message: format!("version {version} of '{subject}' is retired"),
        });
    }
    Ok(row.schema)
}

/// Both schemas of a transform, as they are stored.
struct Ends {
    edge: Edge,
    source: String,
    target: String,
}

async fn ends(node: &Node, namespace: &str, edge: &Edge, old: bool) -> Result<Ends, Error> {
    let source = schema_text(node, namespace, (&edge.from, edge.from_version), old).await?;
    let target = schema_text(node, namespace, (&edge.to, edge.to_version), old).await?;
    Ok(Ends { edge: edge.clone(), source, target })
}

/// Reads the schemas of both ends.
fn schemas(ends: &Ends) -> Result<(Schema, Schema), Error> {
    let schema = |text: &str| {
        let payload = Payload::trusted(text.to_owned()).ok()?;
        Schema::parse(&value_of(&payload).ok()?).ok()
    };
    let both = schema(&ends.source).zip(schema(&ends.target));
    both.ok_or_else(|| damaged(&ends.edge))
}

/// Reads a transform and checks it against both contracts.
fn checked((source, target): &(Schema, Schema), document: &Payload) -> Result<Transform, Error> {
    readable(document)?;
    let found = Transform::register(document, source, target);
    found.map_err(|violations| invalid("invalid_transform", "/transform", violations))
}

/// Refuses the text of a transform that cannot be kept, whatever its contracts are.
fn readable(transform: &Payload) -> Result<(), Error> {
    let wrong = |violation| invalid("invalid_transform", "/transform", vec![violation]);
    transform.check(LARGEST_TRANSFORM).map_err(wrong)
}

/// Makes an error of violations of a document at `at` in its request.
fn invalid(code: &'static str, at: &str, mut violations: Vec<Violation>) -> Error {
    violations.iter_mut().for_each(|one| one.pointer.insert_str(0, at));
    Error::Invalid { code, violations }
}

/// Maps a document and returns the action of each rule.
fn tested(ends: &Ends, transform: &Payload, ask: &TestTransform) -> Result<TransformTest, Error> {
    let schemas = schemas(ends)?;
    let transform = checked(&schemas, transform)?;
    let unlike = |violations| invalid("invalid_document", "/document", violations);
    let (_, document) = read(ask.document.text().as_bytes(), LARGEST_TESTED)
        .map_err(|violation| unlike(vec![violation]))?;
    let violations = schemas.0.violations(&document, World::Open);
    if !violations.is_empty() {
        return Err(unlike(violations));
    }
    let (outcome, trace) = transform.test(&document, &Limits::default());
    let payload = |result: Result<Payload, serde_json::Error>| {
        result.map_err(|error| Error::Bug(format!("a test of a transform: {error}")))
    };
    let trace = payload(Payload::of(&trace))?;
    Ok(match outcome {
        Outcome::Mapped(mapped) => TransformTest {
            mapped: true,
            result: Some(payload(Payload::of(&mapped))?),
            failures: None,
            trace,
        },
        Outcome::Failed(failures) => TransformTest {
            mapped: false,
            result: None,
            failures: Some(payload(Payload::of(&failures))?),
            trace,
        },
    })
}

impl Engine {
    /// Registers a revision of a transform, or finds that the newest is the same, and activates it if asked.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] `version_retired`; [`Error::Invalid`] `invalid_transform`;
    /// [`Error::Quota`]; [`Error::Busy`].
    pub async fn put_transform(
        &self,
        namespace: &str,
        name: TransformName<'_>,
        ask: PutTransform,
        by: &By,
    ) -> Result<(Registered, TransformView), Error> {
        let edge = edge_of(name)?;
        readable(&ask.transform)?;
        let ends = ends(self.node(), namespace, &edge, false).await?;
        let document = ask.transform.clone();
        let canonical = self
            .apart(namespace, move || {
                checked(&schemas(&ends)?, &document).map(|checked| checked.canonical().to_owned())
            })
            .await??;
        let digest = HEXLOWER.encode(&Sha256::digest(canonical));
        for _ in 0..TRIES {
            if let Some(registered) = self.try_put(namespace, &edge, (&ask, &digest), by).await? {
                return Ok((registered, self.transform(namespace, name).await?));
            }
        }
        Err(Error::Busy)
    }

    /// Writes a revision; `None` if the transform was changed in between.
    async fn try_put(
        &self,
        namespace: &str,
        edge: &Edge,
        (ask, digest): (&PutTransform, &str),
        by: &By,
    ) -> Result<Option<Registered>, Error> {
        let node = self.node();
        let mut connection = node.database.reader(namespace).await?;
        let before = table::find(&mut connection, namespace, edge).await?;
        let newest = match &before {
            Some(row) => table::revision(&mut connection, namespace, edge, row.newest).await?,
            None => None,
        };
        let is_same = newest.is_some_and(|newest| newest.digest == digest);
        if let Some(row) = &before
            && is_same
            && (!ask.activate || row.active == row.newest)
        {
            return Ok(Some(Registered::Unchanged));
        }
        let count = match &before {
            None => table::count(&mut connection, namespace, MOST_TRANSFORMS).await?,
            Some(_) => 0,
        };
        let after = before.as_ref().map_or(0, |row| row.newest) + i32::from(!is_same);
        check_room(count, after)?;
        let revision = after;
        let active = match &before {
            Some(row) if !ask.activate => row.active,
            _ => revision,
        };
        let row = TransformRow {
            edge: edge.clone(),
            newest: revision,
            active,
            changed_at: node.clock.now(),
            changed_by: by.actor.to_string(),
        };
        let mut transaction = connection.begin().await?;
        let stood = match &before {
            Some(old) => {
                let as_read = (old.newest, old.active);
                table::change(&mut transaction, namespace, &row, as_read).await?
            }
            None => table::create(&mut transaction, namespace, &row).await?,
        };
        if !stood {
            return Ok(None);
        }
        if !is_same {
            let new = RevisionRow {
                revision,
                digest: digest.to_owned(),
                document: ask.transform.text().to_owned(),
                registered_at: row.changed_at,
                registered_by: row.changed_by.clone(),
            };
            table::add_revision(&mut transaction, namespace, edge, &new).await?;
        }
        note(&mut transaction, namespace, &row, ("put", revision), by).await?;
        commit!("transforms_change", transaction.commit().await)?;
        Ok(Some(if is_same { Registered::Unchanged } else { Registered::Created }))
    }

    /// Uses a revision of a transform from now on.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Refused`] without a reason; [`Error::Busy`].
    pub async fn activate_transform(
        &self,
        namespace: &str,
        name: TransformName<'_>,
        ask: &ActivateTransform,
        by: &By,
    ) -> Result<TransformView, Error> {
        must_have_reason(by)?;
        let edge = edge_of(name)?;
        for _ in 0..TRIES {
            let node = self.node();
            let mut connection = node.database.reader(namespace).await?;
            let old = table::find(&mut connection, namespace, &edge).await?;
            let old = old.ok_or_else(|| unknown_transform(&edge))?;
            if number(old.active) == ask.revision {
                drop(connection);
                return self.transform(namespace, name).await;
            }
            if !(1..=number(old.newest)).contains(&ask.revision) {
                return Err(unknown_revision(&edge, ask.revision));
            }
            let active = i32::try_from(ask.revision).unwrap_or(0);
            let as_read = (old.newest, old.active);
            let (changed_at, changed_by) = (node.clock.now(), by.actor.to_string());
            let row = TransformRow { active, changed_at, changed_by, ..old };
            let mut transaction = connection.begin().await?;
            if table::change(&mut transaction, namespace, &row, as_read).await? {
                note(&mut transaction, namespace, &row, ("activate", active), by).await?;
                commit!("transforms_change", transaction.commit().await)?;
                drop(connection);
                return self.transform(namespace, name).await;
            }
        }
        Err(Error::Busy)
    }

    /// Maps a document by the active revision, another one, or a transform that is not registered; writes nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] `invalid_transform`, `invalid_document`; [`Error::Busy`].
    pub async fn test_transform(
        &self,
        namespace: &str,
        name: TransformName<'_>,
        ask: TestTransform,
    ) -> Result<TransformTest, Error> {
        let edge = edge_of(name)?;
        ask.transform.as_ref().map_or(Ok(()), readable)?;
        let unlike = |violation| invalid("invalid_document", "/document", vec![violation]);
        ask.document.check(LARGEST_TESTED).map_err(unlike)?;
        let ends = ends(self.node(), namespace, &edge, true).await?;
        let transform = match (&ask.transform, ask.revision) {
            (Some(transform), _) => transform.clone(),
            (None, revision) => self.stored_transform(namespace, &edge, revision).await?,
        };
        self.apart(namespace, move || tested(&ends, &transform, &ask)).await?
    }

    /// Reads a revision, the active one without a number.
    async fn stored_transform(
        &self,
        namespace: &str,
        edge: &Edge,
        revision: Option<u32>,
    ) -> Result<Payload, Error> {
        let mut connection = self.node().database.reader(namespace).await?;
        let row = table::find(&mut connection, namespace, edge).await?;
        let row = row.ok_or_else(|| unknown_transform(edge))?;
        let wanted = revision.unwrap_or_else(|| number(row.active));
        let stored = i32::try_from(wanted).unwrap_or(0);
        let found = table::revision(&mut connection, namespace, edge, stored).await?;
        let found = found.ok_or_else(|| unknown_revision(edge, wanted))?;
        Payload::trusted(found.document).map_err(|_| damaged(edge))
    }

    /// Shows a transform with its revisions.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn transform(
        &self,
        namespace: &str,
        name: TransformName<'_>,
    ) -> Result<TransformView, Error> {
        let edge = edge_of(name)?;
        let mut connection = self.node().database.reader(namespace).await?;
        let row = table::find(&mut connection, namespace, &edge).await?;
        let row = row.ok_or_else(|| unknown_transform(&edge))?;
        let revisions = table::revisions(&mut connection, namespace, &edge).await?;
        let active = table::revision(&mut connection, namespace, &edge, row.active).await?;
        let active = active.and_then(|active| Payload::trusted(active.document).ok());
        let shown = |row: RevisionRow| TransformRevision {
            revision: number(row.revision),
            digest: row.digest,
            registered_at: Timestamp(row.registered_at),
            registered_by: row.registered_by,
        };
        let active = active.ok_or_else(|| damaged(&edge))?;
        Ok(TransformView {
            from: row.edge.from,
            from_version: number(row.edge.from_version),
            to: row.edge.to,
            to_version: number(row.edge.to_version),
            active: number(row.active),
            newest: number(row.newest),
            changed_at: Timestamp(row.changed_at),
            changed_by: row.changed_by,
            transform: active,
            revisions: revisions.into_iter().map(shown).collect(),
        })
    }

    /// Lists transforms by source and target.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn transforms(
        &self,
        namespace: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<TransformLine>, Error> {
        let after = after.map(|text| Cursor::place(CURSOR, text, place)).transpose()?;
        let limit = limit.clamp(1, 1_000) as usize;
        let mut connection = self.node().database.lister(namespace).await?;
        let rows = table::list(&mut connection, namespace, after.as_ref(), limit as i64 + 1);
        let mut rows = listed(rows.await)?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|TransformRow { edge, .. }| {
            let Edge { from, from_version, to, to_version } = edge;
            Cursor::of(CURSOR, &format!("{from} {from_version} {to} {to_version}"))
        });
        Ok(Page { items: rows.into_iter().map(line).collect(), next })
    }
}

/// Checks that a namespace has room for a transform beside the `count` that are there, and a transform for a revision.
fn check_room(count: i64, revision: i32) -> Result<(), Error> {
    let (code, message) = if revision > MOST_REVISIONS {
        let message = format!(
            "a transform has at most {MOST_REVISIONS} revisions; begin a new version of its target"
        );
        ("transform_full", message)
    } else if count >= MOST_TRANSFORMS {
        let message =
            format!("a namespace has at most {MOST_TRANSFORMS} transforms; nothing was done");
        ("too_many_transforms", message)
    } else {
        return Ok(());
    };
    Err(Error::Quota { code, message, retry_after: None })
}

/// Reads the place of a cursor.
fn place(text: &str) -> Option<Edge> {
    let mut parts = text.split(' ');
    let edge = Edge {
        from: parts.next()?.to_owned(),
        from_version: parts.next()?.parse().ok()?,
        to: parts.next()?.to_owned(),
        to_version: parts.next()?.parse().ok()?,
    };
    parts.next().is_none().then_some(edge)
}

fn unknown_revision(edge: &Edge, revision: u32) -> Error {
    Error::NotFound {
        code: "unknown_revision",
        message: format!("the transform from {} has no revision {revision}", words(edge)),
    }
}

fn line(row: TransformRow) -> TransformLine {
    TransformLine {
        from: row.edge.from,
        from_version: number(row.edge.from_version),
        to: row.edge.to,
        to_version: number(row.edge.to_version),
        active: number(row.active),
        newest: number(row.newest),
        changed_at: Timestamp(row.changed_at),
        changed_by: row.changed_by,
    }
}

/// Writes down an act on a transform, under the subject of its target.
async fn note(
    transaction: &mut sqlx::postgres::PgConnection,
    namespace: &str,
    row: &TransformRow,
    (verb, revision): (&'static str, i32),
    by: &By,
) -> Result<(), Error> {
    let Edge { from, from_version, to, to_version } = &row.edge;
    let detail = format!(
        r#"{{"from":"{from}","from_version":{from_version},"to_version":{to_version},"transform":{revision},"active":{}}}"#,
        row.active
    );
    let act = Act {
        namespace,
        thing: Thing::Contract,
        name: to,
        at: row.changed_at,
        verb,
        by,
        detail: Some(detail),
    };
    Ok(acts::add(transaction, &act).await?)
}

#[cfg(test)]
mod tests;

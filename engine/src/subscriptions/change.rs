//! Requests of people about subscriptions, with their views.

use std::collections::BTreeMap;

use backstitch_integration::events::KeySource;
use backstitch_saga::By;
use backstitch_saga::protocol::{
    Page, PendingEvents, SubscriptionKind, SubscriptionSpec, SubscriptionState, SubscriptionStop,
    SubscriptionView, Warning,
};
use backstitch_saga::{Timestamp, Violation};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Postgres, Transaction};

use super::{MOST_BACKLOG, MOST_IN_FLIGHT, MOST_SUBSCRIPTIONS, filter_of};
use crate::crash::commit;
use crate::cursor::Cursor;
use crate::log::reached;
use crate::node::Node;
use crate::store::acts::{self, Act, Thing};
use crate::store::contracts::vendor;
use crate::store::index::one_snapshot;
use crate::store::listed;
use crate::store::log;
use crate::store::pending_events::keys as pending_keys;
use crate::store::subscriptions::{self as table, SubscriptionRow};
use crate::{Engine, Error};

/// The kind of the cursor of the list.
const CURSOR: char = 'u';

pub(super) fn unknown(name: &str) -> Error {
    let shown: String = name.chars().take(100).collect();
    Error::NotFound {
        code: "unknown_subscription",
        message: format!("there is no subscription '{shown}' in this namespace"),
    }
}

/// One change of a subscription.
pub(super) struct Change<'a> {
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) verb: &'static str,
    pub(super) by: &'a By,
}

impl Change<'_> {
    pub(super) async fn note(
        &self,
        node: &Node,
        connection: &mut PgConnection,
        detail: Option<String>,
    ) -> Result<(), Error> {
        let act = Act {
            namespace: self.namespace,
            thing: Thing::Subscription,
            name: self.name,
            at: node.clock.now(),
            verb: self.verb,
            by: self.by,
            detail,
        };
        Ok(acts::add(connection, &act).await?)
    }

    /// Begins a change: the row of the subscription is locked until the transaction ends.
    pub(super) async fn begin<'c>(
        &self,
        connection: &'c mut PgConnection,
    ) -> Result<(Transaction<'c, Postgres>, SubscriptionRow), Error> {
        let mut transaction = connection.begin().await?;
        let found = table::find_locked(&mut transaction, self.namespace, self.name).await?;
        let row = found.ok_or_else(|| unknown(self.name))?;
        if row.damaged && self.verb != "put" {
            let why = row.stop.map(|stop| stop.message).unwrap_or_default();
            let message = format!("the subscription cannot be read: {why}, or delete it");
            return Err(Error::Conflict { code: table::DAMAGED, message });
        }
        Ok((transaction, row))
    }

    /// Writes what was changed.
    pub(super) async fn finish(
        &self,
        node: &Node,
        mut transaction: Transaction<'_, Postgres>,
        mut row: SubscriptionRow,
        detail: Option<String>,
    ) -> Result<SubscriptionView, Error> {
        row.changed_at = node.clock.now();
        row.changed_by = self.by.actor.to_string();
        if !table::change(&mut transaction, &row).await? {
            return Err(Error::Busy);
        }
        self.note(node, &mut transaction, detail).await?;
        commit!("subscription_change", transaction.commit().await)?;
        node.log.wake_readers();
        row.stop = None;
        Ok(view(row))
    }

    /// Changes the subscription as `change` says; nothing is written when it says that nothing is to be done.
    pub(super) async fn make(
        &self,
        engine: &Engine,
        detail: Option<String>,
        change: impl FnOnce(&mut SubscriptionRow) -> Result<bool, Error>,
    ) -> Result<SubscriptionView, Error> {
        let node = engine.node();
        let mut connection = node.database.reader(self.namespace).await?;
        let (transaction, mut row) = self.begin(&mut connection).await?;
        if !change(&mut row)? {
            return Ok(view(row));
        }
        self.finish(node, transaction, row, detail).await
    }
}

impl Engine {
    /// Creates a subscription, or changes its configuration; it keeps its position. Returns whether it was
    /// created.
    ///
    /// # Errors
    /// [`Error::Invalid`] `invalid_subscription`; [`Error::Quota`]; [`Error::Busy`].
    pub async fn put_subscription(
        &self,
        namespace: &str,
        name: &str,
        spec: SubscriptionSpec,
        by: &By,
    ) -> Result<(SubscriptionView, bool), Error> {
        filter_of(&spec.filter)?;
        check_turns(&spec)?;
        let node = self.node();
        let detail = serde_json::to_string(&spec).map_err(|error| Error::Bug(error.to_string()))?;
        let change = Change { namespace, name, verb: "put", by };
        let mut connection = node.database.reader(namespace).await?;
        if spec.kind == SubscriptionKind::Consumer {
            names_no_vendor(&mut connection, namespace, &spec.filter.types).await?;
        }
        if table::find(&mut connection, namespace, name).await?.is_none() {
            let most = MOST_SUBSCRIPTIONS;
            if table::count(&mut connection, namespace, most).await? >= most {
                let message = format!("a namespace has at most {most} subscriptions");
                let code = "too_many_subscriptions";
                return Err(Error::Quota { code, message, retry_after: None });
            }
            let head = log::heads(&mut connection, namespace).await?.position;
            let place = ("invalid_subscription", "/from");
            let from = spec.from.map(|from| reached(from, head, place)).transpose()?;
            let row = SubscriptionRow {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                revision: 1,
                spec: SubscriptionSpec { from: None, ..spec.clone() },
                damaged: false,
                paused: false,
                generation: 1,
                position: from.unwrap_or(head),
                started: 0,
                skipped: 0,
                skips: BTreeMap::new(),
                pending: 0,
                stop: None,
                changed_at: node.clock.now(),
                changed_by: by.actor.to_string(),
                head,
            };
            let mut transaction = connection.begin().await?;
            if table::create(&mut transaction, &row).await? {
                change.note(node, &mut transaction, Some(detail)).await?;
                commit!("subscription_change", transaction.commit().await)?;
                node.log.wake_readers();
                return Ok((warned(node, namespace, view(row)).await, true));
            }
        }
        drop(connection);
        let spec = SubscriptionSpec { from: None, ..spec };
        let view = change
            .make(self, Some(detail), |row| {
                let changes = row.spec != spec;
                row.spec = spec;
                Ok(changes)
            })
            .await?;
        Ok((warned(node, namespace, view).await, false))
    }

    /// Finds a subscription.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn subscription(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<SubscriptionView, Error> {
        let mut connection = self.node().database.reader(namespace).await?;
        // Its numbers agree with each other.
        let mut snapshot = connection.begin().await?;
        one_snapshot(&mut snapshot).await?;
        let row = table::find(&mut snapshot, namespace, name).await?;
        let row = row.ok_or_else(|| unknown(name))?;
        let found = counted(self.node(), &mut snapshot, row).await?;
        snapshot.rollback().await?;
        drop(connection);
        Ok(warned(self.node(), namespace, found).await)
    }

    /// Lists subscriptions by name.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn subscriptions(
        &self,
        namespace: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<SubscriptionView>, Error> {
        let place = |text: &str| Some(text.to_owned());
        let after = after.map(|text| Cursor::place(CURSOR, text, place)).transpose()?;
        let limit = limit.clamp(1, 1_000) as usize;
        let mut connection = self.node().database.lister(namespace).await?;
        let beyond = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let after = after.unwrap_or_default();
        let rows = table::list(&mut connection, namespace, &after, beyond).await;
        let rows = listed(rows)?.into_iter().map(view).collect();
        Ok(crate::page::page(rows, limit, |last: &SubscriptionView| Cursor::of(CURSOR, &last.name)))
    }

    /// Deletes a subscription. Runs that it has started go on.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn delete_subscription(
        &self,
        namespace: &str,
        name: &str,
        by: &By,
    ) -> Result<(), Error> {
        let node = self.node();
        let mut connection = node.database.reader(namespace).await?;
        let mut transaction = connection.begin().await?;
        if !table::delete(&mut transaction, namespace, name).await? {
            return Err(unknown(name));
        }
        let change = Change { namespace, name, verb: "delete", by };
        change.note(node, &mut transaction, None).await?;
        Ok(commit!("subscription_change", transaction.commit().await)?)
    }
}

/// Refuses types that are contracts of vendors, or may be: their shapes are for mappers only.
async fn names_no_vendor(
    connection: &mut PgConnection,
    namespace: &str,
    types: &[String],
) -> Result<(), Error> {
    let mut wrong = Vec::new();
    for (at, wanted) in types.iter().enumerate().filter(|(_, wanted)| wanted.contains('.')) {
        let name = wanted.strip_suffix('*').unwrap_or(wanted);
        let is_prefix = name.len() < wanted.len();
        if let Some(subject) = vendor(connection, namespace, (name, is_prefix)).await? {
            let message = format!(
                "'{subject}' is the contract of a vendor, whose shape only mappers see; name a contract of our own that it is mapped to, or say \"kind\": \"mapper\""
            );
            wrong.push(Violation::new(format!("/filter/types/{at}"), "vendor_contract", message));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Error::Invalid { code: "invalid_subscription", violations: wrong })
}

/// Returns a subscription with the numbers of its pending events, and the age of the oldest event that started no run.
async fn counted(
    node: &Node,
    connection: &mut PgConnection,
    row: SubscriptionRow,
) -> Result<SubscriptionView, Error> {
    let counts = match row.pending > 0 || row.spec.has_turns() {
        true => Some(pending_keys::counts(connection, &row.namespace, &row.name).await?),
        false => None,
    };
    let next = (row.position < row.head).then_some(row.position.saturating_add(1));
    let oldest = match counts.and_then(|counts| counts.oldest).or(next) {
        Some(position) => log::at(connection, &row.namespace, &[position], 1).await?,
        None => Vec::new(),
    };
    let now = node.clock.now();
    let seconds = oldest.first().map(|event| {
        u64::try_from(now.0.saturating_sub(event.received_at.0) / 1_000).unwrap_or_default()
    });
    let pending = counts.map(|counts| PendingEvents {
        waiting: counts.waiting.unsigned_abs(),
        in_flight: counts.in_flight.unsigned_abs(),
        blocked: counts.blocked.unsigned_abs(),
    });
    Ok(SubscriptionView { behind_seconds: seconds, pending, ..view(row) })
}

/// Refuses a key that is none, and limits beyond what they may be.
fn check_turns(spec: &SubscriptionSpec) -> Result<(), Error> {
    let mut wrong = Vec::new();
    if let Some(Err(message)) = spec.key.as_deref().map(KeySource::parse) {
        wrong.push(Violation::new("/key", "key_not_valid", message));
    }
    for (place, limit, most) in [
        ("/max_in_flight", spec.max_in_flight, MOST_IN_FLIGHT),
        ("/max_backlog", spec.max_backlog, MOST_BACKLOG),
    ] {
        if limit.is_some_and(|limit| limit == 0 || limit > most) {
            let message = format!("it is 1 to {most}");
            wrong.push(Violation::new(place, "out_of_range", message));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Error::Invalid { code: "invalid_subscription", violations: wrong })
}

pub(super) fn view(row: SubscriptionRow) -> SubscriptionView {
    let state = match (row.paused, &row.stop) {
        (true, _) => SubscriptionState::Paused,
        (false, Some(_)) => SubscriptionState::Stopped,
        (false, None) => SubscriptionState::Active,
    };
    let stopped = row.stop.map(|stop| SubscriptionStop {
        position: stop.position.unsigned_abs(),
        code: stop.code,
        message: stop.message,
        since: Timestamp(stop.since),
    });
    SubscriptionView {
        name: row.name,
        state,
        spec: row.spec,
        generation: row.generation.unsigned_abs(),
        position: row.position.unsigned_abs(),
        behind: row.head.saturating_sub(row.position).max(0).unsigned_abs(),
        started: row.started.unsigned_abs(),
        skipped: row.skipped.unsigned_abs(),
        skipped_by_reason: row
            .skips
            .into_iter()
            .map(|(reason, count)| (reason, count.unsigned_abs()))
            .collect(),
        behind_seconds: None,
        pending: None,
        stopped,
        changed_at: Timestamp(row.changed_at),
        changed_by: row.changed_by,
        warnings: Vec::new(),
    }
}

/// Returns a subscription with what keeps it from starting runs: its workflow may be registered after it.
async fn warned(node: &Node, namespace: &str, view: SubscriptionView) -> SubscriptionView {
    let (workflow, version) = (&view.spec.workflow, view.spec.version);
    let found = node.definitions.resolve(&node.database, namespace, workflow, version).await;
    let warnings = match found {
        Err(Error::NotFound { code, message }) => {
            let pointer = if version.is_some() { "/version" } else { "/workflow" }.to_owned();
            let message =
                format!("{message}; the first event that it wants stops it until there is");
            vec![Warning { pointer, code: code.to_owned(), message }]
        }
        _ => Vec::new(),
    };
    SubscriptionView { warnings, ..view }
}

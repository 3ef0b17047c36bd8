//! Subscriptions: their specs and cursors. The writes of a dispatcher hold only as long as the subscription was not
//! changed.

use std::collections::BTreeMap;

use backstitch_integration::events::SkipReason;
use backstitch_saga::Time;
use backstitch_saga::protocol::SubscriptionSpec;
use serde::Serialize;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row};

use super::moment::Moment;
use super::nodes::is_gone;

/// A line of the table `subscription`, with the head of its log.
#[derive(Clone, Debug)]
pub(crate) struct SubscriptionRow {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) revision: i64,
    pub(crate) spec: SubscriptionSpec,
    /// The spec cannot be read and is empty: the subscription is stopped.
    pub(crate) damaged: bool,
    pub(crate) paused: bool,
    pub(crate) generation: i32,
    pub(crate) position: i64,
    pub(crate) started: i64,
    pub(crate) skipped: i64,
    pub(crate) stop: Option<Stop>,
    pub(crate) changed_at: Time,
    pub(crate) changed_by: String,
    pub(crate) head: i64,
    /// Its pending events.
    pub(crate) pending: i64,
    /// Numbers of events that were passed over, by reason.
    pub(crate) skips: BTreeMap<String, i64>,
}

impl SubscriptionRow {
    /// Counts events that are passed over.
    pub(crate) fn skip(&mut self, reason: SkipReason, count: i64) {
        if count > 0 {
            self.skipped += count;
            *self.skips.entry(reason.name().to_owned()).or_default() += count;
        }
    }
}

/// The event whose start is refused.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    pub(crate) position: i64,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) since: Time,
}

const COLUMNS: &str = "s.namespace, s.name, s.revision, s.spec, s.state = 'paused', s.generation, s.position, s.started, \
    s.skipped, s.stopped_at, s.stopped_code, s.stopped_message, s.stopped_since, s.changed_at, s.changed_by, \
    coalesce(h.position, 0), s.pending, s.skips";

/// Says when a subscription has something to do: events after its cursor, or pending ones of which something was heard, or that
/// are to be looked at. Takes the parameters of the instant, and of the namespaces and names of which something was heard.
fn due(now: &str, (namespaces, names): (&str, &str), dead_after: &str) -> String {
    let gone = is_gone("s.taken_by", dead_after);
    format!(
        "s.state = 'active' and (s.taken_until is null or s.taken_until <= {now} or {gone}) \
         and ((s.position < h.position and (s.retry_at is null or s.retry_at <= {now})) or s.look_at <= {now} \
           or (s.pending > 0 and exists (select from unnest({namespaces}::text[], {names}::text[]) as r(namespace, name) \
             where r.namespace = s.namespace and r.name = s.name)))"
    )
}

/// The code of a subscription whose spec cannot be read.
pub(crate) const DAMAGED: &str = "subscription_damaged";
/// Substitute for a spec that cannot be read.
const NOTHING: &str = r#"{"workflow":""}"#;

fn subscription_row(row: &PgRow) -> Result<SubscriptionRow, sqlx::Error> {
    let text: String = row.try_get(3)?;
    let read = serde_json::from_str::<SubscriptionSpec>;
    let (spec, why) = match read(&text) {
        Ok(spec) => (spec, None),
        Err(why) => {
            let nothing = read(NOTHING).map_err(|error| sqlx::Error::Decode(error.into()))?;
            (nothing, Some(why.to_string()))
        }
    };
    let stopped_at: Option<i64> = row.try_get(9)?;
    let stop = match stopped_at {
        Some(position) => {
            let since: Option<Moment> = row.try_get(12)?;
            let text =
                |at: usize| row.try_get::<Option<String>, _>(at).map(Option::unwrap_or_default);
            Some(Stop {
                position,
                code: text(10)?,
                message: text(11)?,
                since: since.map_or(Time(0), |Moment(at)| at),
            })
        }
        None => None,
    };
    let (position, Moment(changed_at)) = (row.try_get(6)?, row.try_get(13)?);
    let (damaged, skips) = (why.is_some(), row.try_get::<String, _>(17)?);
    let stop = match why {
        Some(why) => Some(Stop {
            position: i64::saturating_add(position, 1),
            code: DAMAGED.to_owned(),
            message: format!("table subscription, column spec: {why}; put the subscription again"),
            since: stop.map_or(changed_at, |stop| stop.since),
        }),
        None => stop,
    };
    Ok(SubscriptionRow {
        namespace: row.try_get(0)?,
        name: row.try_get(1)?,
        revision: row.try_get(2)?,
        spec,
        damaged,
        paused: row.try_get(4)?,
        generation: row.try_get(5)?,
        position,
        started: row.try_get(7)?,
        skipped: row.try_get(8)?,
        stop,
        changed_at,
        changed_by: row.try_get(14)?,
        head: row.try_get(15)?,
        pending: row.try_get(16)?,
        // Counts that cannot be read begin again.
        skips: serde_json::from_str(&skips).unwrap_or_default(),
    })
}

/// Finds a subscription.
pub(crate) async fn find(
    connection: &mut PgConnection,
    namespace: &str,
    name: &str,
) -> Result<Option<SubscriptionRow>, sqlx::Error> {
    let text = format!(
        "-- subscription_find\n\
         select {COLUMNS} from subscription s left join log_head h on h.namespace = s.namespace \
         where s.namespace = $1 and s.name = $2"
    );
    let query = sqlx::query(AssertSqlSafe(text)).bind(namespace).bind(name);
    query.fetch_optional(connection).await?.as_ref().map(subscription_row).transpose()
}

/// Finds a subscription, and locks its row until the transaction ends.
pub(crate) async fn find_locked(
    connection: &mut PgConnection,
    namespace: &str,
    name: &str,
) -> Result<Option<SubscriptionRow>, sqlx::Error> {
    let text = format!(
        "-- subscription_find_locked\n\
         select {COLUMNS} from subscription s left join log_head h on h.namespace = s.namespace \
         where s.namespace = $1 and s.name = $2 for update of s"
    );
    let query = sqlx::query(AssertSqlSafe(text)).bind(namespace).bind(name);
    query.fetch_optional(connection).await?.as_ref().map(subscription_row).transpose()
}

/// Lists subscriptions of a namespace by name, after one of them.
pub(crate) async fn list(
    connection: &mut PgConnection,
    namespace: &str,
    after: &str,
    limit: i64,
) -> Result<Vec<SubscriptionRow>, sqlx::Error> {
    let text = format!(
        "-- subscription_list\n\
         select {COLUMNS} from subscription s left join log_head h on h.namespace = s.namespace \
         where s.namespace = $1 and s.name > $2 order by s.name limit $3"
    );
    let query = sqlx::query(AssertSqlSafe(text)).bind(namespace).bind(after).bind(limit);
    query.fetch_all(connection).await?.iter().map(subscription_row).collect()
}

/// Counts the subscriptions of a namespace, up to `most`.
pub(crate) async fn count(
    connection: &mut PgConnection,
    namespace: &str,
    most: i64,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "-- subscription_count\n\
         select count(*) from (select 1 from subscription where namespace = $1 limit $2) n",
    )
    .bind(namespace)
    .bind(most)
    .fetch_one(connection)
    .await
}

/// Creates a subscription. Returns whether it did not exist.
pub(crate) async fn create(
    connection: &mut PgConnection,
    row: &SubscriptionRow,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "-- subscription_create\n\
         insert into subscription (namespace, name, spec, state, position, changed_at, changed_by) \
         values ($1, $2, $3, 'active', $4, $5, $6) on conflict do nothing",
    )
    .bind(&row.namespace)
    .bind(&row.name)
    .bind(json(&row.spec)?)
    .bind(row.position)
    .bind(Moment(row.changed_at))
    .bind(&row.changed_by)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Changes a subscription by a person's request, if it is still at the revision of `row`. The event at which
/// it stopped is tried again.
pub(crate) async fn change(
    connection: &mut PgConnection,
    row: &SubscriptionRow,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "-- subscription_change\n\
         update subscription set revision = revision + 1, spec = $4, state = $5, generation = $6, position = $7, \
         stopped_at = null, stopped_code = null, stopped_message = null, stopped_since = null, retry_at = null, \
         taken_by = null, taken_until = null, changed_at = $8, changed_by = $9, \
         pending = $10, skipped = $11, skips = $12, look_at = case when $10 > 0 then $8::timestamptz end \
         where namespace = $1 and name = $2 and revision = $3",
    )
    .bind(&row.namespace)
    .bind(&row.name)
    .bind(row.revision)
    .bind(json(&row.spec)?)
    .bind(if row.paused { "paused" } else { "active" })
    .bind(row.generation)
    .bind(row.position)
    .bind(Moment(row.changed_at))
    .bind(&row.changed_by)
    .bind(row.pending)
    .bind(row.skipped)
    .bind(json(&row.skips)?)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Deletes a subscription. Returns whether it was there.
pub(crate) async fn delete(
    connection: &mut PgConnection,
    namespace: &str,
    name: &str,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "-- subscription_delete\n\
         with pending as (delete from subscription_event where namespace = $1 and name = $2), \
         skipped as (delete from subscription_skip where namespace = $1 and name = $2) \
         delete from subscription where namespace = $1 and name = $2",
    )
    .bind(namespace)
    .bind(name)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) fn json(value: &impl Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// State of subscriptions.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Standing {
    /// Those that have something to do now.
    pub(crate) due: i64,
    pub(crate) stopped: i64,
    /// Events that the one which is furthest behind has not dealt with.
    pub(crate) behind: i64,
    /// Events that were taken up and are not finished.
    pub(crate) pending: i64,
}

/// Subscriptions of which something was heard: their namespaces and names.
pub(crate) type Heard<'a> = (&'a [String], &'a [String]);

/// Returns the state of subscriptions at `now`.
pub(crate) async fn standing(
    connection: &mut PgConnection,
    now: Time,
    heard: Heard<'_>,
    dead_after: i64,
) -> Result<Standing, sqlx::Error> {
    let text = format!(
        "-- subscription_standing\n\
         select count(*) filter (where {}), count(s.stopped_at), coalesce(max(h.position - s.position), 0), \
         coalesce(sum(s.pending), 0)::bigint \
         from subscription s join log_head h on h.namespace = s.namespace where s.state = 'active'",
        due("$1", ("$2", "$3"), "$4")
    );
    let row = sqlx::query(AssertSqlSafe(text))
        .bind(Moment(now))
        .bind(heard.0)
        .bind(heard.1)
        .bind(dead_after)
        .fetch_one(connection)
        .await?;
    let (due, stopped) = (row.try_get(0)?, row.try_get(1)?);
    Ok(Standing { due, stopped, behind: row.try_get(2)?, pending: row.try_get(3)? })
}

/// Takes subscriptions that have something to do, those first that waited longest, so that no other node does before
/// `until`. Those of a node that has died or left are free at once.
pub(crate) async fn take(
    connection: &mut PgConnection,
    (node, dead_after): (i32, i64),
    (now, until): (Time, Time),
    limit: i64,
    heard: Heard<'_>,
) -> Result<Vec<SubscriptionRow>, sqlx::Error> {
    let text = format!(
        "-- subscription_take\n\
         with picked as (select s.namespace, s.name, h.position from subscription s \
           join log_head h on h.namespace = s.namespace where {} \
           order by s.taken_until nulls first, s.namespace, s.name limit $4 for update of s skip locked) \
         update subscription s set taken_by = $1, taken_until = $3 from picked h \
         where s.namespace = h.namespace and s.name = h.name returning {COLUMNS}",
        due("$2", ("$5", "$6"), "$7")
    );
    let rows = sqlx::query(AssertSqlSafe(text))
        .bind(node)
        .bind(Moment(now))
        .bind(Moment(until))
        .bind(limit)
        .bind(heard.0)
        .bind(heard.1)
        .bind(dead_after)
        .fetch_all(connection)
        .await?;
    rows.iter().map(subscription_row).collect()
}

/// Finds subscriptions with events after their cursors that nobody works on and that stand at none.
pub(crate) async fn waiting(
    connection: &mut PgConnection,
    now: Time,
    limit: i64,
) -> Result<Vec<SubscriptionRow>, sqlx::Error> {
    let text = format!(
        "-- subscription_waiting\n\
         select {COLUMNS} from subscription s join log_head h on h.namespace = s.namespace \
         where s.state = 'active' and s.position < h.position and s.stopped_at is null and s.retry_at is null \
         and (s.taken_until is null or s.taken_until <= $1) order by s.namespace, s.position, s.name limit $2"
    );
    let query = sqlx::query(AssertSqlSafe(text)).bind(Moment(now)).bind(limit);
    query.fetch_all(connection).await?.iter().map(subscription_row).collect()
}

/// A cursor that is moved past events that are not wanted.
#[derive(Debug)]
pub(crate) struct Move {
    pub(crate) row: SubscriptionRow,
    pub(crate) position: i64,
}

/// Moves cursors of subscriptions that are still as they were read, and that nobody has locked.
pub(crate) async fn move_past(
    connection: &mut PgConnection,
    moves: &[Move],
    now: Time,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- subscription_pass\n\
         with free as (select s.namespace, s.name, m.after from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[]) \
             as m(namespace, name, revision, before, after) \
           join subscription s on s.namespace = m.namespace and s.name = m.name and s.revision = m.revision and s.position = m.before \
           where s.state = 'active' and (s.taken_until is null or s.taken_until <= $6) for update of s skip locked) \
         update subscription s set position = f.after from free f where s.namespace = f.namespace and s.name = f.name",
    )
    .bind(moves.iter().map(|one| one.row.namespace.as_str()).collect::<Vec<_>>())
    .bind(moves.iter().map(|one| one.row.name.as_str()).collect::<Vec<_>>())
    .bind(moves.iter().map(|one| one.row.revision).collect::<Vec<_>>())
    .bind(moves.iter().map(|one| one.row.position).collect::<Vec<_>>())
    .bind(moves.iter().map(|one| one.position).collect::<Vec<_>>())
    .bind(Moment(now))
    .execute(connection)
    .await?;
    Ok(())
}

/// Returns those of the subscriptions of which something was heard that have pending events.
pub(crate) async fn pending_among(
    connection: &mut PgConnection,
    heard: Heard<'_>,
) -> Result<Vec<(String, String)>, sqlx::Error> {
    if heard.0.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(
        "-- subscription_pending_among\n\
         select s.namespace, s.name from unnest($1::text[], $2::text[]) as r(namespace, name) \
         join subscription s on s.namespace = r.namespace and s.name = r.name \
         where s.state = 'active' and s.pending > 0 and s.stopped_at is null",
    )
    .bind(heard.0)
    .bind(heard.1)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Lets a subscription go that a node had taken, until `again_at`.
pub(crate) async fn let_go(
    connection: &mut PgConnection,
    node: i32,
    (namespace, name): (&str, &str),
    again_at: Time,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- subscription_let_go\n\
         update subscription set taken_by = null, taken_until = $4 where namespace = $1 and name = $2 and taken_by = $3",
    )
    .bind(namespace)
    .bind(name)
    .bind(node)
    .bind(Moment(again_at))
    .execute(connection)
    .await?;
    Ok(())
}

/// Progress of a dispatcher.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) position: i64,
    pub(crate) started: i64,
    /// Positions of events that are trusted too little.
    pub(crate) skipped: Vec<i64>,
    /// The event whose start is refused, and when it is tried again.
    pub(crate) stop: Option<(Stop, Time)>,
    /// Time at which to go on, if the starts could not be answered.
    pub(crate) again_at: Option<Time>,
}

/// Moves the cursor of a subscription that was taken, if it was not changed in between. The next node that takes it
/// goes on there.
pub(crate) async fn advance(
    connection: &mut PgConnection,
    row: &SubscriptionRow,
    progress: &Progress,
    now: Time,
) -> Result<bool, sqlx::Error> {
    let (stop, retry_at) = match &progress.stop {
        Some((stop, retry_at)) => (Some(stop), Some(*retry_at)),
        None => (None, progress.again_at),
    };
    let mut counted = row.clone();
    counted.skip(
        SkipReason::TrustBelowMinimum,
        i64::try_from(progress.skipped.len()).unwrap_or(i64::MAX),
    );
    let moved: i64 = sqlx::query_scalar(
        "-- subscription_advance\n\
         with moved as (update subscription set position = $5, started = started + $6, skipped = $7, stopped_at = $8, \
           stopped_code = $9, stopped_message = $10, stopped_since = $11, retry_at = $12, taken_by = null, taken_until = $13, \
           skips = $14 where namespace = $1 and name = $2 and revision = $3 and position = $4 returning generation), \
         listed as (insert into subscription_skip (namespace, name, generation, position, reason, at) \
           select $1, $2, m.generation, s.position, $15, $13 from moved m cross join unnest($16::bigint[]) as s(position) \
           on conflict do nothing) \
         select count(*) from moved",
    )
    .bind(&row.namespace)
    .bind(&row.name)
    .bind(row.revision)
    .bind(row.position)
    .bind(progress.position)
    .bind(progress.started)
    .bind(counted.skipped)
    .bind(stop.map(|stop| stop.position))
    .bind(stop.map(|stop| stop.code.as_str()))
    .bind(stop.map(|stop| stop.message.as_str()))
    .bind(stop.map(|stop| Moment(stop.since)))
    .bind(retry_at.map(Moment))
    // In the past: it is free, and has its turn after those that were not taken for longer.
    .bind(Moment(now))
    .bind(json(&counted.skips)?)
    .bind(SkipReason::TrustBelowMinimum.name())
    .bind(&progress.skipped)
    .fetch_one(connection)
    .await?;
    Ok(moved == 1)
}

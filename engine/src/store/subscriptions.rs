//! Subscriptions: their specs and cursors. The writes of a dispatcher hold only as long as the subscription was not
//! changed.

use backstitch_saga::Time;
use backstitch_saga::protocol::SubscriptionSpec;
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
    coalesce(h.position, 0)";

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
    let damaged = why.is_some();
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
    .bind(text(&row.spec)?)
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
         taken_by = null, taken_until = null, changed_at = $8, changed_by = $9 \
         where namespace = $1 and name = $2 and revision = $3",
    )
    .bind(&row.namespace)
    .bind(&row.name)
    .bind(row.revision)
    .bind(text(&row.spec)?)
    .bind(if row.paused { "paused" } else { "active" })
    .bind(row.generation)
    .bind(row.position)
    .bind(Moment(row.changed_at))
    .bind(&row.changed_by)
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
        "-- subscription_delete\ndelete from subscription where namespace = $1 and name = $2",
    )
    .bind(namespace)
    .bind(name)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

fn text(spec: &SubscriptionSpec) -> Result<String, sqlx::Error> {
    serde_json::to_string(spec).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// State of subscriptions.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Standing {
    /// Those that have events to deal with now.
    pub(crate) due: i64,
    pub(crate) stopped: i64,
    /// Events that the one which is furthest behind has not dealt with.
    pub(crate) behind: i64,
}

/// Returns the state of subscriptions at `now`.
pub(crate) async fn standing(
    connection: &mut PgConnection,
    now: Time,
    dead_after: i64,
) -> Result<Standing, sqlx::Error> {
    let gone = is_gone("s.taken_by", "$2");
    let text = format!(
        "-- subscription_standing\n\
         select count(*) filter (where s.position < h.position and (s.retry_at is null or s.retry_at <= $1) \
           and (s.taken_until is null or s.taken_until <= $1 or {gone})), count(s.stopped_at), \
         coalesce(max(h.position - s.position), 0) \
         from subscription s join log_head h on h.namespace = s.namespace where s.state = 'active'"
    );
    let query = sqlx::query(AssertSqlSafe(text)).bind(Moment(now)).bind(dead_after);
    let row = query.fetch_one(connection).await?;
    Ok(Standing { due: row.try_get(0)?, stopped: row.try_get(1)?, behind: row.try_get(2)? })
}

/// Takes subscriptions that have events to deal with, those first that waited longest, so that no other node does
/// before `until`. Those of a node that has died or left are free at once.
pub(crate) async fn take(
    connection: &mut PgConnection,
    (node, dead_after): (i32, i64),
    (now, until): (Time, Time),
    limit: i64,
) -> Result<Vec<SubscriptionRow>, sqlx::Error> {
    let gone = is_gone("s.taken_by", "$5");
    let text = format!(
        "-- subscription_take\n\
         with picked as (select s.namespace, s.name, h.position from subscription s \
           join log_head h on h.namespace = s.namespace \
           where s.state = 'active' and s.position < h.position and (s.retry_at is null or s.retry_at <= $2) \
           and (s.taken_until is null or s.taken_until <= $2 or {gone}) \
           order by s.taken_until nulls first, s.namespace, s.name limit $4 for update of s skip locked) \
         update subscription s set taken_by = $1, taken_until = $3 from picked h \
         where s.namespace = h.namespace and s.name = h.name returning {COLUMNS}"
    );
    let rows = sqlx::query(AssertSqlSafe(text))
        .bind(node)
        .bind(Moment(now))
        .bind(Moment(until))
        .bind(limit)
        .bind(dead_after)
        .fetch_all(connection)
        .await?;
    rows.iter().map(subscription_row).collect()
}

/// Progress of a dispatcher.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) position: i64,
    pub(crate) started: i64,
    pub(crate) skipped: i64,
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
    let done = sqlx::query(
        "-- subscription_advance\n\
         update subscription set position = $5, started = started + $6, skipped = skipped + $7, stopped_at = $8, \
         stopped_code = $9, stopped_message = $10, stopped_since = $11, retry_at = $12, taken_by = null, taken_until = $13 \
         where namespace = $1 and name = $2 and revision = $3 and position = $4",
    )
    .bind(&row.namespace)
    .bind(&row.name)
    .bind(row.revision)
    .bind(row.position)
    .bind(progress.position)
    .bind(progress.started)
    .bind(progress.skipped)
    .bind(stop.map(|stop| stop.position))
    .bind(stop.map(|stop| stop.code.as_str()))
    .bind(stop.map(|stop| stop.message.as_str()))
    .bind(stop.map(|stop| Moment(stop.since)))
    .bind(retry_at.map(Moment))
    // In the past: it is free, and has its turn after those that were not taken for longer.
    .bind(Moment(now))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

//! Pending events of subscriptions that may have come to an end.

use backstitch_integration::events::Standing;
use backstitch_saga::protocol::Outcome;
use backstitch_saga::{RunId, Time};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use super::Place;
use crate::store::moment::Moment;
use crate::store::subscriptions::SubscriptionRow;

/// Largest number of pending events in one state that are judged together.
pub(crate) const JUDGED: usize = 1_000;

/// A pending event that may have come to an end.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) place: Place,
    pub(crate) key: Option<String>,
    pub(crate) blocked: bool,
    pub(crate) run: Option<RunId>,
    pub(crate) standing: Standing,
    pub(crate) incident: Option<i32>,
    /// Code and message of the refusal of its start, or message of its incident.
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
}

/// Finds pending events that have ended, need a person or do so no longer, or whose starts are to be tried again; the blocked ones that
/// stay as they are only if `all`.
pub(crate) async fn find(
    connection: &mut PgConnection,
    row: &SubscriptionRow,
    all: bool,
    now: Time,
) -> Result<Vec<Candidate>, sqlx::Error> {
    let of = |state: &str, when: &str| {
        format!(
            "(select e.generation, e.position, e.key, e.state = 'blocked', e.run_id, r.id is not null, r.outcome, i.incident, \
             e.code, coalesce(i.message, e.message) \
             from subscription_event e \
             left join lateral (select r.id, r.outcome, 'IncidentOpen' = any(r.conditions) as needs, coalesce(r.outcome in \
               ('failed_clean', 'failed_dirty', 'compensated', 'compensated_with_manual_steps'), false) as failed \
               from runs r where r.id = e.run_id) r on true \
             left join lateral (select i.incident, i.message from incidents i \
               where r.needs and i.run_id = e.run_id and i.resolved_at is null order by i.incident limit 1) i on true \
             where e.namespace = $1 and e.name = $2 and e.state = '{state}' and ({when}) order by e.generation, e.position limit $5)"
        )
    };
    // Each state by its index, however much waits.
    let text = format!(
        "-- pending_candidates\n{} union all {}",
        of("started", "r.id is null or r.outcome is not null or r.needs"),
        of(
            "blocked",
            "$3 or (e.run_id is null and e.retry_at <= $4) \
             or (r.id is not null and not r.failed and (r.outcome is not null or not r.needs))"
        )
    );
    let rows = sqlx::query(AssertSqlSafe(text))
        .bind(&row.namespace)
        .bind(&row.name)
        .bind(all)
        .bind(Moment(now))
        .bind(i64::try_from(JUDGED).unwrap_or(i64::MAX))
        .fetch_all(connection)
        .await?;
    rows.iter().map(candidate).collect()
}

fn candidate(row: &PgRow) -> Result<Candidate, sqlx::Error> {
    let (blocked, run): (bool, Option<Uuid>) = (row.try_get(3)?, row.try_get(4)?);
    let (outcome, incident): (Option<String>, Option<i32>) = (row.try_get(6)?, row.try_get(7)?);
    let read = |text: String| serde_json::from_value::<Outcome>(serde_json::Value::String(text));
    let outcome = outcome.map(read).transpose();
    let outcome = outcome.map_err(|error| sqlx::Error::Decode(error.into()))?;
    let standing = match run {
        None if blocked => Standing::Refused,
        _ => Standing::of(row.try_get(5)?, outcome, incident.is_some()),
    };
    Ok(Candidate {
        place: (row.try_get(0)?, row.try_get(1)?),
        key: row.try_get(2)?,
        blocked,
        run: run.map(RunId),
        standing,
        incident,
        code: row.try_get(8)?,
        message: row.try_get(9)?,
    })
}

//! Starts that applications asked for in their own transactions: the table `start_requests`.

use backstitch_saga::protocol::{Decision, Refused, StartRequestState, StartRequestView};
use backstitch_saga::{By, Payload, RunId, Time, Timestamp};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::moment::{Moment, beyond};
use super::spaces::{Found, Waiting, share};

/// A start as it was asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) id: Uuid,
    pub(crate) run: RunId,
    pub(crate) namespace: String,
    pub(crate) workflow: String,
    pub(crate) version: Option<i32>,
    pub(crate) key: Option<String>,
    pub(crate) input: String,
    pub(crate) correlation_id: Option<String>,
    /// A JSON object of texts, if the caller took care.
    pub(crate) labels: Option<String>,
    /// The later instant at which it is to begin.
    pub(crate) start_at: Option<Time>,
    /// The number of this try; more than 1 if a node died during an earlier one.
    pub(crate) tries: i32,
}

/// Requests that wait, by namespace.
const WAITING: Waiting = Waiting {
    table: "start_requests",
    when: "state = 'waiting'",
    by: "id",
    due: "true",
    spaces: 64,
};
/// Number of the oldest of a namespace that are searched for one that was tried.
const LOOKED_AT: i32 = 2_000;

/// Returns the statement `start_requests_reserve`.
pub(crate) fn start_requests_reserve() -> String {
    format!(
        "-- start_requests_reserve\n{}, \
         found as (select f.id from due d cross join lateral (\
           select g.id, sum(g.size) over (order by g.id) - g.size as before from (\
             select r.id, octet_length(r.input) as size from start_requests r \
             where r.namespace = d.namespace and r.state = 'waiting' and r.tries = 0 \
             and (r.reserved_until is null or r.reserved_until <= $3 or r.reserved_until > $8) order by r.id limit {} \
             for update skip locked) g) f where f.before < {}), \
         again as (select a.id from (select namespace from due order by namespace <= $7, namespace) d cross join lateral (select w.id from (select r.id, r.tries, r.reserved_until \
             from start_requests r where r.namespace = d.namespace and r.state = 'waiting' \
             order by r.id limit {LOOKED_AT}) w \
           where w.tries > 0 and (w.reserved_until is null or w.reserved_until <= $3 or w.reserved_until > $8) order by w.id limit 1) a limit 1), \
         taken as (update start_requests r set reserved_by = $2, reserved_until = $4, tries = tries + 1 \
           where r.id = any(array(select id from found) || array(select id from again)) and r.state = 'waiting' \
           and (r.reserved_until is null or r.reserved_until <= $3 or r.reserved_until > $8) returning r.*) \
         select t.last, r.id, r.run_id, r.namespace, r.workflow, r.version, r.key, r.input, r.correlation_id, r.labels, \
           r.tries, r.start_at from turn t left join taken r on true",
        WAITING.due_spaces(),
        share("$5"),
        share("$6"),
    )
}

/// Reserves waiting requests that no node holds, in turns between the namespaces after `after`, oldest first: up to
/// `limit` that were never tried, and one that was, of the first namespace after `again_after` that has one. Of the
/// former only as many as have inputs of about `bytes` together. The try is counted before it is made.
pub(crate) async fn reserve(
    connection: &mut PgConnection,
    node: i32,
    (now, until): (Time, Time),
    (limit, bytes): (i64, i64),
    (after, again_after): (&str, &str),
) -> Result<Found<Asked>, sqlx::Error> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(start_requests_reserve()))
        .bind(after)
        .bind(node)
        .bind(Moment(now))
        .bind(Moment(until))
        .bind(limit)
        .bind(bytes)
        .bind(again_after)
        .bind(Moment(beyond(until)))
        .fetch_all(connection)
        .await?;
    Found::read(&rows, |row| {
        Ok(Asked {
            id: row.try_get(1)?,
            run: RunId(row.try_get(2)?),
            namespace: row.try_get(3)?,
            workflow: row.try_get(4)?,
            version: row.try_get(5)?,
            key: row.try_get(6)?,
            input: row.try_get(7)?,
            correlation_id: row.try_get(8)?,
            labels: row.try_get(9)?,
            tries: row.try_get(10)?,
            start_at: row.try_get::<Option<Moment>, _>(11)?.map(|Moment(at)| at),
        })
    })
}

/// Deletes requests whose runs have begun.
pub(crate) async fn started(
    connection: &mut PgConnection,
    requests: &[Uuid],
) -> Result<(), sqlx::Error> {
    sqlx::query("-- start_requests_started\ndelete from start_requests where id = any($1)")
        .bind(requests)
        .execute(connection)
        .await?;
    Ok(())
}

/// Puts requests back: they are tried again at `at`, as if for the first time.
pub(crate) async fn put_back(
    connection: &mut PgConnection,
    requests: &[Uuid],
    at: Time,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- start_requests_put_back\n\
         update start_requests set reserved_until = $2, tries = 0 where id = any($1) and state = 'waiting'",
    )
    .bind(requests)
    .bind(Moment(at))
    .execute(connection)
    .await?;
    Ok(())
}

/// Keeps why requests were refused: `refusals[i]` is JSON.
pub(crate) async fn refuse(
    connection: &mut PgConnection,
    requests: &[Uuid],
    refusals: &[String],
    at: Time,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- start_requests_refuse\n\
         update start_requests r set state = 'refused', refusal = x.refusal, refused_at = $3, reserved_by = null, \
         reserved_until = null, tries = 0 from unnest($1::uuid[], $2::text[]) as x(id, refusal) \
         where r.id = x.id and r.state = 'waiting'",
    )
    .bind(requests)
    .bind(refusals)
    .bind(Moment(at))
    .execute(connection)
    .await?;
    Ok(())
}

/// Decides about a request that was refused: it waits again, or is dismissed. Returns whether there was one to decide
/// about.
pub(crate) async fn decide(
    connection: &mut PgConnection,
    namespace: &str,
    request: Uuid,
    state: StartRequestState,
    by: &By,
    at: Time,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "-- start_requests_decide\n\
         update start_requests set state = $3, decided_by = $4, decision_reason = $5, decided_at = $6 \
         where namespace = $1 and id = $2 and state in ('refused', 'dismissed') and state <> $3",
    )
    .bind(namespace)
    .bind(request)
    .bind(state.as_str())
    .bind(&*by.actor)
    .bind(&by.reason)
    .bind(Moment(at))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

const COLUMNS: &str = "id, run_id, workflow, version, key, correlation_id, labels, requested_at, state, refusal, \
     refused_at, decided_by, decision_reason, decided_at";

/// Returns one request, with its input.
pub(crate) async fn find(
    connection: &mut PgConnection,
    namespace: &str,
    request: Uuid,
) -> Result<Option<StartRequestView>, sqlx::Error> {
    let text = format!(
        "-- start_requests_find\nselect {COLUMNS}, input from start_requests where namespace = $1 and id = $2"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(namespace)
        .bind(request)
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let input: String = row.try_get(14)?;
    let mut view = view(&row)?;
    view.input = Payload::trusted(input).ok();
    Ok(Some(view))
}

/// Lists requests of a namespace, newest first, before the request `before`.
pub(crate) async fn list(
    connection: &mut PgConnection,
    namespace: &str,
    state: Option<StartRequestState>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<StartRequestView>, sqlx::Error> {
    let state = match state {
        // Spelt so that the index of each can serve.
        Some(StartRequestState::Waiting) => " and state = 'waiting'",
        Some(StartRequestState::Refused) => " and state = 'refused' and state <> 'waiting'",
        Some(StartRequestState::Dismissed) => " and state = 'dismissed' and state <> 'waiting'",
        None => "",
    };
    let text = format!(
        "-- start_requests_list\nselect {COLUMNS} from start_requests where namespace = $1{state} \
         and ($2::uuid is null or id < $2) order by id desc limit $3"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(namespace)
        .bind(before)
        .bind(limit)
        .fetch_all(connection)
        .await?;
    rows.iter().map(view).collect()
}

/// Deletes requests that were dismissed or refused before these instants, at most `limit`. Returns their
/// number.
pub(crate) async fn forget(
    connection: &mut PgConnection,
    (dismissed, refused): (Time, Time),
    limit: i64,
) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "-- start_requests_forget\n\
         delete from start_requests where id = any(array(select id from start_requests \
         where state <> 'waiting' and case state when 'dismissed' then decided_at < $1 else refused_at < $3 end \
         limit $2 for update skip locked))",
    )
    .bind(Moment(dismissed))
    .bind(limit)
    .bind(Moment(refused))
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

fn view(row: &PgRow) -> Result<StartRequestView, sqlx::Error> {
    let id: Uuid = row.try_get(0)?;
    let bad = |column: &str, detail: String| {
        sqlx::Error::Decode(
            format!("table start_requests, id {id}, column {column}: {detail}").into(),
        )
    };
    let version: Option<i32> = row.try_get(3)?;
    let labels: Option<String> = row.try_get(6)?;
    let Moment(requested_at) = row.try_get(7)?;
    let state: String = row.try_get(8)?;
    let refusal: Option<String> = row.try_get(9)?;
    let refused_at: Option<Moment> = row.try_get(10)?;
    let decided_at: Option<Moment> = row.try_get(13)?;
    let refusal = match refusal.zip(refused_at) {
        None => None,
        Some((text, Moment(at))) => {
            // One that cannot be read does not hide the others, and can be dismissed.
            let refusal = serde_json::from_str::<Refused>(&text).unwrap_or_else(|error| Refused {
                code: "refusal_damaged".to_owned(),
                message: bad("refusal", error.to_string()).to_string(),
                errors: Vec::new(),
                at: Timestamp(at),
            });
            Some(Refused { at: Timestamp(at), ..refusal })
        }
    };
    let decision = match decided_at {
        None => None,
        Some(Moment(at)) => {
            Some(Decision { by: row.try_get(11)?, reason: row.try_get(12)?, at: Timestamp(at) })
        }
    };
    Ok(StartRequestView {
        id,
        run: RunId(row.try_get(1)?),
        workflow: row.try_get(2)?,
        version,
        key: row.try_get(4)?,
        correlation_id: row.try_get(5)?,
        labels: labels.and_then(|text| Payload::trusted(text).ok()),
        input: None,
        requested_at: Timestamp(requested_at),
        state: StartRequestState::from_word(&state)
            .ok_or_else(|| bad("state", format!("'{state}' is no state")))?,
        refusal,
        decision,
    })
}

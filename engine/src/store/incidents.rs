//! The table `incidents` as people search it, and what they add to it.

use backstitch_saga::protocol::{
    IncidentFilter, IncidentGroup, IncidentId, IncidentLine, IncidentNote, IncidentState,
};
use backstitch_saga::{RunId, Time, Timestamp};
use sqlx::postgres::{PgConnection, PgRow, Postgres};
use sqlx::query_builder::QueryBuilder;
use sqlx::{AssertSqlSafe, Row};

use super::moment::Moment;

/// The end of a page of incidents: the time at which the last one opened, and its id.
pub(crate) type IncidentPlace = (Time, IncidentId);

fn number(id: IncidentId) -> i32 {
    i32::try_from(id.number).unwrap_or(i32::MAX)
}

/// Columns of an incident `i`: its own row, its assignee, the run's key, and the number of such incidents of the same
/// step.
const LINES: &str = "\
select i.run_id, i.incident, i.workflow, i.step, i.kind, i.code, i.message, i.fingerprint, i.opened_at, i.resolved_at, \
a.assignee, r.key, s.occurrences, s.first_seen, s.last_seen ";
const BESIDE: &str = "\
left join incident_assignees a on a.run_id = i.run_id and a.incident = i.incident \
left join runs r on r.id = i.run_id \
cross join lateral (select count(*) as occurrences, min(s.opened_at) as first_seen, max(s.opened_at) as last_seen \
  from incidents s where s.run_id = i.run_id and s.step is not distinct from i.step \
  and s.fingerprint = i.fingerprint) s ";

/// Adds what `filter` asks for to the conditions on an incident `i`. `now` is what "older than" counts from.
pub(crate) fn push_filter(query: &mut QueryBuilder<Postgres>, filter: &IncidentFilter, now: Time) {
    match filter.state {
        // Spelt so that the indexes of open incidents can serve.
        Some(IncidentState::Open) => query.push(" and i.resolved_at is null"),
        Some(IncidentState::Resolved) => query.push(" and i.resolved_at is not null"),
        None => query,
    };
    if let Some(kind) = &filter.kind {
        query.push(" and i.kind = ").push_bind(kind.clone());
    }
    if let Some(workflow) = &filter.workflow {
        query.push(" and i.workflow = ").push_bind(workflow.clone());
    }
    if let Some(step) = &filter.step {
        query.push(" and (i.step = ").push_bind(step.clone());
        query.push(" or starts_with(i.step, ").push_bind(format!("{step}/")).push("))");
    }
    if let Some(fingerprint) = &filter.fingerprint {
        query.push(" and i.fingerprint = ").push_bind(fingerprint.clone());
    }
    if let Some(run) = filter.run {
        query.push(" and i.run_id = ").push_bind(run.0);
    }
    if let Some(assignee) = &filter.assignee {
        query.push(
            " and (i.run_id, i.incident) in (select m.run_id, m.incident from incident_assignees m \
             where m.namespace = i.namespace and m.assignee = ",
        );
        query.push_bind(assignee.clone()).push(")");
    }
    if let Some(span) = filter.older_than {
        let before = Time(now.0.saturating_sub(i64::try_from(span.0).unwrap_or(i64::MAX)));
        query.push(" and i.opened_at < ").push_bind(Moment(before));
    }
}

/// Lists incidents of a namespace, newest first, before the place `before`.
pub(crate) async fn list(
    connection: &mut PgConnection,
    namespace: &str,
    filter: &IncidentFilter,
    now: Time,
    before: Option<IncidentPlace>,
    limit: i64,
) -> Result<Vec<IncidentLine>, sqlx::Error> {
    // The page is found first, and only its lines are looked up further.
    let mut query = QueryBuilder::<Postgres>::new("-- incidents_list\n");
    query.push(LINES).push("from (select i.* from incidents i where i.namespace = ");
    query.push_bind(namespace);
    push_filter(&mut query, filter, now);
    if let Some((at, id)) = before {
        query.push(" and (i.opened_at, i.run_id, i.incident) < (").push_bind(Moment(at));
        query.push(", ").push_bind(id.run.0).push(", ").push_bind(number(id)).push(")");
    }
    query.push(" order by i.opened_at desc, i.run_id desc, i.incident desc limit ");
    query.push_bind(limit).push(") i ").push(BESIDE);
    query.push(" order by i.opened_at desc, i.run_id desc, i.incident desc");
    let rows = query.build().fetch_all(connection).await?;
    rows.iter().map(line).collect()
}

/// Returns one incident.
pub(crate) async fn find(
    connection: &mut PgConnection,
    namespace: &str,
    id: IncidentId,
) -> Result<Option<IncidentLine>, sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new("-- incidents_find\n");
    query.push(LINES).push("from incidents i ").push(BESIDE);
    query.push("where i.namespace = ").push_bind(namespace);
    query.push(" and i.run_id = ").push_bind(id.run.0);
    query.push(" and i.incident = ").push_bind(number(id));
    let row = query.build().fetch_optional(connection).await?;
    row.as_ref().map(line).transpose()
}

fn line(row: &PgRow) -> Result<IncidentLine, sqlx::Error> {
    let run = RunId(row.try_get(0)?);
    let number: i32 = row.try_get(1)?;
    let id = IncidentId { run, number: u32::try_from(number).unwrap_or_default() };
    let step: Option<String> = row.try_get(3)?;
    let step = step.map(|step| step.parse()).transpose();
    let step = step.map_err(|error: String| {
        sqlx::Error::Decode(format!("table incidents, incident {id}, column step: {error}").into())
    })?;
    let Moment(opened_at) = row.try_get(8)?;
    let resolved_at: Option<Moment> = row.try_get(9)?;
    let occurrences: i64 = row.try_get(12)?;
    let (Moment(first_seen), Moment(last_seen)) = (row.try_get(13)?, row.try_get(14)?);
    let state = match resolved_at {
        None => IncidentState::Open,
        Some(_) => IncidentState::Resolved,
    };
    Ok(IncidentLine {
        id,
        run,
        workflow: row.try_get(2)?,
        key: row.try_get(11)?,
        step,
        kind: row.try_get(4)?,
        state,
        code: row.try_get(5)?,
        message: row.try_get(6)?,
        fingerprint: row.try_get(7)?,
        occurrences: u32::try_from(occurrences).unwrap_or(u32::MAX),
        first_seen: Timestamp(first_seen),
        last_seen: Timestamp(last_seen),
        opened_at: Timestamp(opened_at),
        resolved_at: resolved_at.map(|Moment(at)| Timestamp(at)),
        assignee: row.try_get(10)?,
    })
}

/// Milliseconds of an hour.
const HOUR: i64 = 3_600_000;

/// Lists open incidents of a namespace by fingerprint, most first, after the group `after`.
pub(crate) async fn groups(
    connection: &mut PgConnection,
    namespace: &str,
    filter: &IncidentFilter,
    now: Time,
    after: Option<(i64, String)>,
    limit: i64,
) -> Result<Vec<IncidentGroup>, sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new(
        "-- incidents_groups\n\
         select g.fingerprint, g.open, g.first_seen, g.last_seen, n.run_id, n.incident, n.workflow, n.step, n.kind, \
         n.code, n.message, g.last_hour, g.hour_before from (select i.fingerprint, count(*) as open, min(i.opened_at) as first_seen, \
         max(i.opened_at) as last_seen, count(*) filter (where i.opened_at > ",
    );
    let ago = |hours: i64| Moment(Time(now.0 - hours * HOUR));
    query.push_bind(ago(1)).push(") as last_hour, count(*) filter (where i.opened_at > ");
    query.push_bind(ago(2)).push(" and i.opened_at <= ").push_bind(ago(1));
    query.push(") as hour_before from incidents i where i.namespace = ").push_bind(namespace);
    let open = IncidentFilter { state: Some(IncidentState::Open), ..filter.clone() };
    push_filter(&mut query, &open, now);
    query.push(" group by i.fingerprint");
    if let Some((count, fingerprint)) = after {
        query.push(" having (count(*), i.fingerprint) < (").push_bind(count);
        query.push(", ").push_bind(fingerprint).push(")");
    }
    query.push(" order by count(*) desc, i.fingerprint desc limit ").push_bind(limit);
    query.push(") g cross join lateral (select * from incidents i where i.namespace = ");
    query.push_bind(namespace);
    query.push(" and i.fingerprint = g.fingerprint");
    push_filter(&mut query, &open, now);
    query.push(
        " order by i.opened_at desc, i.run_id desc, i.incident desc limit 1) n \
         order by g.open desc, g.fingerprint desc",
    );
    let rows = query.build().fetch_all(connection).await?;
    rows.iter().map(group).collect()
}

fn group(row: &PgRow) -> Result<IncidentGroup, sqlx::Error> {
    let number =
        |at: usize| row.try_get::<i64, _>(at).map(|n| u64::try_from(n).unwrap_or_default());
    let (count, last_hour, hour_before) = (number(1)?, number(11)?, number(12)?);
    let (Moment(first_seen), Moment(last_seen)) = (row.try_get(2)?, row.try_get(3)?);
    let number: i32 = row.try_get(5)?;
    let step: Option<String> = row.try_get(7)?;
    let run = RunId(row.try_get(4)?);
    Ok(IncidentGroup {
        fingerprint: row.try_get(0)?,
        count,
        workflow: row.try_get(6)?,
        step: step.map(|step| step.split('/').next().unwrap_or_default().to_owned()),
        kind: row.try_get(8)?,
        code: row.try_get(9)?,
        first_seen: Timestamp(first_seen),
        last_seen: Timestamp(last_seen),
        last_hour,
        hour_before,
        sample: IncidentId { run, number: u32::try_from(number).unwrap_or_default() },
        message: row.try_get(10)?,
    })
}

/// Returns the notes of people about an incident: the last `limit`, oldest first.
pub(crate) async fn notes(
    connection: &mut PgConnection,
    namespace: &str,
    id: IncidentId,
    limit: i64,
) -> Result<Vec<IncidentNote>, sqlx::Error> {
    let rows = sqlx::query(
        "-- incident_notes\n\
         select at, actor, assignee, note from incident_notes \
         where run_id = $1 and incident = $2 and namespace = $3 order by id desc limit $4",
    )
    .bind(id.run.0)
    .bind(number(id))
    .bind(namespace)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let note = |row: &PgRow| {
        let Moment(at) = row.try_get(0)?;
        Ok(IncidentNote {
            at: Timestamp(at),
            actor: row.try_get(1)?,
            assignee: row.try_get(2)?,
            note: row.try_get(3)?,
        })
    };
    rows.iter().rev().map(note).collect()
}

/// Returns the last records of a run that concern `step`, newest first.
pub(crate) async fn records_about(
    connection: &mut PgConnection,
    run: RunId,
    step: &str,
    limit: i64,
) -> Result<Vec<super::codec::JournalRow>, sqlx::Error> {
    let rows = sqlx::query(
        "-- incident_records\n\
         select seq, format, at, events from journal \
         where run_id = $1 and strpos(events, $2) > 0 order by seq desc limit $3",
    )
    .bind(run.0)
    .bind(format!("\"step\":\"{step}\""))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let Moment(at) = row.try_get(2)?;
            Ok(super::codec::JournalRow {
                seq: row.try_get(0)?,
                format: row.try_get(1)?,
                at,
                events: row.try_get(3)?,
                payloads: None,
            })
        })
        .collect()
}

/// The row of an incident's run, locked, and whether that was erased: an erasure either waits for what is written here,
/// and deletes it, or is seen.
const OF_RUN: &str =
    "of_run as (select 'Erased' = any(conditions) as erased from runs where id = $1 for share)";

/// Assigns an incident to `assignee`, or to nobody, and records the actor. Returns whether it did: not if the run was
/// erased.
pub(crate) async fn assign(
    connection: &mut PgConnection,
    namespace: &str,
    id: IncidentId,
    at: Time,
    actor: &str,
    assignee: Option<&str>,
    note: Option<&str>,
) -> Result<bool, sqlx::Error> {
    let text = format!(
        "-- incident_assign\n\
         with {OF_RUN}, \
         noted as (insert into incident_notes (run_id, incident, namespace, at, actor, assignee, note) \
           select $1, $2, $3, $4, $5, coalesce($6, ''), $7 where not exists (select from of_run where erased) returning 1), \
         taken as (delete from incident_assignees where run_id = $1 and incident = $2 and $6::text is null), \
         given as (insert into incident_assignees (run_id, incident, namespace, assignee) \
           select $1, $2, $3, $6 from noted where $6::text is not null \
           on conflict (run_id, incident) do update set assignee = excluded.assignee) \
         select exists (select from noted)"
    );
    sqlx::query_scalar(AssertSqlSafe(text))
        .bind(id.run.0)
        .bind(number(id))
        .bind(namespace)
        .bind(Moment(at))
        .bind(actor)
        .bind(assignee)
        .bind(note)
        .fetch_one(connection)
        .await
}

/// Writes a note to an incident. Returns whether it did: not when the run was erased.
pub(crate) async fn note(
    connection: &mut PgConnection,
    namespace: &str,
    id: IncidentId,
    at: Time,
    actor: &str,
    note: &str,
) -> Result<bool, sqlx::Error> {
    let text = format!(
        "-- incident_note\n\
         with {OF_RUN} \
         insert into incident_notes (run_id, incident, namespace, at, actor, note) \
         select $1, $2, $3, $4, $5, $6 where not exists (select from of_run where erased)"
    );
    let done = sqlx::query(AssertSqlSafe(text))
        .bind(id.run.0)
        .bind(number(id))
        .bind(namespace)
        .bind(Moment(at))
        .bind(actor)
        .bind(note)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

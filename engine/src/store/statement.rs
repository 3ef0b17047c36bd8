//! The text of the statement that a batch is written with: one form for each set of parts, made once.

use std::fmt::Write as _;
use std::sync::{Arc, PoisonError, RwLock};

use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

/// A part of a batch beside its records. The order is that of the parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Keys,
    Starts,
    Updates,
    Offers,
    Taken,
    Opened,
    Resolved,
    Milestones,
}

/// All forms that were needed so far, by the set of their parts.
static FORMS: RwLock<[Option<SqlStr>; 256]> = RwLock::new([const { None }; 256]);

/// The columns of the records. `keyed` says that the record stands or falls with its start key.
const RECORD_TYPES: &[&str] = &["uuid", "integer", "timestamptz", "text", "text", "boolean"];
const RECORDS: &str = "\
insert into journal (run_id, seq, at, batch, events, payloads)
  select x.run_id, x.seq, x.at, $1, x.events, x.payloads
  from {rows} as x(run_id, seq, at, events, payloads, keyed)";

/// All keys are won or lost before the first record is inserted.
const KEYS_WON: &str = "
  where (select count(*) from keys) >= 0 and (not x.keyed or x.run_id in (select run_id from keys))";

/// A row counts only if the record of its run was inserted. Spelt so that it is a hashed lookup and no join. An index
/// row that stands there already is wrong, but must not keep a run from going on: it is counted, not refused.
const WON: &str = "coalesce(x.run_id in (select run_id from inserted), false)";

impl Part {
    pub(crate) const ALL: [Part; 8] = [
        Part::Keys,
        Part::Starts,
        Part::Updates,
        Part::Offers,
        Part::Taken,
        Part::Opened,
        Part::Resolved,
        Part::Milestones,
    ];

    /// The types of its columns, and what is done with the rows.
    fn template(self) -> (&'static [&'static str], &'static str) {
        match self {
            Part::Keys => (
                &["text", "text", "text", "uuid", "bytea"],
                "keys as (insert into run_keys (namespace, key, workflow, run_id, input_digest)
  select * from {rows} as x(namespace, key, workflow, run_id, input_digest)
  on conflict do nothing returning run_id)",
            ),
            Part::Starts => (
                &[
                    "uuid", "text", "text", "integer", "text", "text", "text", "text", "text",
                    "text", "text", "timestamptz", "timestamptz", "integer", "timestamptz",
                ],
                "starts as (insert into runs (id, namespace, workflow, version, definition, key, correlation_id,
    labels, state, outcome, conditions, started_at, ended_at, node, wake_at)
  select x.run_id, x.namespace, x.workflow, x.version, x.definition, x.key, x.correlation_id, x.labels::jsonb,
    x.state, x.outcome, string_to_array(x.conditions, ','), x.started_at, x.ended_at, x.node, x.wake_at
  from {rows} as x(run_id, namespace, workflow, version, definition, key, correlation_id, labels, state, outcome,
    conditions, started_at, ended_at, node, wake_at)
  where {won} on conflict do nothing returning 1)",
            ),
            Part::Updates => (
                &["uuid", "text", "text", "text", "timestamptz", "integer", "timestamptz"],
                "updates as (update runs r set state = x.state, outcome = x.outcome,
    conditions = string_to_array(x.conditions, ','), ended_at = x.ended_at, node = x.node, wake_at = x.wake_at
  from {rows} as x(run_id, state, outcome, conditions, ended_at, node, wake_at)
  where r.id = x.run_id and {won} returning 1)",
            ),
            Part::Offers => (
                &[
                    "uuid", "text", "text", "integer", "text", "text", "text", "timestamptz",
                    "integer", "timestamptz",
                ],
                "offers as (insert into ready (run_id, step, action, attempt, namespace, queue, name, offered_at,
    reserved_by, reserved_until)
  select x.* from {rows} as x(run_id, step, action, attempt, namespace, queue, name, offered_at,
    reserved_by, reserved_until)
  where {won} on conflict do nothing returning 1)",
            ),
            Part::Taken => (
                &["uuid", "text", "text", "integer"],
                "taken as (delete from ready r using {rows} as x(run_id, step, action, attempt)
  where r.run_id = x.run_id and r.step = x.step and r.action = x.action and r.attempt = x.attempt
    and {won} returning 1)",
            ),
            Part::Opened => (
                &[
                    "uuid", "integer", "text", "text", "text", "text", "text", "timestamptz",
                    "timestamptz",
                ],
                "opened as (insert into incidents (run_id, incident, namespace, workflow, kind, step, message,
    opened_at, resolved_at)
  select x.* from {rows} as x(run_id, incident, namespace, workflow, kind, step, message, opened_at, resolved_at)
  where {won} on conflict do nothing returning 1)",
            ),
            Part::Resolved => (
                &["uuid", "integer", "timestamptz"],
                "resolved as (update incidents i set resolved_at = x.resolved_at
  from {rows} as x(run_id, incident, resolved_at)
  where i.run_id = x.run_id and i.incident = x.incident and {won} returning 1)",
            ),
            Part::Milestones => (
                &["text", "uuid", "text", "timestamptz", "text"],
                "milestones as (insert into events (namespace, run_id, type, at, data)
  select x.* from {rows} as x(namespace, run_id, type, at, data)
  where {won} returning 1)",
            ),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Part::Keys => "keys",
            Part::Starts => "starts",
            Part::Updates => "updates",
            Part::Offers => "offers",
            Part::Taken => "taken",
            Part::Opened => "opened",
            Part::Resolved => "resolved",
            Part::Milestones => "milestones",
        }
    }
}

/// The statement for records with `parts`. Parameter 1 is the batch; then come the columns of the records and of each
/// part in order, as arrays. Without parts it is a plain insert; with parts it answers one array of counts: of the
/// records inserted, then of the rows of each part.
pub(crate) fn statement(parts: &[Part]) -> SqlStr {
    let form = parts.iter().fold(0, |form, part| form | (1_usize << (*part as usize)));
    let known = FORMS.read().unwrap_or_else(PoisonError::into_inner)[form].clone();
    if let Some(text) = known {
        return text;
    }
    let text: Arc<str> = text(parts).into();
    let text = AssertSqlSafe(text).into_sql_str();
    FORMS.write().unwrap_or_else(PoisonError::into_inner)[form] = Some(text.clone());
    text
}

fn text(parts: &[Part]) -> String {
    let mut parameter = 1;
    let mut fill = |types: &[&str], template: &str| {
        let mut rows = String::from("unnest(");
        for (column, kind) in types.iter().enumerate() {
            parameter += 1;
            let comma = if column == 0 { "" } else { ", " };
            // Writing to a string cannot fail.
            let _ = write!(rows, "{comma}${parameter}::{kind}[]");
        }
        rows.push(')');
        template.replace("{rows}", &rows).replace("{won}", WON)
    };
    let records = fill(RECORD_TYPES, RECORDS);
    if parts.is_empty() {
        return format!("-- batch_of_records\n{records}\n  on conflict do nothing");
    }
    let mut text = String::from("-- batch\nwith ");
    let mut counts = String::from("(select count(*) from inserted)");
    let (first, rest) = parts.split_at(usize::from(parts[0] == Part::Keys));
    for part in first {
        let (types, template) = part.template();
        text += &fill(types, template);
        text += ",\n";
        counts += &format!(", (select count(*) from {})", part.name());
    }
    let keys_won = if first.is_empty() { "" } else { KEYS_WON };
    text +=
        &format!("inserted as ({records}{keys_won}\n  on conflict do nothing returning run_id)");
    for part in rest {
        let (types, template) = part.template();
        text += ",\n";
        text += &fill(types, template);
        counts += &format!(", (select count(*) from {})", part.name());
    }
    text + &format!("\nselect array[{counts}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_numbered_through() {
        assert!(text(&[]).starts_with("-- batch_of_records\ninsert into journal"));
        let text = text(&[Part::Keys, Part::Taken]);
        assert!(text.contains("unnest($2::uuid[], $3::integer[], $4::timestamptz[]"));
        assert!(
            text.contains("unnest($8::text[], $9::text[], $10::text[], $11::uuid[], $12::bytea[])")
        );
        assert!(text.contains("unnest($13::uuid[], $14::text[], $15::text[], $16::integer[])"));
        assert!(text.find("keys as").unwrap() < text.find("inserted as").unwrap());
        assert!(!text.contains('{') && !text.contains("$17"));
    }
}

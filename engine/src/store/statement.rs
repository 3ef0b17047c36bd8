//! The text of the statement that writes a batch, for each set of parts in two forms, made once.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

use super::partitions::Week;

/// A part of a batch beside its records. The order is that of the parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Keys,
    Permits,
    /// Runs of earlier weeks, whose records are written only while the run exists.
    Kept,
    Starts,
    Updates,
    Offers,
    Taken,
    Opened,
    Resolved,
    Milestones,
    Acts,
    /// Events of the log that runs emit.
    Emitted,
    /// Milestones that are events of the log.
    Told,
    /// Offered tasks of governed queues.
    Governed,
    /// Permits that have ended.
    Freed,
    /// Runs that had ended, which may withdraw facts.
    Reopened,
    /// Open effects.
    Effects,
    /// Steps without open effects from now on.
    Closed,
}

/// Action if a row exists already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    /// Nothing is written and the statement fails. Costs a sixth less than the other form.
    AllOrNothing,
    /// Only the rows of that record are left out.
    SkipConflicts,
}

/// The parameters of a text: its form, the set of its parts, the week whose partitions it names.
type Kind = (Form, usize, Option<Week>);

/// All texts that were needed so far.
static TEXTS: LazyLock<RwLock<HashMap<Kind, SqlStr>>> = LazyLock::new(RwLock::default);

/// The columns of the records. `keyed` marks a record that is written only with its start key.
const RECORD_TYPES: &[&str] = &["uuid", "integer", "timestamptz", "text", "text", "boolean"];
const RECORDS: &str = "\
insert into {journal} (run_id, seq, at, batch, events, payloads)
  select x.run_id, x.seq, x.at, $1, x.events, x.payloads
  from {rows} as x(run_id, seq, at, events, payloads, keyed)";

/// All keys are inserted before the first record.
const KEYS_WON: &str =
    "(select count(*) from keys) >= 0 and (not x.keyed or x.run_id in (select run_id from keys))";

/// The key of an erased run counts as taken.
const NOT_ERASED: &str = "
  where not exists (select from erased_keys e
    where (e.namespace, e.digest) = (x.namespace, backstitch.key_digest(x.namespace, x.workflow, x.key)))";

/// Counts the keys that were inserted. It fails with a code if one of them belongs to an erased run, which a start that
/// waited for the erasure may not have seen: as if the key was taken, or with a request to retry.
const KEYS_COUNTED: &str = "(select backstitch.count_new_keys(array_agg(namespace), array_agg(workflow), array_agg(key), '{code}') from keys)";

/// A record that leases tasks of governed queues is written only if each of them still has its permit.
const PERMITS_THERE: &str = "(select count(*) from permits_used) >= 0 and x.run_id not in
    (select w.run_id from wanted w where w.permit not in (select id from permits_used))";

/// A record of a run that retention may have deleted in between is written only while the run exists. The lock on its
/// row keeps retention away until the record is written. A run whose row is lost, but not its journal, exists.
const STILL_KEPT: &str = "(select count(*) from kept) >= 0 and x.run_id not in
    (select o.run_id from of_earlier_weeks o where o.run_id not in (select id from kept)
      and (exists (select 1 from {runs} r where r.id = o.run_id)
        or not exists (select 1 from {journal} j where j.run_id = o.run_id)))";

/// A row counts only if the record of its run was inserted. Written as a hashed lookup and not as a join. An index
/// row that exists already is wrong, but must not stop a run: it is counted, not refused.
const WON: &str = "coalesce(x.run_id in (select run_id from inserted), false)";

impl Part {
    pub(crate) const ALL: [Part; 18] = [
        Part::Keys,
        Part::Permits,
        Part::Kept,
        Part::Starts,
        Part::Updates,
        Part::Offers,
        Part::Taken,
        Part::Opened,
        Part::Resolved,
        Part::Milestones,
        Part::Acts,
        Part::Emitted,
        Part::Told,
        Part::Governed,
        Part::Freed,
        Part::Reopened,
        Part::Effects,
        Part::Closed,
    ];

    /// Returns whether it decides which records are written, and so comes before them.
    fn comes_first(self) -> bool {
        matches!(self, Part::Keys | Part::Permits | Part::Kept)
    }

    /// Returns the types of its columns, and the action on the rows.
    fn template(self) -> (&'static [&'static str], &'static str) {
        match self {
            Part::Keys => (
                &["text", "text", "text", "uuid", "bytea"],
                "keys as (insert into run_keys (namespace, key, workflow, run_id, input_digest)
  select * from {rows} as x(namespace, key, workflow, run_id, input_digest){not_erased}{unless_taken}
  returning namespace, key, workflow, run_id)",
            ),
            Part::Permits => (
                &["uuid", "uuid"],
                "wanted as (select * from {rows} as x(run_id, permit)),
permits_used as (update permits p set leased = true from wanted w where p.id = w.permit returning p.id)",
            ),
            Part::Kept => (
                &["uuid"],
                "of_earlier_weeks as (select * from {rows} as x(run_id)),
kept as (select r.id from {runs} r where r.id in (select run_id from of_earlier_weeks) for key share)",
            ),
            Part::Starts => (
                &[
                    "uuid", "text", "text", "integer", "text", "text", "text", "text", "text",
                    "text", "text", "timestamptz", "timestamptz", "integer", "timestamptz",
                ],
                "starts as (insert into {runs} (id, namespace, workflow, version, definition, key, correlation_id,
    labels, state, outcome, conditions, started_at, ended_at, node, wake_at)
  select x.run_id, x.namespace, x.workflow, x.version, x.definition, x.key, x.correlation_id, x.labels::jsonb,
    x.state, x.outcome, string_to_array(x.conditions, ','), x.started_at, x.ended_at, x.node, x.wake_at
  from {rows} as x(run_id, namespace, workflow, version, definition, key, correlation_id, labels, state, outcome,
    conditions, started_at, ended_at, node, wake_at)
  where {won}{unless_taken} returning 1)",
            ),
            Part::Updates => (
                &[
                    "uuid", "text", "text", "text", "timestamptz", "integer", "timestamptz", "integer", "text",
                    "text",
                ],
                "updates as (update {runs} r set state = x.state, outcome = x.outcome,
    conditions = string_to_array(x.conditions, ','), ended_at = x.ended_at, node = x.node, wake_at = x.wake_at,
    version = coalesce(x.version, r.version), definition = coalesce(x.definition, r.definition),
    labels = case when x.labels is null then r.labels else nullif(x.labels::jsonb, '{}') end
  from {rows} as x(run_id, state, outcome, conditions, ended_at, node, wake_at, version, definition, labels)
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
  where {won}{unless_taken} returning 1)",
            ),
            Part::Taken => (
                &["uuid", "text", "text", "integer"],
                "taken as (delete from ready r using {rows} as x(run_id, step, action, attempt)
  where r.run_id = x.run_id and r.step = x.step and r.action = x.action and r.attempt = x.attempt
    and {won} returning 1)",
            ),
            Part::Opened => (
                &[
                    "uuid", "integer", "text", "text", "text", "text", "text", "text", "text",
                    "timestamptz", "timestamptz",
                ],
                "opened as (insert into {incidents} (run_id, incident, namespace, workflow, kind, step, code, message,
    fingerprint, opened_at, resolved_at)
  select x.* from {rows} as x(run_id, incident, namespace, workflow, kind, step, code, message, fingerprint,
    opened_at, resolved_at)
  where {won}{unless_taken} returning 1)",
            ),
            Part::Resolved => (
                &["uuid", "integer", "timestamptz"],
                "resolved as (update {incidents} i set resolved_at = x.resolved_at
  from {rows} as x(run_id, incident, resolved_at)
  where i.run_id = x.run_id and i.incident = x.incident and {won} returning 1)",
            ),
            Part::Milestones => (
                &["text", "uuid", "timestamptz", "text"],
                "milestones as (insert into events (namespace, at, milestones)
  select x.namespace, x.at, x.milestones from {rows} as x(namespace, run_id, at, milestones)
  where {won} returning 1)",
            ),
            Part::Acts => (
                &[
                    "uuid", "integer", "integer", "text", "text", "timestamptz", "text", "text",
                    "text", "text",
                ],
                "acts_done as (insert into acts (run_id, seq, place, namespace, workflow, at, actor, verb, step, reason)
  select x.* from {rows} as x(run_id, seq, place, namespace, workflow, at, actor, verb, step, reason)
  where {won}{unless_taken} returning 1)",
            ),
            Part::Emitted => (
                &["uuid", "integer", "integer", "text", "timestamptz", "text", "text"],
                "emits as (insert into emitted (run_id, seq, place, namespace, at, event, data)
  select x.* from {rows} as x(run_id, seq, place, namespace, at, event, data)
  where {won} returning 1)",
            ),
            Part::Told => (
                &["uuid", "uuid", "text", "timestamptz", "smallint", "text", "text"],
                "told as (insert into milestone (batch, namespace, at, n, written_with, stories, told)
  select x.batch, x.namespace, x.at, x.n, $1, x.stories::text[], x.told
  from {rows} as x(run_id, batch, namespace, at, n, stories, told)
  where {won} returning batch, namespace, at, n),
told_announced as (insert into announced (namespace, batch, n, at) select namespace, batch, n, at from told)",
            ),
            Part::Governed => (
                &[
                    "uuid", "text", "text", "integer", "text", "text", "text", "timestamptz",
                    "smallint", "text", "boolean",
                ],
                "governed as (insert into ready (run_id, step, action, attempt, namespace, queue, name, offered_at,
    priority, fair_key, retry)
  select x.* from {rows} as x(run_id, step, action, attempt, namespace, queue, name, offered_at,
    priority, fair_key, retry)
  where {won}{unless_taken} returning 1)",
            ),
            Part::Freed => (
                &["uuid", "text", "text", "integer"],
                "freed as (delete from permits p using {rows} as x(run_id, step, action, attempt)
  where p.run_id = x.run_id and p.step = x.step and p.action = x.action and p.attempt = x.attempt
    and {won} returning 1)",
            ),
            Part::Reopened => (
                &["uuid", "text", "timestamptz"],
                "reopened as (insert into sequenced (run_id, namespace, since, reopened)
  select x.run_id, x.namespace, x.since, true from {rows} as x(run_id, namespace, since)
  where {won} on conflict (run_id) do update set reopened = true returning 1)",
            ),
            Part::Effects => (
                &["uuid", "text", "text", "text", "text", "integer", "integer", "timestamptz"],
                "effects as (insert into open_effects as e (run_id, step, namespace, workflow, system, standing, unknown, since)
  select x.* from {rows} as x(run_id, step, namespace, workflow, system, standing, unknown, since)
  where {won} on conflict (run_id, step) do update
    set system = excluded.system, standing = excluded.standing, unknown = excluded.unknown returning 1)",
            ),
            Part::Closed => (
                &["uuid", "text"],
                "closed as (delete from open_effects e using {rows} as x(run_id, step)
  where e.run_id = x.run_id and e.step = x.step and {won} returning 1)",
            ),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Part::Keys => "keys",
            Part::Permits => "permits_used",
            Part::Kept => "kept",
            Part::Starts => "starts",
            Part::Updates => "updates",
            Part::Offers => "offers",
            Part::Taken => "taken",
            Part::Opened => "opened",
            Part::Resolved => "resolved",
            Part::Milestones => "milestones",
            Part::Acts => "acts_done",
            Part::Emitted => "emits",
            Part::Told => "told",
            Part::Governed => "governed",
            Part::Freed => "freed",
            Part::Reopened => "reopened",
            Part::Effects => "effects",
            Part::Closed => "closed",
        }
    }
}

/// PostgreSQL's codes for a row that exists already, and for a statement to retry.
const UNIQUE_VIOLATION: &str = "23505";
const SERIALIZATION_FAILURE: &str = "40001";

/// The clause of each insert in the parted form.
const UNLESS_TAKEN: &str = " on conflict do nothing";

/// Returns the statement for records with `parts`. Parameter 1 is the batch; then come the columns of the records and
/// of each part in order, as arrays. Without parts it is a plain insert; with parts it returns one array of counts,
/// see [`place_of_records`].
///
/// With a `week` it writes straight into the partitions of that week.
pub(crate) fn statement(form: Form, parts: &[Part], week: Option<Week>) -> SqlStr {
    let set = parts.iter().fold(0, |set, part| set | (1_usize << (*part as usize)));
    let kind = (form, set, week);
    let known = TEXTS.read().unwrap_or_else(PoisonError::into_inner).get(&kind).cloned();
    if let Some(text) = known {
        return text;
    }
    let text: Arc<str> = text(form, parts, week).into();
    let text = AssertSqlSafe(text).into_sql_str();
    TEXTS.write().unwrap_or_else(PoisonError::into_inner).insert(kind, text.clone());
    text
}

/// Returns the position of the count of the records among the counts of the parts: after those that
/// come first.
pub(crate) fn place_of_records(parts: &[Part]) -> usize {
    parts.iter().take_while(|part| part.comes_first()).count()
}

fn text(form: Form, parts: &[Part], week: Option<Week>) -> String {
    let place = |table: &str| week.map_or(table.to_owned(), |week| week.partition(table));
    let (journal, runs, incidents) = (place("journal"), place("runs"), place("incidents"));
    let (won, unless_taken, not_erased, code) = match form {
        Form::AllOrNothing => ("true", "", "", UNIQUE_VIOLATION),
        Form::SkipConflicts => (WON, UNLESS_TAKEN, NOT_ERASED, SERIALIZATION_FAILURE),
    };
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
        let text = template.replace("{rows}", &rows).replace("{won}", won);
        text.replace("{unless_taken}", unless_taken)
            .replace("{not_erased}", not_erased)
            .replace("{journal}", &journal)
            .replace("{runs}", &runs)
            .replace("{incidents}", &incidents)
    };
    let records = fill(RECORD_TYPES, RECORDS);
    if parts.is_empty() {
        return format!("-- batch_of_records\n{records}{unless_taken}");
    }
    let (first, rest) = parts.split_at(place_of_records(parts));
    let conditions = first.iter().filter_map(|part| match part {
        Part::Keys => (form == Form::SkipConflicts).then_some(KEYS_WON),
        Part::Kept => Some(STILL_KEPT),
        _ => Some(PERMITS_THERE),
    });
    let conditions: Vec<&str> = conditions.collect();
    let allowed = if conditions.is_empty() { "" } else { "\n  where " };
    let allowed = format!("{allowed}{}", conditions.join("\n  and "));
    let allowed = allowed.replace("{journal}", &journal).replace("{runs}", &runs);
    let inserted = format!("inserted as ({records}{allowed}{unless_taken} returning run_id)");
    let mut filled = |part: &Part| {
        let (types, template) = part.template();
        fill(types, template)
    };
    let mut expressions: Vec<String> = first.iter().map(&mut filled).collect();
    expressions.push(inserted);
    expressions.extend(rest.iter().map(&mut filled));
    let names = first.iter().map(|part| part.name()).chain(["inserted"]);
    let counts: Vec<String> = names
        .chain(rest.iter().map(|part| part.name()))
        .map(|name| match name {
            "keys" => KEYS_COUNTED.replace("{code}", code),
            name => format!("(select count(*) from {name})"),
        })
        .collect();
    format!("-- batch\nwith {}\nselect array[{}]", expressions.join(",\n"), counts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_numbered_through() {
        assert!(
            text(Form::AllOrNothing, &[], None)
                .starts_with("-- batch_of_records\ninsert into journal")
        );
        for form in [Form::AllOrNothing, Form::SkipConflicts] {
            let text = text(form, &[Part::Keys, Part::Taken], None);
            for part in [
                "unnest($2::uuid[], $3::integer[], $4::timestamptz[]",
                "unnest($8::text[], $9::text[], $10::text[], $11::uuid[], $12::bytea[])",
                "unnest($13::uuid[], $14::text[], $15::text[], $16::integer[])",
            ] {
                assert!(text.contains(part), "{text}");
            }
            assert!(text.find("keys as").unwrap() < text.find("inserted as").unwrap());
            assert!(text.find("from keys)").unwrap() < text.find("from inserted)").unwrap());
            assert!(!text.contains('{') && !text.contains("$17"), "{text}");
        }
    }

    #[test]
    fn permits_are_used_before_a_record_is_written() {
        for parts in [&[Part::Permits][..], &[Part::Keys, Part::Permits, Part::Freed]] {
            let text = text(Form::SkipConflicts, parts, None);
            assert!(text.find("permits_used as").unwrap() < text.find("inserted as").unwrap());
            assert!(text.contains(PERMITS_THERE) && !text.contains('{'), "{text}");
            assert_eq!(text.contains(KEYS_WON), parts.len() > 1, "{text}");
        }
    }

    #[test]
    fn a_run_of_an_earlier_week_is_locked_before_a_record_is_written() {
        let text =
            text(Form::SkipConflicts, &[Part::Keys, Part::Permits, Part::Kept, Part::Taken], None);
        assert!(text.find("kept as").unwrap() < text.find("inserted as").unwrap());
        assert!(text.contains("for key share") && text.contains(PERMITS_THERE), "{text}");
        assert!(text.contains("from kept) >= 0") && !text.contains('{'), "{text}");
    }

    #[test]
    fn only_the_parted_form_leaves_something_out() {
        assert!(!text(Form::AllOrNothing, &Part::ALL, None).contains("do nothing"));
        let parted = text(Form::SkipConflicts, &Part::ALL, None);
        assert_eq!(parted.matches("on conflict do nothing").count(), 7);
        assert_eq!(parted.matches(WON).count(), 15);
    }
}

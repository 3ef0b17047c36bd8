//! The one statement that makes a batch durable: the records, and the index rows that changed with them.
//!
//! Index rows are written only for runs whose record was inserted. Locks are taken in one order over all nodes: start
//! keys sorted, then journal rows sorted; all later rows belong to runs whose record is inserted. The text depends only
//! on the set of parts, so that PostgreSQL prepares each form once.

use backstitch_saga::protocol::{Outcome, State};
use backstitch_saga::{RunId, Time, planted};
use sqlx::Row;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::StoreError;
use super::acts::Acts;
use super::moment::Moment;
use super::partitions::{Week, Weeks};
use super::statement::{Form, Part, place_of_records, statement};
use crate::crash::crash_point;

/// PostgreSQL's code for a missing table.
const UNDEFINED_TABLE: &str = "42P01";

/// One line of the table `runs`, as far as it changes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RunState {
    pub(crate) state: State,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) conditions: Vec<std::borrow::Cow<'static, str>>,
    pub(crate) ended_at: Option<Time>,
    pub(crate) node: Option<i32>,
    pub(crate) wake_at: Option<Time>,
}

macro_rules! part {
    ($(#[$doc:meta])* $name:ident { $($column:ident: $kind:ty),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub(crate) struct $name {
            $($column: Vec<$kind>,)+
        }

        impl $name {
            pub(in $crate::store) fn add(&mut self, ($($column,)+): ($($kind,)+)) {
                $(self.$column.push($column);)+
            }

            /// Makes room for `rows` more.
            #[allow(dead_code, reason = "most parts grow as they must")]
            pub(in $crate::store) fn reserve(&mut self, rows: usize) {
                $(self.$column.reserve(rows);)+
            }

            #[allow(dead_code, reason = "not all parts are counted")]
            pub(in $crate::store) fn len(&self) -> usize {
                $crate::store::batch::part!(@first self $($column)+).len()
            }

            pub(in $crate::store) fn bind<'q>(
                &'q self,
                query: sqlx::query::Query<'q, sqlx::postgres::Postgres, sqlx::postgres::PgArguments>,
            ) -> sqlx::query::Query<'q, sqlx::postgres::Postgres, sqlx::postgres::PgArguments> {
                query$(.bind(&self.$column))+
            }
        }
    };
    (@first $self:ident $first:ident $($rest:ident)*) => { $self.$first };
}
pub(crate) use part;

// After the macro, so that it knows it.
mod effects;
mod emitted;
mod flow;
mod kept;
mod milestones;
mod reopened;
mod told;
mod updates;

pub(crate) use flow::{FlowParts, Rank};
pub(crate) use updates::{Also, Updates};

part!(
    /// New records.
    Records { run_id: Uuid, seq: i32, at: Moment, events: String, payloads: Option<String>, keyed: bool }
);
part!(
    /// Keys of start requests.
    Keys { namespace: String, key: String, workflow: String, run_id: Uuid, input_digest: Vec<u8> }
);
part!(
    /// New lines of `runs`.
    Starts {
        id: Uuid,
        namespace: String,
        workflow: String,
        version: i32,
        definition: String,
        key: Option<String>,
        correlation_id: Option<String>,
        labels: Option<String>,
        state: &'static str,
        outcome: Option<&'static str>,
        conditions: String,
        started_at: Moment,
        ended_at: Option<Moment>,
        node: Option<i32>,
        wake_at: Option<Moment>,
    }
);
part!(
    /// Offered tasks that no session got.
    Offers {
        run_id: Uuid,
        step: String,
        action: &'static str,
        attempt: i32,
        namespace: String,
        queue: String,
        name: String,
        offered_at: Moment,
        reserved_by: Option<i32>,
        reserved_until: Option<Moment>,
    }
);
part!(
    /// Tasks that are no longer on offer.
    Taken { run_id: Uuid, step: String, action: &'static str, attempt: i32 }
);
part!(
    /// New incidents.
    Opened {
        run_id: Uuid,
        incident: i32,
        namespace: String,
        workflow: String,
        kind: &'static str,
        step: Option<String>,
        code: Option<String>,
        message: String,
        fingerprint: String,
        opened_at: Moment,
        resolved_at: Option<Moment>,
    }
);
part!(
    /// Incidents that are over.
    Resolved { run_id: Uuid, incident: i32, resolved_at: Moment }
);

/// Everything that one batch writes. Records and keys must be added in sorted order.
#[derive(Debug)]
pub(crate) struct Batch {
    id: Uuid,
    records: Records,
    keys: Keys,
    starts: Starts,
    pub(crate) updates: Updates,
    pub(crate) offers: Offers,
    taken: Taken,
    opened: Opened,
    resolved: Resolved,
    milestones: milestones::Milestones,
    acts: Acts,
    emitted: emitted::Emitted,
    told: told::Told,
    pub(crate) flow: FlowParts,
    kept: kept::Kept,
    reopened: reopened::Reopened,
    effects: effects::EffectParts,
}

/// The columns of a new row of `runs` beside its state.
pub(crate) struct NewRun<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) workflow: &'a str,
    pub(crate) version: u32,
    pub(crate) definition: &'a str,
    pub(crate) key: Option<&'a str>,
    pub(crate) correlation_id: Option<&'a str>,
    pub(crate) labels: Option<String>,
    pub(crate) started_at: Time,
}

/// A new line of `incidents`.
pub(crate) struct NewIncident<'a> {
    pub(crate) incident: u32,
    pub(crate) namespace: &'a str,
    pub(crate) workflow: &'a str,
    pub(crate) kind: &'static str,
    pub(crate) step: Option<&'a backstitch_saga::StepPath>,
    pub(crate) code: Option<&'a str>,
    pub(crate) message: &'a str,
    pub(crate) fingerprint: String,
    pub(crate) opened_at: Time,
    pub(crate) resolved_at: Option<Time>,
}

/// A task of the table `ready`.
#[derive(Clone, Debug)]
pub(crate) struct ReadyRow {
    pub(crate) run: RunId,
    pub(crate) task: backstitch_saga::TaskKey,
    pub(crate) namespace: std::sync::Arc<str>,
    pub(crate) queue: String,
    pub(crate) name: String,
    /// The node that keeps it in mind, and until when.
    pub(crate) reserved: Option<(i32, Time)>,
    /// Priority and fair key, when its queue is governed.
    pub(crate) rank: Option<Rank>,
    pub(crate) offered_at: Time,
}

fn moment(at: Option<Time>) -> Option<Moment> {
    at.map(Moment)
}

/// Makes a text printable: PostgreSQL's text has no NUL, and a message for people can do without.
pub(crate) fn printable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

pub(super) fn int(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

impl Batch {
    /// Returns an empty batch with room for `records`, of which so many begin a run.
    pub(crate) fn new(records: usize, starts: usize) -> Batch {
        let mut batch = Batch::empty();
        batch.records.reserve(records);
        batch.starts.reserve(starts);
        batch
    }

    fn empty() -> Batch {
        Batch {
            id: Uuid::new_v4(),
            records: Records::default(),
            keys: Keys::default(),
            starts: Starts::default(),
            updates: Updates::default(),
            offers: Offers::default(),
            taken: Taken::default(),
            opened: Opened::default(),
            resolved: Resolved::default(),
            milestones: milestones::Milestones::default(),
            acts: Acts::default(),
            emitted: emitted::Emitted::default(),
            told: told::Told::default(),
            flow: FlowParts::default(),
            kept: kept::Kept::default(),
            reopened: reopened::Reopened::default(),
            effects: effects::EffectParts::default(),
        }
    }

    pub(crate) fn id(&self) -> Uuid {
        self.id
    }

    pub(crate) fn records(&self) -> usize {
        self.records.len()
    }

    /// Returns the keys of the records: runs and seqs, side by side.
    pub(crate) fn places(&self) -> (&[Uuid], &[i32]) {
        (&self.records.run_id, &self.records.seq)
    }

    pub(crate) fn record(
        &mut self,
        run: RunId,
        seq: i32,
        at: Time,
        events: String,
        payloads: Option<String>,
        keyed: bool,
    ) {
        self.records.add((run.0, seq, Moment(at), events, payloads, keyed));
    }

    pub(crate) fn key(&mut self, key: &super::keys::RunKey, run: RunId, input_digest: &[u8]) {
        self.keys.add((key.0.clone(), key.1.clone(), key.2.clone(), run.0, input_digest.to_vec()));
    }

    pub(crate) fn start(&mut self, run: RunId, new: NewRun<'_>, state: &RunState) {
        self.starts.add((
            run.0,
            new.namespace.to_owned(),
            new.workflow.to_owned(),
            int(new.version),
            new.definition.to_owned(),
            new.key.map(str::to_owned),
            new.correlation_id.map(str::to_owned),
            new.labels,
            state.state.as_str(),
            state.outcome.map(Outcome::as_str),
            state.conditions.join(","),
            Moment(new.started_at),
            moment(state.ended_at),
            state.node,
            moment(state.wake_at),
        ));
    }

    pub(crate) fn offer(&mut self, row: &ReadyRow) {
        if let Some(rank) = &row.rank {
            return self.flow.offer(row, rank);
        }
        self.offers.add((
            row.run.0,
            row.task.step.to_string(),
            row.task.action.as_str(),
            int(row.task.attempt),
            row.namespace.to_string(),
            row.queue.clone(),
            row.name.clone(),
            Moment(row.offered_at),
            row.reserved.map(|(node, _)| node),
            row.reserved.map(|(_, until)| Moment(until)),
        ));
    }

    pub(crate) fn taken(&mut self, run: RunId, task: &backstitch_saga::TaskKey) {
        let step = task.step.to_string();
        self.taken.add((run.0, step, task.action.as_str(), int(task.attempt)));
    }

    pub(crate) fn incident(&mut self, run: RunId, new: &NewIncident<'_>) {
        self.opened.add((
            run.0,
            int(new.incident),
            new.namespace.to_owned(),
            new.workflow.to_owned(),
            new.kind,
            new.step.map(ToString::to_string),
            new.code.map(printable),
            printable(new.message),
            new.fingerprint.clone(),
            Moment(new.opened_at),
            moment(new.resolved_at),
        ));
    }

    pub(crate) fn resolved(&mut self, run: RunId, incident: u32, at: Time) {
        self.resolved.add((run.0, int(incident), Moment(at)));
    }

    /// Adds the act that event `place` of record `seq` records.
    pub(crate) fn act(
        &mut self,
        (run, seq, place): (RunId, i32, usize),
        (namespace, workflow): (&str, &str),
        at: Time,
        act: &backstitch_saga::Act<'_>,
    ) {
        let place = i32::try_from(place).unwrap_or(i32::MAX);
        self.acts.add((
            run.0,
            seq,
            place,
            namespace.to_owned(),
            workflow.to_owned(),
            Moment(at),
            printable(&act.by.actor),
            act.verb,
            act.step.map(ToString::to_string),
            printable(&act.by.reason),
        ));
    }

    /// Writes everything in one transaction of one round trip. Returns the number of inserted records; the others
    /// conflicted with an existing record, and nothing of their runs was written. Such a conflict is rare, so the first
    /// try is the form of the statement that fails then. A record that needs permits, or of a run of an earlier week,
    /// may be left out as these no longer exist, so then it is the other form.
    pub(crate) async fn write(
        &self,
        connection: &mut PgConnection,
        weeks: &Weeks,
    ) -> Result<usize, StoreError> {
        let may_be_left_out = self.flow.len(Part::Permits) > 0 || self.kept.len() > 0;
        let first = if may_be_left_out { Form::SkipConflicts } else { Form::AllOrNothing };
        let (mut form, mut week) = (first, weeks.of(&self.records.run_id));
        loop {
            match self.write_as(form, week, connection).await {
                Err(sqlx::Error::Database(error))
                    if form == Form::AllOrNothing && error.is_unique_violation() =>
                {
                    crash_point!("batch.refused");
                    form = Form::SkipConflicts;
                }
                // Another node has dropped the partitions of that week.
                Err(sqlx::Error::Database(error))
                    if week.is_some() && error.code().as_deref() == Some(UNDEFINED_TABLE) =>
                {
                    week = None;
                }
                written => return Ok(written?),
            }
        }
    }

    async fn write_as(
        &self,
        form: Form,
        week: Option<Week>,
        connection: &mut PgConnection,
    ) -> Result<usize, sqlx::Error> {
        let parts = self.parts();
        let together = (form == Form::AllOrNothing)
            .then(|| (self.milestones.by_namespace(), self.told.by_namespace()));
        let each = (&self.milestones, &self.told);
        let (milestones, told) = together.as_ref().map_or(each, |(one, other)| (one, other));
        let mut query = self.records.bind(sqlx::query(statement(form, &parts, week)).bind(self.id));
        if parts.is_empty() {
            let done = query.execute(connection).await?;
            return Ok(usize::try_from(done.rows_affected()).unwrap_or(usize::MAX));
        }
        for part in &parts {
            query = match part {
                Part::Keys => self.keys.bind(query),
                Part::Starts => self.starts.bind(query),
                Part::Updates => self.updates.bind(query),
                Part::Offers => self.offers.bind(query),
                Part::Taken => self.taken.bind(query),
                Part::Opened => self.opened.bind(query),
                Part::Resolved => self.resolved.bind(query),
                Part::Milestones => milestones.bind(query),
                Part::Acts => self.acts.bind(query),
                Part::Emitted => self.emitted.bind(query),
                Part::Told => told.bind(query),
                Part::Permits | Part::Governed | Part::Freed => self.flow.bind(*part, query),
                Part::Kept => self.kept.bind(query),
                Part::Reopened => self.reopened.bind(query),
                Part::Effects | Part::Closed => self.effects.bind(*part, query),
            };
        }
        let counts: Vec<i64> = query.fetch_one(connection).await?.try_get(0)?;
        let place = place_of_records(&parts);
        let inserted = counts.get(place).and_then(|count| usize::try_from(*count).ok());
        let inserted = inserted.unwrap_or_default();
        if inserted == self.records.len() {
            let rows = parts.iter().map(|part| match part {
                Part::Milestones => milestones.len(),
                Part::Told => told.len(),
                other => self.rows_of(*other),
            });
            let mut expected: Vec<i64> =
                rows.map(|rows| i64::try_from(rows).unwrap_or(i64::MAX)).collect();
            expected.insert(place, counts[place]);
            // A task leased before its queue was governed has no permit, a run of an older server no lines of effects.
            for (at, part) in parts.iter().enumerate() {
                if matches!(part, Part::Freed | Part::Closed) {
                    expected[at + 1] = counts[at + 1];
                }
            }
            self.compare(&expected, &counts);
        }
        Ok(inserted)
    }

    /// Checks that, with all records inserted, every row of every index was written. If not, an index is wrong.
    fn compare(&self, expected: &[i64], counts: &[i64]) {
        if expected != counts {
            tracing::warn!(
                batch = %self.id, parts = ?self.parts(), ?expected, ?counts,
                "an index row was not where the journal says it is; run `backstitch doctor`"
            );
        }
    }

    /// Returns the parts that this batch has, beside its records.
    fn parts(&self) -> Vec<Part> {
        Part::ALL.into_iter().filter(|part| self.rows_of(*part) > 0).collect()
    }

    fn rows_of(&self, part: Part) -> usize {
        match part {
            Part::Keys => self.keys.len(),
            Part::Starts => self.starts.len(),
            Part::Updates => self.updates.len(),
            Part::Offers if planted!("enqueue-outside") => 0,
            Part::Offers => self.offers.len(),
            Part::Taken => self.taken.len(),
            Part::Opened => self.opened.len(),
            Part::Resolved => self.resolved.len(),
            Part::Milestones => self.milestones.len(),
            Part::Acts => self.acts.len(),
            Part::Emitted => self.emitted.len(),
            Part::Told => self.told.len(),
            Part::Permits | Part::Governed | Part::Freed => self.flow.len(part),
            Part::Kept => self.kept.len(),
            Part::Reopened => self.reopened.len(),
            Part::Effects | Part::Closed => self.effects.len(part),
        }
    }
}

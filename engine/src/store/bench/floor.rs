//! The bare statements of a load: what the engine wrote for one run, written again for many in full batches.

use std::time::{Duration, Instant};

use backstitch_saga::protocol::{Outcome, State};
use backstitch_saga::{RunId, Time};
use sqlx::Row;
use uuid::Uuid;

use super::super::batch::{Batch, NewRun, RunState};
use super::super::{Database, StoreError};
use crate::Error;
use crate::bench::Floor;

/// A run as in the tables, to be written again.
#[derive(Clone, Debug)]
pub struct Template {
    namespace: String,
    workflow: String,
    version: i32,
    definition: String,
    outcome: Option<Outcome>,
    records: Vec<TemplateRecord>,
}

#[derive(Clone, Debug)]
struct TemplateRecord {
    events: String,
    payloads: Option<String>,
    /// Steps, items or undos that ended with it.
    steps: u32,
}

impl Template {
    /// Returns the ended run of `workflow` with the fewest records, of the last thousand: the one that the engine
    /// served best.
    ///
    /// # Errors
    /// [`Error::NotFound`] when none has ended; [`Error::Store`].
    pub async fn shortest(url: &str, workflow: &str) -> Result<Template, Error> {
        let mut connection = super::connect(url).await?;
        let row = sqlx::query(
            "-- floor_template\n\
             select r.id, r.namespace, r.version, r.definition, r.outcome from \
               (select * from runs where workflow = $1 and state = 'ended' order by id desc limit 1000) r \
             order by (select count(*) from journal j where j.run_id = r.id), r.id limit 1",
        )
        .bind(workflow)
        .fetch_optional(&mut connection)
        .await?
        .ok_or_else(|| none_ended(workflow))?;
        Template::read(&mut connection, workflow, &row, i32::MAX).await
    }

    /// Returns the newest ended run of `workflow`.
    ///
    /// # Errors
    /// [`Error::NotFound`] when none has ended; [`Error::Store`].
    pub async fn newest(url: &str, workflow: &str) -> Result<Template, Error> {
        let mut connection = super::connect(url).await?;
        let row = sqlx::query(
            "-- floor_newest\n\
             select id, namespace, version, definition, outcome from runs where workflow = $1 and state = 'ended' \
             order by id desc limit 1",
        )
        .bind(workflow)
        .fetch_optional(&mut connection)
        .await?
        .ok_or_else(|| none_ended(workflow))?;
        Template::read(&mut connection, workflow, &row, i32::MAX).await
    }

    /// Returns the start of the newest run of `workflow`: its first record and no end.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none; [`Error::Store`].
    pub async fn start(url: &str, workflow: &str) -> Result<Template, Error> {
        let mut connection = super::connect(url).await?;
        let row = sqlx::query(
            "-- floor_start\n\
             select id, namespace, version, definition, null::text from runs where workflow = $1 \
             order by id desc limit 1",
        )
        .bind(workflow)
        .fetch_optional(&mut connection)
        .await?
        .ok_or_else(|| Error::NotFound {
            code: "unknown_run",
            message: format!("no run of {workflow} was started"),
        })?;
        Template::read(&mut connection, workflow, &row, 1).await
    }

    async fn read(
        connection: &mut sqlx::PgConnection,
        workflow: &str,
        row: &sqlx::postgres::PgRow,
        up_to: i32,
    ) -> Result<Template, Error> {
        let run: Uuid = row.try_get(0)?;
        let outcome: Option<String> = row.try_get(4)?;
        let records = sqlx::query(
            "-- floor_records\n\
             select events, payloads from journal where run_id = $1 and seq <= $2 order by seq",
        )
        .bind(run)
        .bind(up_to)
        .fetch_all(connection)
        .await?;
        let records = records.iter().map(|record| {
            let events: String = record.try_get(0)?;
            let steps = steps_of(&events);
            Ok(TemplateRecord { events, payloads: record.try_get(1)?, steps })
        });
        Ok(Template {
            namespace: row.try_get(1)?,
            workflow: workflow.to_owned(),
            version: row.try_get(2)?,
            definition: row.try_get(3)?,
            outcome: outcome.map(|_| Outcome::Succeeded),
            records: records.collect::<Result<_, sqlx::Error>>()?,
        })
    }

    /// Returns the same run with neighbouring records put together, as if each batch had ended `steps` steps of it.
    #[must_use]
    pub fn with_steps_per_record(mut self, steps: u32) -> Template {
        let mut records: Vec<TemplateRecord> = Vec::new();
        for record in self.records {
            match records.last_mut() {
                Some(last) if last.steps + record.steps <= steps => {
                    join(&mut last.events, &record.events);
                    match (&mut last.payloads, record.payloads) {
                        (Some(all), Some(more)) => join(all, &more),
                        (all @ None, more) => *all = more,
                        (Some(_), None) => {}
                    }
                    last.steps += record.steps;
                }
                _ => records.push(record),
            }
        }
        self.records = records;
        self
    }

    /// Returns the number of records of the run.
    #[must_use]
    pub fn records(&self) -> usize {
        self.records.len()
    }

    /// Returns the number of steps, items and undos that ended in it.
    #[must_use]
    pub fn steps(&self) -> u32 {
        self.records.iter().map(|record| record.steps).sum()
    }
}

fn none_ended(workflow: &str) -> Error {
    let message = format!("no run of {workflow} has ended");
    Error::NotFound { code: "unknown_run", message }
}

/// Puts two JSON arrays together as text.
fn join(all: &mut String, more: &str) {
    if more.len() > 2 {
        all.pop();
        all.push(',');
        all.push_str(&more[1..]);
    }
}

/// Returns the number of steps that end with these events.
fn steps_of(events: &str) -> u32 {
    let ends = ["{\"succeeded\":", "{\"failed\":", "{\"undone\":"];
    let count: usize = ends.iter().map(|end| events.matches(end).count()).sum();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The writes of one connection.
#[derive(Debug, Default)]
pub(crate) struct Written {
    steps: u64,
    runs: u64,
    /// Of each batch, in microseconds.
    times: Vec<u64>,
}

impl Written {
    /// Notes a batch.
    pub(crate) fn note(&mut self, steps: u64, runs: u64, took: Duration) {
        self.steps += steps;
        self.runs += runs;
        self.times.push(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    pub(crate) fn add(&mut self, other: Written) {
        self.steps += other.steps;
        self.runs += other.runs;
        self.times.extend(other.times);
    }

    #[expect(clippy::cast_precision_loss, reason = "rates for people")]
    pub(crate) fn rate(mut self, time: Duration) -> Floor {
        self.times.sort_unstable();
        let at = |share: usize| {
            let place = (self.times.len().saturating_sub(1)) * share / 100;
            self.times.get(place).copied().unwrap_or_default() as f64 / 1_000.0
        };
        let seconds = time.as_secs_f64();
        Floor {
            steps_per_s: self.steps as f64 / seconds,
            runs_per_s: self.runs as f64 / seconds,
            p50_ms: at(50),
            p99_ms: at(99),
        }
    }
}

/// One run on its way through its records.
struct Slot {
    run: RunId,
    next: usize,
}

/// Writes batches of `batch` records until `until`; counts from `from` on. The runs are at all stages side by side,
/// as under a steady load.
pub(crate) async fn write(
    url: &str,
    template: &Template,
    batch: usize,
    from: Instant,
    until: Instant,
) -> Result<Written, Error> {
    let database = Database::open(url, 1).await?;
    let mut connection = database.writer().await?;
    let mut at = super::super::nodes::clock(&mut connection).await.map_err(StoreError::from)?;
    database.weeks.learn(super::super::partitions::prepare(&mut connection, at).await?);
    let began = Instant::now();
    let zero = at;
    let length = template.records.len().max(1);
    let mut slots: Vec<Slot> =
        (0..batch.max(1)).map(|_| Slot { run: new_run(), next: 0 }).collect();
    // The first rounds bring in the runs evenly over the length of a run.
    let mut round = 0;
    let mut written = Written::default();
    loop {
        at = at.max(Time(zero.0 + i64::try_from(began.elapsed().as_millis()).unwrap_or_default()));
        let active = (slots.len() * (round + 1)).div_ceil(length).min(slots.len());
        round += 1;
        slots[..active].sort_unstable_by_key(|slot| slot.run);
        let (one, steps, runs) = fill(template, &slots[..active], at);
        let asked = Instant::now();
        if asked >= until {
            return Ok(written);
        }
        one.write(&mut connection, &database.weeks).await?;
        if asked >= from {
            written.note(steps, runs, asked.elapsed());
        }
        for slot in &mut slots[..active] {
            slot.next += 1;
            if slot.next >= length {
                *slot = Slot { run: new_run(), next: 0 };
            }
        }
    }
}

fn new_run() -> RunId {
    RunId(Uuid::now_v7())
}

/// Returns the next record of each slot.
fn fill(template: &Template, slots: &[Slot], at: Time) -> (Batch, u64, u64) {
    let mut batch = Batch::new(slots.len(), 0);
    let (mut steps, mut runs) = (0, 0);
    for slot in slots {
        let Some(record) = template.records.get(slot.next) else { continue };
        let seq = i32::try_from(slot.next + 1).unwrap_or(i32::MAX);
        batch.record(slot.run, seq, at, record.events.clone(), record.payloads.clone(), false);
        steps += u64::from(record.steps);
        let last = slot.next + 1 == template.records.len();
        runs += u64::from(last);
        let state = RunState {
            state: State::Running,
            outcome: None,
            conditions: Vec::new(),
            ended_at: None,
            node: Some(1),
            wake_at: None,
        };
        if slot.next == 0 {
            let new = NewRun {
                namespace: &template.namespace,
                workflow: &template.workflow,
                version: u32::try_from(template.version).unwrap_or(1),
                definition: &template.definition,
                key: None,
                correlation_id: None,
                labels: None,
                started_at: at,
            };
            batch.start(slot.run, new, &state);
        } else if last && template.outcome.is_some() {
            let ended = RunState {
                state: State::Ended,
                outcome: template.outcome,
                ended_at: Some(at),
                node: None,
                ..state
            };
            batch.update(slot.run, &ended, &crate::store::batch::Also::default());
        }
    }
    (batch, steps, runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(records: &[(&str, Option<&str>)]) -> Template {
        let records = records.iter().map(|(events, payloads)| TemplateRecord {
            events: (*events).to_owned(),
            payloads: payloads.map(str::to_owned),
            steps: steps_of(events),
        });
        Template {
            namespace: "default".to_owned(),
            workflow: "w".to_owned(),
            version: 1,
            definition: "d".to_owned(),
            outcome: Some(Outcome::Succeeded),
            records: records.collect(),
        }
    }

    #[test]
    fn records_are_put_together_up_to_so_many_steps() {
        let done = r#"[{"succeeded":{"step":"a"}},{"offered":{}}]"#;
        let whole = template(&[
            ("[{\"started\":{}}]", Some("[1]")),
            (done, Some("[2]")),
            (done, None),
            (done, Some("[3]")),
        ]);
        assert_eq!((whole.records(), whole.steps()), (4, 3));
        let joined = whole.with_steps_per_record(2);
        assert_eq!((joined.records(), joined.steps()), (2, 3));
        assert_eq!(joined.records[0].payloads.as_deref(), Some("[1,2]"));
        let events: serde_json::Value = serde_json::from_str(&joined.records[0].events).unwrap();
        assert_eq!(events.as_array().unwrap().len(), 5);
    }
}

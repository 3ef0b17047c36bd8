//! What is asked of schedules. Each act is one write of the schedule's row; what follows from it is done by `fire`.

use backstitch_saga::protocol::{
    BackfillPlan, BackfillSchedule, NextStart, NextStarts, Overlap, Page, ScheduleLine,
    ScheduleSpec, ScheduleStart, ScheduleView, Triggered,
};
use backstitch_saga::{By, Refusal, RefusalCode, RunId, Time, Timestamp, Violation};

use super::check;
use super::fire::{calendar, drive, find, write};
use super::instants::Calendar;
use super::plan::{Plan, State};
use crate::cursor::Cursor;
use crate::node::Node;
use crate::store::schedules::{self as table, ScheduleRow};
use crate::{Engine, Error};

/// How often an act is tried when others write the schedule at the same time.
const TRIES: usize = 20;
/// The most instants of one backfill.
const MOST_BACKFILLED: u32 = 10_000;
/// The most backfills of one schedule at once.
const BACKFILLS: usize = 10;
/// How many instants of a backfill are shown.
const SHOWN: usize = 100;

impl Engine {
    /// Makes a schedule, or replaces its spec whole. Answers whether it is new.
    ///
    /// # Errors
    /// [`Error::Invalid`] with everything wrong in it, [`Error::Busy`].
    pub async fn put_schedule(
        &self,
        namespace: &str,
        name: &str,
        spec: ScheduleSpec,
        by: &By,
    ) -> Result<(ScheduleView, bool), Error> {
        let node = self.node();
        check::check(node, namespace, name, &spec).await?;
        for _ in 0..TRIES {
            let now = node.clock.now();
            if let Some(mut row) = find(node, namespace, name).await? {
                if same(&row.spec, &spec) {
                    return Ok((view(&row, now)?, false));
                }
                row.state.respecify(&row.spec, &spec, now);
                row.state.note("put", by, now);
                row.spec = spec.clone();
                if write(node, &row, Some(now), &[]).await?.is_some() {
                    return Ok((view(&row, now)?, false));
                }
                continue;
            }
            let mut state = State::new(now);
            state.note("put", by, now);
            let row = ScheduleRow {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                revision: 0,
                spec: spec.clone(),
                state,
            };
            let mut connection = node.database.readers.acquire().await?;
            if table::create(&mut connection, &row, Some(now)).await? {
                return Ok((view(&row, now)?, true));
            }
        }
        Err(Error::Busy)
    }

    /// One schedule as it stands.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn schedule(&self, namespace: &str, name: &str) -> Result<ScheduleView, Error> {
        let row = found(self.node(), namespace, name).await?;
        view(&row, self.node().clock.now())
    }

    /// Schedules by name.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn schedules(
        &self,
        namespace: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<ScheduleLine>, Error> {
        let after = after.map(Cursor::schedule).transpose()?;
        let limit = limit.clamp(1, 1_000) as usize;
        let mut connection = self.node().database.readers.acquire().await?;
        let mut rows =
            table::list(&mut connection, namespace, after.as_deref(), limit as i64 + 1).await?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|row| Cursor::of_schedule(&row.name));
        let now = self.node().clock.now();
        let items: Result<_, Error> = rows.iter().map(|row| line(row, now)).collect();
        Ok(Page { items: items?, next })
    }

    /// Deletes a schedule. Its runs, and what waits in them, stay.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn delete_schedule(&self, namespace: &str, name: &str, by: &By) -> Result<(), Error> {
        let mut connection = self.node().database.readers.acquire().await?;
        if name.contains('\0') || !table::delete(&mut connection, namespace, name).await? {
            return Err(unknown(name));
        }
        tracing::info!(namespace, schedule = name, actor = &*by.actor, "a schedule was deleted");
        Ok(())
    }

    /// Stops a schedule's clock.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Refused`] without a reason.
    pub async fn pause_schedule(
        &self,
        namespace: &str,
        name: &str,
        by: &By,
    ) -> Result<ScheduleView, Error> {
        self.act(namespace, name, |row, now| {
            must_have_reason(by)?;
            row.state.pause(by, now);
            Ok(())
        })
        .await
    }

    /// Lets a schedule's clock go on. Instants of the pause are passed over.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Refused`] without a reason.
    pub async fn resume_schedule(
        &self,
        namespace: &str,
        name: &str,
        by: &By,
    ) -> Result<ScheduleView, Error> {
        self.act(namespace, name, |row, now| {
            must_have_reason(by)?;
            row.state.resume(by, now);
            Ok(())
        })
        .await
    }

    /// Starts a run of a schedule now, also of a paused one. Its overlap policy holds where `overlap` is not given. Asked
    /// again with the same `id` it is the same start, and answered the same.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Refused`] without a reason.
    pub async fn trigger_schedule(
        &self,
        namespace: &str,
        name: &str,
        id: Option<RunId>,
        overlap: Option<Overlap>,
        by: &By,
    ) -> Result<Triggered, Error> {
        must_have_reason(by)?;
        let node = self.node();
        let key = format!("schedule/{name}/trigger/{}", id.unwrap_or_else(|| node.clock.new_run()));
        let told = || told_of(node, namespace, name, &key);
        let mut start = told().await?;
        if start.is_none() {
            let changed = change(node, namespace, name, |row, now| {
                let overlap = overlap.unwrap_or(row.spec.overlap);
                row.state.trigger(&key, overlap, by, now);
                Ok(())
            });
            drive(node, changed.await?).await?;
            start = told().await?;
        }
        Ok(Triggered { waiting: start.is_none(), start })
    }

    /// Starts the instants of a range, or says which they are.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] for a range that makes no sense or holds too much; [`Error::Refused`]
    /// without a reason; [`Error::Conflict`] while ten backfills of the schedule are under way.
    pub async fn backfill_schedule(
        &self,
        namespace: &str,
        name: &str,
        ask: &BackfillSchedule,
        by: &By,
    ) -> Result<BackfillPlan, Error> {
        let node = self.node();
        check_backfill(ask, node.clock.now())?;
        let row = found(node, namespace, name).await?;
        let plan = plan_backfill(&calendar(&row)?, ask)?;
        if ask.dry_run || plan.count == 0 {
            return Ok(plan);
        }
        must_have_reason(by)?;
        change(node, namespace, name, |row, now| {
            if row.state.open_backfills() >= BACKFILLS {
                return Err(Error::Conflict {
                    code: "too_many_backfills",
                    message: format!("{BACKFILLS} backfills are under way; wait until one is done"),
                });
            }
            row.state.backfill(ask.from.0, ask.to.0, ask.overlap, by, now);
            Ok(())
        })
        .await?;
        Ok(plan)
    }

    /// The next starts of a schedule, 1 to 1,000.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn next_of_schedule(
        &self,
        namespace: &str,
        name: &str,
        count: u32,
    ) -> Result<NextStarts, Error> {
        let row = found(self.node(), namespace, name).await?;
        let count = count.clamp(1, 1_000) as usize;
        let items = upcoming(&row, self.node().clock.now(), count)?;
        Ok(NextStarts { items, paused: row.state.paused().is_some() })
    }

    /// What became of a schedule's starts, newest first.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn schedule_starts(
        &self,
        namespace: &str,
        name: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<ScheduleStart>, Error> {
        let before = after.map(Cursor::start).transpose()?;
        found(self.node(), namespace, name).await?;
        let limit = limit.clamp(1, 1_000) as usize;
        let mut connection = self.node().database.readers.acquire().await?;
        let mut lines =
            table::starts(&mut connection, namespace, name, before, limit as i64 + 1).await?;
        let more = lines.len() > limit;
        lines.truncate(limit);
        let next = lines.last().filter(|_| more).map(|(id, ..)| Cursor::of_start(*id));
        Ok(Page { items: lines.into_iter().map(|(.., start)| start).collect(), next })
    }

    async fn act(
        &self,
        namespace: &str,
        name: &str,
        act: impl Fn(&mut ScheduleRow, Time) -> Result<(), Error>,
    ) -> Result<ScheduleView, Error> {
        let row = change(self.node(), namespace, name, act).await?;
        view(&row, self.node().clock.now())
    }
}

/// Changes a schedule as `act` does, and has it looked at soon.
async fn change(
    node: &Node,
    namespace: &str,
    name: &str,
    act: impl Fn(&mut ScheduleRow, Time) -> Result<(), Error>,
) -> Result<ScheduleRow, Error> {
    for _ in 0..TRIES {
        let mut row = found(node, namespace, name).await?;
        let now = node.clock.now();
        act(&mut row, now)?;
        if let Some(revision) = write(node, &row, Some(now), &[]).await? {
            row.revision = revision;
            return Ok(row);
        }
    }
    Err(Error::Busy)
}

/// What became of the start with this key, if it came to an end lately.
async fn told_of(
    node: &Node,
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<Option<ScheduleStart>, Error> {
    if name.contains('\0') {
        return Ok(None);
    }
    let mut connection = node.database.readers.acquire().await?;
    let newest = table::starts(&mut connection, namespace, name, None, 1_000).await?;
    let here = |(_, known, _): &(i64, Option<String>, _)| known.as_deref() == Some(key);
    Ok(newest.into_iter().find(here).map(|(.., start)| start))
}

async fn found(node: &Node, namespace: &str, name: &str) -> Result<ScheduleRow, Error> {
    let row = if name.contains('\0') { None } else { find(node, namespace, name).await? };
    row.ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> Error {
    Error::NotFound {
        code: "unknown_schedule",
        message: format!("there is no schedule '{name}' in this namespace"),
    }
}

fn must_have_reason(by: &By) -> Result<(), Error> {
    if by.reason.trim().is_empty() {
        let message = "say why; the reason is kept with the schedule";
        return Err(Refusal::new(RefusalCode::ReasonMissing, message).into());
    }
    Ok(())
}

fn same(one: &ScheduleSpec, other: &ScheduleSpec) -> bool {
    let text = |spec| serde_json::to_string(spec).ok();
    text(one) == text(other)
}

fn check_backfill(ask: &BackfillSchedule, now: Time) -> Result<(), Error> {
    let mut wrong = Vec::new();
    let mut add = |pointer, message: String| {
        wrong.push(Violation::new(pointer, "out_of_range", message));
    };
    if ask.from > ask.to {
        add("/from", "the range must begin before it ends".to_owned());
    }
    if ask.to.0 > now {
        add(
            "/to",
            "only the past can be made up for; starts to come are made when they come".to_owned(),
        );
    }
    if !matches!(ask.overlap, Overlap::Queue | Overlap::Allow) {
        let message =
            "a backfill starts its runs one after the other (queue) or all at once (allow)";
        add("/overlap", message.to_owned());
    }
    if !(1..=MOST_BACKFILLED).contains(&ask.limit) {
        add("/limit", format!("1 to {MOST_BACKFILLED}, not {}", ask.limit));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Error::Invalid { code: "invalid_request", violations: wrong })
}

fn plan_backfill(calendar: &Calendar, ask: &BackfillSchedule) -> Result<BackfillPlan, Error> {
    let begin = Time(ask.from.0.0.saturating_sub(1));
    let mut plan = BackfillPlan { count: 0, instants: Vec::new() };
    for instant in calendar.instants(begin).take_while(|instant| *instant <= ask.to.0) {
        if plan.count == ask.limit {
            let message = format!(
                "the range holds more than {} instants; narrow it or raise the limit",
                ask.limit
            );
            let violation = Violation::new("/limit", "too_many", message);
            return Err(Error::invalid("invalid_request", violation));
        }
        plan.count += 1;
        if plan.instants.len() < SHOWN {
            plan.instants.push(Timestamp(instant));
        }
    }
    Ok(plan)
}

/// The next `count` starts; of a paused schedule those that it would make from now on.
fn upcoming(row: &ScheduleRow, now: Time, count: usize) -> Result<Vec<NextStart>, Error> {
    let calendar = calendar(row)?;
    let plan =
        Plan { namespace: &row.namespace, name: &row.name, spec: &row.spec, calendar: &calendar };
    // What the jitter puts off is still to come.
    let put_off = Time(now.0.saturating_sub_unsigned(row.spec.jitter.0));
    let begin = match row.state.paused() {
        Some(_) => now,
        None => row.state.considered().max(put_off),
    };
    let starts = calendar.instants(begin).take(count).map(|instant| NextStart {
        scheduled_for: instant.into(),
        local: calendar.local(instant),
        starts_at: plan.starts_at(instant).into(),
    });
    Ok(starts.collect())
}

fn next(row: &ScheduleRow, now: Time) -> Result<Option<NextStart>, Error> {
    match row.state.paused() {
        Some(_) => Ok(None),
        None => Ok(upcoming(row, now, 1)?.pop()),
    }
}

fn view(row: &ScheduleRow, now: Time) -> Result<ScheduleView, Error> {
    Ok(ScheduleView {
        name: row.name.clone(),
        spec: row.spec.clone(),
        paused: row.state.paused().cloned(),
        next: next(row, now)?,
        last_run: row.state.last_run(),
        waiting: row.state.waiting(),
        backfills: row.state.backfills(),
        counts: row.state.counts(),
        acts: row.state.acts().to_vec(),
        created_at: row.state.created_at().into(),
    })
}

fn line(row: &ScheduleRow, now: Time) -> Result<ScheduleLine, Error> {
    Ok(ScheduleLine {
        name: row.name.clone(),
        cron: row.spec.cron.clone(),
        time_zone: row.spec.time_zone.clone(),
        workflow: row.spec.workflow.clone(),
        paused: row.state.paused().is_some(),
        next: next(row, now)?,
        last_run: row.state.last_run(),
        waiting: u32::try_from(row.state.waiting().len()).unwrap_or(u32::MAX),
        counts: row.state.counts(),
    })
}

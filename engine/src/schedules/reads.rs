//! Views of schedules.

use backstitch_saga::Time;
use backstitch_saga::protocol::{
    NextStart, NextStarts, Page, ScheduleCounts, ScheduleLine, ScheduleStart, ScheduleView,
};

use super::fire::{calendar, find};
use super::plan::Plan;
use crate::cursor::Cursor;
use crate::node::Node;
use crate::store::listed;
use crate::store::schedules::{self as table, ScheduleRow};
use crate::{Engine, Error};

impl Engine {
    /// Returns one schedule.
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
        let mut connection = self.node().database.lister(namespace).await?;
        let rows = table::list(&mut connection, namespace, after.as_deref(), limit as i64 + 1);
        let mut rows = listed(rows.await)?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|(name, _)| Cursor::of_schedule(name));
        let now = self.node().clock.now();
        let shown = |(name, row): (String, Result<ScheduleRow, sqlx::Error>)| match row {
            Ok(row) => line(&row, now).unwrap_or_else(|why| damaged_line(name, &why.to_string())),
            Err(why) => damaged_line(name, &why.to_string()),
        };
        Ok(Page { items: rows.into_iter().map(shown).collect(), next })
    }

    /// Returns the next starts of a schedule, 1 to 1,000.
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

    /// Lists the results of a schedule's starts, newest first.
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
        let mut connection = self.node().database.lister(namespace).await?;
        let lines = table::starts(&mut connection, namespace, name, before, limit as i64 + 1);
        let mut lines = listed(lines.await)?;
        let more = lines.len() > limit;
        lines.truncate(limit);
        let next = lines.last().filter(|_| more).map(|(id, _)| Cursor::of_start(*id));
        Ok(Page { items: lines.into_iter().map(|(_, start)| start).collect(), next })
    }
}

/// Returns the schedule of this name.
pub(super) async fn found(node: &Node, namespace: &str, name: &str) -> Result<ScheduleRow, Error> {
    let row = if name.contains('\0') { None } else { find(node, namespace, name).await? };
    row.ok_or_else(|| unknown(name))
}

/// Returns the error that there is no schedule of this name.
pub(super) fn unknown(name: &str) -> Error {
    Error::NotFound {
        code: "unknown_schedule",
        message: format!("there is no schedule '{name}' in this namespace"),
    }
}

/// Returns the next `count` starts; of a paused schedule those that it would make from now on.
fn upcoming(row: &ScheduleRow, now: Time, count: usize) -> Result<Vec<NextStart>, Error> {
    let calendar = calendar(row)?;
    let plan = Plan::of(row, &calendar);
    // Without those that the jitter puts off.
    let put_off = Time(now.0.saturating_sub_unsigned(row.spec.jitter.0));
    let begin = match row.state.paused() {
        Some(_) => now,
        None => row.state.considered().max(put_off),
    };
    let shown = |(instant, starts_at): (Time, Time)| NextStart {
        scheduled_for: instant.into(),
        local: calendar.local(instant),
        starts_at: starts_at.into(),
    };
    let put_off = row.state.put_off().filter(|(_, starts_at)| *starts_at > now);
    let mut starts: Vec<(Time, Time)> =
        if row.state.paused().is_some() { Vec::new() } else { put_off.collect() };
    let to_come = row.state.instants(&calendar, begin).take(count);
    starts.extend(to_come.map(|instant| (instant, plan.starts_at(instant))));
    starts.sort_unstable();
    Ok(starts.into_iter().take(count).map(shown).collect())
}

fn next(row: &ScheduleRow, now: Time) -> Result<Option<NextStart>, Error> {
    match row.state.paused() {
        Some(_) => Ok(None),
        None => Ok(upcoming(row, now, 1)?.pop()),
    }
}

/// Returns a schedule for a view.
pub(super) fn view(row: &ScheduleRow, now: Time) -> Result<ScheduleView, Error> {
    let next = next(row, now)?;
    let is_over = next.is_none() && row.state.paused().is_none();
    Ok(ScheduleView {
        name: row.name.clone(),
        spec: row.spec.clone(),
        paused: row.state.paused().cloned(),
        next,
        last_run: row.state.last_run(),
        waiting: row.state.waiting(),
        backfills: row.state.backfills(),
        counts: row.state.counts(),
        created_at: row.state.created_at().into(),
        warnings: super::check::warnings(&row.spec, is_over, row.state.was_set_back()),
    })
}

/// Returns the line of a schedule that cannot be read.
fn damaged_line(name: String, why: &str) -> ScheduleLine {
    ScheduleLine {
        name,
        cron: String::new(),
        also: Vec::new(),
        time_zone: String::new(),
        workflow: String::new(),
        paused: false,
        next: None,
        last_run: None,
        waiting: 0,
        counts: ScheduleCounts::default(),
        damaged: Some(why.to_owned()),
    }
}

fn line(row: &ScheduleRow, now: Time) -> Result<ScheduleLine, Error> {
    Ok(ScheduleLine {
        name: row.name.clone(),
        cron: row.spec.cron.clone(),
        also: row.spec.also.clone(),
        time_zone: row.spec.time_zone.clone(),
        workflow: row.spec.workflow.clone(),
        paused: row.state.paused().is_some(),
        next: next(row, now)?,
        last_run: row.state.last_run(),
        waiting: u32::try_from(row.state.waiting().len()).unwrap_or(u32::MAX),
        counts: row.state.counts(),
        damaged: None,
    })
}

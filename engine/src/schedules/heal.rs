//! Schedules that nothing would look at in time: instants were taken up by a clock that was ahead and has been
//! corrected, or the row says that it is due later than it is. A walk over all schedules finds them, and has a turn
//! taken of each.

use backstitch_saga::Time;
use backstitch_saga::protocol::{StartOrigin, StartOutcome};

use super::fire::{TAKEN_FOR, calendar, drive};
use super::instants::Calendar;
use super::plan::{Known, Plan};
use crate::Error;
use crate::node::Node;
use crate::store::schedules::{self as table, Place, ScheduleRow};

/// Number of schedules that are checked together.
const PAGE: i64 = 100;
/// Number of lines of the history that are read together.
const LINES: i64 = 1_000;
/// Largest number of pages for one schedule.
const MOST_PAGES: usize = 10;
/// Number of damaged schedules after which no more are searched.
const MOST_TOLD: usize = 1_000;

/// Checks the schedules after `after`. Returns the number of repairs, and where to go on.
pub(crate) async fn check(
    node: &Node,
    after: Option<&Place>,
) -> Result<(usize, Option<Place>), Error> {
    let page = {
        let mut connection = node.database.keepers.acquire().await?;
        table::walk(&mut connection, after, PAGE).await?
    };
    let last = page.last().filter(|_| i64::try_from(page.len()) == Ok(PAGE));
    let last = last.map(|(place, ..)| place.clone());
    let (mut mended, mut damaged) = (0, Vec::new());
    let mut readable = Vec::with_capacity(page.len());
    for (place, due, row) in page {
        match read(row) {
            Ok((row, calendar)) => readable.push((due, row, calendar)),
            Err(error) => {
                let (namespace, name) = &place;
                tracing::warn!(namespace, schedule = name, %error, "a schedule cannot be read");
                damaged.push(place);
            }
        }
    }
    node.health.damaged_found(damaged, last.is_none());
    for (due, row, calendar) in readable {
        let late = is_late(&row, &calendar, due, node.clock.now());
        if !late && !row.state.is_ahead(node.clock.now()) {
            continue;
        }
        if late {
            let (due, schedule) = (due.map(|due| due.to_string()), &row.name);
            let namespace = &row.namespace;
            tracing::warn!(namespace, schedule, due, "a schedule was to be looked at too late");
        }
        let name = row.name.clone();
        match drive(node, row).await {
            Ok(_) => {
                node.counters.schedules_mended.one();
                mended += 1;
            }
            // One that fails holds up no other.
            Err(error) => {
                tracing::warn!(schedule = name, %error, "a schedule could not be set right");
            }
        }
    }
    Ok((mended, last))
}

/// Returns a row with the calendar of its patterns, or why it cannot be read.
fn read(row: Result<ScheduleRow, sqlx::Error>) -> Result<(ScheduleRow, Calendar), String> {
    let row = row.map_err(|error| error.to_string())?;
    let calendar = calendar(&row).map_err(|error| error.to_string())?;
    Ok((row, calendar))
}

/// Finds the schedules that cannot be read, each with why.
pub(crate) async fn damaged(node: &Node) -> Result<Vec<String>, Error> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let mut connection = node.database.keepers.acquire().await?;
        let page = table::walk(&mut connection, after.as_ref(), PAGE).await?;
        let whole = i64::try_from(page.len()) == Ok(PAGE);
        after = page.last().filter(|_| whole).map(|(place, ..)| place.clone());
        for ((namespace, name), _, row) in page {
            if let Err(why) = read(row) {
                found.push(format!("the schedule {namespace}/{name} cannot be read: {why}"));
            }
        }
        if after.is_none() || found.len() >= MOST_TOLD {
            return Ok(found);
        }
    }
}

/// Returns whether a row gives a later due time than its schedule has.
fn is_late(row: &ScheduleRow, calendar: &Calendar, due: Option<Time>, now: Time) -> bool {
    let next = row.state.next_look(&Plan::of(row, calendar), now);
    // The node that takes a schedule puts off when it is due.
    let latest = next.map(|next| next.max(now).after(TAKEN_FOR).after(TAKEN_FOR));
    match (due, latest) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(due), Some(latest)) => due > latest,
    }
}

/// Reads from the history which future instants were started, and which were recorded as missed.
pub(super) async fn known(node: &Node, row: &ScheduleRow, now: Time) -> Result<Known, Error> {
    let mut known = Known::default();
    let mut before = None;
    for _ in 0..MOST_PAGES {
        let mut connection = node.database.keepers.acquire().await?;
        let lines = table::starts(&mut connection, &row.namespace, &row.name, before, LINES);
        let lines = lines.await?;
        for (id, line) in &lines {
            before = Some(*id);
            let of_calendar = line.origin != StartOrigin::Trigger;
            let (first, last) = (line.scheduled_for.0, line.until.unwrap_or(line.scheduled_for).0);
            if of_calendar && line.outcome == StartOutcome::Started && first > now {
                known.started.push(first);
            }
            if of_calendar && line.outcome == StartOutcome::Missed && last > now {
                known.missed.push((first, last));
            }
        }
        if i64::try_from(lines.len()) != Ok(LINES) {
            known.from = forgotten_until(node, row);
            return Ok(known);
        }
    }
    // The content of older lines is unknown.
    known.from = known.started.iter().min().copied().max(forgotten_until(node, row));
    Ok(known)
}

/// Returns the last instant of those that may have been started without a line that is kept.
fn forgotten_until(node: &Node, row: &ScheduleRow) -> Option<Time> {
    let keep = i64::try_from(node.options.retention?.as_millis()).unwrap_or(i64::MAX);
    Some(Time(row.state.considered().0.saturating_sub(keep)))
}

/// Logs that a schedule is set back.
pub(super) fn tell(node: &Node, row: &ScheduleRow, now: Time) {
    let ScheduleRow { namespace, name: schedule, .. } = row;
    let until = row.state.considered().to_string();
    tracing::warn!(
        node = node.id,
        namespace,
        schedule,
        now = now.to_string(),
        until,
        "the clock was corrected: instants up to `until` come again, but those that were started"
    );
}

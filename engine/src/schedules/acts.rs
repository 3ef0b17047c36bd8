//! Acts of people on schedules. Each act is one write of the schedule's row and becomes an entry of its acts; `fire`
//! carries out the consequences.

use backstitch_saga::protocol::{
    BackfillPlan, BackfillSchedule, Overlap, ScheduleSpec, ScheduleStart, ScheduleView, Triggered,
};
use backstitch_saga::{By, Payload, RunId, Time, Timestamp, Violation};

use super::check;
use super::fire::{calendar, drive, find, write};
use super::instants::Calendar;
use super::plan::{Plan, State, Told};
use super::reads::{found, unknown, view};
use crate::acts::must_have_reason;
use crate::crash::commit;
use crate::node::Node;
use crate::quotas;
use crate::store::acts::{Act, Thing};
use crate::store::quotas::Counted;
use crate::store::schedules::{self as table, ScheduleRow};
use crate::{Engine, Error};

/// Number of tries of an act when others write the schedule at the same time.
const TRIES: usize = 20;
/// The most instants of one backfill.
pub(crate) const MOST_BACKFILLED: u32 = 10_000;
/// Largest number of concurrent backfills of one schedule.
pub(crate) const BACKFILLS: usize = 10;
/// Number of instants of a backfill that are shown.
const SHOWN: usize = 100;

impl Engine {
    /// Makes a schedule, or replaces its spec whole. Returns whether it is new.
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
        let detail = serde_json::to_string(&spec);
        let detail = Some(detail.map_err(|error| Error::Bug(error.to_string()))?);
        for _ in 0..TRIES {
            let now = node.clock.now();
            let put = Act { detail: detail.clone(), ..act((namespace, name), "put", by, now) };
            if let Some(mut row) = find(node, namespace, name).await? {
                if same(&row.spec, &spec) {
                    return Ok((view(&row, now)?, false));
                }
                let told = respecify(&mut row, &spec, now);
                if write(node, &row, Some(now), &told, Some(&put)).await?.is_some() {
                    return Ok((view(&row, now)?, false));
                }
                continue;
            }
            quotas::check(node, namespace, Counted::Schedules, 1).await?;
            let row = ScheduleRow {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                revision: 0,
                spec: spec.clone(),
                state: State::new(now),
            };
            let mut connection = node.database.reader(namespace).await?;
            if commit!(
                "schedules_create",
                table::create(&mut connection, &row, Some(now), &put).await
            )? {
                return Ok((view(&row, now)?, true));
            }
        }
        Err(Error::Busy)
    }

    /// Deletes a schedule. Its runs go on; what waits is not started. A start that was decided is made first, so that
    /// its run is in the history.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Busy`] when a start that was decided cannot be made now.
    pub async fn delete_schedule(&self, namespace: &str, name: &str, by: &By) -> Result<(), Error> {
        if name.contains('\0') {
            return Err(unknown(name));
        }
        let node = self.node();
        for _ in 0..TRIES {
            let now = node.clock.now();
            let act = act((namespace, name), "delete", by, now);
            let (revision, told) = match find(node, namespace, name).await {
                Ok(None) => return Err(unknown(name)),
                Ok(Some(row)) if row.state.going().next().is_some() && calendar(&row).is_ok() => {
                    drive(node, row).await?;
                    continue;
                }
                Ok(Some(mut row)) => (Some(row.revision), row.state.delete(now)),
                // A row that cannot be read can be deleted.
                Err(_) => (None, Vec::new()),
            };
            let mut connection = node.database.reader(namespace).await?;
            let deleted = table::delete(&mut connection, revision, &told, &act);
            if commit!("schedules_delete", deleted.await)? {
                return Ok(());
            }
        }
        Err(Error::Busy)
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
        must_have_reason(by)?;
        let row = change(self.node(), namespace, name, "pause", by, |row, now| {
            let calendar = calendar(row).ok();
            let mut state = row.state.clone();
            let plan = calendar.as_ref().map(|calendar| Plan::of(row, calendar));
            let told = state.pause(plan.as_ref(), by, now);
            row.state = state;
            Ok(Some(told))
        });
        view(&row.await?, self.node().clock.now())
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
        must_have_reason(by)?;
        let row = change(self.node(), namespace, name, "resume", by, |row, now| {
            Ok(Some(row.state.resume(row.spec.catch_up, now)))
        });
        view(&row.await?, self.node().clock.now())
    }

    /// Starts a run of a schedule now, also of a paused one. Its overlap policy holds where `overlap` is not given.
    /// Asked again with the same `id` it is the same start, and answered the same.
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
        if name.contains('\0') {
            return Err(unknown(name));
        }
        let mut start = told_of(node, namespace, &key).await?;
        if start.is_none() {
            let row = change(node, namespace, name, "trigger", by, |row, now| {
                let overlap = overlap.unwrap_or(row.spec.overlap);
                Ok(row.state.trigger(&key, overlap, &by.actor, now).then(Vec::new))
            });
            drive(node, row.await?).await?;
            start = told_of(node, namespace, &key).await?;
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
        let plan = plan_backfill(&calendar(&found(node, namespace, name).await?)?, ask)?;
        if ask.dry_run {
            return Ok(plan);
        }
        must_have_reason(by)?;
        let row = change(node, namespace, name, "backfill", by, |row, _| {
            if row.state.open_backfills() >= BACKFILLS {
                return Err(Error::Conflict {
                    code: "too_many_backfills",
                    message: format!("{BACKFILLS} backfills are under way; wait until one is done"),
                });
            }
            row.state.backfill(ask.from.0, ask.to.0, ask.overlap, &by.actor);
            Ok(Some(Vec::new()))
        });
        row.await?;
        Ok(plan)
    }
}

fn act<'a>(
    (namespace, name): (&'a str, &'a str),
    verb: &'static str,
    by: &'a By,
    at: Time,
) -> Act<'a> {
    Act { namespace, thing: Thing::Schedule, name, at, verb, by, detail: None }
}

/// Replaces the spec of a schedule. Returns what goes into its history.
fn respecify(row: &mut ScheduleRow, spec: &ScheduleSpec, now: Time) -> Vec<Told> {
    let calendar = calendar(row).ok();
    let mut state = row.state.clone();
    let plan = calendar.as_ref().map(|calendar| Plan::of(row, calendar));
    let told = state.respecify((&row.spec, plan.as_ref()), spec, now);
    (row.state, row.spec) = (state, spec.clone());
    told
}

/// Changes a schedule by `change`, which returns the entry of its history, and has it checked soon. Nothing is written
/// if `change` returns nothing.
async fn change(
    node: &Node,
    namespace: &str,
    name: &str,
    verb: &'static str,
    by: &By,
    change: impl Fn(&mut ScheduleRow, Time) -> Result<Option<Vec<Told>>, Error>,
) -> Result<ScheduleRow, Error> {
    for _ in 0..TRIES {
        let mut row = found(node, namespace, name).await?;
        let now = node.clock.now();
        let Some(told) = change(&mut row, now)? else { return Ok(row) };
        let act = act((namespace, name), verb, by, now);
        if let Some(revision) = write(node, &row, Some(now), &told, Some(&act)).await? {
            row.revision = revision;
            return Ok(row);
        }
    }
    Err(Error::Busy)
}

/// Returns the result of the manual start with this key, if there is one.
async fn told_of(node: &Node, namespace: &str, key: &str) -> Result<Option<ScheduleStart>, Error> {
    let mut connection = node.database.reader(namespace).await?;
    Ok(commit!(
        "schedules_start_by_hand",
        table::start_by_hand(&mut connection, namespace, key).await
    )?)
}

fn same(one: &ScheduleSpec, other: &ScheduleSpec) -> bool {
    let form = |spec| Payload::of(spec).ok().map(|document| document.canonical());
    form(one) == form(other)
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

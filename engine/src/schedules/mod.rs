//! Starts of runs by the calendar. `instants` computes when a pattern is due (`pattern` reads it, `days` are rules
//! about its dates), `plan` decides for a schedule at a moment; all of them are pure. `check` refuses invalid
//! schedules, `acts` and `reads` serve requests, `fire` makes the starts. A schedule knows of a run only whether it has
//! ended, and starts it like any caller: under a key. `heal` finds schedules that would not be checked in time.

mod acts;
mod check;
mod days;
mod fire;
mod heal;
pub(crate) mod instants;
mod pattern;
pub(crate) mod plan;
mod reads;

pub(crate) use acts::{BACKFILLS, MOST_BACKFILLED};
pub(crate) use check::{LABEL_LIMIT, QUEUE_LIMIT};
pub(crate) use fire::fire;
pub(crate) use heal::{check as check_rows, damaged};

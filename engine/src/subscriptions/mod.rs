//! Subscriptions: events of the log start runs.
//!
//! `change` and `acts` carry out requests of people, `dispatch` reads the log from the cursor of a subscription and starts
//! runs under keys made of its name, its generation and the position of the event. The cursor moves when the starts are
//! answered: a node that dies in between leaves runs that are found by their keys. A subscription with an order or a
//! limit takes events up first: `pending` starts their runs in turn, `heard` notices the ends of runs, `reads` lists
//! what waits and what was passed over.

mod acts;
mod change;
mod dispatch;
mod heard;
mod pending;
mod reads;
mod wants;

use backstitch_integration::events::{Filter, FilterDocument};
use backstitch_saga::Violation;
use backstitch_saga::protocol::EventFilter;

use crate::Error;
use crate::bounds::{Bound, bound, number};
use crate::store::skips::MOST_SKIPS;

pub(crate) use dispatch::{dispatch, serve};
pub(crate) use heard::{Heard, after};

/// Subscriptions of a namespace. Several that are created at the same instant may pass it by as many.
pub const MOST_SUBSCRIPTIONS: i64 = 1_000;
/// Number of events that are processed together.
pub const EVENTS_AT_ONCE: i64 = 200;
/// Default of the largest number of runs in flight, of a subscription with an order or a limit.
pub const MAX_IN_FLIGHT: i64 = 1_000;
/// Largest `max_in_flight`.
pub const MOST_IN_FLIGHT: u32 = 10_000;
/// Default of the largest number of events that are taken up and not finished.
pub const MAX_BACKLOG: i64 = 10_000;
/// Largest `max_backlog`.
pub const MOST_BACKLOG: u32 = 100_000;

/// Returns the bounds of subscriptions that are not bounds of the rules.
pub(crate) fn bounds() -> Vec<Bound> {
    vec![
        bound(
            "subscriptions of a namespace",
            number(MOST_SUBSCRIPTIONS.unsigned_abs()),
            "409 `too_many_subscriptions`",
        ),
        bound(
            "runs in flight of a subscription with an order or a limit, if it sets no `max_in_flight`",
            number(MAX_IN_FLIGHT.unsigned_abs()),
            "further events wait; runs that block a key do not count",
        ),
        bound(
            "`max_in_flight` of a subscription",
            number(MOST_IN_FLIGHT),
            "422 `invalid_subscription`",
        ),
        bound(
            "its events that are taken up and not finished, if it sets no `max_backlog`",
            number(MAX_BACKLOG.unsigned_abs()),
            "the others stay in the log",
        ),
        bound(
            "`max_backlog` of a subscription",
            number(MOST_BACKLOG),
            "422 `invalid_subscription`",
        ),
        bound(
            "listed events that a subscription passed over, and up to 1,000 more",
            number(MOST_SKIPS.unsigned_abs()),
            "the oldest leave the list, and stay counted",
        ),
    ]
}

/// Checks a filter.
fn filter_of(filter: &EventFilter) -> Result<Filter, Error> {
    let refused = |violations: Vec<Violation>| {
        let placed = violations
            .into_iter()
            .map(|wrong| Violation { pointer: format!("/filter{}", wrong.pointer), ..wrong });
        Error::Invalid { code: "invalid_subscription", violations: placed.collect() }
    };
    let document = serde_json::to_value(filter).and_then(serde_json::from_value::<FilterDocument>);
    let document = document.map_err(|error| {
        refused(vec![Violation::new("", "filter_not_valid", error.to_string())])
    })?;
    Filter::new(document).map_err(refused)
}

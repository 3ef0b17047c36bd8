//! Subscriptions: events of the log start runs.
//!
//! `change` is what people do, `dispatch` reads the log from the cursor of a subscription and starts runs under keys
//! made of its name, its generation and the position of the event. The cursor moves when the starts are answered: a
//! node that dies in between leaves runs that are found by their keys.

mod change;
mod dispatch;

use backstitch_integration::events::{Filter, FilterDocument};
use backstitch_saga::Violation;
use backstitch_saga::protocol::EventFilter;

use crate::Error;

pub(crate) use dispatch::{dispatch, serve};

/// Subscriptions of a namespace. Several that are created at the same instant may pass it by as many.
pub const MOST_SUBSCRIPTIONS: i64 = 1_000;
/// Number of events that are processed together.
pub const EVENTS_AT_ONCE: i64 = 200;

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

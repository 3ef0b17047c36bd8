//! The pages, one file each.

pub(crate) mod audit;
mod changes;
pub(crate) mod compare;
mod counts;
pub(crate) mod credentials;
pub(crate) mod decisions;
pub(crate) mod deeds;
pub(crate) mod effects;
pub(crate) mod erasures;
pub(crate) mod events;
pub(crate) mod filter;
pub(crate) mod imports;
pub(crate) mod incidents;
pub(crate) mod jobs;
pub(crate) mod journal;
pub(crate) mod limits;
pub(crate) mod links;
pub(crate) mod login;
pub(crate) mod mapping;
pub(crate) mod migrations;
pub(crate) mod overview;
pub(crate) mod places;
pub(crate) mod plans;
pub(crate) mod queues;
pub(crate) mod readers;
pub(crate) mod rehearsal;
pub(crate) mod run;
pub(crate) mod runs;
pub(crate) mod schedules;
pub(crate) mod shapes;
pub(crate) mod sources;
pub(crate) mod step;
pub(crate) mod undo;
mod work;
pub(crate) mod workflows;

use axum::response::IntoResponse;
use axum::response::Response;

use crate::ask::{Ask, Problem};

/// Returns the page for an unknown address.
pub(crate) async fn unknown(ask: Ask) -> Response {
    let problem = match ask.who().await {
        Ok(_) => Problem::new(
            404,
            "unknown_page",
            "There is no such page",
            "The menu leads to all that there are.",
        ),
        Err(problem) => problem,
    };
    ask.failed(problem).await.into_response()
}

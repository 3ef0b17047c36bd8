//! Contradictions between documents, imports and events, for people. None of them is repaired, as the log is never
//! rewritten; but events without a position get one when doctor mends.

use sqlx::postgres::PgConnection;

use crate::Error;
use crate::store::log::{Check, Misfit, misfits};

/// The most lines of one kind.
const TOLD: i64 = 100;

/// Finds what does not fit together, a line each.
pub(super) async fn lines(connection: &mut PgConnection) -> Result<Vec<String>, Error> {
    let mut lines = Vec::new();
    for check in Check::ALL {
        let found = misfits(connection, check, TOLD).await?;
        lines.extend(found.into_iter().map(|one| line(check, &one)));
    }
    Ok(lines)
}

fn line(check: Check, found: &Misfit) -> String {
    let Misfit { namespace, name, is, should_be } = found;
    match check {
        Check::Unnumbered => format!(
            "log of {namespace}: {should_be} events of batch {name} have no position and are not announced, so that nobody reads them"
        ),
        Check::Gap => format!(
            "log of {namespace}: the positions before batch {name} end at {should_be}, and it begins after {is}"
        ),
        Check::Head => {
            format!("log of {namespace}: its head is at {is}; the last position is {should_be}")
        }
        Check::Batch => format!(
            "log of {namespace}: batch {name} has {is} events; its positions are {should_be}"
        ),
        Check::Stream => format!(
            "stream {name} of {namespace}: its head is at version {is}; its events say {should_be}"
        ),
        Check::Document => {
            format!("document {name} of {namespace}: the event that it became is not there")
        }
        Check::Pending => format!(
            "subscription {name} of {namespace}: it has counted {is} pending events; there are {should_be}"
        ),
        Check::Key => format!(
            "subscription {name} of {namespace}: its first event, at position {is}, waits for an earlier one that is not there; a reset takes all up again"
        ),
        Check::Import => format!(
            "import {name} of {namespace}: {is} rows are counted or wait; the file has {should_be}"
        ),
    }
}

//! The queue of incidents as people see it. It reads indexes, and of one run its journal; what a verb does is the run's
//! business.

pub(crate) mod act;

use std::sync::Arc;

use backstitch_saga::protocol::{
    IncidentFilter, IncidentGroup, IncidentId, IncidentLine, IncidentState, IncidentView, Page,
};
use backstitch_saga::{Record, Time, history};

use crate::cursor::Cursor;
use crate::node::Node;
use crate::page::page;
use crate::store::codec::decode;
use crate::store::listed;
use crate::store::{incidents as table, runs};
use crate::{Engine, Error, reads};

/// Number of attempts in the view of an incident.
const ATTEMPTS: usize = 20;
/// Number of records of the journal that are searched for them.
const RECORDS: i64 = 200;
/// Number of notes in the view of an incident.
const NOTES: i64 = 100;

impl Engine {
    /// Lists incidents, newest first; `after` is the cursor of the page before.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn incidents(
        &self,
        namespace: &str,
        filter: &IncidentFilter,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<IncidentLine>, Error> {
        let before = after.map(place_of_cursor).transpose()?;
        let mut connection = self.node().database.lister(namespace).await?;
        let now = self.node().clock.now();
        let limit = limit.clamp(1, 1_000);
        let beyond = i64::from(limit) + 1;
        let lines = table::list(&mut connection, namespace, filter, now, before, beyond);
        let lines = listed(lines.await)?;
        let cursor =
            |line: &IncidentLine| Cursor::of('n', &format!("{} {}", line.opened_at.0.0, line.id));
        Ok(page(lines, limit as usize, cursor))
    }

    /// Returns one incident, with what can be done about it.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn incident(&self, namespace: &str, id: IncidentId) -> Result<IncidentView, Error> {
        view(self.node(), namespace, id).await
    }

    /// Lists the open incidents by fingerprint, the largest groups first; `after` is the cursor of the page before.
    /// Groups that grow or shrink between two pages may be listed twice, or missed.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn incident_groups(
        &self,
        namespace: &str,
        filter: &IncidentFilter,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<IncidentGroup>, Error> {
        let after = after.map(group_of_cursor).transpose()?;
        let mut connection = self.node().database.lister(namespace).await?;
        let now = self.node().clock.now();
        let limit = limit.clamp(1, 1_000);
        let beyond = i64::from(limit) + 1;
        let groups = table::groups(&mut connection, namespace, filter, now, after, beyond);
        let groups = listed(groups.await)?;
        let cursor = |group: &IncidentGroup| {
            Cursor::of('g', &format!("{} {}", group.count, group.fingerprint))
        };
        Ok(page(groups, limit as usize, cursor))
    }
}

fn place_of_cursor(text: &str) -> Result<table::IncidentPlace, Error> {
    Cursor::place('n', text, |place| {
        let (at, id) = place.split_once(' ')?;
        Some((Time(at.parse().ok()?), id.parse().ok()?))
    })
}

fn group_of_cursor(text: &str) -> Result<(i64, String), Error> {
    Cursor::place('g', text, |place| {
        let (count, fingerprint) = place.split_once(' ')?;
        Some((count.parse().ok()?, fingerprint.to_owned()))
    })
}

pub(crate) fn unknown_incident(id: IncidentId) -> Error {
    Error::NotFound {
        code: "unknown_incident",
        message: format!("there is no incident {id} in this namespace"),
    }
}

/// Returns one incident's line in the index.
pub(crate) async fn line(
    node: &Node,
    namespace: &str,
    id: IncidentId,
) -> Result<IncidentLine, Error> {
    let mut connection = node.database.reader(namespace).await?;
    let line = table::find(&mut connection, namespace, id).await?;
    line.ok_or_else(|| unknown_incident(id))
}

pub(crate) async fn view(
    node: &Arc<Node>,
    namespace: &str,
    id: IncidentId,
) -> Result<IncidentView, Error> {
    let line = line(node, namespace, id).await?;
    let step = line.step.clone();
    let what = move |run: &backstitch_saga::Run| {
        let task = step.as_ref().and_then(|step| run.step_view(step));
        (run.state(), task, run.verbs(id.number))
    };
    let (run_state, task, next) = match reads::read(node, namespace, id.run, what).await {
        Err(Error::Damaged(_)) => {
            let mut connection = node.database.reader(namespace).await?;
            let run_state = runs::state(&mut connection, id.run).await?;
            let run_state = run_state.ok_or_else(|| unknown_incident(id))?;
            let notes = table::notes(&mut connection, namespace, id, NOTES).await?;
            let (attempts, next) = (Vec::new(), Vec::new());
            return Ok(IncidentView { line, run_state, task: None, attempts, next, notes });
        }
        read => read?,
    };
    let mut connection = node.database.reader(namespace).await?;
    let attempts = match &line.step {
        None => Vec::new(),
        Some(step) => {
            let text = step.to_string();
            let rows = table::records_about(&mut connection, id.run, &text, RECORDS).await?;
            let records = rows.iter().map(|row| decode(id.run, row));
            let records: Vec<Record> = records.collect::<Result<_, _>>().map_err(Error::Damaged)?;
            let mut attempts = history::attempts(step, &records);
            attempts.truncate(ATTEMPTS);
            attempts
        }
    };
    let notes = table::notes(&mut connection, namespace, id, NOTES).await?;
    // Between the two looks it may have been resolved.
    let next = if line.state == IncidentState::Open { next } else { Vec::new() };
    Ok(IncidentView { line, run_state, task, attempts, next, notes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_tells_where_the_next_begins() {
        let cursor = |item: &u32| item.to_string();
        assert_eq!(page(vec![1, 2, 3], 2, cursor).next.as_deref(), Some("2"));
        assert_eq!(page(vec![1, 2], 2, cursor).next, None);
        assert_eq!(page(Vec::new(), 2, cursor).next, None);
    }
}

//! Writes of a batch for governed queues: offered tasks with their rank, permits used, permits freed.

use backstitch_saga::{RunId, TaskKey};
use sqlx::postgres::{PgArguments, Postgres};
use sqlx::query::Query;
use uuid::Uuid;

use super::super::statement::Part;
use super::{Moment, ReadyRow, int};

part!(
    /// Permits by which records lease tasks.
    Permits { run_id: Uuid, permit: Uuid }
);
part!(
    /// Tasks of governed queues that came on offer.
    Governed {
        run_id: Uuid,
        step: String,
        action: &'static str,
        attempt: i32,
        namespace: String,
        queue: String,
        name: String,
        offered_at: Moment,
        priority: i16,
        fair_key: String,
        retry: bool,
    }
);
part!(
    /// Tasks whose permits are over.
    Freed { run_id: Uuid, step: String, action: &'static str, attempt: i32 }
);

/// The order of a task in a governed queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rank {
    /// 0 to 9, higher first.
    pub(crate) priority: i16,
    pub(crate) fair_key: String,
}

/// The parts of a batch that only governed queues need.
#[derive(Debug, Default)]
pub(crate) struct FlowParts {
    permits: Permits,
    governed: Governed,
    freed: Freed,
}

impl FlowParts {
    /// Binds the columns of one of these parts.
    pub(super) fn bind<'q>(
        &'q self,
        part: Part,
        query: Query<'q, Postgres, PgArguments>,
    ) -> Query<'q, Postgres, PgArguments> {
        match part {
            Part::Permits => self.permits.bind(query),
            Part::Governed => self.governed.bind(query),
            _ => self.freed.bind(query),
        }
    }

    /// Returns the number of rows of one of these parts.
    pub(super) fn len(&self, part: Part) -> usize {
        match part {
            Part::Permits => self.permits.len(),
            Part::Governed => self.governed.len(),
            _ => self.freed.len(),
        }
    }

    pub(super) fn offer(&mut self, row: &ReadyRow, rank: &Rank) {
        self.governed.add((
            row.run.0,
            row.task.step.to_string(),
            row.task.action.as_str(),
            int(row.task.attempt),
            row.namespace.to_string(),
            row.queue.clone(),
            row.name.clone(),
            Moment(row.offered_at),
            rank.priority,
            rank.fair_key.clone(),
            row.task.attempt > 1,
        ));
    }

    /// Notes that the record of `run` leases a task by this permit.
    pub(crate) fn permit(&mut self, run: RunId, permit: Uuid) {
        self.permits.add((run.0, permit));
    }

    /// Notes that the permit of a task is over, if it has one.
    pub(crate) fn freed(&mut self, run: RunId, task: &TaskKey) {
        let step = task.step.to_string();
        self.freed.add((run.0, step, task.action.as_str(), int(task.attempt)));
    }
}

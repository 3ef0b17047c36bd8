//! Writes of a batch to the open effects: new ones, and those that are no longer open.

use backstitch_saga::{OpenEffects, RunId, Time};
use sqlx::postgres::{PgArguments, Postgres};
use sqlx::query::Query;
use uuid::Uuid;

use super::super::statement::Part;
use super::{Batch, Moment, int};

part!(
    /// Open effects that are new or have another number.
    Effects {
        run_id: Uuid,
        step: String,
        namespace: String,
        workflow: String,
        system: String,
        standing: i32,
        unknown: i32,
        since: Moment,
    }
);
part!(
    /// Steps without open effects from now on.
    Closed { run_id: Uuid, step: String }
);

/// The parts of a batch about open effects.
#[derive(Debug, Default)]
pub(crate) struct EffectParts {
    open: Effects,
    closed: Closed,
}

impl EffectParts {
    /// Binds the columns of one of these parts.
    pub(super) fn bind<'q>(
        &'q self,
        part: Part,
        query: Query<'q, Postgres, PgArguments>,
    ) -> Query<'q, Postgres, PgArguments> {
        match part {
            Part::Effects => self.open.bind(query),
            _ => self.closed.bind(query),
        }
    }

    /// Returns the number of rows of one of these parts.
    pub(super) fn len(&self, part: Part) -> usize {
        match part {
            Part::Effects => self.open.len(),
            _ => self.closed.len(),
        }
    }
}

impl Batch {
    /// Writes the changes of a run's open effects: `before` has its rows, `now` the wanted ones.
    pub(crate) fn open_effects(
        &mut self,
        run: RunId,
        (namespace, workflow): (&str, &str),
        at: Time,
        (before, now): (&[OpenEffects], &[OpenEffects]),
    ) {
        for open in now.iter().filter(|open| !before.contains(open)) {
            self.effects.open.add((
                run.0,
                open.step.clone(),
                namespace.to_owned(),
                workflow.to_owned(),
                open.system.clone(),
                int(open.standing),
                int(open.unknown),
                Moment(at),
            ));
        }
        for closed in before.iter().filter(|one| now.iter().all(|open| open.step != one.step)) {
            self.effects.closed.add((run.0, closed.step.clone()));
        }
    }
}

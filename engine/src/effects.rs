//! Effects that are open, as people look for them over all runs: by system, by how they are open, by age.

use backstitch_saga::Time;
use backstitch_saga::protocol::{EffectCounts, EffectFilter, EffectLine, Page};

use crate::cursor::Cursor;
use crate::page::page;
use crate::store::{listed, open_effects as table};
use crate::{Engine, Error};

/// Steps with open effects that are counted at most.
pub(crate) const COUNTED: i64 = 10_000;

impl Engine {
    /// Lists open effects, the oldest first; `after` is the cursor of the page before.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn effects(
        &self,
        namespace: &str,
        filter: &EffectFilter,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<EffectLine>, Error> {
        let after = after.map(place_of_cursor).transpose()?;
        let mut connection = self.node().database.lister(namespace).await?;
        let now = self.node().clock.now();
        let limit = limit.clamp(1, 1_000);
        let beyond = i64::from(limit) + 1;
        let lines = table::list(&mut connection, namespace, filter, now, after.as_ref(), beyond);
        let lines = listed(lines.await)?;
        Ok(page(lines, limit as usize, |line: &EffectLine| {
            Cursor::of('e', &format!("{} {} {}", line.since.0.0, line.run, line.step))
        }))
    }

    /// Returns the open effects by system.
    ///
    /// # Errors
    /// [`Error::Store`] when the database cannot be reached.
    pub async fn effect_counts(&self, namespace: &str) -> Result<EffectCounts, Error> {
        let mut connection = self.node().database.lister(namespace).await?;
        let counted = table::by_system(&mut connection, namespace, COUNTED).await;
        let (systems, more) = listed(counted)?;
        Ok(EffectCounts { systems, more })
    }
}

fn place_of_cursor(text: &str) -> Result<table::EffectPlace, Error> {
    Cursor::place('e', text, |place| {
        let (since, rest) = place.split_once(' ')?;
        let (run, step) = rest.split_once(' ')?;
        Some((Time(since.parse().ok()?), run.parse().ok()?, step.to_owned()))
    })
}

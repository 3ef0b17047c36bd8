//! Puts the milestones of a batch together.

use std::collections::HashMap;

use backstitch_saga::{RunId, Time};
use uuid::Uuid;

use super::{Batch, Moment};

part!(
    /// Milestones, as JSON arrays: of one run, or of all runs of one namespace.
    Milestones { namespace: String, run_id: Uuid, at: Moment, milestones: String }
);

impl Batch {
    /// Adds milestones; `milestones` is a JSON array.
    pub(crate) fn milestones(&mut self, namespace: &str, run: RunId, at: Time, milestones: String) {
        self.milestones.add((namespace.to_owned(), run.0, Moment(at), milestones));
    }
}

impl Milestones {
    /// Returns the same with one row for each namespace.
    pub(super) fn by_namespace(&self) -> Milestones {
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut together = Milestones::default();
        for (row, namespace) in self.namespace.iter().enumerate() {
            let more = &self.milestones[row];
            match places.get(namespace.as_str()) {
                Some(place) => {
                    let all = &mut together.milestones[*place];
                    all.pop();
                    all.push(',');
                    all.push_str(more.get(1..).unwrap_or_default());
                }
                None => {
                    places.insert(namespace, together.len());
                    together.add((namespace.clone(), self.run_id[row], self.at[row], more.clone()));
                }
            }
        }
        together
    }
}

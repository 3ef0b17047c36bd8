//! Milestones that are events of the log, a row for all of a batch and namespace.

use std::collections::HashMap;

use backstitch_saga::{RunId, Time};
use uuid::Uuid;

use super::{Batch, Moment};
use crate::store::log::batch_of;

/// The most milestones of a row, roughly.
const MOST: i16 = 1_000;

part!(
    /// Milestones as JSON arrays, of one run, or of all runs of one namespace; `stories` is an array of PostgreSQL.
    Told {
        run_id: Uuid,
        batch: Uuid,
        namespace: String,
        at: Moment,
        n: i16,
        stories: Option<String>,
        milestones: String,
    }
);

impl Batch {
    /// Adds the `n` milestones of a record that are events of the log, as a JSON array. `story` is the correlation id
    /// of the run, if it is not its id.
    pub(crate) fn tell(
        &mut self,
        (run, namespace): (RunId, &str),
        at: Time,
        story: Option<&str>,
        (n, milestones): (i16, String),
    ) {
        let story = story.map(|story| format!("{{{}}}", quoted(story)));
        let id = (run.0, batch_at(at), namespace.to_owned());
        self.told.add((id.0, id.1, id.2, Moment(at), n, story, milestones));
    }

    /// Returns how many milestones of runs that `has` finds became events of the log.
    pub(crate) fn told(&self, has: impl Fn(RunId) -> bool) -> usize {
        let rows = self.told.run_id.iter().zip(&self.told.n).filter(|(run, _)| has(RunId(**run)));
        rows.map(|(_, n)| usize::from(n.unsigned_abs())).sum()
    }
}

/// Makes the id of a batch of events: a UUIDv7 without the bits that name places.
fn batch_at(at: Time) -> Uuid {
    let millis = u64::try_from(at.0).unwrap_or_default();
    batch_of(uuid::Builder::from_unix_timestamp_millis(millis, &rand::random()).into_uuid())
}

/// Quotes a text as an element of an array of PostgreSQL.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Puts the elements of a list behind those of another one, both with a character around them.
fn join(all: &mut String, more: &str) {
    let end = all.pop();
    all.push(',');
    all.push_str(more.get(1..more.len().saturating_sub(1)).unwrap_or_default());
    all.extend(end);
}

impl Told {
    /// The same with one row for each namespace, or some if it has very many.
    pub(super) fn by_namespace(&self) -> Told {
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut together = Told::default();
        for (row, namespace) in self.namespace.iter().enumerate() {
            let (n, story) = (self.n[row], &self.stories[row]);
            let place = places.get(namespace.as_str()).copied();
            if let Some(place) = place.filter(|place| together.n[*place] < MOST) {
                together.n[place] += n;
                join(&mut together.milestones[place], &self.milestones[row]);
                match (&mut together.stories[place], story) {
                    (Some(all), Some(story)) => join(all, story),
                    (none, story) => *none = none.take().or_else(|| story.clone()),
                }
                continue;
            }
            places.insert(namespace, together.len());
            together.add((
                self.run_id[row],
                self.batch[row],
                namespace.clone(),
                self.at[row],
                n,
                story.clone(),
                self.milestones[row].clone(),
            ));
        }
        together
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milestones_of_a_namespace_share_a_row_and_keep_their_order() {
        let mut batch = Batch::new(3, 0);
        let run = |number| RunId(Uuid::from_u128(number));
        let mut tell = |number, namespace, story: Option<&str>, told: &str| {
            batch.tell((run(number), namespace), Time(5), story, (1, told.to_owned()));
        };
        tell(1, "a", None, "[1]");
        tell(2, "b", None, "[2]");
        tell(3, "a", Some(r#"x"\y"#), "[3,4]");
        tell(4, "a", Some("z"), "[5]");
        let together = batch.told.by_namespace();
        assert_eq!(together.namespace, ["a", "b"]);
        assert_eq!(together.n, [3, 1]);
        assert_eq!(together.milestones, ["[1,3,4,5]", "[2]"]);
        assert_eq!(together.stories, [Some(r#"{"x\"\\y","z"}"#.to_owned()), None]);
        assert_eq!(batch.told(|one| one != run(2)), 3);
    }

    #[test]
    fn a_row_has_no_more_milestones_than_a_batch_of_events_may_have() {
        let mut batch = Batch::new(3, 0);
        for number in 0..1_500 {
            let run = RunId(Uuid::from_u128(number));
            batch.tell((run, "a"), Time(5), None, (3, "[1,2,3]".to_owned()));
        }
        let together = batch.told.by_namespace();
        assert!(together.n.iter().all(|n| (1..=MOST + 3).contains(n)), "{:?}", together.n);
        assert_eq!(together.n.iter().copied().map(i32::from).sum::<i32>(), 4_500);
        assert_eq!(together.batch.iter().collect::<std::collections::HashSet<_>>().len(), 5);
        assert!(together.batch.iter().all(|batch| batch.as_u128() & 0xffff == 0));
    }
}

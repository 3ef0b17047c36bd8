//! Chooses which of the waiting tasks go first: keys take turns, and within a key the oldest goes.
//! Pure.

use std::collections::{BTreeMap, HashMap, VecDeque};

use backstitch_saga::{RunId, TaskKey, Time};

/// A task on offer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) run: RunId,
    pub(crate) task: TaskKey,
    /// The handler's name.
    pub(crate) name: String,
    /// Its fair key, as stored.
    pub(crate) key: String,
    pub(crate) offered_at: Time,
}

impl Candidate {
    pub(crate) fn is_retry(&self) -> bool {
        self.task.attempt > 1
    }
}

/// Number of tasks that may still go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    pub(crate) all: u32,
    pub(crate) retries: u32,
    /// By the handler's name; zero for a name that is missing.
    pub(crate) names: HashMap<String, u32>,
    /// By key; no limit for a key that is missing.
    pub(crate) keys: HashMap<String, u32>,
}

impl Limits {
    /// Takes `candidate` off the limits, if they allow it.
    fn take(&mut self, candidate: &Candidate) -> bool {
        let Some(name) = self.names.get_mut(&candidate.name).filter(|left| **left > 0) else {
            return false;
        };
        let key = self.keys.get_mut(&candidate.key);
        if self.all == 0
            || (candidate.is_retry() && self.retries == 0)
            || key.as_ref().is_some_and(|left| **left == 0)
        {
            return false;
        }
        self.all -= 1;
        *name -= 1;
        self.retries -= u32::from(candidate.is_retry());
        if let Some(left) = key {
            *left -= 1;
        }
        true
    }
}

/// Returns those of `candidates` that go now, in order. `turn` is the key that went last, and will be.
pub(crate) fn pick(
    mut candidates: Vec<Candidate>,
    turn: &mut Option<String>,
    limits: &mut Limits,
) -> Vec<Candidate> {
    candidates.sort_by(|a, b| (a.offered_at, a.run, &a.task).cmp(&(b.offered_at, b.run, &b.task)));
    let mut by_key: BTreeMap<String, VecDeque<Candidate>> = BTreeMap::new();
    for candidate in candidates {
        by_key.entry(candidate.key.clone()).or_default().push_back(candidate);
    }
    let keys: Vec<String> = by_key.keys().cloned().collect();
    let first = keys.partition_point(|key| turn.as_ref().is_some_and(|turn| key <= turn));
    let mut round: VecDeque<VecDeque<Candidate>> = by_key.into_values().collect();
    round.rotate_left(if first < keys.len() { first } else { 0 });
    let mut picked = Vec::new();
    while limits.all > 0 {
        let Some(mut waiting) = round.pop_front() else { break };
        let next = std::iter::from_fn(|| waiting.pop_front()).find(|one| limits.take(one));
        if let Some(next) = next {
            *turn = Some(next.key.clone());
            picked.push(next);
            round.push_back(waiting);
        }
    }
    picked
}

#[cfg(test)]
mod tests {
    use super::*;
    use backstitch_saga::{Action, StepPath};

    /// Reads a candidate: `key:age`, with `!` for a retry; the younger the later offered.
    fn candidate(text: &str) -> Candidate {
        let (key, rest) = text.split_once(':').unwrap();
        let age: i64 = rest.trim_end_matches('!').parse().unwrap();
        let attempt = if rest.ends_with('!') { 2 } else { 1 };
        let task = TaskKey { step: StepPath::step("a"), action: Action::Forward, attempt };
        let run = RunId(uuid::Uuid::from_u128(u128::try_from(age).unwrap()));
        let (name, key) = ("do".to_owned(), key.to_owned());
        Candidate { run, task, name, key, offered_at: Time(age) }
    }

    fn picked(waiting: &str, turn: &str, limits: &mut Limits) -> (String, Option<String>) {
        let waiting = waiting.split_whitespace().map(candidate).collect();
        let mut turn = (!turn.is_empty()).then(|| turn.to_owned());
        let picked = pick(waiting, &mut turn, limits);
        let words: Vec<_> =
            picked.iter().map(|one| format!("{}:{}", one.key, one.offered_at.0)).collect();
        (words.join(" "), turn)
    }

    fn limits(all: u32) -> Limits {
        Limits { all, retries: all, names: [("do".to_owned(), 100)].into(), keys: HashMap::new() }
    }

    #[test]
    fn keys_take_turns_and_the_oldest_of_a_key_goes_first() {
        for (waiting, turn, all, expected) in [
            ("a:3 a:1 a:2", "", 10, "a:1 a:2 a:3"),
            ("a:1 a:2 a:3 b:4 c:5", "", 10, "a:1 b:4 c:5 a:2 a:3"),
            ("a:1 a:2 a:3 b:4 c:5", "a", 2, "b:4 c:5"),
            ("a:1 a:2 b:4 c:5", "b", 3, "c:5 a:1 b:4"),
            ("a:1 b:2", "z", 1, "a:1"),
            ("a:1 b:2", "", 0, ""),
        ] {
            assert_eq!(picked(waiting, turn, &mut limits(all)).0, expected, "{waiting} {turn}");
        }
    }

    #[test]
    fn the_turn_is_remembered() {
        let (_, turn) = picked("a:1 b:2 c:3", "a", &mut limits(1));
        assert_eq!(turn.as_deref(), Some("b"));
        assert_eq!(picked("a:1", "q", &mut limits(0)).1.as_deref(), Some("q"));
    }

    #[test]
    fn no_limit_is_exceeded_and_none_holds_up_what_it_does_not_limit() {
        let mut few = limits(10);
        few.keys.insert("a".to_owned(), 1);
        assert_eq!(picked("a:1 a:2 b:3 b:4", "", &mut few).0, "a:1 b:3 b:4");
        let mut no_retries = limits(10);
        no_retries.retries = 1;
        assert_eq!(picked("a:1! a:2! a:3 b:4! b:5", "", &mut no_retries).0, "a:1 b:5 a:3");
        let mut names = limits(10);
        names.names.insert("do".to_owned(), 2);
        assert_eq!(picked("a:1 a:2 a:3", "", &mut names).0, "a:1 a:2");
    }
}

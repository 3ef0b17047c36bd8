//! I13: whose turn it is, as the ledger saw it.

use std::collections::BTreeMap;

use crate::client::Asked;
use crate::evidence::{Evidence, Story, Violation};
use crate::ledger::{Came, Line};

/// Returns the first and the last effect of a run in the ledger, by the ledger's count.
fn effects(story: &Story) -> Option<(&Line, &Line)> {
    let done = || story.ledger.iter().filter(|line| line.came == Came::Done);
    let first = done().min_by_key(|line| line.n)?;
    Some((first, done().max_by_key(|line| line.n)?))
}

/// I13: effects of two runs with one serial key never stand between each other; and a run that requires a fact has none
/// before somebody asked that it be established.
pub(super) fn turns(evidence: &Evidence) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut lines: BTreeMap<&str, Vec<(u64, u64, &Story)>> = BTreeMap::new();
    for story in &evidence.stories {
        let Some((first, last)) = effects(story) else { continue };
        if let Some(key) = &story.serial_key {
            lines.entry(key).or_default().push((first.n, last.n, story));
        }
        let sequence = story.program.as_ref().and_then(|program| program.sequence.as_ref());
        let Some((fact, subject)) = sequence.map(|sequence| &sequence.requires) else { continue };
        let is_it = |asked: &Asked| matches!(asked, Asked::Establish { fact: one, subject: on } if one == fact && on == subject);
        let asked = evidence.calls.iter().filter(|call| is_it(&call.asked)).map(|call| call.at);
        if asked.min().is_none_or(|asked| first.at < asked) {
            let what = format!("it began before {fact} was established for '{subject}'");
            found.push(Violation::of("I13", story.run, what));
        }
    }
    for (key, mut line) in lines {
        line.sort_by_key(|(first, ..)| *first);
        for pair in line.windows(2) {
            let ((_, last, one), (first, _, other)) = (&pair[0], &pair[1]);
            if last > first {
                let what = format!("it moved before run {} was over with the key '{key}'", one.run);
                found.push(Violation::of("I13", other.run, what));
            }
        }
    }
    found
}

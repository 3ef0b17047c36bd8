//! Runs that wait for each other: each requires a fact that only the next has promised. The cycle is found when the
//! run that closes it begins. Somebody outside may still establish one of the facts, so no run is refused: an incident
//! opens.

use std::collections::{BTreeMap, BTreeSet};

use backstitch_saga::RunId;
use backstitch_saga::protocol::Requirement;
use uuid::Uuid;

use super::tell::{ask, unmet};
use crate::Error;
use crate::node::Node;
use crate::store::facts as table;

/// Number of waits that are examined from one run.
const LIMIT: i64 = 1_000;

/// The requirements that runs wait for, each with the runs that have promised it.
type Waits = BTreeMap<RunId, BTreeMap<Requirement, Vec<RunId>>>;

/// A circle: each run with the fact that it requires of the next; the last requires one of the first.
type Circle = Vec<(RunId, Requirement)>;

/// Tells each of these runs, which have just begun, if it waits for a circle.
pub(super) async fn tell(node: &Node, begun: &[RunId]) -> Result<(), Error> {
    let ids: Vec<Uuid> = begun.iter().map(|run| run.0).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let mut connection = node.database.keepers.acquire().await?;
    let both = table::awaiting_and_promising(&mut connection, &ids).await?;
    let mut commands = Vec::new();
    for run in both {
        let mut waits = Waits::new();
        let mut next = BTreeSet::from([run]);
        while !next.is_empty() && waits.len() < usize::try_from(LIMIT).unwrap_or(usize::MAX) {
            let ids: Vec<Uuid> = next.iter().map(|run| run.0).collect();
            let edges = table::awaited_of_whom(&mut connection, &ids, LIMIT).await?;
            let undecided = i64::try_from(edges.len()) == Ok(LIMIT);
            waits.extend(next.iter().map(|run| (*run, BTreeMap::new())));
            next.clear();
            for (waiting, fact, by) in edges {
                let promised = waits.entry(waiting).or_default().entry(fact).or_default();
                promised.extend(by);
                next.extend(by.filter(|by| !waits.contains_key(by)));
            }
            if undecided {
                waits.clear();
                break;
            }
        }
        if let Some(circle) = circle(run, &waits)
            && let Some((_, first)) = circle.first()
        {
            commands.push((run, unmet(first, words(&circle))));
        }
    }
    drop(connection);
    ask(node, commands).await;
    Ok(())
}

/// Returns the circle that keeps `run` from ever beginning by the doing of the runs that there are.
fn circle(run: RunId, waits: &Waits) -> Option<Circle> {
    // Runs that only each other could release: all waiting ones, less those with no fact that only such have promised.
    let mut stuck: BTreeSet<RunId> = waits.keys().copied().collect();
    let hopeless = |run: &RunId, stuck: &BTreeSet<RunId>| {
        let facts = waits.get(run)?;
        let fact = facts
            .iter()
            .find(|(_, by)| !by.is_empty() && by.iter().all(|by| stuck.contains(by)))?;
        Some((fact.0.clone(), *fact.1.first()?))
    };
    loop {
        let before = stuck.len();
        let known = stuck.clone();
        stuck.retain(|run| hopeless(run, &known).is_some());
        if stuck.len() == before {
            break;
        }
    }
    let mut path: Circle = Vec::new();
    let mut at = run;
    loop {
        if let Some(start) = path.iter().position(|(run, _)| *run == at) {
            return Some(path.split_off(start));
        }
        let (fact, by) = hopeless(&at, &stuck).filter(|_| stuck.contains(&at))?;
        path.push((at, fact));
        at = by;
    }
}

fn words(circle: &Circle) -> String {
    let told: Vec<String> = circle
        .iter()
        .map(|(run, one)| format!("run {run} requires {} on '{}'", one.fact, one.on))
        .collect();
    format!("runs wait for each other: {}", told.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(number: u128) -> RunId {
        RunId(Uuid::from_u128(number))
    }

    fn fact(name: &str) -> Requirement {
        Requirement { fact: name.to_owned(), on: "x".to_owned() }
    }

    fn waits(all: &[(u128, &str, &[u128])]) -> Waits {
        let mut waits = Waits::new();
        for (waiting, name, by) in all {
            let by = by.iter().map(|by| run(*by)).collect();
            waits.entry(run(*waiting)).or_default().insert(fact(name), by);
        }
        waits
    }

    fn found(at: u128, all: &[(u128, &str, &[u128])]) -> Option<Vec<u128>> {
        let circle = circle(run(at), &waits(all))?;
        Some(circle.into_iter().map(|(run, _)| run.0.as_u128()).collect())
    }

    #[test]
    fn runs_that_wait_for_each_other_are_found() {
        assert_eq!(found(1, &[(1, "a", &[2]), (2, "b", &[1])]), Some(vec![1, 2]));
        assert_eq!(
            found(3, &[(1, "a", &[2]), (2, "b", &[3]), (3, "c", &[1])]),
            Some(vec![3, 1, 2])
        );
        assert_eq!(found(1, &[(1, "a", &[1])]), Some(vec![1]), "it requires what it makes");
        // A run that waits for a cycle is informed of it, though it is not in it.
        assert_eq!(found(9, &[(9, "z", &[1]), (1, "a", &[2]), (2, "b", &[1])]), Some(vec![1, 2]));
    }

    #[test]
    fn where_somebody_else_may_help_there_is_no_circle() {
        assert_eq!(found(1, &[(1, "a", &[2])]), None, "the second is under way");
        assert_eq!(found(1, &[(1, "a", &[2]), (2, "b", &[])]), None, "a caller may establish it");
        let both: &[(u128, &str, &[u128])] = &[(1, "a", &[2, 3]), (2, "b", &[1])];
        assert_eq!(found(1, both), None, "the third makes it, too");
        // One fact that never comes is enough.
        let two: &[(u128, &str, &[u128])] = &[(1, "a", &[2]), (1, "c", &[]), (2, "b", &[1])];
        assert_eq!(found(1, two), Some(vec![1, 2]));
    }

    #[test]
    fn a_circle_is_told_with_its_runs() {
        let circle = vec![(run(1), fact("a")), (run(2), fact("b"))];
        let told = format!(
            "runs wait for each other: run {} requires a on 'x', run {} requires b on 'x'",
            run(1),
            run(2)
        );
        assert_eq!(words(&circle), told);
    }
}

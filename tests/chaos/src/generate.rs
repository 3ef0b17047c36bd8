//! Random programs, whose results are known as those of any program are.

use backstitch_tests::chance::Chance;

use crate::program::{Body, Join, OnUnknown, Program};
use crate::worker::Script;

/// Generates so many programs.
#[must_use]
pub fn programs(chance: &mut Chance, count: usize) -> Vec<Program> {
    (0..count)
        .map(|number| program(&mut chance.fork(), &format!("random-{number}"), true))
        .collect()
}

fn below(chance: &mut Chance, limit: usize) -> usize {
    usize::try_from(chance.below(limit as u64)).unwrap_or_default()
}

fn program(chance: &mut Chance, name: &str, whole: bool) -> Program {
    let count = 2 + below(chance, if whole { 5 } else { 2 });
    let fails = chance.percent(25).then(|| below(chance, count));
    let mut program = Program::new(name);
    for place in 0..count {
        let mut needs: Vec<String> = Vec::new();
        for (earlier, step) in program.steps.iter().enumerate() {
            // The last step follows the one before it, so that the output is that of the end.
            if chance.percent(40) || (place + 1 == count && earlier + 1 == place) {
                needs.push(step.id.clone());
            }
        }
        let needs: Vec<&str> = needs.iter().map(String::as_str).collect();
        let last = place + 1 == count;
        let body = if fails == Some(place) {
            Body::Task(Script { refuses: true, ..script(chance) }, OnUnknown::Retry)
        } else {
            body(chance, &format!("{name}-{place}"), whole, last)
        };
        program = program.step(&format!("s{place}"), &needs, body);
    }
    program
}

fn script(chance: &mut Chance) -> Script {
    let amount = 1 + i64::try_from(chance.below(9)).unwrap_or(0);
    let mut script = Script { adds: amount, ms: chance.below(60), ..Script::default() };
    if chance.percent(50) {
        let account = |number: u64| format!("account-{number}");
        let (from, to) = (account(chance.below(5)), account(5 + chance.below(5)));
        script.moves = vec![(from, -amount), (to, amount)];
    }
    if chance.percent(15) {
        script.fails = 1 + u32::try_from(chance.below(2)).unwrap_or(0);
    }
    if chance.percent(15) {
        script.undo_fails = 1 + u32::try_from(chance.below(3)).unwrap_or(0);
    }
    script
}

fn body(chance: &mut Chance, name: &str, whole: bool, last: bool) -> Body {
    match chance.below(100) {
        0..15 => {
            let count = 2 + below(chance, 5);
            let join = match chance.below(5) {
                0 => Join::All,
                1 => Join::Any,
                2 => Join::Quorum(1 + below(chance, count)),
                3 => Join::Tolerate(1),
                _ => Join::BestEffort,
            };
            let bears = match join {
                Join::All => 0,
                Join::Any | Join::Tolerate(_) => 1,
                Join::Quorum(wanted) => count - wanted,
                Join::BestEffort => count,
            };
            let items = (0..count).map(|item| {
                let refuses = item < bears && chance.percent(40);
                Script { refuses, ..script(chance) }
            });
            Body::Map { items: items.collect(), join, at_once: 1 + below(chance, count) }
        }
        15..23 if !last => Body::Sleep(100 + chance.below(900)),
        // Clients know nothing of children, and signal none.
        23..31 if !last && whole => Body::Wait(format!("go-{}", chance.below(1_000)), 3),
        31..40 if whole => Body::Child(Box::new(program(&mut chance.fork(), name, false))),
        40..46 => {
            Body::Task(Script { reads: true, adds: 2, ..Script::default() }, OnUnknown::Retry)
        }
        46..54 => Body::Task(Script { doubts: 1, ..script(chance) }, OnUnknown::Verify),
        54..60 => Body::Task(Script { doubts: 1, ..script(chance) }, OnUnknown::Retry),
        60..63 => Body::Task(Script { doubts: 99, ..script(chance) }, OnUnknown::Compensate),
        _ => Body::Task(script(chance), OnUnknown::Retry),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::Expected;

    #[test]
    fn the_engine_takes_what_is_generated_and_all_ends_come_up() {
        let programs = programs(&mut Chance::new(1), 300);
        let mut seen = [0; 3];
        for program in programs.iter().flat_map(Program::all) {
            let text = program.definition().to_string();
            let checked = backstitch_engine::validate(&text);
            assert!(checked.is_ok(), "{checked:?}\n{text}");
            match program.expected() {
                Expected::Done(_) => seen[0] += 1,
                Expected::Partly => seen[1] += 1,
                Expected::Undone => seen[2] += 1,
                Expected::Poison => unreachable!("none kills"),
            }
        }
        assert!(seen.iter().all(|count| *count > 10), "{seen:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_programs() {
        let text = |seed| format!("{:?}", programs(&mut Chance::new(seed), 20));
        assert_eq!(text(5), text(5));
        assert_ne!(text(5), text(6));
    }
}

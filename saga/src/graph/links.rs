//! Dependencies of steps: the edges of a definition, their order, and their cycles, which are refused.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};

use crate::validate::expressions;
use crate::{Definition, Step};

/// The edges of a definition, by position of its steps. References to unknown steps and to the step itself are left
/// out; they are reported elsewhere.
pub(crate) struct Links {
    pub(crate) steps: Vec<StepLinks>,
}

/// The edges that lead from one step to those before it, sorted and without repetition.
#[derive(Default)]
pub(crate) struct StepLinks {
    pub(crate) needs: Vec<usize>,
    pub(crate) requires: Vec<usize>,
}

impl Links {
    pub(crate) fn of(definition: &Definition) -> Links {
        let positions: HashMap<&str, usize> = definition
            .steps
            .iter()
            .enumerate()
            .rev()
            .map(|(at, step)| (step.id.as_str(), at))
            .collect();
        let steps = definition.steps.iter().map(|step| StepLinks::of(step, &positions)).collect();
        Links { steps }
    }

    /// Returns, for each step, those that have it in their needs.
    pub(crate) fn feeds(&self) -> Vec<Vec<usize>> {
        let mut feeds = vec![Vec::new(); self.steps.len()];
        for (at, step) in self.steps.iter().enumerate() {
            for need in &step.needs {
                feeds[*need].push(at);
            }
        }
        feeds
    }

    /// Returns, for each step, whether it must come before the step `at`.
    pub(crate) fn ancestors(&self, at: usize) -> Vec<bool> {
        let mut above = vec![false; self.steps.len()];
        let mut open = self.steps[at].needs.clone();
        while let Some(next) = open.pop() {
            if !std::mem::replace(&mut above[next], true) {
                open.extend(&self.steps[next].needs);
            }
        }
        above
    }

    /// Returns the positions in an order in which each comes after all that it needs, otherwise as in the
    /// definition.
    ///
    /// # Errors
    /// The cycles: each a list of positions of which each needs the next, and the last the first. No two share a
    /// step; breaking one may bring another to light.
    pub(crate) fn order(&self) -> Result<Vec<usize>, Vec<Vec<usize>>> {
        let feeds = self.feeds();
        let mut missing: Vec<usize> = self.steps.iter().map(|step| step.needs.len()).collect();
        let mut ready: BinaryHeap<Reverse<usize>> =
            (0..missing.len()).filter(|at| missing[*at] == 0).map(Reverse).collect();
        let mut left: BTreeSet<usize> = (0..missing.len()).collect();
        let mut order = Vec::with_capacity(missing.len());
        let mut cycles = Vec::new();
        loop {
            while let Some(Reverse(at)) = ready.pop() {
                left.remove(&at);
                order.push(at);
                for feed in &feeds[at] {
                    missing[*feed] = missing[*feed].saturating_sub(1);
                    if missing[*feed] == 0 && left.contains(feed) {
                        ready.push(Reverse(*feed));
                    }
                }
            }
            let Some(first) = left.first() else { break };
            let cycle = self.cycle_from(*first, &left);
            // Go on as if the cycle were settled, to find what else is wrong.
            for at in &cycle {
                left.remove(at);
                ready.push(Reverse(*at));
            }
            cycles.push(cycle);
        }
        if cycles.is_empty() { Ok(order) } else { Err(cycles) }
    }

    /// Returns a cycle among `left`, of which each needs another of `left`, beginning at its least
    /// position.
    fn cycle_from(&self, start: usize, left: &BTreeSet<usize>) -> Vec<usize> {
        let mut path = vec![start];
        loop {
            let last = path[path.len() - 1];
            let next = self.steps[last].needs.iter().copied().find(|need| left.contains(need));
            let Some(next) = next else { return path };
            if let Some(from) = path.iter().position(|at| *at == next) {
                let mut cycle = path.split_off(from);
                let least =
                    cycle.iter().enumerate().min_by_key(|(_, at)| **at).map_or(0, |(i, _)| i);
                cycle.rotate_left(least);
                return cycle;
            }
            path.push(next);
        }
    }
}

impl StepLinks {
    fn of(step: &Step, positions: &HashMap<&str, usize>) -> StepLinks {
        let known = |id: &str| positions.get(id).copied().filter(|_| id != step.id);
        let mut needs: BTreeSet<usize> = step.after.iter().filter_map(|id| known(id)).collect();
        let mut requires = BTreeSet::new();
        for wired in expressions(step, "") {
            for reference in wired.expr.references() {
                let Some(at) = known(reference.step) else { continue };
                needs.insert(at);
                if reference.required {
                    requires.insert(at);
                }
            }
        }
        StepLinks { needs: needs.into_iter().collect(), requires: requires.into_iter().collect() }
    }
}

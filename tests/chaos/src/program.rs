//! Workflows with a known result: what is run while faults are injected.
//!
//! A program is a graph of steps whose behaviour stands in their input. From it follow the definition that the engine
//! gets, and, apart from the engine's rules, how a run of it must end and with which output.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::worker::Script;

/// Condition on which a fan-out succeeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// All items.
    All,
    /// One item.
    Any,
    /// So many items.
    Quorum(usize),
    /// All but so many items.
    Tolerate(usize),
    /// All ended.
    BestEffort,
}

impl Join {
    fn json(self) -> Value {
        match self {
            Join::All => json!("all"),
            Join::Any => json!("any"),
            Join::Quorum(count) => json!({ "quorum": count }),
            Join::Tolerate(count) => json!({ "tolerate": { "count": count } }),
            Join::BestEffort => json!("best_effort"),
        }
    }

    /// Returns the number of items that must have succeeded before it may fire with success.
    #[must_use]
    pub fn wants(self, items: usize) -> usize {
        match self {
            Join::All => items,
            Join::Any => 1,
            Join::Quorum(count) => count,
            Join::Tolerate(count) => items.saturating_sub(count),
            Join::BestEffort => 0,
        }
    }

    /// Returns whether it waits until all items have ended.
    #[must_use]
    pub fn waits_for_all(self) -> bool {
        matches!(self, Join::All | Join::Tolerate(_) | Join::BestEffort)
    }
}

/// Action on an attempt that may have happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUnknown {
    /// It is tried again.
    #[default]
    Retry,
    /// The target is asked.
    Verify,
    /// The saga is undone.
    Compensate,
}

/// Kind of a step.
#[derive(Clone, Debug)]
pub enum Body {
    /// A task.
    Task(Script, OnUnknown),
    /// A fan-out.
    Map {
        /// Its items.
        items: Vec<Script>,
        /// Its join.
        join: Join,
        /// Number of concurrent items.
        at_once: usize,
    },
    /// Waits for a signal of this name, which adds so much.
    Wait(String, i64),
    /// Waits so many milliseconds.
    Sleep(u64),
    /// A run of another program.
    Child(Box<Program>),
}

/// A step.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its name.
    pub id: String,
    /// The steps before it.
    pub needs: Vec<usize>,
    /// Its kind.
    pub body: Body,
}

/// Conditions on which runs of a workflow begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The serial key of all of them.
    pub serial_key: String,
    /// A fact that each requires: its name, and what it is about.
    pub requires: (String, String),
}

/// A workflow with a known result.
#[derive(Clone, Debug)]
pub struct Program {
    /// The workflow's name.
    pub name: String,
    /// Steps, each after those that it needs.
    pub steps: Vec<Step>,
    /// Conditions on which its runs begin.
    pub sequence: Option<Sequence>,
    /// Whether the starts and ends of its runs are events of the log.
    pub told: bool,
}

/// Required end of a run without interference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Everything is done; the output, where it is the same whatever happens.
    Done(Option<i64>),
    /// Some items failed, as its join allows.
    Partly,
    /// Something fails for good and everything is undone.
    Undone,
    /// It kills every worker: a person is asked.
    Poison,
}

impl Program {
    /// Returns a program of this name without steps.
    #[must_use]
    pub fn new(name: &str) -> Program {
        Program { name: name.to_owned(), steps: Vec::new(), sequence: None, told: false }
    }

    /// Returns the same, each run of which waits for the others under `serial_key`, and for `fact` on `subject`.
    #[must_use]
    pub fn in_line(mut self, serial_key: &str, fact: &str, subject: &str) -> Program {
        let requires = (fact.to_owned(), subject.to_owned());
        self.sequence = Some(Sequence { serial_key: serial_key.to_owned(), requires });
        self
    }

    /// Returns the same with another step after `needs`.
    #[must_use]
    pub fn step(mut self, id: &str, needs: &[&str], body: Body) -> Program {
        let place = |need: &&str| self.steps.iter().position(|step| step.id == **need);
        let needs = needs.iter().filter_map(place).collect();
        self.steps.push(Step { id: id.to_owned(), needs, body });
        self
    }

    /// Returns the same with a task.
    #[must_use]
    pub fn task(self, id: &str, needs: &[&str], script: Script) -> Program {
        self.step(id, needs, Body::Task(script, OnUnknown::Retry))
    }

    /// Returns the step of this name.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.id == id)
    }

    /// Returns this program and all that are steps of it, innermost first.
    #[must_use]
    pub fn all(&self) -> Vec<&Program> {
        let inner = self.steps.iter().filter_map(|step| match &step.body {
            Body::Child(program) => Some(program.all()),
            _ => None,
        });
        inner.flatten().chain([self]).collect()
    }

    /// Returns the signals that a run waits for, with what they add.
    #[must_use]
    pub fn signals(&self) -> Vec<(String, i64)> {
        let signals = self.steps.iter().filter_map(|step| match &step.body {
            Body::Wait(signal, adds) => Some((signal.clone(), *adds)),
            _ => None,
        });
        signals.collect()
    }

    /// Returns the required end of a run.
    #[must_use]
    pub fn expected(&self) -> Expected {
        let mut known: Vec<Option<i64>> = Vec::new();
        let (mut partly, mut undone) = (false, false);
        for step in &self.steps {
            let needs = step.needs.iter().map(|&need| known[need]).sum::<Option<i64>>();
            let value = match &step.body {
                Body::Task(script, _) if script.kills => return Expected::Poison,
                Body::Task(script, on_unknown) => {
                    let in_doubt = script.doubts > 0 && *on_unknown == OnUnknown::Compensate;
                    undone |= script.refuses || in_doubt;
                    needs.map(|needs| needs + script.adds)
                }
                Body::Map { items, join, .. } => {
                    let failing = items.iter().filter(|item| item.refuses).count();
                    undone |= items.len() - failing < join.wants(items.len());
                    partly |= failing > 0;
                    let sum = items.iter().filter(|item| !item.refuses).map(|item| item.adds).sum();
                    join.waits_for_all().then_some(sum)
                }
                Body::Wait(_, adds) => Some(*adds),
                Body::Sleep(_) => Some(0),
                Body::Child(program) => match program.expected() {
                    Expected::Done(value) => value,
                    Expected::Partly => None,
                    Expected::Undone => {
                        undone = true;
                        None
                    }
                    Expected::Poison => return Expected::Poison,
                },
            };
            known.push(value);
        }
        match (undone, partly) {
            (true, _) => Expected::Undone,
            (false, true) => Expected::Partly,
            (false, false) => Expected::Done(known.last().copied().flatten()),
        }
    }

    /// Returns whether some fan-out here can succeed before all its items have ended: an item that was lost to a fault
    /// by then, and may have happened, is given up, and the run is done in part.
    #[must_use]
    pub fn may_leave_items(&self) -> bool {
        self.steps.iter().any(|step| match &step.body {
            Body::Map { join, .. } => !join.waits_for_all(),
            Body::Child(program) => program.may_leave_items(),
            _ => false,
        })
    }

    /// Returns the definition, as the engine takes it.
    #[must_use]
    pub fn definition(&self) -> Value {
        let steps: Vec<Value> = self.steps.iter().map(|step| self.step_json(step)).collect();
        let mut definition = json!({ "name": self.name, "version": 1, "steps": steps });
        if let Some(last) = self.steps.last() {
            definition["output"] = json!({ "path": format!("/steps/{}", last.id) });
        }
        if self.told {
            definition["milestones"] = json!(["started", "ended"]);
        }
        if let Some(Sequence { serial_key, requires: (fact, on) }) = &self.sequence {
            definition["sequence"] = json!({
                "serial_key": { "const": serial_key },
                "requires": [{ "fact": fact, "on": { "const": on } }],
            });
        }
        definition
    }

    fn step_json(&self, step: &Step) -> Value {
        let ids: Vec<&str> = step.needs.iter().map(|&need| self.steps[need].id.as_str()).collect();
        let mut json = json!({ "id": step.id, "after": ids });
        let paths: BTreeMap<&str, Value> =
            ids.iter().map(|id| (*id, json!({ "path": format!("/steps/{id}") }))).collect();
        match &step.body {
            Body::Task(script, on_unknown) => {
                let members =
                    json!({ "needs": { "object": paths }, "script": { "const": script } });
                let mut task = task(&json!({ "object": members }), script);
                match on_unknown {
                    OnUnknown::Retry => {}
                    OnUnknown::Verify => {
                        task["on_unknown"] = json!("verify");
                        task["verify"] = json!({ "name": "look", "retry": retry() });
                    }
                    OnUnknown::Compensate => task["on_unknown"] = json!("compensate"),
                }
                json["task"] = task;
            }
            Body::Map { items, join, at_once } => {
                let input = json!({ "object": { "script": { "path": "/item" } } });
                json["map"] = json!({
                    "items": { "const": items }, "join": join.json(), "empty": "succeed",
                    "max_concurrency": at_once, "task": task(&input, &Script::default()),
                });
            }
            Body::Wait(signal, _) => json["wait"] = json!({ "signal": signal }),
            Body::Sleep(ms) => json["sleep"] = json!({ "for": format!("{ms}ms") }),
            Body::Child(program) => {
                json["child"] = json!({
                    "workflow": program.name, "version": 1, "input": { "const": null },
                });
            }
        }
        json
    }
}

/// Attempts without a limit: those that faults cost must not change how a run ends.
fn retry() -> Value {
    json!({ "max_attempts": null, "first_delay": "20ms", "max_delay": "300ms" })
}

fn task(input: &Value, script: &Script) -> Value {
    let mut task = json!({
        "name": "do", "input": input, "retry": retry(),
        "timeouts": { "heartbeat": "1500ms", "attempt": "20s" },
        "max_losses": if script.kills || script.few_losses { 3 } else { 1_000 },
    });
    if script.reads {
        task["class"] = json!("read_only");
    } else {
        task["compensate"] = json!({ "name": "undo", "retry": retry(), "alert_after": 1_000 });
    }
    task
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adds(adds: i64) -> Script {
        Script { adds, ..Script::default() }
    }

    #[test]
    fn the_result_of_a_program_is_known() {
        let diamond = Program::new("diamond")
            .task("a", &[], adds(1))
            .task("b", &["a"], adds(2))
            .task("c", &["a"], adds(3))
            .task("d", &["b", "c"], adds(4));
        assert_eq!(diamond.expected(), Expected::Done(Some((1 + 2) + (1 + 3) + 4)));
        let refuses = Script { refuses: true, ..Script::default() };
        assert_eq!(diamond.task("e", &["d"], refuses.clone()).expected(), Expected::Undone);
        let map = |join, items| {
            Program::new("map").step("m", &[], Body::Map { items, join, at_once: 2 }).expected()
        };
        assert_eq!(map(Join::All, vec![adds(1), adds(2)]), Expected::Done(Some(3)));
        assert_eq!(map(Join::Any, vec![adds(1), adds(2)]), Expected::Done(None));
        assert_eq!(map(Join::Quorum(2), vec![adds(1), refuses.clone()]), Expected::Undone);
        assert_eq!(map(Join::Tolerate(1), vec![adds(1), refuses]), Expected::Partly);
    }

    #[test]
    fn the_engine_takes_every_shape() {
        for shape in crate::shapes::all() {
            for program in shape.program.all() {
                let text = program.definition().to_string();
                let checked = backstitch_engine::validate(&text);
                assert!(checked.is_ok(), "{}: {checked:?}\n{text}", program.name);
            }
        }
    }
}

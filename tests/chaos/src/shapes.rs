//! The shapes of workflow over which every crash point is tried.

use crate::program::{Body, Join, OnUnknown, Program};
use crate::worker::Script;
use crate::{intake, lines, office};

/// A workflow, and what clients do about it.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Its name.
    pub name: &'static str,
    /// The workflow.
    pub program: Program,
    /// Other actions of clients.
    pub beside: Beside,
}

/// Actions of clients besides starting runs of a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Nothing.
    Nothing,
    /// Everything else that an engine is asked for: see `office`.
    Office,
    /// Everything about serial keys and facts: see `lines`.
    Lines,
    /// Everything about sources, documents and events: see `intake`.
    Intake,
}

fn adds(adds: i64) -> Script {
    Script { adds, ..Script::default() }
}

/// Returns a script that moves money from one account to another.
fn moves(from: &str, to: &str, amount: i64) -> Script {
    Script {
        adds: amount,
        moves: vec![(from.to_owned(), -amount), (to.to_owned(), amount)],
        ..Script::default()
    }
}

fn refuses() -> Script {
    Script { refuses: true, ..Script::default() }
}

fn fan(name: &str, join: Join, failing: usize) -> Program {
    let items = (0..5).map(|item| if item < failing { refuses() } else { adds(1 + item as i64) });
    let map = Body::Map { items: items.collect(), join, at_once: 3 };
    Program::new(name).task("first", &[], adds(1)).step("each", &["first"], map).task(
        "last",
        &["each"],
        adds(7),
    )
}

/// Returns all shapes.
#[must_use]
pub fn all() -> Vec<Shape> {
    let plain = |name, program| Shape { name, program, beside: Beside::Nothing };
    let child = Program::new("inner").task("x", &[], adds(2)).task("y", &["x"], adds(3));
    let sequence = Program::new("sequence")
        .task("a", &[], moves("cash", "goods", 5))
        .task("b", &["a"], moves("goods", "fees", 2))
        .task("c", &["b"], adds(3));
    let retry = Program::new("retry").task("a", &[], Script { fails: 2, ..adds(1) }).task(
        "b",
        &["a"],
        Script { doubts: 1, ..adds(2) },
    );
    let timer = Program::new("timer")
        .task("a", &[], adds(1))
        .step("nap", &["a"], Body::Sleep(900))
        .task("b", &["nap"], adds(2));
    let signal = Program::new("signal")
        .task("a", &[], adds(1))
        .step("wait", &["a"], Body::Wait("go".to_owned(), 5))
        .task("b", &["wait"], adds(2));
    let parent = Program::new("parent")
        .task("a", &[], adds(1))
        .step("inner", &["a"], Body::Child(Box::new(child.clone())))
        .task("b", &["inner"], adds(2));
    let undo = Program::new("undo")
        .task("a", &[], moves("cash", "goods", 5))
        .task("b", &["a"], Script { undo_fails: 1, ..moves("goods", "fees", 2) })
        .task("c", &["a"], adds(2))
        .task("d", &["b", "c"], refuses());
    let unknown = Body::Task(Script { doubts: 99, ..adds(2) }, OnUnknown::Compensate);
    let doubt = Program::new("doubt").task("a", &[], adds(1)).step("b", &["a"], unknown);
    let looked = Body::Task(Script { doubts: 1, ..adds(2) }, OnUnknown::Verify);
    let verify = Program::new("verify").step("a", &[], looked).task("b", &["a"], adds(1));
    let parent_undo = Program::new("parent-undo")
        .step("inner", &[], Body::Child(Box::new(child)))
        .task("b", &["inner"], refuses());
    vec![
        plain("sequence", sequence),
        plain("fan-all", fan("fan-all", Join::All, 0)),
        plain("fan-any", fan("fan-any", Join::Any, 1)),
        plain("fan-quorum", fan("fan-quorum", Join::Quorum(3), 1)),
        plain("fan-tolerate", fan("fan-tolerate", Join::Tolerate(1), 1)),
        plain("fan-best-effort", fan("fan-best-effort", Join::BestEffort, 2)),
        plain("fan-undo", fan("fan-undo", Join::All, 1)),
        plain("retry", retry),
        plain("timer", timer),
        plain("signal", signal),
        plain("child", parent),
        plain("undo", undo),
        plain("undo-unknown", doubt),
        plain("verify", verify),
        plain("undo-child", parent_undo),
        Shape { name: "office", program: office::program(), beside: Beside::Office },
        Shape { name: "lines", program: lines::program(), beside: Beside::Lines },
        Shape { name: "intake", program: intake::program(), beside: Beside::Intake },
    ]
}

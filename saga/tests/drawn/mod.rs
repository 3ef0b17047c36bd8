//! Random workflows and histories, out of small numbers, so that a failing case shrinks well.

use std::collections::BTreeSet;

use backstitch_saga::protocol::{
    Failure, FailureKind, Outcome, RunView, Scope, State, TaskOutcome, Verdict, WaitsFor, Why,
};
use backstitch_saga::{
    Action, By, Command, Effect, Event, Graph, Hold, Payload, Record, Reply, Run, Start, StepPath,
    Time, Transition, decide,
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// A step as drawn: which earlier steps it follows, and its traits.
pub(crate) type Drawn = (u8, u8, u8, u8);
/// Something that may happen next, as drawn: what, and to which of the tasks there are.
pub(crate) type Deed = (u8, u8, u8);

pub(crate) fn workflows() -> impl Strategy<Value = Vec<Drawn>> {
    prop::collection::vec(any::<Drawn>(), 1..7)
}

pub(crate) fn histories() -> impl Strategy<Value = Vec<Deed>> {
    prop::collection::vec(any::<Deed>(), 0..60)
}

pub(crate) fn pick(drawn: u8, words: &[&'static str]) -> &'static str {
    words[usize::from(drawn) % words.len()]
}

/// Makes a valid workflow from what was drawn. In a chain with a pivot, every step is before or
/// after it.
pub(crate) fn graph(drawn: &[Drawn], pivot: Option<usize>) -> Graph {
    let joins = [
        json!("all"),
        json!("any"),
        json!({"quorum": 2}),
        json!({"tolerate": {"count": 1}}),
        json!("best_effort"),
    ];
    let steps: Vec<Value> = drawn
        .iter()
        .enumerate()
        .map(|(i, &(after, body, traits, limits))| {
            let after: Vec<String> = match pivot {
                Some(_) => i.checked_sub(1).map(|before| format!("s{before}")).into_iter().collect(),
                None => (0..i).filter(|before| after >> before & 1 == 1).map(|before| format!("s{before}")).collect(),
            };
            let mut task = json!({
                "name": format!("do_{i}"),
                "input": {"path": "/input"},
                "retry": {"max_attempts": 1 + limits % 3, "first_delay": "1s", "max_delay": "20s",
                          "jitter": pick(limits >> 2, &["none", "full", "equal", "decorrelated"])},
                "timeouts": {"heartbeat": "10s", "attempt": "1m"},
                "on_unknown": pick(traits, &["retry", "compensate", "incident"]),
                "on_failure": pick(traits >> 2, &["compensate", "compensate", "continue", "incident"]),
            });
            if traits & 0x30 == 0x30 {
                task["verify"] = json!({"name": "look", "retry": {"max_attempts": 2}});
                task["on_unknown"] = json!("verify");
            }
            if traits & 0x40 != 0 {
                task["timeouts"]["to_start"] = json!("30s");
            }
            if traits & 0x80 != 0 {
                task["timeouts"]["step"] = json!("2m");
            }
            match pivot {
                Some(at) if i == at => {
                    task["class"] = json!("pivot");
                    task["on_unknown"] = json!("retry");
                }
                Some(at) if i > at => {
                    task["class"] = json!("retriable");
                    task["on_unknown"] = json!("retry");
                }
                _ => task["compensate"] = json!({"name": format!("undo_{i}"), "retry": {"max_attempts": 1 + limits % 4, "first_delay": "1s"}}),
            }
            let id = format!("s{i}");
            if pivot.is_none_or(|at| i < at) {
                let pause = match body % 13 {
                    5 => Some(("sleep", json!({"for": "30s"}))),
                    7 => Some(("wait", json!({"signal": format!("g{}", i % 2), "timeout": "1m",
                        "on_failure": task["on_failure"]}))),
                    11 => Some(("child", json!({"workflow": "other", "input": {"path": "/input"},
                        "on_failure": task["on_failure"]}))),
                    _ => None,
                };
                if let Some((kind, pause)) = pause {
                    return json!({"id": id, "after": after, kind: pause});
                }
            }
            if body.is_multiple_of(3) && pivot != Some(i) {
                task["input"] = json!({"path": "/item"});
                let map = json!({"items": {"path": "/input"}, "task": task, "join": joins[usize::from(body / 3) % 5],
                    "empty": "succeed", "max_concurrency": 1 + limits % 3,
                    "losers": if pivot.is_none() { pick(body / 16, &["drain", "cancel", "compensate"]) } else { "drain" }});
                json!({"id": id, "after": after, "map": map})
            } else {
                let event = json!({"type": "done", "retract": {"type": "undone"},
                    "release": pick(limits >> 5, &["at_once", "at_pivot", "at_success"])});
                let emits = if limits & 0x10 == 0 { json!([]) } else { json!([event]) };
                json!({"id": id, "after": after, "task": task, "emits": emits})
            }
        })
        .collect();
    let mut definition = json!({"name": "random", "version": 1, "timeout": "10m", "steps": steps});
    // Some have an output that a step without one keeps from being made, and some one that never can be.
    match drawn[0].3 >> 5 {
        6 => definition["output"] = json!({"path": format!("/steps/s{}", drawn.len() - 1)}),
        7 => definition["output"] = json!({"path": "/steps/s0/nothing"}),
        _ => {}
    }
    Graph::parse(&definition.to_string())
        .unwrap_or_else(|errors| panic!("{errors:?}\n{definition:#}"))
}

/// Returns the start of a run.
pub(crate) fn start(input: Payload, holds: Vec<(Hold, String)>) -> Start {
    Start {
        namespace: "default".into(),
        definition: "hash".into(),
        key: None,
        correlation_id: None,
        causation_id: None,
        labels: Default::default(),
        input,
        holds,
        parent: None,
        descent: None,
        start_at: None,
        requires: Vec::new(),
        end_by: None,
    }
}

/// Returns the drawn report of a worker.
pub(crate) fn outcome_of(action: Action, how: u8) -> TaskOutcome {
    let kind = match how % 8 {
        0..=3 => {
            let output = match (action, how % 4) {
                (Action::Verify, 0 | 1) => {
                    Payload::of(&Verdict::Happened(Payload::null())).unwrap()
                }
                (Action::Verify, _) => Payload::of(&Verdict::NotHappened).unwrap(),
                _ => Payload::of(&how).unwrap(),
            };
            return TaskOutcome::Succeeded {
                output,
                external_id: (how == 1).then(|| "x".to_owned()),
            };
        }
        4 | 5 => FailureKind::Retryable,
        6 => FailureKind::Permanent,
        _ if how > 128 => FailureKind::RateLimited,
        _ => FailureKind::Unknown,
    };
    TaskOutcome::Failed(Failure {
        kind,
        code: "broken".into(),
        message: "it broke".into(),
        details: None,
        retry_after: None,
    })
}

/// Returns the command of a person who follows an offered verb; `None` for signals, which need a
/// name.
fn said(verb: &str, wait: &WaitsFor) -> Option<Command> {
    let by = || By { actor: "ann".into(), reason: "as it is offered".to_owned() };
    let (step, by) = (wait.step.clone(), by());
    Some(match verb {
        "cancel" => Command::Cancel { by },
        "kill" => Command::Kill { by },
        "compensate" => Command::Compensate { scope: Scope::All, force: true, by },
        "resume" => Command::Unhold { hold: None, by: Some(by) },
        "skip-requirements" => Command::SkipRequirements { by },
        "retry" => Command::Retry { step, input: None, by },
        "skip" => Command::Skip { step: step?, output: None, by },
        "mark-compensated" => Command::MarkUndone { step: step?, by },
        "resolve" => {
            let output = Payload::null();
            Command::Resolve { step: step?, output, external_id: None, by }
        }
        "signals" => return None,
        _ => panic!("'{verb}' is offered, and no verb"),
    })
}

/// Checks that what is offered to people is accepted when they ask for it. Looked at now and then, as it takes long.
pub(crate) fn check_offers(run: &Run, why: &Why, now: Time) {
    if !run.seq().is_multiple_of(3) {
        return;
    }
    for wait in why.waits_for.iter().take(3) {
        for verb in &wait.verbs {
            let Some(command) = said(verb, wait) else { continue };
            let (mut run, mut transition) = (run.clone(), Transition::default());
            let answer = decide(&mut run, command, now, &mut transition);
            assert_eq!(answer, Ok(Reply::Done), "'{verb}' is offered: {wait:#?}");
        }
    }
}

/// Checks that no run is called clean with an effect that is open, and that what is told of open effects is what the
/// view counts.
pub(crate) fn check_open_effects(run: &Run, view: &RunView) {
    let open = run.open_effects();
    if view.outcome.is_some_and(Outcome::is_clean) {
        assert_eq!(open, [], "{view:#?}");
    }
    let unknown: u32 = open.iter().map(|open| open.unknown).sum();
    let counted = view.progress.effects.get("unknown").copied().unwrap_or_default();
    if view.state == State::Ended {
        assert_eq!(unknown, counted, "{open:#?} {view:#?}");
    }
    if view.outcome == Some(Outcome::FailedDirty) {
        let applied = view.progress.effects.get("applied").copied().unwrap_or_default();
        let standing: u32 = open.iter().map(|open| open.standing).sum();
        assert_eq!(standing, applied, "{open:#?} {view:#?}");
    }
    let systems: BTreeSet<&str> =
        open.iter().filter(|open| open.unknown > 0).map(|open| open.system.as_str()).collect();
    assert_eq!(systems.into_iter().collect::<Vec<_>>(), run.unknown_in());
}

/// Checks that effects name each task that came on offer or into a worker's hands between two states of a run, or left
/// them.
pub(crate) fn check_effects(before: &Run, after: &Run, effects: &[Effect]) {
    let named = |names: &dyn Fn(&Effect) -> bool| effects.iter().any(names);
    let (offered, leased) = (after.offered(), after.leased());
    for task in offered.iter().filter(|task| !before.offered().contains(task)) {
        let comes = |effect: &Effect| match effect {
            Effect::TaskOffered(one) | Effect::TaskReleased(one) => one == task,
            Effect::HoldEnded(_) => true,
            _ => false,
        };
        assert!(named(&comes), "{task} came on offer: {effects:?}");
    }
    for task in before.offered().iter().filter(|task| !offered.contains(task)) {
        let of = |step: &StepPath| {
            step.step == task.step.step && (step.item.is_none() || step.item == task.step.item)
        };
        let goes = |effect: &Effect| match effect {
            Effect::TaskLeased(one) => one == task,
            Effect::AttemptEnded(one, _) => of(&one.step),
            Effect::WorkSettled(step) => of(step),
            Effect::OffersWithdrawn => true,
            _ => false,
        };
        assert!(named(&goes), "{task} went from the offer: {effects:?}");
    }
    for task in leased.iter().filter(|task| !before.leased().contains(task)) {
        let taken = |effect: &Effect| matches!(effect, Effect::TaskLeased(one) if one == task);
        assert!(named(&taken), "{task} was taken: {effects:?}");
    }
    for task in before.leased().iter().filter(|task| !leased.contains(task)) {
        let left = |effect: &Effect| match effect {
            Effect::AttemptEnded(one, _) | Effect::TaskReleased(one) => one == task,
            Effect::LeasesRevoked => true,
            _ => false,
        };
        assert!(named(&left), "{task} left its worker: {effects:?}");
    }
}

/// Checks that an event of a step is told once, and taken back only if it was told; the step done anew may
/// tell it again.
pub(crate) fn check_events(records: &[Record]) {
    let mut told = BTreeSet::new();
    for event in records.iter().flat_map(|record| &record.events) {
        match event {
            Event::Emitted(emission) => {
                let step = &emission.step;
                match emission.retracts {
                    None => assert!(told.insert(step.clone()), "'{step}' tells it twice"),
                    Some(_) => {
                        assert!(told.remove(step), "'{step}' takes back what it did not tell");
                    }
                }
            }
            Event::WentForward { steps } => told.retain(|step| !steps.contains(step)),
            _ => {}
        }
    }
}

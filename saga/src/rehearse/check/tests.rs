//! The rules on histories that no sound engine would write: each is caught, and by the rule that is meant to.

use serde_json::json;

use super::*;
use crate::event::{Cause, Slot};
use crate::protocol::{Failure, FailureKind};
use crate::{StepPath, Time};

/// `a`, then `b`, then `c`, each with an undo; `look` only reads; `mail`, the last, has none.
fn graph() -> Graph {
    let step = |id: &str, after: &[&str], extra: serde_json::Value| {
        let mut task = json!({"name": "h", "input": {"const": 1}});
        task.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json!({"id": id, "after": after, "task": task})
    };
    let undo = json!({"compensate": {"name": "u"}});
    let definition = json!({"name": "case", "version": 1, "steps": [
        step("a", &[], undo.clone()),
        step("b", &["a"], undo.clone()),
        step("c", &["b"], undo),
        step("look", &[], json!({"class": "read_only"})),
        step("mail", &["c", "look"], json!({})),
    ]});
    Graph::parse(&definition.to_string()).unwrap()
}

fn offered(step: &str, action: Action) -> Event {
    Event::Offered { step: StepPath::step(step), action, attempt: 1, input: None }
}

fn undo(step: &str) -> Event {
    offered(step, Action::Compensate)
}

fn done(step: &str) -> Event {
    let (step, output) = (StepPath::step(step), Slot(0));
    Event::Succeeded { step, attempt: 1, output, external_id: None }
}

fn gave_up(step: &str, fate: Fate) -> Event {
    Event::GaveUp { step: StepPath::step(step), fate, error: None }
}

fn undone(step: &str) -> Event {
    Event::Undone { step: StepPath::step(step), attempt: 1, by_hand: false }
}

fn turned(steps: &[&str]) -> Event {
    let steps = steps.iter().map(|step| (*step).into()).collect();
    Event::CompensationStarted { cause: Cause::Failure, by: None, scope: None, steps }
}

fn ended(outcome: Outcome) -> Event {
    Event::Ended { outcome, output: None }
}

fn incident(kind: IncidentKind) -> Event {
    Event::IncidentOpened { incident: 1, kind, step: None, code: None, message: "m".to_owned() }
}

/// Returns the verdict of all rules on these events, if the effects of `standing` remain.
fn judged(events: Vec<Event>, standing: &[&str]) -> Result<(), Broken> {
    let record = Record { at: Time(1), events, payloads: Vec::new() };
    let mut ledger = Ledger::default();
    standing.iter().for_each(|step| ledger.made(&StepPath::step(*step)));
    let (graph, journal) = (graph(), [Arc::new(record)]);
    let history = History { graph: &graph, journal: &journal, ledger: &ledger };
    RULES.iter().try_for_each(|rule| rule(&history))
}

#[track_caller]
fn caught(events: Vec<Event>, standing: &[&str], rule: &str, how: &str) {
    let found = judged(events, standing).unwrap_err();
    assert_eq!((found.rule, found.how.as_str()), (rule, how));
}

#[test]
fn a_sound_history_breaks_no_rule() {
    let events = vec![
        offered("a", Action::Forward),
        done("a"),
        done("b"),
        gave_up("c", Fate::Unknown),
        turned(&["a", "b", "c"]),
        undo("c"),
        undone("c"),
        undo("b"),
        undone("b"),
        undo("a"),
        undone("a"),
        ended(Outcome::Compensated),
    ];
    assert_eq!(judged(events, &[]), Ok(()));
    let parked = vec![done("a"), incident(IncidentKind::TaskExhausted)];
    assert_eq!(judged(parked, &["a"]), Ok(()));
}

#[test]
fn undoing_in_forward_order_is_caught() {
    let events = vec![
        done("a"),
        done("b"),
        gave_up("c", Fate::Failed),
        turned(&["a", "b"]),
        undo("a"),
        undone("a"),
        undo("b"),
        undone("b"),
        ended(Outcome::Compensated),
    ];
    let how = "'a' is undone before 'b', which depends on it";
    caught(events, &[], "undo_in_reverse", how);
}

#[test]
fn undoing_what_never_began_is_caught() {
    let how = "'b' is undone, and it never happened";
    caught(
        vec![done("a"), turned(&["a"]), undo("b"), ended(Outcome::Compensated)],
        &[],
        "undo_of_what_happened",
        how,
    );
    let failed =
        vec![gave_up("b", Fate::Failed), turned(&["b"]), undo("b"), ended(Outcome::Compensated)];
    caught(failed, &[], "undo_of_what_happened", how);
}

#[test]
fn forgetting_a_step_that_may_have_happened_is_caught() {
    let events = vec![
        done("a"),
        gave_up("b", Fate::Unknown),
        turned(&["a"]),
        undo("a"),
        undone("a"),
        ended(Outcome::Compensated),
    ];
    let how = "'a' is undone before 'b', which depends on it";
    caught(events, &[], "undo_in_reverse", how);
    let events = vec![done("a"), turned(&[]), ended(Outcome::Compensated)];
    caught(events, &[], "undo_complete", "'a' was never undone");
}

#[test]
fn going_forward_after_the_turn_is_caught() {
    let events = vec![
        done("a"),
        turned(&["a"]),
        offered("b", Action::Forward),
        undo("a"),
        undone("a"),
        ended(Outcome::Compensated),
    ];
    let how = "'b' goes forward after the run was turned round";
    caught(events, &[], "undo_only", how);
    let late = vec![
        done("a"),
        turned(&["a"]),
        undo("a"),
        undone("a"),
        done("b"),
        ended(Outcome::Compensated),
    ];
    caught(late, &[], "undo_complete", "'b' was never undone");
}

#[test]
fn an_effect_that_the_journal_does_not_know_is_caught() {
    let how = "'a' counts as not done, and its effect stands";
    let events = vec![gave_up("a", Fate::Failed), ended(Outcome::FailedClean)];
    caught(events, &["a"], "effects_as_told", how);
    let events =
        vec![done("a"), turned(&["a"]), undo("a"), undone("a"), ended(Outcome::Compensated)];
    let how = "'a' counts as undone, and its effect stands";
    caught(events, &["a"], "effects_as_told", how);
    let how = "'a' succeeded without an effect";
    caught(vec![done("a"), ended(Outcome::Succeeded)], &[], "effects_as_told", how);
    let how = "the run left nothing behind, but what 'b' did stands";
    caught(vec![ended(Outcome::Cancelled)], &["b"], "net_zero", how);
}

#[test]
fn an_undo_in_doubt_may_have_happened() {
    let error = Failure {
        kind: FailureKind::Unknown,
        code: "lease_expired".to_owned(),
        message: "gone".to_owned(),
        details: None,
        retry_after: None,
    };
    let step = StepPath::step("a");
    let lost = Event::Lost { step: step.clone(), action: Action::Compensate, attempt: 1, error };
    let leased = Event::Leased {
        step: step.clone(),
        action: Action::Compensate,
        attempt: 1,
        worker: "w".into(),
        until: Time(9),
    };
    let slow = || incident(IncidentKind::CompensationSlow);
    let held = vec![done("a"), turned(&["a"]), undo("a"), leased, slow()];
    assert_eq!(judged(held, &[]), Ok(()), "the worker may have undone it and not yet said so");
    let how = "'a' succeeded without an effect";
    caught(vec![done("a"), turned(&["a"]), undo("a"), slow()], &[], "effects_as_told", how);
    let blocked = incident(IncidentKind::CompensationBlocked);
    let events =
        vec![done("a"), turned(&["a"]), undo("a"), lost, Event::UndoBlocked { step }, blocked];
    assert_eq!(judged(events, &[]), Ok(()), "the worker may have undone it before it was lost");
}

#[test]
fn what_nothing_undoes_is_left_behind() {
    let how = "the run was undone, and what 'mail' did or may have done stands";
    for outcome in [Outcome::FailedDirty, Outcome::PartiallyCompleted] {
        let events = vec![gave_up("mail", Fate::Unknown), turned(&[]), ended(outcome)];
        caught(events, &["mail"], "nothing_left_behind", how);
    }
    let allowed = vec![done("mail"), ended(Outcome::PartiallyCompleted)];
    assert_eq!(judged(allowed, &["mail"]), Ok(()), "the run went on without something else");
}

#[test]
fn a_run_that_nobody_hears_of_or_that_ends_twice_is_caught() {
    let endless = "the run goes on without end, and no person hears of it";
    caught(vec![done("a")], &["a"], "ends_or_asks", endless);
    let resolved =
        vec![incident(IncidentKind::TaskExhausted), Event::IncidentResolved { incident: 1 }];
    caught(resolved, &[], "ends_or_asks", endless);
    let stuck = vec![incident(IncidentKind::RunStuck)];
    caught(stuck, &[], "ends_or_asks", "nothing would ever move the run");
    let twice = vec![ended(Outcome::Cancelled), ended(Outcome::Cancelled)];
    caught(twice, &[], "ends_once", "something happened after the end");
}

#[test]
fn a_join_that_fires_twice_is_caught() {
    let joined = || Event::Joined { step: "a".into(), succeeded: true };
    let events = vec![joined(), joined(), ended(Outcome::Succeeded)];
    caught(events, &[], "joins_once", "'a' joined twice");
}

//! Each checker is shown evidence that is right, and evidence that is wrong in the one way that it is there for.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{CHECKERS, check};
use crate::client::{Asked, Call, Saw};
use crate::evidence::{Entry, Evidence, Story};
use crate::ledger::{Ask, Came, Line, Op};
use crate::program::{Body, Join, Program};
use crate::timeline::Mark;
use crate::worker::Script;

const RUN: Uuid = Uuid::from_u128(7);

fn adds(adds: i64) -> Script {
    Script { adds, ..Script::default() }
}

/// Entries, one record each, a second apart.
fn history(events: &[Value]) -> Vec<Entry> {
    let entry = |(place, event): (usize, &Value)| {
        let (name, body) = event.as_object().unwrap().iter().next().unwrap();
        let seq = place as u64 + 1;
        Entry { seq, at: 1_000 * place as i64, name: name.clone(), body: body.clone() }
    };
    events.iter().enumerate().map(entry).collect()
}

fn line(n: u64, op: Op, step: &str, came: Came) -> Line {
    let key = Uuid::from_u128(step.bytes().fold(0, |sum, byte| sum * 256 + u128::from(byte)));
    let moves = vec![("cash".to_owned(), -5), ("goods".to_owned(), 5)];
    let ask =
        Ask { op, run: RUN, step: step.to_owned(), attempt: 1, key, worker: "w".to_owned(), moves };
    Line { n, at: 1_000 * n as i64, ask, came }
}

fn at(event: &str, step: &str, action: &str, attempt: u32) -> Value {
    json!({ event: { "step": step, "action": action, "attempt": attempt } })
}

fn shown(state: &str, outcome: &str, steps: &[(&str, &str)], seq: usize, output: &Value) -> Value {
    let steps: Vec<Value> =
        steps.iter().map(|(step, state)| json!({ "step": step, "state": state })).collect();
    json!({
        "state": state, "outcome": outcome, "workflow": "w", "ended_at": 9, "steps": steps,
        "seq": seq, "output": output, "conditions": [],
    })
}

fn listed(view: &Value) -> Value {
    json!({
        "state": view["state"], "outcome": view["outcome"], "workflow": "w", "ended_at": 9,
    })
}

fn of(story: Story) -> Evidence {
    let keys = [("key".to_owned(), Some(RUN))].into();
    Evidence { stories: vec![story], keys, ..Evidence::default() }
}

/// Two steps that succeeded.
fn good() -> Story {
    let program = Program::new("w").task("a", &[], adds(1)).task("b", &["a"], adds(2));
    let history = history(&[
        json!({ "started": {} }),
        at("offered", "a", "forward", 1),
        at("leased", "a", "forward", 1),
        at("succeeded", "a", "forward", 1),
        at("offered", "b", "forward", 1),
        at("leased", "b", "forward", 1),
        at("succeeded", "b", "forward", 1),
        json!({ "ended": { "outcome": "succeeded" } }),
    ]);
    let steps = [("a", "succeeded"), ("b", "succeeded")];
    let view = shown("ended", "succeeded", &steps, 8, &json!({ "v": 3 }));
    let ledger = vec![line(1, Op::Apply, "a", Came::Done), line(2, Op::Apply, "b", Came::Done)];
    Story {
        run: RUN,
        program: Some(program),
        listed: listed(&view),
        ended: Some(view.clone()),
        view,
        history,
        ledger,
        ..Story::default()
    }
}

/// Two steps that were undone because a third failed.
fn undone() -> Story {
    let refuses = Script { refuses: true, ..Script::default() };
    let program = Program::new("w").task("a", &[], adds(1)).task("b", &["a"], adds(2)).task(
        "c",
        &["b"],
        refuses,
    );
    let history = history(&[
        json!({ "started": {} }),
        at("offered", "a", "forward", 1),
        at("leased", "a", "forward", 1),
        at("succeeded", "a", "forward", 1),
        at("offered", "b", "forward", 1),
        at("leased", "b", "forward", 1),
        at("succeeded", "b", "forward", 1),
        at("offered", "c", "forward", 1),
        at("leased", "c", "forward", 1),
        at("failed", "c", "forward", 1),
        json!({ "gave_up": { "step": "c", "fate": "failed" } }),
        json!({ "compensation_started": {} }),
        at("offered", "b", "compensate", 1),
        at("undone", "b", "compensate", 1),
        at("offered", "a", "compensate", 1),
        at("undone", "a", "compensate", 1),
        json!({ "ended": { "outcome": "compensated" } }),
    ]);
    let steps = [("a", "succeeded"), ("b", "succeeded"), ("c", "failed")];
    let view = shown("ended", "compensated", &steps, 17, &Value::Null);
    let ledger = vec![
        line(1, Op::Apply, "a", Came::Done),
        line(2, Op::Apply, "b", Came::Done),
        line(3, Op::Revert, "b", Came::Done),
        line(4, Op::Revert, "a", Came::Done),
    ];
    Story { program: Some(program), listed: listed(&view), view, history, ledger, ..good() }
        .without_end()
}

impl Story {
    fn without_end(self) -> Story {
        Story { ended: None, ..self }
    }

    fn swap(mut self, one: usize, other: usize) -> Story {
        let (first, second) = (self.history[one].clone(), self.history[other].clone());
        self.history[one] = Entry { seq: first.seq, at: first.at, ..second.clone() };
        self.history[other] = Entry { seq: second.seq, at: second.at, ..first };
        self
    }

    fn and(mut self, event: &Value) -> Story {
        let mut more = history(std::slice::from_ref(event)).remove(0);
        more.seq = self.history.len() as u64 + 1;
        self.view["seq"] = json!(more.seq);
        self.history.push(more);
        self
    }
}

/// Only `invariant` is violated.
#[track_caller]
fn violates(invariant: &str, evidence: &Evidence) {
    let found = check(evidence);
    let named: Vec<&str> = found.iter().map(|violation| violation.invariant).collect();
    assert!(named.contains(&invariant), "{invariant} is not seen to be violated: {found:?}");
    let told = evidence.tell(&found[0]);
    assert!(told.contains("VIOLATION of I"), "{told}");
}

#[test]
fn what_is_right_is_found_right() {
    assert!(CHECKERS.len() > 10);
    for story in [good(), undone()] {
        let found = check(&of(story));
        assert!(found.is_empty(), "{found:?}");
    }
}

#[test]
fn i1_a_second_end_is_seen() {
    violates("I1", &of(good().and(&json!({ "ended": { "outcome": "failed_clean" } }))));
    violates("I1", &of(good().and(&at("offered", "b", "forward", 2))));
    let mut other = good();
    other.ended = Some(shown("ended", "compensated", &[], 8, &Value::Null));
    violates("I1", &of(other));
}

fn call(asked: Asked, saw: Saw) -> Call {
    Call { at: 0, until: 0, asked, saw }
}

fn start(saw: Saw) -> Call {
    call(Asked::Start { workflow: "w".to_owned(), key: "key".to_owned() }, saw)
}

fn report(attempt: u32, saw: Saw) -> Call {
    let (step, action) = ("a".to_owned(), "forward".to_owned());
    call(Asked::Report { run: RUN, step, action, attempt }, saw)
}

#[test]
fn i2_what_was_answered_and_is_not_there_is_seen() {
    let with = |call| Evidence { calls: vec![call], ..of(good()) };
    let other = json!({ "id": Uuid::from_u128(8) });
    violates("I2", &with(start(Saw::Ok(other))));
    violates("I2", &with(start(Saw::Refused { status: 500, code: "bug".to_owned() })));
    violates("I2", &with(report(2, Saw::Ok(Value::Null))));
    violates("I2", &with(report(1, Saw::Refused { status: 404, code: "unknown_run".to_owned() })));
    let signal = Asked::Signal { run: RUN, signal: "go".to_owned() };
    violates("I2", &with(call(signal, Saw::Ok(Value::Null))));
    let act = Asked::Act { run: RUN, verb: "cancel".to_owned() };
    violates("I2", &with(call(act, Saw::Ok(Value::Null))));
    let right = [
        start(Saw::Ok(json!({ "id": RUN }))),
        start(Saw::Unknown("cut".to_owned())),
        report(1, Saw::Ok(Value::Null)),
    ];
    assert!(check(&Evidence { calls: right.into(), ..of(good()) }).is_empty());
}

#[test]
fn i3_an_effect_too_many_or_too_few_is_seen() {
    let mut twice = good();
    twice.ledger.push(line(3, Op::Apply, "a", Came::Done));
    violates("I3", &of(twice));
    let mut never = good();
    never.ledger.pop();
    violates("I3", &of(never));
    let mut stands = undone();
    stands.ledger.pop();
    violates("I3", &of(stands));
    violates("I3", &of(good().swap(4, 4).and(&at("succeeded", "a", "forward", 1))));
}

#[test]
fn i4_a_stale_attempt_that_counts_is_seen() {
    let mut fence = good();
    fence.history[1].body["attempt"] = json!(2);
    violates("I4", &of(fence));
    let mut again = good();
    again.history[4] = Entry { seq: 5, ..again.history[1].clone() };
    violates("I4", &of(again));
    let late = report(1, Saw::Refused { status: 409, code: "lease_lost".to_owned() });
    let late = Call { at: 9_000, ..late };
    violates("I4", &Evidence { calls: vec![late], ..of(good()) });
}

#[test]
fn i5_money_made_or_lost_is_seen() {
    let mut lost = good();
    lost.ledger[0].ask.moves.pop();
    violates("I5", &of(lost));
    let mut kept = undone();
    kept.ledger.pop();
    violates("I5", &of(kept));
    let mut nowhere = good();
    nowhere.view["outcome"] = json!("vanished");
    violates("I5", &of(nowhere));
}

fn fan(events: &[Value]) -> Story {
    let map = Body::Map { items: vec![adds(1), adds(2)], join: Join::All, at_once: 1 };
    let program = Program::new("w").step("m", &[], map);
    let history = history(events);
    Story { program: Some(program), history, ledger: Vec::new(), interfered: true, ..good() }
}

#[test]
fn i6_a_join_too_early_or_twice_is_seen() {
    let joined = json!({ "joined": { "step": "m", "succeeded": true } });
    violates("I6", &of(fan(&[at("succeeded", "m/0", "forward", 1), joined.clone()])));
    let both = [at("succeeded", "m/0", "forward", 1), at("succeeded", "m/1", "forward", 1)];
    let twice = [both[0].clone(), both[1].clone(), joined.clone(), joined];
    violates("I6", &of(fan(&twice)));
    violates("I6", &of(good().swap(3, 4)));
}

#[test]
fn i7_undoing_in_the_wrong_order_is_seen() {
    let forward_order = undone().swap(12, 14).swap(13, 15);
    violates("I7", &of(forward_order));
    let mut ledger = undone();
    ledger.ledger.swap(2, 3);
    violates("I7", &of(ledger));
    violates("I7", &of(undone().swap(7, 11)));
    let mut never = undone();
    never.history.retain(|entry| !(entry.name == "leased" && entry.step() == "b"));
    violates("I7", &of(never));
}

#[test]
fn i8_a_gap_or_another_tale_is_seen() {
    let mut gap = good();
    gap.history.remove(2);
    violates("I8", &of(gap));
    let mut index = good();
    index.listed["state"] = json!("running");
    violates("I8", &of(index));
    let mut step = good();
    step.view["steps"][0]["state"] = json!("leased");
    violates("I8", &of(step));
}

#[test]
fn i9_a_run_that_hangs_or_ends_otherwise_is_seen() {
    let mut hangs = good();
    hangs.view["state"] = json!("running");
    violates("I9", &of(hangs));
    let mut wrong = good();
    wrong.view["output"] = json!({ "v": 4 });
    violates("I9", &of(wrong));
    let mut undone = good();
    undone.view["outcome"] = json!("compensated");
    violates("I9", &of(undone));
    let mut in_part = good();
    in_part.view["outcome"] = json!("partially_completed");
    violates("I9", &of(in_part.clone()));
    // Items of a fan-out that is content with one may be left in doubt.
    let any = Body::Map { items: vec![adds(1); 2], join: Join::Any, at_once: 2 };
    let beside = Program::new("w").task("a", &[], adds(1)).step("m", &["a"], any);
    in_part.program = Some(beside.task("b", &["a"], adds(2)));
    assert!(!check(&of(in_part)).iter().any(|one| one.invariant == "I9"));
}

#[test]
fn i10_a_timer_that_is_early_is_seen() {
    let sleep = json!({ "sleep_began": { "step": "nap", "until": 5_000 } });
    let mut early = good();
    early.history = history(&[sleep, at("succeeded", "nap", "forward", 0)]);
    violates("I10", &of(early));
    let mut clock = good();
    clock.program = Some(
        Program::new("w").task("a", &[], adds(1)).step("nap", &["a"], Body::Sleep(2_000)).task(
            "b",
            &["nap"],
            adds(2),
        ),
    );
    violates("I10", &of(clock));
}

#[test]
fn the_lateness_of_timers_is_measured_apart_from_faults() {
    let sleep = json!({ "sleep_began": { "step": "nap", "until": 2_000 } });
    let filling = json!({ "leased": { "step": "b" } });
    let mut late = good();
    late.history =
        history(&[sleep, filling.clone(), filling, at("succeeded", "nap", "forward", 0)]);
    let mut evidence = of(late);
    assert_eq!(super::lateness(&evidence), [1_000]);
    assert_eq!(super::calm_lateness(&evidence), [1_000]);
    let mark = |at, what: &str| Mark { at, what: what.to_owned() };
    evidence.timeline = vec![mark(0, "cut ..."), mark(500, "... cut: over")];
    assert_eq!(super::calm_lateness(&evidence), Vec::<i64>::new());
    assert_eq!(super::lateness(&evidence), [1_000]);
}

#[test]
fn i13_too_many_at_once_are_seen() {
    let two = [at("leased", "m/0", "forward", 1), at("leased", "m/1", "forward", 1)];
    violates("I13", &of(fan(&two)));
}

#[test]
fn i13_two_runs_under_one_serial_key_and_one_before_its_fact_are_seen() {
    let other_run = Uuid::from_u128(8);
    let mut one = good();
    one.serial_key = Some("key".to_owned());
    let mut other = one.clone();
    other.run = other_run;
    other.ledger.iter_mut().for_each(|line| {
        line.ask.run = other_run;
        line.n += 100;
    });
    let both = |stories| Evidence { stories, keys: of(good()).keys, ..Evidence::default() };
    let found = |evidence| check(&evidence).iter().any(|one| one.invariant == "I13");
    assert!(!found(both(vec![one.clone(), other.clone()])), "one after the other");
    if let Some(first) = other.ledger.first_mut() {
        first.n = one.ledger[0].n;
    }
    violates("I13", &both(vec![one, other]));

    let mut early = good();
    early.program = early.program.map(|program| program.in_line("key", "made", "thing"));
    violates("I13", &of(early.clone()));
    let asked = Asked::Establish { fact: "made".to_owned(), subject: "thing".to_owned() };
    let call = Call { at: 0, until: 1, asked, saw: Saw::Ok(Value::Null) };
    assert!(!found(Evidence { calls: vec![call], ..of(early) }), "after its fact");
}

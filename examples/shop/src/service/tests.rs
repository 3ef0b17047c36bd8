//! The contract of the services: twice is once, undone stays undone, faults do what they say.

use super::*;
use crate::effect::{Charge, Reserve};
use crate::faults::Faults;

fn tea(quantity: u32) -> Effect {
    Effect::Reserve(Reserve { sku: "TEA".to_owned(), quantity })
}

fn ask(key: u128, effect: Effect) -> Request {
    Request::Do { key: Uuid::from_u128(key), order: "A-1".to_owned(), effect }
}

fn undo(key: u128) -> Request {
    Request::Undo {
        op: Op::Release,
        key: Uuid::from_u128(key),
        undo_key: Uuid::from_u128(key + 1_000),
        order: "A-1".to_owned(),
        sku: Some("TEA".to_owned()),
    }
}

fn find(key: u128) -> Request {
    Request::Find { key: Uuid::from_u128(key), order: "A-1".to_owned() }
}

fn stock() -> Service {
    Service::new(Kind::Stock)
}

fn answer(service: &mut Service, request: Request) -> Option<Answer> {
    service.receive(1, request).answer
}

fn code(answer: Option<Answer>) -> &'static str {
    match answer {
        Some(Answer::Refused { code, .. }) => code,
        other => panic!("not refused: {other:?}"),
    }
}

fn done(receipt: &str, replayed: bool) -> Option<Answer> {
    Some(Answer::Done { receipt: receipt.to_owned(), replayed })
}

fn set(service: &mut Service, rules: &str) {
    let faults: Faults = serde_json::from_str(&format!(r#"{{"rules": {rules}}}"#)).unwrap();
    service.faults().set(faults);
}

#[test]
fn the_same_key_has_one_effect_and_one_answer() {
    let mut stock = stock();
    assert_eq!(answer(&mut stock, ask(1, tea(2))), done("RES-000001", false));
    assert_eq!(answer(&mut stock, ask(1, tea(2))), done("RES-000001", true));
    assert_eq!(stock.entries().len(), 1);
    assert_eq!(stock.repeats(), 1);
}

#[test]
fn a_key_cannot_be_used_for_something_else() {
    let mut stock = stock();
    answer(&mut stock, ask(1, tea(2)));
    assert_eq!(code(answer(&mut stock, ask(1, tea(3)))), "key_reused");
    assert_eq!(stock.entries().len(), 1);
}

#[test]
fn undoing_is_done_once_and_answered_the_same() {
    let mut stock = stock();
    answer(&mut stock, ask(1, tea(2)));
    assert_eq!(answer(&mut stock, undo(1)), Some(Answer::Undone { was_done: true }));
    assert_eq!(answer(&mut stock, undo(1)), Some(Answer::Undone { was_done: true }));
    assert_eq!(stock.entries().len(), 2);
}

#[test]
fn a_request_that_arrives_after_its_undo_is_refused() {
    let mut stock = stock();
    assert_eq!(answer(&mut stock, undo(1)), Some(Answer::Undone { was_done: false }));
    assert_eq!(answer(&mut stock, undo(1)), Some(Answer::Undone { was_done: false }));
    assert_eq!(code(answer(&mut stock, ask(1, tea(2)))), "revoked");
    assert_eq!(stock.came_too_late(), 1);
    assert_eq!(stock.entries().len(), 1, "the tombstone and nothing else");
}

#[test]
fn a_repeat_of_what_was_undone_does_not_do_it_again() {
    let mut stock = stock();
    answer(&mut stock, ask(1, tea(2)));
    answer(&mut stock, undo(1));
    assert_eq!(code(answer(&mut stock, ask(1, tea(2)))), "revoked");
    assert_eq!(stock.entries().len(), 2);
}

#[test]
fn what_stands_is_found_and_nothing_else() {
    let mut payment = Service::new(Kind::Payment);
    let charge = Charge { account: "ACC-1".to_owned(), amount: "9.50".to_owned() };
    assert_eq!(answer(&mut payment, find(1)), Some(Answer::NotFound));
    answer(&mut payment, ask(1, Effect::Charge(charge)));
    assert_eq!(answer(&mut payment, find(1)), done("PAY-000001", true));
    answer(&mut payment, undo(1));
    assert_eq!(answer(&mut payment, find(1)), Some(Answer::NotFound));
    assert_eq!(payment.repeats(), 0, "finding repeats nothing");
}

#[test]
fn a_shelf_gives_what_it_has_and_gets_back_what_is_released() {
    let mut stock = stock();
    stock.fill(&Shelf { sku: "TEA".to_owned(), in_stock: 3 });
    assert_eq!(answer(&mut stock, ask(1, tea(2))), done("RES-000001", false));
    assert_eq!(code(answer(&mut stock, ask(2, tea(2)))), "out_of_stock");
    answer(&mut stock, undo(1));
    answer(&mut stock, undo(1));
    assert_eq!(answer(&mut stock, ask(3, tea(3))), done("RES-000003", false));
    assert_eq!(code(answer(&mut stock, ask(4, tea(1)))), "out_of_stock");
}

#[test]
fn a_repeat_takes_nothing_from_the_shelf() {
    let mut stock = stock();
    stock.fill(&Shelf { sku: "TEA".to_owned(), in_stock: 2 });
    answer(&mut stock, ask(1, tea(2)));
    assert_eq!(answer(&mut stock, ask(1, tea(2))), done("RES-000001", true));
}

#[test]
fn goods_without_a_shelf_never_run_out() {
    assert_eq!(answer(&mut stock(), ask(1, tea(1_000_000))), done("RES-000001", false));
}

#[test]
fn a_shelf_filled_after_a_restart_knows_what_is_reserved() {
    let mut before = stock();
    answer(&mut before, ask(1, tea(2)));
    answer(&mut before, ask(2, tea(5)));
    answer(&mut before, undo(2));
    let mut after = stock();
    for entry in before.entries() {
        after.restore(entry.clone()).unwrap();
    }
    after.fill(&Shelf { sku: "TEA".to_owned(), in_stock: 3 });
    assert_eq!(code(answer(&mut after, ask(3, tea(2)))), "out_of_stock");
    assert_eq!(answer(&mut after, ask(4, tea(1))), done("RES-000004", false));
}

#[test]
fn a_failing_service_does_nothing_so_many_times() {
    let mut stock = stock();
    set(&mut stock, r#"[{"fault": "fail", "times": 2}]"#);
    assert_eq!(code(answer(&mut stock, ask(1, tea(2)))), "unavailable");
    assert_eq!(code(answer(&mut stock, ask(1, tea(2)))), "unavailable");
    assert!(stock.entries().is_empty());
    assert_eq!(answer(&mut stock, ask(1, tea(2))), done("RES-000001", false));
}

#[test]
fn a_timeout_before_the_effect_leaves_nothing_and_one_after_leaves_the_effect() {
    let mut stock = stock();
    set(
        &mut stock,
        r#"[{"fault": "timeout_before_effect", "times": 1},
            {"fault": "timeout_after_effect", "times": 1}]"#,
    );
    assert_eq!(answer(&mut stock, ask(1, tea(2))), None);
    assert!(stock.entries().is_empty());
    assert_eq!(answer(&mut stock, ask(1, tea(2))), None);
    assert_eq!(stock.entries().len(), 1);
    assert_eq!(answer(&mut stock, ask(1, tea(2))), done("RES-000001", true));
}

#[test]
fn a_refusal_is_in_the_words_of_the_service_and_leaves_nothing() {
    let mut stock = stock();
    set(&mut stock, r#"[{"fault": "refuse"}]"#);
    assert_eq!(code(answer(&mut stock, ask(1, tea(2)))), "out_of_stock");
    assert_eq!(code(answer(&mut stock, undo(1))), "undo_refused");
    assert!(stock.entries().is_empty());
}

#[test]
fn a_refusal_does_not_deny_what_already_happened() {
    let mut stock = stock();
    answer(&mut stock, ask(1, tea(2)));
    set(&mut stock, r#"[{"fault": "refuse"}]"#);
    assert_eq!(answer(&mut stock, ask(1, tea(2))), done("RES-000001", true));
}

#[test]
fn a_rate_limit_says_when_to_come_back() {
    let mut stock = stock();
    set(&mut stock, r#"[{"fault": {"rate_limit": 3}}]"#);
    match answer(&mut stock, ask(1, tea(2))) {
        Some(Answer::Refused { status: 429, retry_after: Some(3), .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_slow_answer_is_the_right_answer_later() {
    let mut stock = stock();
    set(&mut stock, r#"[{"fault": {"slow": 250}}]"#);
    let response = stock.receive(1, ask(1, tea(2)));
    assert_eq!(response.delay, Duration::from_millis(250));
    assert_eq!(response.answer, done("RES-000001", false));
}

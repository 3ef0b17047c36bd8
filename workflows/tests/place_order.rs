//! `place-order` on the real rules, in memory: how it goes, and what becomes of it when something goes wrong anywhere.

#![expect(
    clippy::unwrap_used,
    reason = "the shop's handlers are test code too: what cannot go on fails"
)]

mod shop;

use backstitch_sdk::protocol::{Outcome, Scope, State};
use backstitch_sdk::testkit::{Call, Fault, Place, TestRun};
use backstitch_sdk::{Action, Span, TaskError};
use backstitch_workflows::place_order::Receipt;
use shop::{kit, order};

#[tokio::test]
async fn an_order_goes_through() {
    let run = kit().run(&order()).await;
    run.assert_outcome(Outcome::Succeeded);
    let receipt = run.output().unwrap();
    assert_eq!(
        (receipt.order_id.as_str(), receipt.tracking.as_str(), receipt.charged.to_string()),
        ("S-1", "Post 2", "29.20".to_owned())
    );
    let effects = ["customer", "price", "stock/0", "stock/1", "payment", "shipment", "receipt"];
    assert_eq!(run.effects(), effects);
    assert_eq!(run.elapsed(), Span::ZERO);
}

#[tokio::test]
async fn a_refused_shipment_is_undone_in_reverse() {
    let refused = TaskError::permanent("refused", "the carrier does not go there");
    let run = kit().fault(Fault::at("shipment").fails(refused)).run(&order()).await;
    run.assert_outcome(Outcome::Compensated);
    run.assert_nothing_stands();
    assert_eq!(run.effects()[5..], ["undo payment", "undo stock/0", "undo stock/1"]);
    assert_eq!(run.view().error.unwrap().failure.code, "refused", "the first error stays");
}

#[tokio::test]
async fn a_line_out_of_stock_costs_nothing() {
    let none = TaskError::permanent("out_of_stock", "no pots left");
    let run = kit().fault(Fault::at("stock/1").fails(none)).run(&order()).await;
    run.assert_outcome(Outcome::Compensated);
    run.assert_nothing_stands();
    assert_eq!(run.count(Action::Forward, "payment"), 0);
    assert_eq!(run.step("stock/1").state, "failed");
}

#[tokio::test]
async fn a_charge_in_doubt_is_found() {
    let run = kit().fault(Fault::at("payment").in_doubt()).run(&order()).await;
    run.assert_outcome(Outcome::Succeeded);
    assert_eq!(run.count(Action::Forward, "payment"), 1, "it is not charged again");
    assert!(run.effects().contains(&"verify payment".to_owned()));
}

#[tokio::test]
async fn a_charge_that_cannot_be_found_is_made() {
    let run = kit().fault(Fault::at("payment").lost_before()).run(&order()).await;
    run.assert_outcome(Outcome::Succeeded);
    let payments = ["verify payment", "payment"];
    assert_eq!(run.effects()[4..6], payments);
    assert!(run.elapsed() >= Span::secs(15), "the lease had to end first");
}

#[tokio::test]
async fn a_shipment_in_doubt_that_is_then_refused_is_undone_without_a_person() {
    let refused = TaskError::permanent("refused", "no");
    let run = kit()
        .fault(Fault::at("shipment").lost_before())
        .fault(Fault::at("shipment").fails(refused))
        .run(&order())
        .await;
    run.assert_outcome(Outcome::Compensated);
    run.assert_nothing_stands();
}

#[tokio::test]
async fn a_service_that_is_down_is_asked_again() {
    let down = TaskError::retryable("http_503", "try later");
    let run = kit().fault(Fault::at("payment").fails(down.clone()).times(3)).run(&order()).await;
    run.assert_outcome(Outcome::Succeeded);
    assert_eq!(run.step("payment").attempts, 4);

    let run = kit().fault(Fault::at("payment").fails(down).always()).run(&order()).await;
    run.assert_outcome(Outcome::Compensated);
    run.assert_nothing_stands();
}

#[tokio::test]
async fn an_undo_that_fails_goes_on_and_tells() {
    let refused = TaskError::permanent("refused", "no");
    let down = TaskError::retryable("http_503", "try later");
    let kit = kit()
        .fault(Fault::at("shipment").fails(refused))
        .fault(Fault::undoing("payment").fails(down).times(5));
    let mut run = kit.start(&order());
    while run.step("payment").state != "succeeded" || run.state() != State::Compensating {
        assert!(run.round().await, "it comes so far without waiting");
    }
    assert_eq!(run.standing().len(), 3);
    run.until_idle().await;
    run.assert_outcome(Outcome::Compensated);
    run.assert_nothing_stands();
    let told = run.events().filter(|event| format!("{event:?}").starts_with("IncidentOpened"));
    assert_eq!(told.count(), 1);
}

#[tokio::test]
async fn an_undo_that_cannot_be_done_waits_for_a_person() {
    let refused = TaskError::permanent("refused", "no");
    let gone = TaskError::permanent("account_closed", "nobody to give it back to");
    let kit = kit()
        .fault(Fault::at("shipment").fails(refused))
        .fault(Fault::undoing("payment").fails(gone));
    let mut run = kit.run(&order()).await;
    assert_eq!(run.state(), State::CompensationBlocked);
    let retried = run.retry().await;
    assert!(retried.is_ok(), "{retried:?}");
    run.assert_outcome(Outcome::Compensated);
    run.assert_nothing_stands();
}

#[tokio::test]
async fn a_shipped_order_is_undone_only_with_force() {
    let mut run = kit().run(&order()).await;
    let plan = run.plan(&Scope::All).unwrap();
    assert!(plan.past_pivot);
    let refused = run.compensate(Scope::All).await.unwrap_err();
    assert_eq!(refused.code.as_str(), "past_pivot");
    run.force_compensate(Scope::All).await.unwrap();
    assert_eq!(
        run.effects()[7..],
        ["undo shipment", "undo payment", "undo stock/0", "undo stock/1"]
    );
    assert_eq!(run.standing().len(), 1, "the receipt cannot be called back");
}

/// One way for a call to go wrong.
type Wrong = fn(Place) -> Fault;

/// Everything that can go wrong at one call.
const WRONGS: [(&str, Wrong); 8] = [
    ("fails for good", |at| at.fails(TaskError::permanent("refused", "no"))),
    ("fails once", |at| at.fails(TaskError::retryable("down", "later"))),
    ("is rate limited", |at| at.fails(TaskError::rate_limited(Span::secs(3)))),
    ("is in doubt", Place::in_doubt),
    ("is lost", Place::lost),
    ("is lost before", Place::lost_before),
    ("comes twice", Place::repeated),
    ("comes late", Place::late),
];

/// Checks that whatever goes wrong at any call of a run, it ends, and its outcome says what is true
/// in the world.
async fn rehearse(name: &str, base: &[Fault]) {
    let with = |faults: &[Fault]| faults.iter().cloned().fold(kit(), |kit, fault| kit.fault(fault));
    let plain = with(base).run(&order()).await;
    let calls: Vec<Call> = plain.calls().to_vec();
    assert!(!calls.is_empty());
    for call in calls {
        for (what, wrong) in WRONGS {
            let fault = wrong(Place::of(call.step.clone(), call.action));
            let mut faults = base.to_vec();
            faults.insert(0, fault);
            let mut run = with(&faults).run(&order()).await;
            if run.state() == State::CompensationBlocked || !run.view().conditions.is_empty() {
                // A person helps where a person is asked for.
                let _ = run.retry().await;
            }
            check(&run, &format!("{name}: {} {what}", call.short()));
        }
    }
}

fn check(run: &TestRun<Receipt>, what: &str) {
    let mut standing: Vec<String> = run.standing().iter().map(ToString::to_string).collect();
    standing.sort();
    let expected: &[&str] = match run.outcome() {
        Some(Outcome::Succeeded) => &["payment", "receipt", "shipment", "stock/0", "stock/1"],
        Some(Outcome::Compensated | Outcome::FailedClean) => &[],
        other => panic!("{what}: {other:?} {}", run.view().summary),
    };
    assert_eq!(standing, expected, "{what}");
}

#[tokio::test]
async fn whatever_goes_wrong_on_the_way_the_order_is_whole_or_gone() {
    rehearse("forward", &[]).await;
}

#[tokio::test]
async fn whatever_goes_wrong_on_the_way_back_it_is_gone() {
    let refused = TaskError::permanent("refused", "no");
    rehearse("backward", &[Fault::at("shipment").fails(refused).always()]).await;
}

#[tokio::test]
async fn whatever_goes_wrong_while_a_charge_is_in_doubt_the_order_is_whole_or_gone() {
    rehearse("in doubt", &[Fault::at("payment").in_doubt()]).await;
}

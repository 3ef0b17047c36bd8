//! The test kit beyond one run: children with kits of their own, and the first of several signals.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use backstitch_sdk::protocol::{Outcome, State, StepState};
use backstitch_sdk::testkit::{Fault, TestKit};
use backstitch_sdk::{
    CompensationContext, NoResult, OnFailure, Ref, Retry, Signal, Span, Task, TaskContext,
    TaskError, Undo, Workflow, field,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const DO: Task<u64, u64> = Task::new("do");
const UNDO: Undo<u64, u64> = Undo::new("undo");
const SHIP: Task<u64, u64> = Task::new("ship");

async fn double(_: TaskContext, number: u64) -> Result<u64, TaskError> {
    Ok(number * 2)
}

async fn undo(_: TaskContext, _: CompensationContext<u64, u64>) -> Result<(), TaskError> {
    Ok(())
}

fn payments() -> Workflow<u64, u64> {
    Workflow::build("payments", 1, |saga, input: Ref<u64>| {
        let pause = saga.sleep("pause", Span::hours(2));
        let retry = Retry::every(Span::secs(5)).max_attempts(2);
        saga.step("do", DO, input).compensate(UNDO).after(&pause).retry(retry)
    })
    .unwrap()
}

/// Makes a workflow of a child and a step after it.
fn order(on_failure: OnFailure) -> Workflow<u64, u64> {
    Workflow::build("order", 1, |saga, input: Ref<u64>| {
        let paid = saga.child("payment", &payments(), input).on_failure(on_failure);
        saga.step("ship", SHIP, &paid).pivot()
    })
    .unwrap()
}

fn payments_kit() -> TestKit<u64, u64> {
    TestKit::new(&payments()).task(DO, double).undo(UNDO, undo)
}

fn kit() -> TestKit<u64, u64> {
    TestKit::new(&order(OnFailure::Compensate)).task(SHIP, double)
}

#[tokio::test]
async fn a_child_runs_with_the_handlers_of_its_own_kit() {
    let run = kit().child(payments_kit()).run(&4).await;
    run.assert_outcome(Outcome::Succeeded);
    assert_eq!(run.output(), Some(16));
    assert_eq!(
        (run.effects(), run.child("payment").unwrap().effects()),
        (vec!["ship".to_owned()], vec!["do".to_owned()])
    );
    assert!(run.elapsed() >= Span::hours(2), "the child slept on the same clock");
    // Each run has children of its own.
    let kit = kit().child(payments_kit().fault(Fault::at("do").lost_before()));
    for _ in 0..2 {
        let run = kit.run(&4).await;
        assert_eq!(run.child("payment").unwrap().step("do").deliveries, 2);
    }
}

#[tokio::test]
async fn a_child_is_undone_with_its_parent() {
    let no = TaskError::permanent("no_carrier", "nobody goes there");
    let kit = kit().child(payments_kit()).fault(Fault::at("ship").fails(no));
    let run = kit.run(&4).await;
    run.assert_outcome(Outcome::Compensated);
    run.assert_nothing_stands();
    let child = run.child("payment").unwrap();
    assert_eq!(child.effects(), ["do", "undo do"]);
    assert_eq!(child.outcome(), Some(Outcome::Compensated));
}

#[tokio::test]
async fn a_fault_in_a_child_is_a_failure_of_the_step() {
    let no = TaskError::permanent("declined", "no");
    let broken = || payments_kit().fault(Fault::at("do").fails(no.clone()));
    let run = kit().child(broken()).run(&4).await;
    run.assert_outcome(Outcome::FailedClean);
    assert_eq!(run.step("payment").error.unwrap().code, "child_failed");
    let kit = TestKit::new(&order(OnFailure::Incident)).child(broken()).task(SHIP, double);
    let run = kit.run(&4).await;
    assert_eq!(run.step("payment").state, StepState::Parked);
}

#[tokio::test]
async fn an_undo_that_fails_in_a_child_blocks_it_and_its_parent_waits() {
    let no = TaskError::permanent("no", "no");
    let stuck = payments_kit().fault(Fault::undoing("do").fails(no.clone()));
    let kit = kit().child(stuck).fault(Fault::at("ship").fails(no));
    let run = kit.run(&4).await;
    assert_eq!(run.state(), State::Compensating);
    assert_eq!(run.child("payment").unwrap().state(), State::CompensationBlocked);
}

#[tokio::test]
async fn a_killed_parent_kills_its_child() {
    let mut run = kit().child(payments_kit()).patience(Span::minutes(1)).run(&4).await;
    assert_eq!(run.child("payment").unwrap().step("pause").state, StepState::Sleeping);
    run.kill().await.unwrap();
    assert_eq!(run.child("payment").unwrap().state(), State::Ended);
}

#[tokio::test]
async fn children_have_children() {
    let middle = order(OnFailure::Compensate);
    let top = Workflow::<u64, u64>::build("top", 1, |saga, input: Ref<u64>| {
        saga.child("order", &middle, input)
    })
    .unwrap();
    let middle = TestKit::new(&middle).task(SHIP, double).child(payments_kit());
    let run = TestKit::new(&top).child(middle).run(&1).await;
    run.assert_outcome(Outcome::Succeeded);
    assert_eq!(run.output(), Some(4));
    assert!(run.child("order").unwrap().child("payment").is_some());
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Note {
    by: String,
}

fn asked() -> Workflow<u64, String> {
    Workflow::build("asked", 1, |saga, _: Ref<u64>| {
        let signal = Signal::<Note>::first_of(["approved", "rejected"]).or::<u64>("later");
        let answer = saga.wait("answer", signal.timeout(Span::days(3)));
        let rejected = saga.fail("rejected", "rejected", "no").when(answer.is("rejected"));
        let _ = saga
            .step("ship", SHIP, answer.data_as::<u64>())
            .read_only()
            .when(answer.is("later"))
            .after(&rejected);
        field!(answer.signal)
    })
    .unwrap()
}

#[tokio::test]
async fn the_first_of_several_signals_ends_a_wait() {
    let kit = TestKit::new(&asked()).task(SHIP, double).patience(Span::hours(1));
    let note = Note { by: "ann".to_owned() };
    let mut run = kit.run(&1).await;
    run.signal("approved", &note).await.unwrap();
    run.assert_outcome(Outcome::Succeeded);
    assert_eq!(run.output().as_deref(), Some("approved"));
    let awaits = run.step("answer").awaits.unwrap();
    assert_eq!(awaits.sent_by.as_deref(), Some("test"), "the view says who sent it");
    let mut run = kit.run(&1).await;
    run.signal("rejected", &note).await.unwrap();
    run.assert_outcome(Outcome::FailedClean);
    // A signal with data of its own.
    let mut run = kit.run(&1).await;
    run.signal("later", &21).await.unwrap();
    assert_eq!(run.step("ship").output.unwrap().text(), "42");
    // Nobody answers.
    let mut run = kit.run(&1).await;
    run.advance(Span::days(4)).await;
    run.assert_outcome(Outcome::FailedClean);
}

#[test]
#[should_panic(expected = "the workflow has no step 'shipment'; there are payment, ship")]
fn a_fault_at_a_step_that_is_not_there_names_those_there_are() {
    let _ = kit().fault(Fault::at("shipment").in_doubt());
}

#[test]
#[should_panic(expected = "no worker does the step `payment`")]
fn a_fault_at_a_step_without_a_task_is_refused() {
    let _ = kit().fault(Fault::at("payment").in_doubt());
}

#[test]
#[should_panic(expected = "the step `ship` has no compensation")]
fn a_fault_at_an_undo_that_is_not_there_is_refused() {
    let _ = kit().fault(Fault::undoing("ship").in_doubt());
}

#[tokio::test]
async fn a_signal_or_a_child_of_another_name_names_those_there_are() {
    let mut run = kit().start(&4);
    let unknown = run.signal("approved", &true).await.unwrap_err();
    assert_eq!(unknown.code.as_str(), "unknown_signal");
    assert!(unknown.message.ends_with("no step of it waits for a signal"), "{}", unknown.message);
    let unknown = run.child_succeeds("paymnt", &1).await.unwrap_err();
    assert!(unknown.message.ends_with("there are payment, ship"), "{}", unknown.message);
}

#[tokio::test]
async fn a_run_that_did_not_succeed_is_told_in_one_sentence_also_out_of_main() {
    let no = TaskError::permanent("no_carrier", "nobody goes there");
    let kit = kit().child(payments_kit()).fault(Fault::at("ship").fails(no));
    let view = kit.run(&4).await.view();
    let (id, error) = (view.id, NoResult::NotSucceeded(Box::new(view)));
    let sentence = format!(
        "the run {id} did not succeed (compensated) at step 'ship': nobody goes there (no_carrier); \
         `backstitch run show {id}` shows more"
    );
    assert_eq!((error.to_string(), format!("{error:?}")), (sentence.clone(), sentence));
}

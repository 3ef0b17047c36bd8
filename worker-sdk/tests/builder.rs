//! Tests what the builder makes of typed wiring: the expression as JSON, and the mistakes when a workflow is built.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use backstitch_sdk::{
    Empty, InvalidWorkflow, Item, Join, OnFailure, OnUnknown, Probe, Ref, Retry, Span, Task,
    Timeouts, Tolerance, Undo, Workflow, constant, field, wire,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, JsonSchema)]
struct Order {
    id: String,
    cents: u64,
    express: bool,
    customer: Customer,
    lines: Vec<Line>,
    gift: Option<Gift>,
    #[serde(default = "euro")]
    currency: String,
    #[serde(rename = "remark-to-us")]
    remark: Option<String>,
    #[serde(flatten)]
    source: Source,
}

fn euro() -> String {
    "EUR".to_owned()
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Customer {
    customer_id: String,
    post_code: Option<String>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Line {
    sku: String,
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Gift {
    message: Option<String>,
    wrapped: bool,
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Source {
    channel: String,
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Payment {
    authorization: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fee: Option<u64>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Receipt {
    order: String,
    fee: Option<u64>,
}

const PAY: Task<Customer, Payment> = Task::new("pay").queue("money");
const REFUND: Undo<Customer, Payment> = Undo::new("refund");
const FIND: Probe<Customer, Payment> = Probe::new("find").queue("money");
const RESERVE: Task<Line, String> = Task::new("reserve");
const RELEASE: Undo<Line, String> = Undo::new("release");

/// Returns the wiring that `write` makes, as JSON, or what is wrong with it.
fn wiring<T>(write: impl FnOnce(Ref<Order>) -> Ref<T>) -> String {
    let mut made = String::new();
    let built = Workflow::<Order, ()>::build("wiring", 1, |saga, order| {
        let wiring = write(order);
        made = serde_json::to_string(&wiring.expr()).unwrap();
        let _ = saga.step("look", Task::<T, ()>::new("look"), wiring).read_only();
    });
    match built {
        Ok(_) => made,
        Err(invalid) => {
            invalid.violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        }
    }
}

macro_rules! assert_wiring {
    ($write:expr, $json:expr) => {
        assert_eq!(wiring($write), $json, "{}", stringify!($write))
    };
}

#[test]
fn fields_are_paths() {
    assert_wiring!(|order| field!(order.id), r#"{"path":"/input/id"}"#);
    assert_wiring!(
        |order| field!(order.customer.customer_id),
        r#"{"path":"/input/customer/customerId"}"#
    );
    assert_wiring!(|order| order.at::<String>("/channel"), r#"{"path":"/input/channel"}"#);
    assert_wiring!(|order| order.at::<String>("/lines/0/sku"), r#"{"path":"/input/lines/0/sku"}"#);
}

#[test]
fn what_may_be_left_out_is_null_or_its_default() {
    assert_wiring!(
        |order| field!(order.customer.post_code),
        r#"{"default":[{"path":"/input/customer/postCode"},{"const":null}]}"#
    );
    assert_wiring!(
        |order| field!(order.currency),
        r#"{"default":[{"path":"/input/currency"},{"const":"EUR"}]}"#
    );
    assert_wiring!(
        |order| field!(order.gift?.wrapped),
        r#"{"default":[{"path":"/input/gift/wrapped"},{"const":null}]}"#
    );
    assert_wiring!(
        |order| field!(order.gift?.message).flatten().unwrap_or("a gift"),
        r#"{"default":[{"path":"/input/gift/message"},{"const":"a gift"}]}"#
    );
}

#[test]
fn conditions_read_like_what_they_mean() {
    assert_wiring!(
        |order| field!(order.cents).ge(10_000).and(field!(order.express))
            | field!(order.id).eq("x"),
        r#"{"or":[{"and":[{"ge":[{"path":"/input/cents"},{"const":10000}]},{"path":"/input/express"}]},{"eq":[{"path":"/input/id"},{"const":"x"}]}]}"#
    );
    assert_wiring!(
        |order| !field!(order.gift).is_some() & field!(order.lines).length().lt(5),
        r#"{"and":[{"not":{"ne":[{"default":[{"path":"/input/gift"},{"const":null}]},{"const":null}]}},{"lt":[{"length":{"path":"/input/lines"}},{"const":5}]}]}"#
    );
    assert_wiring!(|order| field!(order.gift).exists(), r#"{"exists":"/input/gift"}"#);
}

#[test]
fn structs_are_objects_with_the_names_of_their_json() {
    assert_wiring!(
        |order| wire!(Customer { customer_id: field!(order.id), post_code: constant(None) }),
        r#"{"object":{"customerId":{"path":"/input/id"},"postCode":{"const":null}}}"#
    );
    assert_wiring!(
        |order| {
            let customer = wire!(Customer { customer_id: field!(order.id), post_code: "26721" });
            field!(customer.customer_id)
        },
        r#"{"path":"/input/id"}"#
    );
}

#[test]
fn a_field_that_serde_hides_is_told() {
    let told = wiring(|order| field!(order.remark));
    assert!(told.contains("the field `remark` in `remark` of `builder::Order`"), "{told}");
    assert!(told.starts_with("/steps/0/task/input: "), "{told}");
    let told = wiring(|order| field!(order.source.channel));
    assert!(told.contains("the field `source`"), "{told}");
    let told = wiring(|order| order.at::<String>("/remark"));
    assert!(told.contains("has no place '/remark'"), "{told}");
    assert_wiring!(
        |order| order.at::<String>("/remark-to-us"),
        r#"{"path":"/input/remark-to-us"}"#
    );
}

fn whole() -> Result<Workflow<Order, Receipt>, InvalidWorkflow> {
    Workflow::build("whole", 3, |saga, order: Ref<Order>| {
        saga.description("Every word of the builder");
        saga.timeout(Span::secs(600));
        saga.compensable_for(Span::days(1));
        let stock = saga
            .map("stock", field!(order.lines), RESERVE, |line: Item<Line>| line)
            .join(Join::Tolerate(Tolerance::Count(1)))
            .empty(Empty::Succeed)
            .max_concurrency(5)
            .compensate(RELEASE)
            .undo_retry(Retry::every(Span::secs(2)).max_attempts(4))
            .alert_after(2);
        let payment = saga
            .step("payment", PAY, field!(order.customer))
            .after(&stock)
            .when(field!(order.cents).gt(0))
            .compensate(REFUND)
            .verify(FIND)
            .retry(Retry::never().final_errors(["declined"]))
            .timeouts(Timeouts::default().to_start(Span::secs(9)).step(Span::secs(60)));
        let _ = saga
            .step("look", Task::<Option<Payment>, ()>::new("look"), payment.maybe())
            .read_only()
            .on_unknown(OnUnknown::Incident)
            .on_failure(OnFailure::Continue);
        wire!(Receipt { order: field!(order.id), fee: field!(payment.fee) })
    })
}

#[test]
fn the_whole_language_is_what_it_was() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/builder.json");
    let actual = whole().unwrap().json() + "\n";
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path, &actual).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        expected == actual,
        "{path} is not what the builder makes now; UPDATE_EXPECT=1 writes\n{actual}"
    );
}

#[test]
fn all_mistakes_are_told_at_once() {
    let invalid = Workflow::<Order, ()>::build("Wrong Name", 0, |saga, order| {
        let _ = saga.step("a", PAY, field!(order.customer)).alert_after(1).pivot();
        let _ = saga.step("a", PAY, field!(order.customer)).compensate(REFUND);
        let _ = saga.step("b", Task::<Source, ()>::new("b"), field!(order.source)).read_only();
    })
    .unwrap_err();
    let told = invalid.to_string();
    for part in
        ["/name", "/version", "/steps/0: `alert_after` needs", "/steps/1/id", "/steps/2/task/input"]
    {
        assert!(told.contains(part), "{part} is missing in {told}");
    }
}

mod parity {
    //! Whatever the JSON of a wait and of a child can say, the builder can say.

    use backstitch_sdk::{
        Client, CompensationContext, OnFailure, Ref, Signal, Span, Task, TaskContext, TaskError,
        Undo, Worker, Workflow,
    };

    const DO: Task<u64, u64> = Task::new("do");
    const UNDO: Undo<u64, u64> = Undo::new("undo").queue("other");

    fn one() -> Workflow<u64, u64> {
        Workflow::build("one", 1, |saga, input: Ref<u64>| {
            saga.step("do", DO, input).compensate(UNDO)
        })
        .unwrap()
    }

    #[test]
    fn a_wait_has_a_default_and_a_child_says_what_its_failure_means() {
        let child = one();
        let workflow = Workflow::<u64, u64>::build("all", 1, |saga, input: Ref<u64>| {
            let signal = Signal::<u64>::new("go").timeout(Span::hours(2)).default_to(7_u64);
            let answer = saga.wait("wait", signal);
            let _ = saga.child("child", &child, input).on_failure(OnFailure::Continue);
            answer
        });
        let json: serde_json::Value = serde_json::from_str(&workflow.unwrap().json()).unwrap();
        let (wait, child) = (&json["steps"][0]["wait"], &json["steps"][1]["child"]);
        assert_eq!(wait["default"], serde_json::json!({ "const": 7 }));
        assert_eq!(wait["timeout"].as_str(), Some("2h"));
        assert_eq!(child["on_failure"], "continue");
    }

    #[test]
    fn a_worker_names_the_handlers_that_it_lacks_for_a_workflow() {
        let work = |_: TaskContext, number: u64| async move { Ok::<_, TaskError>(number) };
        let worker = Worker::new(Client::new("http://127.0.0.1:1").unwrap()).task(DO, work);
        let told = worker.check(&one()).unwrap_err().to_string();
        assert!(told.contains("compensate other/undo") && !told.contains("forward"), "{told}");
        let undo =
            |_: TaskContext, _: CompensationContext<u64, u64>| async { Ok::<_, TaskError>(()) };
        let elsewhere = UNDO.queue("shop");
        let worker = worker.undo(elsewhere, undo);
        let told = worker.check(&one()).unwrap_err().to_string();
        assert!(told.contains("compensate other/undo (there is one on the queue shop"), "{told}");
        worker.undo(UNDO, undo).check(&one()).unwrap();
    }

    #[test]
    fn a_workflow_tells_what_a_server_would_warn_of() {
        let napping = Workflow::<u64, u64>::build("naps", 1, |saga, input: Ref<u64>| {
            let nap = saga.sleep("nap", Span::days(30));
            saga.step("do", DO, input).compensate(UNDO).after(&nap)
        });
        let warnings = napping.unwrap().warnings();
        assert_eq!(warnings[0].code, "never_reached", "{warnings:?}");
        assert_eq!(one().warnings(), []);
    }

    #[tokio::test]
    async fn signals_and_children_are_played_in_the_test_kit() {
        use backstitch_sdk::protocol::Outcome;
        use backstitch_sdk::testkit::TestKit;
        let child = one();
        let workflow = Workflow::<u64, u64>::build("asks", 1, |saga, input: Ref<u64>| {
            let answer = saga.wait("wait", Signal::<u64>::new("go").timeout(Span::days(3)));
            saga.child("child", &child, input).after(&answer)
        })
        .unwrap();
        let kit = TestKit::new(&workflow);
        let mut run = kit.run(&4).await;
        assert!(run.child_succeeds("child", &5).await.is_err(), "its turn has not come");
        run.signal("go", &1).await.unwrap();
        run.child_succeeds("child", &5).await.unwrap();
        assert_eq!(run.output(), Some(5));
        // Sent early, and a child that fails.
        let mut run = kit.start(&4);
        run.signal("go", &1).await.unwrap();
        run.child_fails("child", TaskError::permanent("no", "no")).await.unwrap();
        run.assert_outcome(Outcome::FailedClean);
        // Nobody answers.
        let mut run = kit.run(&4).await;
        run.advance(Span::days(4)).await;
        run.assert_outcome(Outcome::FailedClean);
    }
}

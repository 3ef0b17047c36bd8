//! Each handler against a real service on this machine: what it asks, and what it makes of trouble.

use std::net::SocketAddr;

use backstitch_sdk::Forward;
use backstitch_sdk::protocol::FailureKind;
use serde_json::json;
use tokio::net::TcpListener;

use super::*;
use crate::desk::{Desk, Setup};
use crate::effect::Kind;
use crate::faults::Faults;

/// A service of one kind, and a shop that knows no other.
struct Bench {
    shop: Arc<Shop>,
    desk: Desk,
}

impl Bench {
    async fn new(kind: Kind) -> Bench {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let desk = Desk::open(kind, &Setup::default()).unwrap();
        tokio::spawn(desk.clone().serve(listener, std::future::pending()));
        let services = Services {
            stock: url.clone(),
            payment: url.clone(),
            shipping: url,
            timeout: Duration::from_millis(200),
            die_after: None,
        };
        let http = reqwest::Client::builder().timeout(services.timeout).build().unwrap();
        let shop = Shop { http, services, effects: AtomicU64::new(0) };
        Bench { shop: Arc::new(shop), desk }
    }

    fn fault(&self, fault: &serde_json::Value) {
        let faults = json!({"rules": [{"fault": fault, "times": 1}]});
        self.desk.misbehave(serde_json::from_value::<Faults>(faults).unwrap());
    }

    fn effects(&self) -> usize {
        self.desk.ledger().entries.len()
    }

    async fn charge(&self) -> Result<Payment, TaskError> {
        charge_card(Arc::clone(&self.shop), TaskContext::for_test(), charge()).await
    }
}

fn charge() -> Charge {
    Charge {
        order_id: "A-1".to_owned(),
        account: "ACC-1".to_owned(),
        amount: "9.50".parse().unwrap(),
    }
}

#[tokio::test]
async fn a_charge_is_made_once_named_and_found() {
    let bench = Bench::new(Kind::Payment).await;
    let context = TaskContext::for_test();
    let payment = charge_card(Arc::clone(&bench.shop), context.clone(), charge()).await.unwrap();
    assert_eq!(payment, bench.charge().await.unwrap());
    assert_eq!(context.named_external_id(), Some(payment.payment.clone()));
    assert_eq!(bench.effects(), 1);
    let found = find_charge(Arc::clone(&bench.shop), context, charge()).await.unwrap();
    assert_eq!(found, Verdict::Happened(payment));
}

#[tokio::test]
async fn a_charge_that_never_came_is_not_found() {
    let bench = Bench::new(Kind::Payment).await;
    let found = find_charge(Arc::clone(&bench.shop), TaskContext::for_test(), charge()).await;
    assert_eq!(found.unwrap(), Verdict::NotHappened);
}

#[tokio::test]
async fn trouble_is_told_for_what_it_is() {
    let bench = Bench::new(Kind::Payment).await;
    for (fault, kind, code) in [
        (json!("refuse"), FailureKind::Permanent, "card_declined"),
        (json!("fail"), FailureKind::Retryable, "unavailable"),
        (json!({"rate_limit": 2}), FailureKind::RateLimited, "rate_limited"),
        (json!("timeout_before_effect"), FailureKind::Unknown, "timeout"),
        (json!("timeout_after_effect"), FailureKind::Unknown, "timeout"),
    ] {
        bench.fault(&fault);
        let error = bench.charge().await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (kind, code));
    }
    assert_eq!(bench.effects(), 1, "only the last one happened");
}

#[tokio::test]
async fn undoing_reaches_the_effect_by_its_forward_key() {
    let bench = Bench::new(Kind::Stock).await;
    let context = TaskContext::for_test();
    let reserve = Reserve { order_id: "A-1".to_owned(), sku: "TEA".to_owned(), quantity: 2 };
    let shop = || Arc::clone(&bench.shop);
    let reservation = reserve_stock(shop(), context.clone(), reserve.clone()).await.unwrap();
    let undoing = CompensationContext {
        input: reserve.clone(),
        forward: Forward::Succeeded(reservation),
        forward_key: context.effect_key(),
    };
    release_stock(shop(), TaskContext::for_test(), undoing).await.unwrap();
    let late = reserve_stock(shop(), context, reserve).await.unwrap_err();
    assert_eq!((late.kind(), late.code()), (FailureKind::Permanent, "revoked"));
}

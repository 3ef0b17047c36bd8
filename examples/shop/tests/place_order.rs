//! `place-order` on the real rules, with the shop's own handlers against its real services; only the server is left
//! out (the test kit stands in for it). After each run the ledgers are laid beside what the run says.

#![expect(clippy::unwrap_used, reason = "helpers of tests may unwrap like the tests themselves")]

use std::net::Ipv4Addr;
use std::time::Duration;

use backstitch_sdk::protocol::{Outcome, Scope};
use backstitch_sdk::testkit::{Fault as Mishap, TestKit, TestRun};
use backstitch_sdk::{Handlers, TaskError};
use backstitch_shop::check::{RunStory, audit};
use backstitch_shop::desk::{Desk, Setup};
use backstitch_shop::effect::{Kind, Op};
use backstitch_shop::faults::{Fault, Faults, Match, Rule, Storm};
use backstitch_shop::orders;
use backstitch_shop::service::Shelf;
use backstitch_shop::worker::{Services, handlers};
use backstitch_workflows::place_order::Receipt;
use backstitch_workflows::{Order, place_order};
use tokio::net::TcpListener;

/// The three services and an order of three lines.
struct Shop {
    desks: [Desk; 3],
    handlers: Handlers,
    order: Order,
}

impl Shop {
    async fn open() -> Shop {
        let desks = Kind::ALL.map(|kind| Desk::open(kind, &Setup::default()).unwrap());
        let mut urls = Vec::new();
        for desk in &desks {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            urls.push(format!("http://{}", listener.local_addr().unwrap()));
            tokio::spawn(desk.clone().serve(listener, std::future::pending()));
        }
        let [stock, payment, shipping] = urls.try_into().unwrap();
        let timeout = Duration::from_millis(150);
        let services = Services { stock, payment, shipping, timeout, die_after: None };
        let mut orders = orders::own().unwrap().into_iter();
        let order = orders.find(|order| order.lines.len() == 3).unwrap();
        Shop { desks, handlers: handlers(services).unwrap(), order }
    }

    fn desk(&self, kind: Kind) -> &Desk {
        self.desks.iter().find(|desk| desk.ledger().service == kind).unwrap()
    }

    fn fault(&self, kind: Kind, op: Op, fault: Fault, times: Option<u32>) {
        let matches = Match { op: Some(op), ..Match::default() };
        let rules = vec![Rule { matches, fault, times }];
        self.desk(kind).misbehave(Faults { rules, storm: None });
    }

    fn kit(&self) -> TestKit<Order, Receipt> {
        TestKit::new(&place_order().unwrap()).handlers(self.handlers.clone())
    }

    async fn run(&self) -> TestRun<Receipt> {
        self.kit().run(&self.order).await
    }

    /// Checks that what stands in the ledgers is what the runs say.
    #[track_caller]
    fn assert_agrees(&self, runs: &[(&Order, &TestRun<Receipt>)]) {
        let told = |(order, run): &(&Order, &TestRun<Receipt>)| {
            let items: Vec<_> =
                (0..order.lines.len()).map(|item| run.step(&format!("stock/{item}"))).collect();
            RunStory::told(&order.order_id, orders::bill(order).unwrap(), &run.view(), &items)
        };
        let stories: Vec<_> = runs.iter().map(told).collect();
        let ledgers = self.desks.each_ref().map(Desk::ledger);
        let differences = audit(&stories, &ledgers).differences;
        assert!(differences.is_empty(), "{differences:#?}\n{:#?}", ledgers);
    }

    #[track_caller]
    fn assert_ends(&self, run: &TestRun<Receipt>, outcome: Outcome) {
        run.assert_outcome(outcome);
        self.assert_agrees(&[(&self.order, run)]);
    }

    fn entries(&self, kind: Kind) -> usize {
        self.desk(kind).ledger().entries.len()
    }
}

#[tokio::test]
async fn an_order_goes_through() {
    let shop = Shop::open().await;
    let run = shop.run().await;
    shop.assert_ends(&run, Outcome::Succeeded);
    let receipt = run.output().unwrap();
    assert_eq!(receipt.charged, orders::bill(&shop.order).unwrap().total);
    assert_eq!(run.step("shipment").external_id, Some(receipt.tracking));
}

#[tokio::test]
async fn a_refused_parcel_undoes_everything_last_things_first() {
    let shop = Shop::open().await;
    shop.fault(Kind::Shipping, Op::Ship, Fault::Refuse, None);
    let run = shop.run().await;
    shop.assert_ends(&run, Outcome::Compensated);
    let undone: Vec<_> =
        run.effects().into_iter().filter(|call| call.starts_with("undo")).collect();
    assert_eq!(undone[0], "undo payment");
    assert_eq!(undone.len(), 4, "the payment and three lines: {undone:?}");
}

#[tokio::test]
async fn a_line_out_of_stock_releases_the_others_and_charges_nobody() {
    let shop = Shop::open().await;
    let sku = shop.order.lines[1].sku.clone();
    shop.desk(Kind::Stock).fill(&[Shelf { sku, in_stock: 0 }]);
    let run = shop.run().await;
    shop.assert_ends(&run, Outcome::Compensated);
    assert_eq!(shop.entries(Kind::Payment), 0);
}

#[tokio::test]
async fn a_payment_in_doubt_is_looked_up_and_never_made_twice() {
    for (fault, verdict) in
        [(Fault::TimeoutAfterEffect, "it had happened"), (Fault::TimeoutBeforeEffect, "it had not")]
    {
        let shop = Shop::open().await;
        shop.fault(Kind::Payment, Op::Charge, fault, Some(1));
        let run = shop.run().await;
        shop.assert_ends(&run, Outcome::Succeeded);
        assert!(run.effects().contains(&"verify payment".to_owned()), "{verdict}");
        assert_eq!(shop.entries(Kind::Payment), 1, "{verdict}");
    }
}

#[tokio::test]
async fn a_payment_that_stays_in_doubt_is_undone_where_it_happened_and_revoked_where_not() {
    for (fault, entries) in [(Fault::TimeoutAfterEffect, 2), (Fault::TimeoutBeforeEffect, 1)] {
        let shop = Shop::open().await;
        shop.fault(Kind::Payment, Op::Charge, fault, Some(1));
        let refused = TaskError::permanent("find_refused", "this is not to be known");
        let run =
            shop.kit().fault(Mishap::probing("payment").fails(refused)).run(&shop.order).await;
        shop.assert_ends(&run, Outcome::Compensated);
        assert_eq!(shop.entries(Kind::Payment), entries, "{fault:?}");
    }
}

#[tokio::test]
async fn a_shipment_in_doubt_at_the_point_of_no_return_needs_no_person() {
    for (fault, outcome) in [
        (Fault::TimeoutAfterEffect, Outcome::Succeeded),
        (Fault::TimeoutBeforeEffect, Outcome::Compensated),
    ] {
        let shop = Shop::open().await;
        let matches = Match { op: Some(Op::Ship), ..Match::default() };
        let doubt = Rule { matches: matches.clone(), fault, times: Some(1) };
        let refusal = Rule { matches, fault: Fault::Refuse, times: None };
        let faults = Faults { rules: vec![doubt, refusal], storm: None };
        shop.desk(Kind::Shipping).misbehave(faults);
        let run = shop.run().await;
        shop.assert_ends(&run, outcome);
    }
}

#[tokio::test]
async fn a_bank_that_is_down_for_a_while_is_asked_again() {
    let shop = Shop::open().await;
    shop.fault(Kind::Payment, Op::Charge, Fault::Fail, Some(4));
    let run = shop.run().await;
    shop.assert_ends(&run, Outcome::Succeeded);
    assert_eq!(run.step("payment").attempts, 5);
}

#[tokio::test]
async fn a_person_undoes_an_order_that_has_succeeded_and_the_receipt_stays() {
    let shop = Shop::open().await;
    let mut run = shop.run().await;
    let plan = run.plan(&Scope::All).unwrap();
    assert!(plan.past_pivot);
    assert_eq!(plan.irreversible, ["receipt"]);
    run.force_compensate(Scope::All).await.unwrap();
    shop.assert_ends(&run, Outcome::PartiallyCompleted);
}

#[tokio::test]
async fn whatever_becomes_of_a_worker_at_any_step_nothing_is_lost_or_done_twice() {
    for step in ["customer", "price", "stock", "stock/1", "payment", "shipment", "receipt"] {
        let mishaps = [
            Mishap::at(step).lost(),
            Mishap::at(step).lost_before(),
            Mishap::at(step).in_doubt(),
            Mishap::at(step).repeated(),
            Mishap::at(step).late(),
        ];
        for mishap in mishaps {
            let shop = Shop::open().await;
            let run = shop.kit().fault(mishap.clone()).run(&shop.order).await;
            assert_eq!(run.outcome(), Some(Outcome::Succeeded), "{mishap:?}");
            shop.assert_agrees(&[(&shop.order, &run)]);
        }
    }
}

#[tokio::test]
async fn whatever_becomes_of_a_worker_while_undoing_everything_is_undone_once() {
    for step in ["payment", "stock", "stock/1"] {
        let mishaps = [
            Mishap::undoing(step).lost(),
            Mishap::undoing(step).lost_before(),
            Mishap::undoing(step).in_doubt(),
            Mishap::undoing(step).repeated(),
            Mishap::undoing(step).late(),
        ];
        for mishap in mishaps {
            let shop = Shop::open().await;
            shop.fault(Kind::Shipping, Op::Ship, Fault::Refuse, None);
            let run = shop.kit().fault(mishap.clone()).run(&shop.order).await;
            assert_eq!(run.outcome(), Some(Outcome::Compensated), "{mishap:?}");
            shop.assert_agrees(&[(&shop.order, &run)]);
        }
    }
}

#[tokio::test]
async fn orders_in_a_storm_all_end_and_agree_with_the_ledgers() {
    let shop = Shop::open().await;
    let storm = Storm { seed: 3, trouble_percent: 20, refuse_percent: 5 };
    for desk in &shop.desks {
        desk.misbehave(Faults { rules: Vec::new(), storm: Some(storm) });
    }
    let (orders, kit) = (orders::own().unwrap(), shop.kit());
    let mut runs = Vec::new();
    for order in &orders {
        runs.push((order, kit.run(order).await));
    }
    let count = |outcome| runs.iter().filter(|(_, run)| run.outcome() == Some(outcome)).count();
    let (done, undone) = (count(Outcome::Succeeded), count(Outcome::Compensated));
    assert_eq!(done + undone + count(Outcome::FailedClean), orders.len());
    assert!(done > 10 && undone > 2, "{done} done, {undone} undone: not much of a storm");
    let runs: Vec<_> = runs.iter().map(|(order, run)| (*order, run)).collect();
    shop.assert_agrees(&runs);
}

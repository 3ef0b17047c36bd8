//! The tester, tested: each kind of disagreement is found, and agreement is not taken for one.

use super::*;
use crate::effect::{Charge, Mail, Reserve, Ship};

const RESERVE: u128 = 1;
const CHARGE: u128 = 2;
const SHIP: u128 = 3;
const MAIL: u128 = 4;

/// One order of two pieces of tea for 9.50, and the three ledgers.
struct Case {
    stock: Ledger,
    payment: Ledger,
    shipping: Ledger,
    run: RunStory,
}

fn reserve() -> Effect {
    Effect::Reserve(Reserve { sku: "TEA".to_owned(), quantity: 2 })
}

fn charge(amount: &str) -> Effect {
    Effect::Charge(Charge { account: "ACC-1".to_owned(), amount: amount.to_owned() })
}

fn claim(step: &str, service: Kind, key: u128) -> Claim {
    Claim { step: step.to_owned(), service, key: Uuid::from_u128(key), says: Says::Applied }
}

impl Case {
    /// Makes a case in which everything was done.
    fn done() -> Case {
        let ship = Ship { carrier: "Mule".to_owned(), to: "Here".to_owned() };
        let mail = Mail { contact: "Ada".to_owned(), text: "Thanks".to_owned() };
        let mut case = Case {
            stock: Ledger::new("S"),
            payment: Ledger::new("P"),
            shipping: Ledger::new("T"),
            run: RunStory {
                order: "A-1".to_owned(),
                bill: Bill {
                    goods: BTreeMap::from([("TEA".to_owned(), 2)]),
                    total: "9.50".parse().unwrap(),
                },
                succeeded: true,
                claims: vec![
                    claim("stock/0", Kind::Stock, RESERVE),
                    claim("payment", Kind::Payment, CHARGE),
                    claim("shipment", Kind::Shipping, SHIP),
                    claim("mail", Kind::Shipping, MAIL),
                ],
            },
        };
        case.stock.record(1, "A-1", Uuid::from_u128(RESERVE), reserve());
        case.payment.record(2, "A-1", Uuid::from_u128(CHARGE), charge("9.50"));
        case.shipping.record(3, "A-1", Uuid::from_u128(SHIP), Effect::Ship(ship));
        case.shipping.record(4, "A-1", Uuid::from_u128(MAIL), Effect::Mail(mail));
        case
    }

    /// Makes a case in which the carrier refused, and all was undone.
    fn undone() -> Case {
        let mut case = Case::done();
        case.shipping = Ledger::new("T");
        case.stock.undo(7, "A-1", Uuid::from_u128(RESERVE), Uuid::from_u128(11));
        case.payment.undo(6, "A-1", Uuid::from_u128(CHARGE), Uuid::from_u128(12));
        case.run.succeeded = false;
        case.say(0, Says::Reverted);
        case.say(1, Says::Reverted);
        case.say(2, Says::NotApplied);
        case.say(3, Says::NotApplied);
        case
    }

    fn say(&mut self, claim: usize, says: Says) {
        self.run.claims[claim].says = says;
    }

    fn audit(&self) -> Audit {
        let view = |service, ledger: &Ledger| LedgerView {
            service,
            repeats: 0,
            came_too_late: 0,
            entries: ledger.entries().to_vec(),
        };
        let ledgers = [
            view(Kind::Stock, &self.stock),
            view(Kind::Payment, &self.payment),
            view(Kind::Shipping, &self.shipping),
        ];
        audit(std::slice::from_ref(&self.run), &ledgers)
    }

    #[track_caller]
    fn differs(&self, by: &str) {
        let differences = self.audit().differences;
        assert!(differences.iter().any(|line| line.contains(by)), "{by:?} not in {differences:#?}");
    }
}

#[test]
fn what_was_done_and_what_was_undone_agree() {
    let done = Case::done().audit();
    assert_eq!(done.differences, Vec::<String>::new());
    assert_eq!(done.books.iter().map(|book| book.standing).collect::<Vec<_>>(), [1, 1, 2]);
    assert_eq!(done.books.iter().map(|book| book.measure).collect::<Vec<_>>(), [2, 950, 1]);

    let undone = Case::undone().audit();
    assert_eq!(undone.differences, Vec::<String>::new());
    assert_eq!(undone.books.iter().map(|book| book.standing).collect::<Vec<_>>(), [0, 0, 0]);
}

#[test]
fn a_tombstone_counts_as_undone() {
    let mut case = Case::undone();
    case.payment = Ledger::new("P");
    case.payment.undo(6, "A-1", Uuid::from_u128(CHARGE), Uuid::from_u128(12));
    assert!(case.audit().agrees());
}

#[test]
fn a_lost_effect_is_found() {
    let mut case = Case::done();
    case.payment = Ledger::new("P");
    case.differs("A-1 payment: the run says done, the ledger does not");
    case.differs("the bill is 9.50");
}

#[test]
fn a_second_effect_under_another_key_is_found() {
    let mut case = Case::done();
    case.payment.record(9, "A-1", Uuid::from_u128(99), charge("9.50"));
    case.differs("belongs to no run");
    case.differs(r#"charged ["9.50", "9.50"]"#);
}

#[test]
fn a_wrong_amount_and_a_wrong_quantity_are_found() {
    let mut case = Case::done();
    case.payment = Ledger::new("P");
    case.payment.record(2, "A-1", Uuid::from_u128(CHARGE), charge("95.00"));
    case.run.bill.goods.insert("TEA".to_owned(), 3);
    case.differs("reserved");
    case.run.bill.goods.insert("TEA".to_owned(), 2);
    case.differs("charged");
}

#[test]
fn an_undo_that_did_not_arrive_is_found() {
    let mut case = Case::undone();
    case.payment = Ledger::new("P");
    case.payment.record(2, "A-1", Uuid::from_u128(CHARGE), charge("9.50"));
    case.differs("the run says undone, the ledger says done");
    case.differs("it did not succeed, yet");
}

#[test]
fn an_undo_of_what_should_stand_is_found() {
    let mut case = Case::done();
    case.shipping.undo(9, "A-1", Uuid::from_u128(SHIP), Uuid::from_u128(13));
    case.differs("A-1 shipment: the run says done, the ledger does not");
    case.differs("0 parcels and 1 receipts");
}

#[test]
fn an_effect_that_the_run_denies_is_found() {
    let mut case = Case::done();
    case.say(3, Says::NotApplied);
    case.differs("never done, but the ledger knows it");
}

#[test]
fn undoing_in_the_wrong_order_is_found() {
    let mut case = Case::undone();
    case.payment = Ledger::new("P");
    case.payment.record(2, "A-1", Uuid::from_u128(CHARGE), charge("9.50"));
    case.payment.undo(4, "A-1", Uuid::from_u128(CHARGE), Uuid::from_u128(12));
    assert!(case.audit().agrees(), "the money first, then the goods");
    case.stock = Ledger::new("S");
    case.stock.record(1, "A-1", Uuid::from_u128(RESERVE), reserve());
    case.stock.undo(3, "A-1", Uuid::from_u128(RESERVE), Uuid::from_u128(11));
    case.differs("A-1: stock was undone before payment");
}

#[test]
fn doubt_is_a_difference() {
    let mut case = Case::undone();
    case.say(1, Says::Unknown);
    case.differs("does not know whether it happened");
}

#[test]
fn a_ledger_that_contradicts_itself_is_found() {
    let case = Case::done();
    let mut entries = case.stock.entries().to_vec();
    entries.push(Entry { seq: 2, ..entries[0].clone() });
    let view = LedgerView { service: Kind::Stock, repeats: 0, came_too_late: 0, entries };
    let audit = audit(std::slice::from_ref(&case.run), &[view]);
    assert!(audit.differences.iter().any(|line| line.contains("entry 2")));
    assert!(!audit.books[0].agrees);
}

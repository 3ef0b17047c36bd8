//! Lays what the runs say beside what the ledgers say, and names every difference. Pure.
//!
//! The ledgers are kept by the services, which know nothing of Backstitch; so this is a check from outside: what a
//! run calls done stands in exactly one ledger exactly once, what it calls undone does not stand and was undone in
//! reverse order, and nothing stands in a ledger that no run accounts for.

mod told;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use backstitch_workflows::Money;
use uuid::Uuid;

use crate::desk::LedgerView;
use crate::effect::{Effect, Kind};
use crate::ledger::{Entry, Fact, Ledger, Standing};

pub use told::{FAN_OUT, service_of};

/// The required effects of an order: those of its run when it has succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bill {
    /// Pieces by goods.
    pub goods: BTreeMap<String, u64>,
    /// The amount that the customer pays.
    pub total: Money,
}

/// The effects of a run, as the run has them.
#[derive(Clone, Debug)]
pub struct RunStory {
    /// The order it is about.
    pub order: String,
    /// The order's bill.
    pub bill: Bill,
    /// `true` if everything was done; `false` if nothing remains but what its claims name.
    pub succeeded: bool,
    /// Each effect it had, or might have had.
    pub claims: Vec<Claim>,
}

/// One effect, as a run has it.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The step or item, for people.
    pub step: String,
    /// In whose ledger the effect belongs.
    pub service: Kind,
    /// The key of the effect.
    pub key: Uuid,
    /// State of the effect.
    pub says: Says,
}

/// State of an effect, as a run has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// It stands.
    Applied,
    /// It was undone, or made sure never to come.
    Reverted,
    /// It never happened.
    NotApplied,
    /// It may or may not stand.
    Unknown,
}

/// Result of the comparison.
#[derive(Clone, Debug)]
pub struct Audit {
    /// Each ledger's sums.
    pub books: Vec<Book>,
    /// Every difference, a line each.
    pub differences: Vec<String>,
    standing: HashMap<String, Net>,
}

/// The sums of one ledger, beside what the runs say of them.
#[derive(Clone, Debug)]
pub struct Book {
    /// The service.
    pub service: Kind,
    /// Effects that happened.
    pub done: u64,
    /// Effects that were undone.
    pub undone: u64,
    /// Effects that were revoked before they arrived.
    pub revoked: u64,
    /// Effects that stand.
    pub standing: u64,
    /// Effects that the runs say stand.
    pub runs_say: u64,
    /// Requests answered from the ledger, without a second effect.
    pub repeats: u64,
    /// Requests refused because their undo had come before them.
    pub came_too_late: u64,
    /// Remaining effects, in the service's own measure: pieces, cents, parcels.
    pub measure: u64,
    /// `true` if there is no difference.
    pub agrees: bool,
}

impl Audit {
    /// Returns whether runs and ledgers agree.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.differences.is_empty()
    }

    /// Describes the entries of the ledgers for an order.
    #[must_use]
    pub fn holds(&self, order: &str) -> String {
        self.standing.get(order).map_or_else(|| "nothing".to_owned(), ToString::to_string)
    }
}

/// Compares runs and ledgers.
#[must_use]
pub fn audit(runs: &[RunStory], ledgers: &[LedgerView]) -> Audit {
    let mut books = Vec::new();
    let mut differences = Vec::new();
    let mut net: HashMap<String, Net> = HashMap::new();
    for view in ledgers {
        let before = differences.len();
        let ledger = replay(view, &mut differences);
        let runs_say = compare(view.service, runs, &ledger, &mut differences);
        let mut book = Book {
            service: view.service,
            done: count(&view.entries, |fact| matches!(fact, Fact::Done { .. })),
            undone: count(&view.entries, |fact| matches!(fact, Fact::Undone { .. })),
            revoked: count(&view.entries, |fact| matches!(fact, Fact::Revoked { .. })),
            standing: 0,
            runs_say,
            repeats: view.repeats,
            came_too_late: view.came_too_late,
            measure: 0,
            agrees: true,
        };
        for (order, effect) in standing(&ledger) {
            book.standing += 1;
            book.measure += measure(effect);
            net.entry(order.to_owned()).or_default().add(effect);
        }
        if book.standing != book.runs_say {
            differences.push(format!(
                "{}: {} effects stand, the runs say {}",
                view.service.as_str(),
                book.standing,
                book.runs_say
            ));
        }
        book.agrees = differences.len() == before;
        books.push(book);
    }
    differences.extend(undone_out_of_order(ledgers));
    for run in runs {
        let nothing = Net::default();
        if let Some(difference) = net.get(&run.order).unwrap_or(&nothing).differs_from(run) {
            differences.push(format!("{}: {difference}", run.order));
        }
    }
    Audit { books, differences, standing: net }
}

/// Reads a ledger again from its entries, as its service would, so that one that contradicts itself is found.
fn replay(view: &LedgerView, differences: &mut Vec<String>) -> Ledger {
    let mut ledger = Ledger::new("");
    for entry in &view.entries {
        if let Err(problem) = ledger.restore(entry.clone()) {
            differences.push(format!("{}: {problem}", view.service.as_str()));
            break;
        }
    }
    ledger
}

/// Compares each claim with its ledger, and each entry with the claims. Returns how many effects the runs say stand.
fn compare(
    service: Kind,
    runs: &[RunStory],
    ledger: &Ledger,
    differences: &mut Vec<String>,
) -> u64 {
    let mut runs_say = 0;
    let mut claimed = BTreeSet::new();
    for run in runs {
        for claim in run.claims.iter().filter(|claim| claim.service == service) {
            runs_say += u64::from(claim.says == Says::Applied);
            claimed.insert(claim.key);
            if let Some(difference) = contradiction(claim.says, &ledger.standing(claim.key)) {
                differences.push(format!("{} {}: {difference}", run.order, claim.step));
            }
        }
    }
    for entry in ledger.entries().iter().filter(|entry| !claimed.contains(&entry.key)) {
        differences.push(format!(
            "{}: entry {} for {} belongs to no run",
            service.as_str(),
            entry.seq,
            entry.order
        ));
    }
    runs_say
}

fn contradiction(says: Says, standing: &Standing<'_>) -> Option<&'static str> {
    match (says, standing) {
        (Says::Applied, Standing::Done { .. })
        | (Says::Reverted, Standing::Undone { .. } | Standing::Revoked)
        | (Says::NotApplied, Standing::New) => None,
        (Says::Applied, _) => Some("the run says done, the ledger does not"),
        (Says::Reverted, Standing::Done { .. }) => {
            Some("the run says undone, the ledger says done")
        }
        (Says::Reverted, Standing::New) => {
            Some("the run says undone, the ledger never heard of it")
        }
        (Says::NotApplied, _) => Some("the run says never done, but the ledger knows it"),
        (Says::Unknown, _) => Some("the run does not know whether it happened"),
    }
}

/// Lists what was undone out of order: an order meets the services in the order of [`Kind::ALL`], each when the
/// one before is done, and is undone the other way round.
fn undone_out_of_order(ledgers: &[LedgerView]) -> Vec<String> {
    let mut undone: BTreeMap<&str, BTreeMap<Kind, (u64, u64)>> = BTreeMap::new();
    for view in ledgers {
        for entry in view.entries.iter().filter(|entry| !matches!(entry.fact, Fact::Done { .. })) {
            let services = undone.entry(&entry.order).or_default();
            let (first, last) = services.entry(view.service).or_insert((entry.at, entry.at));
            (*first, *last) = ((*first).min(entry.at), (*last).max(entry.at));
        }
    }
    let mut differences = Vec::new();
    for (order, services) in &undone {
        let spans: Vec<_> = services.iter().collect();
        for pair in spans.windows(2) {
            if let [(earlier, (first, _)), (later, (_, last))] = pair
                && first < last
            {
                differences.push(format!(
                    "{order}: {} was undone before {}, which came after it",
                    earlier.as_str(),
                    later.as_str()
                ));
            }
        }
    }
    differences
}

fn count(entries: &[Entry], wanted: fn(&Fact) -> bool) -> u64 {
    entries.iter().filter(|entry| wanted(&entry.fact)).count() as u64
}

/// Returns the effects that stand, with their orders.
fn standing(ledger: &Ledger) -> impl Iterator<Item = (&str, &Effect)> {
    ledger.entries().iter().filter_map(|entry| match &entry.fact {
        Fact::Done { effect, .. }
            if matches!(ledger.standing(entry.key), Standing::Done { .. }) =>
        {
            Some((entry.order.as_str(), effect))
        }
        _ => None,
    })
}

/// Returns the number of pieces, cents or parcels.
fn measure(effect: &Effect) -> u64 {
    match effect {
        Effect::Reserve(reserve) => u64::from(reserve.quantity),
        Effect::Charge(charge) => cents(&charge.amount),
        Effect::Ship(_) => 1,
        Effect::Mail(_) => 0,
    }
}

fn cents(amount: &str) -> u64 {
    amount.parse().map_or(0, |amount: Money| u64::try_from(amount.in_hundredths()).unwrap_or(0))
}

/// Remaining effects of one order, over all ledgers.
#[derive(Clone, Debug, Default)]
struct Net {
    goods: BTreeMap<String, u64>,
    charges: Vec<String>,
    shipments: u64,
    receipts: u64,
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = |count: u64, what: &str| match count {
            0 => None,
            1 => Some(format!("1 {what}")),
            _ => Some(format!("{count} {what}s")),
        };
        let mut parts = Vec::new();
        parts.extend(counted(self.goods.values().sum(), "piece"));
        parts.extend(self.charges.iter().map(|amount| format!("{amount} charged")));
        parts.extend(counted(self.shipments, "parcel"));
        parts.extend(counted(self.receipts, "receipt"));
        f.write_str(&parts.join(", "))
    }
}

impl Net {
    fn add(&mut self, effect: &Effect) {
        match effect {
            Effect::Reserve(reserve) => {
                *self.goods.entry(reserve.sku.clone()).or_default() += u64::from(reserve.quantity);
            }
            Effect::Charge(charge) => self.charges.push(charge.amount.clone()),
            Effect::Ship(_) => self.shipments += 1,
            Effect::Mail(_) => self.receipts += 1,
        }
    }

    /// Says how the ledgers differ from a run. A receipt that was mailed stays mailed, so it is
    /// compared by the claims alone.
    fn differs_from(&self, run: &RunStory) -> Option<String> {
        if run.succeeded {
            let total = run.bill.total.to_string();
            if self.goods != run.bill.goods {
                return Some(format!("reserved {:?}, ordered {:?}", self.goods, run.bill.goods));
            }
            if self.charges != [total.as_str()] {
                return Some(format!("charged {:?}, the bill is {total}", self.charges));
            }
            if (self.shipments, self.receipts) != (1, 1) {
                return Some(format!(
                    "{} parcels and {} receipts went out, one of each was due",
                    self.shipments, self.receipts
                ));
            }
            return None;
        }
        let nothing = self.goods.is_empty() && self.charges.is_empty() && self.shipments == 0;
        (!nothing).then(|| {
            format!(
                "it did not succeed, yet goods {:?}, charges {:?} and {} parcels stand",
                self.goods, self.charges, self.shipments
            )
        })
    }
}

#[cfg(test)]
mod tests;

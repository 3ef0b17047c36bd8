//! Responses of a service: its ledger, its stock and its faults combined. Pure: HTTP stands in `http`.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::effect::{Effect, Kind, Op};
use crate::faults::{Fault, Switchboard};
use crate::ledger::{Entry, Fact, Ledger, Standing};

/// Stock of some goods: a line of `--stock FILE`, an element of `PUT /shelves`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shelf {
    /// Stock number of the goods.
    pub sku: String,
    /// Number of pieces before the first reservation.
    pub in_stock: u32,
}

/// Something asked of a service.
#[derive(Clone, Debug)]
pub enum Request {
    /// Have this effect.
    Do {
        /// Its key.
        key: Uuid,
        /// For which order.
        order: String,
        /// The effect.
        effect: Effect,
    },
    /// Undo an effect, or see to it that it never happens.
    Undo {
        /// The operation.
        op: Op,
        /// The key of the effect.
        key: Uuid,
        /// The key of this undo.
        undo_key: Uuid,
        /// For which order.
        order: String,
        /// About which goods, if it is about goods.
        sku: Option<String>,
    },
    /// Open the account of this customer, or find it.
    Open {
        /// Whose.
        customer: String,
    },
    /// Did this effect happen?
    Find {
        /// Its key.
        key: Uuid,
        /// For which order.
        order: String,
    },
}

/// Response of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The effect stands.
    Done {
        /// The service's number of the effect.
        receipt: String,
        /// `true` if it existed before this request.
        replayed: bool,
    },
    /// The effect does not stand, and will not.
    Undone {
        /// `true` if it ever existed.
        was_done: bool,
    },
    /// There is no such effect.
    NotFound,
    /// No, and nothing happened.
    Refused {
        /// The HTTP status.
        status: u16,
        /// Stable code.
        code: &'static str,
        /// For people.
        message: String,
        /// Ask again after so many seconds.
        retry_after: Option<u64>,
    },
}

/// A response, and its delay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The delay.
    pub delay: Duration,
    /// The answer; without one the caller waits in vain.
    pub answer: Option<Answer>,
}

/// One of the three services.
#[derive(Debug)]
pub struct Service {
    kind: Kind,
    ledger: Ledger,
    faults: Switchboard,
    /// Pieces left by goods; goods that are not listed never run out.
    shelves: HashMap<String, i64>,
    repeats: u64,
    came_too_late: u64,
}

impl Service {
    /// Returns a service with an empty ledger and endless stock.
    #[must_use]
    pub fn new(kind: Kind) -> Service {
        let receipt_prefix = match kind {
            Kind::Stock => "RES",
            Kind::Payment => "PAY",
            Kind::Shipping => "TRK",
        };
        Service {
            kind,
            ledger: Ledger::new(receipt_prefix),
            faults: Switchboard::default(),
            shelves: HashMap::new(),
            repeats: 0,
            came_too_late: 0,
        }
    }

    /// Returns the kind of the service.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns its entries, in order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        self.ledger.entries()
    }

    /// Returns the number of requests that were answered from the ledger without a second effect.
    #[must_use]
    pub fn repeats(&self) -> u64 {
        self.repeats
    }

    /// Returns the number of requests that were refused because they had been revoked before they
    /// arrived.
    #[must_use]
    pub fn came_too_late(&self) -> u64 {
        self.came_too_late
    }

    /// Returns the switchboard.
    pub fn faults(&mut self) -> &mut Switchboard {
        &mut self.faults
    }

    /// Says how many pieces there were of some goods before the first reservation. What is reserved stays reserved.
    pub fn fill(&mut self, shelf: &Shelf) {
        let reserved: i64 = self
            .ledger
            .entries()
            .iter()
            .filter(|entry| matches!(self.ledger.standing(entry.key), Standing::Done { .. }))
            .filter_map(|entry| match &entry.fact {
                Fact::Done { effect: Effect::Reserve(r), .. } if r.sku == shelf.sku => {
                    Some(i64::from(r.quantity))
                }
                _ => None,
            })
            .sum();
        self.shelves.insert(shelf.sku.clone(), i64::from(shelf.in_stock) - reserved);
    }

    /// Takes up an entry that was written before. To be done before the shelves are filled.
    ///
    /// # Errors
    /// When it does not follow from those before it.
    pub fn restore(&mut self, entry: Entry) -> Result<(), String> {
        self.ledger.restore(entry)
    }

    /// Does what is asked, or what the switchboard makes of it.
    pub fn receive(&mut self, at: u64, request: Request) -> Response {
        let fault = self.faults.strike(request.op(), request.order(), request.sku());
        let mut delay = Duration::ZERO;
        let answer = match fault {
            Some(Fault::Fail) => Some(unavailable()),
            Some(Fault::RateLimit(secs)) => Some(rate_limited(secs)),
            Some(Fault::TimeoutBeforeEffect) => None,
            Some(Fault::TimeoutAfterEffect) => {
                self.carry_out(at, request);
                None
            }
            Some(Fault::Refuse) => Some(match self.replay(&request) {
                Some(answer) => answer,
                None => refusal(request.op()),
            }),
            Some(Fault::Slow(ms)) => {
                delay = Duration::from_millis(ms);
                Some(self.carry_out(at, request))
            }
            None => Some(self.carry_out(at, request)),
        };
        Response { delay, answer }
    }

    fn carry_out(&mut self, at: u64, request: Request) -> Answer {
        if let Some(answer) = self.replay(&request) {
            return answer;
        }
        match request {
            Request::Do { key, order, effect } => {
                if let Err(refused) = self.take_from_shelf(&effect) {
                    return refused;
                }
                let receipt = self.ledger.record(at, &order, key, effect);
                Answer::Done { receipt, replayed: false }
            }
            Request::Undo { key, undo_key, order, .. } => {
                let undone = self.ledger.undo(at, &order, key, undo_key);
                if let Some(effect) = &undone {
                    self.put_back(effect);
                }
                Answer::Undone { was_done: undone.is_some() }
            }
            Request::Open { customer } => {
                Answer::Done { receipt: format!("ACC-{customer}"), replayed: false }
            }
            Request::Find { .. } => Answer::NotFound,
        }
    }

    /// Returns the answer that follows from what already happened, if any.
    fn replay(&mut self, request: &Request) -> Option<Answer> {
        let key = request.key()?;
        match (request, self.ledger.standing(key)) {
            (Request::Do { effect: asked, .. }, Standing::Done { effect, .. })
                if asked != effect =>
            {
                Some(refused(422, "key_reused", "this key stands for another effect"))
            }
            (Request::Do { .. } | Request::Find { .. }, Standing::Done { receipt, .. }) => {
                let receipt = receipt.to_owned();
                self.repeats += u64::from(matches!(request, Request::Do { .. }));
                Some(Answer::Done { receipt, replayed: true })
            }
            (Request::Do { .. }, Standing::Undone { .. } | Standing::Revoked) => {
                self.came_too_late += 1;
                let message = "this effect was undone; it will not happen any more";
                Some(refused(409, "revoked", message))
            }
            (Request::Undo { .. }, Standing::Undone { .. }) => {
                self.repeats += 1;
                Some(Answer::Undone { was_done: true })
            }
            (Request::Undo { .. }, Standing::Revoked) => {
                self.repeats += 1;
                Some(Answer::Undone { was_done: false })
            }
            (Request::Undo { .. }, Standing::Done { .. })
            | (Request::Do { .. } | Request::Undo { .. }, Standing::New)
            | (Request::Find { .. } | Request::Open { .. }, _) => None,
        }
    }

    fn take_from_shelf(&mut self, effect: &Effect) -> Result<(), Answer> {
        let Effect::Reserve(reserve) = effect else { return Ok(()) };
        let Some(left) = self.shelves.get_mut(&reserve.sku) else { return Ok(()) };
        if *left < i64::from(reserve.quantity) {
            let message =
                format!("{} of {} wanted, {} left", reserve.quantity, reserve.sku, (*left).max(0));
            return Err(refused(409, "out_of_stock", &message));
        }
        *left -= i64::from(reserve.quantity);
        Ok(())
    }

    fn put_back(&mut self, effect: &Effect) {
        if let Effect::Reserve(reserve) = effect
            && let Some(left) = self.shelves.get_mut(&reserve.sku)
        {
            *left += i64::from(reserve.quantity);
        }
    }
}

impl Request {
    fn op(&self) -> Op {
        match self {
            Request::Do { effect, .. } => effect.op(),
            Request::Undo { op, .. } => *op,
            Request::Open { .. } => Op::Open,
            Request::Find { .. } => Op::Find,
        }
    }

    fn key(&self) -> Option<Uuid> {
        match self {
            Request::Do { key, .. } | Request::Undo { key, .. } | Request::Find { key, .. } => {
                Some(*key)
            }
            Request::Open { .. } => None,
        }
    }

    fn order(&self) -> &str {
        match self {
            Request::Do { order, .. }
            | Request::Undo { order, .. }
            | Request::Find { order, .. } => order,
            Request::Open { .. } => "",
        }
    }

    fn sku(&self) -> Option<&str> {
        match self {
            Request::Do { effect, .. } => effect.sku(),
            Request::Undo { sku, .. } => sku.as_deref(),
            Request::Open { .. } | Request::Find { .. } => None,
        }
    }
}

fn refused(status: u16, code: &'static str, message: &str) -> Answer {
    Answer::Refused { status, code, message: message.to_owned(), retry_after: None }
}

/// Returns the permanent refusal of each operation.
fn refusal(op: Op) -> Answer {
    match op {
        Op::Reserve => refused(409, "out_of_stock", "the shelf is empty"),
        Op::Open => refused(403, "account_closed", "the customer is not served any more"),
        Op::Charge => refused(402, "card_declined", "the bank declines the card"),
        Op::Ship => refused(422, "carrier_refused", "the carrier does not serve this address"),
        Op::Mail => refused(422, "mail_refused", "the mailbox does not exist"),
        Op::Release | Op::Refund | Op::Recall => {
            refused(422, "undo_refused", "this cannot be undone by machine")
        }
        Op::Find => refused(403, "find_refused", "this is not to be known"),
    }
}

fn unavailable() -> Answer {
    refused(503, "unavailable", "not now; nothing happened")
}

fn rate_limited(secs: u64) -> Answer {
    Answer::Refused {
        status: 429,
        code: "rate_limited",
        message: format!("too many requests; ask again in {secs} s"),
        retry_after: Some(secs),
    }
}

#[cfg(test)]
mod tests;

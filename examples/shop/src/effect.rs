//! Effects of the three services, and the documents that they exchange. No behaviour beyond names.

use serde::{Deserialize, Serialize};

/// The three services of the shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Reserves goods on shelves and releases them.
    Stock,
    /// Keeps accounts, charges cards, refunds them, and finds charges by their key.
    Payment,
    /// Ships parcels, recalls them, finds shipments by their key, and mails receipts.
    Shipping,
}

impl Kind {
    /// All of them, in the order in which an order meets them.
    pub const ALL: [Kind; 3] = [Kind::Stock, Kind::Payment, Kind::Shipping];

    /// Returns the word used on the command line and in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Stock => "stock",
            Kind::Payment => "payment",
            Kind::Shipping => "shipping",
        }
    }
}

/// An effect: what a service did, or is asked to do, for an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Effect {
    /// Goods are set aside.
    Reserve(Reserve),
    /// A card is charged.
    Charge(Charge),
    /// A parcel goes out.
    Ship(Ship),
    /// A receipt is mailed. Nothing undoes it.
    Mail(Mail),
}

/// Set goods aside: `POST /reservations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserve {
    /// Stock number of the goods.
    pub sku: String,
    /// Number of pieces.
    pub quantity: u32,
}

/// Charge a card: `POST /charges`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// The account.
    pub account: String,
    /// The amount, as a decimal string with two places.
    pub amount: String,
}

/// Send a parcel: `POST /shipments`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ship {
    /// The carrier.
    pub carrier: String,
    /// The destination, in one line.
    pub to: String,
}

/// Mail a receipt: `POST /receipts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mail {
    /// To whom.
    pub contact: String,
    /// Text of the message.
    pub text: String,
}

impl Effect {
    /// Returns the operation that has this effect.
    #[must_use]
    pub fn op(&self) -> Op {
        match self {
            Effect::Reserve(_) => Op::Reserve,
            Effect::Charge(_) => Op::Charge,
            Effect::Ship(_) => Op::Ship,
            Effect::Mail(_) => Op::Mail,
        }
    }

    /// Returns the goods it is about, if it is about goods.
    #[must_use]
    pub fn sku(&self) -> Option<&str> {
        match self {
            Effect::Reserve(reserve) => Some(&reserve.sku),
            Effect::Charge(_) | Effect::Ship(_) | Effect::Mail(_) => None,
        }
    }
}

/// An operation of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Set goods aside.
    Reserve,
    /// Put them back.
    Release,
    /// Open a customer's account, or find it. No effect to speak of: it is in no ledger.
    Open,
    /// Charge a card.
    Charge,
    /// Give the money back.
    Refund,
    /// Ask whether an effect happened.
    Find,
    /// Send a parcel.
    Ship,
    /// Call it back.
    Recall,
    /// Mail a receipt.
    Mail,
}

impl Op {
    /// Returns the word used in JSON and in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Op::Reserve => "reserve",
            Op::Release => "release",
            Op::Open => "open",
            Op::Charge => "charge",
            Op::Refund => "refund",
            Op::Find => "find",
            Op::Ship => "ship",
            Op::Recall => "recall",
            Op::Mail => "mail",
        }
    }
}

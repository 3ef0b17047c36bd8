//! The rules of documents and events: what a document may be, and what becomes an event. Pure: no I/O, no clock, no
//! randomness, no async.
//!
//! - [`document`] reads documents from outside safely, and holds them with their numbers as they were written.
//! - [`canonical`] has the scalars that have one spelling: instants, dates, money, quantities, countries, phone numbers,
//!   e-mail addresses.
//! - [`contracts`] has the checkable subset of JSON Schema, its validation, and the compatibility of two versions.
//! - [`transforms`] maps a document of one contract to another: twelve operations as data.
//! - [`events`] has the envelope, operations and changes, the order of sources, causality, and filters with their index.
//! - [`ingress`] verifies requests of sources, holds them to their contracts, and captures identity hints.
//!
//! Time comes in as an argument. Everything from outside is bounded: by size, by depth, by the number of steps.
//!
//! This crate stores nothing, sends nothing, waits for nothing, and knows nothing of HTTP or SQL.

pub mod bounds;
pub mod canonical;
pub mod contracts;
pub mod document;
pub mod events;
pub mod ingress;
pub mod transforms;

pub use backstitch_saga::{Payload, Violation};

//! The orders of the demo that meet trouble: what goes wrong for each, and how it must end. Data only.

use backstitch_saga::protocol::Outcome;
use backstitch_shop::effect::{Kind, Op};
use backstitch_shop::faults::{Fault, Match, Rule};

/// An order with a story.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// The demo's own order.
    pub(crate) order: &'static str,
    /// Title of the scenario.
    pub(crate) title: &'static str,
    /// The faults to set, by service.
    pub(crate) faults: Vec<(Kind, Rule)>,
    /// The expected outcome of the run.
    pub(crate) ends: Outcome,
    /// Events that its history must have, or the scenario did not show what it says.
    pub(crate) shows: &'static [&'static str],
    /// The reason for which a person undoes it after it has succeeded.
    pub(crate) undone_by_hand: Option<&'static str>,
}

/// Returns all of them, in the order in which they are told.
pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario {
            title: "the carrier refuses the parcel: everything is undone, last things first",
            faults: vec![(Kind::Shipping, rule("BS-1007", Op::Ship, Fault::Refuse, None))],
            ends: Outcome::Compensated,
            shows: &["compensation_started", "undone"],
            ..ordinary("BS-1007")
        },
        Scenario {
            // Its second line asks for five gilded thimbles; there are two on the shelf.
            title: "one line of a fan-out is out of stock: the lines that were reserved are released",
            ends: Outcome::Compensated,
            shows: &["compensation_started", "undone"],
            ..ordinary("BS-1013")
        },
        Scenario {
            title: "the charge times out, so it may have happened: the bank is asked, it had",
            faults: vec![(
                Kind::Payment,
                rule("BS-1019", Op::Charge, Fault::TimeoutAfterEffect, Some(1)),
            )],
            shows: &["happened"],
            ..ordinary("BS-1019")
        },
        Scenario {
            title: "the charge times out, so it may have happened: the bank is asked, it had not",
            faults: vec![(
                Kind::Payment,
                rule("BS-1024", Op::Charge, Fault::TimeoutBeforeEffect, Some(1)),
            )],
            shows: &["not_happened", "retry_scheduled"],
            ..ordinary("BS-1024")
        },
        Scenario {
            title: "the bank is down for a while: the charge is tried again, later and later",
            faults: vec![(Kind::Payment, rule("BS-1030", Op::Charge, Fault::Fail, Some(4)))],
            shows: &["retry_scheduled"],
            ..ordinary("BS-1030")
        },
        Scenario {
            title: "it succeeds, and then a person undoes it by hand, past the point of no return",
            // The receipt was mailed, and nothing undoes a letter: the run says so.
            ends: Outcome::PartiallyCompleted,
            shows: &["compensation_started", "undone"],
            undone_by_hand: Some("the customer changed their mind"),
            ..ordinary("BS-1036")
        },
    ]
}

fn ordinary(order: &'static str) -> Scenario {
    Scenario {
        order,
        title: "",
        faults: Vec::new(),
        ends: Outcome::Succeeded,
        shows: &[],
        undone_by_hand: None,
    }
}

fn rule(order: &str, op: Op, fault: Fault, times: Option<u32>) -> Rule {
    Rule { matches: Match { order: Some(order.to_owned()), sku: None, op: Some(op) }, fault, times }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_is_about_an_order_that_there_is() {
        let orders = backstitch_shop::orders::own().unwrap();
        for scenario in scenarios() {
            let order = orders.iter().find(|order| order.order_id == scenario.order);
            assert!(order.is_some(), "{}", scenario.order);
            assert!(!scenario.title.is_empty(), "{}", scenario.order);
        }
    }
}

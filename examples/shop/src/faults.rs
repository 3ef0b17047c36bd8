//! The switchboard of faults: which requests go wrong, and how. Pure: a seeded storm draws by a hash of what is
//! asked and how often it was asked, so that the same orders meet the same weather whatever their timing.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::effect::Op;

/// Configuration of faults: `PUT /faults`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Faults {
    /// The first rule that matches a request and is not used up strikes.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Bad weather for everything that no rule strikes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storm: Option<Storm>,
}

/// One fault for one kind of request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The affected requests; all without it.
    #[serde(rename = "match", default)]
    pub matches: Match,
    /// The fault.
    pub fault: Fault,
    /// Number of times that it strikes; for ever without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
}

/// The requests that a rule applies to. What is left out matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// Those for this order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// Those about these goods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sku: Option<String>,
    /// Those that ask this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<Op>,
}

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The service says no, for good, in its own words. What already happened is still answered.
    Refuse,
    /// 503: nothing happened, trying again helps.
    Fail,
    /// No answer ever comes, and nothing happened.
    TimeoutBeforeEffect,
    /// It happened, but no answer ever comes.
    TimeoutAfterEffect,
    /// The answer comes after so many milliseconds.
    Slow(u64),
    /// 429 with `Retry-After` of so many seconds.
    RateLimit(u64),
}

/// Seeded bad weather. Temporary trouble strikes the same request at most three times; a refusal is for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storm {
    /// The same seed makes the same weather.
    pub seed: u64,
    /// Of a hundred requests, how many meet temporary trouble.
    pub trouble_percent: u32,
    /// Of a hundred effects that can be refused, how many are refused for good.
    #[serde(default)]
    pub refuse_percent: u32,
}

/// Largest number of times that a storm strikes the same request.
const STORM_STRIKES: u32 = 3;

/// The faults that are set, and how often each has struck.
#[derive(Debug, Default)]
pub struct Switchboard {
    faults: Faults,
    used: Vec<u32>,
    deliveries: HashMap<String, u32>,
}

impl Switchboard {
    /// Sets new faults and forgets what the old ones did.
    pub fn set(&mut self, faults: Faults) {
        self.used = vec![0; faults.rules.len()];
        self.deliveries.clear();
        self.faults = faults;
    }

    /// Returns the present configuration.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Returns the fault that strikes this request, and counts it.
    pub fn strike(&mut self, op: Op, order: &str, sku: Option<&str>) -> Option<Fault> {
        for (rule, used) in self.faults.rules.iter().zip(&mut self.used) {
            let spent = rule.times.is_some_and(|times| *used >= times);
            if !spent && rule.matches.fits(op, order, sku) {
                *used += 1;
                return Some(rule.fault);
            }
        }
        let storm = self.faults.storm?;
        let request = format!("{} {order} {}", op.as_str(), sku.unwrap_or_default());
        let delivery = self.deliveries.entry(request.clone()).or_default();
        *delivery += 1;
        storm.strike(op, &request, *delivery)
    }
}

impl Match {
    fn fits(&self, op: Op, order: &str, sku: Option<&str>) -> bool {
        self.op.is_none_or(|wanted| wanted == op)
            && self.order.as_deref().is_none_or(|wanted| wanted == order)
            && self.sku.as_deref().is_none_or(|wanted| Some(wanted) == sku)
    }
}

impl Storm {
    fn strike(&self, op: Op, request: &str, delivery: u32) -> Option<Fault> {
        let refusable = matches!(op, Op::Reserve | Op::Charge | Op::Ship);
        if refusable && self.draw("refuse", request, 0) % 100 < u64::from(self.refuse_percent) {
            return Some(Fault::Refuse);
        }
        let trouble = self.draw("trouble", request, delivery);
        if delivery > STORM_STRIKES || trouble % 100 >= u64::from(self.trouble_percent) {
            return None;
        }
        Some(match self.draw("which", request, delivery) % 8 {
            0..4 => Fault::Fail,
            4 => Fault::TimeoutBeforeEffect,
            5 => Fault::TimeoutAfterEffect,
            6 => Fault::Slow(50),
            _ => Fault::RateLimit(1),
        })
    }

    fn draw(&self, purpose: &str, request: &str, delivery: u32) -> u64 {
        let seed = Uuid::from_u128(u128::from(self.seed));
        let name = format!("{purpose} {request} {delivery}");
        Uuid::new_v5(&seed, name.as_bytes()).as_u64_pair().0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn switchboard(json: &str) -> Switchboard {
        let mut switchboard = Switchboard::default();
        switchboard.set(serde_json::from_str(json).unwrap());
        switchboard
    }

    #[test]
    fn nothing_goes_wrong_by_default() {
        assert_eq!(Switchboard::default().strike(Op::Ship, "A-1", None), None);
    }

    #[test]
    fn a_rule_strikes_what_it_matches_and_only_that() {
        let mut faults = switchboard(
            r#"{"rules": [{"match": {"order": "A-1", "sku": "TEA", "op": "reserve"}, "fault": "refuse"}]}"#,
        );
        assert_eq!(faults.strike(Op::Reserve, "A-1", Some("TEA")), Some(Fault::Refuse));
        assert_eq!(faults.strike(Op::Reserve, "A-2", Some("TEA")), None, "another order");
        assert_eq!(faults.strike(Op::Reserve, "A-1", Some("JAM")), None, "other goods");
        assert_eq!(faults.strike(Op::Release, "A-1", Some("TEA")), None, "another question");
    }

    #[test]
    fn a_rule_is_used_up_after_its_times_and_the_next_takes_over() {
        let mut faults = switchboard(
            r#"{"rules": [{"fault": "fail", "times": 2}, {"fault": {"slow": 5}, "times": 1}]}"#,
        );
        let struck: Vec<_> = (0..4).map(|_| faults.strike(Op::Charge, "A-1", None)).collect();
        assert_eq!(struck, [Some(Fault::Fail), Some(Fault::Fail), Some(Fault::Slow(5)), None]);
    }

    #[test]
    fn new_faults_start_unused() {
        let json = r#"{"rules": [{"fault": "fail", "times": 1}]}"#;
        let mut faults = switchboard(json);
        assert!(faults.strike(Op::Ship, "A-1", None).is_some());
        assert!(faults.strike(Op::Ship, "A-1", None).is_none());
        faults.set(serde_json::from_str(json).unwrap());
        assert!(faults.strike(Op::Ship, "A-1", None).is_some());
    }

    #[test]
    fn a_mistyped_rule_is_refused() {
        let mistyped = r#"{"rules": [{"match": {"oder": "A-1"}, "fault": "refuse"}]}"#;
        assert!(serde_json::from_str::<Faults>(mistyped).is_err());
    }

    /// Returns the faults of a storm on `count` orders, each requested to ship six times.
    fn weather(seed: u64, count: usize) -> Vec<Vec<Option<Fault>>> {
        let mut faults = Switchboard::default();
        let storm = Storm { seed, trouble_percent: 40, refuse_percent: 5 };
        faults.set(Faults { rules: Vec::new(), storm: Some(storm) });
        let mut ask = |order: usize| faults.strike(Op::Ship, &format!("A-{order}"), None);
        (0..count).map(|order| (0..6).map(|_| ask(order)).collect()).collect()
    }

    #[test]
    fn the_same_seed_makes_the_same_weather_and_another_does_not() {
        assert_eq!(weather(7, 50), weather(7, 50));
        assert_ne!(weather(7, 50), weather(8, 50));
    }

    #[test]
    fn a_storm_ends_for_every_request_unless_it_is_refused_for_good() {
        let (mut refused, mut troubled) = (0, 0);
        for strikes in weather(7, 400) {
            if strikes[0] == Some(Fault::Refuse) {
                refused += 1;
                assert!(strikes.iter().all(|strike| *strike == Some(Fault::Refuse)));
            } else {
                troubled += usize::from(strikes[0].is_some());
                assert!(strikes[3..].iter().all(Option::is_none), "it goes on: {strikes:?}");
            }
        }
        assert!((5..50).contains(&refused), "{refused} of 400 refused at 5 %");
        assert!((100..220).contains(&troubled), "{troubled} of 400 troubled at 40 %");
    }
}

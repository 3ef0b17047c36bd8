//! Checks of the numbers of a queue's policy.

use backstitch_saga::Span;
use backstitch_saga::protocol::{QueuePolicy, Rate};

use super::{Check, Findings, MAX_NAME};

/// Largest number of concurrent tasks that a queue may allow.
const MAX_CONCURRENCY: u32 = 100_000;
/// The most tasks that a rate may allow.
const MAX_RATE: u32 = 1_000_000;

/// Returns whether `name` can be the name of a queue.
pub(crate) fn is_queue(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && !name.chars().any(char::is_control)
}

impl Check for QueuePolicy {
    fn check(&self, findings: &mut Findings) {
        if *self == QueuePolicy::default() {
            let message = "A policy limits something; delete it to lift all limits";
            findings.add("", "empty", message);
        }
        for (pointer, limit) in
            [("/concurrency", self.concurrency), ("/concurrency_per_key", self.concurrency_per_key)]
        {
            within(findings, pointer, limit, 1, MAX_CONCURRENCY);
        }
        for (pointer, of) in [("/rate", &self.rate), ("/rate_per_key", &self.rate_per_key)] {
            if let Some(of) = of {
                rate(findings, pointer, of);
            }
        }
        for (pointer, label) in [("/fair_by", &self.fair_by), ("/priority_by", &self.priority_by)] {
            if let Some(label) = label {
                findings.line(pointer, label, 100);
            }
        }
        if self.fair_by.is_none() {
            for (pointer, given) in [
                ("/concurrency_per_key", self.concurrency_per_key.is_some()),
                ("/rate_per_key", self.rate_per_key.is_some()),
            ] {
                if given {
                    findings.add(
                        pointer,
                        "no_key",
                        "It needs `fair_by`, the label that is the key",
                    );
                }
            }
        }
        if let Some(breaker) = &self.breaker {
            if !(breaker.failure_ratio > 0.0 && breaker.failure_ratio <= 1.0) {
                let message = "It must be above 0 and at most 1";
                findings.add("/breaker/failure_ratio", "out_of_range", message);
            }
            within(findings, "/breaker/min_calls", Some(breaker.min_calls), 1, MAX_RATE);
            span(findings, "/breaker/window", breaker.window, 1_000, 3_600_000);
            span(findings, "/breaker/open_for", breaker.open_for, 100, 3_600_000);
        }
        if let Some(budget) = &self.retry_budget {
            for (pointer, value, most) in [
                ("/retry_budget/ratio", budget.ratio, 100.0),
                ("/retry_budget/min_per_s", budget.min_per_s, 100_000.0),
            ] {
                if !(0.0..=most).contains(&value) {
                    findings.add(pointer, "out_of_range", format!("It must be 0 to {most}"));
                }
            }
        }
    }
}

fn rate(findings: &mut Findings, pointer: &str, rate: &Rate) {
    within(findings, &format!("{pointer}/limit"), Some(rate.limit), 1, MAX_RATE);
    within(findings, &format!("{pointer}/burst"), rate.burst, 1, MAX_RATE);
    span(findings, &format!("{pointer}/per"), rate.per, 10, 86_400_000);
}

fn within(findings: &mut Findings, pointer: &str, value: Option<u32>, least: u32, most: u32) {
    if value.is_some_and(|value| !(least..=most).contains(&value)) {
        findings.add(pointer, "out_of_range", format!("It must be {least} to {most}"));
    }
}

fn span(findings: &mut Findings, pointer: &str, span: Span, least: u64, most: u64) {
    if !(least..=most).contains(&span.0) {
        let message = format!("It must be {} to {}", Span(least), Span(most));
        findings.add(pointer, "out_of_range", message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::parse;

    #[test]
    fn every_mistake_of_a_policy_is_told() {
        let policy = r#"{"concurrency": 0, "rate": {"limit": 0, "per": "1ms", "burst": 0}, "concurrency_per_key": 1,
            "breaker": {"failure_ratio": 1.5, "min_calls": 0, "window": "1ms", "open_for": "2h"},
            "retry_budget": {"ratio": -1, "min_per_s": 1e9}, "priority_by": ""}"#;
        let Err(rejection) = parse::<QueuePolicy>(policy.as_bytes()) else { panic!("accepted") };
        let (status, _, errors) = rejection.parts();
        let mut places: Vec<_> = errors.iter().map(|error| error.pointer.as_str()).collect();
        places.sort_unstable();
        assert_eq!(status, 422);
        assert_eq!(
            places,
            [
                "/breaker/failure_ratio",
                "/breaker/min_calls",
                "/breaker/open_for",
                "/breaker/window",
                "/concurrency",
                "/concurrency_per_key",
                "/priority_by",
                "/rate/burst",
                "/rate/limit",
                "/rate/per",
                "/retry_budget/min_per_s",
                "/retry_budget/ratio",
            ]
        );
    }

    #[test]
    fn a_policy_that_limits_nothing_is_none() {
        assert!(parse::<QueuePolicy>(b"{}").is_err());
        assert!(parse::<QueuePolicy>(br#"{"concurrency": 5}"#).is_ok());
    }
}

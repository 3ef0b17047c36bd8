//! Pace of a job: at most its rate in any second, spread evenly, over all nodes. Pure: the time is an argument, in
//! microseconds.

use backstitch_saga::Time;

/// Time that an act may be late and still count as made in time. It makes up for a sleep that took a little longer, and
/// is the most that ever comes in a clump.
const SLACK_US: i64 = 10_000;
/// Additional spacing of acts, in thousandths: with the slack there are still no more than the rate in any second.
const APART: f64 = 1_040.0;

/// The times at which a job may act.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Time between two acts.
    spacing: i64,
    /// Time of the next act.
    next: i64,
}

impl Pace {
    /// Returns the pace of a job with this rate a second, whose acts so far are paid for until `paid_until`.
    pub(super) fn new(rate: f64, paid_until: Time) -> Pace {
        #[expect(clippy::cast_possible_truncation, reason = "0.1 to 1,000 a second: 1 ms to 11 s")]
        let spacing = (APART * 1_000.0 / rate).ceil() as i64;
        Pace { spacing, next: paid_until.0.saturating_mul(1_000) }
    }

    /// Returns the time of the next act.
    pub(super) fn next(&self) -> i64 {
        self.next
    }

    /// Counts an act made at `now`, if one may be.
    pub(super) fn take(&mut self, now: i64) -> bool {
        if self.next > now {
            return false;
        }
        self.next = self.next.max(now - SLACK_US) + self.spacing;
        true
    }

    /// Returns the time until which the acts made are paid for; the next node continues from there.
    pub(super) fn paid_until(&self) -> Time {
        Time(self.next.div_euclid(1_000) + i64::from(self.next.rem_euclid(1_000) > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look like chance and are the same each time.
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, limit: u64) -> i64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            i64::try_from((self.0 >> 33) % limit).unwrap()
        }
    }

    /// Acts for a minute. Sometimes a node stalls, and sometimes another takes over with the values of the table.
    fn acts(rate: f64, seed: u64, stalls: u64) -> Vec<i64> {
        let mut chance = Chance(seed);
        let (mut pace, mut now) = (Pace::new(rate, Time(0)), 0);
        let mut acts = Vec::new();
        while now < 60_000_000 {
            if pace.take(now) {
                acts.push(now);
            } else {
                // A sleep ends a little late.
                now = pace.next() + chance.below(3_000);
            }
            if chance.below(500) == 0 {
                now += chance.below(stalls * 1_000 + 1);
            }
            if chance.below(100) == 0 {
                pace = Pace::new(rate, pace.paid_until());
            }
        }
        acts
    }

    #[test]
    fn no_second_holds_more_acts_than_the_rate_whatever_stalls_and_whoever_takes_over() {
        for rate in [1.0, 2.0, 5.0, 10.0, 50.0, 100.0, 333.0, 1_000.0] {
            for seed in 0..20 {
                for stalls in [0, 20, 900, 5_000] {
                    let acts = acts(rate, seed, stalls);
                    // The act after as many as the rate allows is a second later.
                    for (first, next) in acts.iter().zip(acts.iter().skip(rate as usize)) {
                        assert!(next - first >= 1_000_000, "{rate} from {first}, seed {seed}");
                    }
                }
            }
        }
    }

    #[test]
    fn acts_are_spread_evenly_and_nearly_as_many_as_the_rate_allows() {
        for rate in [0.5, 10.0, 50.0, 200.0] {
            let acts = acts(rate, 7, 0);
            let least = rate * 60.0 * 0.9;
            assert!(acts.len() as f64 >= least, "{} of {}", acts.len(), rate * 60.0);
            // In no twentieth part of its time does it do more than its share and one.
            let (part, share) = (3_000_000, rate * 3.0);
            for (place, first) in acts.iter().enumerate() {
                let count = acts[place..].iter().take_while(|at| **at < first + part).count();
                assert!(count as f64 <= share + 1.0, "{count} within {part} at {rate}");
            }
        }
    }

    #[test]
    fn a_rest_is_not_caught_up_on() {
        let mut pace = Pace::new(50.0, Time(0));
        let hour = 3_600_000_000;
        assert!(pace.take(hour));
        assert!(!pace.take(hour), "one at once, and no more");
        assert!(pace.take(hour + 20_800));
        assert_eq!(Pace::new(0.1, Time(5)).paid_until(), Time(5));
    }
}

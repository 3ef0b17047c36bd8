//! The breaker of a destination: closed, open, or letting one probe through. Pure: time is an argument.

use backstitch_saga::protocol::BreakerPolicy;
use backstitch_saga::ratio::reaches;
use backstitch_saga::{RunId, Span, TaskKey, Time};
use serde::{Deserialize, Serialize};

use super::window::Window;
use crate::clock::AHEAD;

/// An open time doubles with each failed probe, so many times at most.
const DOUBLINGS: u32 = 4;
/// Time for which the node that saw the end of a probe may still report it after the probe lost its permit.
const PROBE_GRACE: Span = Span::secs(2);

/// State of a breaker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Breaker {
    /// Tasks go out.
    #[default]
    Closed,
    /// None go out before `until`. `times` it opened since it was last closed.
    Open { since: Time, until: Time, times: u32 },
    /// One goes out at a time.
    HalfOpen { since: Time, times: u32, probe: Option<Probe> },
}

/// The task by which an open breaker finds out whether its destination answers again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Probe {
    pub(crate) run: RunId,
    pub(crate) task: TaskKey,
    /// The time since when it has no permit although its end was not reported.
    #[serde(default)]
    missing: Option<Time>,
}

/// The end of a task of the destination.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) run: RunId,
    pub(crate) task: TaskKey,
    pub(crate) answer: Answer,
}

/// Conclusion about the destination from the end of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It answered, if only with a refusal.
    Given,
    /// It did not, or said that it cannot.
    Missing,
    /// The worker was lost, which says nothing about the destination.
    Unknown,
}

/// Result of a breaker: tasks may go out or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    Open,
    /// One, as a probe.
    Probe,
    /// None before this.
    Shut(Time),
}

impl Breaker {
    /// Takes note of how a task ended.
    pub(crate) fn note(
        &mut self,
        calls: &mut Window,
        policy: &BreakerPolicy,
        now: Time,
        ending: &Ending,
    ) {
        match self {
            Breaker::Closed if ending.answer == Answer::Unknown => {}
            Breaker::Closed => {
                let failed = u32::from(ending.answer == Answer::Missing);
                calls.add(now, policy.window, 1, failed);
                let (all, failures) = calls.sums(now, policy.window);
                if failed > 0
                    && all >= policy.min_calls
                    && reaches(failures.into(), all.into(), policy.failure_ratio)
                {
                    *self =
                        Breaker::Open { since: now, until: now.after(policy.open_for), times: 1 };
                }
            }
            Breaker::HalfOpen { since, times, probe: Some(probe) }
                if probe.run == ending.run && probe.task == ending.task =>
            {
                if ending.answer == Answer::Given {
                    *self = Breaker::Closed;
                    *calls = Window::default();
                } else {
                    let span = policy.open_for.0.saturating_mul(1 << (*times).min(DOUBLINGS));
                    *self = Breaker::Open {
                        since: *since,
                        until: now.after(Span(span)),
                        times: times.saturating_add(1),
                    };
                }
            }
            Breaker::Open { .. } | Breaker::HalfOpen { .. } => {}
        }
    }

    /// Returns whether tasks may go out now. `held`: the probe still has its permit.
    pub(crate) fn gate(&mut self, now: Time, held: bool) -> Gate {
        match self {
            Breaker::Closed => Gate::Open,
            // One that opened in a future that a wrong clock showed is shut no longer.
            Breaker::Open { since, until, .. } if now < *until && *since <= now.after(AHEAD) => {
                Gate::Shut(*until)
            }
            Breaker::Open { since, times, .. } => {
                *self = Breaker::HalfOpen { since: *since, times: *times, probe: None };
                Gate::Probe
            }
            Breaker::HalfOpen { probe: None, .. } => Gate::Probe,
            Breaker::HalfOpen { probe: Some(probe), .. } if held => {
                probe.missing = None;
                Gate::Shut(now.after(PROBE_GRACE))
            }
            Breaker::HalfOpen { probe, .. } => {
                let missing = probe.as_mut().map(|probe| *probe.missing.get_or_insert(now));
                let missing = missing.filter(|at| *at <= now.after(AHEAD));
                let until = missing.unwrap_or(now).after(PROBE_GRACE);
                if missing.is_some() && now < until {
                    return Gate::Shut(until);
                }
                *probe = None;
                Gate::Probe
            }
        }
    }

    /// Notes that a probe goes out.
    pub(crate) fn send(&mut self, run: RunId, task: TaskKey) {
        if let Breaker::HalfOpen { probe, .. } = self {
            *probe = Some(Probe { run, task, missing: None });
        }
    }

    /// Returns the probe that is out.
    pub(crate) fn probe(&self) -> Option<&Probe> {
        match self {
            Breaker::HalfOpen { probe, .. } => probe.as_ref(),
            Breaker::Closed | Breaker::Open { .. } => None,
        }
    }

    /// Opens it, as a person wants.
    pub(crate) fn open(&mut self, policy: &BreakerPolicy, now: Time) {
        *self = Breaker::Open { since: now, until: now.after(policy.open_for), times: 1 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backstitch_saga::{Action, StepPath};

    const POLICY: BreakerPolicy = BreakerPolicy {
        failure_ratio: 0.5,
        min_calls: 4,
        window: Span::secs(10),
        open_for: Span::secs(1),
    };

    fn task(attempt: u32) -> TaskKey {
        TaskKey { step: StepPath::step("a"), action: Action::Forward, attempt }
    }

    fn ended(attempt: u32, answer: Answer) -> Ending {
        Ending { run: RunId(uuid::Uuid::nil()), task: task(attempt), answer }
    }

    /// Returns a breaker, its counts, and the endings that it counts at `now`.
    fn told(now: i64, endings: &[Answer]) -> (Breaker, Window) {
        let (mut breaker, mut calls) = (Breaker::Closed, Window::default());
        for answer in endings {
            breaker.note(&mut calls, &POLICY, Time(now), &ended(1, *answer));
        }
        (breaker, calls)
    }

    #[test]
    fn one_that_opened_by_a_clock_that_was_ahead_is_shut_no_longer_when_that_is_corrected() {
        const HOUR: i64 = 3_600_000;
        let (mut breaker, _) = told(HOUR, &[Answer::Missing; 4]);
        assert!(matches!(breaker.gate(Time(HOUR), false), Gate::Shut(_)));
        assert!(matches!(breaker.gate(Time(0), false), Gate::Probe));
    }

    #[test]
    fn it_opens_when_enough_of_enough_calls_fail() {
        use Answer::{Given, Missing, Unknown};
        for (endings, open) in [
            (vec![Missing, Missing, Missing], false),
            (vec![Missing, Missing, Missing, Missing], true),
            (vec![Given, Given, Missing, Missing], true),
            (vec![Given, Given, Given, Missing, Missing], false),
            (vec![Missing, Missing, Given, Given], false),
            (vec![Unknown, Unknown, Unknown, Unknown], false),
        ] {
            let (breaker, _) = told(0, &endings);
            assert_eq!(breaker != Breaker::Closed, open, "{endings:?}");
        }
    }

    #[test]
    fn what_was_long_ago_does_not_count() {
        let (mut breaker, mut calls) = told(0, &[Answer::Missing; 3]);
        breaker.note(&mut calls, &POLICY, Time(11_000), &ended(1, Answer::Missing));
        assert_eq!(breaker, Breaker::Closed);
    }

    #[test]
    fn one_probe_goes_out_and_its_success_closes() {
        let (mut breaker, mut calls) = told(0, &[Answer::Missing; 4]);
        assert_eq!(breaker.gate(Time(999), false), Gate::Shut(Time(1_000)));
        assert_eq!(breaker.gate(Time(1_000), false), Gate::Probe);
        breaker.send(RunId(uuid::Uuid::nil()), task(2));
        assert!(matches!(breaker.gate(Time(50_000), true), Gate::Shut(_)));
        breaker.note(&mut calls, &POLICY, Time(50_000), &ended(1, Answer::Given));
        assert!(breaker.probe().is_some(), "an older task says nothing");
        breaker.note(&mut calls, &POLICY, Time(50_001), &ended(2, Answer::Given));
        assert_eq!((breaker.gate(Time(50_002), false), calls), (Gate::Open, Window::default()));
    }

    #[test]
    fn a_failed_probe_opens_for_longer_and_longer_up_to_a_cap() {
        let (mut breaker, mut calls) = told(0, &[Answer::Missing; 4]);
        let mut now = 1_000;
        let mut spans = Vec::new();
        for answer in [Answer::Missing, Answer::Unknown].into_iter().cycle().take(6) {
            assert_eq!(breaker.gate(Time(now), false), Gate::Probe);
            breaker.send(RunId(uuid::Uuid::nil()), task(9));
            breaker.note(&mut calls, &POLICY, Time(now), &ended(9, answer));
            let Gate::Shut(until) = breaker.gate(Time(now), false) else { panic!("{breaker:?}") };
            spans.push(until.0 - now);
            now = until.0;
        }
        assert_eq!(spans, [2_000, 4_000, 8_000, 16_000, 16_000, 16_000]);
    }

    #[test]
    fn a_probe_that_vanished_is_replaced_after_a_grace() {
        let (mut breaker, _) = told(0, &[Answer::Missing; 4]);
        assert_eq!(breaker.gate(Time(1_000), false), Gate::Probe);
        breaker.send(RunId(uuid::Uuid::nil()), task(2));
        assert_eq!(breaker.gate(Time(5_000), false), Gate::Shut(Time(7_000)));
        assert_eq!(breaker.gate(Time(7_000), false), Gate::Probe);
    }
}

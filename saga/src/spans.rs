//! Time limits of a definition that contradict each other: pairs of which one can never be reached, as the other ends
//! first. Such a definition runs, but not as it reads, so its author is warned. The pairs are in one table.

use std::collections::BTreeMap;

use crate::protocol::Warning;
use crate::{Body, Compensate, Definition, Graph, Retry, Span, Task, Timeouts};

/// A span that a definition sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Limit {
    Run,
    Step,
    Attempt,
    Heartbeat,
    ToStart,
    FirstDelay,
    RetryTotal,
    UndoDelay,
    UndoTotal,
    UndoSlow,
    VerifyDelay,
    VerifyTotal,
    Sleep,
    Wait,
    Requirements,
}

use Limit::{
    Attempt, FirstDelay, Heartbeat, Requirements, RetryTotal, Run, Sleep, Step, ToStart, UndoDelay,
    UndoSlow, UndoTotal, VerifyDelay, VerifyTotal, Wait,
};

/// The first of each pair is never reached when it is longer than the second.
const PAIRS: &[(Limit, Limit)] = &[
    (Sleep, Run),
    (Wait, Run),
    (Requirements, Run),
    (Step, Run),
    (Attempt, Step),
    (Attempt, Run),
    (Heartbeat, Attempt),
    (Heartbeat, Step),
    (Heartbeat, Run),
    (ToStart, Step),
    (ToStart, Run),
    (FirstDelay, RetryTotal),
    (FirstDelay, Step),
    (FirstDelay, Run),
    (RetryTotal, Step),
    (RetryTotal, Run),
    (UndoDelay, UndoTotal),
    (UndoSlow, UndoTotal),
    (VerifyDelay, VerifyTotal),
    (VerifyDelay, Step),
    (VerifyDelay, Run),
    (VerifyTotal, Step),
    (VerifyTotal, Run),
];

impl Limit {
    /// Returns its path below its step, and its name.
    fn named(self) -> (&'static str, &'static str) {
        match self {
            Run => ("/timeout", "the run's timeout"),
            Step => ("/timeouts/step", "the time limit of the step"),
            Attempt => ("/timeouts/attempt", "the time limit of an attempt"),
            Heartbeat => ("/timeouts/heartbeat", "the time between two heartbeats"),
            ToStart => ("/timeouts/to_start", "the time limit to start"),
            FirstDelay => ("/retry/first_delay", "the delay before the second attempt"),
            RetryTotal => ("/retry/total", "the time for all attempts"),
            UndoDelay => ("/compensate/retry/first_delay", "the delay before undoing again"),
            UndoTotal => ("/compensate/retry/total", "the time for all attempts to undo"),
            UndoSlow => ("/compensate/slow_after", "the time after which undoing counts as slow"),
            VerifyDelay => ("/verify/retry/first_delay", "the delay before verifying again"),
            VerifyTotal => ("/verify/retry/total", "the time for all attempts to verify"),
            Sleep => ("/for", "the sleep"),
            Wait => ("/timeout", "the time limit of the wait"),
            Requirements => ("/sequence/requires_within", "the time to wait for what is required"),
        }
    }
}

/// The time limits at one place of a definition. A default limits others, and is never itself reported: nobody wrote
/// it.
struct Spans {
    pointer: String,
    set: BTreeMap<Limit, Span>,
    defaults: BTreeMap<Limit, Span>,
}

impl Spans {
    fn at(pointer: String, run: Span) -> Spans {
        Spans { pointer, set: BTreeMap::new(), defaults: BTreeMap::from([(Run, run)]) }
    }

    /// Adds a span, and its default if it has one.
    fn add(&mut self, limit: Limit, span: Option<Span>, default: Option<Span>) {
        let Some(span) = span else { return };
        let spans = if Some(span) == default { &mut self.defaults } else { &mut self.set };
        spans.insert(limit, span);
    }

    fn add_task(&mut self, task: &Task) {
        let (timeouts, default) = (&task.timeouts, Timeouts::default());
        self.add(Step, timeouts.step, None);
        self.add(Attempt, Some(timeouts.attempt), Some(default.attempt));
        self.add(Heartbeat, Some(timeouts.heartbeat), Some(default.heartbeat));
        self.add(ToStart, timeouts.to_start, None);
        self.add_retry(&task.retry, (FirstDelay, RetryTotal));
        if let Some(undo) = &task.compensate {
            self.add_retry(&undo.retry, (UndoDelay, UndoTotal));
            self.add(UndoSlow, Some(undo.slow_after), Some(Compensate::default_slow_after()));
        }
        if let Some(verify) = &task.verify {
            self.add_retry(&verify.retry, (VerifyDelay, VerifyTotal));
        }
    }

    fn add_retry(&mut self, retry: &Retry, (delay, total): (Limit, Limit)) {
        // Without a second attempt there is no delay.
        if retry.max_attempts != Some(1) {
            self.add(delay, Some(retry.first_delay), Some(Retry::default().first_delay));
            self.add(total, retry.total, None);
        }
    }

    fn get(&self, limit: Limit) -> Option<Span> {
        self.set.get(&limit).or_else(|| self.defaults.get(&limit)).copied()
    }

    /// Adds what can never be reached; of several limits that end it first the shortest is named.
    fn compare(&self, warnings: &mut Vec<Warning>) {
        for (limit, span) in &self.set {
            let shorter = |(longer, other): &(Limit, Limit)| {
                let other_span = self.get(*other)?;
                (longer == limit && *span > other_span).then_some((other_span, *other))
            };
            if let Some((shortest, other)) = PAIRS.iter().filter_map(shorter).min() {
                let ((at, name), (_, ends)) = (limit.named(), other.named());
                warnings.push(Warning {
                    pointer: format!("{}{at}", self.pointer),
                    code: "never_reached".to_owned(),
                    message: format!(
                        "{name} is {span}, but {ends} is {shortest} and ends it first"
                    ),
                });
            }
        }
    }
}

impl Graph {
    /// Returns pairs of time limits of which one can never be reached, each with the place of that one. They do not
    /// prevent a registration.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        let definition = &self.definition;
        let mut warnings = Vec::new();
        let mut whole = Spans::at(String::new(), definition.timeout);
        let sequence = definition.sequence.as_ref();
        whole.add(Requirements, sequence.and_then(|sequence| sequence.requires_within), None);
        whole.compare(&mut warnings);
        for (place, step) in definition.steps.iter().enumerate() {
            let at = |member: &str| format!("/steps/{place}/{member}");
            let member = match (&step.task, &step.map, &step.sleep) {
                (Some(_), ..) => at("task"),
                (_, Some(_), _) => at("map/task"),
                (.., Some(_)) => at("sleep"),
                _ => at("wait"),
            };
            let mut spans = Spans::at(member, definition.timeout);
            step.task.iter().for_each(|task| spans.add_task(task));
            step.map.iter().for_each(|map| spans.add_task(&map.task));
            spans.add(Sleep, step.sleep.as_ref().and_then(|sleep| sleep.span), None);
            spans.add(Wait, step.wait.as_ref().and_then(|wait| wait.timeout), None);
            spans.compare(&mut warnings);
        }
        if warnings.iter().all(|warning| !warning.pointer.ends_with("/sleep/for")) {
            warnings.extend(self.sleeps_in_a_row());
        }
        warnings.extend(self.window_without_effect());
        warnings.extend(self.starts_itself());
        warnings
    }

    /// Returns the warning of a window for compensation in a workflow without compensations.
    fn window_without_effect(&self) -> Option<Warning> {
        let window = self.definition.compensable_for;
        let undone = self.nodes.iter().any(|node| node.task().compensate.is_some());
        let written = window != Definition::default_compensable_for() && window != Span::ZERO;
        (written && !undone).then(|| Warning {
            pointer: "/compensable_for".to_owned(),
            code: "no_effect".to_owned(),
            message: format!("a run may be compensated for {window} after its end, but no step has a `compensate`"),
        })
    }

    /// Returns a window for compensating that is longer than ended runs are kept.
    #[must_use]
    pub fn warning_of_retention(&self, kept: Span) -> Option<Warning> {
        let window = self.definition.compensable_for;
        let written = window != Definition::default_compensable_for();
        (written && window > kept).then(|| Warning {
            pointer: "/compensable_for".to_owned(),
            code: "never_reached".to_owned(),
            message: format!(
                "a run may be compensated for {window} after its end, but this server keeps ended runs for {kept}"
            ),
        })
    }

    /// Sleeps that follow each other and together take longer than the run may.
    fn sleeps_in_a_row(&self) -> Option<Warning> {
        let timeout = self.definition.timeout;
        let mut ends: Vec<Option<u64>> = vec![None; self.nodes.len()];
        let longest = (0..self.nodes.len()).map(|node| self.asleep(node, &mut ends)).max()?;
        (longest > timeout.0).then(|| Warning {
            pointer: "/timeout".to_owned(),
            code: "never_reached".to_owned(),
            message: format!(
                "sleeps that follow each other take {} together, but the run's timeout is {timeout} and ends it first",
                Span::millis(longest)
            ),
        })
    }

    /// Returns the shortest time that a run sleeps until this step is over. A checked definition has no cycle.
    fn asleep(&self, node: usize, ends: &mut Vec<Option<u64>>) -> u64 {
        if let Some(known) = ends[node] {
            return known;
        }
        let own = match &self.nodes[node].body {
            Body::Sleep(sleep) => sleep.span.map_or(0, |span| span.0),
            _ => 0,
        };
        let before: Vec<u64> =
            self.nodes[node].needs.iter().map(|&need| self.asleep(need, ends)).collect();
        let end = own.saturating_add(before.into_iter().max().unwrap_or(0));
        ends[node] = Some(end);
        end
    }

    /// Returns the warning of a child that may take longer than its parent, for a step that is a run of
    /// `child`.
    #[must_use]
    pub fn warning_of_child(&self, step: usize, child: &Definition) -> Option<Warning> {
        let (own, longer) = (self.definition.timeout, child.timeout);
        (longer > own && longer != Definition::default_timeout()).then(|| Warning {
            pointer: format!("/steps/{step}/child"),
            code: "never_reached".to_owned(),
            message: format!(
                "the timeout of '{}' is {longer}, but that of this workflow is {own} and ends it first",
                child.name
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(whole: &str, steps: &str) -> Vec<(String, String)> {
        let text = format!(r#"{{"name":"w","version":1{whole},"steps":[{steps}]}}"#);
        let graph = Graph::parse(&text).unwrap_or_else(|wrong| panic!("{text}: {wrong:?}"));
        graph.warnings().into_iter().map(|one| (one.pointer, one.message)).collect()
    }

    fn task(more: &str) -> String {
        format!(
            r#"{{"id":"a","task":{{"name":"do","input":{{"const":1}},"class":"read_only"{more}}}}}"#
        )
    }

    #[test]
    fn a_window_in_which_nothing_can_be_compensated_is_warned_of() {
        let undone = task(r#","compensate":{"name":"u"}"#).replace(r#","class":"read_only""#, "");
        let window = r#","compensable_for":"2d""#;
        assert_eq!(warnings(window, &task("")).len(), 1, "nothing undoes it");
        assert_eq!(warnings(window, &task(""))[0].0, "/compensable_for");
        assert_eq!(warnings(window, &undone), []);
        assert_eq!(warnings(r#","compensable_for":"0s""#, &task("")), []);
        let text = format!(r#"{{"name":"w","version":1{window},"steps":[{undone}]}}"#);
        let graph = Graph::parse(&text).unwrap();
        assert_eq!(graph.warning_of_retention(Span::days(3)), None);
        let warned = graph.warning_of_retention(Span::days(1)).unwrap();
        assert_eq!(
            (warned.pointer.as_str(), warned.code.as_str()),
            ("/compensable_for", "never_reached")
        );
    }

    #[test]
    fn each_pair_is_warned_of_at_the_span_that_is_never_reached() {
        let sleep = |span: &str| format!(r#"{{"id":"a","sleep":{{"for":"{span}"}}}}"#);
        let wait =
            |span: &str| format!(r#"{{"id":"a","wait":{{"signal":"go","timeout":"{span}"}}}}"#);
        let map = r#"{"id":"a","map":{"items":{"const":[1]},"join":"all","empty":"succeed","task":{"name":"do",
            "input":{"const":1},"class":"read_only","timeouts":{"attempt":"2h","step":"1h"}}}}"#;
        let verified = |delay: &str, more: &str| {
            task(&format!(
                r#","on_unknown":"verify","verify":{{"name":"v","retry":{{"first_delay":"{delay}","max_delay":"{delay}"}}}}{more}"#
            ))
        };
        let table = [
            ("", sleep("30d"), "/steps/0/sleep/for"),
            (r#","timeout":"1h""#, sleep("61m"), "/steps/0/sleep/for"),
            (r#","timeout":"1h""#, wait("2h"), "/steps/0/wait/timeout"),
            (
                "",
                task(r#","timeouts":{"attempt":"2h","step":"1h"}"#),
                "/steps/0/task/timeouts/attempt",
            ),
            ("", task(r#","timeouts":{"attempt":"8d"}"#), "/steps/0/task/timeouts/attempt"),
            (
                "",
                task(r#","timeouts":{"attempt":"1m","heartbeat":"2m"}"#),
                "/steps/0/task/timeouts/heartbeat",
            ),
            (
                "",
                task(r#","timeouts":{"to_start":"2h","step":"1h"}"#),
                "/steps/0/task/timeouts/to_start",
            ),
            ("", task(r#","timeouts":{"step":"8d"}"#), "/steps/0/task/timeouts/step"),
            (
                "",
                task(r#","retry":{"first_delay":"2h","max_delay":"2h"},"timeouts":{"step":"1h"}"#),
                "/steps/0/task/retry/first_delay",
            ),
            (
                "",
                task(r#","retry":{"first_delay":"2h","max_delay":"2h","total":"1h"}"#),
                "/steps/0/task/retry/first_delay",
            ),
            (
                "",
                task(r#","retry":{"total":"2h"},"timeouts":{"step":"1h"}"#),
                "/steps/0/task/retry/total",
            ),
            ("", map.to_owned(), "/steps/0/map/task/timeouts/attempt"),
            (
                r#","timeout":"1m""#,
                task(r#","timeouts":{"attempt":"30s","heartbeat":"2m"}"#),
                "/steps/0/task/timeouts/heartbeat",
            ),
            (
                "",
                verified("1h", r#","timeouts":{"step":"10s"}"#),
                "/steps/0/task/verify/retry/first_delay",
            ),
            (r#","timeout":"10m""#, verified("1h", ""), "/steps/0/task/verify/retry/first_delay"),
            (
                "",
                task(
                    r#","on_unknown":"verify","verify":{"name":"v","retry":{"total":"2h"}},"timeouts":{"step":"1h"}"#,
                ),
                "/steps/0/task/verify/retry/total",
            ),
            (
                "",
                task(r#","compensate":{"name":"u","slow_after":"3h","retry":{"total":"2h"}}"#)
                    .replace(r#","class":"read_only""#, ""),
                "/steps/0/task/compensate/slow_after",
            ),
        ];
        for (whole, step, pointer) in table {
            let found = warnings(whole, &step);
            let places: Vec<&str> = found.iter().map(|(pointer, _)| pointer.as_str()).collect();
            assert_eq!(places, [pointer], "{step}");
        }
        let found = warnings(r#","timeout":"1h""#, &sleep("2h"));
        assert_eq!(found[0].1, "the sleep is 2h, but the run's timeout is 1h and ends it first");
    }

    #[test]
    fn spans_that_can_be_reached_and_defaults_that_nobody_wrote_are_not_warned_of() {
        for (whole, step) in [
            ("", r#"{"id":"a","sleep":{"for":"7d"}}"#.to_owned()),
            ("", task("")),
            // The default of an attempt is five minutes, that of a heartbeat half a minute.
            (r#","timeout":"1m""#, task(r#","timeouts":{"step":"20s"}"#)),
            ("", task(r#","timeouts":{"attempt":"10s"}"#)),
            (
                "",
                task(
                    r#","retry":{"max_attempts":1,"first_delay":"2h","max_delay":"2h"},"timeouts":{"step":"1h"}"#,
                ),
            ),
        ] {
            assert_eq!(warnings(whole, &step), [], "{whole} {step}");
        }
    }

    #[test]
    fn sleeps_that_follow_each_other_are_added_up() {
        let steps = |after: &str| {
            format!(
                r#"{{"id":"a","sleep":{{"for":"4d"}}}},{{"id":"b"{after},"sleep":{{"for":"4d"}}}}"#
            )
        };
        let found = warnings("", &steps(r#","after":["a"]"#));
        assert_eq!((found.len(), found[0].0.as_str()), (1, "/timeout"));
        assert_eq!(warnings("", &steps("")), [], "side by side they take four days");
    }
}

//! Mistakes that one can see within one step, without its expressions.

use super::document::{schema, span};
use super::names;
use crate::{
    Class, Compensate, Fail, Join, Losers, Map, OnUnknown, Retry, Sleep, Step, Task, Timeouts,
    Tolerance, Verify, Violation, Wait,
};

type Found = Vec<Violation>;

/// Checks the step at `at`.
pub(super) fn check(step: &Step, at: &str, found: &mut Found) {
    names::check(&names::STEP, &step.id, &format!("{at}/id"), found);
    let bodies = [
        step.task.is_some(),
        step.map.is_some(),
        step.wait.is_some(),
        step.sleep.is_some(),
        step.child.is_some(),
        step.fail.is_some(),
    ];
    if bodies.into_iter().filter(|body| *body).count() != 1 {
        let message =
            "a step has exactly one of `task`, `map`, `wait`, `sleep`, `child` and `fail`";
        found.push(Violation::new(at, "one_body", message));
    }
    if let Some(work) = &step.task {
        task(work, &format!("{at}/task"), found);
    }
    if let Some(fan_out) = &step.map {
        map(fan_out, &format!("{at}/map"), found);
    }
    if let Some(pause) = &step.wait {
        wait(pause, &format!("{at}/wait"), found);
    }
    if let Some(pause) = &step.sleep {
        sleep(pause, &format!("{at}/sleep"), found);
    }
    if let Some(other) = &step.child {
        names::check(&names::WORKFLOW, &other.workflow, &format!("{at}/child/workflow"), found);
        if other.version == Some(0) {
            let message = "versions begin with 1";
            found.push(Violation::new(format!("{at}/child/version"), "invalid_version", message));
        }
    }
    if let Some(end) = &step.fail {
        fail(end, &format!("{at}/fail"), found);
    }
}

fn fail(fail: &Fail, at: &str, found: &mut Found) {
    names::check(&names::FAILURE, &fail.code, &format!("{at}/code"), found);
    if !(1..=Fail::LONGEST_MESSAGE).contains(&fail.message.trim().chars().count()) {
        let message =
            format!("say what has happened, in at most {} characters", Fail::LONGEST_MESSAGE);
        found.push(Violation::new(format!("{at}/message"), "invalid_message", message));
    }
}

fn wait(wait: &Wait, at: &str, found: &mut Found) {
    signals(wait, at, found);
    if let Some(limit) = wait.timeout {
        span(limit, &format!("{at}/timeout"), found);
    }
    if wait.default.is_some() && wait.timeout.is_none() {
        let message = "a default output is for a wait that ends: give it a `timeout`";
        found.push(Violation::new(format!("{at}/default"), "timeout_missing", message));
    }
    schema(wait.schema.as_ref(), &format!("{at}/schema"), found);
}

/// Largest number of signals of which the first ends a wait.
pub(crate) const MAX_SIGNALS: usize = 20;

fn signals(wait: &Wait, at: &str, found: &mut Found) {
    if wait.signals.is_empty() == wait.signal.is_empty() {
        let message = match wait.signal.is_empty() {
            true => "a wait needs a `signal`, or `signals` with at least one",
            false => "a wait has either `signal` or `signals`, not both",
        };
        found.push(Violation::new(at, "one_signal_or_several", message));
        return;
    }
    if wait.signals.is_empty() {
        return names::check(&names::SIGNAL, &wait.signal, &format!("{at}/signal"), found);
    }
    if wait.signals.len() > MAX_SIGNALS {
        let message = format!("a wait is for at most {MAX_SIGNALS} signals");
        found.push(Violation::new(format!("{at}/signals"), "invalid_signal", message));
        return;
    }
    for (index, one) in wait.signals.iter().enumerate() {
        let at = format!("{at}/signals/{index}");
        names::check(&names::SIGNAL, &one.signal, &at, found);
        schema(one.schema.as_ref(), &format!("{at}/schema"), found);
        if wait.signals[..index].iter().any(|other| other.signal == one.signal) {
            let message = format!("the signal '{}' is named twice", one.signal);
            found.push(Violation::new(at, "invalid_signal", message));
        }
    }
}

fn sleep(sleep: &Sleep, at: &str, found: &mut Found) {
    if sleep.span.is_some() == sleep.until.is_some() {
        let message = "a sleep has either `for` or `until`";
        found.push(Violation::new(at, "for_or_until", message));
    }
    if let Some(limit) = sleep.span {
        span(limit, &format!("{at}/for"), found);
    }
}

fn map(map: &Map, at: &str, found: &mut Found) {
    task(&map.task, &format!("{at}/task"), found);
    let wrong = match map.join {
        Join::Quorum(0) => Some(("invalid_quorum", "a quorum is at least 1")),
        Join::Tolerate(Tolerance::Ratio(ratio)) if !(0.0..=1.0).contains(&ratio) => {
            Some(("invalid_ratio", "a ratio is between 0 and 1"))
        }
        _ => None,
    };
    if let Some((code, message)) = wrong {
        found.push(Violation::new(format!("{at}/join"), code, message));
    }
    if map.empty.is_none() {
        let message = "say what an empty list means: `empty` is `succeed` or `fail`";
        found.push(Violation::new(at, "empty_missing", message));
    }
    if !(1..=10_000).contains(&map.max_concurrency) {
        let message = "between 1 and 10000 items may be in flight at once";
        found.push(Violation::new(format!("{at}/max_concurrency"), "invalid_concurrency", message));
    }
    if map.losers == Losers::Compensate && map.task.compensate.is_none() {
        let message = "losers can only be compensated when the task has `compensate`";
        found.push(Violation::new(format!("{at}/losers"), "compensate_missing", message));
    }
}

fn task(task: &Task, at: &str, found: &mut Found) {
    names::check(&names::HANDLER, &task.name, &format!("{at}/name"), found);
    names::check(&names::QUEUE, &task.queue, &format!("{at}/queue"), found);
    class(task, at, found);
    if let Some(undo) = &task.compensate {
        compensate(undo, &format!("{at}/compensate"), found);
    }
    if let Some(probe) = &task.verify {
        verify(probe, &format!("{at}/verify"), found);
    }
    schema(task.input_schema.as_ref(), &format!("{at}/input_schema"), found);
    schema(task.output_schema.as_ref(), &format!("{at}/output_schema"), found);
    retry(&task.retry, &format!("{at}/retry"), found);
    if task.max_losses == 0 {
        let message = "lost workers are counted from 1";
        found.push(Violation::new(format!("{at}/max_losses"), "invalid_losses", message));
    }
    timeouts(&task.timeouts, &format!("{at}/timeouts"), found);
}

/// Checks the members that a class demands and forbids.
fn class(task: &Task, at: &str, found: &mut Found) {
    let mut wrong = |member: &str, code: &str, message: &str| {
        found.push(Violation::new(format!("{at}/{member}"), code, message));
    };
    match (task.class, task.compensate.is_some()) {
        (Some(Class::Compensatable), false) => {
            wrong("class", "compensate_missing", "a compensatable step has `compensate`");
        }
        (Some(Class::ReadOnly), true) => wrong(
            "compensate",
            "compensate_unexpected",
            "a read-only step has nothing to undo; drop `compensate` or the class",
        ),
        (Some(Class::Retriable), true) => wrong(
            "compensate",
            "compensate_unexpected",
            "a retriable step is never undone; drop `compensate` or the class",
        ),
        _ => {}
    }
    match (task.on_unknown, task.class) {
        (OnUnknown::Verify, _) if task.verify.is_none() => {
            wrong("on_unknown", "verify_missing", "verifying needs a `verify` handler");
        }
        (OnUnknown::Compensate, Some(Class::Pivot | Class::Retriable)) => wrong(
            "on_unknown",
            "invalid_on_unknown",
            "a step that is not undone cannot give up when in doubt; choose retry, verify or incident",
        ),
        _ => {}
    }
}

fn compensate(undo: &Compensate, at: &str, found: &mut Found) {
    handler(&undo.name, undo.queue.as_deref(), at, found);
    retry(&undo.retry, &format!("{at}/retry"), found);
    if undo.alert_after == 0 {
        let message = "attempts are counted from 1";
        found.push(Violation::new(format!("{at}/alert_after"), "invalid_attempts", message));
    }
    span(undo.slow_after, &format!("{at}/slow_after"), found);
}

fn verify(probe: &Verify, at: &str, found: &mut Found) {
    handler(&probe.name, probe.queue.as_deref(), at, found);
    retry(&probe.retry, &format!("{at}/retry"), found);
}

fn handler(name: &str, queue: Option<&str>, at: &str, found: &mut Found) {
    names::check(&names::HANDLER, name, &format!("{at}/name"), found);
    if let Some(queue) = queue {
        names::check(&names::QUEUE, queue, &format!("{at}/queue"), found);
    }
}

fn retry(retry: &Retry, at: &str, found: &mut Found) {
    if retry.max_attempts == Some(0) {
        let message = "there is at least one attempt; `null` means no limit";
        found.push(Violation::new(format!("{at}/max_attempts"), "invalid_attempts", message));
    }
    span(retry.first_delay, &format!("{at}/first_delay"), found);
    span(retry.max_delay, &format!("{at}/max_delay"), found);
    if retry.first_delay > retry.max_delay {
        let message = format!(
            "the first delay, {}, is longer than the longest, {}",
            retry.first_delay, retry.max_delay
        );
        found.push(Violation::new(format!("{at}/first_delay"), "invalid_delay", message));
    }
    if !retry.multiplier.is_finite() || retry.multiplier < 1.0 {
        let message = "a delay grows by a factor of at least 1";
        found.push(Violation::new(format!("{at}/multiplier"), "invalid_multiplier", message));
    }
    if let Some(total) = retry.total {
        span(total, &format!("{at}/total"), found);
    }
}

fn timeouts(timeouts: &Timeouts, at: &str, found: &mut Found) {
    span(timeouts.attempt, &format!("{at}/attempt"), found);
    span(timeouts.heartbeat, &format!("{at}/heartbeat"), found);
    if let Some(limit) = timeouts.to_start {
        span(limit, &format!("{at}/to_start"), found);
    }
    if let Some(limit) = timeouts.step {
        span(limit, &format!("{at}/step"), found);
    }
}

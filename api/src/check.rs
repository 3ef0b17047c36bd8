//! Checks of the texts and numbers of a request that go beyond their types. Payloads are not read: the
//! engine checks them where they enter the journal.

mod contracts;
pub(crate) mod events;
mod incidents;
mod ingress;
pub(crate) mod queues;
mod quotas;

use axum::http::StatusCode;
use backstitch_saga::protocol::{
    ApplyPlan, ApprovePlan, BackfillSchedule, ClaimTasks, CompensateRun, CompleteTasks, EditPlan,
    EraseRun, Heartbeat, HeartbeatTasks, Keep, LabelRun, MakePlan, Mapping, NewCredential,
    NewMigration, PauseRun, Reason, ReleaseTasks, RerunRun, ResolveStep, RetryStep, Role,
    RotateCredential, ScheduleSpec, Scope, SendSignal, SendSignalByKey, SetRetention,
    SetUndoApproval, SignOff, SkipStep, StartRun, StartRuns, TaskReport, TriggerSchedule,
    WithdrawFact,
};
use backstitch_saga::{
    Span, Violation, check_label_name, check_labels, check_reserved, check_start,
};

use crate::problem::Rejection;

/// The longest a request may wait.
pub(crate) const MAX_WAIT: Span = Span::secs(30);
/// Largest number of elements of a list in a request, or of a page in a response.
pub(crate) const MAX_LIST: usize = 1_000;
/// Longest name, in bytes: of a workflow, a queue, a handler, a worker, an actor.
pub(crate) const MAX_NAME: usize = 200;
/// Longest key, correlation id, external id or value of a label, in bytes.
pub(crate) const MAX_KEY: usize = 255;
/// Longest reason, in bytes.
pub(crate) const MAX_REASON: usize = 2_000;
/// Longest note, in bytes.
pub(crate) const MAX_MESSAGE: usize = 16_000;

/// Something from outside that can be wrong although it has the right type.
pub(crate) trait Check {
    /// Adds everything that is wrong to `findings`.
    fn check(&self, findings: &mut Findings);
}

/// The mistakes in a request.
#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<Violation>);

impl Findings {
    pub(crate) fn into_result(self) -> Result<(), Rejection> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(Rejection::invalid(StatusCode::UNPROCESSABLE_ENTITY, "invalid_request", self.0))
    }

    pub(crate) fn first(self) -> Option<Violation> {
        self.0.into_iter().next()
    }

    fn add(&mut self, pointer: &str, code: &str, message: impl Into<String>) {
        self.0.push(Violation::new(pointer, code, message));
    }

    /// Checks one line of text, `1..=max` bytes.
    fn line(&mut self, pointer: &str, text: &str, max: usize) {
        if text.is_empty() {
            self.add(pointer, "empty", "It must not be empty");
        }
        self.text(pointer, text, max, |c| c.is_control());
    }

    /// Checks prose, at most `max` bytes; line breaks and tabs are fine.
    fn prose(&mut self, pointer: &str, text: &str, max: usize) {
        self.text(pointer, text, max, |c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'));
    }

    fn text(&mut self, pointer: &str, text: &str, max: usize, bad: impl Fn(char) -> bool) {
        if text.len() > max {
            let message = format!("It may have {max} bytes; it has {}", text.len());
            self.add(pointer, "too_long", message);
        }
        if let Some(found) = text.chars().find(|c| bad(*c)) {
            let message = format!("The character U+{:04X} must not stand here", u32::from(found));
            self.add(pointer, "forbidden_character", message);
        }
    }

    /// Checks a list of `1..=1,000` elements.
    fn list(&mut self, pointer: &str, len: usize) {
        if !(1..=MAX_LIST).contains(&len) {
            let message = format!("It must have 1 to {MAX_LIST} elements; it has {len}");
            self.add(pointer, "out_of_range", message);
        }
    }
}

/// Returns whether `name` can be the name of a namespace or a credential.
pub(crate) fn is_slug(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.len() <= 100
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c))
}

impl Check for StartRun {
    fn check(&self, findings: &mut Findings) {
        findings.0.extend(check_start(self));
        findings.0.extend(check_reserved("/labels", self.labels.keys().map(String::as_str)));
    }
}

impl Check for LabelRun {
    fn check(&self, findings: &mut Findings) {
        findings.0.extend(check_labels("/set", &self.set));
        findings.0.extend(check_reserved("/set", self.set.keys().map(String::as_str)));
        findings.0.extend(check_reserved("/remove", self.remove.iter().map(String::as_str)));
        for (place, name) in self.remove.iter().enumerate().take(MAX_LIST) {
            check_label_name(&format!("/remove/{place}"), name, &mut findings.0);
        }
        if self.set.is_empty() {
            findings.list("/remove", self.remove.len());
        }
        findings.prose("/reason", &self.reason, MAX_REASON);
    }
}

impl Check for StartRuns {
    /// Checks only the list as a whole; each start is checked, and has its result, by itself.
    fn check(&self, findings: &mut Findings) {
        findings.list("/runs", self.runs.len());
    }
}

impl Check for ClaimTasks {
    fn check(&self, findings: &mut Findings) {
        findings.line("/worker", &self.worker, MAX_NAME);
        findings.list("/queues", self.queues.len());
        for (queue, handlers) in &self.queues {
            findings.line("/queues", queue, MAX_NAME);
            findings.list("/queues", handlers.len());
            for handler in handlers {
                findings.line("/queues", handler, MAX_NAME);
            }
        }
        if !(1..=MAX_LIST).contains(&(self.max as usize)) {
            let message = format!("It must be 1 to {MAX_LIST}; it is {}", self.max);
            findings.add("/max", "out_of_range", message);
        }
        if self.wait > MAX_WAIT {
            let message = format!("It must be at most {MAX_WAIT}; it is {}", self.wait);
            findings.add("/wait", "out_of_range", message);
        }
    }
}

impl Check for CompleteTasks {
    /// Checks only the list as a whole; each report is checked, and has its result, by itself.
    fn check(&self, findings: &mut Findings) {
        findings.list("/results", self.results.len());
    }
}

impl Check for TaskReport {
    /// Checks nothing: the report counts, whatever its texts are, and the engine amends those that
    /// cannot be stored.
    fn check(&self, _: &mut Findings) {}
}

impl Check for HeartbeatTasks {
    fn check(&self, findings: &mut Findings) {
        findings.list("/beats", self.beats.len());
    }
}

impl Check for ReleaseTasks {
    fn check(&self, findings: &mut Findings) {
        findings.list("/tasks", self.tasks.len());
    }
}

impl Check for SignOff {
    fn check(&self, _: &mut Findings) {}
}

impl Check for Heartbeat {
    fn check(&self, _: &mut Findings) {}
}

impl Check for CompensateRun {
    fn check(&self, findings: &mut Findings) {
        findings.prose("/reason", &self.reason, MAX_REASON);
        match &self.scope {
            Scope::All => {}
            Scope::BackTo(step) => findings.line("/scope/back_to", step, MAX_NAME),
            Scope::Steps(steps) => {
                findings.list("/scope/steps", steps.len());
                for (index, step) in steps.iter().enumerate() {
                    findings.line(&format!("/scope/steps/{index}"), step, MAX_NAME);
                }
            }
        }
    }
}

impl Check for MakePlan {
    fn check(&self, findings: &mut Findings) {
        check_plan(&self.scope, &self.reason, findings);
    }
}

impl Check for EditPlan {
    fn check(&self, findings: &mut Findings) {
        check_plan(&self.scope, &self.reason, findings);
    }
}

/// Checks a plan like a request to `compensate`. The reason is shorter, as the plan adds its id and who approved it.
fn check_plan(scope: &Scope, reason: &str, findings: &mut Findings) {
    findings.prose("/reason", reason, MAX_REASON - 300);
    let (scope, reason) = (scope.clone(), String::new());
    CompensateRun { scope, reason, dry_run: false, force: false }.check(findings);
}

impl Check for ApprovePlan {
    fn check(&self, findings: &mut Findings) {
        findings.prose("/reason", &self.reason, MAX_REASON);
    }
}

impl Check for ApplyPlan {
    fn check(&self, _: &mut Findings) {}
}

impl Check for SetUndoApproval {
    fn check(&self, findings: &mut Findings) {
        findings.prose("/reason", &self.reason, MAX_REASON);
    }
}

impl Check for SetRetention {
    fn check(&self, findings: &mut Findings) {
        findings.prose("/reason", &self.reason, MAX_REASON);
        let Keep::For(span) = self.keep else { return };
        if span > Keep::MOST {
            let message = format!("It may be at most {}; say 'forever' for longer", Keep::MOST);
            findings.add("/keep", "too_long", message);
        }
        if span < Keep::LEAST {
            findings.add("/keep", "too_short", format!("It must be at least {}", Keep::LEAST));
        }
    }
}

impl Check for EraseRun {
    fn check(&self, findings: &mut Findings) {
        findings.prose("/reason", &self.reason, MAX_REASON);
    }
}

impl Check for Reason {
    fn check(&self, findings: &mut Findings) {
        findings.prose("/reason", &self.reason, MAX_REASON);
    }
}

impl Check for ScheduleSpec {
    /// Checks nothing here: the engine checks all of it together.
    fn check(&self, _: &mut Findings) {}
}

impl Check for TriggerSchedule {
    fn check(&self, findings: &mut Findings) {
        findings.prose("/reason", &self.reason, MAX_REASON);
    }
}

impl Check for BackfillSchedule {
    fn check(&self, findings: &mut Findings) {
        findings.prose("/reason", &self.reason, MAX_REASON);
    }
}

impl Check for WithdrawFact {
    fn check(&self, findings: &mut Findings) {
        match &self.reason {
            Some(reason) => findings.prose("/reason", reason, MAX_REASON),
            None if self.dry_run => {}
            None => findings.add("/reason", "missing_field", "`reason` is missing".to_owned()),
        }
    }
}

impl Check for PauseRun {
    fn check(&self, findings: &mut Findings) {
        findings.prose("/reason", &self.reason, MAX_REASON);
        if let Some(name) = &self.name {
            findings.line("/name", name, MAX_NAME);
        }
    }
}

impl Check for RetryStep {
    fn check(&self, findings: &mut Findings) {
        findings.prose("/reason", &self.reason, MAX_REASON);
    }
}

impl Check for SkipStep {
    fn check(&self, findings: &mut Findings) {
        findings.prose("/reason", &self.reason, MAX_REASON);
    }
}

impl Check for ResolveStep {
    fn check(&self, findings: &mut Findings) {
        findings.prose("/reason", &self.reason, MAX_REASON);
        if let Some(id) = &self.external_id {
            findings.line("/external_id", id, MAX_KEY);
        }
    }
}

impl Check for RerunRun {
    fn check(&self, findings: &mut Findings) {
        findings.line("/from", &self.from, MAX_NAME);
        findings.prose("/reason", &self.reason, MAX_REASON);
    }
}

impl Check for SendSignal {
    fn check(&self, _: &mut Findings) {}
}

impl Check for SendSignalByKey {
    fn check(&self, findings: &mut Findings) {
        findings.line("/workflow", &self.workflow, MAX_NAME);
        findings.line("/key", &self.key, MAX_KEY);
        findings.line("/signal", &self.signal, MAX_NAME);
    }
}

impl Check for NewMigration {
    fn check(&self, findings: &mut Findings) {
        findings.prose("/reason", &self.reason, MAX_REASON);
        if !(1..=MAX_LIST).contains(&(self.limit as usize)) {
            let message = format!("It must be 1 to {MAX_LIST}; it is {}", self.limit);
            findings.add("/limit", "out_of_range", message);
        }
        let Mapping { steps, skip, without_undo } = &self.mapping;
        if steps.len().max(skip.len()).max(without_undo.len()) > MAX_LIST {
            findings.add("/mapping", "out_of_range", format!("It may name {MAX_LIST} steps"));
        }
    }
}

impl Check for NewCredential {
    fn check(&self, findings: &mut Findings) {
        let bounded = self.queues.is_some() || self.workflows.is_some();
        if bounded && self.role == Role::Admin {
            let message = "An admin makes credentials, so that it has no bounds: leave queues and workflows out";
            findings.add("/role", "admin_with_bounds", message);
        }
    }
}

impl Check for RotateCredential {
    fn check(&self, _: &mut Findings) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(value: &impl Check) -> Vec<(String, String)> {
        let mut findings = Findings::default();
        value.check(&mut findings);
        findings.0.into_iter().map(|v| (v.pointer, v.code)).collect()
    }

    #[test]
    fn strings_are_bounded_and_without_control_characters() {
        let start: StartRun = serde_json::from_value(serde_json::json!({
            "workflow": "", "key": "a\u{0}b", "correlation_id": "x".repeat(256),
            "labels": { "a/b": "line\nbreak", "c:d": "e", "f": "" }
        }))
        .unwrap();
        let expected = [
            ("/workflow", "empty"),
            ("/key", "forbidden_character"),
            ("/correlation_id", "too_long"),
            ("/labels/a~1b", "forbidden_character"),
            ("/labels/c:d", "forbidden_character"),
            ("/labels/f", "empty"),
        ];
        assert_eq!(found(&start), expected.map(|(p, c)| (p.to_owned(), c.to_owned())));
    }

    #[test]
    fn a_claim_is_bounded() {
        let claim: ClaimTasks = serde_json::from_value(serde_json::json!({
            "worker": "w", "session": "0198c0de-0000-7000-8000-000000000000",
            "queues": {}, "max": 0, "wait": "31s"
        }))
        .unwrap();
        let places: Vec<_> = found(&claim).into_iter().map(|(pointer, _)| pointer).collect();
        assert_eq!(places, ["/queues", "/max", "/wait"]);
    }

    #[test]
    fn slugs() {
        assert!(is_slug("default") && is_slug("team-1.eu_x") && is_slug(&"a".repeat(100)));
        for bad in ["", "-a", "A", "a b", "a/b", "ä", &"a".repeat(101)] {
            assert!(!is_slug(bad), "{bad}");
        }
    }
}

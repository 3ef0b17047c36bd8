//! Checks of requests about incidents and jobs that go beyond their types.

use backstitch_saga::protocol::{
    AssignIncident, CompensateIncident, CompensateRun, IncidentFilter, NewJob, NoteIncident,
    RunsFilter,
};
use backstitch_saga::{IncidentKind, check_searched, is_fingerprint};

use super::{Check, Findings, MAX_KEY, MAX_MESSAGE, MAX_NAME, MAX_REASON};

impl Check for CompensateIncident {
    fn check(&self, findings: &mut Findings) {
        let (scope, reason) = (self.scope.clone(), self.reason.clone());
        CompensateRun { scope, reason, dry_run: false, force: self.force }.check(findings);
    }
}

impl Check for AssignIncident {
    fn check(&self, findings: &mut Findings) {
        if !self.assignee.is_empty() {
            findings.line("/assignee", &self.assignee, MAX_NAME);
        }
        if let Some(note) = &self.note {
            findings.prose("/note", note, MAX_MESSAGE);
        }
    }
}

impl Check for NoteIncident {
    fn check(&self, findings: &mut Findings) {
        if self.note.is_empty() {
            findings.add("/note", "empty", "It must not be empty");
        }
        findings.prose("/note", &self.note, MAX_MESSAGE);
    }
}

impl Check for NewJob {
    fn check(&self, findings: &mut Findings) {
        // Less than elsewhere: the job adds its id.
        findings.prose("/reason", &self.reason, MAX_REASON - 100);
        if let Some(filter) = &self.incidents {
            check_incidents(filter, findings);
        }
        if let Some(filter) = &self.runs {
            check_runs(filter, findings);
        }
    }
}

fn check_incidents(filter: &IncidentFilter, findings: &mut Findings) {
    if let Some(kind) = &filter.kind
        && !IncidentKind::WORDS.contains(&kind.as_str())
    {
        let message =
            format!("there is no such kind; there are {}", IncidentKind::WORDS.join(", "));
        findings.add("/incidents/kind", "unknown_kind", message);
    }
    if filter.fingerprint.as_deref().is_some_and(|text| !is_fingerprint(text)) {
        let message = "A fingerprint is 16 hexadecimal digits in lower case";
        findings.add("/incidents/fingerprint", "invalid_fingerprint", message);
    }
    for (name, text) in [
        ("kind", &filter.kind),
        ("workflow", &filter.workflow),
        ("step", &filter.step),
        ("assignee", &filter.assignee),
    ] {
        if let Some(text) = text {
            findings.line(&format!("/incidents/{name}"), text, MAX_NAME);
        }
    }
}

fn check_runs(filter: &RunsFilter, findings: &mut Findings) {
    for (name, text) in [
        ("workflow", &filter.workflow),
        ("key", &filter.key),
        ("correlation_id", &filter.correlation_id),
        ("condition", &filter.condition),
        ("unknown_in", &filter.unknown_in),
        ("assignee", &filter.assignee),
    ] {
        if let Some(text) = text {
            findings.line(&format!("/runs/{name}"), text, MAX_KEY);
        }
    }
    if let Some(condition) = &filter.condition
        && let Err(message) = check_searched(condition)
    {
        findings.add("/runs/condition", "unknown_condition", message);
    }
    for (name, value) in &filter.labels {
        findings.line("/runs/labels", name, MAX_KEY);
        findings.line("/runs/labels", value, MAX_KEY);
    }
}

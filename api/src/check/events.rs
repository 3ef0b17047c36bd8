//! Checks of events, except their data.

use backstitch_saga::protocol::{
    MoveCursor, NewEvent, PublishEvents, ResetSubscription, SkipEvent, SubscriptionSpec,
};

use super::{Check, Findings, MAX_LIST, MAX_NAME, MAX_REASON};

/// Longest type, stream, contract, name of a sender, and id that a sender gives an event, in bytes.
pub(crate) const MAX_EVENT_NAME: usize = 256;
/// Longest id of a correlation, a cause or a trace, in bytes.
pub(crate) const MAX_EVENT_ID: usize = 128;
/// Longest JSON Pointer, in bytes.
const MAX_POINTER: usize = 1_000;
/// Largest number of labels of an event.
pub(crate) const MAX_EVENT_LABELS: usize = 64;
/// Longest value of a label, in bytes.
pub(crate) const MAX_EVENT_LABEL: usize = 1_024;

impl Check for PublishEvents {
    fn check(&self, findings: &mut Findings) {
        findings.list("/events", self.events.len());
        for (at, event) in self.events.iter().enumerate().take(MAX_LIST) {
            check(event, &format!("/events/{at}"), findings);
        }
    }
}

impl Check for SubscriptionSpec {
    /// Leaves its filter to the place where it is read.
    fn check(&self, findings: &mut Findings) {
        findings.line("/workflow", &self.workflow, MAX_NAME);
        if let Some(key) = &self.key {
            findings.line("/key", key, MAX_POINTER);
        }
    }
}

impl Check for SkipEvent {
    fn check(&self, findings: &mut Findings) {
        findings.prose("/reason", &self.reason, MAX_REASON);
    }
}

impl Check for MoveCursor {
    fn check(&self, _: &mut Findings) {}
}

impl Check for ResetSubscription {
    fn check(&self, findings: &mut Findings) {
        findings.prose("/reason", &self.reason, MAX_REASON);
    }
}

fn check(event: &NewEvent, place: &str, findings: &mut Findings) {
    let named = |name: &str| format!("{place}/{name}");
    findings.line(&named("type"), &event.event_type, MAX_EVENT_NAME);
    for (name, text, most) in [
        ("id", &event.id, MAX_EVENT_NAME),
        ("source", &event.source, MAX_EVENT_NAME),
        ("stream", &event.stream, MAX_EVENT_NAME),
        ("contract", &event.contract, MAX_EVENT_NAME),
        ("correlation_id", &event.correlation_id, MAX_EVENT_ID),
        ("causation_id", &event.causation_id, MAX_EVENT_ID),
        ("traceparent", &event.traceparent, MAX_EVENT_ID),
    ] {
        if let Some(text) = text {
            findings.line(&named(name), text, most);
        }
    }
    if event.stream.is_none() {
        let missing = "It needs a stream, to whose version or data it refers";
        if event.expected_version.is_some() {
            findings.add(&named("expected_version"), "contradiction", missing);
        }
        if event.op.is_some() {
            findings.add(&named("op"), "contradiction", missing);
        }
    }
    if event.labels.len() > MAX_EVENT_LABELS {
        let message = format!("An event has at most {MAX_EVENT_LABELS} labels");
        findings.add(&named("labels"), "out_of_range", message);
    }
    for (label, value) in event.labels.iter().take(MAX_EVENT_LABELS) {
        findings.line(&named("labels"), label, MAX_EVENT_NAME);
        findings.text(&named("labels"), value, MAX_EVENT_LABEL, char::is_control);
    }
}

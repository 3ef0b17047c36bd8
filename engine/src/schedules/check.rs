//! Checks of a schedule before it is stored, and the start request that it makes for an instant.

use std::collections::BTreeMap;

use backstitch_saga::protocol::{Overlap, ScheduleSpec, StartRun, Warning};
use backstitch_saga::{
    Payload, SCHEDULE_LABELS, Span, Time, Timestamp, VALUE_ENCRYPTED, Violation,
};
use serde::de::IgnoredAny;

use super::instants::{Calendar, When};
use super::plan::{SetBack, most_put_off};
use crate::node::Node;
use crate::{Error, start};

/// The label that names the schedule of a run.
const SCHEDULE: &str = SCHEDULE_LABELS[0];
/// The label that names the instant of a run.
const SCHEDULED_FOR: &str = SCHEDULE_LABELS[1];
/// The most labels that a schedule gives its runs, beside these two.
pub(crate) const LABEL_LIMIT: usize = 30;
/// Largest number of starts that jitter may put off at the same time.
const PUT_OFF_LIMIT: usize = 100;
/// The most starts that may wait in a queue.
pub(crate) const QUEUE_LIMIT: u32 = 100;

/// Checks a schedule as a whole: its own fields, and that a run can be started so.
pub(super) async fn check(
    node: &Node,
    namespace: &str,
    name: &str,
    spec: &ScheduleSpec,
) -> Result<(), Error> {
    let mut wrong = Vec::new();
    match Calendar::read(&When::from(spec)) {
        Ok(calendar) => check_jitter(spec, &calendar, node.clock.now(), &mut wrong),
        Err(violations) => wrong = violations,
    }
    check_numbers(spec, &mut wrong);
    check_labels(spec, &mut wrong);
    match request(name, spec, spec.version, Time(0), String::new()) {
        Err(violation) => wrong.push(violation),
        Ok(mut request) => {
            // Its labels are checked above, in their own place.
            (request.key, request.labels) = (None, BTreeMap::new());
            match start::check_request(node, namespace, request).await {
                Ok(()) => {}
                Err(Error::Invalid { violations, .. }) => wrong.extend(violations),
                Err(Error::NotFound { code, message }) => {
                    wrong.push(Violation::new("/workflow", code, message));
                }
                Err(other) => return Err(other),
            }
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Error::Invalid { code: "invalid_schedule", violations: wrong })
}

fn check_numbers(spec: &ScheduleSpec, wrong: &mut Vec<Violation>) {
    let mut out_of_range = |pointer: &str, message: String| {
        wrong.push(Violation::new(pointer, "out_of_range", message));
    };
    if !(1..=QUEUE_LIMIT).contains(&spec.queue_limit) {
        let message = format!("1 to {QUEUE_LIMIT} starts may wait, not {}", spec.queue_limit);
        out_of_range("/queue_limit", message);
    }
    if spec.jitter > Span::days(1) {
        out_of_range("/jitter", format!("at most {}, not {}", Span::days(1), spec.jitter));
    }
    // A start is always a little late: with less than this a busy server would miss every one.
    if !(Span::secs(10)..=Span::days(366)).contains(&spec.catch_up) {
        out_of_range("/catch_up", format!("10s to {}, not {}", Span::days(366), spec.catch_up));
    }
    if let Some(within) = spec.end_within
        && !(Span(1)..=Span::days(366)).contains(&within)
    {
        out_of_range("/end_within", format!("1ms to {}, not {within}", Span::days(366)));
    }
}

/// Checks the jitter: each instant is put off separately, so only so many may fall within it.
fn check_jitter(spec: &ScheduleSpec, calendar: &Calendar, now: Time, wrong: &mut Vec<Violation>) {
    if spec.jitter.0 > 0 && most_put_off(spec, calendar, now, PUT_OFF_LIMIT) > PUT_OFF_LIMIT {
        let message = format!(
            "more than {PUT_OFF_LIMIT} instants fall within {}, and each would be put off for itself; shorten it",
            spec.jitter
        );
        wrong.push(Violation::new("/jitter", "out_of_range", message));
    }
}

/// Returns the settings of a schedule that have no effect, or are hardly intended; it is stored all
/// the same.
pub(super) fn warnings(
    spec: &ScheduleSpec,
    is_over: bool,
    set_back: Option<&SetBack>,
) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |pointer: &str, code: &str, message: String| {
        let (pointer, code) = (pointer.to_owned(), code.to_owned());
        warnings.push(Warning { pointer, code, message });
    };
    if spec.queue_limit != 1 && spec.overlap != Overlap::Queue {
        let message = format!(
            "up to {} starts may wait, but none does unless `overlap` is `queue`",
            spec.queue_limit
        );
        warn("/queue_limit", "no_effect", message);
    }
    if is_over {
        let message = "no instant is to come any more, so that nothing is started".to_owned();
        warn(if spec.end.is_some() { "/end" } else { "/cron" }, "never_due", message);
    }
    if let Some(SetBack { at, until, .. }) = set_back {
        let message = format!(
            "the database's clock was ahead and was corrected at {at}: instants up to {until} come again, but those that were \
             started too early are not started twice"
        );
        warn("/cron", "clock_corrected", message);
    }
    warnings
}

fn check_labels(spec: &ScheduleSpec, wrong: &mut Vec<Violation>) {
    if spec.labels.len() > LABEL_LIMIT {
        let message = format!("at most {LABEL_LIMIT} labels, not {}", spec.labels.len());
        wrong.push(Violation::new("/labels", "too_many", message));
    }
    wrong.extend(backstitch_saga::check_labels("/labels", &spec.labels));
    for name in [SCHEDULE, SCHEDULED_FOR] {
        if spec.labels.contains_key(name) {
            let message = "this label is given to each run by its schedule";
            wrong.push(Violation::new(format!("/labels/{name}"), "reserved_name", message));
        }
    }
}

/// Returns the request that starts the run for `instant`.
pub(super) fn request(
    name: &str,
    spec: &ScheduleSpec,
    version: Option<u32>,
    instant: Time,
    key: String,
) -> Result<StartRun, Violation> {
    let mut labels = spec.labels.clone();
    labels.insert(SCHEDULE.to_owned(), name.to_owned());
    labels.insert(SCHEDULED_FOR.to_owned(), instant.to_string());
    let input = match &spec.instant_as {
        Some(member) => with_instant(&spec.input, member, instant)?,
        None => spec.input.clone(),
    };
    Ok(StartRun {
        workflow: spec.workflow.clone(),
        version,
        key: Some(key),
        input,
        correlation_id: None,
        causation_id: None,
        labels,
        sequence: None,
        start_at: None,
        delay: None,
        end_by: None,
        undo_budget: None,
    })
}

/// Returns the input with the instant as its first member; every other byte is unchanged.
fn with_instant(input: &Payload, member: &str, instant: Time) -> Result<Payload, Violation> {
    let wrong = |code, message: String| Violation::new("/instant_as", code, message);
    if input.is_envelope() {
        let message = "the input is encrypted, so that no instant can be put into it";
        return Err(wrong(VALUE_ENCRYPTED, message.to_owned()));
    }
    let text = if input.is_null() { "{}" } else { input.text().trim() };
    let members: BTreeMap<String, IgnoredAny> = serde_json::from_str(text).map_err(|_| {
        wrong("wrong_type", "only an input that is an object can be told its instant".to_owned())
    })?;
    if members.contains_key(member) {
        return Err(wrong("duplicate_key", format!("the input has a member '{member}' already")));
    }
    let bad = |error: serde_json::Error| wrong("invalid_json", error.to_string());
    let member = serde_json::to_string(member).map_err(bad)?;
    let instant = serde_json::to_string(&Timestamp(instant)).map_err(bad)?;
    let comma = if members.is_empty() { "" } else { "," };
    let rest = text.strip_prefix('{').unwrap_or_default();
    Payload::trusted(format!("{{{member}:{instant}{comma}{rest}")).map_err(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(text: &str) -> Payload {
        Payload::trusted(text.to_owned()).unwrap()
    }

    #[test]
    fn the_instant_is_put_into_the_input_and_nothing_else_changes() {
        let at = Time(1_774_742_400_000);
        let table = [
            ("null", r#"{"at":"2026-03-29T00:00:00.000Z"}"#),
            ("{}", r#"{"at":"2026-03-29T00:00:00.000Z"}"#),
            ("{ \"n\": 1e400 }", "{\"at\":\"2026-03-29T00:00:00.000Z\", \"n\": 1e400 }"),
        ];
        for (input, expected) in table {
            assert_eq!(with_instant(&payload(input), "at", at).unwrap().text(), expected);
        }
        for (input, code) in
            [("[1]", "wrong_type"), ("7", "wrong_type"), (r#"{"at":1}"#, "duplicate_key")]
        {
            assert_eq!(with_instant(&payload(input), "at", at).unwrap_err().code, code, "{input}");
        }
    }
}

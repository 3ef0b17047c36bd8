//! Checks of a job before it is created.

use backstitch_saga::protocol::{Canary, IncidentFilter, IncidentState, JobVerb, NewJob, StopWhen};
use backstitch_saga::{Violation, check_label_name, check_labels, check_reserved};

use crate::Error;
use crate::store::jobs::Many;
use crate::tasks::check_payload;

/// Returns what a request for a job is made for, or everything that is wrong with it.
pub(super) fn check(asked: &NewJob, payload_limit: usize) -> Result<Many, Error> {
    let mut violations = Vec::new();
    let mut wrong = |pointer: &str, code: &str, message: &str| {
        violations.push(Violation::new(pointer, code, message));
    };
    // PostgreSQL has no such text.
    if serde_json::to_string(asked).is_ok_and(|text| text.contains("\\u0000")) {
        wrong("", "nul_character", "The character U+0000 must not stand here");
    }
    if !(0.1..=1_000.0).contains(&asked.rate) {
        wrong("/rate", "out_of_range", "It must be 0.1 to 1,000 a second");
    }
    if let Some(Canary { first, .. }) = &asked.canary
        && !(1..=100).contains(first)
    {
        wrong("/canary/first", "out_of_range", "It must be 1 to 100");
    }
    match asked.stop_when {
        Some(StopWhen::Count(0)) => {
            wrong("/stop_when/count", "out_of_range", "It must be 1 or more");
        }
        Some(StopWhen::Ratio(ratio)) if !(ratio > 0.0 && ratio <= 1.0) => {
            wrong("/stop_when/ratio", "out_of_range", "It must be above 0 and at most 1");
        }
        _ => {}
    }
    if asked.reason.trim().is_empty() && !asked.dry_run {
        wrong("/reason", "reason_missing", "Say why: it is kept in the history of each run");
    }
    if asked.verb == JobVerb::Resolve {
        wrong("/verb", "out_of_range", "Each has its own output: resolve them one by one");
    }
    check_verb(asked, payload_limit, &mut violations);
    let mut wrong = |pointer: &str, code: &str, message: &str| {
        violations.push(Violation::new(pointer, code, message));
    };
    let many = match (&asked.incidents, &asked.runs) {
        (Some(filter), None) => {
            if filter.state == Some(IncidentState::Resolved) {
                wrong(
                    "/incidents/state",
                    "out_of_range",
                    "Nothing can be done to resolved incidents",
                );
            }
            let open = IncidentFilter { state: Some(IncidentState::Open), ..filter.clone() };
            Some(Many::Incidents(open))
        }
        (None, Some(filter)) => {
            if matches!(asked.verb, JobVerb::MarkCompensated | JobVerb::Skip) {
                wrong("/verb", "out_of_range", "This verb is for incidents: it needs a step");
            }
            Some(Many::Runs(Box::new(filter.into())))
        }
        _ => {
            wrong("", "missing_field", "Say either incidents or runs");
            None
        }
    };
    match many {
        Some(many) if violations.is_empty() => Ok(many),
        _ => Err(Error::Invalid { code: "invalid_request", violations }),
    }
}

/// Adds what is wrong with what a verb needs: each part belongs to its verb and to no other.
fn check_verb(asked: &NewJob, payload_limit: usize, violations: &mut Vec<Violation>) {
    let verb = asked.verb;
    let given = [
        ("/from", asked.from.is_some(), &[JobVerb::Rerun][..]),
        ("/input", asked.input.is_some(), &[JobVerb::Rerun]),
        ("/force", asked.force, &[JobVerb::Rerun]),
        ("/items", !asked.items.is_all(), &[JobVerb::Rerun]),
        ("/name", asked.name.is_some(), &[JobVerb::Pause, JobVerb::Resume]),
        ("/signal", asked.signal.is_some(), &[JobVerb::Signal]),
        ("/data", asked.data.is_some(), &[JobVerb::Signal]),
        ("/set", !asked.set.is_empty(), &[JobVerb::Label]),
        ("/remove", !asked.remove.is_empty(), &[JobVerb::Label]),
    ];
    let foreign = given.iter().filter(|(_, given, verbs)| *given && !verbs.contains(&verb));
    for (pointer, ..) in foreign {
        violations.push(Violation::new(
            *pointer,
            "out_of_range",
            "It does not belong to this verb",
        ));
    }
    let needs = match verb {
        JobVerb::Rerun if asked.from.is_none() => Some(("/from", "Say from which step")),
        JobVerb::Signal if asked.signal.is_none() => Some(("/signal", "Say which signal")),
        JobVerb::Label if asked.set.is_empty() && asked.remove.is_empty() => {
            Some(("/set", "Say which labels are set or removed"))
        }
        _ => None,
    };
    violations.extend(needs.map(|(at, message)| Violation::new(at, "missing_field", message)));
    for (pointer, document) in [("/input", &asked.input), ("/data", &asked.data)] {
        if let Err(Error::Invalid { violations: found, .. }) =
            check_payload(pointer, document.as_ref(), payload_limit)
        {
            violations.extend(found);
        }
    }
    violations.extend(check_labels("/set", &asked.set));
    violations.extend(check_reserved("/set", asked.set.keys().map(String::as_str)));
    violations.extend(check_reserved("/remove", asked.remove.iter().map(String::as_str)));
    for (place, name) in asked.remove.iter().enumerate() {
        check_label_name(&format!("/remove/{place}"), name, violations);
    }
}

//! Differences between the indexes and the journals, as sentences for people: one for each column or row.

use std::collections::BTreeMap;
use std::fmt::Display;

use crate::sequence;
use crate::store::acts::ActRow;
use crate::store::index::{Charge, EffectRow, IncidentRow, IndexRows, ReadyLine, RunRow};

/// Word for a missing value.
const NONE: &str = "nothing";

/// Describes the differences.
pub(super) fn differences(expected: &IndexRows, there: &IndexRows) -> Vec<String> {
    let mut told = Vec::new();
    match (&expected.run, &there.run) {
        (Some(expected), Some(there)) => columns("runs", run(expected), run(there), &mut told),
        (Some(expected), None) => {
            let RunRow { workflow, version, state, .. } = expected;
            told.push(format!(
                "runs has no line for it; by the journal it is a run of '{workflow}' version {version} in the state {state}"
            ));
        }
        (None, Some(_)) => {
            told.push("runs has a line for it that the journal does not explain".to_owned());
        }
        (None, None) => {}
    }
    lines("ready", &expected.ready, &there.ready, task, &mut told);
    incidents(&expected.incidents, &there.incidents, &mut told);
    lines("open_effects", &expected.effects, &there.effects, effect, &mut told);
    lines("acts", &expected.acts, &there.acts, act, &mut told);
    if expected.key.is_some() && there.key.is_none() && there.key_taken_by.is_none() {
        told.push("run_keys has no line for its key".to_owned());
    }
    for (step, action, attempt) in &expected.fences {
        let fence = (step.clone(), action.clone(), *attempt);
        if !there.fences.contains(&fence) {
            told.push(format!("fences has no line for attempt {attempt} of {action} of {step}"));
        }
    }
    told.extend(sequence::rows::missing(&expected.sequence, &there.sequence));
    told
}

/// Tells each column that differs.
fn columns<const N: usize>(
    line: &str,
    expected: [(&'static str, String); N],
    there: [(&'static str, String); N],
    told: &mut Vec<String>,
) {
    for ((name, expected), (_, there)) in expected.into_iter().zip(there) {
        if expected != there {
            told.push(format!("{line} says {name}: {there}; the journal says: {expected}"));
        }
    }
}

/// Returns the columns of a run, in words. The order of its labels and of their white space means nothing.
fn run(row: &RunRow) -> [(&'static str, String); 13] {
    let RunRow {
        namespace,
        workflow,
        version,
        definition,
        key,
        correlation_id,
        labels,
        state,
        outcome,
        conditions,
        started_at,
        ended_at,
        charge,
    } = row;
    let conditions = Some(conditions.join(", ")).filter(|all| !all.is_empty());
    [
        ("namespace", namespace.clone()),
        ("workflow", workflow.clone()),
        ("version", version.to_string()),
        ("definition", definition.clone()),
        ("key", word(key.as_ref())),
        ("correlation_id", word(correlation_id.as_ref())),
        ("labels", word(labels.as_deref().map(sorted).as_ref())),
        ("state", state.clone()),
        ("outcome", word(outcome.as_ref())),
        ("conditions", word(conditions.as_ref())),
        ("started_at", started_at.to_string()),
        ("ended_at", word(ended_at.as_ref())),
        ("who looks after its timers", who(charge)),
    ]
}

/// Formats labels in the order of their names; another text is unchanged.
fn sorted(labels: &str) -> String {
    let read = serde_json::from_str::<BTreeMap<String, String>>(labels);
    read.ok().and_then(|all| serde_json::to_string(&all).ok()).unwrap_or_else(|| labels.to_owned())
}

fn word(value: Option<&impl Display>) -> String {
    value.map_or_else(|| NONE.to_owned(), ToString::to_string)
}

fn who(charge: &Charge) -> String {
    match charge {
        Charge::Node(node) => format!("node {node}"),
        Charge::Parked(None) => "nobody".to_owned(),
        Charge::Parked(Some(at)) => format!("nobody before {at}"),
    }
}

/// Tells each line that is missing, and each that is too many.
fn lines<T: PartialEq>(
    table: &str,
    expected: &[T],
    there: &[T],
    words: impl Fn(&T) -> String,
    told: &mut Vec<String>,
) {
    let before = told.len();
    for one in expected.iter().filter(|one| !there.contains(one)) {
        told.push(format!("{table} has no line for {}", words(one)));
    }
    for one in there.iter().filter(|one| !expected.contains(one)) {
        told.push(format!("{table} has a line that the journal does not explain: {}", words(one)));
    }
    if expected != there && told.len() == before {
        told.push(format!("{table} has its lines twice, or in another order"));
    }
}

fn task(line: &ReadyLine) -> String {
    let ReadyLine { step, action, attempt, namespace, queue, name } = line;
    format!(
        "attempt {attempt} of {action} of {step}, the handler '{name}' on queue '{queue}' of namespace '{namespace}'"
    )
}

fn effect(row: &EffectRow) -> String {
    let EffectRow { step, namespace, workflow, system, standing, unknown } = row;
    format!(
        "{step} of '{workflow}' in namespace '{namespace}': {standing} standing and {unknown} unknown in '{system}'"
    )
}

fn act(act: &ActRow) -> String {
    let ActRow { seq, place, at, actor, verb, step, reason } = act;
    let step = step.as_ref().map_or(String::new(), |step| format!(" of {step}"));
    format!(
        "{verb}{step} by '{actor}' at {at}, in record {seq} at place {place}, because '{reason}'"
    )
}

fn incidents(expected: &[IncidentRow], there: &[IncidentRow], told: &mut Vec<String>) {
    for one in expected {
        match there.iter().find(|other| other.incident == one.incident) {
            Some(other) => {
                let line = format!("incidents, for number {},", one.incident);
                columns(&line, incident(one), incident(other), told);
            }
            None => told.push(format!(
                "incidents has no line for number {}, {}: {}",
                one.incident, one.kind, one.message
            )),
        }
    }
    let unknown =
        there.iter().filter(|one| !expected.iter().any(|other| other.incident == one.incident));
    for one in unknown {
        told.push(format!(
            "incidents has a line that the journal does not explain: number {}, {}: {}",
            one.incident, one.kind, one.message
        ));
    }
}

/// Returns the columns of an incident, in words.
fn incident(row: &IncidentRow) -> [(&'static str, String); 10] {
    let IncidentRow {
        incident,
        namespace,
        workflow,
        kind,
        step,
        code,
        message,
        fingerprint,
        opened_at,
        resolved_at,
    } = row;
    [
        ("number", incident.to_string()),
        ("namespace", namespace.clone()),
        ("workflow", workflow.clone()),
        ("kind", kind.clone()),
        ("step", word(step.as_ref())),
        ("code", word(code.as_ref())),
        ("message", message.clone()),
        ("fingerprint", fingerprint.clone()),
        ("opened_at", opened_at.to_string()),
        ("resolved_at", word(resolved_at.as_ref())),
    ]
}

#[cfg(test)]
mod tests {
    use backstitch_saga::Time;

    use super::*;

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn row() -> RunRow {
        RunRow {
            namespace: "shop".to_owned(),
            workflow: "order".to_owned(),
            version: 1,
            definition: "d".to_owned(),
            key: None,
            correlation_id: None,
            labels: text(r#"{"a":"1","b":"2"}"#),
            state: "waiting".to_owned(),
            outcome: None,
            conditions: Vec::new(),
            started_at: Time(1_769_853_731_000),
            ended_at: None,
            charge: Charge::Parked(Some(Time(1_769_853_732_000))),
        }
    }

    fn rows() -> IndexRows {
        let ready = vec![ReadyLine {
            step: "pay".to_owned(),
            action: "forward".to_owned(),
            attempt: 1,
            namespace: "shop".to_owned(),
            queue: "bank".to_owned(),
            name: "charge".to_owned(),
        }];
        let incident = IncidentRow {
            incident: 1,
            namespace: "shop".to_owned(),
            workflow: "order".to_owned(),
            kind: "task_exhausted".to_owned(),
            step: text("pay"),
            code: text("refused"),
            message: "the bank said no".to_owned(),
            fingerprint: "f".to_owned(),
            opened_at: Time(1_769_853_731_000),
            resolved_at: None,
        };
        let effect = EffectRow {
            step: "pay".to_owned(),
            namespace: "shop".to_owned(),
            workflow: "order".to_owned(),
            system: "bank".to_owned(),
            standing: 0,
            unknown: 1,
        };
        let act = ActRow {
            seq: 2,
            place: 0,
            at: Time(1_769_853_731_000),
            actor: "ann".to_owned(),
            verb: "retry".to_owned(),
            step: text("pay"),
            reason: "the bank is back".to_owned(),
        };
        IndexRows {
            run: Some(row()),
            ready,
            incidents: vec![incident],
            effects: vec![effect],
            acts: vec![act],
            fences: vec![("pay".to_owned(), "forward".to_owned(), 1)],
            ..IndexRows::default()
        }
    }

    #[test]
    fn labels_differ_by_content_only() {
        let mut other = rows();
        other.run.as_mut().unwrap().labels = text(r#"{"b": "2", "a": "1"}"#);
        assert_eq!(differences(&rows(), &other), [""; 0]);
        other.run.as_mut().unwrap().labels = text(r#"{"a":"2"}"#);
        assert_eq!(
            differences(&rows(), &other),
            [r#"runs says labels: {"a":"2"}; the journal says: {"a":"1","b":"2"}"#]
        );
    }

    #[test]
    fn each_difference_is_a_sentence_about_one_column_or_line() {
        let mut other = rows();
        let run = other.run.as_mut().unwrap();
        run.state = "ended".to_owned();
        run.outcome = text("succeeded");
        run.charge = Charge::Node(7);
        other.incidents[0].resolved_at = Some(Time(1_769_853_733_000));
        assert_eq!(
            differences(&rows(), &other),
            [
                "runs says state: ended; the journal says: waiting",
                "runs says outcome: succeeded; the journal says: nothing",
                "runs says who looks after its timers: node 7; the journal says: nobody before 2026-01-31T10:02:12.000Z",
                "incidents, for number 1, says resolved_at: 2026-01-31T10:02:13.000Z; the journal says: nothing",
            ]
        );
    }

    #[test]
    fn lines_that_are_missing_or_too_many_are_told_each() {
        let nothing = IndexRows::default();
        let missing = [
            "runs has no line for it; by the journal it is a run of 'order' version 1 in the state waiting",
            "ready has no line for attempt 1 of forward of pay, the handler 'charge' on queue 'bank' \
             of namespace 'shop'",
            "incidents has no line for number 1, task_exhausted: the bank said no",
            "open_effects has no line for pay of 'order' in namespace 'shop': 0 standing and 1 unknown in 'bank'",
            "acts has no line for retry of pay by 'ann' at 2026-01-31T10:02:11.000Z, in record 2 at place 0, because \
             'the bank is back'",
            "fences has no line for attempt 1 of forward of pay",
        ];
        assert_eq!(differences(&rows(), &nothing), missing);
        let told = differences(&nothing, &rows());
        assert_eq!(told.len(), 5, "{told:?}");
        assert!(told.iter().all(|one| one.contains("the journal does not explain")), "{told:?}");
    }
}

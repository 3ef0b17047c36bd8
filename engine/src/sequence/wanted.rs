//! Serial key and facts of a start: its definition's expressions over the input, and the caller's additions.

use std::collections::{BTreeMap, BTreeSet};

use backstitch_saga::protocol::{FactOn, OnConflict, OnWithdrawn, Requirement, StartSequence};
use backstitch_saga::{
    Bindings, Definition, Expr, Gathered, Payload, RequiredFact, Run, Span, Violation,
};
use sqlx::postgres::PgConnection;

use super::{check_fact, check_texts};
use crate::Error;
use crate::store::facts as table;

/// Time that a run waits for the facts that it requires, by default.
pub(super) const WITHIN: Span = Span::days(1);
/// The most facts that one run may require, and establish.
pub(crate) const MAX_FACTS: usize = 100;

/// Serial key and facts of a start.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) serial: Option<(String, OnConflict)>,
    pub(crate) requires: Vec<Requirement>,
    /// Policy for the run when each of them is withdrawn.
    pub(crate) policies: Vec<OnWithdrawn>,
    pub(crate) produces: Vec<Requirement>,
    pub(crate) within: Span,
}

/// The input alone.
struct Input<'a>(&'a Payload);

impl Bindings for Input<'_> {
    fn input(&self) -> Payload {
        self.0.clone()
    }

    fn step(&self, _: &str) -> Option<Payload> {
        None
    }

    fn gathered(&self, _: &str) -> Option<Gathered> {
        None
    }

    fn gathered_item(&self, _: &str, _: usize) -> Option<Payload> {
        None
    }

    fn item(&self) -> Option<Payload> {
        None
    }

    fn index(&self) -> Option<u32> {
        None
    }
}

impl Wanted {
    /// Returns the serial key and facts of a start with this input; `None` if it has none.
    pub(crate) fn of(
        definition: &Definition,
        asked: Option<StartSequence>,
        input: &Payload,
    ) -> Result<Option<Wanted>, Error> {
        if definition.sequence.is_none() && asked.is_none() {
            return Ok(None);
        }
        let own = definition.sequence.clone().unwrap_or_default();
        let asked = asked.unwrap_or_default();
        let key = match (asked.serial_key.clone(), &own.serial_key) {
            (Some(key), _) => Some(key),
            (None, Some(expr)) => Some(text(expr, input, "/sequence/serial_key")?),
            (None, None) => None,
        };
        let (requires, policies) = requirements(&own.requires, &asked, input)?;
        let produces = facts(&own.produces, input, "/sequence/produces")?;
        for (facts, pointer) in
            [(&requires, "/sequence/requires"), (&produces, "/sequence/produces")]
        {
            if facts.len() > MAX_FACTS {
                let message = format!("at most {MAX_FACTS} facts, not {}", facts.len());
                let violation = Violation::new(pointer, "out_of_range", message);
                return Err(Error::invalid("invalid_request", violation));
            }
        }
        let mut texts: Vec<(&str, &str)> = Vec::new();
        texts.extend(key.as_deref().map(|key| ("/sequence/serial_key", key)));
        texts.extend(requires.iter().map(|one| ("/sequence/requires", one.on.as_str())));
        texts.extend(produces.iter().map(|one| ("/sequence/produces", one.on.as_str())));
        check_texts(&texts)?;
        requires.iter().try_for_each(|one| check_fact(&one.fact, "/sequence/requires"))?;
        let policy = asked.on_conflict.unwrap_or(own.on_conflict);
        let within = asked.requires_within.or(own.requires_within).unwrap_or(WITHIN);
        let serial = key.map(|key| (key, policy));
        let wanted = Wanted { serial, requires, policies, produces, within };
        let alone =
            wanted.serial.is_none() && wanted.requires.is_empty() && wanted.produces.is_empty();
        Ok((!alone).then_some(wanted))
    }
}

impl Wanted {
    /// Returns the required facts, each with its policy for a withdrawal.
    pub(crate) fn required(&self) -> Vec<RequiredFact> {
        let all = self.requires.iter().cloned().zip(self.policies.iter().copied());
        all.map(|(one, on_withdrawn)| RequiredFact { one, on_withdrawn }).collect()
    }
}

/// Returns the facts that a run requires, each once and in order, with their policies for a withdrawal: those of
/// the definition precede those of the start.
fn requirements(
    own: &[FactOn],
    asked: &StartSequence,
    input: &Payload,
) -> Result<(Vec<Requirement>, Vec<OnWithdrawn>), Error> {
    let policy = asked.on_withdrawn.unwrap_or_default();
    let mut all: BTreeMap<Requirement, OnWithdrawn> =
        asked.requires.iter().map(|one| (one.clone(), policy)).collect();
    let policies = own.iter().map(|one| one.on_withdrawn.unwrap_or_default());
    all.extend(facts(own, input, "/sequence/requires")?.into_iter().zip(policies));
    Ok(all.into_iter().unzip())
}

/// Returns the facts that a run requires, established ones included. The journals of runs that began before these were
/// written have what the definition says.
pub(super) fn required(run: &Run) -> Vec<RequiredFact> {
    if !run.requires().is_empty() {
        return run.requires().to_vec();
    }
    let sequence = run.graph().definition.sequence.as_ref();
    let (Some(sequence), Some(input)) = (sequence, run.input()) else { return Vec::new() };
    let asked = StartSequence::default();
    let (requires, policies) = requirements(&sequence.requires, &asked, input).unwrap_or_default();
    let all = requires.into_iter().zip(policies);
    all.map(|(one, on_withdrawn)| RequiredFact { one, on_withdrawn }).collect()
}

/// Returns the facts that a run establishes when it has succeeded. It began, so its input had all
/// that this needs.
pub(crate) fn produced(run: &Run) -> Vec<Requirement> {
    let sequence = run.graph().definition.sequence.as_ref();
    let (Some(sequence), Some(input)) = (sequence, run.input()) else { return Vec::new() };
    facts(&sequence.produces, input, "/sequence/produces").unwrap_or_default()
}

fn facts(all: &[FactOn], input: &Payload, pointer: &str) -> Result<Vec<Requirement>, Error> {
    let fact = |one: &FactOn| {
        Ok(Requirement { fact: one.fact.clone(), on: text(&one.on, input, pointer)? })
    };
    all.iter().map(fact).collect()
}

/// Returns the text of an expression: a text, a number, or a list of these joined by colons.
fn text(expr: &Expr, input: &Payload, pointer: &str) -> Result<String, Error> {
    let invalid = |message: String| {
        Error::invalid("invalid_input", Violation::new(pointer, "no_text", message))
    };
    let value = expr.eval(&Input(input)).map_err(|error| invalid(error.to_string()))?;
    let text = match value.elements() {
        Some(parts) => {
            parts.iter().map(scalar).collect::<Option<Vec<_>>>().map(|parts| parts.join(":"))
        }
        None => scalar(&value),
    };
    text.ok_or_else(|| invalid("a text, a number, or a list of these is needed".to_owned()))
}

/// Returns a text, or a number as all its spellings are written.
fn scalar(value: &Payload) -> Option<String> {
    match value.text().as_bytes().first()? {
        b'"' => value.to().ok(),
        b'-' | b'0'..=b'9' => Some(value.canonical()),
        _ => None,
    }
}

/// Refuses a definition whose runs could wait for each other in a circle, with those that are registered.
pub(crate) async fn check_definition(
    connection: &mut PgConnection,
    namespace: &str,
    new: &Definition,
) -> Result<(), Error> {
    let others = table::sequenced_definitions(connection, namespace).await?;
    // A definition that cannot be read here was written by a newer program, which checks itself.
    let others: Vec<Definition> =
        others.iter().filter_map(|text| serde_json::from_str(text).ok()).collect();
    check_cycles(new, &others).map_err(|violation| Error::invalid("invalid_definition", violation))
}

/// Refuses a definition whose runs could wait for each other in a circle. `others` are the newest definitions of the
/// other workflows.
fn check_cycles(new: &Definition, others: &[Definition]) -> Result<(), Violation> {
    // Which facts a fact waits for, and by whose doing.
    let mut waits: BTreeMap<&str, BTreeSet<(&str, &str)>> = BTreeMap::new();
    let others = others.iter().filter(|other| other.name != new.name);
    for definition in others.chain([new]) {
        let Some(sequence) = &definition.sequence else { continue };
        for produced in &sequence.produces {
            let on = waits.entry(&produced.fact).or_default();
            on.extend(
                sequence.requires.iter().map(|one| (one.fact.as_str(), definition.name.as_str())),
            );
        }
    }
    for start in waits.keys() {
        let mut path: Vec<(&str, &str)> = Vec::new();
        if let Some(cycle) = cycle_from(start, start, &waits, &mut path, &mut BTreeSet::new()) {
            let message = format!("runs would wait for each other for ever: {cycle}");
            return Err(Violation::new("/sequence/requires", "requirement_cycle", message));
        }
    }
    Ok(())
}

fn cycle_from<'a>(
    start: &str,
    at: &'a str,
    waits: &BTreeMap<&'a str, BTreeSet<(&'a str, &'a str)>>,
    path: &mut Vec<(&'a str, &'a str)>,
    seen: &mut BTreeSet<&'a str>,
) -> Option<String> {
    for (next, by) in waits.get(at)? {
        path.push((next, by));
        if *next == start {
            let told: Vec<String> =
                path.iter().map(|(fact, by)| format!("'{by}' requires '{fact}'")).collect();
            return Some(format!("'{start}': {}", told.join(", ")));
        }
        if seen.insert(next)
            && let Some(cycle) = cycle_from(start, next, waits, path, seen)
        {
            return Some(cycle);
        }
        path.pop();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(name: &str, sequence: &str) -> Definition {
        let text = format!(r#"{{"name":"{name}","version":1,"steps":[],"sequence":{sequence}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    fn input(text: &str) -> Payload {
        Payload::trusted(text.to_owned()).unwrap()
    }

    #[test]
    fn keys_are_texts_made_of_the_input() {
        let definition = definition(
            "order",
            r#"{"serial_key":{"array":[{"const":"customer"},{"path":"/input/customer"}]},
               "requires":[{"fact":"customer.created","on":{"path":"/input/customer"}}]}"#,
        );
        let wanted = Wanted::of(&definition, None, &input(r#"{"customer":42}"#)).unwrap().unwrap();
        assert_eq!(wanted.serial, Some(("customer:42".to_owned(), OnConflict::Queue)));
        assert_eq!(wanted.requires[0].on, "42");
        let asked =
            StartSequence { serial_key: Some("other".to_owned()), ..StartSequence::default() };
        let wanted =
            Wanted::of(&definition, Some(asked), &input(r#"{"customer":"c"}"#)).unwrap().unwrap();
        assert_eq!((wanted.serial.unwrap().0.as_str(), wanted.within), ("other", Span::days(1)));
        for bad in ["{}", r#"{"customer":null}"#, r#"{"customer":""}"#, r#"{"customer":{}}"#] {
            assert!(Wanted::of(&definition, None, &input(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn circles_are_found_and_told() {
        let on = r#""on":{"path":"/input"}"#;
        let make = |name: &str, requires: &str, produces: &str| {
            definition(
                name,
                &format!(
                    r#"{{"requires":[{{"fact":"{requires}",{on}}}],"produces":[{{"fact":"{produces}",{on}}}]}}"#
                ),
            )
        };
        let (a, b, c) = (make("a", "z", "x"), make("b", "x", "y"), make("c", "y", "z"));
        assert!(check_cycles(&b, std::slice::from_ref(&a)).is_ok());
        let told = check_cycles(&c, &[a.clone(), b]).unwrap_err();
        assert_eq!(told.code, "requirement_cycle");
        for part in ["'a' requires 'z'", "'b' requires 'x'", "'c' requires 'y'"] {
            assert!(told.message.contains(part), "{told}");
        }
        assert!(check_cycles(&make("d", "q", "q"), &[]).is_err());
        // A new version of a workflow replaces the old one.
        assert!(check_cycles(&make("a", "q", "x"), &[a, make("c", "x", "z")]).is_ok());
    }
}

//! Actions on a run, as forms. The API decides which verbs apply; this file has their fields.

use backstitch_saga::protocol::{Awaits, RunView, State, WaitsFor};
use backstitch_saga::{RunId, StepPath};

use crate::ask::encoded;
use crate::form::{Deed, Field};

/// A longer title of a member is not shown, but its name.
const TITLE: usize = 100;

/// Returns a verb of the API about a run, or about a step of it; `None` for those that have a page of their own.
pub(crate) fn deed(verb: &str, run: RunId, step: Option<&StepPath>) -> Option<Deed> {
    let of_run = |word: &str| format!("/v1/runs/{run}/{word}");
    let of_step = |step: &StepPath, word: &str| {
        format!("/v1/runs/{run}/steps/{}/{word}", encoded(&step.to_string()))
    };
    Some(match (verb, step) {
        ("retry", Some(step)) => Deed::new("retry", "Retry", of_step(step, "retry"))
            .about("Tries again with fresh attempts.")
            .field(Field::json("input", "Input instead").hint("JSON. Empty: the input of before.")),
        ("retry", None) => Deed::new("retry", "Retry", of_run("retry"))
            .about("Tries everything again that waits for a person."),
        ("skip", Some(step)) => Deed::new("skip", "Skip", of_step(step, "skip"))
            .about("Goes on without the step.")
            .field(Field::json("output", "Output in its place").hint("JSON. Empty: it has none.")),
        ("resolve", Some(step)) => Deed::new("resolve", "Resolve", of_step(step, "resolve"))
            .about("Says that the step was done by hand, and what came of it.")
            .field(
                Field::json("output", "Output")
                    .hint("JSON, as a worker would report it.")
                    .required(),
            )
            .field(Field::text("external_id", "What the other system calls it")),
        ("mark-compensated", Some(step)) => {
            Deed::new("mark-compensated", "Mark compensated", of_step(step, "mark-compensated"))
                .about("Vouches that the step is undone, or needs not be.")
        }
        ("cancel", _) => Deed::new("cancel", "Cancel", of_run("cancel"))
            .about("Stops the run and undoes what was done."),
        ("kill", _) => Deed::new("kill", "Kill", of_run("kill"))
            .about("Ends the run as it stands. Nothing is undone, now or later.")
            .danger(),
        ("pause", _) => Deed::new("pause", "Pause", of_run("pause"))
            .about("Hands out nothing more of the run. What a worker has may end."),
        ("resume", _) => {
            Deed::new("resume", "Resume", of_run("resume")).about("Takes all pauses away.")
        }
        ("skip-requirements", _) => {
            Deed::new("skip-requirements", "Skip requirements", of_run("skip-requirements"))
                .about("Begins without the facts that it waits for.")
        }
        _ => return None,
    })
}

/// Returns a signal that a step waits for.
pub(crate) fn signal(run: RunId, name: &str, awaits: Option<&Awaits>) -> Deed {
    let schema = awaits.and_then(|awaits| {
        let listed = awaits.signals.iter().find(|one| one.signal == name);
        listed.map_or(awaits.schema.as_ref(), |one| one.schema.as_ref())
    });
    let path = format!("/v1/runs/{run}/signals/{}", encoded(name));
    // A step may wait for several: each form says which it sends.
    let deed = Deed::new("signal", format!("Send '{name}'"), path).without_reason();
    let (fields, whole) = fields_of(schema.map(|schema| schema.text()));
    let deed = fields.into_iter().fold(deed, Deed::field);
    if whole {
        return deed.field(Field::json("data", "Data").hint("JSON.").value("{}").required());
    }
    deed
}

/// Returns the fields of a schema of an object with plain members, one each; otherwise the document is asked for as a
/// whole.
fn fields_of(schema: Option<&str>) -> (Vec<Field>, bool) {
    let whole = (Vec::new(), true);
    let Some(schema) = schema.and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok())
    else {
        return whole;
    };
    let Some(members) = schema["properties"].as_object().filter(|members| members.len() <= 20)
    else {
        return whole;
    };
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| one.as_str())
        .collect();
    let mut fields = Vec::new();
    for (name, member) in members {
        // A name with a dot would be read as two.
        if name.contains('.') {
            return whole;
        }
        let path = format!("data.{name}");
        let kind = match member["type"].as_str() {
            Some("string") => "s",
            Some("number" | "integer") => "n",
            Some("boolean") => "j",
            _ => return whole,
        };
        let choices: Vec<String> = match member["type"].as_str() {
            Some("boolean") => vec!["true".to_owned(), "false".to_owned()],
            _ => {
                let words = member["enum"].as_array().into_iter().flatten();
                words.filter_map(|one| one.as_str()).map(str::to_owned).collect()
            }
        };
        let title = member["title"].as_str().filter(|title| title.len() <= TITLE);
        let mut field = Field::new(kind, &path, title.unwrap_or_default().to_owned());
        field.required = required.contains(&name.as_str());
        // What must be chosen is chosen by the person: an optional one has an empty choice anyhow.
        let none = Some(String::new()).filter(|_| field.required && !choices.is_empty());
        field.choices = none.into_iter().chain(choices).collect();
        fields.push(field);
    }
    if fields.is_empty() { whole } else { (fields, false) }
}

/// A reason for which a run waits, with the actions that help.
pub(crate) struct Wait {
    pub(crate) wait: WaitsFor,
    pub(crate) since: String,
    pub(crate) since_at: String,
    pub(crate) until: Option<(String, String)>,
    pub(crate) deeds: Vec<Deed>,
}

/// Returns the forms for one wait. Verbs that always apply are with the run.
pub(crate) fn of_wait(view: &RunView, wait: WaitsFor) -> Wait {
    let step = wait.step.as_ref();
    let mut deeds = Vec::new();
    for verb in &wait.verbs {
        match verb.as_str() {
            "cancel" | "kill" | "compensate" => {}
            "signals" => {
                let awaits = view.steps.iter().find(|one| Some(&one.step) == step);
                let awaits = awaits.and_then(|one| one.awaits.as_ref());
                let names: Vec<String> = match awaits {
                    Some(awaits) if !awaits.signals.is_empty() => {
                        awaits.signals.iter().map(|one| one.signal.clone()).collect()
                    }
                    Some(awaits) => vec![awaits.signal.clone()],
                    None => wait.named.clone().into_iter().collect(),
                };
                deeds.extend(names.iter().map(|name| signal(view.id, name, awaits)));
            }
            verb => deeds.extend(deed(verb, view.id, step)),
        }
    }
    let at = |at| (crate::show::instant(at), crate::show::moment(at));
    let (since_at, since) = at(wait.since);
    Wait { since, since_at, until: wait.until.map(at), deeds, wait }
}

/// Returns the labels of a run, and its erasure for admins.
fn beside(view: &RunView, admin: bool) -> Vec<Deed> {
    if view.erased_at.is_some() {
        return Vec::new();
    }
    let labels = Deed::new("label", "Labels", format!("/v1/runs/{}/labels", view.id))
        .about("Gives the run labels, and takes others from it.")
        .method("PATCH")
        .field(Field::json("set", "Set").hint("JSON, such as {\"team\": \"refunds\"}."))
        .field(Field::json("remove", "Take away").hint("JSON, such as [\"triage\"]."));
    let mut erase = Deed::new("erase", "Erase", format!("/v1/runs/{}/erase", view.id))
        .about("Its documents, key, labels and texts are gone for ever, and those of all that descend from it. The reason stays: it should name nobody.")
        .danger();
    if view.state != State::Ended {
        erase = erase.field(Field::tick(
            "kill",
            "Kill it first: what it did stays, and is undone by nobody",
        ));
    }
    let erase = Some(erase).filter(|_| admin);
    std::iter::once(labels).chain(erase).collect()
}

/// Returns the actions on the run as a whole, whatever it waits for.
pub(crate) fn of_run(view: &RunView, always: &[String], admin: bool) -> Vec<Deed> {
    if view.state == State::Ended {
        return beside(view, admin);
    }
    let mut verbs = vec!["pause"];
    let applies = |verb: &&str| always.iter().any(|one| one.as_str() == *verb);
    verbs.extend(["cancel", "kill"].into_iter().filter(applies));
    let verbs = verbs.into_iter().filter_map(|verb| deed(verb, view.id, None));
    verbs.chain(beside(view, admin)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_has_a_field_for_each_plain_member_of_a_schema() {
        let schema = r#"{"type":"object","required":["ok"],"properties":{"ok":{"type":"boolean"},"note":{"type":"string"},"n":{"type":"integer"}}}"#;
        let (fields, whole) = fields_of(Some(schema));
        let told: Vec<_> =
            fields.iter().map(|field| (field.kind, field.name.as_str(), field.required)).collect();
        assert_eq!(
            told,
            [("n", "data.n", false), ("s", "data.note", false), ("j", "data.ok", true)]
        );
        assert_eq!(fields[2].choices, ["", "true", "false"], "nobody agrees by leaving it alone");
        assert!(!whole);
    }

    #[test]
    fn what_no_form_can_ask_for_is_asked_for_as_json() {
        for schema in
            [None, Some("true"), Some("{"), Some(r#"{"properties":{"a":{"type":"object"}}}"#)]
        {
            assert!(fields_of(schema).1, "{schema:?}");
        }
    }
}

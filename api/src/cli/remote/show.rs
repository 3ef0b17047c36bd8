//! The parts of a run that people ask for beside its graph: its documents, the effects that stand, and what was decided.
//! Pure: views in, text out.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use backstitch_saga::Payload;
use backstitch_saga::protocol::{
    Awaits, Condition, RunView, SendSignalByKey, SignalSent, StepView, WaitsFor, Why,
};
use console::truncate_str;
use serde_json::Value;

use super::example::quoted;
use crate::print::counted;

/// So many steps are named; more are counted.
const NAMED: usize = 20;
/// So many incidents are told one by one; of more their number.
const TOLD: usize = 3;
/// The lines of a terminal that a document may take.
const LINES: usize = 3;
/// The condition of a run with an open incident.
const INCIDENT: &str = "IncidentOpen";

/// The input and, once there is one, the output: whole, or cut to a few lines of `width`.
pub(super) fn documents(view: &RunView, width: Option<usize>) -> String {
    let cut = |name: &str, document: &Payload| {
        let text = format!("{name}: {}", one_line(document));
        let room = width.map_or(usize::MAX, |width| width * LINES);
        if text.chars().count() <= room {
            return format!("{text}\n");
        }
        let note = format!("… ({}; --wide prints all)", counted(document.text().len(), "byte"));
        format!("{}\n", truncate_str(&text, room, &note))
    };
    let mut text = cut("input", &view.input);
    text.extend(view.output.as_ref().map(|output| cut("output", output)));
    text
}

/// Describes the conditions that a person should know, one per line. Many incidents are one line, which says how
/// to list them.
pub(super) fn conditions(view: &RunView) -> String {
    let is_incident = |condition: &&Condition| condition.kind == INCIDENT;
    let incidents: Vec<&Condition> = view.conditions.iter().filter(is_incident).collect();
    let summed = incidents.len() > TOLD;
    let mut text = String::new();
    for condition in view.conditions.iter().filter(|one| !summed || one.kind != INCIDENT) {
        let step = condition.step.as_ref().map_or(String::new(), |step| format!(" {step}"));
        let _ = write!(text, "\n! {}{step}: {}", condition.kind, condition.message);
    }
    if summed {
        // An incident's message begins with its kind.
        let kind = |one: &Condition| one.message.split(':').next().map(str::to_owned);
        let kinds: BTreeSet<Option<String>> = incidents.iter().map(|one| kind(one)).collect();
        let _ = write!(
            text,
            "\n! {INCIDENT}: {} of {}: backstitch incident list --run {}",
            counted(incidents.len(), "incident"),
            counted(kinds.len(), "kind"),
            view.id
        );
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

/// A document on one line, however it was laid out.
fn one_line(document: &Payload) -> String {
    document.text().replace(['\n', '\r'], " ")
}

/// The effects that stand, and those that may.
pub(super) fn standing(view: &RunView) -> String {
    let mut text = String::new();
    for (word, name) in
        [("applied", "stands"), ("unknown", "may stand"), ("in_flight", "under way")]
    {
        // A wait or a sleep has no effect in another system.
        let steps = view.steps.iter().filter(|step| step.kind != "wait" && step.kind != "sleep");
        let named: Vec<String> = steps.filter_map(|step| effect(step, word)).collect();
        if named.is_empty() {
            continue;
        }
        let _ = write!(text, "{name}: {}", named[..named.len().min(NAMED)].join(", "));
        if named.len() > NAMED {
            let _ = write!(text, " and {} more", counted(named.len() - NAMED, "step"));
        }
        text.push('\n');
    }
    text
}

fn effect(step: &StepView, word: &str) -> Option<String> {
    let count = step.effects.get(word)?;
    let mut text = step.step.to_string();
    match step.kind.as_str() {
        "map" => text += &format!(" ({})", counted(*count, "item")),
        _ => {
            if let Some(id) = &step.external_id {
                text += &format!(" ({id})");
            }
        }
    }
    Some(text)
}

/// Describes the decisions that people were asked for, and their answers.
pub(super) fn approvals(view: &RunView) -> String {
    let mut text = String::new();
    for step in &view.steps {
        let Some(awaits) = &step.awaits else { continue };
        let title = awaits.title.as_deref().unwrap_or("a signal is waited for");
        let signals = signals(awaits);
        let names: Vec<&str> = signals.iter().map(|(name, _)| *name).collect();
        let names = match names.as_slice() {
            [name] => format!("signal {name}"),
            names => format!("the first of the signals {}", names.join(", ")),
        };
        let _ = writeln!(text, "\n? {}: {title}  ({names})", step.step);
        for (name, schema) in &signals {
            let Some(schema) = schema else { continue };
            let of = if signals.len() > 1 { format!(" of {name}") } else { String::new() };
            let _ = writeln!(text, "    form{of}: {}", form(schema));
        }
        match (step.state.as_str(), &step.output) {
            ("awaiting_signal", _) => {
                if let Some(assignee) = &awaits.assignee {
                    let _ = writeln!(text, "    asked of: {assignee}");
                }
                for (at, (name, _)) in signals.iter().enumerate() {
                    let lead = if at == 0 { "answer it" } else { "or       " };
                    let name = quoted(name);
                    let _ = writeln!(
                        text,
                        "    {lead}: backstitch run signal {} {name} --data JSON",
                        view.id
                    );
                }
            }
            (_, Some(output)) => {
                let by = match &awaits.sent_by {
                    Some(by) => format!("decided by {by}"),
                    None => "nobody answered in time, or a person went on without".to_owned(),
                };
                let _ = writeln!(text, "    {by}: {}", one_line(output));
            }
            (_, None) => {
                if let Some(by) = &awaits.sent_by {
                    let _ = writeln!(text, "    decided by {by}");
                }
            }
        }
    }
    text
}

/// The signals of which the first ends a wait, each with its form.
fn signals(awaits: &Awaits) -> Vec<(&str, Option<&Payload>)> {
    if awaits.signals.is_empty() {
        return vec![(&awaits.signal, awaits.schema.as_ref())];
    }
    let shared = awaits.schema.as_ref();
    let all = awaits.signals.iter();
    all.map(|one| (one.signal.as_str(), one.schema.as_ref().or(shared))).collect()
}

/// The members that a JSON Schema asks for, or the schema itself.
fn form(schema: &Payload) -> String {
    let Ok(value) = serde_json::from_str::<Value>(schema.text()) else {
        return schema.text().to_owned();
    };
    let Some(properties) = value["properties"].as_object() else { return value.to_string() };
    let required = value["required"].as_array();
    let member = |(name, schema): (&String, &Value)| {
        let must = required.is_some_and(|all| all.contains(&name.as_str().into()));
        let kind = schema["type"].as_str().unwrap_or("anything");
        format!("{name} ({kind}{})", if must { ", required" } else { "" })
    };
    properties.iter().map(member).collect::<Vec<_>>().join(", ")
}

/// Returns the actions that help with what a run waits for, as commands: each once, those on the whole
/// run last.
pub(super) fn deeds(why: &Why) -> String {
    let mut lines: Vec<String> = Vec::new();
    let waits = || why.waits_for.iter();
    let of_steps = waits().flat_map(|wait| wait.verbs.iter().map(move |verb| (wait, verb)));
    let is_of_run = |verb: &str| ["cancel", "compensate", "kill"].contains(&verb);
    let (last, first): (Vec<_>, Vec<_>) = of_steps.partition(|(_, verb)| is_of_run(verb));
    for (wait, verb) in first.into_iter().chain(last) {
        let line = deed(why, wait, verb);
        if !lines.contains(&line) {
            lines.push(line);
        }
        if lines.len() == NAMED {
            break;
        }
    }
    if lines.is_empty() {
        return String::new();
    }
    format!("\nWhat can be done:\n{}\n", lines.join("\n"))
}

/// One verb of a wait as a command that can be pasted.
fn deed(why: &Why, wait: &WaitsFor, verb: &str) -> String {
    let run = why.run;
    let step = wait.step.as_ref().map(|step| quoted(&step.to_string()));
    match (verb, step, &wait.named) {
        ("signals", _, Some(name)) => {
            format!("  backstitch run signal {run} {} --data JSON", quoted(name))
        }
        ("signals", ..) => format!("  backstitch run show {run}   # the signals, and their forms"),
        ("retry", Some(step), _) => {
            format!("  backstitch run retry-step {run} {step} --reason WHY")
        }
        ("skip" | "resolve" | "mark-compensated", Some(step), _) => {
            format!("  backstitch run {verb} {run} {step} --reason WHY")
        }
        ("resume", _, Some(name)) => {
            format!("  backstitch run resume {run} --name {} --reason WHY", quoted(name))
        }
        _ => format!("  backstitch run {verb} {run} --reason WHY"),
    }
}

/// Describes the result of a signal that was sent by a business key.
pub(super) fn sent(sent: &SignalSent, asked: &str) -> String {
    match (sent.run, serde_json::from_str::<SendSignalByKey>(asked)) {
        (Some(run), _) => format!("The run {run} has the signal."),
        (None, Ok(ask)) => format!(
            "No run of workflow '{}' has the key '{}' yet. The signal '{}' is kept for it, for 30 days.",
            ask.workflow, ask.key, ask.signal
        ),
        (None, Err(_)) => "The signal is kept for the run that the key will start.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_signals_of_which_the_first_ends_a_wait_are_told_with_their_forms() {
        let awaits = r#"{"signal":"approved","schema":{"type":"object"},
            "signals":["approved",{"signal":"withdrawn","schema":{"type":"null"}}]}"#;
        let awaits: Awaits = serde_json::from_str(awaits).unwrap();
        let signals = signals(&awaits);
        let told: Vec<(&str, Option<&str>)> =
            signals.iter().map(|(name, form)| (*name, form.map(Payload::text))).collect();
        let own = ("withdrawn", Some(r#"{"type":"null"}"#));
        assert_eq!(told, [("approved", Some(r#"{"type":"object"}"#)), own]);
    }

    #[test]
    fn what_can_be_done_is_told_as_commands_each_once() {
        let id = "01a205d5-5205-7364-8cb3-371a9f03bc6e";
        let wait = |kind: &str, more: &str| {
            format!(
                r#"{{"kind":"{kind}","count":1,"since":"2026-03-05T12:30:15.250Z","message":"m",{more}}}"#
            )
        };
        let waits = [
            wait("paused", r#""named":"the night","verbs":["resume","cancel","kill"]"#),
            wait("parked", r#""step":"pay/3","verbs":["retry","skip","resolve","cancel","kill"]"#),
            wait(
                "signal",
                r#""step":"ok","named":"go","verbs":["signals","skip","cancel","kill"]"#,
            ),
        ];
        let why = format!(
            r#"{{"run":"{id}","state":"waiting","summary":"s","waits_for":[{}]}}"#,
            waits.join(",")
        );
        let why: Why = serde_json::from_str(&why).unwrap();
        let expected = [
            format!("resume {id} --name 'the night' --reason WHY"),
            format!("retry-step {id} pay/3 --reason WHY"),
            format!("skip {id} pay/3 --reason WHY"),
            format!("resolve {id} pay/3 --reason WHY"),
            format!("signal {id} go --data JSON"),
            format!("skip {id} ok --reason WHY"),
            format!("cancel {id} --reason WHY"),
            format!("kill {id} --reason WHY"),
        ];
        let text = deeds(&why);
        let lines: Vec<&str> = text.lines().skip(2).collect();
        let lines: Vec<&str> =
            lines.iter().filter_map(|line| line.strip_prefix("  backstitch run ")).collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_form_is_told_by_its_members() {
        let schema = r#"{"type":"object","required":["approved"],"properties":{
            "approved":{"type":"boolean"},"limit":{"type":"integer"},"note":{}}}"#;
        let schema = Payload::trusted(schema.to_owned()).unwrap();
        assert_eq!(form(&schema), "approved (boolean, required), limit (integer), note (anything)");
        let other = Payload::trusted(r#"{"enum":["yes","no"]}"#.to_owned()).unwrap();
        assert_eq!(form(&other), r#"{"enum":["yes","no"]}"#);
    }

    #[test]
    fn a_signal_that_came_early_is_told_to_be_kept() {
        let asked = r#"{"workflow":"order","key":"k-1","signal":"approval","data":{}}"#;
        let said = sent(&SignalSent { run: None }, asked);
        assert!(said.contains("'k-1'") && said.contains("is kept for it"), "{said}");
    }
}

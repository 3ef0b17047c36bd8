//! Events of the log that follow from a record: those that steps emit, and the milestones that the definition asks
//! for.

use std::borrow::Cow;
use std::collections::BTreeMap;

use backstitch_saga::{Definition, Effect, Emission, Run, Time, Transition};
use serde::{Deserialize, Serialize};

use super::cache::CachedRun;
use crate::store::batch::Batch;

/// An event on its way to the log, beside its data.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outgoing<'a> {
    #[serde(rename = "type")]
    pub(crate) event_type: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stream: Option<Cow<'a, str>>,
    /// Letter of the operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) op: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) contract: Option<Cow<'a, str>>,
    pub(crate) workflow: Cow<'a, str>,
    pub(crate) correlation_id: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) causation_id: Option<Cow<'a, str>>,
    pub(crate) labels: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

/// Data of a milestone.
#[derive(Serialize)]
struct Told<'a> {
    run: String,
    workflow: &'a str,
    version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    incident: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<String>,
}

/// Adds the events of a record to the batch. Most runs have none.
pub(super) fn add(batch: &mut Batch, cached: &CachedRun, seq: i32, transition: &Transition) {
    let graph = cached.run.graph();
    if !graph.emits() && graph.definition.milestones.is_empty() {
        return;
    }
    let Transition { record, effects } = transition;
    // Nothing of it is decided beside the run: it has no cause, and no event of a step that must come before it.
    if !graph.emits() && cached.run.causation_id().is_none() {
        return tell(batch, cached, record.at, effects);
    }
    for (place, effect) in effects.iter().enumerate() {
        let found = match effect {
            Effect::EventEmitted(emission) => {
                let data = record.payloads.get(emission.data.0 as usize);
                let data = data.map_or_else(|| "null".to_owned(), |data| data.text().to_owned());
                Some((emitted(&cached.run, emission), data))
            }
            effect => milestone(&cached.run, &graph.definition, effect),
        };
        if let Some(found) = found {
            let place = (cached.run.id(), seq, place);
            batch.emit(place, &cached.namespace, record.at, found);
        }
    }
}

fn emitted(run: &Run, emission: &Emission) -> String {
    let Emission { event_type, retracts, stream, op, contract, error, .. } = emission;
    let path = emission.path().to_string();
    let mut labels: BTreeMap<Cow<'_, str>, Cow<'_, str>> =
        BTreeMap::from([("step".into(), path.into())]);
    labels.extend(retracts.iter().map(|one| ("retracts".into(), (&**one).into())));
    labels.extend(error.iter().map(|error| ("emit_error".into(), shortened(error).into())));
    text(
        run,
        Outgoing {
            stream: stream.as_deref().map(Cow::from),
            op: op.map(|op| op.letter().into()),
            contract: contract.as_deref().map(Cow::from),
            labels,
            ..plain(run, event_type)
        },
    )
}

/// Adds the milestones of a record to those that are events of the log as they stand.
fn tell(batch: &mut Batch, cached: &CachedRun, at: Time, effects: &[Effect]) {
    let (run, definition) = (&cached.run, &cached.run.graph().definition);
    let mut found = effects.iter().filter_map(|effect| asked(run, definition, effect)).peekable();
    if found.peek().is_none() {
        return;
    }
    let story = run.correlation_id();
    let (mut n, mut text) = (0, String::new());
    for (event_type, told) in found {
        n += 1;
        let story = (story != told.run).then_some(&story);
        let one = serde_json::to_string(&(event_type, story, &told, at.to_string()));
        text.push(if text.is_empty() { '[' } else { ',' });
        // Texts and numbers always have a JSON form.
        text.push_str(&one.unwrap_or_default());
    }
    text.push(']');
    let story = (story != run.id().to_string()).then_some(&*story);
    batch.tell((run.id(), &cached.namespace), at, story, (n, text));
}

/// Returns the type and data of the milestone that an effect is, if the definition asks for it.
fn asked<'a>(
    run: &Run,
    definition: &'a Definition,
    effect: &'a Effect,
) -> Option<(&'static str, Told<'a>)> {
    let (asked, event_type) = effect.milestone()?;
    if !definition.milestones.contains(&asked) {
        return None;
    }
    let mut told = Told {
        run: run.id().to_string(),
        workflow: &definition.name,
        version: definition.version,
        outcome: None,
        incident: None,
        kind: None,
        step: None,
    };
    match effect {
        Effect::Ended(outcome) => told.outcome = Some(outcome.as_str()),
        Effect::IncidentOpened(opened) => {
            told.incident = Some(opened.incident);
            told.kind = Some(opened.kind.as_str());
            told.step = opened.step.as_ref().map(ToString::to_string);
        }
        Effect::IncidentResolved(incident) => told.incident = Some(*incident),
        _ => {}
    }
    Some((event_type, told))
}

/// Returns the event that a milestone is, if the definition asks for it.
fn milestone(run: &Run, definition: &Definition, effect: &Effect) -> Option<(String, String)> {
    let (event_type, told) = asked(run, definition, effect)?;
    let stream = Some(format!("run:{}", told.run).into());
    let event = text(run, Outgoing { stream, ..plain(run, event_type) });
    // Texts and numbers always have a JSON form.
    Some((event, serde_json::to_string(&told).unwrap_or_default()))
}

fn plain<'a>(run: &'a Run, event_type: &'a str) -> Outgoing<'a> {
    Outgoing {
        event_type: event_type.into(),
        stream: None,
        op: None,
        contract: None,
        workflow: run.graph().definition.name.as_str().into(),
        correlation_id: Cow::default(),
        causation_id: run.causation_id().map(Cow::from),
        labels: BTreeMap::new(),
    }
}

fn text(run: &Run, mut event: Outgoing<'_>) -> String {
    event.correlation_id = run.correlation_id().into();
    event.labels.insert("run".into(), run.id().to_string().into());
    // Texts and maps of texts always have a JSON form.
    serde_json::to_string(&event).unwrap_or_default()
}

/// Returns the beginning of a text for people, as long as a label may be, without what a label may not have.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().map(|one| if one.is_control() { ' ' } else { one }).take(200).collect()
}

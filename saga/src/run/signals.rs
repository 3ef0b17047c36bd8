//! Signals that came before they could be taken: by a wait of another version, or refused by it.

use std::sync::Arc;

use serde::Deserialize;

use super::decide::TransitionBuilder;
use super::state::{TaskState, WorkIndex};
use super::{RefusedSignal, Run};
use crate::event::{By, Event};
use crate::protocol::Mapping;
use crate::{Body, CheckedSignal, Graph, Payload, Refusal, RefusalCode, Wait};

/// The part of the output of a wait for several signals that says which one came.
#[derive(Deserialize)]
struct Received {
    signal: String,
}

impl Run {
    /// Returns the sender of the signal that ended a wait; of several signals, the one that the
    /// output names.
    pub(super) fn sent_by(&self, wait: &Wait, place: WorkIndex) -> Option<String> {
        let received: Option<Received> =
            self.work(place).and_then(|work| work.output()).and_then(|output| output.to().ok());
        let name = match received {
            Some(received) if wait.is_for_several() => received.signal,
            _ => wait.signal.clone(),
        };
        self.header.signals.get(name.as_str()).map(|sent| sent.by.actor.to_string())
    }

    /// Returns the signals that came and for which a step of `new` has a JSON Schema that is not over by then, each
    /// with what it says and the schemas.
    #[must_use]
    pub fn signals_to_check(
        &self,
        new: &Graph,
        mapping: &Mapping,
    ) -> Vec<(Arc<str>, Payload, Vec<Payload>)> {
        let open = self.open_after_move(new, mapping);
        let came = self.header.signals.iter().map(|(name, signal)| {
            let schemas = open.iter().filter_map(|&step| match &new.nodes[step].body {
                Body::Wait(wait) if wait.awaits(name) => wait.schema_of(name).cloned(),
                _ => None,
            });
            (name.clone(), signal.data.clone(), schemas.collect::<Vec<Payload>>())
        });
        came.filter(|(.., schemas)| !schemas.is_empty()).collect()
    }

    /// Returns the signals that came and that no wait has taken yet, nor will one of `new`, each with the reason.
    pub(super) fn signals_without_wait(&self, new: &Graph) -> Vec<(Arc<str>, String)> {
        let awaits =
            |body: &Body, name: &str| matches!(body, Body::Wait(wait) if wait.awaits(name));
        let is_taken = |name: &str| {
            let mut nodes = self.graph.nodes.iter().enumerate();
            nodes.any(|(step, node)| awaits(&node.body, name) && self.is_settled(step))
        };
        let is_awaited = |name: &str| new.nodes.iter().any(|node| awaits(&node.body, name));
        let lost = self.header.signals.keys().filter(|name| !is_taken(name) && !is_awaited(name));
        let why = format!("version {} has no step that waits for it", new.definition.version);
        lost.map(|name| (name.clone(), why.clone())).collect()
    }

    /// Returns the output of a wait for which a signal came already: of several, the one that came first.
    pub(super) fn signal_for(&self, wait: &Wait) -> Option<Payload> {
        let came = wait.names().filter_map(|name| Some((name, self.header.signals.get(name)?)));
        let (name, first) = came.min_by_key(|(_, signal)| signal.number)?;
        Some(if wait.is_for_several() { named(name, &first.data) } else { first.data.clone() })
    }
}

impl TransitionBuilder<'_> {
    /// Lets steps that wait for a signal that came already take it: after a move to another
    /// version.
    pub(super) fn take_signals(&mut self) {
        let graph = self.run.graph.clone();
        for (step, node) in graph.nodes.iter().enumerate() {
            let (Body::Wait(wait), place) = (&node.body, WorkIndex::step(step)) else { continue };
            if !matches!(
                self.work(place).and_then(|work| work.current()),
                Some((_, TaskState::Signal { .. }))
            ) {
                continue;
            }
            if let Some(output) = self.run.signal_for(wait) {
                let (step, output) = (self.run.path(place), self.slot(output));
                self.emit(Event::Succeeded { step, attempt: 0, output, external_id: None });
            }
        }
    }

    /// Refuses a signal that was accepted before the run existed, or on another version. The refusal is recorded, even
    /// if the run has ended, and the next signal of the name counts.
    pub(super) fn refuse_signal(&mut self, signal: Arc<str>, by: By, message: String, came: bool) {
        let told = |refused: &RefusedSignal| {
            refused.signal == signal && refused.by == by && refused.message == message
        };
        if !came && self.run.header.refused_signals.iter().any(told) {
            return;
        }
        self.emit(Event::SignalRefused { signal, by, message, came });
    }
}

/// Returns those of the signals that came and that were checked as they must be before the run is moved, which are not
/// what the steps of the new version ask for, each with the reason.
///
/// # Errors
/// `signal_unchecked` when one came since.
pub(super) fn wrong_ones(
    to_check: Vec<(Arc<str>, Payload, Vec<Payload>)>,
    checked: &[CheckedSignal],
) -> Result<Vec<(Arc<str>, String)>, Refusal> {
    let mut wrong = Vec::new();
    for (name, data, _) in to_check {
        let known = checked.iter().find(|one| one.name == name && one.data.is_same_as(&data));
        let Some(known) = known else { return Err(unchecked(&name)) };
        wrong.extend(known.wrong.clone().map(|message| (name, message)));
    }
    Ok(wrong)
}

/// Refuses what was decided before a signal, or a move, came in between.
pub(super) fn unchecked(signal: &str) -> Refusal {
    let message =
        format!("the run was moved to another version while the signal '{signal}' came; ask again");
    Refusal::new(RefusalCode::SignalUnchecked, message)
}

/// Returns the output of a wait for several signals: which came, and what it says.
pub(super) fn named(signal: &str, data: &Payload) -> Payload {
    let mut text = String::from("{\"signal\":");
    crate::value::push_string(&mut text, signal);
    text.push_str(",\"data\":");
    text.push_str(data.text());
    text.push('}');
    Payload::trusted(text).unwrap_or_else(|_| Payload::null())
}

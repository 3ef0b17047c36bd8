//! Order of runs: serial keys and their lines, facts and the runs that wait for them.
//!
//! A run that holds or awaits something begins held, with rows that record the reason; they are written before the run
//! itself. The node that sees a row become due notifies the run. So an orphaned row does no harm, and a run whose row
//! is lost gets another. The rules decide the effect of a hold on a run.

mod admit;
mod asked;
mod circle;
mod keys;
pub(crate) mod rows;
mod tell;
mod wanted;
mod withdrawn;

use std::sync::{Mutex, PoisonError};

use backstitch_saga::protocol::Requirement;
use backstitch_saga::{Effect, Hold, HoldKind, Run, RunId, Violation};
use tokio::sync::Notify;
use uuid::Uuid;

pub(crate) use admit::{
    Admitted, BEGUN_WITHIN, TWIN_WITHIN, abandon, admit, admit_child, as_twin, begun,
    holds_of_delayed, key_hold,
};
pub use asked::FactAct;
pub(crate) use asked::name_others;
pub(crate) use tell::{serve, sweep, sweep_unplaced};
pub(crate) use wanted::{MAX_FACTS, Wanted, check_definition, produced};

use crate::Error;

/// The longest serial key, subject or fact, in bytes.
const TEXT_LIMIT: usize = 255;
/// Text between fact and subject in the name of a hold.
const ON: &str = " on ";

/// Pending work. A sweep finds lost work.
#[derive(Default)]
pub(crate) struct Jobs {
    bell: Notify,
    todo: Mutex<Todo>,
}

#[derive(Default)]
struct Todo {
    /// Runs to look at; `true` for one that has just begun.
    runs: Vec<(RunId, bool)>,
    facts: Vec<(String, Requirement)>,
    /// Runs whose instant has come, and that want a place among others now.
    delayed: Vec<(String, RunId)>,
    /// Up to where the last sweep came of runs that no row knows of.
    swept: Uuid,
}

impl Jobs {
    fn change<T>(&self, change: impl FnOnce(&mut Todo) -> T) -> T {
        change(&mut self.todo.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Follows up a record of a run that is committed. Most runs have nothing to do with others.
    pub(crate) fn after(&self, run: &Run, effects: &[Effect]) {
        if !run.is_sequenced() {
            return;
        }
        let delay_ends = |effect: &Effect| *effect == Effect::HoldEnded(HoldKind::StartDelayed);
        if run.holds().next().is_some() && effects.iter().any(delay_ends) {
            self.change(|todo| todo.delayed.push((run.namespace().to_owned(), run.id())));
            self.bell.notify_one();
        }
        let begins = effects.first() == Some(&Effect::Started);
        let matters = |effect: &Effect| {
            matches!(effect, Effect::Ended(_) | Effect::HoldEnded(_) | Effect::IncidentResolved(_))
        };
        if begins || effects.iter().any(matters) {
            self.change(|todo| todo.runs.push((run.id(), begins)));
            self.bell.notify_one();
        }
    }

    /// Notes that a fact was established or withdrawn.
    fn changed(&self, namespace: &str, fact: Requirement) {
        self.change(|todo| todo.facts.push((namespace.to_owned(), fact)));
        self.bell.notify_one();
    }
}

/// Returns the hold of a run that requires a fact.
fn unmet_hold(one: &Requirement) -> Hold {
    Hold::new(HoldKind::DependencyUnmet, format!("{}{ON}{}", one.fact, one.on))
}

/// Returns the fact that a hold waits for.
fn required_by(hold: &Hold) -> Option<Requirement> {
    let (fact, on) = hold.name.split_once(ON).filter(|_| hold.kind == HoldKind::DependencyUnmet)?;
    Some(Requirement { fact: fact.to_owned(), on: on.to_owned() })
}

/// Refuses texts that cannot be a serial key or a subject.
fn check_texts(texts: &[(&str, &str)]) -> Result<(), Error> {
    let wrong = |text: &str| {
        text.is_empty() || text.len() > TEXT_LIMIT || text.chars().any(char::is_control)
    };
    let violations: Vec<Violation> = texts
        .iter()
        .filter(|(_, text)| wrong(text))
        .map(|(pointer, _)| {
            let message = format!("1 to {TEXT_LIMIT} bytes without control characters are needed");
            Violation::new(*pointer, "invalid_text", message)
        })
        .collect();
    if violations.is_empty() {
        Ok(())
    } else {
        Err(Error::Invalid { code: "invalid_request", violations })
    }
}

/// Refuses a text that cannot be the name of a fact.
fn check_fact(fact: &str, pointer: &str) -> Result<(), Error> {
    let wrong = |violation| Error::invalid("invalid_request", violation);
    backstitch_saga::check_fact(fact, pointer).map_err(wrong)
}

/// Reads the serial key and requirements of a start from texts: a definition, an input, and the caller's additions.
/// Accepted values can be stored, are stable, and can be read again from the holds that they become.
///
/// # Panics
/// When a law is broken.
#[cfg(feature = "fuzz")]
pub(crate) fn read_as_start(definition: &str, input: &str, asked: &str) {
    use backstitch_saga::{Graph, Payload, protocol::StartSequence};
    let Ok(Graph { definition, .. }) = Graph::parse(definition) else { return };
    let Ok(input) = Payload::parse(input, 64 * 1024) else { return };
    let asked = serde_json::from_str::<StartSequence>(asked).ok();
    let Ok(wanted) = Wanted::of(&definition, asked.clone(), &input) else { return };
    let again = Wanted::of(&definition, asked, &input).expect("what was accepted is accepted");
    assert_eq!(again, wanted);
    let Some(Wanted { serial, requires, produces, .. }) = wanted else { return };
    let key = serial.map(|(key, _)| key);
    let subjects = requires.iter().chain(&produces).map(|one| one.on.as_str());
    for text in subjects.chain(key.as_deref()) {
        assert!(check_texts(&[("", text)]).is_ok(), "{text:?} cannot be kept");
    }
    assert!(requires.is_sorted() && requires.windows(2).all(|two| two[0] != two[1]));
    for one in requires.iter().chain(&produces) {
        assert!(check_fact(&one.fact, "").is_ok(), "{one:?} cannot be kept");
        assert_eq!(required_by(&unmet_hold(one)).as_ref(), Some(one));
    }
}

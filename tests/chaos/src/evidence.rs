//! The evidence after a trial, from outside: views of each run over REST, lines of the ledger, results that clients
//! saw.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::path::Path;

use backstitch_saga::Timestamp;
use backstitch_saga::protocol::Outcome;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::Value;
use uuid::Uuid;

use crate::client::{Api, Asked, Call};
use crate::ledger::{self, Line};
use crate::program::Program;
use crate::timeline::{Mark, Timeline};

/// One entry of a run's history.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The record, from 1.
    pub seq: u64,
    /// When, milliseconds since 1970.
    pub at: i64,
    /// The event's name.
    pub name: String,
    /// Its body.
    pub body: Value,
}

impl Entry {
    /// Returns the step or item that it is about, or nothing.
    #[must_use]
    pub fn step(&self) -> &str {
        self.body["step"].as_str().unwrap_or_default()
    }

    /// Returns the action of the attempt that it is about.
    #[must_use]
    pub fn action(&self) -> &str {
        self.body["action"].as_str().unwrap_or("forward")
    }

    /// Returns the attempt that it is about; 0 for none.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.body["attempt"].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
    }

    /// Returns an instant in it, milliseconds since 1970.
    #[must_use]
    pub fn instant(&self, member: &str) -> Option<i64> {
        instant(&self.body[member])
    }
}

/// Returns an instant as REST writes it, or as the journal does.
#[must_use]
pub fn instant(value: &Value) -> Option<i64> {
    let told = serde_json::from_value::<Timestamp>(value.clone()).ok().map(|at| at.0.0);
    told.or_else(|| value.as_i64())
}

/// Everything about one run.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// The run.
    pub run: Uuid,
    /// Its program, if that is known.
    pub program: Option<Program>,
    /// Its serial key, when that is known.
    pub serial_key: Option<String>,
    /// Somebody cancelled it, or acted on it in another way: it may end otherwise than its program says.
    pub interfered: bool,
    /// As it was shown at last.
    pub view: Value,
    /// As it was shown when it was first seen to have ended, if that was before.
    pub ended: Option<Value>,
    /// Its line in the list of runs.
    pub listed: Value,
    /// Its history.
    pub history: Vec<Entry>,
    /// Its lines in the ledger.
    pub ledger: Vec<Line>,
}

impl Story {
    /// Returns the state shown.
    #[must_use]
    pub fn state(&self) -> &str {
        self.view["state"].as_str().unwrap_or("unknown")
    }

    /// Returns the outcome shown; empty without one.
    #[must_use]
    pub fn outcome(&self) -> &str {
        self.view["outcome"].as_str().unwrap_or_default()
    }

    /// Returns whether it ended with nothing left behind. What a person vouches for is that person's word, and not
    /// counted.
    #[must_use]
    pub fn left_nothing(&self) -> bool {
        let outcome: Option<Outcome> = serde_json::from_value(self.view["outcome"].clone()).ok();
        let vouched = outcome == Some(Outcome::CompensatedWithManualSteps);
        outcome.is_some_and(Outcome::is_clean) && !vouched
    }

    /// Returns whether its history has an entry with this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.history.iter().any(|entry| entry.name == name)
    }
}

/// Everything that is known after a trial.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The runs.
    pub stories: Vec<Story>,
    /// Calls of clients.
    pub calls: Vec<Call>,
    /// Actions on the system.
    pub timeline: Vec<Mark>,
    /// Keys of starts, and the run that each resolved to at last; none if there is none.
    pub keys: BTreeMap<String, Option<Uuid>>,
}

/// Something that must never be.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The invariant, such as `I3`.
    pub invariant: &'static str,
    /// The run that it is about.
    pub run: Option<Uuid>,
    /// The violation.
    pub what: String,
}

impl Violation {
    /// Returns a violation by a run.
    #[must_use]
    pub fn of(invariant: &'static str, run: Uuid, what: impl Into<String>) -> Violation {
        Violation { invariant, run: Some(run), what: what.into() }
    }
}

/// Number of entries of a history or a ledger that are shown with a violation.
const TOLD: usize = 80;

impl Evidence {
    /// Returns the story of a run.
    #[must_use]
    pub fn story(&self, run: Uuid) -> Option<&Story> {
        self.stories.iter().find(|story| story.run == run)
    }

    /// Returns a violation with its story: the run, its history, its lines in the ledger, what clients saw of it, and
    /// what was done to the system meanwhile.
    #[must_use]
    pub fn tell(&self, violation: &Violation) -> String {
        let mut text = format!("VIOLATION of {}: {}\n", violation.invariant, violation.what);
        let Some(run) = violation.run else {
            for mark in self.timeline.iter().take(TOLD) {
                let _ = writeln!(text, "  fault  {}  {}", mark.at, mark.what);
            }
            return text;
        };
        let Some(story) = self.story(run) else {
            let _ = writeln!(text, "  run {run}: nothing is known of it");
            return text;
        };
        let (state, outcome) = (story.state(), story.outcome());
        let summary = story.view["summary"].as_str().unwrap_or_default();
        let _ = writeln!(
            text,
            "  run {run} of {}: {state} {outcome}: {summary}",
            story.view["workflow"]
        );
        let mut lines: Vec<(i64, String)> = Vec::new();
        for entry in story.history.iter().take(TOLD) {
            let body = entry.body.to_string();
            let body: String = body.chars().take(200).collect();
            lines.push((entry.at, format!("journal {:>3}  {} {body}", entry.seq, entry.name)));
        }
        for line in story.ledger.iter().take(TOLD) {
            let Line { n, ask, came, .. } = line;
            let (op, step, attempt, worker) = (ask.op, &ask.step, ask.attempt, &ask.worker);
            let told = format!("ledger {n:>4}  {op:?} {step} #{attempt} by {worker}: {came:?}");
            lines.push((line.at, told));
        }
        let about = |call: &&Call| format!("{:?}", call.asked).contains(&run.to_string());
        for call in self.calls.iter().filter(about).take(TOLD) {
            lines.push((call.at, format!("client       {:?}: {:?}", call.asked, call.saw)));
        }
        let began = story.history.first().map_or(0, |entry| entry.at) - 2_000;
        let over = lines.iter().map(|(at, _)| *at).max().unwrap_or(i64::MAX) + 2_000;
        let meanwhile = self.timeline.iter().filter(|mark| (began..over).contains(&mark.at));
        lines.extend(meanwhile.map(|mark| (mark.at, format!("fault        {}", mark.what))));
        lines.sort_by_key(|(at, _)| *at);
        for (at, line) in lines {
            let _ = writeln!(text, "  {:>8} ms  {line}", at - began - 2_000);
        }
        text
    }
}

/// The known programs of runs of a trial.
#[derive(Clone, Debug, Default)]
pub struct Knowledge {
    /// The programs, by workflow.
    pub programs: HashMap<String, Program>,
    /// Runs on which somebody acted.
    pub interfered: HashSet<Uuid>,
    /// Runs as they were shown when they were first seen to have ended.
    pub ended: HashMap<Uuid, Value>,
    /// The serial keys that runs were started with, beside those that their programs say.
    pub serial_keys: HashMap<Uuid, String>,
}

impl Knowledge {
    /// That these programs are run.
    #[must_use]
    pub fn of<'a>(programs: impl IntoIterator<Item = &'a Program>) -> Knowledge {
        let all = programs.into_iter().flat_map(Program::all);
        let programs = all.map(|program| (program.name.clone(), program.clone())).collect();
        Knowledge { programs, ..Knowledge::default() }
    }
}

/// Collects what is known of all runs, over REST and from the ledger.
///
/// # Errors
/// When something cannot be read.
pub async fn collect(
    api: &Api,
    knowledge: &Knowledge,
    ledger: &Path,
    timeline: &Timeline,
) -> anyhow::Result<Evidence> {
    let listed = api.all("/v1/runs").await?;
    let calls = api.log.calls();
    let mut keys: BTreeMap<String, Option<Uuid>> = BTreeMap::new();
    for call in &calls {
        if let Asked::Start { key, .. } = &call.asked {
            keys.insert(key.clone(), None);
        }
    }
    let mut lines = Vec::new();
    for line in listed {
        let Some(run) = line["id"].as_str().and_then(|id| id.parse::<Uuid>().ok()) else {
            continue;
        };
        if let Some(key) = line["key"].as_str() {
            keys.insert(key.to_owned(), Some(run));
        }
        lines.push((run, line));
    }
    let by_run = ledger::by_run(ledger)?;
    let stories = stream::iter(lines)
        .map(|(run, line)| story(api, knowledge, run, line, &by_run))
        .buffered(4)
        .try_collect()
        .await?;
    Ok(Evidence { stories, calls, timeline: timeline.marks(), keys })
}

async fn story(
    api: &Api,
    knowledge: &Knowledge,
    run: Uuid,
    listed: Value,
    ledger: &HashMap<Uuid, Vec<Line>>,
) -> anyhow::Result<Story> {
    let (mut view, mut history) = (Value::Null, Vec::<Entry>::new());
    // A late report may come in between the two looks.
    for _ in 0..5 {
        view = api.get(&format!("/v1/runs/{run}")).await?;
        let told = api.all(&format!("/v1/runs/{run}/history")).await?;
        history = told.iter().filter_map(entry).collect();
        if view["seq"].as_u64() == history.last().map(|last| last.seq) {
            break;
        }
    }
    // Its parent may undo it, which is another end than its own.
    let is_child = history.first().is_some_and(|first| !first.body["parent"].is_null());
    let program = view["workflow"].as_str().and_then(|name| knowledge.programs.get(name));
    let own = || program.and_then(|program| Some(program.sequence.as_ref()?.serial_key.clone()));
    Ok(Story {
        run,
        program: program.cloned(),
        serial_key: knowledge.serial_keys.get(&run).cloned().or_else(own),
        interfered: is_child || knowledge.interfered.contains(&run),
        view,
        ended: knowledge.ended.get(&run).cloned(),
        listed,
        history,
        ledger: ledger.get(&run).cloned().unwrap_or_default(),
    })
}

fn entry(told: &Value) -> Option<Entry> {
    // An event without members is told as its name.
    let (name, body) = match &told["event"] {
        Value::String(name) => (name.clone(), Value::Null),
        event => {
            let (name, body) = event.as_object()?.iter().next()?;
            (name.clone(), body.clone())
        }
    };
    Some(Entry { seq: told["seq"].as_u64()?, at: instant(&told["at"])?, name, body })
}

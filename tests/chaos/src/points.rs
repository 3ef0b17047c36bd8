//! The crash points, enumerated: the engine dies at each that a shape reaches, at its first and second passage, and at
//! every passage of those around the records of runs.

use std::collections::{BTreeMap, BTreeSet};

use backstitch_tests::chance::Chance;
use futures::{StreamExt as _, stream};

use crate::report::{Report, Spans};
use crate::shapes::{self, Beside, Shape};
use crate::stage::Ground;
use crate::trial::{self, Came, Setup};

/// Number of concurrent trials; each waits most of the time.
const AT_ONCE: usize = 8;

/// Number of the slowest recoveries that are named.
const SLOWEST: usize = 3;

/// Points of which every passage is tried: the records of a run, from the first to the last.
const EVERY_PASSAGE: &[&str] = &["batch.before", "batch.after"];

/// Commits that no shape can be brought to in a trial, and why. They are passed in drills and random plans, or not at
/// all.
const RARE: &[(&str, &str)] = &[
    ("starts_put_back", "the database fails for longer than the fate of a commit is looked for"),
    ("pauses_let_go", "the row of a pause was lost"),
    ("pauses_released", "half a minute after a workflow was resumed"),
    (
        "alone_agree",
        "two nodes live while a task over which a worker was lost waits for a worker of its own",
    ),
    ("alone_ask", "a task over which a worker was lost waits for a worker of its own"),
    ("alone_forget", "the node that keeps a worker free dies"),
    ("alone_give_up", "a task over which a worker was lost is done"),
    ("console_sessions_create", "the servers of the trials are open, so that nobody signs in"),
    ("console_sessions_end", "the servers of the trials are open, so that nobody signs out"),
    ("contracts_change", "an operator changes a contract, of which the trials only register some"),
    ("credentials_used", "the servers of the trials are open, so that nobody uses a credential"),
    (
        "subscription_pass",
        "more than eight subscriptions have events before them, of which the trials have two",
    ),
    (
        "subscription_rest",
        "a subscription is looked at of whose runs none has ended for five seconds",
    ),
    ("subscription_let_go", "the database fails while runs are started for events"),
    ("log_head_mend", "the head of a log was lost"),
    ("log_positions_restore", "a row of position or announced was lost"),
    ("workers_sign_off", "a worker ends its session, which those of the trials do not"),
    ("workers_go", "half a minute after a worker was last heard of"),
    ("permits_lapse", "a node dies with permits in hand, and they lapse"),
    ("permits_over", "a node did not know that a queue is governed"),
    ("permits_take_back", "a worker leaves between a permit and its task"),
    ("plans_approve", "a person plans an undo, which those of the trials do not"),
    ("plans_begin", "a person plans an undo, which those of the trials do not"),
    ("plans_change", "a person plans an undo, which those of the trials do not"),
    ("plans_end", "a person plans an undo, which those of the trials do not"),
    ("plans_insert", "a person plans an undo, which those of the trials do not"),
    ("plans_put_back", "a person plans an undo, which those of the trials do not"),
    (
        "undo_approvals_set",
        "an admin sets when undos need a second person, which the trials do not",
    ),
    ("quotas_set", "an admin sets quotas, which the trials leave as they are"),
    ("required_told", "a fact is withdrawn while a run that requires it is under way"),
    ("indexes_mend", "a row of an index was lost"),
    ("runs_adrift", "a run is found of which no node is in charge, and that is due or under way"),
    ("runs_put_aside", "the journal of a run was destroyed"),
    ("timers_failed", "a defect stops what is due of a run"),
    (
        "retention_delete",
        "ended runs are past retention in a week that others keep, for which the trials are too short",
    ),
    ("retention_set", "an operator gives a workflow a retention of its own"),
    ("erasures_ask", "an operator erases a run, or one is being erased"),
    ("erasures_pass", "an operator erases a run"),
    ("erasures_done", "an operator erases a run"),
    ("erasures_refuse", "a run that is to be erased goes on meanwhile"),
    ("log_drop", "a week of events is past retention, for which the trials are too short"),
    ("sequence_restore", "half a minute after a run in line lost its place"),
];

/// Returns all points of the engine, by name.
#[must_use]
pub fn points() -> Vec<String> {
    #[cfg(feature = "crash-points")]
    return backstitch_engine::crash::points();
    #[cfg(not(feature = "crash-points"))]
    Vec::new()
}

/// Which trials are made.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Only this shape.
    pub shape: Option<String>,
    /// Only this point.
    pub point: Option<String>,
    /// At most so many, chosen by the seed.
    pub most: Option<usize>,
    /// The seed.
    pub seed: u64,
}

/// Tries the points, and says in the report what came of it.
///
/// # Errors
/// When the trials themselves could not be made.
pub async fn run(ground: &Ground, choice: &Choice, report: &mut Report) -> anyhow::Result<()> {
    let shapes: Vec<Shape> = shapes::all()
        .into_iter()
        .filter(|shape| choice.shape.as_ref().is_none_or(|only| only == shape.name))
        .collect();
    let (reached, anywhere) = reconnoitre(ground, &shapes, report).await?;
    if choice.shape.is_none() {
        tell_never_reached(&anywhere, report);
    }
    let chosen = |point: &str| choice.point.as_ref().is_none_or(|only| point == only);
    let mut cases: Vec<(&Shape, String, u32)> = Vec::new();
    for shape in &shapes {
        for (point, passage) in reached.get(shape.name).into_iter().flatten() {
            let every = EVERY_PASSAGE.contains(&point.as_str());
            if chosen(point) && (*passage <= 2 || every) {
                cases.push((shape, point.clone(), *passage));
            }
        }
    }
    let possible = cases.len();
    if let Some(most) = choice.most {
        cases = sample(cases, most, choice.seed);
    }
    println!("crash points: {} of {possible} cases of (shape, point, passage)", cases.len());
    let mut results = stream::iter(cases)
        .map(|(shape, point, passage)| async move {
            let crash = Some((point.clone(), passage));
            let setup = Setup { crash, ..Setup::default() };
            (shape.name, point, passage, trial::run(ground, shape, &setup).await)
        })
        .buffer_unordered(AT_ONCE);
    let (mut spans, mut slowest) = (Spans::default(), Vec::new());
    while let Some((shape, point, passage, came)) = results.next().await {
        let name = format!("points --shape {shape} --point {point}  (passage {passage})");
        let Came { reached, violations, evidence, recovery } = came?;
        report.case(&name, &violations, &evidence);
        if reached {
            report.count("engine died at a crash point", 1.0);
            spans.add(recovery.unwrap_or_default());
            slowest.push((recovery.unwrap_or_default(), name));
        } else {
            report.count("crash point not passed again", 1.0);
        }
    }
    report.recovery("engine dies at a crash point", spans);
    slowest.sort_by(|one, other| other.cmp(one));
    for (span, name) in slowest.iter().take(SLOWEST) {
        report.say(format!("slow to recover: {:.1} s: {name}", span.as_secs_f64()));
    }
    Ok(())
}

type Reached = BTreeMap<&'static str, BTreeSet<(String, u32)>>;

/// Runs each shape once undisturbed. Returns which points it passes, and which any of them does.
async fn reconnoitre(
    ground: &Ground,
    shapes: &[Shape],
    report: &mut Report,
) -> anyhow::Result<(Reached, BTreeSet<String>)> {
    let mut results = stream::iter(shapes)
        .map(|shape| async move {
            let seen = ground.dir().join(format!("seen-{}", shape.name));
            let setup = Setup { seen: Some(seen.clone()), ..Setup::default() };
            let came = trial::run(ground, shape, &setup).await;
            (shape.name, std::fs::read_to_string(seen).unwrap_or_default(), came)
        })
        .buffer_unordered(AT_ONCE);
    let mut reached = Reached::new();
    let mut anywhere: BTreeSet<String> = BTreeSet::new();
    while let Some((shape, seen, came)) = results.next().await {
        let Came { violations, evidence, .. } = came?;
        report.case(&format!("points --shape {shape}  (undisturbed)"), &violations, &evidence);
        let passages = seen.lines().filter_map(|line| {
            let (point, passage) = line.rsplit_once(':')?;
            Some((point.to_owned(), passage.parse().ok()?))
        });
        let passages: BTreeSet<(String, u32)> = passages.collect();
        anywhere.extend(passages.iter().map(|(point, _)| point.clone()));
        reached.insert(shape, passages);
    }
    Ok((reached, anywhere))
}

fn tell_never_reached(anywhere: &BTreeSet<String>, report: &mut Report) {
    let rare =
        |point: &String| RARE.iter().any(|(commit, _)| point.split('.').next() == Some(*commit));
    let (never, rarely): (Vec<String>, Vec<String>) =
        points().into_iter().filter(|point| !anywhere.contains(point)).partition(|it| !rare(it));
    report.say(format!("crash points that no trial can be brought to: {}", rarely.join(", ")));
    report.never_reached(anywhere.len(), &never);
}

/// So many of the cases, by chance. What clients do beside runs takes long: it gets a quarter of them.
fn sample(cases: Vec<(&Shape, String, u32)>, most: usize, seed: u64) -> Vec<(&Shape, String, u32)> {
    let mut chance = Chance::new(seed);
    let mut rest = cases;
    for place in (1..rest.len()).rev() {
        let other = usize::try_from(chance.below(place as u64 + 1)).unwrap_or(place);
        rest.swap(place, other);
    }
    // Of each point one before another of the same.
    let mut seen: BTreeSet<(String, u32)> = BTreeSet::new();
    let (first, others): (Vec<_>, Vec<_>) =
        rest.into_iter().partition(|(_, point, passage)| seen.insert((point.clone(), *passage)));
    let (office, plain): (Vec<_>, Vec<_>) =
        first.into_iter().chain(others).partition(|(shape, ..)| shape.beside != Beside::Nothing);
    let share = if plain.is_empty() { most } else { most / 4 };
    office.into_iter().take(share).chain(plain).take(most).collect()
}

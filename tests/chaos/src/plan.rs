//! The random plan: programs, load and faults that all follow from one seed; then everything is healed, the runs come
//! to their ends, and what is left behind is checked.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use backstitch_tests::chance::Chance;
use serde_json::Value;
use uuid::Uuid;

use crate::client::Api;
use crate::evidence::{Evidence, Knowledge, Violation, collect};
use crate::evidence_counts::{self, BY_ENGINES};
use crate::faults::{ALL, Fault};
use crate::field::Field;
use crate::generate;
use crate::invariants;
use crate::load::Load;
use crate::program::Program;
use crate::proxy::Way;
use crate::report::{Report, Spans};
use crate::schedules::{self, Schedules};
use crate::senders::Senders;
use crate::server::{base_backup, can_mount};
use crate::stage::Ground;
use crate::trial::until_ended;
use crate::worker::Script;

/// Time that a canary may take after a fault, and that all runs may take in the end.
const WITHIN: Duration = Duration::from_secs(60);
/// Between a fault's end and the next.
const CALM: Duration = Duration::from_millis(700);
/// Growth that an engine's memory may have, in KiB, and its open files, once all is quiet.
const MEMORY: u64 = 200_000;
const FILES: usize = 40;

/// Settings of PostgreSQL: enough connections for the drills that are carried out at once, few enough to be used up.
pub const SETTINGS: &[(&str, &str)] = &[("max_connections", "300")];

/// A plan: everything that is done to the system.
#[derive(Clone, Debug)]
pub struct Plan {
    /// From which everything follows.
    pub seed: u64,
    /// For how long faults are inflicted.
    pub span: Duration,
    /// Only faults whose name contains this.
    pub only: Option<String>,
    /// The bug that the engines have.
    pub bug: Option<String>,
}

/// Carries a plan out; the ground is given back for the next.
///
/// # Errors
/// When the harness itself failed.
pub async fn run(ground: Ground, plan: &Plan, report: &mut Report) -> anyhow::Result<Ground> {
    let mut chance = Chance::new(plan.seed);
    let field = Field::set(ground, plan.bug.as_deref()).await?;
    let mut programs = generate::programs(&mut chance, 24);
    programs.iter_mut().for_each(|program| program.told = true);
    let canary = Program::new("canary").task("sing", &[], Script { adds: 1, ..Script::default() });
    let poison =
        Program::new("poison").task("kill", &[], Script { kills: true, ..Script::default() });
    let api = field.api();
    let tick = schedules::program();
    for program in programs.iter().chain([&canary, &poison, &tick]) {
        api.register(program).await?;
    }
    let mut watched = Schedules::begin(&api).await?;
    let senders = Senders::begin(&api, &mut chance.fork()).await?;
    let tending = field.tend();
    let load = Load::new(&field, &programs);
    let sizes = field.sizes().await;
    let mut clients = load.begin(&mut chance);
    let hurt = hurt(&field, plan, &mut chance, report).await;
    let poisoned = poisoned(&field, report).await;
    load.stop();
    heal(&field).await;
    hurt?;
    watched.end(&api).await?;
    let drained =
        tokio::time::timeout(2 * WITHIN, async { while clients.join_next().await.is_some() {} });
    let mut violations = Vec::new();
    if drained.await.is_err() {
        violations.push(open_end("clients still wait for answers after everything was healed"));
    }
    for why in load.given_up() {
        let invariant = if why.contains("I12") { "I12" } else { "I9" };
        violations.push(Violation {
            invariant,
            run: None,
            what: format!("a client gave up: {why}"),
        });
    }
    let (wrong, instants) = watched.check(&api).await?;
    violations.extend(wrong);
    programs.extend([canary, poison, tick]);
    let mut knowledge = Knowledge::of(&programs);
    knowledge.interfered = load.interfered();
    knowledge.serial_keys = load.serial_keys();
    knowledge.interfered.extend(poisoned);
    knowledge.ended = drain(&api, &mut violations).await?;
    let (documents, wrong) = senders.end(&api, &told(&programs, &knowledge.ended)).await?;
    violations.extend(wrong);
    leaks(&field, &sizes, &mut violations).await;
    // What was shown must be shown by engines that remember nothing.
    for engine in &field.engines {
        let mut engine = engine.lock().await;
        engine.kill().await?;
        engine.start().await?;
    }
    field.timeline.note("all engines were killed and started again, for the last look");
    let ledger = field.ground.lock().await.ledger_file();
    let evidence = collect(&api, &knowledge, &ledger, &field.timeline).await?;
    tending.abort();
    violations.extend(invariants::check(&evidence));
    let seconds = plan.span.as_secs();
    report.case(&format!("plan --seed {} --seconds {seconds}", plan.seed), &violations, &evidence);
    count(&field, &evidence, report);
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    report.count("instant of a schedule", instants as f64);
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    report.count("document answered", documents as f64);
    for (mark, what) in [
        ("PostgreSQL had died of it", "PostgreSQL died of a full disk"),
        ("the standby is the primary", "standby promoted"),
        ("is of another build", "engine went to another build"),
    ] {
        let marks = evidence.timeline.iter().filter(|seen| seen.what.contains(mark)).count();
        #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
        report.count(what, marks as f64);
    }
    report.timers("timers due in calm times", &invariants::calm_lateness(&evidence));
    report.say(format!(
        "random plan: {} runs started by {} programs in {seconds} s of faults",
        load.started.load(Ordering::Relaxed),
        programs.len()
    ));
    drop(load);
    give_back(field).await
}

/// Returns the ground, once nobody stands on the field any more.
async fn give_back(mut field: Arc<Field>) -> anyhow::Result<Ground> {
    for _ in 0..100 {
        match Arc::try_unwrap(field) {
            Ok(field) => return Ok(field.ground.into_inner()),
            Err(shared) => field = shared,
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("somebody still holds the field")
}

fn open_end(what: &str) -> Violation {
    Violation { invariant: "I9", run: None, what: what.to_owned() }
}

/// Inflicts one fault after the other; after each a canary tells how long it takes until work is done again.
async fn hurt(
    field: &Arc<Field>,
    plan: &Plan,
    chance: &mut Chance,
    report: &mut Report,
) -> anyhow::Result<()> {
    let until = Instant::now() + plan.span;
    let mut chosen: Vec<Fault> = ALL
        .iter()
        .copied()
        .filter(|fault| plan.only.as_ref().is_none_or(|only| fault.name().contains(only)))
        .collect();
    if chosen.contains(&Fault::DiskFull) && !can_mount().await {
        chosen.retain(|fault| *fault != Fault::DiskFull);
        report.skip("disk full: this process may not mount a small disk");
    }
    if chosen.contains(&Fault::FailedOver) && base_backup().is_none() {
        chosen.retain(|fault| *fault != Fault::FailedOver);
        report.skip("failing over to a standby: pg_basebackup is not installed");
    }
    let mut spans: BTreeMap<String, Spans> = BTreeMap::new();
    let (mut queue, mut songs, mut rounds) = (Vec::new(), 0, 0);
    // Every fault comes once, however long that takes, and once again before one comes a third time.
    while (rounds == 0 || (rounds == 1 && !queue.is_empty()) || Instant::now() < until)
        && !chosen.is_empty()
    {
        if queue.is_empty() {
            rounds += 1;
            queue.clone_from(&chosen);
            for place in (1..queue.len()).rev() {
                let other = usize::try_from(chance.below(place as u64 + 1)).unwrap_or(place);
                queue.swap(place, other);
            }
        }
        let Some(fault) = queue.pop() else { break };
        println!("{:>6.1} s left: {}", (until - Instant::now()).as_secs_f64(), fault.name());
        fault.inflict(field, chance).await.with_context(|| fault.name())?;
        let since = Instant::now();
        songs += 1;
        let api = field.api();
        let run = api.start("canary", &format!("canary-{songs}")).await?;
        until_ended(&api, run, WITHIN).await.with_context(|| fault.name())?;
        spans.entry(fault.name()).or_default().add(since.elapsed());
        report.count(&format!("fault: {}", fault.name()), 1.0);
        tokio::time::sleep(CALM).await;
    }
    for (fault, spans) in spans {
        report.recovery(&fault, spans);
    }
    Ok(())
}

/// Checks that a task that kills every worker is set aside for a person, who cancels it.
async fn poisoned(field: &Field, report: &mut Report) -> Vec<Uuid> {
    let api = field.api();
    let Ok(run) = api.start("poison", "poison").await else { return Vec::new() };
    let until = Instant::now() + WITHIN;
    while Instant::now() < until {
        let view = api.get(&format!("/v1/runs/{run}")).await.unwrap_or_default();
        let text = view["conditions"].to_string();
        if text.contains("IncidentOpen") {
            report.count("poison task set aside", 1.0);
            api.act(run, "cancel").await;
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    vec![run]
}

/// Everything is up and open again.
async fn heal(field: &Field) {
    let ways = field.to_postgres.iter().chain(&field.to_engine).chain([&field.to_ledger]);
    ways.for_each(|proxy| proxy.set(Way::Open));
    for engine in &field.engines {
        let mut engine = engine.lock().await;
        // One that runs hears nothing new by this.
        let _ = engine.signal("CONT").await;
        if engine.has_died() {
            let _ = engine.start().await;
        }
    }
    field.timeline.note("everything is healed");
}

/// Waits until every run has ended; answers them as they are shown then.
async fn drain(api: &Api, violations: &mut Vec<Violation>) -> anyhow::Result<HashMap<Uuid, Value>> {
    let until = Instant::now() + WITHIN;
    loop {
        let listed = api.all("/v1/runs").await?;
        let is_open = |line: &&Value| line["state"] != "ended";
        if listed.iter().any(|line| is_open(&line)) && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(300)).await;
            continue;
        }
        for line in listed.iter().filter(is_open) {
            let run = line["id"].as_str().unwrap_or_default().parse()?;
            let seconds = WITHIN.as_secs();
            let what = format!("it is {} {seconds} s after the last fault", line["state"]);
            violations.push(Violation::of("I9", run, what));
        }
        let mut ended = HashMap::new();
        for line in listed.iter().filter(|line| line["state"] == "ended") {
            let Some(id) = line["id"].as_str() else { continue };
            ended.insert(id.parse()?, api.get(&format!("/v1/runs/{id}")).await?);
        }
        return Ok(ended);
    }
}

/// The runs of programs that the log is told of.
fn told(programs: &[Program], ended: &HashMap<Uuid, Value>) -> Vec<Uuid> {
    let told: HashSet<&str> =
        programs.iter().filter(|program| program.told).map(|program| &*program.name).collect();
    let is_told = |view: &Value| view["workflow"].as_str().is_some_and(|name| told.contains(name));
    ended.iter().filter(|(_, view)| is_told(view)).map(|(run, _)| *run).collect()
}

/// I15: what engines hold once all is quiet is about what they held before.
async fn leaks(field: &Field, before: &[(u64, usize)], violations: &mut Vec<Violation>) {
    let after = field.sizes().await;
    for (number, (then, now)) in before.iter().zip(&after).enumerate() {
        if now.0 > then.0 + MEMORY || now.1 > then.1 + FILES {
            let what = format!(
                "engine {number} held {} KiB and {} files, and holds {} KiB and {} files",
                then.0, then.1, now.0, now.1
            );
            violations.push(Violation { invariant: "I15", run: None, what });
        }
    }
}

/// Counts what was reached, by the engines' metrics and by the histories.
fn count(field: &Field, evidence: &Evidence, report: &mut Report) {
    let further = [
        ("run parked", "backstitch_runs_parked_total"),
        ("snapshot written", "backstitch_snapshots_total"),
        ("task spilled", "backstitch_spilled_total"),
        ("task born claimed", "backstitch_born_claimed_total"),
    ];
    for (name, metric) in BY_ENGINES.iter().chain(&further) {
        report.count(name, field.counted(metric));
    }
    evidence_counts::count(evidence, report);
}

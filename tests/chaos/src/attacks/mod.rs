//! Attacks of one namespace on another: one does whatever its credentials let it, as fast as it can; the other has a
//! small steady load and must not notice. Each attack has a server and a database of its own, and comes from a process
//! of its own that gets the processor only when nobody else wants it.

mod arms;
mod children;
mod connections;
mod expressions;
mod list;
mod memory;
mod reads;
mod scene;
mod schemas;
mod sql;
mod victim;
mod wire;
mod work;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::report::Report;
use crate::stage::{Ground, ROLE};
use arms::{Arms, Orders, Tally};
use list::{ALL, Attack};
use scene::Scene;
use victim::{Kind, Seen, Victim};

/// In which the process that attacks finds its orders.
const ORDERS: &str = "BACKSTITCH_CHAOS_ATTACK";
/// The attacks of the short tier: one of each way to take what others need.
const SHORT: [&str; 8] = [
    "evaluation",
    "largest-items",
    "stopped-forks",
    "slow-readers",
    "filters",
    "many-half-bodies",
    "waits-for-tasks",
    "many-batches",
];
/// The longest time that anything may take in the short tier, which runs on machines of any speed.
const SERVED_WITHIN_MS: u64 = 10_000;
/// The name of all attacks together.
const AT_ONCE: &str = "at-once";
/// Time of the victim's warm-up, and of its measurement without an attack.
const WARM_UP: Duration = Duration::from_secs(1);
const CALM: Duration = Duration::from_secs(4);
/// Time after an attack until all must be as before, and of the measurement then.
const REST: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_secs(2);
/// Factor by which the victim may be slower.
const FACTOR: u64 = 3;
/// The longest preparation of an attack.
const PREPARED_WITHIN: Duration = Duration::from_secs(120);

/// The choice of attacks and of their bounds.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Only this attack, or `at-once`.
    pub only: Option<String>,
    /// A few attacks, and only bounds that do not depend on the machine: answers, memory, and that all is served.
    pub short: bool,
    /// For how many seconds each.
    pub seconds: u64,
    /// From which all that is left to chance follows.
    pub seed: u64,
    /// A time in milliseconds below which nothing counts as slow before it is multiplied: the noise of the machine.
    pub floor_ms: u64,
    /// The most memory that the server may take, in MiB.
    pub memory: u64,
}

/// Measurements of an attack.
struct Measured {
    calm: Seen,
    during: Seen,
    after: Seen,
    peak: u64,
    left: u64,
    tally: Tally,
}

/// All attacks, or the one that was chosen, then all at once.
///
/// # Errors
/// When the harness itself failed.
pub async fn run(
    ground: &Ground,
    program: Option<&Path>,
    choice: &Choice,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut chosen: Vec<(&str, &str, Vec<&Attack>)> =
        ALL.iter().map(|attack| (attack.name, attack.what, vec![attack])).collect();
    chosen.push((AT_ONCE, "all of them at once", ALL.iter().collect()));
    chosen.retain(|(name, ..)| match choice.only.as_deref() {
        Some(only) => only == *name,
        None => !choice.short || SHORT.contains(name),
    });
    ensure!(!chosen.is_empty(), "no attack has this name; there are {}", names());
    println!("{}", measured_on(choice));
    let scene = Scene::set_up(ground, program).await?;
    println!("{}", heading());
    let mut table = Vec::new();
    for (name, what, attacks) in chosen {
        let seen = measure(ground, &scene, name, &attacks, choice)
            .await
            .with_context(|| format!("the attack {name}"))?;
        let broken = broken(&seen, choice);
        let line = line(name, &seen, broken.is_empty());
        println!("{line}");
        table.push(format!("{line:<120}  {}", bounds(&seen, choice)));
        println!("{:>18}  {what}; alpha: {}", "", told(&seen.tally));
        for one in &broken {
            println!("{:>18}  BROKEN: {one}", "");
            report.broken(format!("attacks --only {name}: {one}"));
        }
        report.count("attacks", 1.0);
    }
    report.must_count("attacks");
    println!("\n{}  bounds", format_args!("{:<120}", heading()));
    table.iter().for_each(|line| println!("{line}"));
    Ok(())
}

/// Returns the longest p99 of a kind of request during an attack and after it, in milliseconds.
fn most(seen: &Measured, kind: Kind, choice: &Choice) -> u64 {
    match choice.short {
        true => SERVED_WITHIN_MS,
        false => FACTOR * seen.calm.within(kind, 990).max(choice.floor_ms),
    }
}

/// Returns the bounds of an attack, in the order of the columns.
fn bounds(seen: &Measured, choice: &Choice) -> String {
    let kinds = Kind::ALL.map(|kind| most(seen, kind, choice).to_string());
    format!("{} ms, {} MiB", kinds.join("/"), choice.memory)
}

fn names() -> String {
    let all: Vec<&str> = ALL.iter().map(|attack| attack.name).chain([AT_ONCE]).collect();
    all.join(", ")
}

async fn measure(
    ground: &Ground,
    scene: &Scene,
    name: &str,
    attacks: &[&Attack],
    choice: &Choice,
) -> anyhow::Result<Measured> {
    let (mut engine, database) = scene.server(ground, name).await?;
    let pid = engine.pid().context("the server is down")?;
    let server = scene::address_of(&engine)?;
    let victim = Victim::new(server, &scene.victim).await?;
    victim.work(WARM_UP).await;
    let calm = victim.work(CALM).await;
    let orders = Orders {
        attacks: attacks.iter().map(|attack| attack.name.to_owned()).collect(),
        server,
        database_url: engine.database_url.clone(),
        secrets: scene.attacker.clone(),
        seconds: choice.seconds,
        seed: choice.seed,
    };
    let attacker =
        Attacker::prepare(&orders, &ground.dir().join(format!("{name}.attacker.log"))).await?;
    memory::forget_peak(pid)?;
    let during = victim.work(Duration::from_secs(choice.seconds)).await;
    let tally = attacker.ended().await?;
    tokio::time::sleep(REST).await;
    let after = victim.work(AFTER).await;
    if engine.has_died() {
        bail!("the server died:\n{}", engine.last_words());
    }
    let memory = memory::of(pid)?;
    engine.kill().await?;
    ground.drop_database(&database).await?;
    Ok(Measured { calm, during, after, peak: memory.peak, left: memory.now, tally })
}

/// Returns the bounds that do not hold.
fn broken(seen: &Measured, choice: &Choice) -> Vec<String> {
    let mut broken = Vec::new();
    for (when, times) in [("during the attack", &seen.during), ("a second after it", &seen.after)] {
        for kind in Kind::ALL {
            let (most, now) = (most(seen, kind, choice), times.within(kind, 990));
            if now > most {
                broken.push(format!("p99 of {kind:?} {when}: {now} ms, at most {most} ms"));
            }
        }
        // How soon a task comes depends on the machine; that requests are answered does not.
        let matters = |wrong: &str| !choice.short || wrong.contains(" 5");
        for (wrong, count) in times.wrong.iter().filter(|(wrong, _)| matters(wrong)) {
            broken.push(format!("beta {when}: {count} x {wrong}"));
        }
    }
    if seen.peak > choice.memory {
        broken.push(format!("memory: {} MiB, at most {} MiB", seen.peak, choice.memory));
    }
    for (line, count) in &seen.tally {
        if line.starts_with('5') && !line.starts_with("503") {
            broken.push(format!("alpha: {count} x {line}"));
        }
    }
    broken
}

fn measured_on(choice: &Choice) -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    format!(
        "{cores} cores for server, PostgreSQL, victim and attacker, the attacker at the lowest priority; this program is a \
         {build} build. A p99 is in milliseconds and may be {FACTOR} times the calm one, which counts as {} at least; \
         memory in MiB, at most {}.",
        choice.floor_ms, choice.memory
    )
}

fn heading() -> String {
    let kinds = Kind::ALL.map(|kind| format!("{:>17}", format!("{kind:?}").to_lowercase()));
    format!("{:<18}{}{:>7}{:>7}", "calm/during/after", kinds.concat(), "peak", "left")
}

fn line(name: &str, seen: &Measured, kept: bool) -> String {
    let kinds = Kind::ALL.map(|kind| {
        let [calm, during, after] =
            [&seen.calm, &seen.during, &seen.after].map(|seen| seen.within(kind, 990));
        format!("{:>17}", format!("{calm}/{during}/{after}"))
    });
    let kept = if kept { "ok" } else { "BROKEN" };
    format!("{name:<18}{}{:>7}{:>7}  {kept}", kinds.concat(), seen.peak, seen.left)
}

fn told(tally: &Tally) -> String {
    let all: Vec<String> = tally.iter().map(|(line, count)| format!("{count} x {line}")).collect();
    all.join(", ")
}

/// The process that attacks.
struct Attacker {
    child: Child,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
    seconds: u64,
}

impl Attacker {
    /// Starts it and waits until it begins.
    async fn prepare(orders: &Orders, log: &Path) -> anyhow::Result<Attacker> {
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(std::env::current_exe()?);
        command.env(ROLE, "attacker").env(ORDERS, serde_json::to_string(orders)?);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(std::fs::File::create(log)?);
        let mut child = command.kill_on_drop(true).spawn().context("the attacker")?;
        let out = child.stdout.take().context("the attacker has no output")?;
        let mut lines = BufReader::new(out).lines();
        let begun = tokio::time::timeout(PREPARED_WITHIN, lines.next_line()).await;
        let begun = begun.context("the attack is not prepared in time")??;
        ensure!(begun.is_some(), "the attacker ended: {}", std::fs::read_to_string(log)?);
        Ok(Attacker { child, lines, seconds: orders.seconds })
    }

    /// Waits until it has ended, and answers how it was answered.
    async fn ended(mut self) -> anyhow::Result<Tally> {
        let within = Duration::from_secs(self.seconds + 30);
        let line = tokio::time::timeout(within, self.lines.next_line()).await;
        let line = line.context("the attacker does not end")??.context("the attacker broke")?;
        self.child.wait().await?;
        Ok(serde_json::from_str(&line)?)
    }
}

/// Plays the process that attacks.
///
/// # Errors
/// When it has no orders.
pub async fn attack() -> anyhow::Result<()> {
    let orders = std::env::var(ORDERS).context("an attacker needs orders")?;
    let orders: Arc<Orders> = Arc::new(serde_json::from_str(&orders)?);
    let tally = Arc::new(Mutex::new(BTreeMap::new()));
    let (preparing, mut prepared) = mpsc::channel(1);
    let (begin, begun) = watch::channel(None);
    let mut all = JoinSet::new();
    for name in &orders.attacks {
        let attack = list::find(name).with_context(|| format!("no attack is called {name}"))?;
        let arms = Arms::new(&orders, &tally, preparing.clone(), begun.clone());
        all.spawn(async move {
            let done = (attack.run)(Arc::clone(&arms)).await;
            if let Err(error) = done {
                arms.note(format!("{} could not go on: {error:#}", attack.name));
            }
            drop(arms);
        });
    }
    drop(preparing);
    // Nothing is sent: it ends when all are prepared, or have ended.
    let _: Option<()> = prepared.recv().await;
    begin.send_replace(Some(Instant::now()));
    println!("begins");
    let span = Duration::from_secs(orders.seconds) + Duration::from_secs(5);
    // What does not end by itself is cut.
    let _ = tokio::time::timeout(span, async { while all.join_next().await.is_some() {} }).await;
    let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    println!("{}", serde_json::to_string(&*tally)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn attacks_have_names_of_their_own() {
        let names: BTreeSet<&str> = ALL.iter().map(|attack| attack.name).collect();
        assert_eq!(names.len(), ALL.len());
        assert!(!names.contains(AT_ONCE));
        assert!(SHORT.iter().all(|name| names.contains(name)));
    }
}

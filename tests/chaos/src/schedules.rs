//! I11: schedules under watch. Which instants they have is enumerated here, by nothing but the clock of this machine,
//! which is PostgreSQL's, too.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::bail;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::sleep;
use uuid::Uuid;

use crate::client::{Api, Saw};
use crate::evidence::{Violation, instant};
use crate::program::Program;
use crate::timeline::now_ms;
use crate::worker::Script;

/// Time that anything here may take.
const WITHIN: Duration = Duration::from_secs(60);
/// Starts due so shortly before the end may be in progress.
const SLACK: i64 = 3_000;

/// Returns the program of the started runs.
#[must_use]
pub fn program() -> Program {
    Program::new("tick").task("a", &[], Script { reads: true, adds: 1, ..Script::default() })
}

/// Returns a second workflow, for schedules that are edited to start another.
#[must_use]
pub fn second_program() -> Program {
    Program { name: "tock".to_owned(), ..program() }
}

/// A schedule that is watched.
struct Watched {
    name: String,
    /// As it was put first.
    spec: Value,
    every: i64,
    /// Its policy may leave an instant out.
    skips: bool,
    asked: i64,
    answered: i64,
}

/// Schedules that are watched, from their beginning to their end.
pub struct Schedules {
    all: Vec<Watched>,
    until: i64,
}

impl Schedules {
    /// Puts them; their program must be registered.
    ///
    /// # Errors
    /// When one is refused.
    pub async fn begin(api: &Api) -> anyhow::Result<Schedules> {
        let mut all = Vec::new();
        for (cron, every, overlap) in [
            ("* * * * * *", 1_000, "allow"),
            ("*/2 * * * * *", 2_000, "queue"),
            ("*/3 * * * * *", 3_000, "skip"),
        ] {
            let (name, asked) = (format!("watched-{overlap}"), now_ms());
            let mut schedule = json!({
                "cron": cron, "time_zone": "UTC", "workflow": "tick", "overlap": overlap, "catch_up": "1h",
            });
            if overlap == "queue" {
                schedule["queue_limit"] = json!(100);
            }
            put(api, &name, &schedule).await?;
            let skips = overlap != "allow";
            let (answered, spec) = (now_ms(), schedule);
            all.push(Watched { name, spec, every, skips, asked, answered });
        }
        Ok(Schedules { all, until: i64::MAX })
    }

    /// Puts each again with the input `number` and, every other time, with the second workflow. Its pattern stays.
    ///
    /// # Errors
    /// When one is refused.
    pub async fn edit(&self, api: &Api, number: u64) -> anyhow::Result<()> {
        for watched in &self.all {
            let mut spec = watched.spec.clone();
            spec["input"] = json!(number);
            if number % 2 == 1 {
                spec["workflow"] = json!(second_program().name);
            }
            put(api, &watched.name, &spec).await?;
        }
        Ok(())
    }

    /// Waits until they have caught up, and pauses them: what waits in a queue then goes on waiting.
    ///
    /// # Errors
    /// When that cannot be done.
    pub async fn end(&mut self, api: &Api) -> anyhow::Result<()> {
        let until = Instant::now() + WITHIN;
        while Instant::now() < until {
            let mut behind = false;
            for watched in &self.all {
                let newest = starts(api, watched).await?.last_key_value().map_or(0, |(at, _)| *at);
                behind |= newest < now_ms() - watched.every - SLACK / 2;
            }
            if !behind {
                break;
            }
            sleep(Duration::from_millis(200)).await;
        }
        self.until = now_ms();
        for watched in &self.all {
            let path = format!("/v1/schedules/{}/pause", watched.name);
            let (body, key) = (json!({ "reason": "chaos" }), Uuid::new_v4().to_string());
            match api.ask(Method::POST, &path, Some(&body), &key, WITHIN).await {
                Saw::Ok(_) => {}
                other => bail!("POST {path}: {other:?}"),
            }
        }
        Ok(())
    }

    /// No instant has two runs, none has one that is none, and none is without a run but by its policy. Returns how
    /// many instants there were.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn check(&self, api: &Api) -> anyhow::Result<(Vec<Violation>, usize)> {
        let (mut found, mut count) = (Vec::new(), 0);
        for watched in &self.all {
            let runs = runs(api, watched).await?;
            let told = starts(api, watched).await?;
            let due = instants(watched, self.until - SLACK);
            count += due.len();
            found.extend(compare(watched, &due, &runs, &told));
        }
        Ok((found, count))
    }
}

async fn put(api: &Api, name: &str, spec: &Value) -> anyhow::Result<()> {
    let path = format!("/v1/schedules/{name}");
    match api.ask(Method::PUT, &path, Some(spec), "", WITHIN).await {
        Saw::Ok(_) => Ok(()),
        other => bail!("PUT {path}: {other:?}"),
    }
}

/// Returns the instants that must be: after it was put, up to `until`.
fn instants(watched: &Watched, until: i64) -> Vec<i64> {
    let first = watched.answered.div_euclid(watched.every) + 1;
    (first..).map(|nth| nth * watched.every).take_while(|at| *at <= until).collect()
}

fn compare(
    watched: &Watched,
    due: &[i64],
    runs: &[(i64, Uuid)],
    told: &BTreeMap<i64, String>,
) -> Vec<Violation> {
    let (mut found, mut started) = (Vec::new(), BTreeMap::new());
    let name = &watched.name;
    for (at, run) in runs {
        if let Some(other) = started.insert(*at, *run) {
            let what = format!("the instant {at} of {name} has two runs, also {other}");
            found.push(Violation::of("I11", *run, what));
        }
        if at.rem_euclid(watched.every) != 0 || *at <= watched.asked || *at > now_ms() {
            let what = format!("{at} is no instant of {name}");
            found.push(Violation::of("I11", *run, what));
        }
    }
    for at in due.iter().filter(|at| !started.contains_key(at)) {
        let why = told.get(at).map_or("nothing is told of it", String::as_str);
        if !(watched.skips && why == "skipped") {
            let what = format!("the instant {at} of {name} has no run: {why}");
            found.push(Violation { invariant: "I11", run: None, what });
        }
    }
    found
}

/// Returns the instants of a schedule that became runs.
async fn runs(api: &Api, watched: &Watched) -> anyhow::Result<Vec<(i64, Uuid)>> {
    let listed = api.all(&format!("/v1/runs?label=schedule:{}", watched.name)).await?;
    let prefix = format!("schedule/{}/", watched.name);
    let run = |line: &Value| {
        let at = line["key"].as_str()?.strip_prefix(&prefix)?;
        Some((instant(&json!(at))?, line["id"].as_str()?.parse().ok()?))
    };
    Ok(listed.iter().filter_map(run).collect())
}

/// Returns the recorded results of the instants of a schedule.
async fn starts(api: &Api, watched: &Watched) -> anyhow::Result<BTreeMap<i64, String>> {
    let mut all = BTreeMap::new();
    for line in api.all(&format!("/v1/schedules/{}/starts", watched.name)).await? {
        let Some(first) = instant(&line["scheduled_for"]) else { continue };
        let last = instant(&line["until"]).unwrap_or(first);
        let outcome = line["outcome"].as_str().unwrap_or_default();
        let mut at = first;
        while at <= last {
            all.insert(at, outcome.to_owned());
            at += watched.every;
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(skips: bool) -> Watched {
        let (name, spec) = ("w".to_owned(), Value::Null);
        Watched { name, spec, every: 2_000, skips, asked: 900, answered: 1_000 }
    }

    #[test]
    fn the_instants_are_those_of_the_clock() {
        assert_eq!(instants(&watched(false), 8_100), [2_000, 4_000, 6_000, 8_000]);
        assert_eq!(instants(&watched(false), 1_999), Vec::<i64>::new());
    }

    #[test]
    fn i11_an_instant_without_a_run_with_two_or_that_is_none_is_seen() {
        let due = [2_000, 4_000];
        let run = |at| (at, Uuid::from_u128(7));
        let told = BTreeMap::from([(4_000, "skipped".to_owned())]);
        let wrong = |skips, runs: &[(i64, Uuid)]| compare(&watched(skips), &due, runs, &told).len();
        assert_eq!(wrong(false, &[run(2_000), run(4_000)]), 0);
        assert_eq!(wrong(false, &[run(2_000)]), 1, "no policy leaves it out");
        assert_eq!(wrong(true, &[run(2_000)]), 0, "its policy left it out");
        assert_eq!(wrong(true, &[run(4_000)]), 1, "nothing is told of it");
        assert_eq!(wrong(true, &[run(2_000), run(2_000)]), 1, "two");
        assert_eq!(wrong(true, &[run(2_000), run(3_000)]), 1, "no instant");
    }
}

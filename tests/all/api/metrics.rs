//! The numbers of a server: what they say, and that the page, the dashboard and the rules about them are true.

use std::collections::{BTreeMap, BTreeSet};

use backstitch_api::Access;
use backstitch_engine::BackgroundTask;
use backstitch_saga::protocol::{BackgroundTaskView, BackgroundTasks, FailureKind, Outcome};
use backstitch_tests::node::{Hand, NS, chain, start};
use backstitch_tests::server::Server;
use serde_json::Value;

use super::incidents::parking;

const PAGE: &str = include_str!("../../../docs/metrics.md");
const DASHBOARD: &str = include_str!("../../../docs/grafana-dashboard.json");
const RULES: &str = include_str!("../../../docs/alerts.yml");

async fn scrape(server: &Server) -> String {
    let answer = server.get("/metrics").await;
    assert_eq!(answer.status, 200);
    answer.text
}

/// Returns the families of a scrape with their types.
fn families(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect()
}

/// Returns the families of the page, with their types and labels.
fn documented() -> BTreeMap<&'static str, (&'static str, BTreeSet<&'static str>)> {
    let row = |line: &'static str| {
        let cells: Vec<&str> = line.strip_prefix("| `")?.split('|').map(str::trim).collect();
        let labels = cells[2].split(", ").map(|label| label.trim_matches('`'));
        let labels = labels.filter(|label| !label.is_empty()).collect();
        Some((cells[0].trim_end_matches('`'), (cells[1], labels)))
    };
    PAGE.lines().filter_map(row).collect()
}

/// Returns the families that a text names.
fn named<'a>(text: &'a str, known: &BTreeMap<&str, &str>) -> BTreeSet<&'a str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let ours = words.filter(|word| word.starts_with("backstitch_") || word.starts_with("process_"));
    ours.map(|word| {
        let parts = ["_bucket", "_sum", "_count"];
        let base = parts.into_iter().find_map(|part| word.strip_suffix(part));
        base.filter(|base| known.get(base) == Some(&"histogram")).unwrap_or(word)
    })
    .collect()
}

/// Returns the sample of a scrape with this name and these labels, as they are printed.
fn value(text: &str, sample: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
}

#[tokio::test]
async fn the_page_the_dashboard_and_the_rules_name_what_a_server_answers() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &chain("one", &["a"])).await.unwrap();
    server.engine.start_run(NS, start("one", "1")).await.unwrap();
    let hand = Hand::new(&server.engine);
    hand.succeed(&[hand.one().await]).await;
    let text = scrape(&server).await;
    let exported = families(&text);
    let page = documented();
    let types: BTreeMap<&str, &str> = page.iter().map(|(name, (kind, _))| (*name, *kind)).collect();
    assert_eq!(exported, types, "docs/metrics.md");
    let all: BTreeSet<&str> = exported.keys().copied().collect();
    assert_eq!(named(DASHBOARD, &exported), all, "docs/grafana-dashboard.json");
    let strange: Vec<&str> = named(RULES, &exported).difference(&all).copied().collect();
    assert_eq!(strange, Vec::<&str>::new(), "docs/alerts.yml");
    serde_json::from_str::<Value>(DASHBOARD).unwrap();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, labels)) = line.split_once('{') else { continue };
        let family = named(name, &exported).pop_first().unwrap();
        let labels = labels.split("\",").filter_map(|label| label.split_once('='));
        for (label, _) in labels.filter(|(label, _)| *label != "le") {
            assert!(page[family].1.contains(label), "{family}: {label}");
        }
    }
    server.stopped().await;
}

/// Labels, each with the values that are asked for.
type Labels = Vec<(&'static str, Vec<&'static str>)>;

/// Returns the selectors of a text: the family, and the labels that it asks for.
fn selectors(text: &'static str) -> Vec<(&'static str, Labels)> {
    let mut found = Vec::new();
    let braces = text.match_indices('{').filter(|(at, _)| text[at + 1..].find('"').is_some());
    for (at, _) in braces {
        let before = text[..at].rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next();
        let Some(family) = before.filter(|name| name.starts_with("backstitch_")) else { continue };
        let inside = text[at + 1..].split('}').next().unwrap();
        let asked = inside.split(',').map(|one| {
            let (label, value) = one.split_once('=').unwrap();
            (label, value.trim_matches(['~', '"']).split('|').collect())
        });
        found.push((family, asked.collect()));
    }
    found
}

#[tokio::test]
async fn the_rules_ask_for_labels_and_values_that_a_server_answers() {
    let server = Server::start(Access::Open).await;
    let (text, page) = (scrape(&server).await, documented());
    let exported = families(&text);
    let has = |label: &str, value: &str| match label {
        "outcome" => serde_json::from_value::<Outcome>(value.into()).is_ok(),
        "status" => value.len() == 3 && value.starts_with(char::is_numeric),
        _ => text.contains(&format!("{label}=\"{value}\"")),
    };
    let found = selectors(RULES);
    assert!(found.len() >= 4, "{found:?}");
    for (family, asked) in found {
        let family = named(family, &exported).pop_first().unwrap();
        for (label, values) in asked {
            assert!(page[family].1.contains(label), "{family} has no label {label}");
            let strange: Vec<&str> =
                values.into_iter().filter(|value| !has(label, value)).collect();
            assert_eq!(strange, Vec::<&str>::new(), "{family}: {label}");
        }
    }
    // What is grouped by, or printed, is a label of what is asked for.
    for rule in RULES.split("- alert:").skip(1) {
        let families = named(rule, &exported);
        let groups =
            rule.split("by (").skip(1).flat_map(|rest| rest.split(')').next().unwrap().split(", "));
        let printed = rule.split("$labels.").skip(1).map(|rest| rest.split(' ').next().unwrap());
        for label in groups.chain(printed).filter(|label| !["le", "instance"].contains(label)) {
            let is_there = families.iter().any(|family| page[family].1.contains(label));
            assert!(is_there, "no label {label} in{rule}");
        }
    }
    server.stopped().await;
}

#[tokio::test]
async fn a_scrape_tells_of_runs_tasks_incidents_and_what_keeps_them() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &chain("good", &["a"])).await.unwrap();
    server.engine.register(NS, &parking("bad", &["pay"])).await.unwrap();
    let hand = Hand::new(&server.engine);
    let good = server.engine.start_run(NS, start("good", "1")).await.unwrap().id;
    hand.succeed(&[hand.one().await]).await;
    server.engine.wait(NS, good, std::time::Duration::from_secs(20)).await.unwrap();
    server.engine.start_run(NS, start("bad", "1")).await.unwrap();
    hand.fail(&hand.one().await, FailureKind::Permanent).await;
    server.engine.start_run(NS, start("good", "2")).await.unwrap();
    let began = std::time::Instant::now();
    while server.engine.status(NS).await.incidents.open == 0 {
        assert!(began.elapsed() < std::time::Duration::from_secs(60));
    }
    let text = scrape(&server).await;
    let one = [
        "backstitch_incidents_open{kind=\"task_exhausted\"}",
        "backstitch_incidents_opened_total",
        "backstitch_runs{workflow=\"bad\",state=\"waiting\"}",
        "backstitch_runs_ended_total{workflow=\"good\",outcome=\"succeeded\"}",
        "backstitch_runs_started_total{workflow=\"bad\"}",
        "backstitch_database_up",
    ];
    for sample in one {
        assert_eq!(value(&text, sample), Some(1.0), "{sample}\n{text}");
    }
    assert_eq!(value(&text, "backstitch_runs_started_total{workflow=\"good\"}"), Some(2.0));
    let reports = "backstitch_task_execution_seconds_count{queue=\"default\"}";
    assert_eq!(value(&text, reports), Some(2.0), "{text}");
    let starts = "backstitch_task_schedule_to_start_seconds_count{queue=\"default\"}";
    assert!(value(&text, starts).is_some_and(|count| count >= 2.0), "{text}");
    for sample in [
        "backstitch_background_last_success_timestamp_seconds{task=\"heartbeat\"}",
        "process_resident_memory_bytes",
        "backstitch_pool_limit{pool=\"readers\"}",
    ] {
        assert!(value(&text, sample).is_some_and(|value| value > 0.0), "{sample}");
    }
    assert_eq!(value(&text, "backstitch_pool_waiting{pool=\"readers\"}"), Some(0.0));
    server.stopped().await;
}

#[tokio::test]
async fn each_background_task_is_done_counted_and_listed() {
    let server = Server::start(Access::Open).await;
    let began = std::time::Instant::now();
    let listed: BackgroundTasks = loop {
        let answer = server.get("/v1/background-tasks").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let listed: BackgroundTasks = serde_json::from_str(&answer.text).unwrap();
        let waits = |task: &&BackgroundTaskView| task.succeeded_at.is_none();
        let idle: Vec<&str> = listed.tasks.iter().filter(waits).map(|task| &*task.task).collect();
        if idle.is_empty() {
            break listed;
        }
        assert!(began.elapsed() < std::time::Duration::from_secs(60), "not done: {idle:?}");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    };
    let names: Vec<&str> = listed.tasks.iter().map(|task| &*task.task).collect();
    let known: Vec<&str> = BackgroundTask::ALL.iter().map(|task| task.as_str()).collect();
    assert_eq!(names, known);
    let text = scrape(&server).await;
    for task in &listed.tasks {
        let of = |family: &str| value(&text, &format!("{family}{{task=\"{}\"}}", task.task));
        assert!(of("backstitch_background_runs_total") >= Some(task.runs as f64), "{task:?}");
        assert!(!task.is_failing, "{task:?}");
    }
    let every = |name: &str| listed.tasks.iter().find(|task| task.task == name).unwrap().every;
    assert!(every("heartbeat").is_some() && every("permits").is_none());
    server.stopped().await;
}

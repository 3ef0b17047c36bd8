//! Output for people: whole cells in pipes, the view of a run, redrawing of a terminal.

use std::process::Stdio;
use std::time::Duration;

use backstitch_api::Access;
use backstitch_saga::protocol::SendSignal;
use backstitch_tests::node::{Hand, NS, by, json, start};
use backstitch_tests::server::Server;
use tokio::io::AsyncReadExt;
use tokio::process::{ChildStdout, Command};

use super::say;

const ASKED: &str = r#"{"name":"asked","version":1,"steps":[
    {"id":"pay","task":{"name":"do","input":{"path":"/input"},"compensate":{"name":"undo"}}},
    {"id":"ok","after":["pay"],"wait":{"signal":"approval","timeout":"3d","title":"Ship it?",
      "assignee":{"path":"/input/boss"},
      "schema":{"type":"object","required":["approved"],"properties":{"approved":{"type":"boolean"}}}}},
    {"id":"ship","after":["ok"],"task":{"name":"do","class":"retriable","input":{"path":"/input"}}}],
    "output":{"path":"/steps/pay"}}"#;

#[tokio::test]
async fn a_run_shows_its_documents_its_effects_and_who_decided_what() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, ASKED).await.unwrap();
    let hand = Hand::new(&server.engine);
    let input = r#"{"boss":"ann","note":"ask the boss before anything leaves the house, and ask again when in doubt, as always"}"#;
    let id = server.engine.start_run(NS, start("asked", input)).await.unwrap().id;
    hand.succeed(&[hand.one().await]).await;
    let shown = say(&server, &["run", "show", &id.to_string()]).await.out;
    for line in [
        &format!("input: {input}\n"),
        "stands: pay\n",
        "? ok: Ship it?  (signal approval)\n",
        "form: approved (boolean, required)\n",
        "asked of: ann\n",
        &format!("backstitch run signal {id} approval --data JSON\n"),
    ] {
        assert!(shown.contains(line), "{line} in\n{shown}");
    }
    let data = SendSignal { data: json(r#"{"approved":true}"#) }.data;
    server.engine.signal(NS, id, "approval", data, by("")).await.unwrap();
    hand.succeed(&[hand.one().await]).await;
    let shown = say(&server, &["run", "show", &id.to_string()]).await.out;
    for line in [
        &format!("output: {input}\n"),
        "stands: pay, ship\n",
        "    decided by ann: {\"approved\":true}\n",
    ] {
        assert!(shown.contains(line), "{line} in\n{shown}");
    }
    let history = say(&server, &["run", "history", &id.to_string()]).await.out;
    assert!(history.contains("and ask again when in doubt, as always") && !history.contains('…'));
    server.stopped().await;
}

#[tokio::test]
async fn approvals_are_listed_by_whom_they_are_asked_of() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, ASKED).await.unwrap();
    let hand = Hand::new(&server.engine);
    let mut ids = Vec::new();
    for boss in ["ann", "bob", "o'neil, jr, 100%"] {
        let input = format!(r#"{{"boss":"{boss}"}}"#);
        ids.push(server.engine.start_run(NS, start("asked", &input)).await.unwrap().id);
        hand.succeed(&[hand.one().await]).await;
    }
    let of = async |who: &str| {
        let said = say(&server, &["run", "list", "--assignee", who, "-o", "json"]).await;
        assert_eq!(said.code, 0, "{said:?}");
        let page = said.json();
        let items = page["items"].as_array().unwrap().clone();
        assert!(
            items.iter().all(|run| run["conditions"][0] == "SignalAwaited"
                && run["conditions"].as_array().unwrap().len() == 1),
            "{page}"
        );
        items.iter().map(|run| run["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of("ann").await, [ids[0].to_string()]);
    assert_eq!(of("o'neil, jr, 100%").await, [ids[2].to_string()]);
    assert_eq!(of("an").await, [""; 0]);
    let data = SendSignal { data: json(r#"{"approved":true}"#) }.data;
    server.engine.signal(NS, ids[0], "approval", data, by("")).await.unwrap();
    assert_eq!(of("ann").await, [""; 0], "it is answered");
    server.stopped().await;
}

#[tokio::test]
async fn a_skipped_approval_leaves_a_run_incomplete_and_a_resolved_one_does_not() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, ASKED).await.unwrap();
    let hand = Hand::new(&server.engine);
    for (verb, outcome) in [("skip", "partially_completed"), ("resolve", "succeeded")] {
        let id = server.engine.start_run(NS, start("asked", r#"{"boss":"ann"}"#)).await.unwrap().id;
        hand.succeed(&[hand.one().await]).await;
        let id = id.to_string();
        let words = ["run", verb, &id, "ok", "--set-output", r#"{"approved":true}"#];
        let words = [&words[..], &["--reason", "Ann said so on the phone"]].concat();
        assert_eq!(say(&server, &words).await.code, 0, "{verb}");
        hand.succeed(&[hand.one().await]).await;
        let shown = say(&server, &["run", "show", &id, "-o", "json"]).await.json();
        assert_eq!(shown["outcome"], outcome, "{shown}");
    }
    server.stopped().await;
}

#[tokio::test]
async fn the_actor_named_in_a_question_is_whose_acts_are_listed() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, ASKED).await.unwrap();
    let id = server.engine.start_run(NS, start("asked", r#"{"boss":"ann"}"#)).await.unwrap().id;
    let id = id.to_string();
    for (verb, actor) in [("pause", "ann"), ("resume", "bob")] {
        let words = ["run", verb, &id, "--reason", "a try", "--actor", actor];
        assert_eq!(say(&server, &words).await.code, 0, "{verb}");
    }
    let list = ["act", "list", "-o", "json"];
    for words in
        [[&list[..], &["--actor", "ann"]].concat(), [&["--actor", "ann"], &list[..]].concat()]
    {
        let acts = say(&server, &words).await.json();
        let verbs: Vec<&str> = acts["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|act| act["verb"].as_str().unwrap())
            .collect();
        assert_eq!(verbs, ["pause"], "{words:?}");
    }
    let all = say(&server, &list).await.json();
    assert_eq!(all["items"].as_array().unwrap().len(), 2, "{all}");
    server.stopped().await;
}

#[tokio::test]
async fn a_signal_that_comes_before_its_run_is_told_to_be_kept() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, ASKED).await.unwrap();
    let send = ["signal", "send", "--workflow", "asked", "--key", "k-1", "--signal", "approval"];
    let send = [&send[..], &["--data", r#"{"approved":true}"#]].concat();
    let kept = say(&server, &send).await;
    assert_eq!(kept.code, 0, "{kept:?}");
    assert!(kept.out.contains("No run of workflow 'asked' has the key 'k-1' yet"), "{kept:?}");
    server.stopped().await;
}

/// Returns a program on a terminal of `rows` and `columns`, as `script` makes one.
fn on_terminal(rows: u16, columns: u16, words: &str) -> Command {
    let mut command = Command::new("script");
    let set = format!("stty rows {rows} cols {columns}; exec {words}");
    command.args(["-q", "-e", "-c", &set, "/dev/null"]).env("TERM", "xterm").env("USER", "ann");
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Returns the output of a program on a terminal; `None` if no terminal can be made.
async fn on_a_terminal(rows: u16, columns: u16, words: &str) -> Option<String> {
    let said = on_terminal(rows, columns, words).output().await.ok()?;
    Some(String::from_utf8(said.stdout).unwrap())
}

/// Reads on until `text` has come.
async fn until(out: &mut ChildStdout, all: &mut String, text: &str) {
    let mut bytes = all.as_bytes().to_vec();
    while !String::from_utf8_lossy(&bytes).contains(text) {
        let mut part = [0; 4096];
        let length = tokio::time::timeout(Duration::from_secs(60), out.read(&mut part)).await;
        let length = length.expect("in time").unwrap();
        assert!(length > 0, "it ended without {text}: {}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&part[..length]);
    }
    *all = String::from_utf8_lossy(&bytes).into_owned();
}

#[tokio::test]
async fn a_list_keeps_to_the_width_of_a_terminal_and_to_none_in_a_pipe() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, ASKED).await.unwrap();
    let key = "k".repeat(100);
    let keyed =
        backstitch_saga::protocol::StartRun { key: Some(key.clone()), ..start("asked", "1") };
    let id = server.engine.start_run(NS, keyed).await.unwrap().id.to_string();
    let piped = say(&server, &["run", "list"]).await.out;
    assert!(piped.contains(&key) && piped.contains("STARTED_AT"), "{piped}");
    let program = env!("CARGO_BIN_EXE_backstitch-under-test");
    let list = format!("{program} --url {} --namespace {NS} run list", server.url());
    let Some(narrow) = on_a_terminal(24, 80, &list).await else { return };
    assert!(narrow.lines().all(|line| line.trim_end().chars().count() <= 80), "{narrow}");
    let without_breaks: String = narrow.split_whitespace().collect();
    assert!(narrow.contains(&id) && without_breaks.contains(&key), "below its row: {narrow}");
    assert!(!narrow.contains("STARTED_AT\n") && narrow.contains("--wide"), "{narrow}");
    let wide = on_a_terminal(24, 80, &format!("{list} --wide")).await.unwrap();
    assert!(wide.contains(&key) && wide.contains("STARTED_AT"), "{wide}");
    server.stopped().await;
}

#[tokio::test]
async fn watching_on_a_short_and_narrow_terminal_never_draws_a_line_twice() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, ASKED).await.unwrap();
    let note = "n".repeat(300);
    let input = format!(r#"{{"boss":"ann","note":"{note}"}}"#);
    let id = server.engine.start_run(NS, start("asked", &input)).await.unwrap().id;
    let program = env!("CARGO_BIN_EXE_backstitch-under-test");
    let watch = format!("{program} --url {} --namespace {NS} run watch {id}", server.url());
    let mut script = on_terminal(10, 80, &watch);
    let Ok(mut child) = script.stdout(Stdio::piped()).spawn() else { return };
    let (mut out, mut watched) = (child.stdout.take().unwrap(), String::new());
    let hand = Hand::new(&server.engine);
    until(&mut out, &mut watched, "○ pay").await;
    hand.succeed(&[hand.one().await]).await;
    until(&mut out, &mut watched, "✓ pay").await;
    let data = SendSignal { data: json(r#"{"approved":true}"#) }.data;
    server.engine.signal(NS, id, "approval", data, by("")).await.unwrap();
    hand.succeed(&[hand.one().await]).await;
    out.read_to_string(&mut watched).await.unwrap();
    assert!(child.wait().await.unwrap().success());
    let frames: Vec<&str> = watched.split("\x1b[0J").collect();
    assert!(frames.len() >= 3, "{watched:?}");
    for frame in &frames[1..frames.len() - 1] {
        let lines: Vec<&str> = frame.split("\x1b[").next().unwrap().lines().collect();
        assert!(lines.len() <= 9, "{lines:?}");
        assert!(lines.iter().all(|line| line.trim_end().chars().count() < 80), "{lines:?}");
    }
    let last = frames.last().unwrap();
    assert!(last.contains("everything was done") && last.contains(&note), "whole: {last}");
    server.stopped().await;
}

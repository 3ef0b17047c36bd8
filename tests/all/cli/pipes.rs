//! Programs whose output is not read: they end as Unix programs do, and servers go on.

use std::process::Stdio;
use std::time::Duration;

use backstitch_api::Access;
use backstitch_tests::node::{NS, chain, start};
use backstitch_tests::postgres::database;
use backstitch_tests::server::Server;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

use super::{at, file, program};

/// 128 and the number of SIGPIPE: what a shell tells of a program that it killed.
const CLOSED: i32 = 141;

/// Returns the writing end of a pipe whose reading end is gone.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// Runs `command` with a closed standard output, and then with a closed standard error, too. Returns the exit codes.
async fn unread(mut command: Command) -> (i32, i32) {
    let child = command.stdin(Stdio::null()).stdout(closed()).stderr(Stdio::piped()).spawn();
    let said = child.unwrap().wait_with_output().await.unwrap();
    let err = String::from_utf8(said.stderr).unwrap();
    assert!(!err.contains("panicked"), "{err}");
    let both = command.stdout(closed()).stderr(closed()).status().await.unwrap();
    (said.status.code().unwrap(), both.code().unwrap())
}

#[tokio::test]
async fn a_verb_that_asks_a_server_ends_quietly_when_its_output_is_closed() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &chain("two", &["first", "second"])).await.unwrap();
    let id = server.engine.start_run(NS, start("two", "1")).await.unwrap().id.to_string();
    let ended = server.engine.start_run(NS, start("two", "2")).await.unwrap().id.to_string();
    let kill = ["run", "kill", &ended, "--reason", "r"];
    assert!(at(&server, &kill).output().await.unwrap().status.success());
    for words in [
        &["run", "list"][..],
        &["run", "list", "--all"],
        &["run", "list", "-o", "json"],
        &["run", "list", "--limit", "1"],
        &["run", "show", &id],
        &["run", "show", &id, "-o", "json"],
        &["run", "history", &id],
        &["run", "why", &id],
        &["run", "tree", &id],
        &["run", "watch", &ended],
        &["run", "watch", &ended, "-o", "json"],
        &["run", "start", "two"],
        &["run", "start", "two", "--wait", "1ms"],
        &["run", "compensate", &id, "--dry-run", "--scope", "all"],
        &["workflow", "list"],
        &["workflow", "show", "two", "1"],
        &["workflow", "versions", "two"],
        &["workflow", "drain", "two"],
        &["incident", "list"],
        &["incident", "groups"],
        &["incident", "counts"],
        &["queue", "list"],
        &["schedule", "list"],
        &["job", "list"],
        &["act", "list"],
        &["worker", "list"],
        &["start-request", "list"],
        &["pause", "list"],
        &["status"],
        &["whoami"],
    ] {
        assert_eq!(unread(at(&server, words)).await, (CLOSED, CLOSED), "{words:?}");
    }
    // These print on standard error alone.
    for (words, code) in [
        (&["run", "show", "nobody"][..], 3),
        (&["run", "list", "--state", "odd"], 2),
        (&["run", "kill", &ended, "--reason", "another"], 1),
    ] {
        assert_eq!(unread(at(&server, words)).await, (code, code), "{words:?}");
    }
    server.stopped().await;
}

#[tokio::test]
async fn a_verb_that_asks_no_server_ends_quietly_when_its_output_is_closed() {
    let database = database().await;
    let definition = file("unread.json", &chain("sound", &["first", "second"]));
    let wrong = file("unread-wrong.json", "{}");
    let (definition, wrong) = (definition.to_str().unwrap(), wrong.to_str().unwrap());
    for words in [
        &["completions", "bash"][..],
        &["completions", "zsh"],
        &["completions", "fish"],
        &["completions", "elvish"],
        &["completions", "powershell"],
        &["rehearse", definition],
        &["rehearse", definition, "-o", "json"],
        &["workflow", "validate", definition],
        &["workflow", "validate", wrong],
        &["migrate"],
        &["doctor"],
        &["key", "create", "--name", "one", "--role", "viewer"],
        &["demo", "--count", "1"],
        &["demo", "--count", "1", "--json"],
        &["bench", "--workload", "w2", "--seconds", "1"],
        &["bench", "--workload", "w2", "--seconds", "1", "-o", "json"],
    ] {
        let mut command = program();
        command.args(words);
        if words[0] != "bench" {
            command.env("BACKSTITCH_DATABASE_URL", &database);
        }
        let (first, second) = unread(command).await;
        // The second time the credential is there already.
        let second_may = [CLOSED, if words[0] == "key" { 1 } else { CLOSED }];
        assert!(first == CLOSED && second_may.contains(&second), "{words:?}: {first}, {second}");
    }
    for words in [&["--help"][..], &["--version"], &["run", "--help"], &["run", "list", "--help"]] {
        let mut command = program();
        command.args(words);
        let (first, second) = unread(command).await;
        assert!(first != 101 && second != 101, "{words:?}: {first}, {second}");
    }
}

#[tokio::test]
async fn an_output_that_cannot_be_written_is_an_error_with_its_reason() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = program();
    let command = command.args(["completions", "bash"]).stdout(full).stderr(Stdio::piped());
    let said = command.spawn().unwrap().wait_with_output().await.unwrap();
    let err = String::from_utf8(said.stderr).unwrap();
    assert_eq!(said.status.code(), Some(1), "{err}");
    assert!(err.contains("cannot write to standard output"), "{err}");
}

#[tokio::test]
async fn a_server_goes_on_when_nobody_reads_what_it_prints() {
    let database = database().await;
    for format in ["text", "json"] {
        // The log says where it listens; then nobody reads that either.
        let mut server = program()
            .args(["--log", format, "serve", "--open", "--listen", "127.0.0.1:0"])
            .env("BACKSTITCH_DATABASE_URL", &database)
            .env("RUST_LOG", "debug")
            .stdout(closed())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
        let url = loop {
            let line = lines.next_line().await.unwrap().expect("it says where it listens");
            let Some((_, rest)) = line.split_once("127.0.0.1:") else { continue };
            let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
            if line.contains("listening") {
                break format!("http://127.0.0.1:{port}");
            }
        };
        drop(lines);
        for _ in 0..3 {
            let asked = program().args(["--url", &url, "run", "list"]).output().await.unwrap();
            assert!(asked.status.success(), "{asked:?}");
        }
        assert_eq!(server.try_wait().unwrap(), None);
        server.kill().await.unwrap();
    }
}

#[tokio::test]
async fn a_log_in_json_is_json_in_every_line() {
    let database = database().await;
    let mut server = program()
        .args(["serve", "--log", "json", "--open", "--listen", "127.0.0.1:0", "--with-parent"])
        .env("BACKSTITCH_DATABASE_URL", &database)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(server.stdout.take().unwrap()).lines();
    let first = tokio::time::timeout(Duration::from_secs(60), out.next_line()).await.unwrap();
    let first: serde_json::Value = serde_json::from_str(&first.unwrap().unwrap()).unwrap();
    assert!(first["url"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{first}");
    drop(server.stdin.take());
    let mut err = String::new();
    server.stderr.take().unwrap().read_to_string(&mut err).await.unwrap();
    assert!(server.wait().await.unwrap().success());
    let failed = program()
        .args(["--log", "json", "serve", "--listen", "127.0.0.1:0"])
        .env("BACKSTITCH_DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing")
        .output()
        .await
        .unwrap();
    assert_eq!(failed.status.code(), Some(1));
    let failure = String::from_utf8(failed.stderr).unwrap();
    assert!(failure.contains("\"ERROR\""), "{failure}");
    for line in err.lines().chain(failure.lines()) {
        let line: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(line["level"].is_string(), "{line}");
    }
}

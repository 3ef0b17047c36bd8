//! The command line against a real server: the program as people start it, judged by what it prints and how it ends.

mod doctor;
mod keys;
mod pipes;
mod place;
mod shown;

use std::path::PathBuf;
use std::process::Output;

use backstitch_api::Access;
use backstitch_engine::Role;
use backstitch_saga::protocol::FailureKind;
use backstitch_tests::node::{Hand, NS, chain, start};
use backstitch_tests::server::Server;
use serde_json::Value;
use tokio::process::Command;

/// Returns the program, which knows of nothing but what a test tells it.
fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backstitch-under-test"));
    for (name, _) in std::env::vars() {
        if name.starts_with("BACKSTITCH_") || name.starts_with("XDG_") {
            command.env_remove(name);
        }
    }
    command.env("HOME", "/nowhere").env("USER", "ann").kill_on_drop(true);
    command
}

/// Result of a verb: its exit code, its output, its complaints.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn of(output: Output) -> Said {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let code = output.status.code().unwrap();
        Said { code, out: text(output.stdout), err: text(output.stderr) }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Returns the program against `server`.
fn at(server: &Server, args: &[&str]) -> Command {
    let mut command = program();
    command.args(args).args(["--url", server.url(), "--namespace", NS]);
    command
}

async fn say(server: &Server, args: &[&str]) -> Said {
    Said::of(at(server, args).output().await.unwrap())
}

/// Returns a file of this test alone.
fn file(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("backstitch-cli-{}-{name}", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn a_run_is_started_shown_listed_and_cancelled() {
    let server = Server::start(Access::Open).await;
    let path = file("chain.json", &chain("two-steps", &["first", "second"]));
    let registered = say(&server, &["workflow", "register", path.to_str().unwrap()]).await;
    assert_eq!(registered.code, 0, "{registered:?}");
    std::fs::remove_file(&path).unwrap();
    let versions = say(&server, &["workflow", "versions", "two-steps"]).await;
    assert!(versions.out.contains("two-steps  1"), "{versions:?}");

    let words = [
        &["run", "start", "two-steps", "--input", r#"{"n":1.0}"#, "--key", "k-1"][..],
        &["--label", "customer:c-7", "-o", "json"],
    ];
    let started = say(&server, &words.concat()).await;
    assert_eq!(started.code, 0, "{started:?}");
    let id = started.json()["id"].as_str().unwrap().to_owned();
    let shown = say(&server, &["run", "get", &id, "-o", "json"]).await;
    assert!(shown.out.contains(r#""input":{"n":1.0}"#), "byte for byte: {shown:?}");
    assert_eq!(shown.json()["labels"]["customer"], "c-7");
    let drawn = say(&server, &["run", "show", &id]).await;
    let lines: Vec<&str> = drawn.out.lines().collect();
    assert!(lines[0].starts_with("two-steps version 1") && lines[0].ends_with(&id), "{drawn:?}");
    assert!(lines.contains(&"   ○ first   offered"), "{drawn:?}");
    assert!(lines.contains(&"   · second  waiting"), "{drawn:?}");

    for _ in 0..2 {
        server.engine.start_run(NS, start("two-steps", "1")).await.unwrap();
    }
    let page = say(&server, &["run", "list", "--limit", "2"]).await;
    assert_eq!((page.code, page.out.lines().count()), (0, 3), "{page:?}");
    assert!(page.err.contains("There is more"), "{page:?}");
    let all = say(&server, &["run", "list", "--limit", "2", "--all", "-o", "json"]).await;
    assert_eq!(all.json()["items"].as_array().unwrap().len(), 3, "{all:?}");

    let cancel = ["run", "cancel", &id, "--reason", "The customer withdrew"];
    assert_eq!(say(&server, &cancel).await.code, 0);
    let history = say(&server, &["run", "history", &id, "-o", "json"]).await.json().to_string();
    assert!(history.contains(r#""actor":"ann","reason":"The customer withdrew""#), "{history}");
    let kill = say(&server, &["run", "kill", &id, "--reason", "again"]).await;
    assert_eq!(kill.code, 1, "a refusal is a failure: {kill:?}");
    assert!(kill.err.contains("(run_ended)"), "{kill:?}");
    server.stopped().await;
}

#[tokio::test]
async fn a_definition_is_rehearsed_without_a_server() {
    let rehearsed = async |definition: &str, args: &[&str]| {
        let path = file("rehearsed.json", definition);
        let words = [&["rehearse", path.to_str().unwrap()], args].concat();
        let said = Said::of(program().args(words).output().await.unwrap());
        std::fs::remove_file(&path).unwrap();
        said
    };
    let sound = rehearsed(&chain("sound", &["first", "second"]), &[]).await;
    assert_eq!(sound.code, 0, "{sound:?}");
    assert!(sound.out.contains(" 0 not closed") && sound.err.contains(" a second"), "{sound:?}");

    let lone = r#"{"name":"lone","version":1,"steps":[
        {"id":"mail","task":{"name":"send","input":{"path":"/input"}}}]}"#;
    let report = rehearsed(lone, &["-o", "json", "--faults", "1"]).await;
    let json = report.json();
    assert_eq!((report.code, &json["defects"][0]["rule"]), (0, &"nothing_left_behind".into()));
    let found = &json["findings"][0];
    assert_eq!(
        (&found["severity"], &found["code"]),
        (&"warning".into(), &"nothing_left_behind".into())
    );
    assert_eq!(json["levels"].as_array().unwrap().len(), 2, "no fault, and one");
    let strict = rehearsed(lone, &["--strict"]).await;
    assert_eq!(strict.code, 1, "{strict:?}");
    assert!(strict.out.contains("A server registers it, with 1 warning."), "{strict:?}");

    // What a server refuses fails in any case.
    let refused = lone.replace(r#""name":"send""#, r#""name":"send","on_unknown":"compensate""#);
    let refused = rehearsed(&refused, &[]).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.out.contains("A server refuses it: 1 error"), "{refused:?}");

    let wrong = rehearsed(&lone.replace("mail", "Mail"), &[]).await;
    assert_eq!((wrong.code, wrong.out.contains("(invalid_id)")), (1, true), "{wrong:?}");
}

#[tokio::test]
async fn the_exit_code_tells_what_went_wrong() {
    let server = Server::start(Access::Keys).await;
    let viewer = server.engine.create_credential(NS, "eye", Role::Viewer).await.unwrap();
    let unknown = "019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c11";
    let with_key = async |args: &[&str]| {
        Said::of(at(&server, args).env("BACKSTITCH_API_KEY", &viewer).output().await.unwrap())
    };
    let whoami = with_key(&["whoami", "-o", "json"]).await;
    assert_eq!((whoami.code, &whoami.json()["name"]), (0, &Value::from("eye")), "{whoami:?}");
    for (args, code, words) in [
        (&["run", "show", unknown][..], 3, "(unknown_run)"),
        (&["run", "show", "17"], 3, "no run has the key '17'"),
        (&["run", "cancel", unknown], 2, "--reason"),
        (&["run", "start", "a", "--input", "no json"], 2, "JSON is needed"),
        (&["run", "start", "a", "--label", "colour"], 2, "NAME:VALUE"),
        (&["run", "compensate", unknown, "--scope", "some"], 2, "--scope"),
        (&["run", "list", "--state", "odd"], 2, "--state"),
        (&["run", "cancel", unknown, "--reason", "r"], 4, "(forbidden)"),
    ] {
        let said = with_key(args).await;
        assert_eq!(said.code, code, "{said:?}");
        assert!(said.err.contains(words), "{words}: {said:?}");
    }
    let nobody = say(&server, &["run", "list"]).await;
    assert_eq!(nobody.code, 4, "{nobody:?}");
    let url = server.url().to_owned();
    server.stopped().await;
    let gone = program().args(["run", "list", "--url", &url]).output().await.unwrap();
    let gone = Said::of(gone);
    assert!(gone.code == 5 && gone.err.contains("cannot be reached"), "{gone:?}");
    assert!(gone.err.contains(&url) && gone.err.contains("BACKSTITCH_URL"), "{gone:?}");
}

#[tokio::test]
async fn checking_registering_and_rehearsing_a_file_end_alike() {
    let server = Server::start(Access::Open).await;
    let two_mistakes = r#"{"name":"alike","version":1,"colour":1,"steps":[{"id":"a","tsk":{}}]}"#;
    for (name, text, code) in [
        ("good", Some(chain("alike", &["first"])), 0),
        ("wrong", Some(two_mistakes.to_owned()), 1),
        ("nameless", Some("{}".to_owned()), 1),
        ("broken", Some("{".to_owned()), 1),
        ("missing", None, 2),
    ] {
        let path = file(&format!("alike-{name}.json"), text.as_deref().unwrap_or_default());
        if text.is_none() {
            std::fs::remove_file(&path).unwrap();
        }
        let path = path.to_str().unwrap();
        let checked = program().args(["workflow", "validate", path]).output().await.unwrap();
        let rehearsed = program().args(["rehearse", path]).output().await.unwrap();
        let registered = say(&server, &["workflow", "register", path]).await;
        for said in [Said::of(checked), Said::of(rehearsed), registered] {
            assert_eq!(said.code, code, "{name}: {said:?}");
            if name == "wrong" {
                let told = format!("{}{}", said.out, said.err);
                assert_eq!(told.matches("(unknown_member)").count(), 2, "{told}");
            }
        }
        let _ = std::fs::remove_file(path);
    }
    server.stopped().await;
}

#[tokio::test]
async fn the_newest_version_of_a_workflow_is_shown_unless_one_is_named() {
    let server = Server::start(Access::Open).await;
    for version in [1, 10, 2] {
        let text =
            chain("grown", &["only"]).replace(r#""version":1"#, &format!(r#""version":{version}"#));
        server.engine.register(NS, &text).await.unwrap();
    }
    let shown = say(&server, &["workflow", "show", "grown", "-o", "json"]).await;
    assert_eq!(shown.json()["version"], 10, "{shown:?}");
    let shown = say(&server, &["workflow", "show", "grown", "2", "-o", "json"]).await;
    assert_eq!(shown.json()["version"], 2, "{shown:?}");
    assert_eq!(say(&server, &["workflow", "show", "no-such"]).await.code, 3);
    server.stopped().await;
}

#[tokio::test]
async fn waiting_and_watching_end_with_the_run() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &chain("one", &["only"])).await.unwrap();
    let hand = Hand::new(&server.engine);
    let moves = say(&server, &["run", "start", "one", "--wait", "10ms"]).await;
    assert_eq!(moves.code, 6, "it still moves: {moves:?}");
    hand.succeed(&[hand.one().await]).await;

    for (good, code, word) in [(true, 0, "succeeded"), (false, 7, "failed_clean")] {
        let id = server.engine.start_run(NS, start("one", "1")).await.unwrap().id.to_string();
        let watch = at(&server, &["run", "watch", &id])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let offer = hand.one().await;
        match good {
            true => hand.succeed(&[offer]).await,
            false => hand.fail(&offer, FailureKind::Permanent).await,
        };
        let watched = Said::of(watch.wait_with_output().await.unwrap());
        assert_eq!(watched.code, code, "{watched:?}");
        let last = watched.out.lines().last().unwrap_or_default();
        assert!(last.contains(word) && !watched.out.contains('\x1b'), "{watched:?}");
    }
    server.stopped().await;
}

#[tokio::test]
async fn flags_go_before_variables_and_those_before_the_profile() {
    let server = Server::start(Access::Open).await;
    let text = format!(
        "[default]\nurl = \"{}\"\nnamespace = \"from-file\"\n\n[blue]\nurl = \"{}\"\nnamespace = \"blue\"\noutput = \"json\"\n",
        server.url(),
        server.url()
    );
    let path = file("config.toml", &text);
    let who = async |args: &[&str], variable: Option<&str>| {
        let mut command = program();
        command.arg("whoami").args(args).args(["-o", "json"]).env("BACKSTITCH_CONFIG", &path);
        variable.map(|value| command.env("BACKSTITCH_NAMESPACE", value));
        let said = Said::of(command.output().await.unwrap());
        assert_eq!(said.code, 0, "{said:?}");
        said.json()["namespace"].as_str().unwrap().to_owned()
    };
    assert_eq!(who(&[], None).await, "from-file");
    assert_eq!(who(&["--profile", "blue"], None).await, "blue");
    assert_eq!(who(&["--profile", "blue"], Some("from-variable")).await, "from-variable");
    assert_eq!(who(&["--namespace", "from-flag"], Some("from-variable")).await, "from-flag");
    let mut missing = program();
    missing.args(["whoami", "--profile", "red"]).env("BACKSTITCH_CONFIG", &path);
    let missing = Said::of(missing.output().await.unwrap());
    assert!(missing.code == 2 && missing.err.contains("no profile 'red'"), "{missing:?}");
    std::fs::remove_file(&path).unwrap();
    server.stopped().await;
}

/// Returns the verbs of the document, as `docs/cli.md` lists them: what is typed, and what for.
fn listed() -> String {
    let verbs = backstitch_api::cli::verbs();
    let lines = verbs
        .iter()
        .map(|(example, about)| format!("| `{}` | {about} |\n", example.replace('|', "\\|")));
    lines.collect()
}

#[tokio::test]
async fn every_operation_has_a_verb_with_help_and_stands_in_the_docs() {
    let document = serde_json::to_value(backstitch_api::document()).unwrap();
    let verbs = backstitch_api::cli::verbs();
    assert!(verbs.len() >= 15, "only {} verbs", verbs.len());
    let mut helps = String::new();
    for (example, _) in &verbs {
        let words = example.split(' ').skip(1);
        let name: Vec<&str> = words
            .take_while(|word| word.starts_with(|c: char| c.is_ascii_lowercase()))
            .take(2)
            .collect();
        let name = if name.first() == Some(&"whoami") { vec!["whoami"] } else { name };
        let help = Said::of(program().args(&name).arg("--help").output().await.unwrap());
        assert_eq!(help.code, 0, "{name:?} {help:?}");
        assert!(
            help.out.contains("Example:\n  backstitch ") && help.out.contains("\nAsks "),
            "{help:?}"
        );
        helps += &help.out;
    }
    let without = backstitch_api::cli::OPERATIONS_WITHOUT_VERB;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            if !path.starts_with("/v1/") || without.iter().any(|(known, _)| *known == id) {
                continue;
            }
            let asks = format!("\nAsks {} {path}.", method.to_uppercase());
            assert!(helps.contains(&asks), "no verb for {method} {path}");
        }
    }
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cli.md");
    let text = std::fs::read_to_string(docs).unwrap();
    let (head, rest) = text.split_once("<!-- verbs -->\n").expect("where the list begins");
    let (_, tail) = rest.split_once("<!-- end -->").expect("where the list ends");
    let list = format!("| for example | it will |\n| --- | --- |\n{}", listed());
    let wanted = format!("{head}<!-- verbs -->\n{list}<!-- end -->{tail}");
    if std::env::var_os("BACKSTITCH_BLESS").is_some() {
        std::fs::write(docs, &wanted).unwrap();
    } else {
        assert!(text == wanted, "docs/cli.md is out of date; BACKSTITCH_BLESS=1 writes it anew");
    }
}

#[tokio::test]
async fn shells_are_told_what_can_be_typed() {
    for shell in ["bash", "zsh", "fish"] {
        let said = Said::of(program().args(["completions", shell]).output().await.unwrap());
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.out.contains("compensate") && said.out.contains("dry-run"), "{shell}");
    }
}

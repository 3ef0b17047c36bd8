//! Places of flags, choice of the server, and of its secret.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use backstitch_api::Access;
use backstitch_tests::node::NS;
use backstitch_tests::server::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{Said, file, program};

/// A server that answers everything alike and notes the secrets that it is sent.
struct Trap {
    url: String,
    asked: Arc<Mutex<Vec<Option<String>>>>,
}

impl Trap {
    async fn set(status: &'static str) -> Trap {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<Option<String>>>> = Arc::default();
        let noted = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (mut text, mut part) = (String::new(), [0; 4096]);
                while !text.contains("\r\n\r\n") {
                    let length = stream.read(&mut part).await.unwrap();
                    text += &String::from_utf8_lossy(&part[..length]);
                }
                let secret = text.lines().find_map(|line| {
                    let (name, value) = line.split_once(": ")?;
                    name.eq_ignore_ascii_case("authorization").then(|| value.to_owned())
                });
                noted.lock().unwrap().push(secret);
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}"
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Trap { url, asked }
    }

    /// Returns the secrets that it was sent, since the last time one asked.
    fn taken(&self) -> Vec<Option<String>> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

/// Returns a configuration file that only its owner reads.
fn config(name: &str, text: &str) -> PathBuf {
    let path = file(name, text);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

async fn with(config: &PathBuf, args: &[&str], variables: &[(&str, &str)]) -> Said {
    let mut command = program();
    command.args(args).env("BACKSTITCH_CONFIG", config).envs(variables.iter().copied());
    Said::of(command.output().await.unwrap())
}

#[tokio::test]
async fn a_secret_is_never_sent_to_a_server_that_it_was_not_given_for() {
    let (live, other) = (Trap::set("200 OK").await, Trap::set("200 OK").await);
    let text = format!(
        "[default]\nurl = \"{0}\"\napi_key = \"of-default\"\n[live]\nurl = \"{0}\"\napi_key = \"of-live\"\n\
         [bare]\nurl = \"{0}\"\n",
        live.url
    );
    let path = config("secrets.toml", &text);
    let (url, key) = ("BACKSTITCH_URL", "BACKSTITCH_API_KEY");
    let bearer = |secret: &str| Some(format!("Bearer {secret}"));
    let (at_live, at_other) = (live.url.as_str(), other.url.as_str());
    // What is typed, the variables, what `live` is sent, what `other` is sent.
    for (args, variables, to_live, to_other) in [
        (&["whoami", "--profile", "live"][..], &[][..], Some(bearer("of-live")), None),
        (&["whoami"], &[], Some(bearer("of-default")), None),
        (&["whoami"], &[(url, at_other)], None, Some(None)),
        (&["--url", at_other, "whoami"], &[], None, Some(None)),
        (&["whoami", "--url", at_live, "--profile", "live"], &[], Some(bearer("of-live")), None),
        (&["whoami", "--profile", "live"], &[(key, "own")], Some(bearer("of-live")), None),
        (&["whoami", "--profile", "bare"], &[(key, "own")], Some(None), None),
        (&["whoami"], &[(url, at_other), (key, "own")], None, Some(bearer("own"))),
        (
            &["whoami", "--url", at_live],
            &[(url, at_other), (key, "own")],
            Some(bearer("of-default")),
            None,
        ),
        (&["whoami", "--url", at_other], &[(key, "own")], None, Some(bearer("own"))),
        (
            &["whoami", "--url", at_other, "--api-key", "typed"],
            &[(key, "own")],
            None,
            Some(bearer("typed")),
        ),
        (&["whoami", "--profile", "bare", "--api-key", "typed"], &[], Some(bearer("typed")), None),
    ] {
        let said = with(&path, args, variables).await;
        assert_eq!(said.code, 0, "{args:?} {variables:?} {said:?}");
        let sent = |to: Option<Option<String>>| to.into_iter().collect::<Vec<_>>();
        assert_eq!(live.taken(), sent(to_live), "{args:?} {variables:?}");
        assert_eq!(other.taken(), sent(to_other), "{args:?} {variables:?}");
    }
    // A profile that was asked for by name, and another server: nobody is asked.
    for (args, variables) in [
        (&["whoami", "--profile", "live"][..], &[(url, at_other)][..]),
        (&["whoami", "--profile", "live", "--url", at_other], &[]),
        (&["whoami", "--url", at_other], &[("BACKSTITCH_PROFILE", "live")]),
    ] {
        let said = with(&path, args, variables).await;
        assert_eq!(said.code, 2, "{args:?} {said:?}");
        assert!(said.err.contains(at_live) && said.err.contains(at_other), "{said:?}");
        assert_eq!((live.taken(), other.taken()), (vec![], vec![]), "{args:?}");
    }
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test]
async fn a_secret_that_was_not_sent_is_told_when_the_server_asks_for_one() {
    let server = Server::start(Access::Keys).await;
    let text = "[default]\nurl = \"http://live.example\"\napi_key = \"of-live\"\n";
    let path = config("withheld.toml", text);
    let said = with(&path, &["run", "list"], &[("BACKSTITCH_URL", server.url())]).await;
    assert_eq!(said.code, 4, "{said:?}");
    assert!(said.err.contains("the secret of the profile 'default' was not sent"), "{said:?}");
    std::fs::remove_file(&path).unwrap();
    server.stopped().await;
}

#[tokio::test]
async fn every_flag_of_the_server_may_stand_before_the_verb_and_after_it() {
    let server = Server::start(Access::Open).await;
    let secret = config("key", "s3cret");
    let profiles = config("flags.toml", "[default]\n[blue]\nnamespace = \"blue\"\n");
    let (secret, profiles) = (secret.to_str().unwrap(), profiles.to_str().unwrap());
    for flags in [
        &["--namespace", NS][..],
        &["--actor", "ann"],
        &["--api-key", "s3cret"],
        &["--api-key-file", secret],
        &["--config", profiles],
        &["--config", profiles, "--profile", "blue"],
        &["--output", "json"],
        &["-o", "json"],
        &["--wide"],
        &["--log", "json"],
    ] {
        let flags = [&["--url", server.url()], flags].concat();
        for words in [
            [&flags[..], &["run", "list"]].concat(),
            [&["run"], &flags[..], &["list"]].concat(),
            [&["run", "list"], &flags[..]].concat(),
            [&flags[..], &["whoami"]].concat(),
            [&["whoami"], &flags[..]].concat(),
        ] {
            let said = Said::of(program().args(&words).output().await.unwrap());
            assert_eq!(said.code, 0, "{words:?} {said:?}");
            if flags.contains(&"json") && !flags.contains(&"--log") {
                assert!(said.json().is_object(), "{words:?}");
            }
        }
    }
    // The one that stands nearer to the verb counts.
    let words = ["-o", "table", "--url", "http://127.0.0.1:1", "whoami", "-o", "json", "--url"];
    let said = program().args(words).arg(server.url()).output().await.unwrap();
    assert!(Said::of(said).json().is_object());
    server.stopped().await;
}

#[tokio::test]
async fn a_flag_of_the_server_is_refused_for_a_verb_that_asks_none() {
    let definition = file("local.json", &backstitch_tests::node::chain("sound", &["one"]));
    let path = definition.to_str().unwrap();
    for words in [
        &["--url", "http://127.0.0.1:1", "rehearse", path][..],
        &["workflow", "--profile", "live", "validate", path],
        &["--api-key", "k", "migrate"],
    ] {
        let said = Said::of(program().args(words).output().await.unwrap());
        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.err.contains("asks no server"), "{said:?}");
    }
    for words in [&["-o", "json", "rehearse", path][..], &["rehearse", path, "-o", "json"]] {
        let said = Said::of(program().args(words).output().await.unwrap());
        assert!(said.code == 0 && said.json().is_object(), "{said:?}");
    }
    std::fs::remove_file(&definition).unwrap();
}

#[tokio::test]
async fn an_output_of_a_step_is_not_taken_for_the_form_of_the_answer() {
    let words = ["run", "resolve", "k-1", "pay", "--reason", "r", "--output", r#"{"a":1}"#];
    let said = Said::of(program().args(words).output().await.unwrap());
    assert!(said.code == 2 && said.err.contains("--set-output"), "{said:?}");
}

#[tokio::test]
async fn usage_does_not_require_what_a_variable_gives() {
    for (words, variable, flag) in [
        (&["run", "cancel"][..], "BACKSTITCH_URL", "--url"),
        (&["run", "cancel"], "BACKSTITCH_API_KEY", "--api-key"),
        (&["run", "cancel"], "BACKSTITCH_NAMESPACE", "--namespace"),
        (&["run", "start"], "BACKSTITCH_OUTPUT", "--output"),
        (&["key", "create"], "BACKSTITCH_DATABASE_URL", "--database-url"),
    ] {
        let said = program().args(words).env(variable, "json").output().await.unwrap();
        let said = Said::of(said);
        assert_eq!(said.code, 2, "{said:?}");
        let usage = said.err.lines().find(|line| line.starts_with("Usage:")).unwrap();
        assert!(!usage.contains(flag), "{words:?}: {usage}");
    }
}

#[tokio::test]
async fn a_flag_goes_before_the_variable_of_its_other_form() {
    let database = backstitch_tests::postgres::database().await;
    let path = config("database-url", &format!("{database}\n"));
    let migrate = async |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = program();
        command.arg("migrate").args(args).envs(variables.iter().copied());
        Said::of(command.output().await.unwrap())
    };
    let wrong = ("BACKSTITCH_DATABASE_URL", "postgres://nobody@127.0.0.1:1/none");
    let said = migrate(&["--database-url-file", path.to_str().unwrap()], &[wrong]).await;
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
    let file = ("BACKSTITCH_DATABASE_URL_FILE", path.to_str().unwrap());
    assert_eq!(migrate(&[], &[file]).await.code, 0);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let open = migrate(&[], &[file]).await;
    assert!(open.code == 0 && open.err.contains("every user of this machine can read"), "{open:?}");
    let password = database.replacen("backstitch@", "backstitch:pw@", 1);
    let shown = migrate(&["--database-url", &password], &[]).await;
    assert!(shown.code == 0 && shown.err.contains("list of processes"), "{shown:?}");
    assert!(!shown.err.contains("pw@"), "{shown:?}");
    std::fs::remove_file(&path).unwrap();
}

//! The web console: who gets in, what is shown to whom, and that its forms do what the API does. In a browser:
//! `browser`.

mod browser;
mod doors;
mod driver;
mod live;
mod operations;
mod pages;
mod shown;
mod texts;
mod walk;

use backstitch_engine::Role;
use backstitch_saga::Span;
use backstitch_saga::protocol::{Failure, FailureKind, TaskOutcome};
use backstitch_tests::node::{Hand, NS, chain, report};
use backstitch_tests::server::{Answer, Server, send, with_json};
use serde_json::{Value, json};

/// Somebody who is signed in.
struct Viewer<'a> {
    server: &'a Server,
    client: reqwest::Client,
    cookie: String,
}

impl<'a> Viewer<'a> {
    /// Signs in with a new credential of this role.
    async fn new(server: &'a Server, name: &str, role: Role) -> Viewer<'a> {
        let secret = server.engine.create_credential(NS, name, role).await.unwrap();
        Viewer::with(server, &secret).await
    }

    async fn with(server: &'a Server, secret: &str) -> Viewer<'a> {
        let answer = sign_in(server, secret).await;
        assert_eq!(answer.status, 303, "{answer:?}");
        let cookie = answer.headers["set-cookie"].to_str().unwrap();
        let cookie = cookie.split(';').next().unwrap().to_owned();
        Viewer { server, client: client(), cookie }
    }

    /// Somebody at an open server, in the namespace of the tests.
    fn at_open(server: &'a Server) -> Viewer<'a> {
        Viewer { server, client: client(), cookie: format!("backstitch_namespace={NS}") }
    }

    async fn get(&self, path: &str) -> Answer {
        let request = self.client.get(format!("{}{path}", self.server.url()));
        send(request.header("cookie", &self.cookie)).await
    }

    /// Returns a page, which must be there.
    async fn page(&self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert!(answer.kind.starts_with("text/html"), "{path}: {answer:?}");
        answer.text
    }

    /// Returns the token of the forms of this session.
    async fn token(&self) -> String {
        let page = self.page("/console").await;
        attribute(&page, "name=\"token\" value=\"").expect("a form")
    }

    fn form(&self, path: &str, fields: &[(&str, &str)]) -> reqwest::RequestBuilder {
        let pairs: Vec<String> =
            fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        self.client
            .post(format!("{}{path}", self.server.url()))
            .header("cookie", &self.cookie)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(pairs.join("&"))
    }

    async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        send(self.form(path, fields)).await
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Returns the text between `before` and the next quote.
fn attribute(page: &str, before: &str) -> Option<String> {
    let (_, rest) = page.split_once(before)?;
    Some(rest.split('"').next()?.to_owned())
}

async fn sign_in(server: &Server, secret: &str) -> Answer {
    let request = client()
        .post(format!("{}/console/login", server.url()))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("next=%2Fconsole%2Fruns&secret={}", encoded(secret)));
    send(request).await
}

/// Registers a workflow of steps in a row as the server itself.
async fn register(server: &Server, definition: &str) {
    server.engine.register(NS, definition).await.unwrap();
}

/// Returns a run that waits for a person at its second step, of a workflow of three.
async fn parked(server: &Server, workflow: &str, key: &str, message: &str) -> String {
    let definition = chain(workflow, &["reserve", "charge", "ship"]);
    let mut definition: Value = serde_json::from_str(&definition).unwrap();
    definition["steps"][1]["task"]["on_failure"] = json!("incident");
    register(server, &definition.to_string()).await;
    let mut start = backstitch_tests::node::start(workflow, r#"{"order":"o-1","note":"<b>"}"#);
    start.key = Some(key.to_owned());
    let run = server.engine.start_run(NS, start).await.unwrap().id;
    let hand = Hand::new(&server.engine);
    let first = hand.claim(1, Span::secs(30)).await;
    hand.succeed(&first).await;
    let second = hand.one().await;
    let failure = Failure {
        kind: FailureKind::Permanent,
        code: "card_declined".to_owned(),
        message: message.to_owned(),
        details: None,
        retry_after: None,
    };
    let told = report(&second, TaskOutcome::Failed(failure));
    assert_eq!(server.engine.complete(NS, vec![told]).await[0].status, 200);
    run.to_string()
}

/// Asks the API of an open server.
async fn api(server: &Server, path: &str) -> Value {
    let answer = server.get(path).await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()
}

async fn posted(server: &Server, path: &str, body: Value) -> Answer {
    send(with_json(server.request("POST", path), body)).await
}

//! The client against a server that answers as it is told: what is sent again and what is not, pages, refusals.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "server/http.rs"]
mod http;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backstitch_sdk::protocol::{Outcome, Overlap, ScheduleSpec, Scope, State};
use backstitch_sdk::{Client, ClientError, RunId, RunQuery};
use http::Answer;
use tokio::task::JoinSet;

const RUN: &str = "0198c0de-0000-7000-8000-000000000000";
const STARTED: &str = r#"{"id":"0198c0de-0000-7000-8000-000000000000","created":true}"#;
const BUSY: &str = r#"{"type":"urn:busy","status":503,"code":"busy","title":"The server is busy"}"#;
const FAILED: &str =
    r#"{"type":"urn:store","status":503,"code":"store_failed","title":"The database failed"}"#;

/// Path, body and idempotency key of each request.
type Asked = Arc<Mutex<Vec<(String, String, Option<String>)>>>;

/// Makes a client of a server that gives these answers in order, and then breaks off, and returns
/// what was asked.
async fn client(answers: impl IntoIterator<Item = Answer>) -> (Client, Asked, JoinSet<()>) {
    let answers: Arc<Mutex<VecDeque<Answer>>> = Arc::new(Mutex::new(answers.into_iter().collect()));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let (url, tasks) = http::serve(move |path, body, key| {
        log.lock().unwrap().push((path, body, key));
        let answer = answers.lock().unwrap().pop_front().flatten();
        async { answer }
    })
    .await;
    (Client::new(&url).unwrap().api_key("bs_secret").unwrap(), asked, tasks)
}

fn ok(body: &str) -> Answer {
    Some((200, body.to_owned()))
}

fn run_id() -> RunId {
    RUN.parse().unwrap()
}

#[tokio::test]
async fn a_start_with_a_key_is_repeated_when_its_answer_is_lost() {
    let (client, asked, _server) =
        client([None, Some((503, FAILED.to_owned())), ok(STARTED)]).await;
    let run = client.start_named::<_, ()>("buy", &1).key("k").label("a", "b").await.unwrap();
    assert_eq!(run.id(), run_id());
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 3);
    let body = r#"{"workflow":"buy","key":"k","input":1,"labels":{"a":"b"}}"#;
    let same = ("/v1/runs".to_owned(), body.to_owned(), None);
    assert!(asked.iter().all(|asked| *asked == same), "{asked:?}");
}

/// Checks that all requests but the first are the first again, under one idempotency key, and
/// returns that key.
fn repeats(asked: &Asked, count: usize) -> String {
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), count);
    assert!(asked.iter().all(|one| *one == asked[0]), "{asked:?}");
    asked[0].2.clone().unwrap()
}

#[tokio::test]
async fn a_start_without_a_key_is_repeated_under_an_idempotency_key() {
    let (client, asked, _server) = client([Some((503, BUSY.to_owned())), None, ok(STARTED)]).await;
    let run = client.start_named::<_, ()>("buy", &1).await.unwrap();
    assert_eq!(run.id(), run_id());
    repeats(&asked, 3);
}

#[tokio::test]
async fn many_starts_are_repeated_as_one() {
    let answers = format!(r#"{{"results":[{{"status":201,"id":"{RUN}"}}]}}"#);
    let (client, asked, _server) = client([None, ok(&answers)]).await;
    let started = client.start_all([client.start_named::<_, ()>("buy", &1)]).await.unwrap();
    assert_eq!(started.into_iter().next().unwrap().unwrap().id(), run_id());
    repeats(&asked, 2);
}

#[tokio::test]
async fn acts_by_hand_are_repeated_in_doubt_each_under_a_key_of_its_own() {
    let in_flight = r#"{"type":"urn:x","status":409,"code":"idempotency_in_flight","title":"The same request is being worked on"}"#;
    let ended = r#"{"type":"urn:x","status":409,"code":"run_ended","title":"The run has ended"}"#;
    let mut keys = Vec::new();
    for _ in 0..2 {
        let answers = [
            Some((503, FAILED.to_owned())),
            Some((409, in_flight.to_owned())),
            Some((409, ended.to_owned())),
        ];
        let (client, asked, _server) = client(answers).await;
        let error = client.compensate(run_id(), Scope::All, "why").await.unwrap_err();
        assert_eq!(error.code(), Some("run_ended"), "what is refused is not asked again");
        keys.push(repeats(&asked, 3));
    }
    assert_ne!(keys[0], keys[1]);
}

#[tokio::test]
async fn pages_follow_their_cursors_and_filters_stay() {
    let line = |key: &str| {
        format!(
            r#"{{"id":"{RUN}","workflow":"buy","version":1,"key":"{key}","correlation_id":"c","state":"ended","outcome":"compensated","started_at":"2026-01-01T00:00:00Z"}}"#
        )
    };
    let pages = [
        ok(&format!(r#"{{"items":[{},{}],"next":"c 1"}}"#, line("1"), line("2"))),
        None,
        ok(&format!(r#"{{"items":[{}]}}"#, line("3"))),
    ];
    let (client, asked, _server) = client(pages).await;
    let query = RunQuery::new()
        .workflow("buy")
        .state(State::Ended)
        .outcome(Outcome::Compensated)
        .label("shop", "north & south");
    let runs = client.runs(query).all().await.unwrap();
    let keys: Vec<_> = runs.iter().filter_map(|run| run.key.as_deref()).collect();
    assert_eq!(keys, ["1", "2", "3"]);
    let asked = asked.lock().unwrap();
    let filters =
        "/v1/runs?workflow=buy&state=ended&outcome=compensated&label=shop%3Anorth+%26+south";
    assert_eq!(asked[0].0, filters);
    assert_eq!(asked[2].0, format!("{filters}&after=c+1"));
}

#[tokio::test]
async fn a_schedule_written_in_rust_is_what_its_document_says() {
    let (client, asked, _server) = client([Some((422, BUSY.to_owned()))]).await;
    let nightly = ScheduleSpec::new("close-books", "30 2 * * *").input(&"all shops").unwrap();
    let nightly = nightly.time_zone("Europe/Berlin").overlap(Overlap::Queue);
    client.put_schedule("nightly", &nightly).await.unwrap_err();
    let (path, body, _) = asked.lock().unwrap()[0].clone();
    assert_eq!(path, "/v1/schedules/nightly");
    let written: ScheduleSpec = serde_json::from_str(&body).unwrap();
    assert_eq!((&*written.workflow, written.overlap), ("close-books", Overlap::Queue));
    assert_eq!((written.queue_limit, written.input.text()), (1, "\"all shops\""));
}

#[tokio::test]
async fn all_violations_are_told() {
    let refused = r#"{"type":"urn:x","status":422,"code":"invalid_input","title":"The input does not fit the workflow",
        "detail":"/input/id: missing, and 1 more, all of them in `errors`",
        "errors":[{"pointer":"/input/id","code":"schema","message":"missing"},
                  {"pointer":"/input/cents","code":"schema","message":"not a number"}]}"#;
    let (client, _, _server) = client([Some((422, refused.to_owned()))]).await;
    let error = client.start_named::<_, ()>("buy", &1).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "The input does not fit the workflow (invalid_input)\n  /input/id: missing (schema)\n  \
         /input/cents: not a number (schema)"
    );
}

#[tokio::test]
async fn what_is_not_a_server_of_ours_is_told_as_it_is() {
    let (client, _, _server) = client([Some((404, "<html>nothing here</html>".to_owned()))]).await;
    let error = client.run(run_id()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "not the answer of a Backstitch server: 404 <html>nothing here</html>"
    );
    let nobody = Client::new("http://127.0.0.1:1").unwrap().tries(1);
    assert!(nobody.wait(run_id(), Duration::ZERO).await.unwrap_err().nothing_was_done());
    assert!(matches!(Client::new("backstitch.example"), Err(ClientError::Setup(_))));
}

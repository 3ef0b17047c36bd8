//! Live pages cost the server the same, however many there are.

use std::time::{Duration, Instant};

use backstitch_api::Access;
use backstitch_tests::server::Server;
use serde_json::json;

use super::{Viewer, attribute, parked, posted};

/// Time that something may take to be heard of. A machine that does much else is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns the number of times that a route was answered.
async fn asked(server: &Server, route: &str) -> u64 {
    let numbers = server.get("/metrics").await.text;
    let start = format!(
        "backstitch_http_requests_total{{method=\"GET\",route=\"{route}\",status=\"200\"}} "
    );
    numbers.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn pages_that_look_at_the_same_share_one_poll_and_hear_of_a_change() {
    let server = Server::start(Access::Open).await;
    let viewer = Viewer::at_open(&server);
    let run = parked(&server, "order", "o-1", "declined").await;
    let page = viewer.page(&format!("/console/runs/{run}")).await;
    let mark = attribute(&page, "data-mark=\"").unwrap();
    let place = format!("{}/console/live?of=/console/runs/{run}&mark={mark}", server.url());
    let mut streams = Vec::new();
    for _ in 0..50 {
        let response =
            viewer.client.get(&place).header("cookie", &viewer.cookie).send().await.unwrap();
        assert_eq!(response.status(), 200);
        streams.push(response);
    }
    let (began, before) = (Instant::now(), asked(&server, "/v1/runs/{id}").await);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let polls = asked(&server, "/v1/runs/{id}").await - before;
    // One may have been under way when it began.
    let most = began.elapsed().as_secs() + 2;
    assert!(polls <= most, "{polls} polls for 50 pages, not {most}");
    posted(&server, &format!("/v1/runs/{run}/pause"), json!({ "reason": "r" })).await;
    for stream in &mut streams {
        let heard = async {
            let mut text = String::new();
            // A browser drops an event without data.
            while !text.contains("event: changed\ndata: changed\n\n") {
                let part = stream.chunk().await.unwrap().expect("the stream goes on");
                text += &String::from_utf8_lossy(&part);
            }
        };
        tokio::time::timeout(PATIENCE, heard).await.expect("each page hears of it");
    }
    drop(streams);
    let until = Instant::now() + PATIENCE;
    loop {
        let before = asked(&server, "/v1/runs/{id}").await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        if asked(&server, "/v1/runs/{id}").await == before {
            break;
        }
        assert!(Instant::now() < until, "nobody looks any more, and still it is asked for");
    }
    server.stopped().await;
}

#[tokio::test]
async fn a_page_that_missed_a_change_hears_of_it_at_once() {
    let server = Server::start(Access::Open).await;
    let viewer = Viewer::at_open(&server);
    let run = parked(&server, "order", "o-1", "declined").await;
    let page = viewer.page(&format!("/console/runs/{run}")).await;
    let mark = attribute(&page, "data-mark=\"").unwrap();
    posted(&server, &format!("/v1/runs/{run}/pause"), json!({ "reason": "r" })).await;
    let place = format!("{}/console/live?of=/console/runs/{run}&mark={mark}", server.url());
    let mut stream =
        viewer.client.get(&place).header("cookie", &viewer.cookie).send().await.unwrap();
    let first = tokio::time::timeout(PATIENCE, stream.chunk()).await.unwrap();
    let first = String::from_utf8_lossy(&first.unwrap().unwrap()).into_owned();
    assert!(first.contains("event: changed"), "{first}");
    server.stopped().await;
}

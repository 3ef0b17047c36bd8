//! Named cursors of readers of the log.

use backstitch_api::Access;
use backstitch_tests::server::{Server, send, with_json};
use futures::future::join_all;
use serde_json::{Value, json};

const PATH: &str = "/v1/cursors/search";

#[tokio::test]
async fn of_those_who_move_a_cursor_from_one_position_one_does() {
    let server = Server::start(Access::Open).await;
    let other = server.beside().await;
    let put = async |server: &Server, body: Value| {
        send(with_json(server.request("PUT", PATH), body)).await
    };
    let missing = put(&server, json!({"position": 0, "expected": 0})).await;
    assert_eq!(missing.problem(404), "unknown_cursor");
    assert_eq!(put(&server, json!({"position": 0})).await.status, 201);
    assert_eq!(put(&server, json!({"position": 0})).await.status, 200, "it is there already");
    let events = json!({ "events": vec![json!({ "type": "a" }); 510] });
    assert_eq!(server.post("/v1/events", events).await.status, 201);
    while put(&server, json!({"position": 510, "expected": 0})).await.status == 422 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(put(&server, json!({"position": 0, "expected": 510})).await.status, 200);
    let beyond = put(&server, json!({"position": 511, "expected": 0})).await;
    let violation = &beyond.json()["errors"][0];
    assert_eq!((beyond.status, &violation["code"]), (422, &json!("position_ahead")), "{violation}");
    for position in 0..5 {
        let asked = (1..7).map(|ahead| {
            let server = if ahead % 2 == 0 { &server } else { &other };
            put(server, json!({"position": 100 * (position + 1) + ahead, "expected": if position == 0 { 0 } else { 100 * position } }))
        });
        let answers = join_all(asked).await;
        let moved = answers.iter().filter(|answer| answer.status == 200).count();
        assert_eq!(moved, 1, "{answers:?}");
        let refused = answers.iter().filter(|answer| answer.status == 409);
        assert_eq!(
            refused
                .map(|answer| answer.problem(409))
                .filter(|code| code == "cursor_conflict")
                .count(),
            5
        );
        let at = server.get(PATH).await.json()["position"].as_i64().unwrap();
        let back = put(&server, json!({"position": 100 * (position + 1), "expected": at})).await;
        assert_eq!(back.status, 200, "{back:?}");
    }
    let listed = server.get("/v1/cursors?limit=1").await.json();
    assert_eq!(
        (&listed["items"][0]["name"], &listed["items"][0]["position"]),
        (&json!("search"), &json!(500))
    );
    let foreign = server.bare("GET", PATH).header("backstitch-namespace", "elsewhere");
    assert_eq!(send(foreign).await.problem(404), "unknown_cursor");
    assert_eq!(send(server.request("DELETE", PATH)).await.status, 204);
    assert_eq!(send(server.request("DELETE", PATH)).await.problem(404), "unknown_cursor");
    other.stopped().await;
    server.stopped().await;
}

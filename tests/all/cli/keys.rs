//! Runs by their business keys, and instants as people type them.

use backstitch_api::Access;
use backstitch_saga::protocol::StartRun;
use backstitch_tests::node::{NS, chain, start};
use backstitch_tests::server::Server;

use super::{Said, say};

async fn keyed(server: &Server, workflow: &str, key: &str) -> String {
    let start = StartRun { key: Some(key.to_owned()), ..start(workflow, "1") };
    server.engine.start_run(NS, start).await.unwrap().id.to_string()
}

fn shown(said: &Said) -> String {
    assert_eq!(said.code, 0, "{said:?}");
    said.json()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_run_is_found_by_its_business_key_wherever_an_id_is_asked() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &chain("order", &["pay"])).await.unwrap();
    server.engine.register(NS, &chain("refund", &["pay"])).await.unwrap();
    let order = keyed(&server, "order", "k-1").await;
    let refund = keyed(&server, "refund", "k-1").await;
    let slash = keyed(&server, "order", "2026/17").await;
    let like_an_id = "019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c11";
    let like = keyed(&server, "order", like_an_id).await;
    for (words, id) in [
        (&["order/k-1"][..], &order),
        (&["refund/k-1"], &refund),
        (&["k-1", "--workflow", "refund"], &refund),
        (&["2026/17"], &slash),
        (&["order/2026/17"], &slash),
        (&["2026/17", "--workflow", "order"], &slash),
        (&[like_an_id], &like),
        (&[like_an_id, "--workflow", "order"], &like),
        (&[&order], &order),
    ] {
        let said = say(&server, &[&["run", "show", "-o", "json"], words].concat()).await;
        assert_eq!(shown(&said), *id, "{words:?}");
    }
    let both = say(&server, &["run", "show", "k-1"]).await;
    assert_eq!(both.code, 2, "{both:?}");
    for word in ["order/k-1", "refund/k-1", &order, &refund, "--workflow"] {
        assert!(both.err.contains(word), "{word}: {both:?}");
    }
    for words in [&["k-2"][..], &["order/k-2"], &["k-1", "--workflow", "none"], &["none/k-1"]] {
        let none = say(&server, &[&["run", "show"], words].concat()).await;
        assert!(none.code == 3 && none.err.contains("has the key"), "{none:?}");
    }
    // Every verb that is about a run takes a key.
    for words in [
        &["history"][..],
        &["why"],
        &["tree"],
        &["compensate", "--dry-run", "--scope", "all"],
        &["pause", "--reason", "r"],
        &["resume", "--reason", "r"],
        &["kill", "--reason", "r"],
        &["watch"],
        &["show"],
    ] {
        let said = say(&server, &[&["run", words[0], "refund/k-1"], &words[1..]].concat()).await;
        assert!(said.code == 0 || said.code == 7, "{words:?} {said:?}");
    }
    let acts = say(&server, &["act", "list", "--run", "refund/k-1", "-o", "json"]).await;
    assert_eq!(acts.json()["items"].as_array().unwrap().len(), 3, "{acts:?}");
    server.stopped().await;
}

#[tokio::test]
async fn an_act_by_a_key_reaches_a_step_and_is_refused_where_the_key_is_not_enough() {
    let server = Server::start(Access::Open).await;
    for workflow in ["order", "refund"] {
        server.engine.register(NS, &chain(workflow, &["pay"])).await.unwrap();
        keyed(&server, workflow, "k-1").await;
    }
    let kill = ["run", "kill", "k-1", "--reason", "r"];
    assert_eq!(say(&server, &kill).await.code, 2, "nobody knows which");
    let skip = ["run", "skip", "k-1", "pay", "--workflow", "order", "--reason", "r"];
    let skipped = say(&server, &[&skip[..], &["--set-output", r#"{"a":1}"#]].concat()).await;
    assert_eq!(skipped.code, 0, "{skipped:?}");
    let shown = say(&server, &["run", "show", "order/k-1", "-o", "json"]).await.json();
    assert_eq!(shown["steps"][0]["state"], "skipped", "{shown}");
    server.stopped().await;
}

#[tokio::test]
async fn instants_are_counted_from_now_wherever_one_is_asked() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &chain("order", &["pay"])).await.unwrap();
    keyed(&server, "order", "k-1").await;
    for (flags, count) in [
        (&["--started-from", "1h"][..], 1),
        (&["--started-from=-1h"], 1),
        (&["--started-from", "-1h"], 1),
        (&["--started-from", "yesterday"], 1),
        (&["--started-from", "2026-01-01"], 1),
        (&["--started-from", "2026-01-01T00:00:00Z"], 1),
        (&["--started-from", "+1h"], 0),
        (&["--started-to", "1h ago"], 0),
        (&["--started-to", "+1m"], 1),
        (&["--ended-from", "1h"], 0),
    ] {
        let said = say(&server, &[&["run", "list", "-o", "json"], flags].concat()).await;
        assert_eq!(said.code, 0, "{flags:?} {said:?}");
        assert_eq!(said.json()["items"].as_array().unwrap().len(), count, "{flags:?}");
    }
    let runs = r#"{"workflow":"order","started_from":"1h"}"#;
    let plan = ["job", "create", "--verb", "retry", "--dry-run", "-o", "json", "--runs", runs];
    let plan = say(&server, &plan).await;
    assert_eq!((plan.code, plan.json()["count"].as_u64()), (0, Some(1)), "{plan:?}");
    let begin = ["run", "start", "order", "--input", "1"];
    for flag in ["--start-at", "--end-by"] {
        for (at, taken) in [("5m", false), ("yesterday", false), ("+5m", true), ("now", true)] {
            let said = say(&server, &[&begin[..], &[flag, at]].concat()).await;
            assert_eq!(said.code == 0, taken, "{flag} {at} {said:?}");
            let refused = format!("{flag}: an instant ahead is needed");
            assert!(taken || said.err.contains(&refused), "{said:?}");
        }
    }
    let twice = [&begin[..5], &["--label", "a:b", "--label", "a:c"]].concat();
    let said = say(&server, &twice).await;
    assert!(said.code == 2 && said.err.contains("each name may be given once"), "{said:?}");
    let wrong = say(&server, &["run", "list", "--started-from", "soon"]).await;
    assert!(
        wrong.code == 2 && wrong.err.contains("--started-from: 'soon' is no instant"),
        "{wrong:?}"
    );
    server.stopped().await;
}

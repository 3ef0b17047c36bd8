//! A join over ten thousand items, with four workers of the SDK over HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use backstitch_api::Access;
use backstitch_saga::Definition;
use backstitch_saga::protocol::Outcome;
use backstitch_sdk::{Client, Task, TaskContext, TaskError, Worker};
use backstitch_tests::node::fan;
use backstitch_tests::server::Server;
use futures::future::join_all;
use tokio::sync::watch;

const ITEMS: u32 = 10_000;
const DO: Task<Option<u32>, Option<u32>> = Task::new("do");

#[tokio::test]
async fn four_workers_do_ten_thousand_items_and_the_join_fires_once() {
    let server = Server::start(Access::Open).await;
    let client = Client::new(server.url()).unwrap();
    let definition: Definition = serde_json::from_str(&fan("fan", 1_000, r#""all""#)).unwrap();
    client.register_definition(&definition).await.unwrap();
    let (stop, stopping) = watch::channel(false);
    let done: Vec<Arc<AtomicU32>> = (0..4).map(|_| Arc::default()).collect();
    let workers = done.iter().map(|done| {
        let (done, mut stopping) = (done.clone(), stopping.clone());
        let handler = move |_: TaskContext, item: Option<u32>| {
            done.fetch_add(1, Ordering::Relaxed);
            async move { Ok::<_, TaskError>(item) }
        };
        let worker = Worker::new(client.clone()).task(DO, handler).concurrency(250);
        tokio::spawn(worker.run(async move {
            // A sender that is gone says the same.
            let _ = stopping.wait_for(|stop| *stop).await;
        }))
    });
    let workers: Vec<_> = workers.collect();
    let items: Vec<u32> = (0..ITEMS).collect();
    let run = client.start_named::<_, serde_json::Value>("fan", &items).await.unwrap();
    let id = run.id();
    let view = run.ended(Duration::from_secs(120)).await.unwrap();
    stop.send(true).unwrap();
    for drained in join_all(workers).await {
        assert_eq!(drained.unwrap().unwrap().abandoned, 0);
    }

    assert_eq!(view.outcome, Some(Outcome::Succeeded), "{}", view.summary);
    assert_eq!(view.progress.items["succeeded"], ITEMS);
    let shares: Vec<u32> = done.iter().map(|done| done.load(Ordering::Relaxed)).collect();
    assert_eq!(
        shares.iter().sum::<u32>(),
        ITEMS + 1,
        "every item once, and the step after the join: {shares:?}"
    );
    assert!(shares.iter().all(|share| *share > 0), "a worker got nothing: {shares:?}");
    let history = client.history(id).all().await.unwrap();
    let joined =
        history.iter().filter(|entry| entry.event.text().starts_with(r#"{"joined""#)).count();
    assert_eq!(joined, 1);
    server.stopped().await;
}

//! Invariants of the event log: positions are dense and never given twice, streams and what was visible keep their
//! order, readers see what others see, and an open transaction delays its own events only.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstitch_engine::log::{EventDraft, EventQuery};
use backstitch_engine::{BackgroundTask, Engine, Error};
use backstitch_saga::protocol::{EventReceipt, EventView};
use backstitch_tests::chance::Chance;
use backstitch_tests::node::{NS, metric, node};
use backstitch_tests::postgres::{database, server};
use backstitch_tests::proxy::{Loss, Proxy};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

/// Appends events; the answers are those of the request.
async fn append(engine: &Engine, events: Value) -> Result<Vec<EventReceipt>, Error> {
    let events = serde_json::from_value(events).unwrap();
    let drafts = EventDraft::of_request(events, "ann", engine.event_limit())?;
    engine.append_events(&Arc::from(NS), drafts).await
}

async fn page(engine: &Engine, after: u64) -> (Vec<EventView>, u64) {
    let after = Some(after.to_string());
    let query = EventQuery { after, limit: 1_000, ..EventQuery::default() };
    let page = engine.events(NS, query).await.unwrap();
    (page.items, page.head)
}

/// Returns all events up to `head`, once that many have positions.
async fn all(engine: &Engine, head: u64) -> Vec<EventView> {
    let until = Instant::now() + Duration::from_secs(30);
    let mut events = Vec::new();
    while (events.len() as u64) < head {
        let (more, _) = page(engine, events.len() as u64).await;
        events.extend(more);
        assert!(Instant::now() < until, "{} of {head} events have positions", events.len());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    events
}

/// Appends an event as another program would: in the transaction that `connection` is in. Returns its id.
async fn beside(connection: &mut PgConnection) -> Result<Uuid, sqlx::Error> {
    let batch = Uuid::from_u128(Uuid::now_v7().as_u128() & !0xffff);
    sqlx::query(
        "insert into event (batch, ord, namespace, type, op_corrected, noop, source, trust, received_at, correlation_id, hops, \
         bytes, leaf) values ($1, 0, $2, 'beside', false, false, 'sql', 2, now(), 'c', 0, 4, '')",
    )
    .bind(batch)
    .bind(NS)
    .execute(&mut *connection)
    .await?;
    sqlx::query("insert into announced (namespace, batch, n, at) values ($1, $2, 1, now())")
        .bind(NS)
        .bind(batch)
        .execute(connection)
        .await?;
    Ok(batch)
}

async fn visible(connection: &mut PgConnection) -> Result<Vec<Uuid>, sqlx::Error> {
    let rows: Vec<(Uuid, i16)> =
        sqlx::query_as("select batch, ord from event").fetch_all(connection).await?;
    let id =
        |(batch, ord): (Uuid, i16)| Uuid::from_u128(batch.as_u128() | ord.unsigned_abs() as u128);
    Ok(rows.into_iter().map(id).collect())
}

/// Appends in transactions that take their time, and are rolled back or broken off at times. Returns each event that
/// was committed with what was visible before it was announced.
async fn slow_writer(url: String, mut chance: Chance, rounds: u64) -> Vec<(Uuid, Vec<Uuid>)> {
    let mut committed = Vec::new();
    let mut connection = PgConnection::connect(&url).await.unwrap();
    for _ in 0..rounds {
        let mut transaction = connection.begin().await.unwrap();
        let mut appended = Vec::new();
        for _ in 0..=chance.below(2) {
            let before = visible(&mut transaction).await.unwrap();
            appended.push((beside(&mut transaction).await.unwrap(), before));
            tokio::time::sleep(Duration::from_millis(chance.below(15))).await;
        }
        match chance.below(5) {
            0 => transaction.rollback().await.unwrap(),
            1 => {
                drop(transaction);
                // Without a word: the server notices and rolls back.
                connection = PgConnection::connect(&url).await.unwrap();
            }
            _ => {
                transaction.commit().await.unwrap();
                committed.extend(appended);
            }
        }
    }
    committed
}

/// Appends keyed events to two streams by one node, again until each is answered.
async fn keyed_writer(engine: Engine, writer: u64, rounds: u64) -> Vec<EventReceipt> {
    let mut told = Vec::new();
    for round in 0..rounds {
        let events = json!([
            {"type": "keyed", "id": format!("{writer}-{round}"), "stream": format!("s:{}", round % 2)},
            {"type": "keyed", "id": format!("{writer}-{round}-more")},
        ]);
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            match append(&engine, events.clone()).await {
                Ok(receipts) => break told.extend(receipts),
                Err(Error::Busy | Error::Store(_)) if Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
    told
}

/// Reads the log again and again, and checks that what was read once is read for ever.
async fn reader(engine: Engine, mut done: tokio::sync::watch::Receiver<bool>) -> u64 {
    let mut seen: Vec<Uuid> = Vec::new();
    loop {
        let over = *done.borrow_and_update();
        let mut read = Vec::new();
        let head = loop {
            // Sessions are killed under its hands.
            let query = EventQuery {
                after: Some(read.len().to_string()),
                limit: 1_000,
                ..EventQuery::default()
            };
            let Ok(page) = engine.events(NS, query).await else { continue };
            for event in page.items {
                assert_eq!(event.position, Some(read.len() as u64 + 1), "positions are dense");
                read.push(event.id);
            }
            if read.len() as u64 >= page.head {
                break page.head;
            }
        };
        assert_eq!(read.get(..seen.len()), Some(&*seen), "what was read once is read again");
        seen = read;
        if over {
            return head;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Ends sessions of nodes, whatever they are doing: those that append and those that number.
async fn killer(url: String, done: tokio::sync::watch::Receiver<bool>) -> i64 {
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let mut killed = 0;
    while !*done.borrow() {
        let ended: i64 = sqlx::query_scalar(
            "select count(pg_terminate_backend(pid)) from (select pid from pg_stat_activity \
             where datname = current_database() and usename = 'server_of_tests' \
             and (query like '-- log_%' or state = 'idle in transaction') order by random() limit 1) s",
        )
        .fetch_one(&mut connection)
        .await
        .unwrap();
        killed += ended;
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    killed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_are_dense_and_follow_streams_and_what_was_visible_whoever_is_killed() {
    let mut chance = Chance::seeded();
    let url = database().await;
    let (first, second) = (node(&url, |_| {}).await, node(&url, |_| {}).await);
    let (over, done) = tokio::sync::watch::channel(false);
    let readers =
        [&first, &second].map(|engine| tokio::spawn(reader(engine.clone(), done.clone())));
    let killer = tokio::spawn(killer(url.clone(), done.clone()));
    let slow: Vec<_> =
        (0..4).map(|_| tokio::spawn(slow_writer(url.clone(), chance.fork(), 25))).collect();
    let keyed: Vec<_> = [&first, &second, &first, &second]
        .into_iter()
        .enumerate()
        .map(|(at, engine)| tokio::spawn(keyed_writer(engine.clone(), at as u64, 40)))
        .collect();
    let (mut beside, mut receipts) = (Vec::new(), Vec::new());
    for writer in slow {
        beside.extend(writer.await.unwrap());
    }
    for writer in keyed {
        receipts.extend(writer.await.unwrap());
    }
    over.send(true).unwrap();
    let killed = killer.await.unwrap();
    assert!(killed > 5, "{killed} sessions were killed");
    let count = (beside.len() + receipts.len()) as u64;
    let events = all(&first, count).await;
    for engine in [&first, &second] {
        while engine.run_once(BackgroundTask::Number).await.is_err() {}
        assert_eq!(page(engine, count).await.1, count, "each event was appended once");
    }
    for reader in readers {
        assert!(reader.await.unwrap() <= count);
    }
    let positions: HashMap<Uuid, u64> =
        events.iter().map(|event| (event.id, event.position.unwrap())).collect();
    assert_eq!(positions.len() as u64, count);
    for (event, before) in &beside {
        for earlier in before.iter().filter(|one| *one != event) {
            assert!(positions[earlier] < positions[event], "visible before means a lower position");
        }
    }
    let mut streams: BTreeMap<&str, u64> = BTreeMap::new();
    for event in &events {
        if let Some(stream) = &event.stream {
            let version = streams.entry(stream).or_default();
            *version += 1;
            assert_eq!(event.version, Some(*version), "{stream}");
        }
    }
    assert_eq!(streams.values().sum::<u64>(), 160);
    for receipt in &receipts {
        assert!(positions.contains_key(&receipt.id), "what was answered is in the log");
    }
}

#[tokio::test]
async fn an_open_transaction_delays_its_own_events_only() {
    let url = database().await;
    let engine = node(&url, |_| {}).await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    let late = beside(&mut transaction).await.unwrap();
    let told = append(&engine, json!([{"type": "t", "stream": "s:1"}])).await.unwrap();
    let events = all(&engine, 1).await;
    assert_eq!(events[0].id, told[0].id);
    transaction.commit().await.unwrap();
    engine.run_once(BackgroundTask::Number).await.unwrap();
    let events = all(&engine, 2).await;
    assert_eq!((events[1].id, events[1].position), (late, Some(2)));
}

#[tokio::test]
async fn who_holds_the_head_numbers_alone_and_leaves_nothing_behind_when_it_dies() {
    let url = database().await;
    let engine = node(&url, |options| options.tuning.log_every = Duration::from_secs(3_600)).await;
    append(&engine, json!([{"type": "t"}])).await.unwrap();
    all(&engine, 1).await;
    let mut other = PgConnection::connect(&url).await.unwrap();
    let mut transaction = other.begin().await.unwrap();
    sqlx::query("select * from log_head for update").execute(&mut *transaction).await.unwrap();
    sqlx::query("update log_head set position = 100").execute(&mut *transaction).await.unwrap();
    append(&engine, json!([{"type": "t"}])).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(page(&engine, 0).await.1, 1, "it waits for who holds the head");
    drop(transaction);
    drop(other);
    let events = all(&engine, 2).await;
    assert_eq!(events[1].position, Some(2));
    assert!(metric(&engine, "log_events_numbered_total") >= 2.0);
}

#[tokio::test]
async fn an_append_whose_answer_or_statement_is_lost_stands_once() {
    let url = database().await;
    let name = url.split('?').next().unwrap().rsplit('/').next().unwrap().to_owned();
    let proxy = Proxy::start(server().await.dir().to_owned()).await;
    let engine = node(&proxy.url(&name), |_| {}).await;
    let mut count = 0;
    for stream in [json!(null), json!("s:1")] {
        for loss in [Loss::Answer(b"needle".to_vec()), Loss::Statement(b"needle".to_vec())] {
            let before = metric(&engine, "unknown_commits_total");
            proxy.lose(loss);
            let event = json!({"type": "t", "stream": stream, "data": "needle"});
            append(&engine, json!([event])).await.unwrap();
            assert!(!proxy.is_armed());
            assert_eq!(metric(&engine, "unknown_commits_total"), before + 1.0);
            count += 1;
            assert_eq!(all(&engine, count).await.len() as u64, count);
        }
    }
    let events = all(&engine, 4).await;
    let versions: Vec<_> = events.iter().map(|event| event.version).collect();
    assert_eq!(versions, [None, None, Some(1), Some(2)]);
    engine.run_once(BackgroundTask::Number).await.unwrap();
    assert_eq!(page(&engine, 4).await.1, 4);
}

#[tokio::test]
async fn batches_are_numbered_in_turns_until_none_is_left() {
    let url = database().await;
    let engine = node(&url, |options| options.tuning.log_every = Duration::from_secs(3_600)).await;
    let mut owner = PgConnection::connect(&url).await.unwrap();
    sqlx::query(
        "insert into announced (namespace, batch, n, at) \
         select case when g = 5000 then 'calm' else 'flood' end, gen_random_uuid(), 1, now() from generate_series(1, 5000) g",
    )
    .execute(&mut owner)
    .await
    .unwrap();
    // One turn at a time, as a node does it.
    let head = async |connection: &mut PgConnection, namespace: &str| -> i64 {
        sqlx::query_scalar("select position from log_head where namespace = $1")
            .bind(namespace.to_owned())
            .fetch_one(connection)
            .await
            .unwrap()
    };
    engine.run_once(BackgroundTask::Number).await.unwrap();
    assert_eq!(head(&mut owner, "calm").await, 1);
    assert_eq!(head(&mut owner, "flood").await, 4_999);
    let gaps: i64 = sqlx::query_scalar(
        "select count(*) from (select upto - lag(upto, 1, 0::bigint) over (order by upto) as step from position \
         where namespace = 'flood') s where step <> 1",
    )
    .fetch_one(&mut owner)
    .await
    .unwrap();
    assert_eq!(gaps, 0);
}

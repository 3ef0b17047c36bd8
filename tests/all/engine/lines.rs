//! However starts come, under whichever policies, with failures, cancels and a node that dies: no two runs ever move
//! under one serial key, none begins before its fact, every run ends, and nothing is left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use backstitch_engine::{Engine, Error, FactAct};
use backstitch_saga::protocol::{
    FailureKind, OnConflict, Requirement, StartRun, StartSequence, State, TaskOffer,
};
use backstitch_saga::{Action, By, Command, RunId, Span};
use backstitch_tests::chance::Chance;
use backstitch_tests::node::{Hand, NS, by, chain, metric, node, start};
use backstitch_tests::postgres::database;

const STARTS: u64 = 150;
const KEYS: u64 = 6;
const POLICIES: [OnConflict; 5] = [
    OnConflict::Queue,
    OnConflict::Reject,
    OnConflict::Replace,
    OnConflict::Coalesce,
    OnConflict::UseExisting,
];

/// The state of the runs as seen from outside.
#[derive(Default)]
struct Watch {
    /// Each run with its key, and whether it requires the key's fact.
    runs: BTreeMap<RunId, (u64, bool)>,
    /// The run that was last seen to move under each key.
    moves: BTreeMap<u64, RunId>,
    moved: BTreeSet<RunId>,
    established: BTreeSet<u64>,
    switches: usize,
}

fn fact(key: u64) -> Requirement {
    Requirement { fact: "there".to_owned(), on: format!("key:{key}") }
}

impl Watch {
    /// A worker got a task.
    async fn saw(&mut self, engine: &Engine, task: &TaskOffer) {
        let run = task.run;
        let (key, requires) = self.runs[&run];
        assert!(!requires || self.established.contains(&key), "{run} begins before its fact");
        if let Some(other) = self.moves.get(&key).copied().filter(|other| *other != run) {
            if engine.run(NS, run, None).await.unwrap().state == State::Ended {
                // Another node revoked it on its way to the worker; what is reported of it does not count.
                return;
            }
            assert!(!self.moved.contains(&run), "{run} moves again after {other} did");
            let view = engine.run(NS, other, None).await.unwrap();
            assert_eq!(view.state, State::Ended, "{run} moves while {other} does");
            self.switches += 1;
        }
        self.moves.insert(key, run);
        self.moved.insert(run);
    }
}

async fn begin(engine: &Engine, chance: &mut Chance, number: u64, watch: &mut Watch) {
    let key = chance.below(KEYS);
    let requires = chance.percent(20);
    let sequence = StartSequence {
        serial_key: Some(format!("key:{key}")),
        on_conflict: Some(POLICIES[usize::try_from(chance.below(5)).unwrap()]),
        requires: if requires { vec![fact(key)] } else { Vec::new() },
        requires_within: None,
        ..StartSequence::default()
    };
    let request = StartRun { sequence: Some(sequence), ..start("two", &number.to_string()) };
    match engine.start_run(NS, request).await {
        Ok(started) if started.created => {
            watch.runs.insert(started.id, (key, requires));
        }
        Ok(started) => assert!(watch.runs.contains_key(&started.id)),
        Err(Error::Conflict { code: "key_held", .. }) => {}
        Err(error) => panic!("{error:?}"),
    }
}

async fn work(hand: &Hand, chance: &mut Chance, watch: &mut Watch) -> bool {
    let tasks = hand.claim(5, Span::millis(10)).await;
    for task in &tasks {
        watch.saw(&hand.engine, task).await;
        if chance.percent(15) && task.action == Action::Forward {
            hand.fail(task, FailureKind::Permanent).await;
        } else {
            hand.succeed(std::slice::from_ref(task)).await;
        }
    }
    !tasks.is_empty()
}

async fn cancel(engine: &Engine, chance: &mut Chance, watch: &Watch) {
    let at = usize::try_from(chance.below(watch.runs.len() as u64)).unwrap();
    let run = *watch.runs.keys().nth(at).unwrap();
    let by = By { actor: "ann".into(), reason: "by chance".to_owned() };
    // It may have ended, or be under way back.
    let _ = engine.command(NS, run, Command::Cancel { by }).await;
}

async fn establish(engine: &Engine, key: u64, watch: &mut Watch) {
    watch.established.insert(key);
    engine.act_on_fact(NS, &fact(key), FactAct::Establish, &by("chance")).await.unwrap();
}

async fn all_ended(engine: &Engine, watch: &Watch) -> bool {
    for run in watch.runs.keys() {
        if engine.run(NS, *run, None).await.unwrap().state != State::Ended {
            return false;
        }
    }
    true
}

#[tokio::test]
async fn nobody_begins_for_a_run_that_has_ended_while_the_next_moves() {
    let engine = node(&database().await, |options| {
        options.tuning.credit_grace = Duration::from_secs(60);
    })
    .await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let begin = async |number: &str| {
        let sequence = StartSequence {
            serial_key: Some("key".to_owned()),
            on_conflict: Some(OnConflict::Queue),
            requires: Vec::new(),
            requires_within: None,
            ..StartSequence::default()
        };
        let request = StartRun { sequence: Some(sequence), ..start("one", number) };
        engine.start_run(NS, request).await.unwrap().id
    };
    let (slow, quick) = (Hand::new(&engine), Hand::new(&engine));
    assert!(slow.claim(1, Span::ZERO).await.is_empty());
    // Its task is put aside for the slow one, who does not come for it until the run is over.
    let (first, next) = (begin("1").await, begin("2").await);
    let limit = Instant::now() + Duration::from_secs(60);
    while metric(&engine, "born_claimed_total") < 1.0 {
        assert!(Instant::now() < limit, "its task is put aside for nobody");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    engine.command(NS, first, Command::Cancel { by: by("a mistake") }).await.unwrap();
    let undo = quick.one().await;
    assert_eq!((undo.run, undo.action), (first, Action::Compensate));
    quick.succeed(&[undo]).await;
    let moves = quick.one().await;
    assert_eq!((moves.run, moves.action), (next, Action::Forward));
    let late = slow.claim(1, Span::millis(100)).await;
    assert!(late.is_empty(), "{late:?} while {next} moves");
}

#[tokio::test]
async fn no_two_move_under_one_key() {
    let url = database().await;
    let another = async || {
        let engine = node(&url, |options| {
            options.tuning.dead_after = Duration::from_secs(2);
        })
        .await;
        let hand = Hand::new(&engine);
        (engine, hand)
    };
    let mut nodes = vec![another().await, another().await];
    nodes[0].0.register(NS, &chain("two", &["a", "b"])).await.unwrap();
    let mut chance = Chance::seeded();
    let mut watch = Watch::default();
    for number in 0..STARTS {
        let (engine, hand) = &nodes[usize::try_from(chance.below(2)).unwrap()];
        begin(engine, &mut chance, number, &mut watch).await;
        if chance.percent(60) {
            work(hand, &mut chance, &mut watch).await;
        }
        if chance.percent(10) && !watch.runs.is_empty() {
            cancel(engine, &mut chance, &watch).await;
        }
        if chance.percent(3) {
            establish(engine, chance.below(KEYS), &mut watch).await;
        }
        if number == STARTS / 2 {
            // One dies, with all that it knows, and another comes.
            nodes[0] = another().await;
        }
    }
    for key in 0..KEYS {
        establish(&nodes[1].0, key, &mut watch).await;
    }
    let limit = Instant::now() + Duration::from_secs(60);
    loop {
        let mut found = false;
        for (_, hand) in &nodes {
            found |= work(hand, &mut chance, &mut watch).await;
        }
        if !found && all_ended(&nodes[0].0, &watch).await {
            break;
        }
        assert!(Instant::now() < limit, "some run does not end");
    }
    assert!(watch.switches > 10, "keys went from run to run {} times only", watch.switches);
    for key in 0..KEYS {
        while !nodes[0].0.key_line(NS, &format!("key:{key}")).await.unwrap().is_empty() {
            assert!(Instant::now() < limit, "the line of key {key} is left");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let about = nodes[0].0.facts_about(NS, &fact(key).on).await.unwrap();
        assert_eq!(about.waiting.len(), 0);
    }
    assert_eq!(nodes[0].0.doctor(false).await.unwrap().differences, Vec::<String>::new());
}

//! A bad night, told as the operator lives it: the program as people type it against a real server, a bank that is a
//! process and is killed, workers with two bugs. What was typed, and what it came to, is kept beside this file.

mod ledgers;
mod shop;

use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant};

use backstitch_api::Access;
use backstitch_saga::protocol::{
    ActFilter, BreakerState, IncidentFilter, IncidentLine, IncidentState, Outcome, WaitKind,
};
use backstitch_sdk::{Client, RunQuery};
use backstitch_tests::node::NS;
use backstitch_tests::server::Server;
use serde_json::{Value, json};
use tokio::process::Command;

use ledgers::Service;
use shop::{Release, Urls, night_order, number};

/// So many parcels go by sea, for which the first release has no label,
const BY_SEA: usize = 500;
/// so many addresses are not known,
const NOWHERE: usize = 3;
/// and there are so many orders in all.
const ORDERS: usize = 520;
/// Waiting for something longer than this is a failure.
const PATIENCE: Duration = Duration::from_secs(90);

/// The operator, and what she typed.
struct Night {
    server: Server,
    client: Client,
    /// Placeholders for values that differ each night.
    names: Vec<(String, String)>,
    told: String,
    /// The acts that she must find in the audit: verb and reason.
    acts: Vec<(String, String)>,
}

impl Night {
    async fn fall() -> Night {
        let server = Server::start(Access::Open).await;
        let client = Client::new(server.url()).unwrap().namespace(NS).unwrap();
        Night { server, client, names: Vec::new(), told: String::new(), acts: Vec::new() }
    }

    fn tell(&mut self, line: &str) {
        self.told.push_str(line);
        self.told.push('\n');
    }

    /// From now on `what` is told as `name`.
    fn call(&mut self, what: &str, name: &str) {
        // The id of an incident begins with that of its run.
        self.names.insert(0, (what.to_owned(), name.to_owned()));
    }

    fn named(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (what, name)| text.replace(what, name))
    }

    async fn run(&mut self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backstitch-under-test"));
        command.args(words).args(["-o", "json", "--url", self.server.url(), "--namespace", NS]);
        let output = command.env("USER", "ann").env("HOME", "/nowhere").output().await.unwrap();
        let quoted = words.iter().map(|word| match word.contains([' ', '{']) {
            true => format!("'{word}'"),
            false => (*word).to_owned(),
        });
        let line = format!("$ backstitch {}", quoted.collect::<Vec<_>>().join(" "));
        self.tell(&self.named(&line));
        output
    }

    /// Types a command; what it answers as JSON.
    async fn ask(&mut self, words: &[&str]) -> Value {
        let output = self.run(words).await;
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// Types a command that is refused.
    async fn refused(&mut self, words: &[&str]) {
        let output = self.run(words).await;
        assert!(!output.status.success(), "{words:?}");
        let complaint = String::from_utf8(output.stderr).unwrap();
        self.tell(&self.named(&format!("  {}", complaint.trim())));
    }

    /// Types a command that changes something, for a reason.
    async fn act(&mut self, words: &[&str], verb: &str, reason: &str) -> Value {
        self.acts.push((verb.to_owned(), reason.to_owned()));
        self.ask(&[words, &["--reason", reason]].concat()).await
    }

    /// Tells what an answer says in these places.
    fn show(&mut self, answer: &Value, places: &[&str]) {
        for place in places {
            let value = answer.pointer(place).unwrap_or(&Value::Null);
            self.tell(&self.named(&format!("  {}: {value}", &place[1..])));
        }
    }

    /// Returns the open incidents, by the key of their order.
    async fn incidents(&self) -> Vec<IncidentLine> {
        let state = Some(IncidentState::Open);
        let filter = IncidentFilter { state, ..IncidentFilter::default() };
        let mut open = self.client.incidents(&filter).all().await.unwrap();
        open.sort_by(|a, b| a.key.cmp(&b.key));
        open
    }

    /// Waits until the open incidents are so many.
    async fn open_incidents(&self, count: usize) -> Vec<IncidentLine> {
        let began = Instant::now();
        loop {
            let open = self.incidents().await;
            if open.len() == count {
                return open;
            }
            assert!(began.elapsed() < PATIENCE, "{} of {count} incidents", open.len());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until something is so.
    async fn until(&self, what: &str, is: impl AsyncFn(&Client) -> bool) {
        let began = Instant::now();
        while !is(&self.client).await {
            if began.elapsed() > PATIENCE {
                let open = self.client.runs(RunQuery::new().limit(3)).all().await.unwrap();
                let mut told = String::new();
                for run in open.iter().filter(|run| run.outcome != Some(Outcome::Succeeded)) {
                    told += &format!("\n{:?} {:?}", run.outcome, self.client.why(run.id).await);
                }
                panic!("never: {what}\n{}{told}", self.told);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until so many orders came to this.
    async fn ended(&self, outcome: Outcome, count: usize) {
        let query = || RunQuery::new().outcome(outcome).limit(1_000);
        self.until(outcome.as_str(), async |client| {
            client.runs(query()).all().await.unwrap().len() == count
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bad_night() {
    let mut night = Night::fall().await;
    let mut bank = Service::start("payment").await;
    let (stock, carrier) = (Service::start("stock").await, Service::start("shipping").await);
    let urls = Urls { stock: stock.url(), bank: bank.url(), carrier: carrier.url() };
    night.client.register(&night_order()).await.unwrap();

    night.tell("The bank is slow and dear: eight calls at once, and none while it is down.");
    let breaker = r#"{"failure_ratio":0.5,"min_calls":20,"window":"30s","open_for":"3s"}"#;
    let set = ["queue", "set", "bank", "--concurrency", "8", "--breaker", breaker];
    let answer = night.ask(&set).await;
    night.acts.push(("put".to_owned(), String::new()));
    night.show(&answer, &["/policy/concurrency", "/breaker/state"]);

    the_bank_dies(&mut night, &mut bank, &urls).await;
    let worker = night_of_two_bugs(&mut night, &urls).await;
    let worker = the_fix(&mut night, worker, &urls).await;
    three_by_hand(&mut night, &bank).await;
    night_is_over(&mut night, [&stock, &bank, &carrier]).await;
    worker.stop().await;

    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("all/night/transcript.txt");
    if std::env::var_os("BACKSTITCH_BLESS").is_some() {
        std::fs::write(&path, &night.told).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), night.told);
    night.server.stopped().await;
}

/// A downstream dies under load: its breaker opens, and waiting spends no attempts.
async fn the_bank_dies(night: &mut Night, bank: &mut Service, urls: &Urls) {
    let worker = shop::work(&night.client, Release::First, urls);
    let orders = (1..=ORDERS).map(|number| shop::order(number, BY_SEA, NOWHERE));
    let starts = orders
        .map(|order| night.client.start_named::<_, Value>(shop::WORKFLOW, &order).key(&order.id));
    for started in night.client.start_all(starts).await.unwrap() {
        started.unwrap();
    }
    bank.reached(60).await;
    bank.kill().await;
    night.tell("\nThe bank dies under load.");
    night
        .until("an open breaker", async |client| {
            let view = client.queue("bank").await.unwrap();
            view.breaker.unwrap().state == BreakerState::Open
        })
        .await;
    let shown = night.ask(&["queue", "show", "bank"]).await;
    night.show(&shown, &["/breaker/state"]);
    // Nothing else moves: all that is left waits for the bank.
    let last = night.client.runs(RunQuery::new().key(&number(ORDERS))).all().await.unwrap();
    let id = last[0].id.to_string();
    night.call(&id, &format!("RUN-{ORDERS}"));
    night
        .until("an order that waits for the bank", async |client| {
            let why = client.why(last[0].id).await.unwrap();
            why.waits_for.iter().any(|wait| wait.kind == WaitKind::DestinationUnavailable)
        })
        .await;
    let why = night.ask(&["run", "why", &id]).await;
    night.show(&why, &["/state", "/waits_for/0/kind"]);
    bank.start_again().await;
    night.tell("\nThe bank is back; one probe finds out.");
    night
        .until("a closed breaker", async |client| {
            let view = client.queue("bank").await.unwrap();
            view.breaker.unwrap().state == BreakerState::Closed
        })
        .await;
    bank.reached(ORDERS).await;
    worker.stop().await;
    let spent = ledgers::attempts_at_the_bank(&night.client).await;
    assert!(spent.unavailable >= 20, "it was down for a while: {spent:?}");
    // Of those that were under way when it died nobody can know; they were asked about, and are the only ones.
    assert!(spent.spent <= 8, "{spent:?}");
    night.tell("  attempts spent by waiting: 0");
}

/// 500 tasks fail by one bug and 3 by another: two groups, and a guard that pauses the workflow.
async fn night_of_two_bugs(night: &mut Night, urls: &Urls) -> shop::Working {
    let worker = shop::work(&night.client, Release::First, urls);
    night.tell("\nTwo bugs.");
    night.open_incidents(BY_SEA + NOWHERE).await;
    night.ended(Outcome::Succeeded, ORDERS - BY_SEA - NOWHERE).await;
    night
        .until("a paused workflow", async |client| {
            !client.status().await.unwrap().paused_workflows.is_empty()
        })
        .await;
    let status = night.ask(&["status"]).await;
    night.show(&status, &["/incidents/open", "/paused_workflows"]);
    let groups = night.ask(&["incident", "groups"]).await;
    for (place, name) in [(0, "NO-LABEL"), (1, "NO-ADDRESS")] {
        let fingerprint = groups["items"][place]["fingerprint"].as_str().unwrap();
        night.call(fingerprint, name);
    }
    let places = ["/items/0/count", "/items/0/code", "/items/1/count", "/items/1/code", "/items/2"];
    night.show(&groups, &places);
    worker
}

/// The handler is fixed; the first group is done again, a canary first, fifty a second.
async fn the_fix(night: &mut Night, worker: shop::Working, urls: &Urls) -> shop::Working {
    worker.stop().await;
    let fixed = shop::work(&night.client, Release::Second, urls);
    night.tell("\nThe handler is fixed and deployed.");
    let (fingerprint, _) = night.names.iter().find(|(_, name)| name == "NO-LABEL").unwrap();
    let many = json!({ "fingerprint": fingerprint }).to_string();
    let canary = r#"{"first":5,"wait":"1m"}"#;
    let job = ["job", "create", "--verb", "retry", "--incidents", &many, "--rate", "50"];
    let caution = ["--canary", canary, "--stop-when", "count=3"];
    let began = Instant::now();
    let made = night
        .act(&[&job[..], &caution].concat(), "create", "Labels for the sea are deployed")
        .await;
    let id = made["id"].as_str().unwrap().to_owned();
    night.call(&id, "JOB");
    night.ask(&["job", "watch", &id]).await;
    let shown = night.ask(&["job", "show", &id]).await;
    night.show(&shown, &["/state", "/progress"]);
    let least = Duration::from_secs((BY_SEA as u64 - 100) / 50);
    assert!(began.elapsed() >= least, "fifty a second: {:?}", began.elapsed());
    night.ended(Outcome::Succeeded, ORDERS - NOWHERE).await;
    night.act(&["workflow", "resume", shop::WORKFLOW], "resume", "The labels are there").await;
    fixed
}

/// Of the second group one is edited, one goes back a step and forward again, one is settled outside.
async fn three_by_hand(night: &mut Night, bank: &Service) {
    let open = night.open_incidents(NOWHERE).await;
    for incident in &open {
        let order = incident.key.clone().unwrap();
        night.call(&incident.run.to_string(), &order.replace("N-", "RUN-"));
        night.call(&incident.id.to_string(), &order.replace("N-", "INCIDENT-"));
    }
    let [edited, again, outside] = open.try_into().unwrap();

    night.tell("\nThe first address was mistyped.");
    let (id, order) = (edited.id.to_string(), edited.key.unwrap());
    let (typo, reason) = (json!({ "order": order, "by_sea": false, "postcode": 10115 }), "Asked");
    let typo = typo.to_string();
    night.refused(&["incident", "retry", &id, "--input", &typo, "--reason", reason]).await;
    let input = json!({ "order": order, "by_sea": false, "postcode": "10115" }).to_string();
    night.act(&["incident", "retry", &id, "--input", &input], "retry", reason).await;
    night.ended(Outcome::Succeeded, ORDERS - NOWHERE + 1).await;

    night.tell("\nThe second customer moved, and had been charged too much.");
    shop::moved(&again.key.clone().unwrap());
    let run = again.run.to_string();
    let input =
        json!({"order": again.key.unwrap(), "account": "c-2", "amount": "7.50"}).to_string();
    let rerun = ["run", "rerun", &run, "--from", "charge"];
    let plan = night.ask(&[&rerun[..], &["--dry-run"]].concat()).await;
    night.show(&plan, &["/undo/steps/0/step", "/again"]);
    // The undoing it begins with is part of it, and no act of its own.
    let reason = "Charged the old price";
    night.act(&[&rerun[..], &["--input", &input]].concat(), "rerun", reason).await;
    night.ended(Outcome::Succeeded, ORDERS - NOWHERE + 2).await;

    night.tell("\nThe third customer withdrew, and the bank refuses the refund.");
    let order = outside.key.unwrap();
    bank.misbehave(&json!({"rules": [{"match": {"op": "refund"}, "fault": "fail"}]})).await;
    let id = outside.id.to_string();
    night.act(&["incident", "cancel", &id], "cancel", "The customer withdrew").await;
    let blocked = night.open_incidents(1).await.remove(0);
    night.call(&blocked.id.to_string(), &order.replace("N-", "REFUND-"));
    let shown = night.ask(&["incident", "show", &blocked.id.to_string()]).await;
    night.show(&shown, &["/kind", "/step"]);
    bank.misbehave(&json!({"rules": []})).await;
    let view = night.client.run(outside.run).await.unwrap();
    let charge = view.steps.iter().find(|step| step.step.to_string() == "charge").unwrap();
    bank.refund_by_hand(&order, charge.effect_key).await;
    let id = blocked.id.to_string();
    night.act(&["incident", "mark-compensated", &id], "mark-compensated", "Refunded by hand").await;
    night.ended(Outcome::CompensatedWithManualSteps, 1).await;
    assert!(night.incidents().await.is_empty());
}

/// In the morning the ledgers agree with the runs, and the audit is complete.
async fn night_is_over(night: &mut Night, services: [&Service; 3]) {
    night.tell("\nIn the morning.");
    let [stock, bank, carrier] = services;
    let standing = [stock.standing().await, bank.standing().await, carrier.standing().await];
    let withdrawn = number(BY_SEA + NOWHERE);
    let expected: Vec<String> = (1..=ORDERS).map(number).filter(|id| *id != withdrawn).collect();
    for (ledger, place) in standing.iter().zip(["stock", "bank", "carrier"]) {
        let orders: Vec<&String> = ledger.iter().map(|(order, _)| order).collect();
        assert_eq!(orders, expected.iter().collect::<Vec<_>>(), "one effect for each in {place}");
        night.tell(&format!("  {place}: {} effects stand, one for each order", orders.len()));
    }
    let (_, paid) = standing[1].iter().find(|(order, _)| *order == number(BY_SEA + 2)).unwrap();
    assert_eq!(paid["amount"], "7.50");

    let acts = night.client.acts(&ActFilter::default()).all().await.unwrap();
    let by_job = acts.iter().filter(|act| act.reason.contains("(job "));
    assert_eq!(by_job.filter(|act| act.verb == "retry" && act.actor == "ann").count(), BY_SEA);
    let guard: Vec<_> = acts.iter().filter(|act| act.actor == "backstitch").collect();
    assert_eq!((guard.len(), guard[0].workflow.as_deref()), (1, Some(shop::WORKFLOW)));
    let by_hand = acts.iter().filter(|act| act.actor == "ann" && !act.reason.contains("(job "));
    let mut by_hand: Vec<(String, String)> =
        by_hand.map(|act| (act.verb.clone(), act.reason.clone())).collect();
    by_hand.reverse();
    for (verb, reason) in &by_hand {
        night.tell(&format!("  ann: {verb} {reason}"));
    }
    let sorted = |mut acts: Vec<(String, String)>| {
        acts.sort();
        acts
    };
    assert_eq!(sorted(by_hand), sorted(night.acts.clone()), "the audit is complete");
}

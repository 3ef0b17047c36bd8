//! `backstitch demo integration`: documents of three systems on their way to runs, with the trouble that they have.
//!
//! Orders arrive before their customers, two vendors send the same customers in shapes of their own, a file is sent
//! twice, a mapping fails and is mended, a document is refused and the schema changes. It is good only if in the end
//! everything that came in is in the log once, and has the runs that it should.

mod report;
mod wire;
mod world;

use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::stage::Stage;
use super::voice::Voice;
use crate::cli::asked_to_stop;
use crate::print;
use report::World;
use wire::{Answer, Wire};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the demo ends.
#[derive(Args, Clone, Debug)]
pub(crate) struct IntegrationOptions {
    /// Say nothing but one JSON document at the end
    #[arg(long)]
    pub(crate) json: bool,
}

/// A document that was sent.
struct Sent {
    source: &'static str,
    what: String,
    status: u16,
    duplicate: bool,
    /// Its id at the server.
    intake: Option<String>,
}

/// Runs the demo; `false` when something does not add up.
///
/// # Errors
/// When something that the demo needs cannot be started, or is answered otherwise than it should be.
pub(crate) async fn run(options: &IntegrationOptions) -> anyhow::Result<bool> {
    let voice = Voice::new(options.json);
    voice.say("Two vendors, an order system, and what becomes of what they send.\n");
    let mut stopped = pin!(asked_to_stop());
    let mut stage = tokio::select! {
        stage = Stage::bare(&voice) => stage?,
        () = &mut stopped => bail!("interrupted; everything is stopped"),
    };
    let wire = Wire::new(&stage.server);
    let world = tokio::select! {
        world = stage.guard(perform(&wire, &voice)) => world?,
        () = &mut stopped => bail!("interrupted; everything is stopped"),
    };
    stage.strike().await;
    voice.say("\nIn the end:\n");
    world.show(&voice);
    let wrong = world.wrong();
    match wrong.is_empty() {
        true => voice.say(format_args!(
            "\nNothing is missing: {} documents, {} events, {} runs.",
            world.intake.len(),
            world.events.len(),
            world.runs.len()
        )),
        false => wrong.iter().for_each(|what| voice.say(format_args!("  WRONG: {what}"))),
    }
    if options.json {
        print::line(format_args!("{:#}", world.json(&wrong)));
    }
    Ok(wrong.is_empty())
}

/// Plays everything, and looks at what is there.
async fn perform(wire: &Wire, voice: &Voice) -> anyhow::Result<World> {
    set_up(wire).await?;
    let mut sent = Vec::new();
    voice.say("\nThe order system sends three orders; nobody knows their customers yet.");
    for (nr, customer, sum) in
        [("O-1", "C-1", "19.90"), ("O-2", "C-2", "5.00"), ("O-3", "C-4", "7.50")]
    {
        let answer = wire.send("erp", &world::sale(nr, customer, sum)).await?;
        sent.push(note("erp", nr, &answer, 202)?);
    }
    let waited = orders_wait(wire, 3).await?;
    voice.say(
        "The CRM sends its contacts. The state of one means nothing to us: it cannot be mapped.",
    );
    for (id, name, mail, state) in [
        ("C-1", "Ann Meyer", "ann@shop.test", "A"),
        ("C-2", "Börje Åkesson", "borje@shop.test", "I"),
        ("C-3", "Cyd Oduya", "cyd@shop.test", "P"),
    ] {
        let answer = wire.send("crm", &world::contact(id, name, Some(mail), state)).await?;
        sent.push(note("crm", id, &answer, 202)?);
    }
    voice.say("One has no mail, which their contract asks for: it is refused, and kept.");
    let without = world::contact("C-4", "Dee Li", None, "A");
    let answer = wire.send("crm", &without).await?;
    sent.push(note("crm", "C-4", &answer, 422)?);
    voice.say(
        "The web shop sends a file with the same customers in its own shape, and sends it again.",
    );
    let buyers = [
        world::buyer("C-1", "Ann Meyer", "ann@shop.test"),
        world::buyer("C-5", "Eve Nakamura", "eve@shop.test"),
    ];
    for again in [false, true] {
        for (record, no) in wire.send_lines("web", &buyers).await?.into_iter().zip(["C-1", "C-5"]) {
            let status = record["status"].as_u64().unwrap_or_default();
            let answer = Answer { status: u16::try_from(status).unwrap_or_default(), body: record };
            sent.push(note("web", no, &answer, if again { 200 } else { 202 })?);
        }
    }
    voice.say("Somebody says what the state means, and the contact is mapped.");
    mend_mapping(wire, &sent).await?;
    voice.say(
        "A new version of the contract takes contacts without mail, and the one that was refused.",
    );
    change_schema(wire, &sent).await?;
    settle(wire, sent, waited).await
}

async fn set_up(wire: &Wire) -> anyhow::Result<()> {
    for (subject, schema) in world::contracts() {
        let path = format!("/v1/contracts/{subject}/versions");
        wire.act(Method::POST, &path, &json!({"schema": schema})).await?;
    }
    let contacts = world::of_contacts(&world::states(false));
    let transforms = world::transforms();
    let all = [("crm.contact/1/customer/1", contacts)].into_iter().chain(transforms);
    for (ends, transform) in all {
        put_transform(wire, ends, &transform).await?;
    }
    let contacts = ["/id", "/full_name", "/st"];
    wire.source("crm", &world::source("crm.contact", 1, "customer@1", &contacts)).await?;
    wire.source("web", &world::source("web.buyer", 1, "customer@1", &["/no"])).await?;
    wire.source("erp", &world::source("erp.sale", 1, "order@1", &["/nr"])).await?;
    for workflow in world::workflows() {
        let name = workflow["name"].as_str().unwrap_or_default();
        wire.act(Method::PUT, &format!("/v1/workflows/{name}/versions/1"), &workflow).await?;
    }
    for (name, spec) in world::subscriptions() {
        wire.act(Method::PUT, &format!("/v1/subscriptions/{name}"), &spec).await?;
    }
    Ok(())
}

async fn put_transform(wire: &Wire, ends: &str, transform: &Value) -> anyhow::Result<()> {
    let body = json!({"transform": transform, "reason": "the demo"});
    wire.act(Method::PUT, &format!("/v1/transforms/{ends}"), &body).await.map(drop)
}

fn note(source: &'static str, what: &str, answer: &Answer, expected: u16) -> anyhow::Result<Sent> {
    let Answer { status, body } = answer;
    ensure!(*status == expected, "{source} {what} is answered {status}: {body}");
    Ok(Sent {
        source,
        what: what.to_owned(),
        status: *status,
        duplicate: body["duplicate"] == true,
        intake: body["intake_id"].as_str().map(str::to_owned),
    })
}

/// Waits until so many runs of orders wait for their customers.
async fn orders_wait(wire: &Wire, count: usize) -> anyhow::Result<usize> {
    let until = Instant::now() + PATIENCE;
    loop {
        let found = wire.get("/v1/runs?condition=DependencyUnmet&limit=100").await?;
        let waiting = found["items"].as_array().map_or(0, Vec::len);
        if waiting >= count {
            return Ok(waiting);
        }
        ensure!(Instant::now() < until, "the orders do not wait: {found}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Puts a transform that knows the state, and maps what could not be mapped.
async fn mend_mapping(wire: &Wire, sent: &[Sent]) -> anyhow::Result<()> {
    let failed = wire.get("/v1/intakes?mapping=failed").await?;
    let count = failed["items"].as_array().map_or(0, Vec::len);
    ensure!(count == 1, "one contact cannot be mapped, not {count}: {failed}");
    put_transform(wire, "crm.contact/1/customer/1", &world::of_contacts(&world::states(true)))
        .await?;
    process_again(wire, sent, "C-3").await
}

/// Registers a version that takes contacts without mail, moves the source to it, and processes what was refused.
async fn change_schema(wire: &Wire, sent: &[Sent]) -> anyhow::Result<()> {
    let refused = wire.get("/v1/intakes?verdict=refused").await?;
    let count = refused["items"].as_array().map_or(0, Vec::len);
    ensure!(count == 1, "one contact is refused, not {count}: {refused}");
    let body = json!({"schema": world::contact_without_mail(), "reason": "the demo"});
    wire.act(Method::POST, "/v1/contracts/crm.contact/versions", &body).await?;
    put_transform(wire, "crm.contact/2/customer/1", &world::of_contacts(&world::states(true)))
        .await?;
    let contacts = ["/id", "/full_name", "/st"];
    wire.source("crm", &world::source("crm.contact", 2, "customer@1", &contacts)).await?;
    process_again(wire, sent, "C-4").await
}

/// Processes a contact again until it is mapped: what a door knows of transforms is a second old at most.
async fn process_again(wire: &Wire, sent: &[Sent], what: &str) -> anyhow::Result<()> {
    let found = sent.iter().find(|sent| sent.source == "crm" && sent.what == what);
    let Some(id) = found.and_then(|sent| sent.intake.as_ref()) else {
        bail!("the contact {what} was not kept");
    };
    let until = Instant::now() + PATIENCE;
    let path = format!("/v1/intakes/{id}/reprocess");
    loop {
        let view = wire.act(Method::POST, &path, &json!({"reason": "it is mended"})).await?;
        if view["mapping"]["state"] == "mapped" {
            return Ok(());
        }
        ensure!(Instant::now() < until, "{what} is not mapped: {view}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Waits until all is done that follows from what came in, and reads all of it.
async fn settle(wire: &Wire, sent: Vec<Sent>, waited: usize) -> anyhow::Result<World> {
    let until = Instant::now() + PATIENCE;
    loop {
        let log = wire.get("/v1/events?limit=1000").await?;
        let runs = wire.get("/v1/runs?limit=1000").await?;
        let events = log["items"].as_array().cloned().unwrap_or_default();
        let runs = runs["items"].as_array().cloned().unwrap_or_default();
        let made = events.iter().filter(|event| event["op"] == "C").count();
        let told = events.iter().filter(|event| {
            event["source"].as_str().is_some_and(|source| source.starts_with("workflow/"))
        });
        let done = runs.len() == made && told.count() == made;
        // What is not done in time is told by what is missing.
        if done || Instant::now() > until {
            let mut world = World { sent, intake: Default::default(), events, runs, waited };
            for id in world.sent.iter().filter_map(|sent| sent.intake.clone()) {
                let view = wire.get(&format!("/v1/intakes/{id}")).await?;
                world.intake.insert(id, view);
            }
            return Ok(world);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

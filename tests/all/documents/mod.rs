//! Every example of README, `docs/*.md` and `--help` is executed, or a mark before it says why it is not.
//!
//! A block of a page is run as its language says: `sh` in one shell a page, `sql` against the page's database, `json`
//! is read (and checked, where it is a workflow definition), `toml` is read as a configuration. A comment right before
//! a block says otherwise: `<!-- not run: REASON -->`, or `<!-- tested by: PATH -->` with a test that names the page.
//! What a page takes for granted stands in [`given`], what stands for ids in it in [`words`].

mod blocks;
mod help;
mod limits;
mod protocol;
mod scene;
mod shell;

use backstitch_api::Access;
use backstitch_tests::node::{NS, chain};
use backstitch_tests::server::{Server, send, with_json};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use blocks::{Block, Mark, blocks, pages, root};
use scene::{Scene, definition};
use shell::Shell;

/// Blocks that a test of their own holds to something: page, language, test.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    ("docs/payloads.md", "rust", "worker-sdk/tests/guide.rs"),
    ("docs/sdk.md", "rust", "worker-sdk/tests/guide.rs"),
    ("docs/sql-views.md", "sql", "tests/all/api/search.rs"),
    ("docs/rehearsal.md", "json", "saga/tests/rehearsal.rs"),
    ("docs/rehearsal.md", "console", "saga/tests/rehearsal.rs"),
];

/// Prepares the state that a page assumes.
async fn given(page: &str, scene: &Scene) {
    match page {
        "docs/cli.md" => {
            scene.register(&chain("order", &["payment"])).await;
            scene
                .act("/v1/jobs", json!({"verb": "retry", "reason": "r", "runs": {"key": "none"}}))
                .await;
        }
        "docs/idempotency.md" => scene.register(&definition("order", 1)).await,
        "docs/incidents.md" => {
            scene.register(&definition("order", 1)).await;
            for _ in 0..2 {
                scene.parked("order").await;
            }
            scene.act("/v1/workflows/order/pause", json!({"reason": "r"})).await;
        }
        "docs/plans.md" => {
            scene.register(&definition("order", 1)).await;
            scene.paid("order").await;
        }
        "docs/ingress.md" => {
            for stream in ["customer:c-7", "customer:c-8"] {
                let put = scene.server.request("PUT", "/v1/links/erp/4712");
                drop(send(with_json(put, json!({"stream": stream}))).await);
            }
        }
        "docs/payloads.md" => scene.register(&chain("place-order", &["payment"])).await,
        "docs/sequence.md" => {
            scene.register(&chain("change-address", &["change"])).await;
            scene.register(&chain("order", &["pay"])).await;
            let requires = json!([{"fact": "customer.created", "on": "customer:43"}]);
            let start =
                json!({"workflow": "order", "input": {}, "sequence": {"requires": requires}});
            scene.act("/v1/runs", start).await;
        }
        "docs/transactions.md" => {
            let mut sql = PgConnection::connect(scene.server.database()).await.unwrap();
            // Roles belong to the whole server, which is that of many tests.
            let roles =
                "do $$ begin create role shop; exception when duplicate_object then null; end $$;
                do $$ begin create role worker; exception when duplicate_object then null; end $$;
                create table orders (id bigint primary key, customer text)";
            sqlx::raw_sql(roles).execute(&mut sql).await.unwrap();
        }
        "docs/versions.md" => {
            scene.register(&definition("order", 1)).await;
            scene.register(&definition("order", 2)).await;
            scene.paid("order").await;
        }
        _ => {}
    }
}

/// Returns the values of placeholders in the blocks of a page: looked up before each block.
async fn words(page: &str, scene: &Scene) -> Vec<(String, String)> {
    let asked: &[(&str, &str, &str)] = match page {
        "docs/api.md" => &[("RUN-ID", "/v1/runs?key=order-10248", "id")],
        "docs/cli.md" => &[("JOB-ID", "/v1/jobs", "id")],
        "docs/incidents.md" => &[
            ("INCIDENT", "/v1/incidents?state=open", "id"),
            ("FINGERPRINT", "/v1/incidents", "fingerprint"),
            ("JOB", "/v1/jobs", "id"),
        ],
        "docs/ingress.md" => &[
            ("INTAKE-ID", "/v1/intakes?verdict=refused", "id"),
            ("IMPORT-ID", "/v1/imports", "id"),
            ("REPROCESS-ID", "/v1/reprocessings", "id"),
            ("CONFLICT-ID", "/v1/link-conflicts", "id"),
            ("EVENT-ID", "/v1/events?stream=customer:c-10", "id"),
        ],
        "docs/plans.md" => {
            &[("RUN-ID", "/v1/runs?workflow=order", "id"), ("PLAN-ID", "/v1/plans", "id")]
        }
        "docs/sequence.md" => &[("RUN-ID", "/v1/runs?workflow=order", "id")],
        "docs/versions.md" => &[("ID", "/v1/workflows/order/migrations", "id")],
        _ => &[],
    };
    let mut words = Vec::new();
    if page == "docs/ingress.md" {
        words.push(("default".to_owned(), NS.to_owned()));
    }
    for (word, path, member) in asked {
        if let Some(value) = scene.first(path, member).await {
            words.push(((*word).to_owned(), value));
        }
    }
    words
}

/// Runs all blocks of a page in order.
async fn run(page: &str) {
    let scene = Scene::new(Server::start(Access::Open).await);
    given(page, &scene).await;
    let shell = Shell::new(&scene.server, page);
    let worker = (page == "docs/cli.md").then(|| {
        let hand = backstitch_tests::node::Hand::new(&scene.server.engine);
        tokio::spawn(async move {
            loop {
                let tasks = hand.claim(10, backstitch_saga::Span::secs(1)).await;
                hand.succeed(&tasks).await;
            }
        })
    });
    let mut ran = 0;
    for block in blocks(page) {
        let elsewhere =
            ELSEWHERE.iter().find(|(of, language, _)| (*of, *language) == (page, &block.language));
        match (&block.mark, elsewhere) {
            (Mark::NotRun(_), _) => continue,
            (Mark::TestedBy(path), _) => tested(&block, path),
            (Mark::None, Some((_, _, path))) => tested(&block, path),
            (Mark::None, None) => execute(&block, &scene, &shell).await,
        }
        ran += 1;
    }
    worker.iter().for_each(tokio::task::JoinHandle::abort);
    let only_marked = blocks(page).iter().all(|block| matches!(block.mark, Mark::NotRun(_)));
    assert!(ran > 0 || only_marked, "{page}: nothing was run");
    scene.server.stopped().await;
}

fn tested(block: &Block, path: &str) {
    let text = std::fs::read_to_string(root().join(path));
    let text = text.unwrap_or_else(|error| panic!("{}: {path}: {error}", block.place()));
    let name = block.page.rsplit('/').next().unwrap_or_default();
    assert!(text.contains(name), "{}: {path} does not name {name}", block.place());
}

async fn execute(block: &Block, scene: &Scene, shell: &Shell) {
    match block.language.as_str() {
        "sh" | "bash" => shell.block(block, &words(&block.page, scene).await).await,
        "json" => read_json(block),
        "sql" => {
            let mut sql = PgConnection::connect(scene.server.database()).await.unwrap();
            let ran =
                sqlx::raw_sql(sqlx::AssertSqlSafe(block.text.clone())).execute(&mut sql).await;
            ran.unwrap_or_else(|error| panic!("the example at {} fails: {error}", block.place()));
        }
        "toml" => {
            shell.file("config.toml", &block.text);
            let whoami = "env -u BACKSTITCH_URL backstitch whoami --config config.toml --url http://127.0.0.1:7420";
            let (code, told) = shell.run(whoami, &[]).await;
            assert_eq!(code, 0, "the configuration at {}: {told}", block.place());
        }
        // A picture, not an example.
        "text" => {}
        language => panic!(
            "{}: nobody knows how to run a block of '{language}'; write <!-- not run: REASON --> or \
             <!-- tested by: PATH --> on the line before it",
            block.place()
        ),
    }
}

/// A document is JSON; a workflow definition with steps is valid.
fn read_json(block: &Block) {
    let value: Value = serde_json::from_str(&block.text)
        .unwrap_or_else(|error| panic!("the example at {} is no JSON: {error}", block.place()));
    let steps = value["steps"].as_array().is_some_and(|steps| !steps.is_empty());
    if steps && value["version"].is_number() {
        let checked = backstitch_engine::validate(&block.text);
        checked.unwrap_or_else(|error| panic!("the example at {}: {error:?}", block.place()));
    }
}

/// One test a page, so that they go side by side.
macro_rules! pages {
    ($($name:ident: $page:literal),* $(,)?) => {
        const PAGES: &[&str] = &[$($page),*];
        $(
            #[tokio::test]
            async fn $name() {
                run($page).await;
            }
        )*
    };
}

pages! {
    the_examples_of_the_readme_run: "README.md",
    the_examples_of_the_api_run: "docs/api.md",
    the_examples_of_chaos_run: "docs/chaos.md",
    the_examples_of_the_command_line_run: "docs/cli.md",
    the_examples_of_contracts_run: "docs/contracts.md",
    the_examples_of_definitions_run: "docs/definitions.md",
    the_examples_of_events_run: "docs/events.md",
    the_examples_of_flow_control_run: "docs/flow-control.md",
    the_examples_of_idempotency_run: "docs/idempotency.md",
    the_examples_of_incidents_run: "docs/incidents.md",
    the_examples_of_ingress_run: "docs/ingress.md",
    the_examples_of_metrics_run: "docs/metrics.md",
    the_examples_of_operations_run: "docs/operations.md",
    the_examples_of_payloads_run: "docs/payloads.md",
    the_examples_of_plans_run: "docs/plans.md",
    the_examples_of_rehearsal_run: "docs/rehearsal.md",
    the_examples_of_schedules_run: "docs/schedules.md",
    the_examples_of_the_sdk_run: "docs/sdk.md",
    the_examples_of_sequence_run: "docs/sequence.md",
    the_examples_of_sql_views_run: "docs/sql-views.md",
    the_examples_of_transactions_run: "docs/transactions.md",
    the_examples_of_transforms_run: "docs/transforms.md",
    the_examples_of_versions_run: "docs/versions.md",
    the_examples_of_why_run: "docs/why.md",
    the_examples_of_the_worker_protocol_run: "docs/worker-protocol.md",
}

#[test]
fn every_page_with_examples_is_run() {
    for page in pages() {
        let has_examples = !blocks(&page).is_empty();
        assert!(
            !has_examples || PAGES.contains(&page.as_str()),
            "{page} has examples; name it in `pages!` in tests/all/documents/mod.rs"
        );
    }
    for page in PAGES {
        assert!(!blocks(page).is_empty(), "{page} has no examples any more");
    }
}

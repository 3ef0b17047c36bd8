//! A standing population: many runs that have ended, and many that wait, in the tables of a stage.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use backstitch_engine::bench;
use backstitch_saga::RunId;
use backstitch_saga::protocol::State;
use backstitch_sdk::Client;

use super::flows::{self, Parcel};
use super::stage::{Ground, Stage};

/// Time that a run may take to come to rest: an idle run leaves the memory after some seconds.
const REST_WITHIN: Duration = Duration::from_secs(60);

/// Number of existing runs.
pub(super) struct Population {
    pub(super) ended: usize,
    pub(super) waiting: usize,
}

impl Population {
    /// Lets one saga end and another wait for its next attempt, over HTTP like any run, and copies what the engine
    /// wrote of them. Returns how many runs of the saga there are now.
    pub(super) async fn settle(&self, ground: &Ground, stage: &Stage) -> anyhow::Result<u64> {
        let client = Client::new(&stage.pairs[0].url)?;
        let saga = flows::saga(false)?;
        let ended = client.start(&saga, &Parcel::new()).wait(Duration::from_secs(30)).await?.id();
        let waiting = flows::waiting()?;
        client.register(&waiting).await?;
        let waits = client.start(&waiting, &Parcel::new()).await?.id();
        until_it_waits(&client, waits).await?;
        copy(&stage.database, ended, self.ended).await?;
        copy(&stage.database, waits, self.waiting).await?;
        ground.rest().await?;
        Ok(u64::try_from(self.ended)? + 1)
    }
}

async fn until_it_waits(client: &Client, run: RunId) -> anyhow::Result<()> {
    for _ in 0..300 {
        if client.run(run).await?.state == State::Waiting {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("run {run} does not wait for its next attempt")
}

async fn copy(database: &str, run: RunId, count: usize) -> anyhow::Result<()> {
    let began = std::time::Instant::now();
    loop {
        match bench::copy_run(database, run, count).await {
            Err(backstitch_engine::Error::Conflict { .. }) => {
                ensure!(began.elapsed() < REST_WITHIN, "run {run} did not come to rest");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            done => return done.with_context(|| format!("run {run} could not be copied")),
        }
    }
}

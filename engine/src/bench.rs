//! Database side of `backstitch bench`: the counters around a load, the floor beside it, a standing
//! population, and scratch databases. Not used by a server.
//!
//! The *floor* is what the same load costs at the least: the journal records that the engine wrote for one run, and its
//! line in `runs` at the start and at the end, written by the engine's own statement in full batches, without rules,
//! HTTP or workers. Milestones and the table `ready` are left out, so the floor is a little better than fair.

mod intake;

use std::time::{Duration, Instant};

use backstitch_saga::RunId;

use crate::Error;
use crate::store::bench::{self, floor, population};

pub use bench::Gauge;
pub use floor::Template;
pub use intake::{
    ByHand, Refused, SECRET, canonical_schema, document, intake_floor, signature, vendor_schema,
};

/// Counters of the PostgreSQL server, to be read before and after a load.
#[derive(Clone, Copy, Debug, Default)]
pub struct Numbers {
    /// Transactions of this database so far. A connection counts its last ones when it ends.
    pub transactions: i64,
    /// Bytes of WAL of the whole server so far.
    pub wal_bytes: i64,
}

/// Settings of the measurement of the floor.
#[derive(Clone, Copy, Debug)]
pub struct FloorOptions {
    /// Connections that commit side by side.
    pub connections: usize,
    /// Records of one batch, each of another run.
    pub batch: usize,
    /// Time of writing, after a tenth of it to warm up.
    pub time: Duration,
}

/// Result of the bare statements.
#[derive(Clone, Copy, Debug, Default)]
pub struct Floor {
    /// Steps that ended, a second.
    pub steps_per_s: f64,
    /// Runs that were written whole, a second.
    pub runs_per_s: f64,
    /// Time of one batch from the statement to the answer after its commit, in milliseconds: the median.
    pub p50_ms: f64,
    /// The same, of the slowest hundredth.
    pub p99_ms: f64,
}

/// Makes an empty database beside `url`; answers its URL. `url` may be of any database of the server.
///
/// # Errors
/// [`Error::Store`] when the name is taken or the server does not let us.
pub async fn make_database(url: &str, name: &str) -> Result<(), Error> {
    bench::make_database(url, name).await
}

/// Drops a database that [`make_database`] made, even if sessions are connected to it.
///
/// # Errors
/// [`Error::Store`].
pub async fn drop_database(url: &str, name: &str) -> Result<(), Error> {
    bench::drop_database(url, name).await
}

/// Writes what `template` says again and again into the migrated scratch database `url`.
///
/// # Errors
/// [`Error::Store`].
pub async fn floor(url: &str, template: &Template, options: FloorOptions) -> Result<Floor, Error> {
    let began = Instant::now();
    let from = began + options.time / 10;
    let until = from + options.time;
    let writers = (0..options.connections.max(1)).map(|_| {
        let (url, template) = (url.to_owned(), template.clone());
        tokio::spawn(async move { floor::write(&url, &template, options.batch, from, until).await })
    });
    let mut total = floor::Written::default();
    for writer in writers.collect::<Vec<_>>() {
        total.add(writer.await.map_err(|error| Error::Bug(error.to_string()))??);
    }
    Ok(total.rate(options.time))
}

/// Makes `count` copies of a run that is at rest, with new ids spread evenly over the last hour: its journal and its
/// row in `runs`. The engine cannot distinguish them from runs of its own.
///
/// # Errors
/// [`Error::Conflict`] with `run_in_charge` while a node still has the run in memory; [`Error::Store`].
pub async fn copy_run(url: &str, run: RunId, count: usize) -> Result<(), Error> {
    population::copy_run(url, run, count).await
}

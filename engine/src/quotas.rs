//! Quotas of namespaces: the ceilings of the operator, and lower limits of their admins. All nodes learn changes within
//! seconds. The use is counted in the database when it is needed, at most once in a few seconds, and updated by what
//! this node adds: with several nodes a quota can be exceeded by what the others add in that time.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use backstitch_saga::protocol::{QuotaSource, QuotaView, Quotas, QuotasView, StartRun};
use backstitch_saga::{By, Time, Timestamp};
use sqlx::Connection;

use crate::crash::commit;
use crate::node::Node;
use crate::store::acts::{self, Act, Thing};
use crate::store::keys;
use crate::store::quotas::{self as table, Counted, QuotasRow};
use crate::{Engine, Error, Reservation};

/// Time for which a count is valid, at least.
const FRESH: Duration = Duration::from_secs(2);
/// Counting may take one part in so many of the time.
const SHARE: u32 = 20;
/// Highest count where there is no limit.
const SHOWN: u32 = 10_000;
/// Number of counts that are kept.
const MOST: usize = 10_000;
/// Delay before a retry for a quota that frees itself.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Quotas that the operator of a server allows namespaces at most.
#[derive(Clone, Debug)]
pub struct Ceilings {
    /// Each namespace.
    pub all: Quotas,
    /// Those named, instead of that.
    pub of: BTreeMap<String, Quotas>,
}

impl Default for Ceilings {
    /// Returns values that a single namespace that uses a whole server does not reach.
    fn default() -> Ceilings {
        let all = Quotas {
            requests_per_second: Some(40_000),
            credential_requests_per_second: Some(20_000),
            starts_per_second: Some(200_000),
            definitions: Some(10_000),
            schedules: Some(10_000),
            early_signals: Some(100_000),
            ..Quotas::default()
        };
        Ceilings { all, of: BTreeMap::new() }
    }
}

impl Ceilings {
    /// Returns the quotas of a namespace.
    fn for_namespace(&self, namespace: &str) -> Quotas {
        self.of.get(namespace).map_or(self.all, |own| own.or(self.all))
    }

    /// Sets one by `NAME=VALUE`, or `NAMESPACE:NAME=VALUE` for one namespace. `none` lifts it.
    ///
    /// # Errors
    /// The mistake in the assignment.
    pub fn set(&mut self, assignment: &str) -> Result<(), String> {
        let (name, value) = assignment
            .split_once('=')
            .ok_or_else(|| format!("'{assignment}' is not NAME=VALUE or NAMESPACE:NAME=VALUE"))?;
        let number = match value {
            "none" => None,
            value => {
                let number = value.parse::<u32>().ok().filter(|number| *number > 0);
                Some(number.ok_or_else(|| {
                    format!("{name}: '{value}' must be a number above 0, or 'none'")
                })?)
            }
        };
        let (quotas, name) = match name.split_once(':') {
            Some((namespace, name)) => (self.of.entry(namespace.to_owned()).or_default(), name),
            None => (&mut self.all, name),
        };
        let quota = quotas.get_mut(name).ok_or_else(|| {
            format!("there is no quota '{name}'; there are {}", Quotas::NAMES.join(", "))
        })?;
        // For one namespace, no limit is said by the largest number: what is left out is that of all.
        *quota = number.or(Some(u32::MAX));
        Ok(())
    }
}

/// A count of something, and what this node has added since.
#[derive(Clone, Copy, Debug)]
struct Sample {
    count: u32,
    until: Instant,
}

/// Quotas that admins of a namespace set.
#[derive(Debug)]
struct Own {
    quotas: Quotas,
    changed_at: Time,
    changed_by: String,
}

/// Quotas, as a node knows them.
#[derive(Debug, Default)]
pub(crate) struct Known {
    set: RwLock<Arc<HashMap<String, Own>>>,
    samples: Mutex<HashMap<(String, Counted), Sample>>,
}

impl Known {
    fn set(&self) -> Arc<HashMap<String, Own>> {
        Arc::clone(&self.set.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes `adding` more of something for granted if a count that is still good says that they fit. `None` when there
    /// is no such count.
    fn fits(&self, key: &(String, Counted), limit: u32, adding: u32) -> Option<bool> {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let sample = samples.get_mut(key).filter(|sample| Instant::now() < sample.until)?;
        let fits = sample.count.saturating_add(adding) <= limit;
        if fits {
            sample.count += adding;
        }
        Some(fits)
    }

    fn remember(&self, key: (String, Counted), count: u32, took: Duration) {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if samples.len() >= MOST {
            samples.retain(|_, sample| now < sample.until);
        }
        if samples.len() < MOST {
            samples.insert(key, Sample { count, until: now + FRESH.max(took * SHARE) });
        }
    }
}

/// Returns the quotas that hold for a namespace.
pub(crate) fn of(node: &Node, namespace: &str) -> Quotas {
    let ceiling = node.options.ceilings.for_namespace(namespace);
    let set = node.quotas.set();
    set.get(namespace).map_or(ceiling, |own| own.quotas.within(ceiling))
}

/// Reads the quotas of all namespaces. Quotas that cannot be read stay as they were.
pub(crate) async fn learn(node: &Node) -> Result<usize, Error> {
    let mut connection = node.database.keepers.acquire().await?;
    let rows = table::all(&mut connection).await?;
    drop(connection);
    let mut set = HashMap::with_capacity(rows.len());
    for QuotasRow { namespace, limits, changed_at, changed_by } in rows {
        match serde_json::from_str(&limits) {
            Ok(quotas) => {
                set.insert(namespace, Own { quotas, changed_at, changed_by });
            }
            // As a newer version may have written them.
            Err(error) => {
                tracing::warn!(namespace, %error, "quotas cannot be read and do not hold");
            }
        }
    }
    let count = set.len();
    *node.quotas.set.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(set);
    Ok(count)
}

fn limit_of(quotas: Quotas, counted: Counted) -> Option<u32> {
    match counted {
        Counted::Runs => quotas.runs,
        Counted::Definitions => quotas.definitions,
        Counted::Schedules => quotas.schedules,
        Counted::EarlySignals => quotas.early_signals,
        Counted::KeptAnswers => quotas.kept_answers,
    }
}

/// Returns the refusal: its code, its message, and the delay before a retry if that can succeed.
fn refusal(counted: Counted, limit: u32) -> Error {
    let (code, what, wait) = match counted {
        Counted::Runs => ("quota_runs", "runs that have not ended", Some(ASK_AGAIN)),
        Counted::Definitions => ("quota_definitions", "versions of workflows", None),
        Counted::Schedules => ("quota_schedules", "schedules", None),
        Counted::EarlySignals => {
            ("quota_early_signals", "signals for runs that are yet to be started", Some(ASK_AGAIN))
        }
        Counted::KeptAnswers => (
            "quota_kept_answers",
            "kept answers to requests with an Idempotency-Key",
            Some(ASK_AGAIN),
        ),
    };
    let message = format!(
        "the namespace may have {limit} {what}; nothing was done (GET /v1/quotas tells what is used)"
    );
    Error::Quota { code, message, retry_after: wait }
}

/// Refuses `adding` more of something when the namespace may not have so many.
pub(crate) async fn check(
    node: &Node,
    namespace: &str,
    counted: Counted,
    adding: u32,
) -> Result<(), Error> {
    let Some(limit) = limit_of(of(node, namespace), counted) else { return Ok(()) };
    if limit == u32::MAX {
        return Ok(());
    }
    let key = (namespace.to_owned(), counted);
    // Rare requests are counted each time.
    let seldom = matches!(counted, Counted::Definitions | Counted::Schedules);
    let known = if seldom { None } else { node.quotas.fits(&key, limit, adding) };
    let fits = match known {
        Some(fits) => fits,
        None => {
            let count = count(node, namespace, counted, limit).await?;
            let fits = count.saturating_add(adding) <= limit;
            // Remembered first: a concurrent request counts on top of this.
            node.quotas.fits(&key, limit, adding).unwrap_or(fits)
        }
    };
    if fits { Ok(()) } else { Err(refusal(counted, limit)) }
}

/// Counts what a namespace has, up to one more than its limit, and remembers it.
async fn count(node: &Node, namespace: &str, counted: Counted, limit: u32) -> Result<u32, Error> {
    let began = Instant::now();
    let mut connection = node.database.reader(namespace).await?;
    let most = i64::from(limit) + 1;
    let count = table::count(&mut connection, namespace, counted, most).await?;
    node.quotas.remember((namespace.to_owned(), counted), count, began.elapsed());
    Ok(count)
}

impl Engine {
    /// Returns the quotas that hold for a namespace. Costs no query.
    #[must_use]
    pub fn quotas(&self, namespace: &str) -> Quotas {
        of(self.node(), namespace)
    }

    /// Returns all quotas of a namespace with what is used, but for what only a server knows.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn quotas_view(&self, namespace: &str) -> Result<QuotasView, Error> {
        let node = self.node();
        let (hold, set) = (of(node, namespace), node.quotas.set());
        let own = set.get(namespace);
        let mut quotas = Vec::with_capacity(Quotas::NAMES.len());
        for name in Quotas::NAMES {
            let limit = hold.get(name).filter(|limit| *limit != u32::MAX);
            let by_namespace = own.is_some_and(|own| own.quotas.get(name) == limit);
            let source = if by_namespace { QuotaSource::Namespace } else { QuotaSource::Server };
            let counted = match name {
                "runs" => Some(Counted::Runs),
                "definitions" => Some(Counted::Definitions),
                "schedules" => Some(Counted::Schedules),
                "early_signals" => Some(Counted::EarlySignals),
                "kept_answers" => Some(Counted::KeptAnswers),
                _ => None,
            };
            let used = match counted {
                Some(counted) => {
                    let key = (namespace.to_owned(), counted);
                    Some(match known(node, &key) {
                        Some(count) => count,
                        None => count(node, namespace, counted, limit.unwrap_or(SHOWN)).await?,
                    })
                }
                None => None,
            };
            let set_by = limit.map(|_| source);
            quotas.push(QuotaView { quota: name.to_owned(), limit, set_by, used });
        }
        Ok(QuotasView {
            quotas,
            changed_at: own.map(|own| Timestamp(own.changed_at)),
            changed_by: own.map(|own| own.changed_by.clone()),
        })
    }

    /// Sets the quotas of a namespace, as a whole. This node knows them immediately, others within
    /// seconds.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn set_quotas(
        &self,
        namespace: &str,
        quotas: Quotas,
        by: &By,
    ) -> Result<QuotasView, Error> {
        let node = self.node();
        let limits =
            serde_json::to_string(&quotas).map_err(|error| Error::Bug(error.to_string()))?;
        let row = QuotasRow {
            namespace: namespace.to_owned(),
            limits,
            changed_at: node.clock.now(),
            changed_by: by.actor.to_string(),
        };
        let mut connection = node.database.gate.acquire().await?;
        let mut transaction = connection.begin().await?;
        table::set(&mut transaction, &row).await?;
        let (thing, at, detail) = (Thing::Quotas, row.changed_at, Some(row.limits.clone()));
        let act = Act { namespace, thing, name: "quotas", at, verb: "set-quotas", by, detail };
        acts::add(&mut transaction, &act).await?;
        commit!("quotas_set", transaction.commit().await)?;
        drop(connection);
        tracing::info!(namespace, actor = %by.actor, quotas = row.limits, "quotas were set");
        learn(node).await?;
        self.quotas_view(namespace).await
    }

    /// Refuses starts of a namespace that has as many runs under way as it may have. Those that have begun a run
    /// before, by their keys or by the ids of a repeated request, are not counted: they are answered with that run.
    ///
    /// # Errors
    /// [`Error::Quota`].
    pub async fn check_runs_quota(
        &self,
        namespace: &str,
        starts: &[StartRun],
        request: Option<&Reservation>,
    ) -> Result<(), Error> {
        let node = self.node();
        let adding = u32::try_from(starts.len()).unwrap_or(u32::MAX);
        let refused = match check(node, namespace, Counted::Runs, adding).await {
            Err(refused @ Error::Quota { .. }) => refused,
            checked => return checked,
        };
        let ids = |index| request.map(|request| request.run_id(index));
        let known = starts
            .iter()
            .enumerate()
            .map(|(index, start)| (start.key.as_deref(), start.workflow.as_str(), ids(index)));
        let known: Vec<_> = known.filter(|(key, _, id)| key.is_some() || id.is_some()).collect();
        if known.is_empty() {
            return Err(refused);
        }
        let mut connection = node.database.reader(namespace).await?;
        let begun = keys::begun(&mut connection, namespace, &known).await?;
        drop(connection);
        match adding.saturating_sub(begun) {
            0 => Ok(()),
            _ if begun == 0 => Err(refused),
            new => check(node, namespace, Counted::Runs, new).await,
        }
    }
}

fn known(node: &Node, key: &(String, Counted)) -> Option<u32> {
    let samples = node.quotas.samples.lock().unwrap_or_else(PoisonError::into_inner);
    samples.get(key).filter(|sample| Instant::now() < sample.until).map(|sample| sample.count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_are_set_for_all_and_for_one() {
        let mut ceilings = Ceilings::default();
        ceilings.set("runs=10").unwrap();
        ceilings.set("noisy:runs=5").unwrap();
        ceilings.set("noisy:schedules=none").unwrap();
        ceilings.set("definitions=none").unwrap();
        let (noisy, other) = (ceilings.for_namespace("noisy"), ceilings.for_namespace("other"));
        assert_eq!((noisy.runs, noisy.schedules), (Some(5), Some(u32::MAX)));
        assert_eq!((other.runs, other.schedules), (Some(10), Some(10_000)));
        assert_eq!((noisy.definitions, noisy.early_signals), (Some(u32::MAX), Some(100_000)));
        for (wrong, why) in [
            ("runs", "is not NAME=VALUE"),
            ("runs=0", "above 0"),
            ("runs=-1", "above 0"),
            ("rums=1", "there is no quota 'rums'"),
            ("a:b:runs=1", "there is no quota 'b:runs'"),
        ] {
            let error = ceilings.set(wrong).unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }

    #[test]
    fn what_this_node_adds_counts_until_the_next_count() {
        let (known, key) = (Known::default(), ("a".to_owned(), Counted::Runs));
        assert_eq!(known.fits(&key, 10, 1), None, "nothing was counted yet");
        known.remember(key.clone(), 7, Duration::ZERO);
        assert_eq!(known.fits(&key, 10, 2), Some(true));
        assert_eq!(known.fits(&key, 10, 2), Some(false));
        assert_eq!(known.fits(&key, 10, 1), Some(true), "what was refused was not added");
        assert_eq!(known.fits(&key, 10, 1), Some(false));
        let other = ("b".to_owned(), Counted::Runs);
        assert_eq!(known.fits(&other, 10, 1), None);
    }
}

//! Token buckets: the number of requests that a holder, such as a namespace or a credential, may send per second.
//! Decided immediately, in memory; nothing waits here.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::Method;

use crate::access::{Caller, Right};

/// A bucket holds as much as flows into it in so many seconds.
const BURST_SECONDS: f64 = 2.0;
/// Number of buckets that are kept while they are not full. A full one is the same as none.
const MOST: usize = 20_000;

/// A bucket that was not full when something was last taken from it.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Number of tokens at that time; below zero if the last request took more than there were.
    tokens: f64,
    at: Instant,
    /// Time at which it is full again, if nothing more is taken.
    full_at: Instant,
}

/// Buckets by their holders.
#[derive(Debug)]
pub(crate) struct Buckets<K>(Mutex<HashMap<K, Bucket>>);

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Buckets(Mutex::new(HashMap::new()))
    }
}

impl<K: Eq + Hash> Buckets<K> {
    /// Takes `cost` from the bucket of `holder`, into which `rate` flows each second. A cost that is larger than the
    /// bucket is given once the bucket is full, and paid for afterwards.
    ///
    /// # Errors
    /// The time until there is as much; nothing is taken.
    pub(crate) fn take(
        &self,
        holder: K,
        rate: u32,
        cost: u32,
        now: Instant,
    ) -> Result<(), Duration> {
        self.take_of(holder, (f64::from(rate), f64::from(rate) * BURST_SECONDS), cost, now)
    }

    /// Takes the same from a bucket that holds `burst`.
    pub(crate) fn take_of(
        &self,
        holder: K,
        (rate, burst): (f64, f64),
        cost: u32,
        now: Instant,
    ) -> Result<(), Duration> {
        let (rate, burst, cost) = (rate.max(0.001), burst.max(1.0), f64::from(cost));
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tokens = buckets.get(&holder).map_or(burst, |bucket| {
            let flown = now.saturating_duration_since(bucket.at).as_secs_f64() * rate;
            (bucket.tokens + flown).min(burst)
        });
        let needed = cost.min(burst);
        if tokens < needed {
            return Err(Duration::from_secs_f64((needed - tokens) / rate));
        }
        let tokens = tokens - cost;
        let full_at = now + Duration::from_secs_f64((burst - tokens) / rate);
        make_room(&mut buckets, now);
        buckets.insert(holder, Bucket { tokens, at: now, full_at });
        Ok(())
    }

    /// Returns whether the bucket of `holder` has as much as `cost`; takes nothing.
    pub(crate) fn has(
        &self,
        holder: &K,
        (rate, burst): (f64, f64),
        cost: f64,
        now: Instant,
    ) -> bool {
        let buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.get(holder).is_none_or(|bucket| {
            let flown = now.saturating_duration_since(bucket.at).as_secs_f64() * rate;
            (bucket.tokens + flown).min(burst) >= cost
        })
    }

    /// Forgets the buckets that are full.
    pub(crate) fn forget_full(&self, now: Instant) {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.retain(|_, bucket| bucket.full_at > now);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// Keeps the number of buckets bounded. If none is full, every second one is forgotten, which harms no holder.
fn make_room<K: Eq + Hash>(buckets: &mut HashMap<K, Bucket>, now: Instant) {
    if buckets.len() < MOST {
        return;
    }
    buckets.retain(|_, bucket| bucket.full_at > now);
    if buckets.len() >= MOST / 2 {
        let mut keep = false;
        buckets.retain(|_, _| {
            keep = !keep;
            keep
        });
    }
}

/// Kinds of requests that do not take from each other's rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// Those of workers.
    Work,
    /// Heartbeats: a worker that claims tasks too often must not lose those that it holds.
    Heartbeat,
    /// Requests that stop something or change limits and credentials: they must succeed while others flood.
    Control,
    /// Checks of the health of the process.
    Health,
    /// Documents of sources.
    Intake,
    /// All others.
    Other,
}

impl Lane {
    /// Returns the lane of a route.
    pub(crate) fn of(method: &Method, path: &str, right: Option<Right>) -> Lane {
        let stops = ["/kill", "/cancel", "/pause", "/stop"].iter().any(|end| path.ends_with(end));
        match right {
            Some(Right::Work) if path == "/v1/tasks/heartbeat" => Lane::Heartbeat,
            Some(Right::Work) => Lane::Work,
            Some(Right::Intake) => Lane::Intake,
            Some(Right::Admin) => Lane::Control,
            Some(Right::Public) if ["/livez", "/readyz"].contains(&path) => Lane::Health,
            _ if stops && method == Method::POST => Lane::Control,
            _ => Lane::Other,
        }
    }
}

/// Number of requests allowed per second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// By a namespace.
    pub(crate) namespace: u32,
    /// By one credential of it.
    pub(crate) credential: u32,
}

/// A credential, or on an open server a name.
type Holder = (Arc<str>, Arc<str>);

/// Use of the rates by namespaces and credentials.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    namespaces: Buckets<(Arc<str>, Lane)>,
    callers: Buckets<(Holder, Lane)>,
    starts: Buckets<Arc<str>>,
    sources: Buckets<Holder>,
}

impl Rates {
    /// Counts a request.
    ///
    /// # Errors
    /// When to ask again.
    pub(crate) fn request(
        &self,
        caller: &Caller,
        lane: Lane,
        rate: Rate,
        now: Instant,
    ) -> Result<(), Duration> {
        let holder = (caller.namespace.clone(), caller.name.clone());
        self.callers.take((holder, lane), rate.credential, 1, now)?;
        self.namespaces.take((caller.namespace.clone(), lane), rate.namespace, 1, now)
    }

    /// Counts starts.
    ///
    /// # Errors
    /// When to ask again.
    pub(crate) fn starts(
        &self,
        namespace: &Arc<str>,
        count: u32,
        rate: u32,
        now: Instant,
    ) -> Result<(), Duration> {
        self.starts.take(namespace.clone(), rate, count, now)
    }

    /// Counts documents of a source.
    ///
    /// # Errors
    /// When to send again.
    pub(crate) fn documents(
        &self,
        source: &Caller,
        count: u32,
        rate: u32,
        now: Instant,
    ) -> Result<(), Duration> {
        let holder = (source.namespace.clone(), source.name.clone());
        self.sources.take(holder, rate, count, now)
    }

    /// Forgets what is as if it had never been asked for.
    pub(crate) fn forget_full(&self, now: Instant) {
        self.namespaces.forget_full(now);
        self.callers.forget_full(now);
        self.starts.forget_full(now);
        self.sources.forget_full(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn taken(buckets: &Buckets<&'static str>, holder: &'static str, now: Instant) -> usize {
        std::iter::repeat_with(|| buckets.take(holder, 10, 1, now))
            .take_while(Result::is_ok)
            .count()
    }

    #[test]
    fn a_burst_of_two_seconds_is_given_and_then_the_rate() {
        let (buckets, began) = (Buckets::default(), Instant::now());
        assert_eq!(taken(&buckets, "a", began), 20);
        let wait = buckets.take("a", 10, 1, began).unwrap_err();
        assert!(wait <= SECOND / 10 && !wait.is_zero(), "{wait:?}");
        assert_eq!(taken(&buckets, "a", began + SECOND), 10);
        assert_eq!(taken(&buckets, "a", began + SECOND * 100), 20);
    }

    #[test]
    fn holders_do_not_take_from_each_other() {
        let (buckets, began) = (Buckets::default(), Instant::now());
        assert_eq!(taken(&buckets, "a", began), 20);
        assert_eq!(taken(&buckets, "b", began), 20);
    }

    #[test]
    fn a_cost_beyond_the_bucket_is_given_once_it_is_full_and_paid_for_afterwards() {
        let (buckets, began) = (Buckets::default(), Instant::now());
        buckets.take("a", 10, 1_000, began).unwrap();
        let wait = buckets.take("a", 10, 1, began).unwrap_err();
        assert!((98.0..=98.2).contains(&wait.as_secs_f64()), "{wait:?}");
        assert!(buckets.take("a", 10, 1, began + SECOND * 97).is_err());
        assert!(buckets.take("a", 10, 1, began + SECOND * 99).is_ok());
        assert!(buckets.take("a", 10, 1_000, began + SECOND * 99).is_err());
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing_away() {
        let (buckets, began) = (Buckets::default(), Instant::now());
        assert_eq!(taken(&buckets, "a", began + SECOND), 20);
        assert_eq!(taken(&buckets, "a", began), 0);
    }

    #[test]
    fn buckets_are_bounded_and_full_ones_forgotten() {
        let (buckets, began) = (Buckets::default(), Instant::now());
        for holder in 0..MOST * 3 {
            buckets.take(holder, 1, 1, began).unwrap();
            assert!(buckets.len() <= MOST, "{}", buckets.len());
        }
        buckets.forget_full(began + SECOND * 2);
        assert_eq!(buckets.len(), 0);
    }

    #[test]
    fn what_stops_things_has_a_lane_of_its_own() {
        let lane = |method, path, right| Lane::of(&method, path, Some(right));
        assert_eq!(lane(Method::POST, "/v1/runs/{id}/kill", Right::Act), Lane::Control);
        assert_eq!(lane(Method::POST, "/v1/jobs/{job}/stop", Right::Act), Lane::Control);
        assert_eq!(lane(Method::DELETE, "/v1/credentials/{name}", Right::Admin), Lane::Control);
        assert_eq!(lane(Method::POST, "/v1/tasks/complete", Right::Work), Lane::Work);
        assert_eq!(lane(Method::POST, "/v1/tasks/heartbeat", Right::Work), Lane::Heartbeat);
        assert_eq!(lane(Method::POST, "/v1/runs", Right::Start), Lane::Other);
        assert_eq!(lane(Method::GET, "/livez", Right::Public), Lane::Health);
        assert_eq!(lane(Method::GET, "/metrics", Right::Public), Lane::Other);
        assert_eq!(lane(Method::GET, "/v1/pause", Right::Read), Lane::Other);
    }
}

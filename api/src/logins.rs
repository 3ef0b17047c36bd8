//! Failed logins: counted, logged together, and bounded for each peer.
//!
//! A secret cannot be guessed, but each unknown one costs a query. A peer that sends too many of them is refused before
//! that. Behind a proxy all clients are one peer: a secret that was recently valid is looked up all the same.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::rates::Buckets;

/// Number of failed logins that a peer may have per second, and in a burst.
pub(crate) const ALLOWED: (f64, f64) = (10.0, 500.0);
/// Time for which a secret counts as valid.
const GOOD_FOR: Duration = Duration::from_secs(3_600);
/// Age of the last use from which it is noted anew.
const NOTED_FOR: Duration = Duration::from_secs(60);
/// Number of valid secrets, and of reported peers, that are kept.
const MOST: usize = 10_000;

/// The address that a request came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

impl Peer {
    /// Returns the address under which it is counted: of IPv6 the network that one host has to itself.
    pub(crate) fn counted(self) -> IpAddr {
        match self.0.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            v4 @ IpAddr::V4(_) => v4,
        }
    }
}

/// Failed logins, as this server knows them.
#[derive(Debug, Default)]
pub(crate) struct Logins {
    peers: Buckets<IpAddr>,
    /// Times at which secrets were last valid, by a hash that only this process can compute. Two with one
    /// hash do no harm.
    good: Mutex<HashMap<u64, Instant>>,
    hasher: RandomState,
    untold: Mutex<HashMap<IpAddr, u64>>,
    failed: AtomicU64,
    refused: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Logins {
    /// Returns whether a secret of this peer is looked up.
    pub(crate) fn may_try(&self, peer: Peer, secret: &str, now: Instant) -> bool {
        let may = self.peers.has(&peer.counted(), ALLOWED, 1.0, now) || self.was_good(secret, now);
        if !may {
            self.refused.fetch_add(1, Ordering::Relaxed);
            self.note(peer);
        }
        may
    }

    fn was_good(&self, secret: &str, now: Instant) -> bool {
        let hash = self.hasher.hash_one(secret);
        lock(&self.good).get(&hash).is_some_and(|at| now.saturating_duration_since(*at) < GOOD_FOR)
    }

    /// Notes that a secret is good.
    pub(crate) fn succeeded(&self, secret: &str, now: Instant) {
        let hash = self.hasher.hash_one(secret);
        let mut good = lock(&self.good);
        match good.get_mut(&hash) {
            Some(at) if now.saturating_duration_since(*at) < NOTED_FOR => {}
            Some(at) => *at = now,
            None => {
                if good.len() >= MOST {
                    good.retain(|_, at| now.saturating_duration_since(*at) < NOTED_FOR);
                }
                if good.len() < MOST {
                    good.insert(hash, now);
                }
            }
        }
    }

    /// Notes that a secret is not known.
    pub(crate) fn failed(&self, peer: Option<Peer>, secret: &str, now: Instant) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        lock(&self.good).remove(&self.hasher.hash_one(secret));
        if let Some(peer) = peer {
            // One that had no more is refused from now on, whatever this answers.
            let _ = self.peers.take_of(peer.counted(), ALLOWED, 1, now);
            self.note(peer);
        }
    }

    fn note(&self, peer: Peer) {
        let mut untold = lock(&self.untold);
        if untold.len() < MOST || untold.contains_key(&peer.0) {
            *untold.entry(peer.0).or_default() += 1;
        }
    }

    /// Logs the failed logins since the last time, in one line, and forgets peers that have all of their share again.
    /// To be called every few seconds.
    pub(crate) fn tell(&self, now: Instant) {
        self.peers.forget_full(now);
        let untold = std::mem::take(&mut *lock(&self.untold));
        let most = untold.iter().max_by_key(|(_, count)| **count);
        let Some((peer, count)) = most else { return };
        let all: u64 = untold.values().sum();
        tracing::warn!(
            failed_logins = all,
            peers = untold.len(),
            most_from = %peer,
            most = count,
            "unknown or revoked credentials were refused"
        );
    }

    /// Returns the number of unknown secrets, and of those that were not looked up.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.failed.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> Peer {
        Peer(text.parse().unwrap())
    }

    #[test]
    fn a_peer_that_fails_too_often_is_refused_and_others_are_not() {
        let (logins, began) = (Logins::default(), Instant::now());
        let bad = peer("10.0.0.1");
        let mut tried = 0;
        while logins.may_try(bad, "unknown", began) {
            logins.failed(Some(bad), "unknown", began);
            tried += 1;
        }
        assert_eq!((tried, logins.counts()), (500, (500, 1)));
        assert!(!logins.may_try(peer("::ffff:10.0.0.1"), "unknown", began), "the same address");
        assert!(logins.may_try(peer("10.0.0.2"), "unknown", began));
        assert!(logins.may_try(bad, "unknown", began + Duration::from_secs(1)));
    }

    #[test]
    fn a_secret_that_was_good_lately_passes_from_a_peer_that_fails() {
        let (logins, began) = (Logins::default(), Instant::now());
        let proxy = peer("10.0.0.1");
        logins.succeeded("good", began);
        while logins.may_try(proxy, "unknown", began) {
            logins.failed(Some(proxy), "unknown", began);
        }
        assert!(logins.may_try(proxy, "good", began));
        logins.failed(Some(proxy), "good", began);
        assert!(!logins.may_try(proxy, "good", began), "it was revoked");
        logins.succeeded("old", began);
        assert!(!logins.may_try(proxy, "other", began));
    }

    #[test]
    fn addresses_of_one_network_of_ipv6_are_one_peer() {
        assert_eq!(peer("2001:db8:1:2::1").counted(), peer("2001:db8:1:2:ffff::9").counted());
        assert_ne!(peer("2001:db8:1:2::1").counted(), peer("2001:db8:1:3::1").counted());
    }

    #[test]
    fn failed_logins_are_told_once() {
        let (logins, now) = (Logins::default(), Instant::now());
        for _ in 0..3 {
            logins.failed(Some(peer("10.0.0.1")), "unknown", now);
        }
        assert_eq!(lock(&logins.untold).values().sum::<u64>(), 3);
        logins.tell(now);
        assert!(lock(&logins.untold).is_empty());
    }
}

//! The places of commands that wait for the shards. Each namespace has its share of them, so that a flood of one is
//! answered `busy` while others find room.
//!
//! The share is the limit divided by the number of namespaces with waiting commands: all of it for one alone. A
//! namespace without waiting commands is never refused, so that with `n` of them no more than about `1 + ln n` times
//! the limit waits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Number of namespaces that are remembered before those without waiting commands are forgotten.
const REMEMBERED: usize = 1_024;

/// The commands that wait, by namespace.
pub(crate) struct Admission {
    limit: usize,
    /// Number of namespaces with waiting commands of callers.
    active: Arc<AtomicUsize>,
    /// Commands that the engine gave itself.
    own: Arc<AtomicUsize>,
    /// Those of them that belong to no namespace that is known.
    engine: Arc<Account>,
    accounts: Mutex<HashMap<Arc<str>, Arc<Account>>>,
}

/// The commands of one namespace that wait.
#[derive(Default)]
pub(crate) struct Account {
    /// Those that callers ask for.
    asked: AtomicUsize,
    /// Those that the engine gives itself.
    own: AtomicUsize,
    /// See [`Admission`].
    active: Arc<AtomicUsize>,
    all_own: Arc<AtomicUsize>,
}

/// The place of a command among those that wait, free again when it is dropped.
pub(crate) struct Place {
    depth: Arc<AtomicUsize>,
    payer: Arc<Account>,
    asked: bool,
}

impl Admission {
    /// Returns room for `limit` commands.
    pub(crate) fn new(limit: usize) -> Admission {
        let (active, own): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
        let engine = Arc::new(Account::new(&active, &own));
        Admission { limit, active, own, engine, accounts: Mutex::default() }
    }

    /// Returns the number of waiting commands of the engine itself.
    pub(crate) fn own(&self) -> usize {
        self.own.load(Ordering::Relaxed)
    }

    /// Returns the number of waiting commands of the engine itself for a namespace.
    pub(crate) fn own_of(&self, namespace: &Arc<str>) -> usize {
        self.account(namespace).own.load(Ordering::Relaxed)
    }

    /// Returns the account of commands that belong to no namespace that is known.
    pub(crate) fn engine(&self) -> &Arc<Account> {
        &self.engine
    }

    /// Returns the account of a namespace.
    pub(crate) fn account(&self, namespace: &Arc<str>) -> Arc<Account> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = accounts.get(namespace) {
            return Arc::clone(account);
        }
        if accounts.len() >= REMEMBERED {
            accounts.retain(|_, account| Arc::strong_count(account) > 1);
        }
        let account = Arc::new(Account::new(&self.active, &self.own));
        accounts.insert(Arc::clone(namespace), Arc::clone(&account));
        account
    }

    /// Counts `count` commands that a caller asks for; `false` when the namespace has its share of what waits already.
    pub(crate) fn admit(&self, account: &Account, count: usize) -> bool {
        let before = account.asked.load(Ordering::Relaxed);
        let active = self.active.load(Ordering::Relaxed);
        let others = active.saturating_sub(usize::from(before > 0));
        let share = self.limit / (others + 1);
        let waiting = before + account.own.load(Ordering::Relaxed);
        if before > 0 && waiting + count > share {
            return false;
        }
        account.enter(true, count);
        true
    }

    /// Returns whether a namespace has so much to do that the engine should give it no more work of its own.
    pub(crate) fn is_loaded(&self, namespace: &Arc<str>) -> bool {
        let account = self.account(namespace);
        let waiting = account.asked.load(Ordering::Relaxed) + account.own.load(Ordering::Relaxed);
        waiting > self.limit / 4
    }
}

impl Account {
    fn new(active: &Arc<AtomicUsize>, all_own: &Arc<AtomicUsize>) -> Account {
        let (active, all_own) = (Arc::clone(active), Arc::clone(all_own));
        Account { active, all_own, ..Account::default() }
    }

    fn side(&self, asked: bool) -> &AtomicUsize {
        if asked { &self.asked } else { &self.own }
    }

    fn enter(&self, asked: bool, count: usize) {
        let before = self.side(asked).fetch_add(count, Ordering::Relaxed);
        if !asked {
            self.all_own.fetch_add(count, Ordering::Relaxed);
        } else if before == 0 && count > 0 {
            self.active.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn leave(&self, asked: bool) {
        let before = self.side(asked).fetch_sub(1, Ordering::Relaxed);
        if !asked {
            self.all_own.fetch_sub(1, Ordering::Relaxed);
        } else if before == 1 {
            self.active.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Place {
    /// Returns the place of a command that was admitted, before the shard that has `depth`.
    pub(crate) fn admitted(depth: &Arc<AtomicUsize>, payer: &Arc<Account>) -> Place {
        depth.fetch_add(1, Ordering::Relaxed);
        Place { depth: Arc::clone(depth), payer: Arc::clone(payer), asked: true }
    }

    /// Returns the place of a command of the engine itself.
    pub(crate) fn own(depth: &Arc<AtomicUsize>, payer: Arc<Account>) -> Place {
        depth.fetch_add(1, Ordering::Relaxed);
        payer.enter(false, 1);
        Place { depth: Arc::clone(depth), payer, asked: false }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.depth.fetch_sub(1, Ordering::Relaxed);
        self.payer.leave(self.asked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Arc<str> {
        text.into()
    }

    /// Returns the places of a namespace's commands: as many of `wanted` as are admitted.
    fn flood(admission: &Admission, namespace: &str, wanted: usize) -> Vec<Place> {
        let (depth, account) = (Arc::default(), admission.account(&name(namespace)));
        let admitted = (0..wanted).take_while(|_| admission.admit(&account, 1));
        admitted.map(|_| Place::admitted(&depth, &account)).collect()
    }

    #[test]
    fn one_namespace_has_all_and_more_share_evenly() {
        let admission = Admission::new(120);
        assert_eq!(flood(&admission, "alone", 1_000).len(), 120);
        let first = flood(&admission, "a", 1_000);
        let second = flood(&admission, "b", 1_000);
        let third = flood(&admission, "c", 1_000);
        assert_eq!((first.len(), second.len(), third.len()), (120, 60, 40));
        drop(first);
        assert_eq!(flood(&admission, "b", 1_000).len(), 0);
        drop((second, third));
        assert_eq!(admission.active.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn one_of_which_nothing_waits_is_never_turned_away() {
        let admission = Admission::new(10);
        let _flood = flood(&admission, "a", 100);
        let calm = admission.account(&name("b"));
        assert!(admission.admit(&calm, 1_000), "whatever it asks for");
        assert!(!admission.admit(&calm, 1));
    }

    #[test]
    fn the_engines_own_commands_turn_nobody_else_away() {
        let admission = Admission::new(10);
        let (depth, account) = (Arc::default(), admission.account(&name("a")));
        let own: Vec<Place> = (0..100).map(|_| Place::own(&depth, Arc::clone(&account))).collect();
        assert_eq!((admission.own(), flood(&admission, "b", 100).len()), (100, 10));
        assert!(admission.is_loaded(&name("a")) && !admission.is_loaded(&name("b")));
        drop(own);
        assert_eq!((admission.own(), depth.load(Ordering::Relaxed)), (0, 0));
    }
}

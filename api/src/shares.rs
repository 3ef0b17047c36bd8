//! Shares of something bounded, such as connections or places to wait: a holder may have as much as remains free for
//! all others, so that no holder can take everything and a new one always finds room.
//!
//! One holder alone gets half of the whole, two get a third each, and so on. It decides immediately and never waits.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A bounded whole that is given out in shares.
#[derive(Debug)]
pub(crate) struct Shares<K: Eq + Hash> {
    total: usize,
    held: Mutex<Held<K>>,
}

#[derive(Debug)]
struct Held<K> {
    sum: usize,
    by_holder: HashMap<K, usize>,
}

/// A share, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share<K: Eq + Hash> {
    shares: Arc<Shares<K>>,
    holder: K,
    size: usize,
}

/// The reason for which a holder gets no share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoShare {
    /// It has as much as it may have.
    Most,
    /// It would have more than stays free.
    Taken,
}

impl<K: Eq + Hash + Clone> Shares<K> {
    /// Returns a whole of `total`, all of it free.
    pub(crate) fn new(total: usize) -> Arc<Shares<K>> {
        Arc::new(Shares { total, held: Mutex::new(Held { sum: 0, by_holder: HashMap::new() }) })
    }

    /// Returns a share of `size` for `holder`; `None` when the holder would have more than stays free. The first share
    /// of a holder is given whenever it fits.
    pub(crate) fn take(self: &Arc<Self>, holder: &K, size: usize) -> Option<Share<K>> {
        self.take_within(holder, size, usize::MAX).ok()
    }

    /// Returns the same for a holder that may have at most `most`.
    ///
    /// # Errors
    /// The reason for which there is none.
    pub(crate) fn take_within(
        self: &Arc<Self>,
        holder: &K,
        size: usize,
        most: usize,
    ) -> Result<Share<K>, NoShare> {
        let mut held = self.lock();
        let has = held.by_holder.get(holder).copied().unwrap_or(0);
        if has.saturating_add(size) > most {
            return Err(NoShare::Most);
        }
        let free = self.total.saturating_sub(held.sum);
        let left = free.checked_sub(size).ok_or(NoShare::Taken)?;
        if has > 0 && has + size > left {
            return Err(NoShare::Taken);
        }
        held.sum += size;
        *held.by_holder.entry(holder.clone()).or_insert(0) += size;
        drop(held);
        Ok(Share { shares: Arc::clone(self), holder: holder.clone(), size })
    }
}

impl<K: Eq + Hash> Shares<K> {
    /// Returns the share of `holder`.
    pub(crate) fn held_by(&self, holder: &K) -> usize {
        self.lock().by_holder.get(holder).copied().unwrap_or(0)
    }

    /// Returns the sum of all shares.
    pub(crate) fn taken(&self) -> usize {
        self.lock().sum
    }

    fn lock(&self) -> MutexGuard<'_, Held<K>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut held = self.shares.lock();
        held.sum -= self.size;
        let holder = &self.holder;
        if let Some(has) = held.by_holder.get_mut(holder) {
            *has -= self.size;
            if *has == 0 {
                held.by_holder.remove(holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_gets_half_and_a_newcomer_always_finds_room() {
        let shares = Shares::new(100);
        let take_all = |holder: &'static str| -> Vec<Share<&'static str>> {
            std::iter::from_fn(|| shares.take(&holder, 1)).collect()
        };
        let first = take_all("first");
        assert_eq!(first.len(), 50);
        let second = take_all("second");
        assert_eq!(second.len(), 25);
        let third = take_all("third");
        assert_eq!(third.len(), 12);
        drop(first);
        assert_eq!(take_all("second").len() + second.len(), 44);
    }

    #[test]
    fn a_holder_has_at_most_what_it_may_have() {
        let shares = Shares::new(100);
        let one = || shares.take_within(&"a", 1, 2);
        let taken = [one().unwrap(), one().unwrap()];
        assert_eq!(one().unwrap_err(), NoShare::Most);
        assert_eq!(shares.take_within(&"b", 99, 100).unwrap_err(), NoShare::Taken);
        drop(taken);
        assert!(one().is_ok());
    }

    #[test]
    fn everything_is_free_again_when_shares_are_dropped() {
        let shares = Shares::new(10);
        let taken: Vec<_> = (0..5).filter_map(|holder| shares.take(&holder, 2)).collect();
        assert_eq!((taken.len(), shares.taken()), (5, 10));
        assert!(shares.take(&9, 1).is_none(), "nothing is free");
        drop(taken);
        assert_eq!((shares.taken(), shares.lock().by_holder.len()), (0, 0));
    }

    #[test]
    fn a_share_larger_than_the_whole_is_never_given() {
        let shares = Shares::new(10);
        assert!(shares.take(&1, 11).is_none());
        assert!(shares.take(&1, 10).is_some());
    }
}

//! Hash tables for keys of which an admitted caller chooses few or none: runs, sessions, queues. They are looked up for
//! every command, so their hash is a fast one, with a new seed in each process.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::LazyLock;

use foldhash::fast::RandomState;

/// A table with a fast hash.
pub(crate) type FastMap<K, V> = HashMap<K, V, RandomState>;
/// A set with a fast hash.
pub(crate) type FastSet<K> = HashSet<K, RandomState>;

/// Returns an empty table with room for `size` keys.
pub(crate) fn map_for<K, V>(size: usize) -> FastMap<K, V> {
    FastMap::with_capacity_and_hasher(size, RandomState::default())
}

/// Returns a number for `text`, unique in this process with high probability.
pub(crate) fn number_of(text: &str) -> u64 {
    static STATE: LazyLock<RandomState> = LazyLock::new(RandomState::default);
    STATE.hash_one(text)
}

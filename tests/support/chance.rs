//! Chance that can be had again: a seed, printed by the test that uses it.

/// A small generator (SplitMix64).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// Returns the seed in `BACKSTITCH_TEST_SEED`, else one from the clock; printed, so that a failure can be had
    /// again.
    #[must_use]
    pub fn seeded() -> Chance {
        let given = std::env::var("BACKSTITCH_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let clock = || uuid::Uuid::now_v7().as_u128() as u64;
        let seed = given.unwrap_or_else(clock);
        println!("BACKSTITCH_TEST_SEED={seed}");
        Chance(seed)
    }

    /// Chance that follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    /// Another stream from the same seed.
    #[must_use]
    pub fn fork(&mut self) -> Chance {
        Chance(self.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// Yes, in so many of a hundred cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// A random generator that many tasks may share and that a test can seed.
///
/// SplitMix64 over one atomic word: each draw is one addition and a mix, never a lock, and the sequence
/// is fixed by the seed as long as the draws come in the same order. It decides *load*, not secrets.
#[derive(Debug, Clone)]
pub struct Rng(Arc<AtomicU64>);

impl Rng {
    /// The same seed gives the same sequence.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seed)))
    }

    /// Seeded from the operating system through the standard library's hasher keys.
    #[must_use]
    pub fn from_entropy() -> Self {
        use std::hash::{BuildHasher, RandomState};
        Self::seeded(RandomState::new().hash_one(0u64))
    }

    /// A generator with a sequence of its own, which the seed of this one fixes too: who draws often does so
    /// without waiting for the others.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::seeded(self.next_u64())
    }

    /// The next 64 random bits.
    #[must_use]
    pub fn next_u64(&self) -> u64 {
        let [draw] = self.draws();
        draw
    }

    /// The next `N` draws, for the price of one.
    #[must_use]
    pub fn draws<const N: usize>(&self) -> [u64; N] {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let step = GOLDEN.wrapping_mul(N as u64);
        // Relaxed: only the value drawn matters, nothing else is published with it.
        let mut state = self.0.fetch_add(step, Ordering::Relaxed);
        [(); N].map(|()| {
            state = state.wrapping_add(GOLDEN);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        })
    }

    /// A number in `0..bound`; 0 when `bound` is 0. Biased by less than `bound / 2^64`.
    #[must_use]
    pub fn below(&self, bound: u64) -> u64 {
        scale(self.next_u64(), bound)
    }
}

/// A draw as a number in `0..bound`, as [`Rng::below`] makes it.
#[must_use]
pub fn scale(draw: u64, bound: u64) -> u64 {
    ((u128::from(draw) * u128::from(bound)) >> 64) as u64
}

impl Default for Rng {
    fn default() -> Self {
        Self::from_entropy()
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn one_seed_is_one_sequence() {
        let (a, b) = (Rng::seeded(7), Rng::seeded(7));
        assert!((0..100).all(|_| a.next_u64() == b.next_u64()));
        assert_ne!(Rng::seeded(7).next_u64(), Rng::seeded(8).next_u64());
    }

    #[test]
    fn several_draws_at_once_are_the_next_ones() {
        let (a, b) = (Rng::seeded(7), Rng::seeded(7));
        assert_eq!(a.draws::<3>(), [(); 3].map(|()| b.next_u64()));
        assert_eq!(a.next_u64(), b.next_u64());
    }

    #[test]
    fn a_fork_goes_its_own_way_and_the_same_every_time() {
        let (a, b) = (Rng::seeded(7), Rng::seeded(7));
        let (fork, same) = (a.fork(), b.fork());
        assert_eq!(fork.next_u64(), same.next_u64());
        assert_ne!(fork.next_u64(), a.next_u64());
    }

    #[test]
    fn below_stays_below_and_reaches_all() {
        let rng = Rng::seeded(1);
        let mut seen = [0u32; 5];
        for _ in 0..1000 {
            seen[rng.below(5) as usize] += 1;
        }
        assert!(seen.iter().all(|&n| n > 100), "{seen:?}");
        assert_eq!(rng.below(0), 0);
    }
}

//! Where a request goes whose hash leads to an endpoint that has more than its share.

use crate::HashBalanceFactor;

/// The bound of one pick.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    /// Running requests that all endpoints together may have, the new one included, at this factor.
    slots: u64,
}

impl Bound {
    /// `active` requests run in the whole cluster.
    pub(super) fn new(factor: HashBalanceFactor, active: u64) -> Self {
        let slots = active
            .saturating_add(1)
            .saturating_mul(u64::from(factor.get()))
            .saturating_add(99)
            / 100;
        Self { slots }
    }

    /// How full an endpoint is that has `active` requests and this share of the weights; above 1 is too full.
    pub(super) fn load(self, active: u64, share: f64) -> f64 {
        let slots = (self.slots as f64 * share).ceil().max(1.0);
        active as f64 / slots
    }
}

/// Endpoints in an order that depends on the hash alone, so that a request that is turned away goes to the same
/// place every time. `order` is room for as many numbers as there are endpoints.
pub(super) fn shuffled(hash: u64, order: &mut [u32]) -> impl Iterator<Item = usize> {
    for (index, place) in order.iter_mut().enumerate() {
        *place = index as u32;
    }
    // As Envoy does: the low half is the seed.
    let mut random = Twister::new(hash as u32);
    (0..order.len()).map(move |at| {
        let left = (order.len() - at) as u32;
        order.swap(at, at + random.below(left) as usize);
        order[at] as usize
    })
}

/// MT19937, whose numbers are the same everywhere.
struct Twister {
    state: [u32; SIZE],
    next: usize,
}

const SIZE: usize = 624;
const SHIFT: usize = 397;

impl Twister {
    fn new(seed: u32) -> Self {
        let mut state = [seed; SIZE];
        for index in 1..SIZE {
            let before = state[index - 1];
            state[index] = 1_812_433_253u32
                .wrapping_mul(before ^ (before >> 30))
                .wrapping_add(index as u32);
        }
        Self { state, next: SIZE }
    }

    fn twist(&mut self) {
        for index in 0..SIZE {
            let joined =
                (self.state[index] & 0x8000_0000) | (self.state[(index + 1) % SIZE] & 0x7fff_ffff);
            let odd = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[index] = self.state[(index + SHIFT) % SIZE] ^ (joined >> 1) ^ odd;
        }
        self.next = 0;
    }

    fn number(&mut self) -> u32 {
        if self.next == SIZE {
            self.twist();
        }
        let mut number = self.state[self.next];
        self.next += 1;
        number ^= number >> 11;
        number ^= (number << 7) & 0x9d2c_5680;
        number ^= (number << 15) & 0xefc6_0000;
        number ^ (number >> 18)
    }

    /// Below `bound`, each with the same chance.
    fn below(&mut self, bound: u32) -> u32 {
        let width = (1u64 << 32) / u64::from(bound.max(1));
        loop {
            let number = u64::from(self.number()) / width;
            if number < u64::from(bound.max(1)) {
                return number as u32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Bound, Twister, shuffled};
    use crate::HashBalanceFactor;

    #[test]
    fn the_generator_is_the_one_that_everybody_has() {
        // What C++ promises: the 10,000th number of a default std::mt19937.
        let mut random = Twister::new(5489);
        let last = (0..10_000).map(|_| random.number()).last();
        assert_eq!(last, Some(4_123_659_995));
    }

    #[test]
    fn an_order_has_everybody_once_and_depends_on_the_hash() {
        let order = |hash| -> Vec<usize> { shuffled(hash, &mut [0; 20]).collect() };
        let mut sorted = order(1);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..20).collect::<Vec<_>>());
        assert_eq!(order(1), order(1 | 1 << 40), "the low half is what counts");
        assert_ne!(order(1), order(2));
    }

    #[test]
    fn a_bound_is_rounded_up_and_never_nothing() {
        let bound = |factor, active| Bound::new(HashBalanceFactor::new(factor).unwrap(), active);
        // 11 requests at 150 % are 17 slots; half of them are 9.
        assert_eq!(bound(150, 10).load(9, 0.5), 1.0);
        assert!(bound(150, 10).load(10, 0.5) > 1.0);
        assert_eq!(bound(100, 0).load(1, 0.001), 1.0);
    }
}

use super::{
    Members,
    hash::{Spread, hash, key},
};
use crate::RingHashConfig;

/// Endpoints on a ring of hashes, each in as many places as its weight says; a request goes to the first
/// place at or after its own hash.
///
/// # Envoy
/// `envoy.load_balancing_policies.ring_hash`
#[derive(Debug)]
pub(super) struct Ring {
    /// By hash.
    places: Vec<(u64, u32)>,
}

impl Ring {
    /// `shares` are the members' weights as parts of 1.
    pub(super) fn new(
        config: RingHashConfig,
        members: &Members<'_>,
        shares: &[f64],
    ) -> (Self, Spread) {
        let least = shares.iter().copied().fold(1.0, f64::min);
        // The lightest endpoint has a whole number of places, unless that makes the ring too large.
        let sizes = config.sizes;
        let scale = (least * sizes.minimum() as f64).ceil() / least;
        let scale = scale.min(sizes.maximum() as f64);
        let mut places = Vec::with_capacity(scale.ceil() as usize);
        let mut spread = Spread::default();
        let (mut placed, mut target) = (0.0, 0.0);
        let mut name = Vec::new();
        for (index, share) in shares.iter().enumerate() {
            let key = key(members.get(index), config.use_hostname_for_hashing);
            target += scale * share;
            let mut number = 0u64;
            while placed < target {
                name.clear();
                name.extend_from_slice(key.as_bytes());
                name.push(b'_');
                name.extend_from_slice(number.to_string().as_bytes());
                places.push((hash(config.hash_function, &name), index as u32));
                number += 1;
                placed += 1.0;
            }
            spread.count(number);
        }
        spread.size = places.len() as u64;
        places.sort_unstable();
        (Self { places }, spread)
    }

    /// `skipped` is how many picks for the same request were put back before.
    pub(super) fn pick(&self, hash: u64, skipped: u32) -> usize {
        let found = self.places.partition_point(|(place, _)| *place < hash);
        let first = if found < self.places.len() { found } else { 0 };
        let place = (first + skipped as usize) % self.places.len().max(1);
        self.places
            .get(place)
            .map_or(0, |(_, index)| *index as usize)
    }
}

use mesh_core::Endpoint;
use xxhash_rust::xxh64::xxh64;

use crate::HashFunction;

/// What an endpoint is known by on a ring or in a table.
///
/// # Envoy
/// `hash_key` in the metadata, else the hostname where that is asked for, else the address
pub(super) fn key(endpoint: &Endpoint, use_hostname: bool) -> &str {
    match endpoint
        .metadata
        .get("hash_key")
        .filter(|key| !key.is_empty())
    {
        Some(key) => key,
        None if use_hostname => &endpoint.hostname,
        None => endpoint.state.address_text(),
    }
}

/// How evenly a table is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spread {
    /// How many places it has.
    pub(crate) size: u64,
    /// The fewest that an endpoint has.
    pub(crate) least: u64,
    /// The most.
    pub(crate) most: u64,
}

impl Default for Spread {
    fn default() -> Self {
        Self {
            size: 0,
            least: u64::MAX,
            most: 0,
        }
    }
}

impl Spread {
    /// One more endpoint, which has so many.
    pub(super) fn count(&mut self, places: u64) {
        self.least = self.least.min(places);
        self.most = self.most.max(places);
    }
}

pub(super) fn hash(function: HashFunction, bytes: &[u8]) -> u64 {
    match function {
        HashFunction::XxHash => xxh64(bytes, 0),
        HashFunction::MurmurHash2 => murmur_hash_2(bytes),
    }
}

/// MurmurHash64A with the seed of libstdc++'s `std::hash`, which other ring hashes use.
fn murmur_hash_2(bytes: &[u8]) -> u64 {
    const SEED: u64 = 0xc70f_6907;
    const MUL: u64 = 0xc6a4_a793_5bd1_e995;
    let mix = |v: u64| v ^ (v >> 47);
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(MUL);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let data = mix(u64::from_le_bytes(*word).wrapping_mul(MUL)).wrapping_mul(MUL);
        hash = (hash ^ data).wrapping_mul(MUL);
    }
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(MUL);
    }
    mix(mix(hash).wrapping_mul(MUL))
}

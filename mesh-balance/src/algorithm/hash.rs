use std::borrow::Cow;

use mesh_core::Endpoint;
use xxhash_rust::xxh64::xxh64;

use crate::HashFunction;

/// What an endpoint is known by on a ring or in a table.
///
/// # Envoy
/// `hash_key` in the metadata, else the hostname where that is asked for, else the address
pub(super) fn key(endpoint: &Endpoint, use_hostname: bool) -> Cow<'_, str> {
    match endpoint.metadata.get("hash_key") {
        Some(key) => Cow::Borrowed(key),
        None if use_hostname => Cow::Borrowed(&endpoint.hostname),
        None => Cow::Owned(endpoint.address().to_string()),
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

//! One property of a connection: what was asked for, most specific first, and the next property below.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashMap},
    hash::Hash,
    net::IpAddr,
};

use mesh_core::Cidr;

/// A property that is equal or not.
#[derive(Debug, Clone)]
pub(super) struct Exact<K, T> {
    named: HashMap<K, T>,
    any: Option<Box<T>>,
}

impl<K, T> Default for Exact<K, T> {
    fn default() -> Self {
        Self {
            named: HashMap::new(),
            any: None,
        }
    }
}

impl<K: Eq + Hash + Clone, T: Default> Exact<K, T> {
    pub(super) fn entry(&mut self, key: Option<&K>) -> &mut T {
        match key {
            Some(key) => self.named.entry(key.clone()).or_default(),
            None => self.any.get_or_insert_default(),
        }
    }

    pub(super) fn named<Q>(&self, key: &Q) -> Option<&T>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.named.get(key)
    }

    pub(super) fn any(&self) -> Option<&T> {
        self.any.as_deref()
    }

    pub(super) fn find<Q>(&self, key: &Q) -> Option<&T>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.named(key).or_else(|| self.any())
    }
}

/// An address: the longest prefix wins.
#[derive(Debug, Clone)]
pub(super) struct Prefixes<T> {
    /// By address family and length; then by the bits that count.
    lengths: BTreeMap<(Family, u8), HashMap<u128, T>>,
    any: Option<Box<T>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    V4,
    V6,
}

impl<T> Default for Prefixes<T> {
    fn default() -> Self {
        Self {
            lengths: BTreeMap::new(),
            any: None,
        }
    }
}

impl<T: Default> Prefixes<T> {
    pub(super) fn entry(&mut self, range: Option<&Cidr>) -> &mut T {
        let Some(range) = range else {
            return self.any.get_or_insert_default();
        };
        let (family, bits) = bits(range.network(), range.prefix());
        let level = self.lengths.entry((family, range.prefix())).or_default();
        level.entry(bits).or_default()
    }

    pub(super) fn find(&self, address: IpAddr) -> Option<&T> {
        let family = if address.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        };
        let lengths = self.lengths.range((family, 0)..=(family, u8::MAX)).rev();
        let found = lengths
            .filter_map(|((_, length), level)| level.get(&bits(address, *length).1))
            .next();
        found.or(self.any.as_deref())
    }
}

/// The first `length` bits of an address, the others zero.
fn bits(address: IpAddr, length: u8) -> (Family, u128) {
    let mask = |width: u8| {
        u128::MAX
            .checked_shl(u32::from(width.saturating_sub(length)))
            .unwrap_or(0)
    };
    match address {
        IpAddr::V4(address) => (Family::V4, u128::from(address.to_bits()) & mask(32)),
        IpAddr::V6(address) => (Family::V6, address.to_bits() & mask(128)),
    }
}

//! Of policies that keep requests and endpoints together.

/// Envoy: `Cluster.RingHashLbConfig`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RingHashConfig {
    /// How many places the ring has.
    pub sizes: RingSizes,
    /// What endpoints are placed by. `hash_function`.
    pub hash_function: HashFunction,
    /// Whether endpoints are known by hostname rather than by address. Default: no.
    /// `use_hostname_for_hashing`.
    pub use_hostname_for_hashing: bool,
}

/// The bounds of a ring's size. A ring takes 16 bytes a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingSizes {
    minimum: u64,
    maximum: u64,
}

/// A ring may not have more places.
pub const RING_SIZE_MAX: u64 = 8 * 1024 * 1024;

/// Bounds that exclude each other, or are out of bounds themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "ring sizes must lie within 1 and {RING_SIZE_MAX}, the minimum below the maximum, not {minimum} and {maximum}"
)]
pub struct InvalidRingSizes {
    minimum: u64,
    maximum: u64,
}

impl RingSizes {
    /// At least `minimum` places if no more than `maximum`; more places share more evenly. By default
    /// 1,024 and [`RING_SIZE_MAX`]. Envoy: `minimum_ring_size`, `maximum_ring_size`.
    ///
    /// # Errors
    /// When they are 0, above [`RING_SIZE_MAX`], or in the wrong order.
    pub const fn new(minimum: u64, maximum: u64) -> Result<Self, InvalidRingSizes> {
        if minimum == 0 || minimum > maximum || maximum > RING_SIZE_MAX {
            Err(InvalidRingSizes { minimum, maximum })
        } else {
            Ok(Self { minimum, maximum })
        }
    }

    /// The lower bound, at least 1.
    #[must_use]
    pub const fn minimum(self) -> u64 {
        self.minimum
    }

    /// The upper bound, at most [`RING_SIZE_MAX`].
    #[must_use]
    pub const fn maximum(self) -> u64 {
        self.maximum
    }
}

impl Default for RingSizes {
    fn default() -> Self {
        Self {
            minimum: 1024,
            maximum: RING_SIZE_MAX,
        }
    }
}

/// Envoy: `HashFunction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HashFunction {
    /// xxHash64. `XX_HASH`.
    #[default]
    XxHash,
    /// MurmurHash64A, as libstdc++'s `std::hash` has it. `MURMUR_HASH_2`.
    MurmurHash2,
}

/// Envoy: `Cluster.MaglevLbConfig`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MaglevConfig {
    /// How many slots the table has. `table_size`.
    pub table_size: TableSize,
    /// Whether endpoints are known by hostname rather than by address. Default: no.
    /// `use_hostname_for_hashing`.
    pub use_hostname_for_hashing: bool,
}

/// The slots of a Maglev table: a prime number up to [`TABLE_SIZE_MAX`], by default 65,537. It takes 4 bytes a
/// slot; it should be much larger than the number of endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableSize(u32);

/// A Maglev table may not have more slots.
pub const TABLE_SIZE_MAX: u32 = 5_000_011;

/// A number of slots that is not prime, or too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the size of a maglev table must be a prime number up to {TABLE_SIZE_MAX}, not {0}")]
pub struct InvalidTableSize(u32);

impl TableSize {
    /// So many slots.
    ///
    /// # Errors
    /// When `size` is no prime number, or above [`TABLE_SIZE_MAX`].
    pub const fn new(size: u32) -> Result<Self, InvalidTableSize> {
        if size <= TABLE_SIZE_MAX && is_prime(size) {
            Ok(Self(size))
        } else {
            Err(InvalidTableSize(size))
        }
    }

    /// The number, at least 2.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

const fn is_prime(number: u32) -> bool {
    let mut divisor = 2;
    while divisor * divisor <= number {
        if number.is_multiple_of(divisor) {
            return false;
        }
        divisor += 1;
    }
    number >= 2
}

impl Default for TableSize {
    fn default() -> Self {
        Self(65_537)
    }
}

/// How much more than its share of the running requests an endpoint may have, in percent: at least 100. At 150
/// none gets more than one and a half times the average.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashBalanceFactor(u32);

/// A factor below 100 percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("hash_balance_factor must be at least 100, not {0}")]
pub struct InvalidHashBalanceFactor(u32);

impl HashBalanceFactor {
    /// So many percent.
    ///
    /// # Errors
    /// When `percent` is below 100: not everybody can have less than the average.
    pub const fn new(percent: u32) -> Result<Self, InvalidHashBalanceFactor> {
        if percent < 100 {
            Err(InvalidHashBalanceFactor(percent))
        } else {
            Ok(Self(percent))
        }
    }

    /// The percent, at least 100.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

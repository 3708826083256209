use std::fmt;

use crate::runtime::RuntimeKey;

/// A share between 0 and 100 percent, as Envoy's `type.v3.Percent`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Percent(f64);

/// A percentage outside 0 to 100, or not a number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InvalidPercent(f64);

impl fmt::Display for InvalidPercent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not a percentage between 0 and 100", self.0)
    }
}

impl std::error::Error for InvalidPercent {}

impl Percent {
    /// 0 percent.
    pub const ZERO: Self = Self(0.0);
    /// 100 percent.
    pub const HUNDRED: Self = Self(100.0);

    /// A percentage; `value` runs from 0 to 100.
    ///
    /// # Errors
    /// When `value` is outside that range or not a number.
    pub fn new(value: f64) -> Result<Self, InvalidPercent> {
        if (0.0..=100.0).contains(&value) {
            Ok(Self(value))
        } else {
            Err(InvalidPercent(value))
        }
    }

    /// A whole percentage; more than 100 is read as 100.
    #[must_use]
    pub const fn whole(value: u8) -> Self {
        Self(if value > 100 { 100.0 } else { value as f64 })
    }

    /// The value between 0 and 100.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }

    /// The value between 0 and 1.
    #[must_use]
    pub const fn fraction(self) -> f64 {
        self.0 / 100.0
    }
}

/// A share written as a fraction, as Envoy's `type.v3.FractionalPercent`: numerator over 100, 10,000 or 1,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FractionalPercent {
    numerator: u32,
    denominator: u32,
}

impl FractionalPercent {
    /// Never.
    pub const ZERO: Self = Self {
        numerator: 0,
        denominator: 100,
    };
    /// Always.
    pub const HUNDRED: Self = Self {
        numerator: 100,
        denominator: 100,
    };

    /// `numerator` percent; more than 100 means always.
    #[must_use]
    pub const fn percent(numerator: u32) -> Self {
        Self {
            numerator,
            denominator: 100,
        }
    }

    /// `numerator` in ten thousand.
    #[must_use]
    pub const fn ten_thousandth(numerator: u32) -> Self {
        Self {
            numerator,
            denominator: 10_000,
        }
    }

    /// `numerator` in a million.
    #[must_use]
    pub const fn millionth(numerator: u32) -> Self {
        Self {
            numerator,
            denominator: 1_000_000,
        }
    }

    /// The same, or less if the numerator is larger than this.
    #[must_use]
    pub const fn at_most(self, numerator: u32) -> Self {
        Self {
            numerator: if numerator < self.numerator {
                numerator
            } else {
                self.numerator
            },
            denominator: self.denominator,
        }
    }

    /// Whether `random` falls into the share. The same number gives the same answer, as Envoy's
    /// `featureEnabled` with a stable random value.
    #[must_use]
    pub const fn includes(self, random: u64) -> bool {
        random % (self.denominator as u64) < self.numerator as u64
    }

    /// What is counted.
    #[must_use]
    pub const fn numerator(self) -> u32 {
        self.numerator
    }

    /// Of how many: 100, 10,000 or 1,000,000.
    #[must_use]
    pub const fn denominator(self) -> u32 {
        self.denominator
    }

    /// The value between 0 and 1 (or above, when the numerator exceeds the denominator).
    #[must_use]
    pub fn fraction(self) -> f64 {
        f64::from(self.numerator) / f64::from(self.denominator)
    }
}

/// A share that a runtime key may override, as Envoy's `core.v3.RuntimeFractionalPercent`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeFraction {
    /// The share when the runtime says nothing.
    pub default: FractionalPercent,
    /// The runtime key that overrides it.
    pub runtime_key: Option<RuntimeKey>,
}

impl RuntimeFraction {
    /// Without a runtime key.
    #[must_use]
    pub const fn fixed(default: FractionalPercent) -> Self {
        Self {
            default,
            runtime_key: None,
        }
    }

    /// With a runtime key.
    #[must_use]
    pub const fn keyed(default: FractionalPercent, key: RuntimeKey) -> Self {
        Self {
            default,
            runtime_key: Some(key),
        }
    }

    /// The share that counts at this moment.
    #[must_use]
    pub fn now(&self) -> FractionalPercent {
        let key = self.runtime_key.as_ref();
        key.and_then(RuntimeKey::fraction).unwrap_or(self.default)
    }

    /// Whether `random` falls into the share that counts at this moment.
    #[must_use]
    pub fn includes(&self, random: u64) -> bool {
        self.now().includes(random)
    }
}

#[cfg(test)]
mod tests {
    use super::{FractionalPercent, Percent};

    #[test]
    fn percent_refuses_what_is_outside() {
        assert!(Percent::new(100.0).is_ok());
        assert!(Percent::new(100.1).is_err());
        assert!(Percent::new(-0.1).is_err());
        assert!(Percent::new(f64::NAN).is_err());
    }

    #[test]
    fn fraction_includes_exactly_its_share() {
        let quarter = FractionalPercent::ten_thousandth(2_500);
        assert_eq!((0..10_000).filter(|&n| quarter.includes(n)).count(), 2_500);
        assert!(!FractionalPercent::ZERO.includes(0));
        assert!(FractionalPercent::HUNDRED.includes(99));
    }
}

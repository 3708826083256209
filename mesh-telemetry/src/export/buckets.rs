use std::{fmt, sync::Arc};

/// Envoy's default bounds of histogram buckets, in the stat's own unit (mostly milliseconds).
const BOUNDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// Bounds of one histogram at most; more are refused.
pub const BOUNDS_MAX: usize = 1_000;

/// A test on a stat's name.
#[derive(Clone)]
pub struct NameTest(Arc<dyn Fn(&str) -> bool + Send + Sync>);

impl NameTest {
    /// Whatever a function says.
    pub fn new(test: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(test))
    }

    pub(super) fn holds(&self, name: &str) -> bool {
        (self.0)(name)
    }
}

impl fmt::Debug for NameTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NameTest")
    }
}

/// The bounds of histograms' buckets, by name. The default is Envoy's for all.
///
/// # Envoy
/// `Bootstrap.stats_config.histogram_bucket_settings`.
#[derive(Debug, Clone, Default)]
pub struct Buckets(Vec<(NameTest, Arc<[f64]>)>);

impl Buckets {
    /// Adds bounds for the histograms that `test` holds for and no earlier one did. They are sorted here,
    /// and equal ones put together.
    ///
    /// # Errors
    /// When there are none or more than [`BOUNDS_MAX`], or one is not above zero.
    pub fn add(&mut self, test: NameTest, bounds: &[f64]) -> Result<(), InvalidBounds> {
        if bounds.is_empty() || bounds.len() > BOUNDS_MAX {
            return Err(InvalidBounds::Count(bounds.len()));
        }
        if let Some(&wrong) = bounds.iter().find(|b| !(b.is_finite() && **b > 0.0)) {
            return Err(InvalidBounds::Bound(wrong));
        }
        let mut bounds = bounds.to_vec();
        bounds.sort_by(f64::total_cmp);
        bounds.dedup();
        self.0.push((test, bounds.into()));
        Ok(())
    }

    /// The upper bounds for a histogram, ascending.
    #[must_use]
    pub fn bounds(&self, name: &str) -> &[f64] {
        let own = self.0.iter().find(|(test, _)| test.holds(name));
        own.map_or(&BOUNDS[..], |(_, bounds)| bounds)
    }
}

/// Bounds that make no sense.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum InvalidBounds {
    /// None, or too many.
    Count(usize),
    /// One that is not above zero.
    Bound(f64),
}

impl fmt::Display for InvalidBounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(n) => write!(f, "{n} buckets, of which there may be 1 to {BOUNDS_MAX}"),
            Self::Bound(bound) => write!(f, "a bucket ends at {bound}, which is not above 0"),
        }
    }
}

impl std::error::Error for InvalidBounds {}

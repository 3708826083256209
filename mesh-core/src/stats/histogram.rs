use std::sync::atomic::{AtomicU64, Ordering};

/// Decades beyond the first hundred values that keep two significant digits.
const DECADES: usize = 10;
/// 0 to 99 exactly, then 90 buckets for each decade.
const BUCKETS: usize = 100 + 90 * DECADES;

/// Log-linear buckets of two significant decimal digits: 0 to 99 are exact, 100 to 990 go by tens, and
/// so on, so that the usual decimal bounds (5, 25, 250, 1000, …) fall between buckets. Values beyond the
/// last bucket count in it.
#[derive(Debug)]
pub(super) struct Cells {
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Default for Cells {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }
}

impl Cells {
    pub(super) fn record(&self, value: u64) {
        self.buckets[bucket(value)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    pub(super) fn reset(&self) {
        self.buckets
            .iter()
            .for_each(|bucket| bucket.store(0, Ordering::Relaxed));
        self.sum.store(0, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> HistogramSnapshot {
        let buckets: Vec<(u64, u64)> = self
            .buckets
            .iter()
            .enumerate()
            .map(|(i, n)| (lower_bound(i), n.load(Ordering::Relaxed)))
            .filter(|(_, n)| *n > 0)
            .collect();
        HistogramSnapshot {
            count: buckets.iter().map(|(_, n)| n).sum(),
            sum: self.sum.load(Ordering::Relaxed),
            buckets,
        }
    }
}

fn bucket(value: u64) -> usize {
    if value < 100 {
        return value as usize;
    }
    let exponent = value.ilog10() as usize - 1;
    if exponent > DECADES {
        return BUCKETS - 1;
    }
    let mantissa = (value / 10u64.pow(exponent as u32)) as usize;
    100 + (exponent - 1) * 90 + mantissa - 10
}

fn lower_bound(bucket: usize) -> u64 {
    if bucket < 100 {
        return bucket as u64;
    }
    let (exponent, mantissa) = ((bucket - 100) / 90 + 1, (bucket - 100) % 90 + 10);
    mantissa as u64 * 10u64.pow(exponent as u32)
}

/// A histogram at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// How many values were recorded.
    pub count: u64,
    /// Their sum.
    pub sum: u64,
    /// The lower bound of each bucket that is not empty, and how many values fell into it, ascending.
    /// A bucket holds two significant digits.
    pub buckets: Vec<(u64, u64)>,
}

impl HistogramSnapshot {
    /// The value below which `quantile` (0 to 1) of the values lie; `None` without values.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        let rank = (quantile.clamp(0.0, 1.0) * self.count as f64)
            .ceil()
            .max(1.0) as u64;
        let mut seen = 0;
        self.buckets.iter().find_map(|&(bound, n)| {
            seen += n;
            (seen >= rank).then_some(bound as f64)
        })
    }

    /// How many values are at most `bound`, as Prometheus' `le`; exact to two significant digits.
    #[must_use]
    pub fn at_most(&self, bound: f64) -> u64 {
        self.buckets
            .iter()
            .take_while(|(lower, _)| *lower as f64 <= bound)
            .map(|(_, n)| n)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::{BUCKETS, Cells, bucket, lower_bound};

    #[test]
    fn every_bucket_holds_its_lower_bound_and_what_is_below_the_next() {
        for i in 0..BUCKETS {
            assert_eq!(bucket(lower_bound(i)), i, "bucket {i}");
            if i + 1 < BUCKETS {
                assert_eq!(bucket(lower_bound(i + 1) - 1), i);
            }
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_and_cumulative_counts_are_those_of_the_values() {
        let cells = Cells::default();
        (1..=100).for_each(|v| cells.record(v));
        let snapshot = cells.snapshot();
        assert_eq!((snapshot.count, snapshot.sum), (100, 5050));
        assert_eq!(snapshot.quantile(0.5), Some(50.0));
        assert_eq!(snapshot.quantile(0.99), Some(99.0));
        assert_eq!(snapshot.quantile(1.0), Some(100.0));
        assert_eq!((snapshot.at_most(25.0), snapshot.at_most(0.5)), (25, 0));
        cells.reset();
        assert_eq!(cells.snapshot().quantile(0.5), None);
    }
}

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

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
    rolls: Mutex<Rolls>,
}

/// What [`Cells::roll`] has seen: of small histograms a few entries, in the worst case a thousand.
#[derive(Debug, Default)]
struct Rolls {
    /// Everything at the last roll.
    before: Distribution,
    /// What was recorded between the last two.
    interval: Distribution,
}

impl Default for Cells {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
            rolls: Mutex::default(),
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
        *self.rolls() = Rolls::default();
    }

    /// Ends an interval, and begins the next.
    pub(super) fn roll(&self) {
        let mut rolls = self.rolls();
        let now = self.total();
        rolls.interval = now.since(&rolls.before);
        rolls.before = now;
    }

    pub(super) fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot {
            total: self.total(),
            interval: self.rolls().interval.clone(),
        }
    }

    fn rolls(&self) -> MutexGuard<'_, Rolls> {
        self.rolls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn total(&self) -> Distribution {
        let buckets: Vec<(u64, u64)> = self
            .buckets
            .iter()
            .enumerate()
            .map(|(i, n)| (lower_bound(i), n.load(Ordering::Relaxed)))
            .filter(|(_, n)| *n > 0)
            .collect();
        Distribution {
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
    /// Everything since the start.
    pub total: Distribution,
    /// What was recorded in the last whole interval; see [`Registry::roll`](super::Registry::roll).
    pub interval: Distribution,
}

/// Recorded values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Distribution {
    /// How many values were recorded.
    pub count: u64,
    /// Their sum.
    pub sum: u64,
    /// The lower bound of each bucket that is not empty, and how many values fell into it, ascending.
    /// A bucket holds two significant digits.
    pub buckets: Vec<(u64, u64)>,
}

impl Distribution {
    /// The value below which `quantile` (0 to 1) of the values lie, as Envoy works it out: the values of a
    /// bucket are taken to be spread evenly over its [`bucket_width`]. `None` without values.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        let rank = (quantile.clamp(0.0, 1.0) * self.count as f64)
            .ceil()
            .max(1.0) as u64;
        let mut seen = 0;
        self.buckets.iter().find_map(|&(bound, n)| {
            let place = rank.saturating_sub(seen);
            seen += n;
            let spread = bucket_width(bound) * (place as f64 / (n + 1) as f64);
            (seen >= rank).then_some(bound as f64 + spread)
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

    /// What was recorded after `before`, an earlier moment of the same histogram. If there is less than
    /// before, it was reset meanwhile, and everything is new.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        if self.count < before.count {
            return self.clone();
        }
        let known = |bound| {
            let at = before.buckets.binary_search_by_key(&bound, |(b, _)| *b);
            at.map_or(0, |at| before.buckets[at].1)
        };
        let new = self.buckets.iter();
        let buckets: Vec<(u64, u64)> = new
            .map(|&(bound, n)| (bound, n.saturating_sub(known(bound))))
            .filter(|(_, n)| *n > 0)
            .collect();
        Self {
            count: buckets.iter().map(|(_, n)| n).sum(),
            sum: self.sum.saturating_sub(before.sum),
            buckets,
        }
    }
}

/// How wide the bucket is that begins at this value, as Envoy's: 0 is exact, 1 to 9 are a tenth wide, 10 to
/// 99 one, 100 to 990 ten, and so on.
#[must_use]
pub fn bucket_width(lower_bound: u64) -> f64 {
    match lower_bound {
        0 => 0.0,
        1..10 => 0.1,
        _ => 10u64.pow(lower_bound.ilog10() - 1) as f64,
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
        let all = cells.snapshot().total;
        assert_eq!((all.count, all.sum), (100, 5050));
        assert_eq!(all.quantile(0.5), Some(50.5));
        assert_eq!(all.quantile(0.99), Some(99.5));
        assert_eq!(all.quantile(1.0), Some(105.0));
        assert_eq!((all.at_most(25.0), all.at_most(0.5)), (25, 0));
        cells.reset();
        assert_eq!(cells.snapshot().total.quantile(0.5), None);
    }

    /// What Envoy 1.40 shows for eleven times 1: P0, P50, P90, P100.
    #[test]
    fn equal_values_are_spread_over_their_bucket_as_in_envoy() {
        let cells = Cells::default();
        (0..11).for_each(|_| cells.record(1));
        let all = cells.snapshot().total;
        let shown = [0.0, 0.5, 0.9, 1.0].map(|q| format!("{:.4}", all.quantile(q).unwrap()));
        assert_eq!(shown, ["1.0083", "1.0500", "1.0833", "1.0917"]);
    }

    #[test]
    fn an_interval_holds_what_came_between_two_rolls() {
        let cells = Cells::default();
        cells.record(7);
        assert_eq!(cells.snapshot().interval.count, 0);
        cells.roll();
        assert_eq!(cells.snapshot().interval.buckets, [(7, 1)]);
        cells.record(7);
        cells.record(30);
        cells.roll();
        let snapshot = cells.snapshot();
        assert_eq!(snapshot.interval.buckets, [(7, 1), (30, 1)]);
        assert_eq!((snapshot.interval.sum, snapshot.total.sum), (37, 44));
        cells.roll();
        assert_eq!(cells.snapshot().interval.count, 0);
        cells.reset();
        cells.record(1);
        cells.roll();
        assert_eq!(cells.snapshot().interval.buckets, [(1, 1)]);
    }
}

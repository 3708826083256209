use mesh_core::sync::{AtomicU64, Ordering};

/// Requests and successes of one interval, counted by all workers.
///
/// Both counts live in one word, requests in the upper half, so that a sweep never sees one without the
/// other. They wrap after four billion requests in one interval, which misjudges that interval at worst.
#[derive(Debug, Default)]
pub(crate) struct Bucket(AtomicU64);

const REQUEST: u64 = 1 << 32;
const SUCCESS: u64 = 1;

/// What one endpoint did in one interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate {
    /// Successes in percent.
    pub(crate) success: f64,
    pub(crate) requests: u32,
}

impl Bucket {
    pub(crate) fn count(&self, success: bool) {
        // Relaxed: the word stands for itself.
        let one = REQUEST + if success { SUCCESS } else { 0 };
        self.0.fetch_add(one, Ordering::Relaxed);
    }

    /// Ends the interval; `None` without requests.
    pub(crate) fn take(&self) -> Option<Rate> {
        let word = self.0.swap(0, Ordering::Relaxed);
        let (requests, successes) = ((word >> 32) as u32, word as u32);
        (requests > 0).then(|| Rate {
            success: f64::from(successes) * 100.0 / f64::from(requests),
            requests,
        })
    }
}

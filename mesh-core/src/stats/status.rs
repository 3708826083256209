use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use super::{SHARED, Stat, Value, add, stripes, thread_stripe};

const FIRST: u16 = 100;
const CODES: usize = 500;

/// Counts responses by status: `upstream_rq_503`, `upstream_rq_5xx` and `upstream_rq_completed`.
///
/// One addition per response; the names exist only in exports, and only for statuses that were seen.
#[derive(Debug)]
pub struct StatusCounters {
    stem: &'static str,
    /// One array of 500 cells per stripe, made when the first response comes.
    cells: Box<[OnceLock<Box<[AtomicU64]>>]>,
}

impl StatusCounters {
    pub(super) fn new(stem: &'static str) -> Self {
        Self {
            stem,
            cells: (0..stripes()).map(|_| OnceLock::new()).collect(),
        }
    }

    /// Counts one response; a status outside 100 to 599 is not counted.
    pub fn count(&self, status: u16) {
        let Some(index) = status
            .checked_sub(FIRST)
            .map(usize::from)
            .filter(|&i| i < CODES)
        else {
            return;
        };
        let stripe = thread_stripe();
        if stripe < self.cells.len() {
            add(&self.stripe(stripe)[index], stripe, 1);
        } else {
            add(&self.stripe(SHARED)[index], SHARED, 1);
        }
    }

    fn stripe(&self, stripe: usize) -> &[AtomicU64] {
        self.cells[stripe].get_or_init(|| (0..CODES).map(|_| AtomicU64::new(0)).collect())
    }

    /// How many responses had this status.
    #[must_use]
    pub fn value(&self, status: u16) -> u64 {
        let index = usize::from(status.saturating_sub(FIRST));
        self.cells
            .iter()
            .filter_map(|cells| cells.get()?.get(index))
            .map(|cell| cell.load(Ordering::Relaxed))
            .fold(0, u64::wrapping_add)
    }

    pub(super) fn reset(&self) {
        for (index, status) in (FIRST..FIRST + CODES as u16).enumerate() {
            let n = self.value(status);
            if n > 0 {
                // Other threads' cells are theirs alone to write.
                add(&self.stripe(SHARED)[index], SHARED, n.wrapping_neg());
            }
        }
    }

    pub(super) fn export(&self, prefix: &str, out: &mut Vec<Stat>) {
        let mut classes = [0u64; 6];
        let mut push = |name: String, value| {
            out.push(Stat {
                name,
                value: Value::Counter(value),
            })
        };
        for status in FIRST..FIRST + CODES as u16 {
            let n = self.value(status);
            if n > 0 {
                push(format!("{prefix}{}_{status}", self.stem), n);
                classes[usize::from(status / 100)] += n;
            }
        }
        for (class, &n) in classes.iter().enumerate().filter(|(_, n)| **n > 0) {
            push(format!("{prefix}{}_{class}xx", self.stem), n);
        }
        let all: u64 = classes.iter().sum();
        if all > 0 {
            push(format!("{prefix}{}_completed", self.stem), all);
        }
    }
}

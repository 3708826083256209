use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

use super::{SHARED, add, histogram::Cells, stripes, thread_stripe};

/// What a stat is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution of recorded values.
    Histogram,
}

/// One entry of a component's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatDef {
    /// The last part of the name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
}

/// Eight cells: a stripe starts on a cache line of its own.
#[repr(align(64))]
#[derive(Debug, Default)]
struct Line([AtomicU64; LINE]);

const LINE: usize = 8;

/// The cells of one registered list.
#[derive(Debug)]
pub struct Group {
    pub(super) prefix: Arc<str>,
    pub(super) defs: &'static [StatDef],
    /// Made when one of them first counts: most clusters of a large mesh never see a request.
    lines: OnceLock<Box<[Line]>>,
    lines_per_stripe: usize,
    /// Those of the list by their index, each made when first recorded.
    histograms: Box<[(usize, OnceLock<Box<Cells>>)]>,
}

impl Group {
    pub(super) fn new(prefix: &Arc<str>, defs: &'static [StatDef]) -> Self {
        let all = defs.iter().enumerate();
        let histograms = all.filter(|(_, def)| def.kind == Kind::Histogram);
        Self {
            prefix: Arc::clone(prefix),
            defs,
            lines: OnceLock::new(),
            lines_per_stripe: defs.len().div_ceil(LINE),
            histograms: histograms
                .map(|(index, _)| (index, OnceLock::new()))
                .collect(),
        }
    }

    fn lines(&self) -> &[Line] {
        self.lines.get_or_init(|| {
            let lines = 0..self.lines_per_stripe * stripes();
            lines.map(|_| Line::default()).collect()
        })
    }

    /// The counter at `index` of the list.
    #[must_use]
    pub fn counter(&self, index: usize) -> Counter<'_> {
        Counter { group: self, index }
    }

    /// The gauge at `index` of the list.
    #[must_use]
    pub fn gauge(&self, index: usize) -> Gauge<'_> {
        Gauge { group: self, index }
    }

    /// The histogram at `index` of the list.
    #[must_use]
    pub fn histogram(&self, index: usize) -> Histogram<'_> {
        Histogram { group: self, index }
    }

    fn add(&self, index: usize, n: u64) {
        let stripe = thread_stripe();
        let line = stripe * self.lines_per_stripe + index / LINE;
        match self.lines().get(line) {
            Some(line) => add(&line.0[index % LINE], stripe, n),
            // More threads than stripes.
            None => self.add_shared(index, n),
        }
    }

    fn add_shared(&self, index: usize, n: u64) {
        add(&self.lines()[index / LINE].0[index % LINE], SHARED, n);
    }

    /// The sum over all stripes; differences of gauges wrap to the right value.
    pub(super) fn sum(&self, index: usize) -> u64 {
        // Where nothing has counted yet, everything is zero.
        let lines = self.lines.get().map_or(&[][..], |lines| lines);
        (index / LINE..lines.len())
            .step_by(self.lines_per_stripe.max(1))
            .map(|line| lines[line].0[index % LINE].load(Ordering::Relaxed))
            .fold(0, u64::wrapping_add)
    }

    pub(super) fn cells(&self, index: usize) -> Option<&Cells> {
        let found = self.histograms.iter().find(|(own, _)| *own == index);
        found.and_then(|(_, cells)| cells.get()).map(AsRef::as_ref)
    }

    /// Ends the interval of every histogram.
    pub(super) fn roll(&self) {
        let cells = self.histograms.iter();
        let cells = cells.filter_map(|(_, cells)| cells.get());
        cells.for_each(|cells| cells.roll());
    }

    /// Sets counters and histograms back to zero; gauges stay.
    pub(super) fn reset(&self) {
        for (index, def) in self.defs.iter().enumerate() {
            match def.kind {
                // Other threads' cells are theirs alone to write.
                Kind::Counter if self.lines.get().is_none() => {}
                Kind::Counter => self.add_shared(index, self.sum(index).wrapping_neg()),
                Kind::Histogram => {
                    if let Some(cells) = self.cells(index) {
                        cells.reset();
                    }
                }
                Kind::Gauge => {}
            }
        }
    }
}

/// Counts up.
#[derive(Debug, Clone, Copy)]
pub struct Counter<'a> {
    group: &'a Group,
    index: usize,
}

impl Counter<'_> {
    /// Adds one.
    pub fn inc(self) {
        self.group.add(self.index, 1);
    }

    /// Adds `n`.
    pub fn add(self, n: u64) {
        self.group.add(self.index, n);
    }

    /// The total over all threads.
    #[must_use]
    pub fn value(self) -> u64 {
        self.group.sum(self.index)
    }
}

/// Counts up and down.
#[derive(Debug, Clone, Copy)]
pub struct Gauge<'a> {
    group: &'a Group,
    index: usize,
}

impl Gauge<'_> {
    /// Adds one.
    pub fn inc(self) {
        self.group.add(self.index, 1);
    }

    /// Takes one away.
    pub fn dec(self) {
        self.group.add(self.index, u64::MAX);
    }

    /// Adds `n`.
    pub fn add(self, n: u64) {
        self.group.add(self.index, n);
    }

    /// Takes `n` away.
    pub fn sub(self, n: u64) {
        self.group.add(self.index, n.wrapping_neg());
    }

    /// Sets the value, seen from this moment; concurrent `inc` and `dec` still count.
    pub fn set(self, value: u64) {
        let change = value.wrapping_sub(self.value());
        if change != 0 {
            self.group.add(self.index, change);
        }
    }

    /// The value over all threads; never below zero.
    #[must_use]
    pub fn value(self) -> u64 {
        let value = self.group.sum(self.index);
        if value > i64::MAX as u64 { 0 } else { value }
    }
}

/// Records a distribution.
#[derive(Debug, Clone, Copy)]
pub struct Histogram<'a> {
    group: &'a Group,
    index: usize,
}

impl Histogram<'_> {
    /// Records one value, in the stat's own unit (mostly milliseconds).
    pub fn record(self, value: u64) {
        // A list has a few of them at most.
        let histograms = &self.group.histograms;
        let found = histograms.iter().find(|(index, _)| *index == self.index);
        if let Some((_, cells)) = found {
            cells.get_or_init(Box::default).record(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{set_stripes, set_thread_stripe};

    crate::stats! {
        struct Few {
            /// a
            counter a,
            /// b
            gauge b,
            /// c
            counter c,
            /// d
            counter d,
            /// e
            counter e,
            /// f
            counter f,
            /// g
            counter g,
            /// h
            counter h,
            /// i
            counter i,
        }
    }

    #[test]
    fn stripes_add_up_and_strays_are_counted() {
        set_stripes(3);
        let few = Few::detached();
        let threads: Vec<_> = (0..5)
            .map(|n| {
                let few = few.clone();
                std::thread::spawn(move || {
                    set_thread_stripe(n);
                    for _ in 0..100 {
                        few.a().inc();
                        few.i().add(2);
                        few.b().inc();
                    }
                    few.b().dec();
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(
            (few.a().value(), few.i().value(), few.b().value()),
            (500, 1000, 495)
        );
        few.0.reset();
        assert_eq!((few.a().value(), few.b().value()), (0, 495));
        assert_eq!(few.c().value() + few.d().value() + few.e().value(), 0);
        assert_eq!(few.f().value() + few.g().value() + few.h().value(), 0);
        few.b().set(7);
        assert_eq!(few.b().value(), 7);
    }
}

//! What one thread has logged and not handed over.

/// Whole lines.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    pub(super) text: String,
    pub(super) lines: u64,
}

impl Buffer {
    /// Lets `line` append one line. If it panics, what it wrote is taken back: no line is ever torn.
    pub(super) fn append(&mut self, line: impl FnOnce(&mut String)) {
        let whole = self.text.len();
        let mut torn = TakeBack {
            text: &mut self.text,
            whole,
        };
        line(torn.text);
        torn.whole = torn.text.len();
        drop(torn);
        if self.text.len() > whole {
            self.lines += 1;
        }
    }
}

struct TakeBack<'a> {
    text: &'a mut String,
    whole: usize,
}

impl Drop for TakeBack<'_> {
    fn drop(&mut self) {
        self.text.truncate(self.whole);
    }
}

/// A buffer with a cache line of its own.
#[repr(align(64))]
#[derive(Debug, Default)]
pub(super) struct Stripe(pub(super) std::sync::Mutex<Buffer>);

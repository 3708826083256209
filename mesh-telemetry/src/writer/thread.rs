//! The thread that writes.

use std::{
    fs::File,
    io::{self, Write as _},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use mesh_core::{clock, stats};

use super::{
    LogWriterConfig, Target,
    metrics::WriterStats,
    queue::Chunk,
    sink::{Gathered, Sink, lock},
};

/// How soon a full pipe is tried again.
const BLOCKED_RETRY: Duration = Duration::from_millis(10);

/// The shortest interval between two flushes.
const FLUSH_INTERVAL_MIN: Duration = Duration::from_millis(1);

/// What owners, logging threads and the writing thread share.
pub(super) struct Shared {
    pub(super) config: LogWriterConfig,
    pub(super) stats: WriterStats,
    state: Mutex<State>,
    /// There are orders for the thread.
    orders: Condvar,
    /// The thread has carried some out.
    settled: Condvar,
}

#[derive(Default)]
struct State {
    sinks: Vec<Arc<Sink>>,
    started: bool,
    enough: bool,
    reopen: bool,
    closing: bool,
    ended: bool,
    /// Flushes that were asked for, and how many of them are done.
    flushes: u64,
    flushed: u64,
    /// Whether the last flush left nothing behind.
    clean: bool,
}

/// What the thread shall do in one pass.
struct Pass {
    sinks: Vec<Arc<Sink>>,
    tick: bool,
    reopen: bool,
    closing: bool,
    flushes: u64,
    /// Whether lines that threads still hold are wanted too.
    gather: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Done,
    /// A pipe is full.
    Blocked,
    Failed,
}

impl Shared {
    pub(super) fn new(mut config: LogWriterConfig, stats: WriterStats) -> Self {
        config.flush_interval = config.flush_interval.max(FLUSH_INTERVAL_MIN);
        Self {
            config,
            stats,
            state: Mutex::default(),
            orders: Condvar::new(),
            settled: Condvar::new(),
        }
    }

    /// Starts the thread, once.
    pub(super) fn start(self: &Arc<Self>) -> io::Result<()> {
        let mut state = lock(&self.state);
        if state.started {
            return Ok(());
        }
        let shared = Arc::clone(self);
        std::thread::Builder::new()
            .name("mesh-log".to_owned())
            .spawn(move || shared.run())?;
        state.started = true;
        Ok(())
    }

    pub(super) fn open(&self, target: &Target) -> io::Result<Arc<Sink>> {
        let known = |state: &State| {
            let mut sinks = state.sinks.iter();
            sinks.find(|sink| sink.target == *target).map(Arc::clone)
        };
        if let Some(sink) = known(&lock(&self.state)) {
            return Ok(sink);
        }
        // Without the lock: opening may take its time, and those who log wake the thread through it.
        let sink = Arc::new(Sink::open(target.clone(), self.config.queue_bytes_max)?);
        let mut state = lock(&self.state);
        if let Some(other) = known(&state) {
            // Somebody else was faster.
            return Ok(other);
        }
        state.sinks.push(Arc::clone(&sink));
        Ok(sink)
    }

    fn order(&self, what: impl FnOnce(&mut State)) {
        what(&mut lock(&self.state));
        self.orders.notify_one();
    }

    /// Enough waits to be written.
    pub(super) fn wake(&self) {
        self.order(|state| state.enough = true);
    }

    pub(super) fn reopen(&self) {
        self.order(|state| state.reopen = true);
    }

    pub(super) fn flush(&self, timeout: Duration) -> bool {
        let mut state = lock(&self.state);
        if !state.started {
            return true;
        }
        state.flushes += 1;
        let ticket = state.flushes;
        self.orders.notify_one();
        let state = self.wait(state, timeout, |state| state.flushed >= ticket);
        state.flushed >= ticket && state.clean
    }

    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        if state.started {
            state.closing = true;
            self.orders.notify_one();
            drop(self.wait(state, self.config.close_timeout, |state| state.ended));
        }
    }

    /// Waits for the thread, at most for `timeout`.
    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        timeout: Duration,
        until: impl Fn(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        self.settled
            .wait_timeout_while(state, timeout, |state| !until(state))
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    fn run(&self) {
        let mut tick_at = clock::now() + self.config.flush_interval;
        let mut retry_at = None;
        let mut end_at = None;
        loop {
            let pass = self.next_pass(tick_at, retry_at);
            if pass.closing {
                end_at.get_or_insert_with(|| clock::now() + self.config.close_timeout);
            }
            if pass.tick {
                tick_at = clock::now() + self.config.flush_interval;
            }
            retry_at = None;
            let mut clean = true;
            for sink in &pass.sinks {
                let progress = self.serve(sink, &pass);
                clean &= progress == Progress::Done;
                if progress == Progress::Blocked {
                    retry_at = Some(clock::now() + BLOCKED_RETRY);
                }
            }
            // A full pipe may have room in a moment: whoever waits, waits on.
            let waits = retry_at.is_some() && end_at.is_none_or(|end_at| clock::now() < end_at);
            if self.settle(pass, clean, waits) {
                return;
            }
        }
    }

    /// Waits for orders, the tick, or the time to try a full pipe again.
    fn next_pass(&self, tick_at: Instant, retry_at: Option<Instant>) -> Pass {
        let until = retry_at.map_or(tick_at, |retry_at| retry_at.min(tick_at));
        let mut state = lock(&self.state);
        let mut now = clock::now();
        // Orders do not make a full pipe any emptier.
        while (retry_at.is_some() || !state.has_orders()) && now < until {
            state = self
                .orders
                .wait_timeout(state, until - now)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            now = clock::now();
        }
        let tick = now >= tick_at;
        let flush = state.flushes > state.flushed;
        state.enough = false;
        Pass {
            sinks: state.sinks.clone(),
            tick,
            closing: state.closing,
            flushes: state.flushes,
            gather: tick || flush || state.reopen || state.closing,
            reopen: std::mem::take(&mut state.reopen),
        }
    }

    fn serve(&self, sink: &Sink, pass: &Pass) -> Progress {
        let mut progress = Progress::Done;
        // Each round makes room for one thread's lines at least, so that one per thread is enough.
        for round in 0..stats::STRIPES_MAX {
            let mut gathered = Gathered::default();
            if pass.gather {
                gathered = sink.gather(self);
            }
            if pass.tick && gathered.some && round == 0 {
                self.stats.file.flushed_by_timer().inc();
            }
            progress = self.write(sink);
            if !gathered.refused || progress != Progress::Done {
                break;
            }
        }
        sink.failing
            .store(progress == Progress::Failed, Ordering::Relaxed);
        if pass.reopen && matches!(sink.target, Target::File(_)) {
            self.reopen_file(sink);
        }
        progress
    }

    fn reopen_file(&self, sink: &Sink) {
        match sink.target.open() {
            Ok(file) => {
                *lock(&sink.file) = file;
                // What is left of a line that was cut in the old file makes no sense in the new one.
                let torn = lock(&sink.queue).skip_torn_line();
                self.stats.log.dropped().add(torn);
            }
            Err(_) => self.stats.file.reopen_failed().inc(),
        }
    }

    /// Writes what is in the queue, until it is empty or a write fails.
    fn write(&self, sink: &Sink) -> Progress {
        let mut file = lock(&sink.file);
        loop {
            let Some(mut chunk) = lock(&sink.queue).pop() else {
                return Progress::Done;
            };
            if let Err(error) = self.write_chunk(&mut file, &mut chunk) {
                // The rest is tried again: the line that was cut is completed, never left torn.
                lock(&sink.queue).unpop(chunk);
                if error.kind() == io::ErrorKind::WouldBlock {
                    return Progress::Blocked;
                }
                self.stats.file.write_failed().inc();
                return Progress::Failed;
            }
            self.forget(sink, chunk);
        }
    }

    fn write_chunk(&self, file: &mut File, chunk: &mut Chunk) -> io::Result<()> {
        while !chunk.rest().is_empty() {
            match file.write(chunk.rest()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    chunk.written += n;
                    self.stats.file.write_completed().inc();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A chunk is written, or given up.
    fn forget(&self, sink: &Sink, chunk: Chunk) {
        let bytes = chunk.buffer.text.len() as u64;
        self.stats.file.write_total_buffered().sub(bytes);
        lock(&sink.queue).done(chunk);
    }

    /// Gives up what could not be written. Nobody else may log to `sink` any more.
    fn abandon(&self, sink: &Sink) {
        while !sink.is_empty() {
            sink.gather(self);
            // Not `while let`: that would hold the lock in its body.
            let waiting = std::iter::from_fn(|| lock(&sink.queue).pop());
            for chunk in waiting {
                self.stats.log.dropped().add(chunk.buffer.lines);
                self.forget(sink, chunk);
            }
        }
    }

    /// Tells who waits, unless that `waits` on, and closes files that nobody logs to any more; true when the
    /// thread shall end.
    fn settle(&self, pass: Pass, clean: bool, waits: bool) -> bool {
        let closing = pass.closing && !waits;
        drop(pass.sinks);
        let gone: Vec<Arc<Sink>> = {
            let mut state = lock(&self.state);
            let is_gone = |sink: &mut Arc<Sink>| closing || is_gone(sink);
            state.sinks.extract_if(.., is_gone).collect()
        };
        gone.iter().for_each(|sink| self.abandon(sink));
        // Only now: who waits for the end may look at what was dropped.
        let mut state = lock(&self.state);
        if pass.flushes > state.flushed && !waits {
            state.flushed = pass.flushes;
            state.clean = clean;
        }
        state.ended = closing;
        self.settled.notify_all();
        closing
    }
}

/// Whether nobody logs to `sink` any more and nothing of it can still be written. Asked under the lock
/// of the list: once only the list holds a sink, nobody can get hold of it again, nor holds its locks.
fn is_gone(sink: &Arc<Sink>) -> bool {
    Arc::strong_count(sink) == 1 && (sink.failing.load(Ordering::Relaxed) || sink.is_empty())
}

impl State {
    const fn has_orders(&self) -> bool {
        self.enough || self.reopen || self.closing || self.flushes > self.flushed
    }
}

use std::{
    fmt,
    fs::File,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use mesh_core::stats::{self, Scope};

use super::{
    CHUNK_BYTES, LogWriterConfig, Target,
    buffer::{Buffer, Stripe},
    metrics::WriterStats,
    queue::Queue,
    thread::Shared,
};

/// Locks; a panic of whoever held the lock left whole lines behind, so go on with them.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The one thread that writes log lines, and its files. Cloning shares it.
///
/// When the last clone and the last of its [`LogSink`]s go, what was logged is written and the thread
/// ends; whoever drops it last waits for that, at most [`LogWriterConfig::close_timeout`].
#[derive(Clone)]
pub struct LogWriter(Arc<Owner>);

/// Ends the thread when nobody can log any more.
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl LogWriter {
    /// A writer without files; its thread starts with the first one. `scope` is where
    /// `filesystem.*` and `access_log.*` are counted: mostly the root.
    #[must_use]
    pub fn new(config: LogWriterConfig, scope: &Scope) -> Self {
        let stats = WriterStats::register(scope);
        Self(Arc::new(Owner(Arc::new(Shared::new(config, stats)))))
    }

    /// A place to log to. The same target is opened once and shared, as long as somebody logs to it.
    ///
    /// # Errors
    /// When the file cannot be opened for appending, or the thread cannot be started.
    pub fn open(&self, target: &Target) -> io::Result<LogSink> {
        let shared = &self.0.0;
        shared.start()?;
        Ok(LogSink {
            sink: shared.open(target)?,
            owner: Arc::clone(&self.0),
        })
    }

    /// Waits until everything that was logged before is written, or could not be. Blocks: in async code,
    /// only at the end of the process or on a thread for blocking calls.
    ///
    /// False when that took longer than `timeout`, because a disk or pipe is stuck, or when lines are
    /// still there because a write failed.
    #[must_use = "lines may not have been written"]
    pub fn flush(&self, timeout: Duration) -> bool {
        self.0.0.flush(timeout)
    }

    /// Opens all files again, after they were moved away. Does not block: lines logged before go to the
    /// old file, later ones to the new one; [`LogWriter::flush`] afterwards waits for it. A file that
    /// cannot be opened is counted in `filesystem.reopen_failed`, and the old one is written on.
    pub fn reopen(&self) {
        self.0.0.reopen();
    }
}

impl fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogWriter").finish_non_exhaustive()
    }
}

/// Where lines are logged. Cloning shares it.
#[derive(Clone)]
pub struct LogSink {
    sink: Arc<Sink>,
    owner: Arc<Owner>,
}

impl LogSink {
    /// Logs one line, line feed included, by letting `line` append it to this thread's buffer.
    ///
    /// Never waits for a file: it costs an uncontended lock, and now and then a moved pointer. When too
    /// much waits to be written, `line` is not called and the line is counted in `access_log.dropped`.
    /// `line` must not log to this sink itself.
    pub fn write(&self, line: impl FnOnce(&mut String)) {
        let mut buffer = lock(&self.sink.stripe().0);
        let full = |buffer: &Buffer| buffer.text.len() >= CHUNK_BYTES;
        if full(&buffer) && !self.hand_over(&mut buffer) {
            drop(buffer);
            self.owner.0.stats.log.dropped().inc();
            return;
        }
        buffer.append(line);
        if full(&buffer) {
            self.hand_over(&mut buffer);
        }
    }

    fn hand_over(&self, buffer: &mut Buffer) -> bool {
        self.sink.hand_over(buffer, &self.owner.0)
    }

    /// Where the lines go.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.sink.target
    }
}

impl fmt::Debug for LogSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogSink").field(&self.sink.target).finish()
    }
}

/// What came of asking the threads for what they hold.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Gathered {
    /// There were lines.
    pub(super) some: bool,
    /// There were lines for which there is no room.
    pub(super) refused: bool,
}

/// What the logging threads and the writing thread share about one file.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) target: Target,
    stripes: Box<[Stripe]>,
    pub(super) queue: Mutex<Queue>,
    /// Only the writing thread locks it.
    pub(super) file: Mutex<File>,
    /// The last write failed. Only the writing thread uses it.
    pub(super) failing: AtomicBool,
}

impl Sink {
    pub(super) fn open(target: Target, bytes_max: usize) -> io::Result<Self> {
        Ok(Self {
            file: Mutex::new(target.open()?),
            target,
            stripes: (0..stats::stripes()).map(|_| Stripe::default()).collect(),
            queue: Mutex::new(Queue::new(bytes_max)),
            failing: AtomicBool::new(false),
        })
    }

    fn stripe(&self) -> &Stripe {
        self.stripes
            .get(stats::thread_stripe())
            .unwrap_or(&self.stripes[0])
    }

    /// Moves `buffer` into the queue and, when enough waits there, wakes the writer. Locks are taken in
    /// the order stripe, queue, writer, each of the last two alone.
    fn hand_over(&self, buffer: &mut Buffer, shared: &Shared) -> bool {
        let (lines, bytes) = (buffer.lines, buffer.text.len());
        let waiting = {
            let mut queue = lock(&self.queue);
            if !queue.push(buffer) {
                return false;
            }
            queue.bytes()
        };
        shared.stats.file.write_buffered().add(lines);
        shared.stats.file.write_total_buffered().add(bytes as u64);
        // Only the chunk that crosses the bound wakes.
        let enough = shared.config.flush_bytes;
        if waiting >= enough && waiting - bytes < enough {
            shared.wake();
        }
        true
    }

    /// Moves everything that threads still hold into the queue, as far as it has room.
    pub(super) fn gather(&self, shared: &Shared) -> Gathered {
        let mut gathered = Gathered::default();
        for stripe in &self.stripes {
            let mut buffer = lock(&stripe.0);
            if !buffer.text.is_empty() {
                let taken = self.hand_over(&mut buffer, shared);
                gathered.some |= taken;
                gathered.refused |= !taken;
            }
        }
        gathered
    }

    /// Whether all lines are in the file.
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.queue).bytes() == 0
            && self
                .stripes
                .iter()
                .all(|stripe| lock(&stripe.0).text.is_empty())
    }
}

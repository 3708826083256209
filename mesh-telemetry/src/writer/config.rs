use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd},
        unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    time::Duration,
};

/// A thread's buffer is handed to the writer when it is this full.
pub const CHUNK_BYTES: usize = 16 << 10;

/// How many bytes of one sink may wait to be written unless the config says otherwise; when there are
/// more, lines are dropped and counted.
pub const QUEUE_BYTES_MAX: usize = 16 << 20;

/// How log lines are gathered before they are written.
#[derive(Debug, Clone)]
pub struct LogWriterConfig {
    /// At the latest so long after a line was logged it is written; default 1 s, at least 1 ms. Envoy's
    /// default of 10 s makes people think that nothing is logged. Envoy: `--file-flush-interval-msec`.
    pub flush_interval: Duration,
    /// So many bytes of one sink are written at once, without waiting for the interval; default 64 KiB.
    /// Envoy: `--file-flush-min-size-kb`.
    pub flush_bytes: usize,
    /// How many bytes of one sink may wait; default [`QUEUE_BYTES_MAX`]. When there are more, because a
    /// disk is full or slow or nobody reads the pipe, lines are dropped and counted in
    /// `access_log.dropped`.
    pub queue_bytes_max: usize,
    /// How long the last owner waits for the last lines to be written when it goes; default 1 s.
    pub close_timeout: Duration,
}

impl Default for LogWriterConfig {
    fn default() -> Self {
        Self {
            flush_interval: Duration::from_secs(1),
            flush_bytes: 64 << 10,
            queue_bytes_max: QUEUE_BYTES_MAX,
            close_timeout: Duration::from_secs(1),
        }
    }
}

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// Appended to a file, which is made if it does not exist.
    File(PathBuf),
    /// The process's standard output.
    Stdout,
    /// The process's standard error.
    Stderr,
}

impl Target {
    /// `path`, or the standard stream that `/dev/stdout` or `/dev/stderr` name: those cannot be opened
    /// when they are sockets.
    #[must_use]
    pub fn path(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        match path.to_str() {
            Some("/dev/stdout") => Self::Stdout,
            Some("/dev/stderr") => Self::Stderr,
            _ => Self::File(path),
        }
    }

    pub(super) fn open(&self) -> io::Result<File> {
        match self {
            Self::File(path) => append(path),
            Self::Stdout => stream(io::stdout().as_fd()),
            Self::Stderr => stream(io::stderr().as_fd()),
        }
    }
}

/// Never waits: a pipe without a reader is an error, and a full one refuses a write.
fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
}

/// A standard stream that is a pipe is opened a second time, so that it can be told not to wait without
/// telling whoever else writes to it. Anything else is shared, its position included.
fn stream(fd: BorrowedFd<'_>) -> io::Result<File> {
    let shared = File::from(fd.try_clone_to_owned()?);
    if shared.metadata()?.file_type().is_fifo() {
        let again = append(Path::new(&format!("/proc/self/fd/{}", fd.as_raw_fd())));
        return Ok(again.unwrap_or(shared));
    }
    Ok(shared)
}

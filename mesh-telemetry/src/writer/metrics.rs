use mesh_core::stats::Scope;

mesh_core::stats! {
    /// What Envoy counts about files.
    pub(super) struct FileStats {
        /// Lines gathered for writing; counted when they leave their thread's buffer.
        counter write_buffered,
        /// Writes that were carried out.
        counter write_completed,
        /// Writes that failed; the lines are kept and tried again.
        counter write_failed,
        /// Times that data was written because the interval had passed.
        counter flushed_by_timer,
        /// Files that could not be opened again; the old one is written on.
        counter reopen_failed,
        /// Bytes that wait to be written.
        gauge write_total_buffered,
    }
}

mesh_core::stats! {
    /// What Envoy does not count, since its buffers are not bounded.
    pub(super) struct LogStats {
        /// Lines that found the queue full, or could not be written before the end.
        counter dropped,
    }
}

#[derive(Debug, Clone)]
pub(super) struct WriterStats {
    pub(super) file: FileStats,
    pub(super) log: LogStats,
}

impl WriterStats {
    pub(super) fn register(scope: &Scope) -> Self {
        Self {
            file: FileStats::register(&scope.scope("filesystem.")),
            log: LogStats::register(&scope.scope("access_log.")),
        }
    }
}

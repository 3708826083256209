use std::{io, sync::Arc, time::Instant};

use mesh_config::model::AccessLogConfig;
use mesh_core::{
    ConnectionInfo, RequestInfo, clock,
    format::{AccessLogType, Captures, FormatContext},
};
use mesh_telemetry::AccessLog;

use crate::{Worker, manager::open_logs};

/// The log of a listener, as one worker writes it: one line for each connection, whatever became of it.
///
/// # Envoy
/// `Listener.access_log`.
pub struct ConnectionLog {
    worker: Arc<Worker>,
    version: Arc<str>,
    log: AccessLog,
}

impl ConnectionLog {
    /// Opens the logs of `config`; `None` if there are none.
    ///
    /// # Errors
    /// When a log file cannot be opened; the error names it.
    pub fn new(
        worker: &Arc<Worker>,
        config: &[AccessLogConfig],
        version: &Arc<str>,
    ) -> io::Result<Option<Self>> {
        if config.is_empty() {
            return Ok(None);
        }
        // There is no request whose headers could be kept.
        let log = open_logs(&worker.mesh, config, &mut Captures::default())?;
        Ok(Some(Self {
            worker: Arc::clone(worker),
            version: Arc::clone(version),
            log,
        }))
    }

    /// What is to be logged of a connection that was accepted at `opened`.
    #[must_use]
    pub fn begin(&self, opened: Instant, connection: Arc<ConnectionInfo>) -> RequestInfo {
        let random = self.worker.rng.next_u64();
        let mut info = RequestInfo::new(opened, random, connection, Arc::clone(&self.version));
        info.start_wall -= clock::now().saturating_duration_since(opened);
        info
    }

    /// Writes the line of a connection that ends now.
    pub fn write(&self, info: &RequestInfo) {
        let mut context = FormatContext::new(info).with_end(clock::now());
        // As in Envoy, which has no type of line for listeners.
        context.log_type = AccessLogType::NotSet;
        self.log.log(&context);
    }
}

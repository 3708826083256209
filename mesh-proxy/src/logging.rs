//! The process's own log, whose level can change while it runs.

use std::sync::atomic::{AtomicU8, Ordering};

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt as _},
};

static LEVEL: AtomicU8 = AtomicU8::new(3);

const NAMES: [&str; 6] = ["off", "error", "warning", "info", "debug", "trace"];

/// Reads one of Envoy's level names.
pub(crate) fn parse(name: &str) -> Option<u8> {
    let name = match name {
        "critical" => "error",
        "warn" => "warning",
        name => name,
    };
    NAMES
        .iter()
        .position(|known| *known == name)
        .map(|at| at as u8)
}

pub(crate) fn set(level: u8) {
    LEVEL.store(level, Ordering::Relaxed);
    tracing::callsite::rebuild_interest_cache();
}

pub(crate) fn name() -> &'static str {
    NAMES[usize::from(LEVEL.load(Ordering::Relaxed)).min(NAMES.len() - 1)]
}

struct Filter;

impl<S: Subscriber> Layer<S> for Filter {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let number = match *metadata.level() {
            Level::ERROR => 1,
            Level::WARN => 2,
            Level::INFO => 3,
            Level::DEBUG => 4,
            Level::TRACE => 5,
        };
        number <= LEVEL.load(Ordering::Relaxed)
    }
}

/// Logs to stderr, from now on.
pub(crate) fn start(level: u8) {
    LEVEL.store(level, Ordering::Relaxed);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false);
    let subscriber = tracing_subscriber::registry().with(Filter).with(lines);
    // A second start, in a test, keeps the first.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

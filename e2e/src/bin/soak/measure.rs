//! What a process holds.

use std::fmt;

use anyhow::{Context, Result, bail};
use e2e::admin::{Admin, Stats};
use e2e::process::Proxy;
use e2e::wait::{Deadline, until};
use std::time::Duration;

/// How long everything may take to come to rest once nobody asks for anything.
const REST_MAX: Duration = Duration::from_secs(30);

/// What memory may grow by between two rests: a share of what there was, and as much that an allocator's pages
/// come and go.
const GROWTH_PERCENT_MAX: u64 = 10;
const GROWTH_KIB_MAX: u64 = 4096;

/// What a process holds at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    /// Resident memory, in KiB.
    pub(crate) memory: u64,
    /// File descriptors, connections to upstreams left out.
    pub(crate) files: u64,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.memory as f64 / 1024.0;
        write!(f, "{mib:.1} MiB, {} file descriptors", self.files)
    }
}

impl Held {
    /// Of a process whose stats say that `pooled` connections to upstreams are open.
    pub(crate) fn now(process: u32, pooled: u64) -> Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let memory = line
            .and_then(|line| line.trim().strip_suffix(" kB"))
            .context("no VmRSS")?
            .trim()
            .parse()?;
        let files = std::fs::read_dir(format!("/proc/{process}/fd"))?.count() as u64;
        Ok(Self {
            memory,
            files: files.saturating_sub(pooled),
        })
    }

    /// Whether `later` is no more than this, but for what comes and goes.
    ///
    /// # Errors
    /// Says what has grown.
    pub(crate) fn check(self, later: Self) -> Result<()> {
        if later.files > self.files {
            bail!("file descriptors have grown: {self}, and then {later}");
        }
        let most = self.memory + self.memory * GROWTH_PERCENT_MAX / 100 + GROWTH_KIB_MAX;
        if later.memory > most {
            bail!("memory has grown: {self}, and then {later}");
        }
        Ok(())
    }
}

/// Waits until nothing is asked for any more, and tells what is held then.
///
/// # Errors
/// When something stays in use, and what.
pub(crate) fn rest(proxy: &Proxy) -> Result<Held> {
    let mut busy = Vec::new();
    let resting = until(Deadline::after(REST_MAX), || {
        let stats = proxy.admin().stats().ok()?;
        busy = in_use(&stats);
        busy.is_empty().then_some(stats)
    });
    let stats = resting.with_context(|| format!("still in use: {busy:?}"))?;
    // Its own connection, over which it was asked, takes a moment to go.
    let held = || Held::now(proxy.id(), pooled(&stats));
    let mut least = held()?;
    until(Deadline::after(Duration::from_secs(1)), || {
        let now = held().ok()?;
        least.files = least.files.min(now.files);
        None::<()>
    });
    Ok(Held {
        files: least.files,
        ..held()?
    })
}

/// What is held in the middle of things.
pub(crate) fn now(proxy: &Proxy) -> Result<Held> {
    Held::now(proxy.id(), 0)
}

/// Connections to upstreams.
fn pooled(stats: &Stats) -> u64 {
    let open = stats
        .iter()
        .filter(|(name, _)| name.ends_with(".upstream_cx_active"));
    open.map(|(_, value)| value.unsigned_abs()).sum()
}

/// Gauges that say that somebody is at work; the stream to the control plane always is.
fn in_use(stats: &Stats) -> Vec<String> {
    let kinds = [
        ".downstream_cx_active",
        ".downstream_rq_active",
        ".upstream_rq_active",
        ".upstream_rq_pending_active",
        "http2.streams_active",
        ".total_listeners_draining",
    ];
    let ours = |name: &str| !name.contains("admin") && !name.starts_with("cluster.xds.");
    let busy = stats.iter().filter(|(name, value)| {
        **value != 0 && ours(name) && kinds.iter().any(|kind| name.ends_with(kind))
    });
    busy.map(|(name, value)| format!("{name} {value}"))
        .collect()
}

/// Reads what people look at.
///
/// # Errors
/// When a page does not answer.
pub(crate) fn look(admin: Admin) -> Result<()> {
    for page in [
        "/stats/prometheus",
        "/clusters",
        "/config_dump",
        "/listeners",
    ] {
        admin.text(page)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_is_told_and_what_comes_and_goes_is_not() {
        let held = |memory, files| Held { memory, files };
        let before = held(50_000, 30);
        before.check(before).unwrap();
        before.check(held(59_000, 29)).unwrap();
        let more = before.check(held(59_100, 30)).unwrap_err();
        assert!(more.to_string().contains("memory has grown"), "{more}");
        let leak = before.check(held(50_000, 31)).unwrap_err();
        assert!(
            leak.to_string().contains("descriptors have grown"),
            "{leak}"
        );
    }

    #[test]
    fn clients_and_requests_are_in_use_and_pools_are_not() {
        let stats = [
            ("http.soak.downstream_cx_active", 1),
            ("cluster.one.upstream_rq_active", 0),
            ("cluster.one.upstream_cx_active", 3),
            ("cluster.xds.upstream_rq_active", 1),
            ("http.admin.downstream_cx_active", 1),
        ];
        let stats = stats.map(|(name, value)| (name.to_owned(), value)).into();
        assert_eq!(in_use(&stats), ["http.soak.downstream_cx_active 1"]);
        assert_eq!(pooled(&stats), 3);
    }
}

use std::{path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};

use crate::commands::Command;

/// A service-mesh sidecar that runs Envoy v3 configuration.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "mesh-proxy",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true
)]
pub(crate) struct Flags {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// The bootstrap: an Envoy v3 bootstrap as YAML or JSON.
    #[arg(short = 'c', long, value_name = "FILE")]
    pub(crate) config_path: Option<PathBuf>,

    /// The bootstrap as text, in place of a file.
    #[arg(long, value_name = "TEXT", conflicts_with = "config_path")]
    pub(crate) config_yaml: Option<String>,

    /// Serve, or only say whether the bootstrap is good.
    #[arg(long, value_enum, default_value_t = Mode::Serve)]
    pub(crate) mode: Mode,

    /// Run an embedded bootstrap with three embedded upstreams, and say what to try.
    #[arg(long, conflicts_with_all = ["config_path", "config_yaml"])]
    pub(crate) demo: bool,

    /// Worker threads; as many as there are cores by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) concurrency: Option<u16>,

    /// trace, debug, info, warning, error, critical or off.
    #[arg(short = 'l', long, default_value = "info", value_name = "LEVEL")]
    pub(crate) log_level: String,

    /// Refuse a bootstrap with any field that is known but not enforced.
    #[arg(long)]
    pub(crate) strict: bool,

    /// After SIGTERM, connections may live so long at most.
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    pub(crate) drain_time_s: u64,

    /// After SIGTERM, new connections are still accepted for so long, and told to go.
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    pub(crate) drain_min_time_s: u64,

    /// Keep what the control plane sends in this directory, and start from there when it cannot be reached.
    #[arg(long, value_name = "DIR")]
    pub(crate) config_cache: Option<PathBuf>,

    /// Refuse a config cache that is older.
    #[arg(long, default_value_t = 604_800, value_name = "SECONDS")]
    pub(crate) config_cache_max_age_s: u64,

    /// Keep secrets in the config cache as well, readable by the owner only.
    #[arg(long, requires = "config_cache")]
    pub(crate) config_cache_secrets: bool,

    /// The node's id, in place of the bootstrap's.
    #[arg(long, value_name = "ID")]
    pub(crate) service_node: Option<String>,

    /// The node's cluster, in place of the bootstrap's.
    #[arg(long, value_name = "NAME")]
    pub(crate) service_cluster: Option<String>,

    /// Write the admin listener's real address into this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_address_path: Option<PathBuf>,

    /// How often log lines are written out.
    #[arg(long, default_value_t = 1000, value_name = "MS")]
    pub(crate) file_flush_interval_msec: u64,

    /// Fixes every random choice, for tests and reproductions.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,

    /// Accepted and ignored: there is nothing shared between processes.
    #[arg(long, value_name = "N", hide = true)]
    pub(crate) base_id: Option<u32>,

    /// Accepted and ignored.
    #[arg(long, hide = true)]
    pub(crate) use_dynamic_base_id: bool,

    /// Accepted and ignored.
    #[arg(long, hide = true)]
    pub(crate) disable_hot_restart: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Serve requests.
    Serve,
    /// Read the bootstrap, say what is wrong or unsupported, and exit.
    Validate,
}

impl Flags {
    pub(crate) fn workers(&self) -> usize {
        self.concurrency.map_or_else(
            || std::thread::available_parallelism().map_or(1, usize::from),
            usize::from,
        )
    }

    pub(crate) fn drain_min(&self) -> Duration {
        Duration::from_secs(self.drain_min_time_s.min(self.drain_time_s))
    }

    pub(crate) fn drain_max(&self) -> Duration {
        Duration::from_secs(self.drain_time_s)
    }
}

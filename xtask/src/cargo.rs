//! Runs cargo, and reads what it knows about the workspace.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// One call of cargo, from the root of the workspace.
pub(crate) struct Cargo(Command);

impl Cargo {
    pub(crate) fn new<const N: usize>(arguments: [&str; N]) -> Self {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        let mut command = Command::new(cargo);
        command.current_dir(root()).args(arguments);
        Self(command)
    }

    pub(crate) fn arguments<A: AsRef<str>>(mut self, arguments: &[A]) -> Self {
        self.0.args(arguments.iter().map(AsRef::as_ref));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.0.env(name, value.into());
        self
    }

    /// Runs it and fails when it fails; what it prints is shown.
    pub(crate) fn run(mut self) -> Result<()> {
        let status = self.0.status().context("starting cargo")?;
        ensure!(status.success(), "{:?} failed: {status}", self.0);
        Ok(())
    }

    /// Runs it and hands back what it prints.
    pub(crate) fn output(mut self) -> Result<Vec<u8>> {
        let output = self.0.stderr(std::process::Stdio::inherit()).output()?;
        ensure!(
            output.status.success(),
            "{:?} failed: {}",
            self.0,
            output.status
        );
        Ok(output.stdout)
    }
}

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// What `cargo metadata` says.
pub(crate) struct Metadata(pub(crate) Value);

impl Metadata {
    pub(crate) fn read() -> Result<Self> {
        let bytes = Cargo::new(["metadata", "--format-version", "1"]).output()?;
        Ok(Self(serde_json::from_slice(&bytes)?))
    }

    /// Where build results go.
    pub(crate) fn target(&self) -> PathBuf {
        PathBuf::from(text(&self.0["target_directory"]))
    }

    /// The packages of the workspace.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Value> {
        let members = list(&self.0["workspace_members"]);
        self.packages().filter(move |p| members.contains(&p["id"]))
    }

    /// All packages, those of others too.
    pub(crate) fn packages(&self) -> impl Iterator<Item = &Value> {
        list(&self.0["packages"]).iter()
    }
}

/// A JSON string, or nothing.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A JSON array, or nothing.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

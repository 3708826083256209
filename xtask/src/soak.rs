//! `cargo xtask soak`: mixed load for a while, and nothing that grows.

use anyhow::Result;

use crate::cargo::{Cargo, Metadata};

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let target = Metadata::read()?.target();
    Cargo::new(["build", "--release", "--package", "mesh-proxy"]).run()?;
    let mesh = target.join("release/mesh-proxy").display().to_string();
    Cargo::new(["run", "--quiet", "--package", "e2e", "--bin", "soak", "--"])
        .arguments(&[mesh])
        .arguments(arguments)
        .run()
}

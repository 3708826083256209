//! `cargo xtask bench`: the benches are a program of their own.

use anyhow::Result;

use crate::cargo::Cargo;

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    Cargo::new(["run", "--release", "--package", "benches", "--"])
        .arguments(arguments)
        .run()
}

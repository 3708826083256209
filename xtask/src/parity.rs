//! `cargo xtask parity`: writes `PARITY.md` from the tables that the code reads, or checks it.

use anyhow::{Context, Result, ensure};

use crate::cargo::{Cargo, root};

pub(crate) fn run(check: bool) -> Result<()> {
    let page = Cargo::new([
        "run",
        "--quiet",
        "--package",
        "mesh-config",
        "--example",
        "parity",
    ])
    .output()?;
    let path = root().join("PARITY.md");
    if check {
        let known = std::fs::read(&path).context("PARITY.md")?;
        ensure!(
            known == page,
            "PARITY.md is stale: run `cargo xtask parity` and commit it"
        );
        return Ok(());
    }
    std::fs::write(&path, page).context("PARITY.md")
}

//! `cargo xtask loom`: the interleavings of every shared atomic.

use anyhow::{Result, ensure};

use crate::cargo::{Cargo, Metadata, list, text};

pub(crate) fn run() -> Result<()> {
    let metadata = Metadata::read()?;
    let tested: Vec<&str> = metadata
        .members()
        .filter(|package| {
            list(&package["targets"])
                .iter()
                .any(|t| t["name"] == "loom")
        })
        .map(|package| text(&package["name"]))
        .collect();
    ensure!(!tested.is_empty(), "no crate has a test called loom");
    // Another cfg means other build results: in a folder of their own, they do not push out the
    // usual ones. Optimised, since loom runs the same code thousands of times.
    let folder = metadata.target().join("loom");
    let packages: Vec<_> = tested.iter().flat_map(|name| ["--package", name]).collect();
    Cargo::new(["test", "--release", "--test", "loom"])
        .arguments(&packages)
        .env("RUSTFLAGS", "--cfg mesh_loom")
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_TARGET_DIR", folder)
        .run()
}

//! `cargo xtask bench`: the benches are a program of their own; this brings what it needs.

use anyhow::Result;

use crate::cargo::{Cargo, Metadata};
use crate::envoy;
use crate::packages::install;

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

//! `cargo xtask ci`: everything that must pass before a merge.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo::{Cargo, Metadata, list, text};
use crate::{deps, envoy, fds, loom, parity};

type Step = (&'static str, fn() -> Result<()>);

/// In the order of how soon they tell something.
const STEPS: [Step; 11] = [
    ("fmt", || Cargo::new(["fmt", "--all", "--check"]).run()),
    ("deps", deps::run),
    ("fds", || fds::run(true)),
    ("clippy", clippy),
    ("test", || Cargo::new(["test", "--workspace"]).run()),
    ("parity", || parity::run(true)),
    ("doc", doc),
    ("examples", examples),
    ("envoy", || envoy::run(&[])),
    ("features", no_default_features),
    ("loom", loom::run),
];

#[expect(
    clippy::disallowed_methods,
    reason = "how long a step took is told to people, and nothing depends on it"
)]
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let (mut only, mut skipped) = (Vec::new(), Vec::new());
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let (list, name) = match word.as_str() {
            "--skip" => (&mut skipped, words.next().context("--skip needs a name")?),
            _ => (&mut only, word),
        };
        let known = STEPS.iter().map(|(name, _)| *name);
        ensure!(
            known.clone().any(|step| step == name),
            "no step {name}: {:?}",
            known.collect::<Vec<_>>()
        );
        list.push(name.as_str());
    }
    for (name, step) in STEPS {
        if skipped.contains(&name) || !(only.is_empty() || only.contains(&name)) {
            continue;
        }
        println!("== {name}");
        let began = Instant::now();
        step().with_context(|| format!("step {name}"))?;
        println!("== {name} passed in {} s", began.elapsed().as_secs());
    }
    Ok(())
}

fn clippy() -> Result<()> {
    Cargo::new([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ])
    .run()
}

fn doc() -> Result<()> {
    Cargo::new(["doc", "--workspace", "--no-deps"])
        .env("RUSTDOCFLAGS", "-D warnings")
        .run()
}

/// Runs every example: they end by themselves, and a failed assertion is a failure.
fn examples() -> Result<()> {
    let metadata = Metadata::read()?;
    let mut ran = 0;
    for package in metadata.members() {
        let name = text(&package["name"]);
        for target in list(&package["targets"]) {
            let kind = text(&target["kind"][0]);
            let flag = match kind {
                // Its page is compared by the step of that name.
                "example" if name == "mesh-config" => continue,
                "example" => "--example",
                "bin" if name == "examples" => "--bin",
                _ => continue,
            };
            let target = text(&target["name"]);
            println!("-- {name} {flag} {target}");
            Cargo::new(["run", "--quiet", "--package", name, flag, target]).run()?;
            ran += 1;
        }
    }
    if ran == 0 {
        bail!("there is no example");
    }
    Ok(())
}

/// Each policy builds alone, without its default features.
fn no_default_features() -> Result<()> {
    for name in deps::POLICIES {
        if Metadata::read()?
            .members()
            .any(|package| package["name"] == name)
        {
            Cargo::new([
                "check",
                "--quiet",
                "--no-default-features",
                "--package",
                name,
            ])
            .run()?;
        }
    }
    Ok(())
}

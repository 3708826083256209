//! The same YAML and the same requests through two proxies, and what differs.
//!
//! `cargo xtask envoy` installs Envoy, builds `mesh-proxy` and runs this. A scenario is a name
//! `feature/case`, a bootstrap and a script (see `scenarios/`); the script sends requests and
//! every visible fact is noted by itself: status, header by header, body, the fate of the
//! connection, each request that an upstream saw, the access log, and the counters that the
//! script names. Facts that differ are mismatches, unless `LEDGER.md` gives the reason; a row of
//! the ledger that excuses nothing is a failure too.

mod ask;
mod config;
mod ledger;
mod observe;
mod report;
mod run;
mod scenarios;
mod suite;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use e2e::process::Binary;

use ledger::Ledger;
use suite::Arm;

const USAGE: &str = "\
differential --envoy PATH [--mesh PATH] [options]
  --only TEXT       only scenarios whose name starts like this (may be repeated)
  --arm-only ARM    run one arm, envoy or mesh, and print what it does
  --twice           compare Envoy with itself: are the scenarios deterministic?
  --ledger PATH     the ledger (default: LEDGER.md of this package)
  --jobs N          groups of scenarios side by side (default 3)
  --list            only print the names
  --verbose         every difference; with --arm-only, also every counter that changed
  --yaml            only print the bootstraps";

#[derive(Default)]
struct Options {
    envoy: Option<PathBuf>,
    mesh: Option<PathBuf>,
    only: Vec<String>,
    arm_only: Option<String>,
    ledger: Option<PathBuf>,
    jobs: Option<usize>,
    twice: bool,
    list: bool,
    verbose: bool,
    yaml: bool,
}

fn main() -> ExitCode {
    match options().and_then(|options| differential(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options> {
    let mut options = Options::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .with_context(|| format!("{word} needs a value"))
        };
        match word.as_str() {
            "--envoy" => options.envoy = Some(value()?.into()),
            "--mesh" => options.mesh = Some(value()?.into()),
            "--only" => options.only.push(value()?),
            "--arm-only" => options.arm_only = Some(value()?),
            "--ledger" => options.ledger = Some(value()?.into()),
            "--jobs" => options.jobs = Some(value()?.parse().context("--jobs")?),
            "--twice" => options.twice = true,
            "--list" => options.list = true,
            "--verbose" => options.verbose = true,
            "--yaml" => options.yaml = true,
            _ => bail!("unknown argument {word}\n{USAGE}"),
        }
    }
    Ok(options)
}

fn differential(options: &Options) -> Result<bool> {
    let mut groups = scenarios::all();
    let wanted = |name: &str| {
        options.only.is_empty() || options.only.iter().any(|only| name.starts_with(only))
    };
    for group in &mut groups {
        group.cases.retain(|(name, _)| wanted(name));
    }
    groups.retain(|group| !group.cases.is_empty());
    if groups.is_empty() {
        bail!("no scenario is called like that");
    }
    if options.list || options.yaml {
        for group in groups {
            for (name, _) in &group.cases {
                println!("{}{name}", if options.yaml { "# " } else { "" });
            }
            if options.yaml {
                println!("{}---", group.bootstrap.yaml());
            }
        }
        return Ok(true);
    }
    let arms = arms(options)?;
    let outcomes = suite::run(groups, &arms, options.jobs.unwrap_or(3));
    let verdict = if let [left, right] = &arms[..] {
        // Envoy differs from itself in nothing that a ledger could excuse.
        let mut ledger = if options.twice {
            Ledger::default()
        } else {
            let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/LEDGER.md");
            Ledger::read(&options.ledger.clone().unwrap_or_else(|| beside.into()))?
        };
        let labels = [left.label, right.label];
        report::compare(&outcomes, labels, &mut ledger, options.verbose)
    } else {
        report::print_arm(&outcomes, options.verbose)
    };
    verdict.print();
    Ok(verdict.failures == 0)
}

fn arms(options: &Options) -> Result<Vec<Arm>> {
    let envoy = |label| -> Result<Arm> {
        let path = options.envoy.clone().context("--envoy PATH is missing")?;
        let binary = Binary::new(path)?;
        Ok(Arm { label, binary })
    };
    let mesh = || -> Result<Arm> {
        let path = options.mesh.clone().context("--mesh PATH is missing")?;
        let binary = Binary::new(path)?;
        Ok(Arm {
            label: "mesh",
            binary,
        })
    };
    match options.arm_only.as_deref() {
        Some("envoy") => Ok(vec![envoy("envoy")?]),
        Some("mesh") => Ok(vec![mesh()?]),
        Some(other) => bail!("no arm {other}"),
        None if options.twice => Ok(vec![envoy("envoy")?, envoy("again")?]),
        None => Ok(vec![envoy("envoy")?, mesh()?]),
    }
}

//! Each policy layer alone, around a service that does nothing: instructions and allocations per call.
//!
//! Allocations are counted by this program's allocator; instructions by callgrind, which runs this program
//! twice for each case with different numbers of calls, so that everything but the calls cancels out.

mod cases;
mod upstream;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use mesh_core::clock;
use serde_json::{Value, json};

use cases::{CASES, Case};

use crate::{alloc, table::Table};

/// Calls before anything is counted, so that maps and buffers have their size.
const WARM_UP: u32 = 200;

/// Calls under callgrind; the difference is what is counted.
const COUNTED: [u32; 2] = [200, 2_200];

/// Calls that are timed, in so many batches.
const TIMED: u32 = 100_000;
const BATCHES: u32 = 10;

/// Averages are exact but for what happens once in many calls, like the next chunk of a log.
const ROUNDING: f64 = 0.05;

/// What a child prints.
struct Counted {
    allocations: f64,
    nanoseconds: f64,
}

/// One case's figures per call.
#[derive(Debug, Clone, Copy)]
struct Cost {
    case: Case,
    allocations: f64,
    nanoseconds: f64,
    instructions: Option<f64>,
}

/// The child: makes `calls` calls and prints what they cost.
pub(crate) fn call(name: &str, calls: u32) -> Result<()> {
    let case = CASES.iter().find(|case| case.name == name);
    let case = case.with_context(|| format!("there is no layer {name}"))?;
    // Timers need a runtime to be made in; nothing is ever driven by it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let _entered = runtime.enter();
    let mut call = (case.make)()?;
    for _ in 0..WARM_UP {
        call();
    }
    let before = alloc::count();
    let mut best = f64::INFINITY;
    let batch = calls.div_ceil(BATCHES);
    for _ in 0..BATCHES {
        let began = clock::now();
        for _ in 0..batch {
            call();
        }
        let took = (clock::now() - began).as_nanos() as f64 / f64::from(batch);
        best = best.min(took);
    }
    let allocations = (alloc::count() - before) as f64 / f64::from(batch * BATCHES);
    println!(
        "{}",
        json!({ "allocations": allocations, "nanoseconds": best })
    );
    Ok(())
}

/// Measures all cases, or those of `only`; whether no allocation bar is broken.
pub(crate) fn run(only: &[String], out: &Path) -> Result<bool> {
    for name in only {
        ensure!(
            CASES.iter().any(|case| case.name == name),
            "--only {name}: there is no such layer; there are {:?}",
            CASES.map(|case| case.name)
        );
    }
    let callgrind = Command::new("valgrind").arg("--version").output().is_ok();
    let wanted = |case: &&Case| only.is_empty() || only.iter().any(|name| name == case.name);
    let mut measured: Vec<Cost> = Vec::new();
    for case in CASES.iter().filter(wanted) {
        // What is subtracted is measured first, whether it was asked for or not.
        let base = case
            .over
            .and_then(|over| CASES.iter().find(|case| case.name == over));
        for case in base.into_iter().chain([case]) {
            if measured.iter().all(|cost| cost.case.name != case.name) {
                eprintln!("layer: {}", case.name);
                measured.push(measure(case, callgrind)?);
            }
        }
    }
    let costs: Vec<Cost> = measured.iter().map(|cost| cost.alone(&measured)).collect();
    println!("\n{}", table(&costs));
    if !callgrind {
        println!("no instructions: valgrind is not installed (Debian: apt-get install valgrind)");
    }
    let path = out.join("layers.json");
    let json: Vec<Value> = costs.iter().map(Cost::json).collect();
    std::fs::write(&path, format!("{:#}\n", Value::from(json)))
        .with_context(|| format!("writing {}", path.display()))?;
    println!("written: {}", path.display());
    Ok(costs.iter().all(Cost::within_bar))
}

fn table(costs: &[Cost]) -> Table {
    let mut table = Table::new([
        "per call",
        "instructions",
        "ns",
        "allocations",
        "at most",
        "",
    ]);
    for cost in costs {
        let bar = cost.case.allocations_max.filter(|bar| bar.is_finite());
        table.row([
            cost.case.name.to_owned(),
            cost.instructions
                .map_or_else(|| "-".to_owned(), |count| format!("{count:.0}")),
            format!("{:.0}", cost.nanoseconds),
            format!("{:.2}", cost.allocations),
            bar.map_or_else(|| "-".to_owned(), |bar| bar.to_string()),
            if cost.within_bar() { "" } else { "BROKEN" }.to_owned(),
        ]);
    }
    table
}

impl Cost {
    /// Without what its case stands on.
    fn alone(self, measured: &[Self]) -> Self {
        let base = measured
            .iter()
            .find(|cost| Some(cost.case.name) == self.case.over);
        let Some(base) = base else {
            return self;
        };
        let instructions = self.instructions.zip(base.instructions);
        Self {
            allocations: self.allocations - base.allocations,
            nanoseconds: self.nanoseconds - base.nanoseconds,
            instructions: instructions.map(|(all, base)| all - base),
            ..self
        }
    }

    fn within_bar(&self) -> bool {
        let bar = self.case.allocations_max;
        bar.is_none_or(|bar| self.allocations <= bar + ROUNDING)
    }

    fn json(&self) -> Value {
        json!({
            "name": self.case.name,
            "instructions": self.instructions,
            "nanoseconds": self.nanoseconds,
            "allocations": self.allocations,
            "allocations_max": self.case.allocations_max.filter(|bar| bar.is_finite()),
            "within_bar": self.within_bar(),
        })
    }
}

fn measure(case: &Case, callgrind: bool) -> Result<Cost> {
    let Counted {
        allocations,
        nanoseconds,
    } = count(case)?;
    let instructions = if callgrind {
        let [few, many] = COUNTED;
        let difference = instructions(case, many)?.saturating_sub(instructions(case, few)?);
        Some(difference as f64 / f64::from(many - few))
    } else {
        None
    };
    Ok(Cost {
        case: *case,
        allocations,
        nanoseconds,
        instructions,
    })
}

fn count(case: &Case) -> Result<Counted> {
    let output = Command::new(this()?)
        .args(arguments(case, TIMED))
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "layer {}: {said}", case.name);
    let json: Value = serde_json::from_slice(&output.stdout)?;
    let figure = |name: &str| json[name].as_f64().with_context(|| format!("no {name}"));
    Ok(Counted {
        allocations: figure("allocations")?,
        nanoseconds: figure("nanoseconds")?,
    })
}

/// Instructions of a whole run, start and end included.
fn instructions(case: &Case, calls: u32) -> Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(this()?)
        .args(arguments(case, calls))
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "layer {} under callgrind: {said}",
        case.name
    );
    let collected = said
        .lines()
        .find_map(|line| line.split("Collected : ").nth(1));
    match collected.map(|number| number.trim().parse()) {
        Some(Ok(number)) => Ok(number),
        _ => bail!("callgrind does not say what it collected: {said}"),
    }
}

fn arguments(case: &Case, calls: u32) -> [String; 4] {
    ["--layer", case.name, "--calls", &calls.to_string()].map(str::to_owned)
}

fn this() -> Result<PathBuf> {
    std::env::current_exe().context("finding this program")
}

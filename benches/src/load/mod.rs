//! Load runs: mesh-proxy beside real peers, on one core each, in turn.

mod contender;
mod frames;
mod http;
mod measure;
pub(crate) mod process;
mod report;
mod rig;
mod shape;
mod workload;

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use contender::{Contender, Mode, Site};
use measure::{Effort, Memory};
use process::Cores;
use report::Report;
use rig::Rig;
use shape::Shape;
use workload::{WORKLOADS, Workload};

use crate::Flags;

/// The parts of a run.
const PARTS: [&str; 3] = ["load", "memory", "start"];

/// What `--only` leaves of a run: of each kind of which none is named, all.
struct Selection {
    contenders: Vec<Contender>,
    workloads: Vec<Workload>,
    modes: Vec<Mode>,
    parts: Vec<&'static str>,
}

impl Selection {
    fn new(only: &[String]) -> Result<Self> {
        let selection = Self {
            contenders: select(&Contender::ALL, |c| c.name(), only),
            workloads: select(&WORKLOADS, |w| w.name, only),
            modes: select(&Mode::ALL, |m| m.name(), only),
            parts: select(&PARTS, |p| p, only),
        };
        for name in only {
            let known = selection.contenders.iter().any(|c| c.name() == name)
                || selection.workloads.iter().any(|w| w.name == name)
                || selection.modes.iter().any(|m| m.name() == name)
                || selection.parts.contains(&name.as_str());
            ensure!(
                known,
                "--only {name}: there is no such contender, workload, mode or part"
            );
        }
        Ok(selection)
    }
}

fn select<T: Copy>(all: &[T], name: impl Fn(&T) -> &'static str, only: &[String]) -> Vec<T> {
    let named = |item: &&T| only.iter().any(|wanted| wanted == name(item));
    let chosen: Vec<T> = all.iter().filter(named).copied().collect();
    if chosen.is_empty() {
        all.to_vec()
    } else {
        chosen
    }
}

/// Runs what is selected; whether all bars were met.
pub(crate) fn run(flags: &Flags, out: &Path) -> Result<bool> {
    let selection = Selection::new(&flags.only)?;
    let mut effort = if flags.quick {
        Effort::QUICK
    } else {
        Effort::FULL
    };
    let cores = Cores::pick()?;
    let files = process::raise_open_files()?;
    let most = usize::try_from(files)
        .unwrap_or(usize::MAX)
        .saturating_sub(500);
    effort.idle_connections = effort.idle_connections.min(most);
    process::pin(cores.load)?;
    let absolute = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = absolute(out);
    let site = Site {
        files: rig::write_files(&folder.join("keys"))?,
        folder,
        envoy: absolute(&flags.envoy),
        mesh: absolute(&flags.mesh),
        cores,
    };
    let mut rig = Rig::new(&site.files)?;
    let report = measure_all(&site, &mut rig, &selection, effort)?;
    let text = report.markdown();
    let host = describe(&site, &selection, effort);
    print!("{}", heading(&host));
    println!("{text}");
    let mut met_all = true;
    for (bar, met) in report.bars() {
        println!("{} {bar}", if met { "met:   " } else { "MISSED:" });
        met_all &= met;
    }
    let mut json = report.json();
    json["run"] = host;
    let path = out.join("load.json");
    std::fs::write(&path, format!("{json:#}\n"))
        .with_context(|| format!("writing {}", path.display()))?;
    println!("\nwritten: {}", path.display());
    Ok(met_all)
}

fn measure_all(
    site: &Site,
    rig: &mut Rig,
    selection: &Selection,
    effort: Effort,
) -> Result<Report> {
    let mut report = Report::default();
    let part = |name: &str| selection.parts.contains(&name);
    for workload in &selection.workloads {
        for mode in &selection.modes {
            if part("load") && workload.modes.contains(mode) {
                eprintln!("load: {}, {}", workload.title, mode.name());
                let what = (*mode, *workload);
                let cells = measure::load(site, rig, &selection.contenders, what, effort)?;
                report.cells.extend(cells);
            }
        }
        if part("memory") && workload.memory {
            report
                .memory
                .extend(memory(site, rig, selection, *workload, effort)?);
        }
    }
    for contender in &selection.contenders {
        if part("start") {
            eprintln!("start: {contender}");
            let mode = most_policies(*contender, Shape::Http);
            report
                .starts
                .push(measure::start(site, rig, *contender, mode, effort.starts)?);
        }
    }
    Ok(report)
}

fn memory(
    site: &Site,
    rig: &mut Rig,
    selection: &Selection,
    workload: Workload,
    effort: Effort,
) -> Result<Vec<Memory>> {
    let mut all = Vec::new();
    for contender in &selection.contenders {
        let mode = most_policies(*contender, workload.shape);
        if !contender.can(workload.shape, mode) {
            continue;
        }
        eprintln!("memory: {}, {contender}", workload.shape.name());
        let connections = match contender {
            // It shares no upstream connection: as many again, of half as many.
            Contender::Relay => effort.idle_connections / 2,
            _ => effort.idle_connections,
        };
        let weight = measure::memory(site, rig, *contender, workload, mode, connections)?;
        all.push(weight);
    }
    Ok(all)
}

/// With policies where there are any.
fn most_policies(contender: Contender, shape: Shape) -> Mode {
    if contender.can(shape, Mode::Policies) {
        Mode::Policies
    } else {
        Mode::Plain
    }
}

/// What a reader must know about a run.
fn describe(site: &Site, selection: &Selection, effort: Effort) -> Value {
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = file("/proc/cpuinfo");
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let versions = selection
        .contenders
        .iter()
        .map(|c| (c.name().to_owned(), json!(site.version(*c))));
    json!({
        "cpu": model,
        "kernel": file("/proc/sys/kernel/osrelease").trim(),
        "load_average": file("/proc/loadavg").trim(),
        "proxy_core": site.cores.proxy,
        "load_core": site.cores.load,
        "rounds": effort.rounds,
        "window_s": effort.window.as_secs_f64(),
        "versions": versions.collect::<serde_json::Map<_, _>>(),
    })
}

fn heading(host: &Value) -> String {
    let text = |name: &str| host[name].as_str().unwrap_or("?");
    format!(
        "\n{}, Linux {}; proxy on core {}, load and upstreams on core {}; {} rounds of {} s, medians\n",
        text("cpu"),
        text("kernel"),
        host["proxy_core"],
        host["load_core"],
        host["rounds"],
        host["window_s"],
    )
}

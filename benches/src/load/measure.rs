//! The three measurements: CPU per request, memory, start.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_core::clock;

use super::{
    contender::{Contender, Mode, Running, Site},
    process::Times,
    rig::{Ask, Life, Rig},
    shape::Shape,
    workload::Workload,
};

/// How long is measured, and how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    pub(crate) warm_up: Duration,
    pub(crate) window: Duration,
    pub(crate) idle_connections: usize,
    pub(crate) starts: usize,
}

impl Effort {
    pub(crate) const FULL: Self = Self {
        rounds: 9,
        warm_up: Duration::from_millis(300),
        window: Duration::from_secs(1),
        idle_connections: 10_000,
        starts: 9,
    };

    pub(crate) const QUICK: Self = Self {
        rounds: 3,
        warm_up: Duration::from_millis(200),
        window: Duration::from_millis(700),
        idle_connections: 2_000,
        starts: 3,
    };
}

/// More full handshakes than these, and a window says nothing of resumed ones.
const NOT_RESUMED_MAX: f64 = 0.02;

/// One window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) cpu_us_per_request: f64,
    pub(crate) requests_per_second: f64,
    pub(crate) p99_ms: f64,
    /// The share of the window in which the proxy ran.
    pub(crate) ran: f64,
    /// The share in which it wanted to run and somebody else had its core.
    pub(crate) waited: f64,
}

/// All windows of one contender.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    pub(crate) contender: Contender,
    pub(crate) mode: Mode,
    pub(crate) workload: Workload,
    pub(crate) windows: Vec<Window>,
}

/// Measures all `contenders` in turn, `effort.rounds` times; each round begins with another one.
pub(crate) fn load(
    site: &Site,
    rig: &mut Rig,
    contenders: &[Contender],
    (mode, workload): (Mode, Workload),
    effort: Effort,
) -> Result<Vec<Cell>> {
    let mut running = Vec::new();
    for contender in contenders {
        if contender.can(workload.shape, mode) {
            running.push(site.start(rig, *contender, workload.shape, mode)?);
        }
    }
    let cell = |running: &Running| Cell {
        contender: running.contender,
        mode,
        workload,
        windows: Vec::new(),
    };
    let mut cells: Vec<Cell> = running.iter().map(cell).collect();
    for round in 0..effort.rounds {
        for turn in 0..running.len() {
            let place = (round + turn) % running.len();
            let contender = &running[place];
            let measured = window(rig, contender, workload, effort).with_context(|| {
                format!(
                    "{}, {}, {}",
                    contender.contender,
                    mode.name(),
                    workload.name
                )
            })?;
            cells[place].windows.push(measured);
        }
    }
    Ok(cells)
}

fn window(rig: &mut Rig, running: &Running, workload: Workload, effort: Effort) -> Result<Window> {
    rig.open(running.address, workload.connections, workload.ask)?;
    rig.run(effort.warm_up)?;
    rig.healthy()?;
    rig.reset();
    let (began, before) = (clock::now(), running.process.cpu()?);
    rig.run(effort.window)?;
    let (after, ended) = (running.process.cpu()?, clock::now());
    let mut tally = rig.reset();
    rig.close();
    if let Some(failure) = tally.failure {
        anyhow::bail!("{} requests failed, the first: {failure}", tally.failed);
    }
    ensure!(tally.finished > 0, "not one request was finished");
    let not_resumed = tally.not_resumed as f64 / tally.finished as f64;
    ensure!(
        not_resumed <= NOT_RESUMED_MAX,
        "{:.0} % of the handshakes that should be resumed were full",
        not_resumed * 100.0
    );
    // What the proxy does when its clients go is not part of anybody's window.
    rig.run(Duration::from_millis(50))?;
    let seconds = (ended - began).as_secs_f64();
    let Times { ran, waited } = after.since(&before);
    let last = tally.took_us.len() - 1;
    let (_, p99, _) = tally.took_us.select_nth_unstable(last * 99 / 100);
    Ok(Window {
        cpu_us_per_request: ran as f64 / 1e3 / tally.finished as f64,
        requests_per_second: tally.finished as f64 / seconds,
        p99_ms: f64::from(*p99) / 1e3,
        ran: ran as f64 / 1e9 / seconds,
        waited: waited as f64 / 1e9 / seconds,
    })
}

/// What a contender weighs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) contender: Contender,
    pub(crate) workload: Workload,
    /// After its first answer.
    pub(crate) idle_mib: f64,
    pub(crate) connections: usize,
    pub(crate) kib_per_connection: f64,
}

/// Opens many connections, lets each ask once, and leaves them idle.
pub(crate) fn memory(
    site: &Site,
    rig: &mut Rig,
    contender: Contender,
    workload: Workload,
    mode: Mode,
    connections: usize,
) -> Result<Memory> {
    const LIMIT: Duration = Duration::from_secs(60);
    const REST: Duration = Duration::from_millis(300);
    let ask = Ask {
        life: Life::Idle,
        ..workload.ask
    };
    let running = site.start(rig, contender, workload.shape, mode)?;
    rig.run(REST)?;
    let before = running.process.resident_kib()?;
    rig.open_idle(running.address, connections, ask, LIMIT)
        .with_context(|| format!("{contender} and {connections} idle connections"))?;
    rig.run(REST)?;
    let after = running.process.resident_kib()?;
    rig.healthy()
        .with_context(|| format!("{contender} closed idle connections"))?;
    rig.close();
    Ok(Memory {
        contender,
        workload,
        idle_mib: before as f64 / 1024.0,
        connections,
        kib_per_connection: after.saturating_sub(before) as f64 / connections as f64,
    })
}

/// How long a contender takes from exec to its first answer.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    pub(crate) contender: Contender,
    pub(crate) took_ms: Vec<f64>,
}

pub(crate) fn start(
    site: &Site,
    rig: &mut Rig,
    contender: Contender,
    mode: Mode,
    times: usize,
) -> Result<Start> {
    let mut took_ms = Vec::new();
    for _ in 0..times {
        let running = site.start(rig, contender, Shape::Http, mode)?;
        took_ms.push(running.start.as_secs_f64() * 1e3);
    }
    Ok(Start { contender, took_ms })
}

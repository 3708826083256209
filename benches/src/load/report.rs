//! From windows to tables and JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{
    contender::{Contender, Mode},
    measure::{Cell, Memory, Start, Window},
    shape::Shape,
    workload::WORKLOADS,
};
use crate::table::Table;

/// Idle, right after the start, in MiB.
const IDLE_MIB_MAX: f64 = 15.0;

/// Per idle connection, in KiB.
const CONNECTION_KIB_MAX: f64 = 16.0;

/// Below this share of the window a proxy was not the bottleneck, and its figure counts for less.
const BUSY_MIN: f64 = 0.9;

/// The middle of some figures and how far they spread.
#[derive(Debug, Clone, Copy)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(figures: impl Iterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.collect();
        figures.sort_by(f64::total_cmp);
        let middle = figures.len() / 2;
        let median = match figures.len() {
            0 => f64::NAN,
            even if even % 2 == 0 => f64::midpoint(figures[middle - 1], figures[middle]),
            _ => figures[middle],
        };
        Self {
            median,
            min: figures.first().copied().unwrap_or(f64::NAN),
            max: figures.last().copied().unwrap_or(f64::NAN),
        }
    }

    fn json(self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }

    fn text(self) -> String {
        format!("{:.1} ({:.1}–{:.1})", self.median, self.min, self.max)
    }
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) cells: Vec<Cell>,
    pub(crate) memory: Vec<Memory>,
    pub(crate) starts: Vec<Start>,
}

impl Cell {
    fn spread(&self, of: impl Fn(&Window) -> f64) -> Spread {
        Spread::of(self.windows.iter().map(of))
    }

    fn cpu(&self) -> Spread {
        self.spread(|window| window.cpu_us_per_request)
    }

    /// Running, or kept from running by others.
    fn busy(&self) -> f64 {
        self.spread(|window| window.ran + window.waited).median
    }
}

impl Report {
    fn cell(&self, contender: Contender, mode: Mode, workload: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| {
            cell.contender == contender && cell.mode == mode && cell.workload.name == workload
        })
    }

    /// CPU per request as a share of another's: round by round, since a machine may be slower for a while, and
    /// both are hit.
    fn share(&self, cell: &Cell, of: Contender) -> Option<Spread> {
        let other = self.cell(of, cell.mode, cell.workload.name)?;
        let rounds = cell.windows.iter().zip(&other.windows);
        Some(Spread::of(rounds.map(|(window, other)| {
            window.cpu_us_per_request / other.cpu_us_per_request
        })))
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        for workload in WORKLOADS {
            for mode in Mode::ALL {
                self.write_cells(&mut text, workload.name, mode);
            }
        }
        self.write_memory(&mut text);
        text
    }

    fn write_cells(&self, text: &mut String, workload: &str, mode: Mode) {
        let cells: Vec<&Cell> = self
            .cells
            .iter()
            .filter(|cell| cell.mode == mode && cell.workload.name == workload)
            .collect();
        let Some(first) = cells.first() else {
            return;
        };
        let on = match mode {
            Mode::Plain => "no policies",
            Mode::Policies => "policies on",
        };
        let mut table = Table::new([
            "contender",
            "CPU µs/request (min–max)",
            "of Envoy",
            "requests/s",
            "p99 ms",
            "core: ran + kept waiting",
        ]);
        for cell in &cells {
            let share = self.share(cell, Contender::Envoy);
            let (ran, waited) = (
                cell.spread(|w| w.ran).median,
                cell.spread(|w| w.waited).median,
            );
            let idle = if cell.busy() < BUSY_MIN { " (!)" } else { "" };
            table.row([
                cell.contender.to_string(),
                cell.cpu().text(),
                share.map_or_else(|| "-".to_owned(), |share| format!("{:.2}", share.median)),
                format!("{:.0}", cell.spread(|w| w.requests_per_second).median),
                format!("{:.2}", cell.spread(|w| w.p99_ms).median),
                format!("{:.0} % + {:.0} %{idle}", ran * 100.0, waited * 100.0),
            ]);
        }
        // Writing into a string cannot fail.
        let _ = writeln!(text, "\n{}, {on}\n\n{table}", first.workload.title);
    }

    fn memory(&self, contender: Contender, shape: Shape) -> Option<&Memory> {
        let same = |m: &&Memory| m.contender == contender && m.workload.shape == shape;
        self.memory.iter().find(same)
    }

    fn write_memory(&self, text: &mut String) {
        if self.memory.is_empty() && self.starts.is_empty() {
            return;
        }
        let mut table = Table::new([
            "contender, policies on",
            "RSS idle, MiB",
            "KiB per idle connection",
            "with TLS",
            "ms from exec to first answer (min–max)",
        ]);
        let none = || "-".to_owned();
        for contender in Contender::ALL {
            let memory = self.memory(contender, Shape::Http);
            let tls = self.memory(contender, Shape::Tls);
            let start = self.starts.iter().find(|s| s.contender == contender);
            if memory.is_none() && tls.is_none() && start.is_none() {
                continue;
            }
            table.row([
                contender.to_string(),
                memory.map_or_else(none, |m| format!("{:.1}", m.idle_mib)),
                memory.map_or_else(none, |m| format!("{:.1}", m.kib_per_connection)),
                tls.map_or_else(none, |m| format!("{:.1}", m.kib_per_connection)),
                start.map_or_else(none, |s| Spread::of(s.took_ms.iter().copied()).text()),
            ]);
        }
        let _ = writeln!(text, "\n{table}");
    }

    /// What is promised, what was measured, and whether it holds.
    pub(crate) fn bars(&self) -> Vec<(String, bool)> {
        let mut bars = Vec::new();
        for workload in WORKLOADS {
            let cell = self.cell(Contender::Mesh, Mode::Policies, workload.name);
            let Some((bar, cell)) = workload.bar.zip(cell) else {
                continue;
            };
            if let Some(share) = self.share(cell, bar.of) {
                let (share, most, of) = (share.median, bar.share_max, bar.of);
                bars.push((
                    format!(
                        "CPU per request, policies on, {}: {share:.2} of {of}'s, at most {most}",
                        workload.name
                    ),
                    share <= most,
                ));
            }
        }
        let mesh = self.memory(Contender::Mesh, Shape::Http);
        if let Some(memory) = mesh {
            let (idle, each) = (memory.idle_mib, memory.kib_per_connection);
            bars.push((
                format!("idle RSS: {idle:.1} MiB, at most {IDLE_MIB_MAX}"),
                idle <= IDLE_MIB_MAX,
            ));
            bars.push((
                format!(
                    "{} idle connections: {each:.1} KiB each, at most {CONNECTION_KIB_MAX}",
                    memory.connections
                ),
                each <= CONNECTION_KIB_MAX,
            ));
        }
        bars
    }

    pub(crate) fn json(&self) -> Value {
        let cells = self.cells.iter().map(|cell| {
            json!({
                "contender": cell.contender.name(),
                "mode": cell.mode.name(),
                "workload": cell.workload.name,
                "cpu_us_per_request": cell.cpu().json(),
                "of_envoy": self.share(cell, Contender::Envoy).map(Spread::json),
                "requests_per_second": cell.spread(|w| w.requests_per_second).json(),
                "p99_ms": cell.spread(|w| w.p99_ms).json(),
                "ran": cell.spread(|w| w.ran).json(),
                "waited": cell.spread(|w| w.waited).json(),
                "windows": cell.windows.iter().map(|w| w.cpu_us_per_request).collect::<Vec<_>>(),
            })
        });
        let memory = self.memory.iter().map(|memory| {
            json!({
                "contender": memory.contender.name(),
                "shape": memory.workload.shape.name(),
                "idle_mib": memory.idle_mib,
                "connections": memory.connections,
                "kib_per_connection": memory.kib_per_connection,
            })
        });
        let starts = self.starts.iter().map(|start| {
            json!({
                "contender": start.contender.name(),
                "ms": Spread::of(start.took_ms.iter().copied()).json(),
            })
        });
        let bars = self.bars().into_iter();
        json!({
            "load": cells.collect::<Vec<_>>(),
            "memory": memory.collect::<Vec<_>>(),
            "start": starts.collect::<Vec<_>>(),
            "bars": bars.map(|(bar, met)| json!({ "bar": bar, "met": met })).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn a_spread_is_the_middle_and_both_ends() {
        let odd = Spread::of([3.0, 1.0, 20.0].into_iter());
        assert_eq!((odd.median, odd.min, odd.max), (3.0, 1.0, 20.0));
        let even = Spread::of([4.0, 1.0, 2.0, 9.0].into_iter());
        assert_eq!(even.median, 3.0);
    }
}

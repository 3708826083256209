//! Runs every scenario on every arm.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, anyhow};
use e2e::process::{Binary, Proxy};

use crate::config::Bootstrap;
use crate::observe::Facts;
use crate::run::{Run, Upstreams};

/// What a scenario does.
pub(crate) type Script = fn(&mut Run<'_>) -> Result<()>;

/// Scenarios that share a bootstrap, hence one process per arm.
pub(crate) struct Group {
    pub(crate) bootstrap: Bootstrap,
    pub(crate) cases: Vec<(&'static str, Script)>,
}

/// Binds scripts to a bootstrap: `group(bootstrap, [("feature/case", script), …])`.
pub(crate) fn group<const N: usize>(
    bootstrap: Bootstrap,
    cases: [(&'static str, Script); N],
) -> Group {
    Group {
        bootstrap,
        cases: cases.into(),
    }
}

/// One side of the comparison.
pub(crate) struct Arm {
    pub(crate) label: &'static str,
    pub(crate) binary: Binary,
}

/// One scenario with what each arm did.
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    pub(crate) arms: Vec<Facts>,
    /// Counters and gauges that changed, per arm.
    pub(crate) changed: Vec<Vec<String>>,
    /// What all arms took together.
    pub(crate) took: Duration,
}

/// Runs groups side by side: they wait more than they work.
pub(crate) fn run(groups: Vec<Group>, arms: &[Arm], jobs: usize) -> Vec<Outcome> {
    let queue = Mutex::new(groups.into_iter());
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(group) = next else { break };
                    let done = run_group(group, arms);
                    let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
                    outcomes.extend(done);
                }
            });
        }
    });
    let mut outcomes = outcomes
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    outcomes.sort_by_key(|outcome| outcome.name);
    outcomes
}

fn run_group(group: Group, arms: &[Arm]) -> Vec<Outcome> {
    let mut outcomes: Vec<_> = group
        .cases
        .iter()
        .map(|(name, _)| Outcome {
            name,
            arms: Vec::new(),
            changed: Vec::new(),
            took: Duration::ZERO,
        })
        .collect();
    let yaml = group.bootstrap.yaml();
    // Once for all arms: where a hash leads depends on the addresses.
    let upstreams = Upstreams::start(&yaml);
    for arm in arms {
        let upstreams = upstreams.as_ref().map_err(|error| anyhow!("{error:#}"));
        let done = upstreams
            .and_then(|upstreams| run_arm(&yaml, upstreams, &group.cases, arm, &mut outcomes));
        if let Err(error) = done {
            eprintln!("{}: {error:#}", arm.label);
            for outcome in &mut outcomes {
                let mut facts = Facts::default();
                facts.add("start", format!("{} did not start", arm.label));
                facts.problems.push(format!("{} did not start", arm.label));
                outcome.arms.push(facts);
                outcome.changed.push(Vec::new());
            }
        }
    }
    outcomes
}

fn run_arm(
    yaml: &str,
    upstreams: &Upstreams,
    cases: &[(&'static str, Script)],
    arm: &Arm,
    outcomes: &mut [Outcome],
) -> Result<()> {
    let rendered = upstreams.render(yaml);
    let proxy = Proxy::start(&arm.binary, &rendered)?;
    let mut marks = 0;
    for ((_, script), outcome) in cases.iter().zip(outcomes) {
        let began = e2e::wait::now();
        let (facts, changed) = run_case(upstreams, &proxy, &mut marks, *script);
        outcome.arms.push(facts);
        outcome.changed.push(changed);
        outcome.took += began.elapsed();
    }
    drop(proxy);
    upstreams.start_afresh();
    Ok(())
}

fn run_case(
    upstreams: &Upstreams,
    proxy: &Proxy,
    marks: &mut usize,
    script: Script,
) -> (Facts, Vec<String>) {
    let mut run = match Run::new(upstreams, proxy, marks) {
        Ok(run) => run,
        Err(error) => {
            let mut facts = Facts::default();
            facts.add("stopped", format!("{error:#}"));
            facts.problems.push(format!("no stats: {error:#}"));
            return (facts, Vec::new());
        }
    };
    if let Err(error) = script(&mut run) {
        run.note("stopped", format!("{error:#}"));
        run.problem(format!("stopped: {error:#}"));
    }
    let changed = run.changed().unwrap_or_default();
    (run.into_facts(), changed)
}

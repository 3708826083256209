//! Processes that are measured: started on a core of their own, read through /proc, ended by their id.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

/// The two cores of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cores {
    /// Load generator and upstream.
    pub(crate) load: usize,
    /// The proxy that is measured, and nothing else of ours.
    pub(crate) proxy: usize,
}

impl Cores {
    /// The first two cores that this process may use.
    pub(crate) fn pick() -> Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        match (cores.next(), cores.next()) {
            (Some(load), Some(proxy)) => Ok(Self { load, proxy }),
            _ => bail!("two cores are needed: one for the load, one for the proxy"),
        }
    }
}

/// Puts this thread, and what it starts from now on, on one core.
pub(crate) fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("moving to core {core}"))
}

/// Allows as many open files as may be; says how many that is.
pub(crate) fn raise_open_files() -> Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum;
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: most,
            maximum: most,
        },
    )?;
    Ok(most.unwrap_or(u64::MAX))
}

/// CPU time of each thread since its start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cpu(BTreeMap<OsString, Times>);

/// In nanoseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Times {
    /// Spent running, in kernel and user mode.
    pub(crate) ran: u64,
    /// Spent waiting for the core while others had it.
    pub(crate) waited: u64,
}

impl Cpu {
    /// What all threads ran since `earlier`, and what the busiest of them waited.
    pub(crate) fn since(&self, earlier: &Self) -> Times {
        let mut sum = Times::default();
        let mut busiest = 0;
        for (thread, times) in &self.0 {
            let before = earlier.0.get(thread).copied().unwrap_or_default();
            let ran = times.ran.saturating_sub(before.ran);
            sum.ran += ran;
            if ran > busiest {
                busiest = ran;
                sum.waited = times.waited.saturating_sub(before.waited);
            }
        }
        sum
    }
}

/// A running proxy. It is killed when this goes.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts `command` on the core of the proxies; what it says goes to `log`. Should this program be
    /// killed, so is the proxy.
    pub(crate) fn start(command: &Command, cores: Cores, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("writing {}", log.display()))?;
        let mut guarded = Command::new("setpriv");
        guarded
            .args(["--pdeathsig", "KILL", "--"])
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        if let Some(folder) = command.get_current_dir() {
            guarded.current_dir(folder);
        }
        // A process inherits the core of the thread that starts it.
        pin(cores.proxy)?;
        let child = guarded.spawn();
        pin(cores.load)?;
        let child = child.with_context(|| format!("starting {command:?} through setpriv"))?;
        Ok(Self { child })
    }

    /// Fails when it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("it has ended: {status}");
        }
        Ok(())
    }

    /// User and system time of its threads.
    pub(crate) fn cpu(&self) -> Result<Cpu> {
        let mut threads = BTreeMap::new();
        let tasks = format!("/proc/{}/task", self.child.id());
        for task in fs::read_dir(&tasks).with_context(|| tasks.clone())? {
            let task = task?;
            let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else {
                continue; // A thread that has just ended.
            };
            let mut numbers = text.split_ascii_whitespace().map(str::parse::<u64>);
            let (Some(Ok(ran)), Some(Ok(waited))) = (numbers.next(), numbers.next()) else {
                bail!("schedstat is not as expected: {text:?}");
            };
            threads.insert(task.file_name(), Times { ran, waited });
        }
        let counts = threads.values().any(|times| times.ran > 0);
        ensure!(counts, "the kernel does not count in schedstat");
        Ok(Cpu(threads))
    }

    /// Memory that is there, in KiB.
    pub(crate) fn resident_kib(&self) -> Result<u64> {
        let path = format!("/proc/{}/smaps_rollup", self.child.id());
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
        let number = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        number.with_context(|| format!("{path} has no Rss"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

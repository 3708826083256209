//! Starts a proxy binary and looks after it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, bail};

use crate::admin::Admin;
use crate::wait::{self, Deadline};

/// Lines kept of each of stdout and stderr; once it is hit, the oldest go.
const LINES_MAX: usize = 100_000;

/// Lines of stderr shown when a process does not get ready; the earlier ones are left out.
const ERROR_LINES_MAX: usize = 10;

/// A proxy binary with Envoy's command line.
#[derive(Clone, Debug)]
pub struct Binary {
    path: PathBuf,
    arguments: Vec<String>,
}

impl Binary {
    /// Asks the binary which of the optional arguments it knows: those that make Envoy write its
    /// access log at once and let several Envoys live beside each other.
    ///
    /// # Errors
    /// When it cannot be run at all.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        // The process runs in a folder of its own.
        let path = std::fs::canonicalize(&path).unwrap_or(path);
        let help = Command::new(&path)
            .arg("--help")
            .output()
            .with_context(|| format!("running {}", path.display()))?;
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        let mut arguments = Vec::new();
        if help.contains("--file-flush-interval-msec") {
            arguments.extend(["--file-flush-interval-msec".to_owned(), "5".to_owned()]);
        }
        if help.contains("--disable-hot-restart") {
            arguments.push("--disable-hot-restart".to_owned());
        }
        Ok(Self { path, arguments })
    }

    /// Where the binary is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The path of a workspace binary that cargo has put beside the running test.
///
/// # Errors
/// When it has not been built.
pub fn workspace_binary(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    test.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| anyhow!("{name} is not built: run `cargo build -p {name}`"))
}

/// Lines that a process has written, collected by a thread.
#[derive(Clone, Debug, Default)]
pub struct Lines(Arc<(Mutex<Vec<String>>, Condvar)>);

impl Lines {
    fn collect(source: impl Read + Send + 'static) -> (Self, JoinHandle<()>) {
        let lines = Self::default();
        let shared = lines.clone();
        let thread = std::thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            while source.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                shared.push(String::from_utf8_lossy(line.trim_ascii_end()).into_owned());
                line.clear();
            }
        });
        (lines, thread)
    }

    fn push(&self, line: String) {
        let (lines, changed) = &*self.0;
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES_MAX {
            lines.remove(0);
        }
        lines.push(line);
        changed.notify_all();
    }

    /// Everything so far.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        let (lines, _) = &*self.0;
        lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Removes and returns the lines up to the first that satisfies `is_last`, once there is one;
    /// `None` when none came before the deadline.
    pub fn take_through(&self, is_last: impl Fn(&str) -> bool) -> Option<Vec<String>> {
        let deadline = Deadline::default();
        let (lines, changed) = &*self.0;
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(at) = lines.iter().position(|line| is_last(line)) {
                return Some(lines.drain(..=at).collect());
            }
            let left = deadline.left()?;
            lines = changed
                .wait_timeout(lines, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// A running proxy. Dropping it kills the process and removes its folder.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    admin: Admin,
    listeners: BTreeMap<String, SocketAddr>,
    stdout: Lines,
    stderr: Lines,
    threads: Vec<JoinHandle<()>>,
    folder: Folder,
}

impl Proxy {
    /// Starts the binary on this configuration, with one worker, and waits until it is ready.
    /// The configuration must have an `admin` section; listeners may have port 0.
    ///
    /// # Errors
    /// When the process ends or is not ready in time; the error carries its stderr.
    pub fn start(binary: &Binary, yaml: &str) -> Result<Self> {
        Self::start_with(binary, yaml, ["--concurrency", "1"])
    }

    /// The same with arguments of the caller's choice.
    ///
    /// # Errors
    /// When the process ends or is not ready in time; the error carries its stderr.
    pub fn start_with<A: AsRef<OsStr>>(
        binary: &Binary,
        yaml: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Self> {
        let folder = Folder::create()?;
        let config = folder.0.join("bootstrap.yaml");
        let address = folder.0.join("admin-address");
        std::fs::write(&config, yaml)?;
        let mut child = Command::new(&binary.path)
            .arg("-c")
            .arg(&config)
            .arg("--admin-address-path")
            .arg(&address)
            .args(["-l", "warning"])
            // What the config names without a folder is this process's own.
            .current_dir(&folder.0)
            .args(&binary.arguments)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", binary.path.display()))?;
        let (stdout, out) = Lines::collect(child.stdout.take().context("no stdout")?);
        let (stderr, err) = Lines::collect(child.stderr.take().context("no stderr")?);
        let mut proxy = Self {
            child,
            admin: Admin::new(SocketAddr::from(([127, 0, 0, 1], 0))),
            listeners: BTreeMap::new(),
            stdout,
            stderr,
            threads: vec![out, err],
            folder,
        };
        proxy.become_ready(&address).with_context(|| {
            let stderr = proxy.stderr.all();
            let last = &stderr[stderr.len().saturating_sub(ERROR_LINES_MAX)..];
            let path = binary.path.display();
            format!("{path} did not get ready\n{}\n", last.join("\n"))
        })?;
        Ok(proxy)
    }

    fn become_ready(&mut self, address: &Path) -> Result<()> {
        let deadline = Deadline::default();
        let admin = wait::until(deadline, || {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(Err(anyhow!("the process ended: {status}")));
            }
            let text = std::fs::read_to_string(address).ok()?;
            let admin = Admin::new(text.trim().parse().ok()?);
            admin.is_ready().then_some(Ok(admin))
        });
        self.admin = admin.context("not ready before the deadline")??;
        self.listeners = self.admin.listeners()?;
        Ok(())
    }

    /// Its admin listener.
    #[must_use]
    pub fn admin(&self) -> Admin {
        self.admin
    }

    /// The real address of a listener.
    ///
    /// # Errors
    /// When no listener has this name.
    pub fn listener(&self, name: &str) -> Result<SocketAddr> {
        match self.listeners.get(name) {
            Some(address) => Ok(*address),
            None => bail!("no listener {name}"),
        }
    }

    /// What it has written to stdout: its access log, where the configuration says so.
    #[must_use]
    pub fn stdout(&self) -> &Lines {
        &self.stdout
    }

    /// What it has written to stderr.
    #[must_use]
    pub fn stderr(&self) -> &Lines {
        &self.stderr
    }

    /// A folder of its own, which goes with the process.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder.0
    }

    /// The process id, for signals and `/proc`.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the process ends by itself.
    ///
    /// # Errors
    /// When it is still there at the deadline.
    pub fn ended(&mut self) -> Result<ExitStatus> {
        wait::until(Deadline::default(), || self.child.try_wait().ok().flatten())
            .context("the process is still running")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A temporary folder that removes itself.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn create() -> Result<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mesh-e2e-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

//! Who runs, and with which config.

use std::{
    fmt, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use mesh_core::clock;

use super::{
    process::{Cores, Process},
    rig::{Files, Rig, UPSTREAMS},
    shape::{Fill, Shape},
};

/// A proxy that does not answer by then does not start.
const START_MAX: Duration = Duration::from_secs(10);

/// How often another port is tried, should somebody else have taken the first.
const TRIES: usize = 3;

/// Those that are compared, in the order of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    Relay,
    Nginx,
    Haproxy,
    Envoy,
    Mesh,
}

impl Contender {
    pub(crate) const ALL: [Self; 5] = [
        Self::Relay,
        Self::Nginx,
        Self::Haproxy,
        Self::Envoy,
        Self::Mesh,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Mesh => "mesh",
        }
    }

    /// A relay has no policies; Debian's nginx speaks no HTTP/2 to upstreams, and TCP only with a module more.
    pub(crate) fn can(self, shape: Shape, mode: Mode) -> bool {
        match self {
            Self::Relay => shape == Shape::Tcp || (shape == Shape::Http && mode == Mode::Plain),
            Self::Nginx => !matches!(shape, Shape::Tcp | Shape::Http2Both),
            Self::Haproxy | Self::Envoy | Self::Mesh => true,
        }
    }

    /// The template of its config.
    const fn config(self, shape: Shape, mode: Mode) -> Option<(&'static str, &'static str)> {
        macro_rules! template {
            ($name:literal) => {
                include_str!(concat!("../../config/", $name))
            };
        }
        Some(match (self, shape, mode) {
            (Self::Relay, ..) => return None,
            (Self::Nginx, _, Mode::Plain) => ("conf", template!("nginx-plain.conf")),
            (Self::Nginx, _, Mode::Policies) => ("conf", template!("nginx-policies.conf")),
            (Self::Haproxy, Shape::Tcp, _) => ("cfg", template!("haproxy-tcp.cfg")),
            (Self::Haproxy, _, Mode::Plain) => ("cfg", template!("haproxy-plain.cfg")),
            (Self::Haproxy, _, Mode::Policies) => ("cfg", template!("haproxy-policies.cfg")),
            (_, Shape::Tcp, _) => ("yaml", template!("envoy-tcp.yaml")),
            (_, _, Mode::Plain) => ("yaml", template!("envoy-plain.yaml")),
            (_, _, Mode::Policies) => ("yaml", template!("envoy-policies.yaml")),
        })
    }

    /// What its template leaves open for a shape.
    fn fill(self, shape: Shape, files: &Files) -> Fill {
        match self {
            Self::Relay => Fill::default(),
            Self::Nginx => Fill::nginx(shape, files),
            Self::Haproxy => Fill::haproxy(shape, files),
            Self::Envoy | Self::Mesh => Fill::envoy(shape, files),
        }
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// With or without policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Routing and balancing only.
    Plain,
    /// Retries, thresholds, outlier detection, a rate limit, timeouts and an access log.
    Policies,
}

impl Mode {
    pub(crate) const ALL: [Self; 2] = [Self::Plain, Self::Policies];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Policies => "policies",
        }
    }
}

/// Where everything is.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    /// Configs and logs.
    pub(crate) folder: PathBuf,
    /// Keys and certificates.
    pub(crate) files: Files,
    pub(crate) envoy: PathBuf,
    pub(crate) mesh: PathBuf,
    pub(crate) cores: Cores,
}

/// A contender that runs.
pub(crate) struct Running {
    pub(crate) contender: Contender,
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    /// From starting it to its first answer.
    pub(crate) start: Duration,
}

impl Site {
    /// Starts a contender and waits for its first answer, which comes from `rig`.
    pub(crate) fn start(
        &self,
        rig: &mut Rig,
        contender: Contender,
        shape: Shape,
        mode: Mode,
    ) -> Result<Running> {
        let mut result = self.try_start(rig, contender, shape, mode);
        for _ in 1..TRIES {
            if result.is_ok() {
                break;
            }
            result = self.try_start(rig, contender, shape, mode);
        }
        let log = self.file(contender, shape, mode, "out");
        result.with_context(|| format!("{contender} does not start; see {}", log.display()))
    }

    fn try_start(
        &self,
        rig: &mut Rig,
        contender: Contender,
        shape: Shape,
        mode: Mode,
    ) -> Result<Running> {
        let address = free_address()?;
        let config = self.write_config(contender, shape, mode, address, rig.upstreams())?;
        let command = self.command(contender, &config, address, rig.upstreams())?;
        let start: Instant = clock::now();
        let log = self.file(contender, shape, mode, "out");
        let mut process = Process::start(&command, self.cores, &log)?;
        let start = rig.first_answer(address, shape.first_ask(), start, START_MAX, || {
            process.check()
        })?;
        Ok(Running {
            contender,
            process,
            address,
            start,
        })
    }

    fn file(&self, contender: Contender, shape: Shape, mode: Mode, ending: &str) -> PathBuf {
        let name = format!("{contender}-{}-{}.{ending}", shape.name(), mode.name());
        self.folder.join(name)
    }

    fn write_config(
        &self,
        contender: Contender,
        shape: Shape,
        mode: Mode,
        listen: SocketAddr,
        upstreams: [SocketAddr; UPSTREAMS],
    ) -> Result<PathBuf> {
        let Some((ending, template)) = contender.config(shape, mode) else {
            return Ok(PathBuf::new());
        };
        let access_log = self.file(contender, shape, mode, "access.log");
        // Each start begins a new log: a long one would fill the disk.
        drop(fs::remove_file(&access_log));
        let fill = contender.fill(shape, &self.files);
        let text = template
            .replace("@LISTEN_FLAGS@", &fill.listen_flags)
            .replace("@DOWNSTREAM@", &fill.downstream)
            .replace("@UPSTREAM@", &fill.upstream)
            .replace("@LISTEN_PORT@", &listen.port().to_string())
            .replace("@UPSTREAM_PORT_0@", &upstreams[0].port().to_string())
            .replace("@UPSTREAM_PORT_1@", &upstreams[1].port().to_string())
            .replace("@ACCESS_LOG@", &access_log.to_string_lossy())
            .replace("@FOLDER@", &self.folder.to_string_lossy());
        let path = self.file(contender, shape, mode, ending);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    fn command(
        &self,
        contender: Contender,
        config: &Path,
        listen: SocketAddr,
        upstreams: [SocketAddr; UPSTREAMS],
    ) -> Result<Command> {
        let mut command = Command::new(match contender {
            Contender::Relay => std::env::current_exe()?,
            Contender::Nginx => found("nginx"),
            Contender::Haproxy => found("haproxy"),
            Contender::Envoy => self.envoy.clone(),
            Contender::Mesh => self.mesh.clone(),
        });
        match contender {
            Contender::Relay => {
                command
                    .arg("--relay")
                    .arg(listen.to_string())
                    .arg("--relay-to")
                    .arg(upstreams[0].to_string());
            }
            Contender::Nginx => {
                command.arg("-c").arg(config);
            }
            Contender::Haproxy => {
                command.arg("-db").arg("-f").arg(config);
            }
            Contender::Envoy | Contender::Mesh => {
                command
                    .args([
                        "--concurrency",
                        "1",
                        "--disable-hot-restart",
                        "-l",
                        "warning",
                    ])
                    .args(["--file-flush-interval-msec", "1000", "-c"])
                    .arg(config);
            }
        }
        Ok(command)
    }

    /// What it says it is.
    pub(crate) fn version(&self, contender: Contender) -> String {
        let (program, flag) = match contender {
            Contender::Relay => return "in this repository".to_owned(),
            Contender::Nginx => (found("nginx"), "-v"),
            Contender::Haproxy => (found("haproxy"), "-v"),
            Contender::Envoy => (self.envoy.clone(), "--version"),
            Contender::Mesh => (self.mesh.clone(), "--version"),
        };
        let Ok(output) = Command::new(program).arg(flag).output() else {
            return "not there".to_owned();
        };
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().map(str::trim).find(|line| !line.is_empty());
        line.unwrap_or("?").to_owned()
    }
}

/// Debian puts servers where only root's path looks.
fn found(program: &str) -> PathBuf {
    let place = Path::new("/usr/sbin").join(program);
    if place.exists() {
        place
    } else {
        PathBuf::from(program)
    }
}

/// A port that the kernel chose, and that is free at this moment.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?)
}

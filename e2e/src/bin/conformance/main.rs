//! mesh-proxy as h2spec, curl, nghttp, grpcio and websockets see it. Run it with `cargo xtask conformance`, which
//! gets them. Each check has a name and is counted.

mod config;

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use e2e::process::{Binary, Proxy};

const GRPC: &str = include_str!("grpc_peers.py");
const WEBSOCKET: &str = include_str!("websocket_peers.py");

/// The checks of h2spec in strict mode: fewer means that it did not run them.
const H2SPEC_CHECKS: usize = 146;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [mesh, h2spec, python] = &arguments[..] else {
        bail!("usage: conformance MESH-PROXY H2SPEC PYTHON");
    };
    let grpc = Server::start(python, GRPC)?;
    let websocket = Server::start(python, WEBSOCKET)?;
    let yaml = config::bootstrap(grpc.port, websocket.port);
    // A tunnel goes through both, by an extended CONNECT between them.
    let inner = Proxy::start(&Binary::new(mesh)?, &yaml)?;
    let port = inner.listener("websocket_http2")?.port();
    let outer = Proxy::start(&Binary::new(mesh)?, &config::outer(port))?;

    let mut tally = Tally::default();
    h2spec_checks(&mut tally, h2spec, inner.listener("h2spec")?.port())?;
    curl_check(&mut tally, inner.listener("h2spec")?.port())?;
    nghttp_checks(&mut tally, inner.listener("h2spec")?.port())?;
    let all = [
        ("grpc", GRPC, inner.listener("http2")?),
        ("websocket", WEBSOCKET, inner.listener("websocket")?),
        (
            "websocket over HTTP/2",
            WEBSOCKET,
            outer.listener("websocket")?,
        ),
    ];
    for (what, script, address) in all {
        peer_checks(&mut tally, what, python, script, address.port())?;
    }
    let Tally { passed, failed } = tally;
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}

#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
}

impl Tally {
    fn note(&mut self, name: &str, problem: Option<&str>) {
        match problem {
            None => {
                println!("passed: {name}");
                self.passed += 1;
            }
            Some(problem) => {
                println!("FAILED: {name}: {problem}");
                self.failed += 1;
            }
        }
    }
}

/// A server in Python, which ends with its standard input.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(python: &Path, script: &str) -> Result<Self> {
        let mut child = Command::new(python)
            .args(["-c", script, "serve"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let output = child.stdout.take().context("no stdout")?;
        let mut server = Self { child, port: 0 };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        server.port = line.trim().parse().context("the server gave no port")?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // When it has ended by itself, there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn h2spec_checks(tally: &mut Tally, h2spec: &Path, port: u16) -> Result<()> {
    let output = Command::new(h2spec)
        .args([
            "-S",
            "-h",
            "127.0.0.1",
            "-P",
            "/direct",
            "-p",
            &port.to_string(),
        ])
        .output()
        .context("running h2spec")?;
    let text = String::from_utf8_lossy(&output.stdout);
    // The last line: `146 tests, 146 passed, 0 skipped, 0 failed`.
    let summary = text.lines().rfind(|line| line.contains(" tests, "));
    let summary = summary.context("h2spec gave no summary")?;
    let wanted = format!("{H2SPEC_CHECKS} tests, {H2SPEC_CHECKS} passed, 0 skipped, 0 failed");
    let good = summary.trim() == wanted && output.status.success();
    if !good {
        println!("{text}");
    }
    tally.note(&format!("h2spec: {wanted}"), (!good).then_some(summary));
    Ok(())
}

fn curl_check(tally: &mut Tally, port: u16) -> Result<()> {
    let url = format!("http://127.0.0.1:{port}/direct");
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "30", "--http2-prior-knowledge"])
        .args(["-w", " %{http_code} %{http_version}", &url])
        .output()
        .context("running curl")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let problem = (text != "direct 200 2").then_some(&*text);
    tally.note("curl --http2-prior-knowledge", problem);
    Ok(())
}

/// nghttp2's client: what Envoy itself speaks HTTP/2 with.
fn nghttp_checks(tally: &mut Tally, port: u16) -> Result<()> {
    /// Streams at once.
    const STREAMS: usize = 50;
    let url = format!("http://127.0.0.1:{port}/direct");
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let many = format!("--multiply={STREAMS}");
    let cases: [(&str, &[&str], usize); 3] = [
        ("one request", &[], 1),
        ("streams at once", &[&many], STREAMS),
        ("a request with a body", &["--data", manifest], 1),
    ];
    for (name, arguments, answers) in cases {
        let output = Command::new("nghttp")
            .arg("--timeout=30")
            .args(arguments)
            .arg(&url)
            .output()
            .context("running nghttp")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let good = output.status.success() && text == "direct".repeat(answers);
        tally.note(&format!("nghttp: {name}"), (!good).then_some(&*text));
    }
    Ok(())
}

fn peer_checks(t: &mut Tally, what: &str, python: &Path, script: &str, port: u16) -> Result<()> {
    let output = Command::new(python)
        .args(["-c", script, "check", &port.to_string()])
        .stderr(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut ran = 0;
    for line in text.lines() {
        match line.split_once(' ') {
            Some(("pass", name)) => t.note(&format!("{what}: {name}"), None),
            Some(("fail", rest)) => {
                let (name, why) = rest.split_once(": ").unwrap_or((rest, ""));
                t.note(&format!("{what}: {name}"), Some(why));
            }
            _ => bail!("{what}: not a check: {line}"),
        }
        ran += 1;
    }
    ensure!(
        output.status.success() && ran > 0,
        "{what}: {}",
        output.status
    );
    Ok(())
}

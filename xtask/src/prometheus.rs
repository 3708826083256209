//! `cargo xtask prometheus`: `/stats/prometheus` of a running mesh-proxy, held against `promtool check metrics`.
//!
//! promtool is the Debian package `prometheus`, which is installed when it is missing (as root). When it
//! cannot be had, the job fails: it never skips.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::cargo::{Cargo, Metadata};
use crate::packages::install;

/// What promtool says about Envoy's names, and hence about ours, which must be the same.
const EXPECTED: [&str; 5] = [
    "counter metrics should have \"_total\" suffix",
    "non-counter metrics should not have \"_total\" suffix",
    "no help text",
    "metric names should not contain abbreviated units",
    "non-histogram and non-summary metrics should not have",
];

/// How long the proxy may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn run() -> Result<()> {
    install(&[("promtool", "prometheus")])?;
    Cargo::new(["build", "--package", "mesh-proxy"]).run()?;
    let target = Metadata::read()?.target();
    let proxy = Proxy::start(&target)?;
    for path in [
        "/stats/prometheus",
        "/stats/prometheus?histogram_buckets=summary",
        "/stats/prometheus?text_readouts",
    ] {
        let page = proxy.page(path)?;
        check(path, &page)?;
    }
    Ok(())
}

/// A parse error fails, and so does any complaint that Envoy's own names do not draw.
fn check(path: &str, page: &str) -> Result<()> {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = promtool.stdin.take().context("promtool's stdin")?;
    stdin.write_all(page.as_bytes())?;
    drop(stdin);
    let output = promtool.wait_with_output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let fine = |line: &&str| EXPECTED.iter().any(|expected| line.contains(expected));
    let complaints: Vec<&str> = said.lines().filter(|line| !fine(line)).collect();
    // 3: it understood everything, and has opinions.
    ensure!(
        matches!(output.status.code(), Some(0 | 3)) && complaints.is_empty(),
        "{path}: promtool: {}\n{}",
        output.status,
        complaints.join("\n")
    );
    let samples = page.lines().filter(|line| !line.starts_with('#')).count();
    ensure!(samples > 100, "{path}: only {samples} samples");
    println!("{path}: promtool accepts {samples} samples");
    Ok(())
}

/// The demo, with its three upstreams inside.
struct Proxy {
    child: Child,
    admin: String,
}

impl Proxy {
    #[expect(
        clippy::disallowed_methods,
        reason = "a job for people: it waits for a process, and no test depends on it"
    )]
    fn start(target: &Path) -> Result<Self> {
        let address = target.join("prometheus-admin-address");
        let _ = std::fs::remove_file(&address);
        let child = Command::new(target.join("debug/mesh-proxy"))
            .args(["--config-yaml", BOOTSTRAP, "--concurrency", "2"])
            .arg("--admin-address-path")
            .arg(&address)
            .spawn()?;
        let mut proxy = Self {
            child,
            admin: String::new(),
        };
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = proxy.child.try_wait()? {
                bail!("mesh-proxy ended: {status}");
            }
            proxy.admin = std::fs::read_to_string(&address).unwrap_or_default();
            if !proxy.admin.is_empty() && proxy.page("/ready").is_ok_and(|page| page == "LIVE\n") {
                return Ok(proxy);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("mesh-proxy did not get ready")
    }

    fn page(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(&self.admin)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        ensure!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        Ok(body.to_owned())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A cluster whose name has every character that a label must escape, and tags of one's own.
const BOOTSTRAP: &str = r#"
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
stats_config:
  stats_tags: [{tag_name: fixed.tag, fixed_value: "v\"1"}]
  histogram_bucket_settings: [{match: {prefix: http.}, buckets: [1, 10, 100]}]
static_resources:
  listeners:
  - name: ingress
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {prefix: /}
                direct_response: {status: 200}
  clusters:
  - name: "odd \"name\" \\ with.dots|and more"
    type: STATIC
    outlier_detection: {}
    load_assignment:
      cluster_name: odd
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}}]}]
  - name: plain
    type: STATIC
    circuit_breakers: {thresholds: [{track_remaining: true}]}
    load_assignment:
      cluster_name: plain
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}}]}]
"#;

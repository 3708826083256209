//! `--demo`: an embedded bootstrap in front of three embedded upstreams, one of which fails a third of its
//! answers.

mod upstream;

use anyhow::Context as _;
use mesh_config::LoadOptions;

use crate::{flags::Flags, process};

const BOOTSTRAP: &str = include_str!("demo.yaml");

/// Runs until it is interrupted.
pub(crate) async fn run(flags: Flags) -> anyhow::Result<()> {
    let mut ports = Vec::new();
    for (name, fails) in [("a", false), ("b", false), ("c", true)] {
        ports.push(
            upstream::start(name, fails)
                .await
                .context("the demo's upstream")?,
        );
    }
    let mut text = BOOTSTRAP.to_owned();
    for (placeholder, port) in ["PORT_A", "PORT_B", "PORT_C"].iter().zip(&ports) {
        text = text.replace(placeholder, &port.to_string());
    }
    let config = mesh_config::load(&crate::embedded(&text), &LoadOptions::default())
        .context("the demo's bootstrap")?;
    println!("{}", what_to_try(&ports));
    process::run(flags, config, None).await
}

fn what_to_try(ports: &[u16]) -> String {
    format!(
        "mesh-proxy demo: three upstreams on 127.0.0.1 ports {ports:?}; the last one fails a third of its answers.

Try, in another terminal:
  curl -i http://127.0.0.1:10000/             an answer that a retry may have saved (see x-envoy-attempt-count)
  curl -i http://127.0.0.1:10000/raw          the same without retries: every ninth fails
  curl -i http://127.0.0.1:10000/limited      five in a burst, then 429
  curl -i http://127.0.0.1:10000/hello        an answer from the route itself
  curl -s http://127.0.0.1:9901/stats?filter=retry
  curl -s http://127.0.0.1:9901/clusters

The access log follows; its last column says what was decided, and on which numbers. Ctrl-C ends the demo.
"
    )
}

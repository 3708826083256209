//! A gRPC client resolves `xds:///` names from our server, and calls a backend that it finds so.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Result, ensure};
use mesh_xds::{
    ResourceType::{Cluster, Endpoints, Listener, RouteConfiguration},
    server::{NodeId, Snapshot, SnapshotCache},
};

use e2e::{
    control::Control,
    resources::{api_listener, cluster, endpoints, routes},
};

const SCRIPT: &str = include_str!("grpc_client.py");

pub(crate) fn run(python: &Path) -> Result<()> {
    let cache = SnapshotCache::new(NodeId, "mesh");
    let control = Control::start(cache.clone(), SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let bootstrap = format!(
        r#"{{"xds_servers": [{{"server_uri": "{}", "channel_creds": [{{"type": "insecure"}}],
            "server_features": ["xds_v3"]}}], "node": {{"id": "interop", "cluster": "tests"}}}}"#,
        control.address
    );
    // The backend is in the script; it says where, and is told when its address is published.
    let mut child = Command::new(python)
        .args(["-c", SCRIPT])
        .env("GRPC_XDS_BOOTSTRAP_CONFIG", bootstrap)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let result = talk(&mut child, &cache);
    // When it has ended by itself, there is nothing to kill.
    let _ = child.kill();
    let _ = child.wait();
    result
}

fn talk(child: &mut std::process::Child, cache: &SnapshotCache) -> Result<()> {
    use std::io::{BufRead as _, BufReader, Write as _};
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        anyhow::bail!("no pipes");
    };
    let mut lines = BufReader::new(output).lines();
    let mut next = || lines.next().unwrap_or_else(|| Ok("it ended".to_owned()));
    let backends: Vec<SocketAddr> = vec![next()?.parse()?, next()?.parse()?];
    for (backend, name) in backends.into_iter().zip(["first", "second"]) {
        let snapshot = Snapshot::new()
            .with(Cluster, vec![cluster(name)])
            .with(Endpoints, vec![endpoints(name, backend)])
            .with(Listener, vec![api_listener("greeter", "greeter")])
            .with(RouteConfiguration, vec![routes("greeter", name)]);
        cache.set_snapshot("interop", snapshot);
        writeln!(input, "{name}")?;
        let answer = next()?;
        ensure!(answer == format!("answered by {name}"), "{answer}");
    }
    Ok(())
}

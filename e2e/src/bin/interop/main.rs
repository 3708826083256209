//! Real peers on the other side. xDS: Envoy and gRPC take config from our server, our client takes it from go-control-plane,
//! and mesh-proxy is held to the same as Envoy. mTLS: between mesh-proxy and Envoy, and from OpenSSL. mesh-control reads
//! endpoints from etcd. Run it with `cargo xtask interop`, which installs and builds the peers.

mod envoy;
mod etcd;
mod go;
mod grpc;
mod tls;

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use mesh_xds::Variant;

const VARIANTS: [Variant; 2] = [Variant::StateOfTheWorld, Variant::Delta];

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut ran = 0;
    while let Some(peer) = arguments.next() {
        let path: PathBuf = arguments
            .next()
            .with_context(|| format!("{peer} needs a path"))?
            .into();
        match peer.as_str() {
            "--envoy" => each("Envoy from our server", |variant| {
                envoy::run(&path, variant)
            })?,
            "--mesh" => each("mesh-proxy from our server", |variant| {
                envoy::run(&path, variant)
            })?,
            "--go" => each("our client from go-control-plane", |variant| {
                go::run(&path, variant)
            })?,
            "--etcd" => {
                etcd::run(&path).context("endpoints from etcd")?;
                println!("passed: endpoints from etcd");
            }
            "--grpc" => {
                grpc::run(&path).context("gRPC from our server")?;
                println!("passed: gRPC from our server");
            }
            "--tls" => {
                let envoy = arguments
                    .next()
                    .context("--tls needs mesh-proxy and Envoy")?;
                tls::run(&path, envoy.as_ref())?;
            }
            _ => bail!("unknown peer {peer}"),
        }
        ran += 1;
    }
    ensure!(ran > 0, "no peer was given");
    Ok(())
}

fn each(what: &str, run: impl Fn(Variant) -> Result<()>) -> Result<()> {
    for variant in VARIANTS {
        run(variant).with_context(|| format!("{what}, {variant:?}"))?;
        println!("passed: {what}, {variant:?}");
    }
    Ok(())
}

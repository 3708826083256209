//! `cargo xtask conformance`: HTTP/2, gRPC and WebSocket as other implementations see them.
//!
//! h2spec comes from the Go module proxy, grpcio and websockets from PyPI; all are put below the target
//! folder. curl and nghttp are Debian packages. What cannot be had fails the job.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cargo::{Cargo, Metadata};
use crate::interop::{GRPC, install_python};
use crate::packages::install;

const H2SPEC: &str = "github.com/summerwind/h2spec/cmd/h2spec";
const H2SPEC_VERSION: &str = "v2.2.1+incompatible";
const WEBSOCKETS: &str = "websockets==17.0";

pub(crate) fn run() -> Result<()> {
    install(&[("curl", "curl"), ("nghttp", "nghttp2-client")])?;
    let target = Metadata::read()?.target();
    let folder = target.join("conformance");
    let h2spec = build_h2spec(&folder)?;
    let packages = [GRPC, WEBSOCKETS];
    let python = install_python(&folder.join("python"), &packages, "grpc, websockets")?;
    Cargo::new(["build", "--package", "mesh-proxy"]).run()?;
    let paths = [target.join("debug/mesh-proxy"), h2spec, python];
    let run = ["run", "--quiet", "--package", "e2e", "--bin", "conformance"];
    let paths = paths.map(|path| path.display().to_string());
    Cargo::new(run).arguments(&["--"]).arguments(&paths).run()
}

fn build_h2spec(folder: &Path) -> Result<PathBuf> {
    let binary = folder.join("h2spec");
    if binary.is_file() {
        return Ok(binary);
    }
    let module = folder.join("h2spec-src");
    std::fs::create_dir_all(&module)?;
    std::fs::write(module.join("go.mod"), "module conformance\n")?;
    let package = format!("{H2SPEC}@{H2SPEC_VERSION}");
    let go = |arguments: &[&str]| -> Result<()> {
        let status = Command::new("go")
            .args(arguments)
            .current_dir(&module)
            .status()
            .context("running go (it must be on the path)")?;
        ensure!(status.success(), "go {arguments:?} failed: {status}");
        Ok(())
    };
    go(&["get", &package])?;
    go(&["build", "-o", "../h2spec", H2SPEC])?;
    Ok(binary)
}

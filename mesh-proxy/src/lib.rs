//! The mesh sidecar.
//!
//! `mesh-proxy -c bootstrap.yaml` reads an Envoy v3 bootstrap and serves it. This crate is thin: flags,
//! workers, listeners, admin and drain; what happens to a request is in `mesh-client` and the policies.
//!
//! [`main`] is all of it, so that demos and tests can have sidecars inside their own process.

mod admin;
mod commands;
mod demo;
mod drain;
mod flags;
mod flush;
mod listener;
mod logging;
mod memory;
mod process;
mod server_stats;
mod worker;
mod xds;

use std::{ffi::OsString, process::ExitCode};

use anyhow::{Context as _, bail};
use clap::Parser as _;
use mesh_config::{
    LoadOptions,
    dynamic::Assembly,
    language::{Source, load_bootstrap},
    model::Config,
};

use flags::{Flags, Mode};

/// Runs with these arguments, the first of which is the program's name, until a signal or the admin ends it.
///
/// Arguments that make no sense end the whole process with an explanation, as `--help` does.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let flags = Flags::parse_from(arguments);
    let Some(level) = logging::parse(&flags.log_level) else {
        eprintln!("error: unknown log level {:?}", flags.log_level);
        return ExitCode::FAILURE;
    };
    logging::start(level);
    match run(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> anyhow::Result<()> {
    // The control thread: admin, names, sweeps. Workers have runtimes of their own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    if let Some(command) = &flags.command {
        return runtime.block_on(commands::run(command));
    }
    if flags.demo {
        return runtime.block_on(demo::run(flags));
    }
    let source = match (&flags.config_path, &flags.config_yaml) {
        (Some(path), _) => Source::file(path)?,
        (None, Some(text)) => Source::text("--config-yaml", text.clone()),
        (None, None) => bail!("give a bootstrap with -c FILE or --config-yaml TEXT, or try --demo"),
    };
    let (config, assembly) = load(&source, &flags)?;
    let refused = report(&config, &flags)?;
    if flags.mode == Mode::Validate {
        println!("configuration '{}' OK", source.name());
        return Ok(());
    }
    if let Some(reason) = refused {
        bail!("{reason}");
    }
    memory::collect();
    runtime.block_on(process::run(flags, config, assembly))
}

/// The config, and what more comes to it if there is a control plane.
fn load(source: &Source, flags: &Flags) -> anyhow::Result<(Config, Option<Assembly>)> {
    let refused = "the bootstrap was refused";
    let mut options = LoadOptions::default();
    options.service_node.clone_from(&flags.service_node);
    options.service_cluster.clone_from(&flags.service_cluster);
    let loaded = load_bootstrap(source).context(refused)?;
    let config = mesh_config::convert(&loaded, &options).context(refused)?;
    let is_dynamic = config.is_dynamic();
    let assembly = is_dynamic.then(|| Assembly::new(&loaded, &config, &options, flags.strict));
    Ok((config, assembly))
}

/// Says what is known but not enforced. `Some` is why the proxy must not run with this bootstrap: it would
/// leave out something that protects somebody.
fn report(config: &Config, flags: &Flags) -> anyhow::Result<Option<String>> {
    for entry in &config.report.entries {
        if entry.security {
            tracing::error!("not supported, and about security: {entry}");
        } else {
            tracing::warn!("not enforced: {entry}");
        }
    }
    if flags.strict && !config.report.is_empty() {
        bail!(
            "--strict: {} fields are not enforced; see above",
            config.report.entries.len()
        );
    }
    let refused: Vec<String> = config.report.security().map(ToString::to_string).collect();
    Ok((!refused.is_empty()).then(|| {
        format!(
            "refusing to run without what protects this config: {}",
            refused.join("; ")
        )
    }))
}

/// The embedded bootstrap, as a source with a name for errors.
pub(crate) fn embedded(text: &str) -> Source {
    Source::text("the demo's bootstrap", text.to_owned())
}

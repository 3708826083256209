//! Commands for people; without one, a bootstrap is served.

mod dev_ca;
mod tls_probe;

use clap::Subcommand;

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Command {
    DevCa(dev_ca::DevCaFlags),
    /// See why TLS works, or does not.
    #[command(subcommand)]
    Tls(tls_probe::TlsCommand),
}

pub(crate) async fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::DevCa(flags) => dev_ca::run(flags),
        Command::Tls(tls_probe::TlsCommand::Probe(flags)) => {
            tls_probe::run(flags, &mut std::io::stdout()).await
        }
    }
}

use std::{net::SocketAddr, path::PathBuf};

use anyhow::bail;
use clap::{Parser, ValueEnum};
use mesh_control::{GroupBy, TlsFiles, registry::PREFIX_DEFAULT};

/// A control plane for sidecars: reads services from a file, and serves them as Envoy's resources.
#[derive(Debug, Clone, Parser)]
#[command(name = "mesh-control", version, max_term_width = 100)]
pub(crate) struct Flags {
    /// A mesh file: services, endpoints, routes, policies. It is read again when it changes.
    #[arg(short = 'm', long, value_name = "FILE")]
    pub(crate) mesh: Vec<PathBuf>,

    /// A directory of Envoy's own resources, as YAML or JSON. It is read again when something changes.
    #[arg(short = 'r', long, value_name = "DIRECTORY")]
    pub(crate) resources: Vec<PathBuf>,

    /// Servers of an etcd with endpoints of the mesh's services, such as http://127.0.0.1:2379; the first that
    /// answers is asked.
    #[arg(long, value_name = "URI", value_delimiter = ',')]
    pub(crate) etcd: Vec<String>,

    /// What the keys of endpoints begin with: PREFIX<service>/<instance>.
    #[arg(long, default_value = PREFIX_DEFAULT, value_name = "PREFIX")]
    pub(crate) etcd_prefix: String,

    /// Serve, or only say whether what is there is good.
    #[arg(long, value_enum, default_value_t = Mode::Serve)]
    pub(crate) mode: Mode,

    /// Where proxies connect.
    #[arg(long, default_value = "127.0.0.1:18000", value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,

    /// Where the admin pages are.
    #[arg(long, default_value = "127.0.0.1:18001", value_name = "ADDRESS")]
    pub(crate) admin: SocketAddr,

    /// Which part of a node says what it gets.
    #[arg(long, value_enum, default_value_t = By::Cluster)]
    pub(crate) group_by: By,

    /// Refuse what sidecars know but do not enforce.
    #[arg(long)]
    pub(crate) strict: bool,

    /// The certificate chain that proxies are shown; they are served in plaintext without one.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// Its key.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,

    /// The CAs of proxies, which then must show a certificate.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_client_ca: Option<PathBuf>,

    /// How a URI in the certificates of proxies must begin, such as spiffe://example.org/. The rest of it has to be
    /// what the proxy says that it is: its service, or its id with --group-by id.
    #[arg(long, value_name = "PREFIX", requires = "tls_client_ca")]
    pub(crate) tls_client_uri_prefix: Option<String>,

    /// How often what proxies acknowledged is compared with what is published.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub(crate) resync_interval_s: u64,

    /// How often proxies report load.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    pub(crate) load_interval_s: u64,

    /// Write the address where proxies connect into this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) listen_address_path: Option<PathBuf>,

    /// Write the address of the admin pages into this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_address_path: Option<PathBuf>,

    /// trace, debug, info, warn, error or off.
    #[arg(short = 'l', long, default_value = "info", value_name = "LEVEL")]
    pub(crate) log_level: tracing_subscriber::filter::LevelFilter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Serve proxies.
    Serve,
    /// Read everything, say what is wrong, and exit.
    Validate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum By {
    /// `node.cluster`, the service.
    Cluster,
    /// `node.id`.
    Id,
}

impl From<By> for GroupBy {
    fn from(by: By) -> Self {
        match by {
            By::Cluster => Self::Cluster,
            By::Id => Self::Id,
        }
    }
}

impl Flags {
    pub(crate) fn tls_files(&self) -> anyhow::Result<Option<TlsFiles>> {
        match (&self.tls_cert, &self.tls_key) {
            (None, None) => Ok(None),
            (Some(chain), Some(key)) => Ok(Some(TlsFiles {
                certificate_chain: chain.clone(),
                private_key: key.clone(),
                client_ca: self.tls_client_ca.clone(),
                client_uri_prefix: self.tls_client_uri_prefix.clone(),
            })),
            _ => bail!("--tls-cert and --tls-key go together"),
        }
    }
}

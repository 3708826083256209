use std::{
    fmt,
    fs::File,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use hickory_resolver::{
    Hosts, Resolver as Hickory, TokioResolver,
    config::{
        ConnectionConfig, NameServerConfig, ProtocolConfig, ResolveHosts,
        ResolverConfig as HickoryConfig, ResolverOpts,
    },
    net::runtime::TokioRuntimeProvider,
    proto::{
        op::Query,
        rr::{Name, Record, RecordType},
    },
    system_conf,
};

use super::DnsError;

/// How many addresses one answer can have; the rest is left out.
pub const ADDRESSES_MAX: usize = 2048;

/// How many name servers can be named; more are refused.
pub const RESOLVERS_MAX: usize = 16;

/// Which addresses are wanted.
///
/// # Envoy
/// `Cluster.dns_lookup_family`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DnsLookupFamily {
    /// IPv6 ones, or else IPv4 ones. `AUTO`.
    #[default]
    Auto,
    /// `V4_ONLY`.
    V4Only,
    /// `V6_ONLY`.
    V6Only,
    /// IPv4 ones, or else IPv6 ones. `V4_PREFERRED`.
    V4Preferred,
    /// Both, IPv6 ones first. `ALL`.
    All,
}

/// How names are resolved.
///
/// # Envoy
/// `CaresDnsResolverConfig`, as `typed_dns_resolver_config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolverConfig {
    /// Name servers, at most [`RESOLVERS_MAX`]; those of `/etc/resolv.conf` when empty. Envoy:
    /// `resolvers[].socket_address`.
    pub resolvers: Vec<SocketAddr>,
    /// Whether names are tried as they are only, without the search domains of `/etc/resolv.conf`;
    /// default false. Envoy: `dns_resolver_options.no_default_search_domain`.
    pub no_default_search_domain: bool,
    /// Whether to ask by TCP at once rather than after a truncated answer; default false. Envoy:
    /// `dns_resolver_options.use_tcp_for_dns_lookups`.
    pub use_tcp_for_dns_lookups: bool,
    /// How long one question waits for its answer; default 5 s. Envoy: `query_timeout_seconds`.
    pub query_timeout: Duration,
    /// How often a question is asked; default 4, at least 1. Envoy: `query_tries`.
    pub query_tries: u32,
    /// How long a resolution may take with all its questions (tries, families, search domains); default
    /// 20 s, which is four tries of 5 s.
    pub timeout: Duration,
    /// The hosts file, read anew at each resolution; none is fine. A name that it has is not asked for.
    /// Default `/etc/hosts`.
    pub hosts_path: Option<PathBuf>,
}

impl Default for ResolverConfig {
    fn default() -> Self {
        Self {
            resolvers: Vec::new(),
            no_default_search_domain: false,
            use_tcp_for_dns_lookups: false,
            query_timeout: Duration::from_secs(5),
            query_tries: 4,
            timeout: Duration::from_secs(20),
            hosts_path: Some(PathBuf::from("/etc/hosts")),
        }
    }
}

/// A resolver that cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidResolver(String);

impl fmt::Display for InvalidResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidResolver {}

/// Addresses of a name; there is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// At most [`ADDRESSES_MAX`], in the name server's order.
    pub addresses: Vec<IpAddr>,
    /// How long they may be relied on: the shortest of all records that led to them. Zero when nothing
    /// says so, as for the hosts file.
    pub ttl: Duration,
}

/// Asks name servers. Cloning shares the connections to them.
///
/// It keeps no answer: whoever asks again gets what the name server says then. `/etc/resolv.conf` is
/// read once.
#[derive(Clone)]
pub struct Resolver {
    inner: TokioResolver,
    timeout: Duration,
    hosts_path: Option<Arc<PathBuf>>,
}

impl Resolver {
    /// A resolver for the runtime it is used on.
    ///
    /// # Errors
    /// When there are more than [`RESOLVERS_MAX`] name servers.
    pub fn new(config: &ResolverConfig) -> Result<Self, InvalidResolver> {
        if config.resolvers.len() > RESOLVERS_MAX {
            return Err(InvalidResolver(format!(
                "{} resolvers, of which at most {RESOLVERS_MAX} are allowed",
                config.resolvers.len()
            )));
        }
        let (servers, options) = hickory_config(config);
        let mut builder = Hickory::builder_with_config(servers, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        let inner = builder
            .build()
            .map_err(|error| InvalidResolver(error.to_string()))?;
        Ok(Self {
            inner,
            timeout: config.timeout,
            hosts_path: config.hosts_path.clone().map(Arc::new),
        })
    }

    /// The addresses of `host`: a name, or an address, which is its own answer.
    ///
    /// # Errors
    /// When there is none, or nobody says in time.
    ///
    /// # Cancel safety
    /// Dropping the future forgets the questions.
    pub async fn resolve(&self, host: &str, family: DnsLookupFamily) -> Result<Answer, DnsError> {
        if let Ok(address) = host.parse() {
            return Ok(Answer {
                addresses: vec![address],
                ttl: Duration::ZERO,
            });
        }
        let name = Name::from_str_relaxed(host)
            .map_err(|error| DnsError::InvalidName(error.to_string()))?;
        if let Some(addresses) = self.hosts(&name, family) {
            return Ok(Answer {
                addresses,
                ttl: Duration::ZERO,
            });
        }
        tokio::time::timeout(self.timeout, self.ask(name, family))
            .await
            .unwrap_or(Err(DnsError::Timeout))
    }

    /// What the hosts file says, if it knows the name in a family that will do.
    fn hosts(&self, name: &Name, family: DnsLookupFamily) -> Option<Vec<IpAddr>> {
        let file = File::open(self.hosts_path.as_deref()?).ok()?;
        let mut hosts = Hosts::default();
        hosts.read_hosts_conf(file).ok()?;
        let known = |record_type| {
            let lookup = hosts.lookup_static_host(&Query::query(name.clone(), record_type));
            lookup.map_or_else(Vec::new, |lookup| addresses(lookup.answers()))
        };
        let (v4, v6) = (known(RecordType::A), known(RecordType::AAAA));
        let mut found = match family {
            DnsLookupFamily::V4Only => v4,
            DnsLookupFamily::V6Only => v6,
            DnsLookupFamily::Auto if v6.is_empty() => v4,
            DnsLookupFamily::Auto => v6,
            DnsLookupFamily::V4Preferred if v4.is_empty() => v6,
            DnsLookupFamily::V4Preferred => v4,
            DnsLookupFamily::All => [v6, v4].concat(),
        };
        found.truncate(ADDRESSES_MAX);
        (!found.is_empty()).then_some(found)
    }

    async fn ask(&self, name: Name, family: DnsLookupFamily) -> Result<Answer, DnsError> {
        let (v4, v6) = (RecordType::A, RecordType::AAAA);
        match family {
            DnsLookupFamily::V4Only => self.ask_for(name, v4).await,
            DnsLookupFamily::V6Only => self.ask_for(name, v6).await,
            DnsLookupFamily::Auto => self.ask_for_either(name, v6, v4).await,
            DnsLookupFamily::V4Preferred => self.ask_for_either(name, v4, v6).await,
            DnsLookupFamily::All => {
                let both = (self.ask_for(name.clone(), v6), self.ask_for(name, v4));
                match tokio::join!(both.0, both.1) {
                    (Ok(a), Ok(b)) => Ok(a.and(b)),
                    (Ok(answer), Err(_)) | (Err(_), Ok(answer)) => Ok(answer),
                    (Err(a), Err(b)) => Err(a.or(b)),
                }
            }
        }
    }

    async fn ask_for_either(
        &self,
        name: Name,
        first: RecordType,
        second: RecordType,
    ) -> Result<Answer, DnsError> {
        let error = match self.ask_for(name.clone(), first).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        self.ask_for(name, second)
            .await
            .map_err(|second| error.or(second))
    }

    async fn ask_for(&self, name: Name, record_type: RecordType) -> Result<Answer, DnsError> {
        // Its size of zero lets an answer linger in the cache for a moment; this does not.
        self.inner.clear_cache();
        let lookup = self.inner.lookup(name, record_type).await?;
        let records = lookup.answers();
        let ttl = records.iter().map(|record| record.ttl).min();
        let mut addresses = addresses(records);
        addresses.truncate(ADDRESSES_MAX);
        if addresses.is_empty() {
            return Err(DnsError::NoRecords);
        }
        Ok(Answer {
            addresses,
            ttl: Duration::from_secs(ttl.unwrap_or_default().into()),
        })
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

impl Answer {
    fn and(mut self, other: Self) -> Self {
        self.addresses.extend(other.addresses);
        self.addresses.truncate(ADDRESSES_MAX);
        self.ttl = self.ttl.min(other.ttl);
        self
    }
}

fn addresses(records: &[Record]) -> Vec<IpAddr> {
    records
        .iter()
        .filter_map(|record| record.data.ip_addr())
        .collect()
}

/// Name servers and search domains of the system where `config` names none. A system without any asks
/// itself, as the C library does.
fn hickory_config(config: &ResolverConfig) -> (HickoryConfig, ResolverOpts) {
    let (system, mut options) = system_conf::read_system_conf().unwrap_or_else(|_| {
        let itself = NameServerConfig::udp_and_tcp(IpAddr::from([127, 0, 0, 1]));
        let servers = HickoryConfig::from_name_servers(vec![itself]);
        (servers, ResolverOpts::default())
    });
    let (mut domain, mut search, mut servers) = system.into_parts();
    if config.no_default_search_domain {
        (domain, search) = (None, Vec::new());
    }
    if !config.resolvers.is_empty() {
        servers = config.resolvers.iter().map(name_server).collect();
    }
    if config.use_tcp_for_dns_lookups {
        for server in &mut servers {
            server
                .connections
                .retain(|connection| connection.protocol == ProtocolConfig::Tcp);
        }
    }
    options.timeout = config.query_timeout;
    options.attempts = config.query_tries.saturating_sub(1) as usize;
    options.cache_size = 0;
    options.negative_max_ttl = Some(Duration::ZERO);
    options.use_hosts_file = ResolveHosts::Never;
    options.preserve_intermediates = true;
    (HickoryConfig::from_parts(domain, search, servers), options)
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let connections = [ProtocolConfig::Udp, ProtocolConfig::Tcp].map(|protocol| {
        let mut connection = ConnectionConfig::new(protocol);
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

//! `mesh-proxy tls probe`: what a server shows, and what is wrong with it.

use std::{io::Write, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use mesh_core::clock;
use mesh_net::Stream;
use mesh_tls::{
    Certificate, HandshakeError, Identity, SanKind, SanMatcher, Secret, TlsConnector, TlsParams,
    TlsSession, TlsStats, TlsStream, TlsVersion, Trust, TrustBundle, UpstreamTlsConfig,
    ValidationConfig,
};
use tokio::io::AsyncReadExt as _;

/// How long to wait for what a server says after the handshake: in TLS 1.3 it refuses a certificate only then.
const REFUSAL_WAIT: Duration = Duration::from_millis(500);

/// See why TLS works, or does not.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum TlsCommand {
    /// Make a handshake with a server and tell everything about it.
    ///
    /// Fails with what is wrong, on whose side, and what to look at.
    Probe(ProbeFlags),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ProbeFlags {
    /// The server.
    #[arg(value_name = "HOST:PORT")]
    address: String,

    /// The server's name to ask for; HOST by default, unless that is an address. Empty sends none.
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,

    /// Whom to trust: a PEM file of CA certificates. Without it, nothing is verified.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// A URI that the server's certificate must have, such as its SPIFFE ID.
    #[arg(long, value_name = "URI", requires = "ca")]
    uri: Vec<String>,

    /// A host name that it must have.
    #[arg(long, value_name = "NAME", requires = "ca")]
    dns: Vec<String>,

    /// Our certificate: a folder with svid.pem and key.pem, as dev-ca makes them.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["cert", "key"])]
    svid: Option<PathBuf>,

    /// Our certificate: a PEM file with its chain.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,

    /// Its key.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,

    /// Protocols to offer, best first.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_values = ["h2", "http/1.1"])]
    alpn: Vec<String>,

    /// Speak only this version.
    #[arg(long, value_enum, value_name = "VERSION")]
    version: Option<Version>,

    /// How long all of it may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    timeout: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Version {
    #[value(name = "1.2")]
    Tls12,
    #[value(name = "1.3")]
    Tls13,
}

/// Tells about one handshake on `out`.
///
/// # Errors
/// When there is none, with everything that is known of why.
pub(crate) async fn run(flags: &ProbeFlags, out: &mut impl Write) -> anyhow::Result<()> {
    let host = host(&flags.address)?;
    let sni = match &flags.sni {
        Some(name) => Some(name.as_str()).filter(|name| !name.is_empty()),
        None => Some(host).filter(|host| host.parse::<std::net::IpAddr>().is_err()),
    };
    let connector = connector(flags, sni)?;
    let timeout = Duration::from_secs(flags.timeout);
    let probe = async {
        let stream = connect(&flags.address).await?;
        let shaken = connector.connect(stream).await;
        shaken.map_err(|error| explained(&flags.address, &error))
    };
    let stream = tokio::time::timeout(timeout, probe).await;
    let mut stream = stream.with_context(|| {
        format!(
            "{} did not finish within {} s: is it up, and does it speak TLS?",
            flags.address, flags.timeout
        )
    })??;
    let session = std::sync::Arc::clone(stream.session());
    tell(&session, flags, out)?;
    if let Some(error) = refusal(&mut stream).await {
        return Err(explained(&flags.address, &error));
    }
    if flags.svid.is_some() || flags.cert.is_some() {
        writeln!(out, "our certificate was not refused")?;
    }
    Ok(())
}

/// The host of `host:port` or `[address]:port`.
fn host(address: &str) -> anyhow::Result<&str> {
    let bad = || format!("{address:?} is not HOST:PORT");
    let (host, port) = address.rsplit_once(':').with_context(bad)?;
    let _: u16 = port.parse().ok().with_context(bad)?;
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host = bare.unwrap_or(host);
    if host.is_empty() {
        bail!("{address:?} is not HOST:PORT");
    }
    Ok(host)
}

/// To the first of the host's addresses that answers.
async fn connect(address: &str) -> anyhow::Result<Stream> {
    let stream = tokio::net::TcpStream::connect(address).await;
    Ok(Stream::Tcp(
        stream.with_context(|| format!("no connection to {address}"))?,
    ))
}

fn connector(flags: &ProbeFlags, sni: Option<&str>) -> anyhow::Result<TlsConnector> {
    let params = TlsParams::downstream();
    let params = match flags.version {
        None => params,
        Some(Version::Tls12) => params.versions(TlsVersion::Tls12, TlsVersion::Tls12)?,
        Some(Version::Tls13) => params.versions(TlsVersion::Tls13, TlsVersion::Tls13)?,
    };
    let mut config = UpstreamTlsConfig::default()
        .params(params)
        .max_session_keys(0)
        .alpn_protocols(&flags.alpn)?;
    if let Some(name) = sni {
        config = config.sni(name)?;
    }
    let connector = TlsConnector::new(
        config,
        identity(flags)?.map(Secret::fixed),
        Secret::fixed(validation(flags)?),
        TlsStats::detached(),
    );
    Ok(connector?)
}

fn identity(flags: &ProbeFlags) -> anyhow::Result<Option<Identity>> {
    let files = match (&flags.svid, &flags.cert, &flags.key) {
        (Some(folder), ..) => Some((folder.join("svid.pem"), folder.join("key.pem"))),
        (None, Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
        _ => None,
    };
    let identity = files.map(|(cert, key)| Identity::from_files(cert, key));
    identity.transpose().context("our certificate")
}

fn validation(flags: &ProbeFlags) -> anyhow::Result<ValidationConfig> {
    let Some(ca) = &flags.ca else {
        return Ok(ValidationConfig::dangerous_anyone());
    };
    let bundle = TrustBundle::from_file(ca).context("whom to trust")?;
    let uris = flags.uri.iter().map(|uri| (SanKind::Uri, uri));
    let names = flags.dns.iter().map(|name| (SanKind::Dns, name));
    let sans = uris.chain(names);
    let sans = sans.map(|(kind, name)| SanMatcher::exact(kind, name));
    Ok(ValidationConfig::new(Trust::Bundle(bundle)).with_sans(sans.collect())?)
}

/// What the server says about our certificate after the handshake.
async fn refusal(stream: &mut TlsStream<Stream>) -> Option<HandshakeError> {
    let mut byte = [0; 1];
    let read = tokio::time::timeout(REFUSAL_WAIT, stream.read(&mut byte)).await;
    // Silence is good; so is an end, for nothing was asked.
    let error = read.ok()?.err()?;
    stream.late_refusal(&error)
}

fn tell(session: &TlsSession, flags: &ProbeFlags, out: &mut impl Write) -> anyhow::Result<()> {
    let alpn = session.alpn.as_deref().map(String::from_utf8_lossy);
    writeln!(
        out,
        "{} {} {} {} ALPN {}",
        flags.address,
        session.version,
        session.cipher,
        session.group,
        alpn.as_deref().unwrap_or("none")
    )?;
    writeln!(
        out,
        "server's name: {}",
        session.sni.as_deref().unwrap_or("none sent")
    )?;
    let verified = match &flags.ca {
        Some(ca) => format!("verified by {}", ca.display()),
        None => "NOT verified: --ca FILE says whom to trust".to_owned(),
    };
    writeln!(out, "certificate, {verified}:")?;
    let chain = session.peer.iter().flat_map(|peer| peer.chain());
    for certificate in chain {
        tell_certificate(certificate, out)?;
    }
    Ok(())
}

fn tell_certificate(one: &Certificate, out: &mut impl Write) -> anyhow::Result<()> {
    let now = clock::wall();
    let validity = one.validity();
    writeln!(out, "  {}", one.subject())?;
    writeln!(out, "    issuer {}, serial {}", one.issuer(), one.serial())?;
    let left = if validity.contains(now) {
        format!("{} h left", validity.left(now).as_secs() / 3600)
    } else {
        "NOT valid now".to_owned()
    };
    writeln!(out, "    valid {validity}, {left}")?;
    for san in one.sans() {
        writeln!(out, "    {san}")?;
    }
    Ok(())
}

/// The error over several lines.
fn explained(address: &str, error: &HandshakeError) -> anyhow::Error {
    let mut text = format!(
        "no TLS with {address}\n  stage: {}\n  why: {}",
        error.stage(),
        error.why()
    );
    let mut list = |name: &str, values: Vec<String>| {
        for value in values {
            text.push_str(&format!("\n  {name}: {value}"));
        }
    };
    list("expected", error.expected());
    list("presented", error.presented());
    let chain = error.chain().iter();
    let chain = chain.map(|one| {
        format!(
            "{} (issuer {}; {})",
            one.subject(),
            one.issuer(),
            one.validity()
        )
    });
    list("chain", chain.collect());
    list(
        "server's name",
        error.server_name().map(str::to_owned).into_iter().collect(),
    );
    let own = error.own().map(|own| {
        let name = own.uris().next().unwrap_or_else(|| own.subject());
        format!("{name} (issuer {})", own.issuer())
    });
    list("our certificate", own.into_iter().collect());
    list("look at", vec![error.advice().to_owned()]);
    list("Envoy logs", vec![error.reason()]);
    anyhow::anyhow!(text)
}

//! TLS contexts, SPIFFE identity, rotating secrets.
//!
//! | to | use |
//! |---|---|
//! | say who this process is | [`Identity`] |
//! | say who its peers may be | [`ValidationConfig`]: anchors, SAN matchers, pins, revocation, SPIFFE bundles |
//! | take connections | [`TlsAcceptor`] |
//! | open connections | [`TlsConnector`] |
//! | see who the peer is | [`TlsSession`], [`PeerIdentity`] |
//! | let secrets rotate | [`SecretKeeper`] over any [`SecretSource`], such as [`FilesSource`] |
//! | see why a handshake failed | [`HandshakeError`] |
//! | choose a filter chain before the handshake | [`inspector`] |
//! | pass the client's identity on | [`xfcc`] |
//! | make throw-away certificates | [`dev_ca`] |
//!
//! # SPIFFE mTLS in a few lines
//!
//! ```
//! # use std::time::SystemTime;
//! use mesh_tls::{
//!     DownstreamTlsConfig, SanMatcher, Secret, TlsAcceptor, TlsConnector, TlsParams, TlsStats, Trust,
//!     UpstreamTlsConfig, ValidationConfig,
//! };
//! # let now = SystemTime::now();
//! # let ca = mesh_tls::dev_ca::DevCa::new("example.org".parse()?, now)?;
//! # let identity = |id: &str| -> Result<_, Box<dyn std::error::Error>> {
//! #     Ok(ca.issue(mesh_tls::dev_ca::DevLeaf::svid(&id.parse()?, now))?.identity()?)
//! # };
//! // Identities and bundle come from files, SDS or the Workload API in real life.
//! let (cart, shop) = (identity("spiffe://example.org/cart")?, identity("spiffe://example.org/shop")?);
//! let trust = || ValidationConfig::new(Trust::Bundle(ca.bundle().expect("a bundle")));
//!
//! let acceptor = TlsAcceptor::new(
//!     DownstreamTlsConfig::default().params(TlsParams::modern()).require_client_certificate(true),
//!     vec![Secret::fixed(cart)],
//!     Some(Secret::fixed(trust().with_sans(vec![SanMatcher::uri_prefix("spiffe://example.org/")?])?)),
//!     TlsStats::detached(),
//! )?;
//! let connector = TlsConnector::new(
//!     UpstreamTlsConfig::default().params(TlsParams::modern()),
//!     Some(Secret::fixed(shop)),
//!     Secret::fixed(trust().with_sans(vec![SanMatcher::uri_prefix("spiffe://example.org/cart")?])?),
//!     TlsStats::detached(),
//! )?;
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let (a, b) = tokio::io::duplex(1 << 16);
//! let (server, client) = tokio::join!(acceptor.accept(a), connector.connect(b));
//! let peer = server?.session().peer.clone().expect("a client certificate");
//! assert_eq!(peer.principal(), "spiffe://example.org/shop");
//! # client.map(drop)
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is not verified
//!
//! As in Envoy, a context **without a trusted CA verifies nothing**: any certificate is taken, on both sides.
//! Such a config has to be built as [`ValidationConfig::dangerous_anyone`], answers
//! [`is_dangerous`](ValidationConfig::is_dangerous), and is warned of.
//!
//! # What differs from Envoy
//!
//! - TLS 1.0 and 1.1, RSA key exchange, CBC suites and P-521 for key exchange are not offered.
//! - A served certificate that ended, or has not begun, is never replaced by a worse one: see [`rotation`].
//! - The SPIFFE validator asks for `digitalSignature`, and for exactly one URI, as the standard does.
//! - Sessions are never taken up again under another trust, nor with a certificate that has ended.
//!
//! # Envoy
//! `envoy.transport_sockets.tls`, `envoy.tls.cert_validator.spiffe`, `envoy.filters.listener.tls_inspector`.

mod accept;
mod cert;
mod connect;
mod context;
#[cfg(feature = "dev-ca")]
pub mod dev_ca;
mod digest;
mod error;
mod fingerprint;
pub mod inspector;
mod metrics;
mod secret;
mod session;
mod spiffe;
mod stream;
pub mod tower;
mod validation;
pub mod xfcc;

pub use accept::TlsAcceptor;
pub use cert::{CERTIFICATES_MAX, Certificate, KeyUsage, San, Validity};
pub use connect::{ServerNames, SniName, TlsConnector};
pub use context::{
    ContextError, DownstreamTlsConfig, TICKET_KEY_LEN, TICKET_KEYS_MAX, TicketKey, TlsParams,
    TlsVersion, UpstreamTlsConfig, WallClock,
};
pub use error::{HandshakeError, Side, Stage};
pub use metrics::{SslStats, TlsStats};
pub use secret::{
    Crl, FILE_MAX, FileSecret, FilesSource, FolderWatcher, Identity, KeeperStats, Secret,
    SecretError, SecretKeeper, SecretSource, SecretUpdate, SpiffeBundles, TrustBundle, inline,
    readable_by_others, rotation, warn_if_readable_by_others,
};
pub use session::{PeerIdentity, TlsSession};
pub use spiffe::{
    SPIFFE_ID_MAX, SpiffeId, SpiffeIdError, SvidError, TRUST_DOMAIN_MAX, TrustDomain, check_svid,
};
pub use stream::TlsStream;
pub use validation::{
    InvalidValidation, Rejection, Role, SanKind, SanMatcher, Trust, Usage,
    VERIFY_DEPTH_MAX_DEFAULT, ValidationConfig, ValidationDefaults, Validator,
};

//! The names of the commands that need nothing but their name.

use crate::TlsField;

macro_rules! facts {
    ($($variant:ident = $($name:literal)|+,)*) => {
        /// A value that needs no parameter.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Fact { $($variant,)* }

        impl Fact {
            pub(super) fn from_name(name: &str) -> Option<Self> {
                match name { $($($name)|+ => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

facts! {
    BytesReceived = "BYTES_RECEIVED",
    BytesSent = "BYTES_SENT",
    Protocol = "PROTOCOL",
    UpstreamProtocol = "UPSTREAM_PROTOCOL",
    ResponseCode = "RESPONSE_CODE",
    Termination = "CONNECTION_TERMINATION_DETAILS",
    Flags = "RESPONSE_FLAGS",
    FlagsLong = "RESPONSE_FLAGS_LONG",
    RouteName = "ROUTE_NAME",
    UniqueId = "UNIQUE_ID",
    LogType = "ACCESS_LOG_TYPE",
    Attempts = "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    Remote = "DOWNSTREAM_REMOTE_ADDRESS",
    RemoteIp = "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    RemotePort = "DOWNSTREAM_REMOTE_PORT",
    DirectRemote = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    DirectRemoteIp = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    DirectRemotePort = "DOWNSTREAM_DIRECT_REMOTE_PORT",
    Local = "DOWNSTREAM_LOCAL_ADDRESS",
    LocalIp = "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    LocalPort = "DOWNSTREAM_LOCAL_PORT",
    DirectLocal = "DOWNSTREAM_DIRECT_LOCAL_ADDRESS",
    DirectLocalIp = "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT",
    DirectLocalPort = "DOWNSTREAM_DIRECT_LOCAL_PORT",
    UpstreamHost = "UPSTREAM_HOST",
    UpstreamRemote = "UPSTREAM_REMOTE_ADDRESS",
    UpstreamHostIp = "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    UpstreamHostPort = "UPSTREAM_REMOTE_PORT",
    UpstreamHostName = "UPSTREAM_HOST_NAME",
    UpstreamHostNameOnly = "UPSTREAM_HOST_NAME_WITHOUT_PORT",
    UpstreamHostsAttempted = "UPSTREAM_HOSTS_ATTEMPTED",
    UpstreamLocal = "UPSTREAM_LOCAL_ADDRESS",
    UpstreamLocalIp = "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    UpstreamLocalPort = "UPSTREAM_LOCAL_PORT",
    UpstreamCluster = "UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW",
    ResponseHeadersBytes = "RESPONSE_HEADERS_BYTES",
    ResponseTrailersBytes = "RESPONSE_TRAILERS_BYTES",
    ConnectionId = "CONNECTION_ID",
    UpstreamConnectionId = "UPSTREAM_CONNECTION_ID",
    LocalReplyBody = "LOCAL_REPLY_BODY",
    TransportFailure = "UPSTREAM_TRANSPORT_FAILURE_REASON",
    DownstreamTransportFailure = "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
    ServerName = "REQUESTED_SERVER_NAME",
    Ja3 = "TLS_JA3_FINGERPRINT",
    Ja4 = "TLS_JA4_FINGERPRINT",
    TlsVersion = "DOWNSTREAM_TLS_VERSION",
    TlsCipher = "DOWNSTREAM_TLS_CIPHER",
    TlsGroup = "DOWNSTREAM_TLS_GROUP",
    PeerSubject = "DOWNSTREAM_PEER_SUBJECT",
    PeerIssuer = "DOWNSTREAM_PEER_ISSUER",
    PeerSerial = "DOWNSTREAM_PEER_SERIAL",
    PeerFingerprint = "DOWNSTREAM_PEER_FINGERPRINT_256",
    PeerUris = "DOWNSTREAM_PEER_URI_SAN",
    PeerDnsNames = "DOWNSTREAM_PEER_DNS_SAN",
    PeerAddresses = "DOWNSTREAM_PEER_IP_SAN",
    PeerEmails = "DOWNSTREAM_PEER_EMAIL_SAN",
    PeerCertificate = "DOWNSTREAM_PEER_CERT",
    LocalSubject = "DOWNSTREAM_LOCAL_SUBJECT",
    LocalUris = "DOWNSTREAM_LOCAL_URI_SAN",
    LocalDnsNames = "DOWNSTREAM_LOCAL_DNS_SAN",
    LocalAddresses = "DOWNSTREAM_LOCAL_IP_SAN",
    LocalEmails = "DOWNSTREAM_LOCAL_EMAIL_SAN",
    PeerFingerprint1 = "DOWNSTREAM_PEER_FINGERPRINT_1",
    PeerChainFingerprints = "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256",
    PeerChainFingerprints1 = "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1",
    PeerChainSerials = "DOWNSTREAM_PEER_CHAIN_SERIALS",
    UpstreamTlsVersion = "UPSTREAM_TLS_VERSION",
    UpstreamTlsCipher = "UPSTREAM_TLS_CIPHER",
    UpstreamTlsGroup = "UPSTREAM_TLS_GROUP",
    UpstreamPeerSubject = "UPSTREAM_PEER_SUBJECT",
    UpstreamPeerIssuer = "UPSTREAM_PEER_ISSUER",
    UpstreamPeerUris = "UPSTREAM_PEER_URI_SAN",
    UpstreamPeerDnsNames = "UPSTREAM_PEER_DNS_SAN",
    UpstreamPeerAddresses = "UPSTREAM_PEER_IP_SAN",
    UpstreamPeerCertificate = "UPSTREAM_PEER_CERT",
    UpstreamLocalUris = "UPSTREAM_LOCAL_URI_SAN",
    UpstreamLocalDnsNames = "UPSTREAM_LOCAL_DNS_SAN",
    UpstreamLocalAddresses = "UPSTREAM_LOCAL_IP_SAN",
    Decisions = "MESH_DECISIONS",
    ConfigVersion = "MESH_CONFIG_VERSION",
}

impl Fact {
    /// The fact about the encryption of the upstream connection that it stands for.
    pub(super) const fn upstream_tls(self) -> Option<TlsField> {
        Some(match self {
            Self::UpstreamTlsVersion => TlsField::Version,
            Self::UpstreamTlsCipher => TlsField::Cipher,
            Self::UpstreamTlsGroup => TlsField::Group,
            Self::UpstreamPeerSubject => TlsField::PeerSubject,
            Self::UpstreamPeerIssuer => TlsField::PeerIssuer,
            Self::UpstreamPeerUris => TlsField::PeerUris,
            Self::UpstreamPeerDnsNames => TlsField::PeerDnsNames,
            Self::UpstreamPeerAddresses => TlsField::PeerAddresses,
            Self::UpstreamPeerCertificate => TlsField::PeerCertificate,
            Self::UpstreamLocalUris => TlsField::LocalUris,
            Self::UpstreamLocalDnsNames => TlsField::LocalDnsNames,
            Self::UpstreamLocalAddresses => TlsField::LocalAddresses,
            _ => return None,
        })
    }

    /// The fact about the encryption of the client's connection that it stands for.
    pub(super) const fn tls(self) -> Option<TlsField> {
        Some(match self {
            Self::TlsVersion => TlsField::Version,
            Self::TlsCipher => TlsField::Cipher,
            Self::TlsGroup => TlsField::Group,
            Self::PeerSubject => TlsField::PeerSubject,
            Self::PeerIssuer => TlsField::PeerIssuer,
            Self::PeerSerial => TlsField::PeerSerial,
            Self::PeerFingerprint => TlsField::PeerFingerprint,
            Self::PeerUris => TlsField::PeerUris,
            Self::PeerDnsNames => TlsField::PeerDnsNames,
            Self::PeerAddresses => TlsField::PeerAddresses,
            Self::PeerEmails => TlsField::PeerEmails,
            Self::PeerCertificate => TlsField::PeerCertificate,
            Self::LocalSubject => TlsField::LocalSubject,
            Self::LocalUris => TlsField::LocalUris,
            Self::LocalDnsNames => TlsField::LocalDnsNames,
            Self::LocalAddresses => TlsField::LocalAddresses,
            Self::LocalEmails => TlsField::LocalEmails,
            Self::PeerFingerprint1 => TlsField::PeerFingerprint1,
            Self::PeerChainFingerprints => TlsField::PeerChainFingerprints,
            Self::PeerChainFingerprints1 => TlsField::PeerChainFingerprints1,
            Self::PeerChainSerials => TlsField::PeerChainSerials,
            _ => return None,
        })
    }
}

/// Whether a command has parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    Nothing,
    Optional,
    Required,
}
use Takes::{Nothing, Optional, Required};

/// Operators of Envoy that are never set here, and whether they take parameters.
pub(super) const UNSET: &[(&str, Takes)] = &[
    ("BYTES_RETRANSMITTED", Nothing),
    ("CUSTOM_FLAGS", Nothing),
    ("DOWNSTREAM_CX_RTT", Nothing),
    ("DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED", Nothing),
    ("DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT", Nothing),
    ("DOWNSTREAM_DETECTED_CLOSE_TYPE", Nothing),
    ("DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID", Nothing),
    ("DOWNSTREAM_HANDSHAKE_DURATION", Nothing),
    ("DOWNSTREAM_HEADER_BYTES_RECEIVED", Nothing),
    ("DOWNSTREAM_HEADER_BYTES_SENT", Nothing),
    ("DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID", Nothing),
    ("DOWNSTREAM_LOCAL_CLOSE_REASON", Nothing),
    ("DOWNSTREAM_LOCAL_OTHERNAME_SAN", Nothing),
    ("DOWNSTREAM_PEER_ISSUER_FINGERPRINT_256", Nothing),
    ("DOWNSTREAM_PEER_ISSUER_SERIAL", Nothing),
    ("DOWNSTREAM_PEER_OTHERNAME_SAN", Nothing),
    ("DOWNSTREAM_TLS_SESSION_ID", Nothing),
    ("DOWNSTREAM_WIRE_BYTES_RECEIVED", Nothing),
    ("DOWNSTREAM_WIRE_BYTES_SENT", Nothing),
    ("DYNAMIC_METADATA", Required),
    ("EMIT_TIME_LOCAL", Optional),
    ("FILTER_CHAIN_NAME", Nothing),
    ("FILTER_STATE", Required),
    ("PACKETS_RETRANSMITTED", Nothing),
    ("PER_REQUEST_STATE", Required),
    ("REQUEST_HEADERS_BYTES", Nothing),
    ("ROUNDTRIP_DURATION", Nothing),
    ("SPAN_ID", Nothing),
    ("START_TIME_LOCAL", Optional),
    ("TRACE_ID", Nothing),
    ("UPSTREAM_CONNECTION_IDS_ATTEMPTED", Nothing),
    ("UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED", Nothing),
    ("UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT", Nothing),
    ("UPSTREAM_DETECTED_CLOSE_TYPE", Nothing),
    ("UPSTREAM_FILTER_STATE", Required),
    ("UPSTREAM_HEADER_BYTES_RECEIVED", Nothing),
    ("UPSTREAM_HEADER_BYTES_SENT", Nothing),
    ("UPSTREAM_LOCAL_CLOSE_REASON", Nothing),
    ("UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID", Nothing),
    ("UPSTREAM_SERVER_NAME", Nothing),
    ("UPSTREAM_TLS_SESSION_ID", Nothing),
    ("UPSTREAM_WIRE_BYTES_RECEIVED", Nothing),
    ("UPSTREAM_WIRE_BYTES_SENT", Nothing),
    ("VIRTUAL_CLUSTER_NAME", Nothing),
];

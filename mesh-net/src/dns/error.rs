use std::fmt;

use hickory_resolver::{
    net::{DnsError as Semantic, NetError},
    proto::op::ResponseCode,
};

/// Why a name has no addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DnsError {
    /// There is no such name (`NXDOMAIN`).
    NotFound,
    /// The name exists and has no address of the wanted family.
    NoRecords,
    /// A name server answered with an error, such as `Server Failure` or `Query Refused`.
    ServerFailure(String),
    /// No name server answered in time.
    Timeout,
    /// This is not a name.
    InvalidName(String),
    /// No name server could be asked, or none was understood.
    Network(String),
}

impl DnsError {
    /// Whether the name servers agree that there is no address, rather than fail to say.
    #[must_use]
    pub const fn is_definite(&self) -> bool {
        matches!(
            self,
            Self::NotFound | Self::NoRecords | Self::InvalidName(_)
        )
    }

    /// A word for logs and stats.
    #[must_use]
    pub const fn details(&self) -> &'static str {
        match self {
            Self::NotFound => "dns_nxdomain",
            Self::NoRecords => "dns_no_records",
            Self::ServerFailure(_) => "dns_server_failure",
            Self::Timeout => "dns_timeout",
            Self::InvalidName(_) => "dns_invalid_name",
            Self::Network(_) => "dns_network_error",
        }
    }

    /// Of two families' errors the one that says more: a failure, unless both are definite.
    pub(super) fn or(self, other: Self) -> Self {
        match (&self, &other) {
            (Self::NotFound | Self::NoRecords, _) if !other.is_definite() => other,
            (Self::NotFound, Self::NoRecords) => other,
            _ => self,
        }
    }

    fn of_code(code: ResponseCode) -> Self {
        match code {
            ResponseCode::NXDomain => Self::NotFound,
            ResponseCode::NoError => Self::NoRecords,
            code => Self::ServerFailure(code.to_str().to_owned()),
        }
    }
}

impl From<NetError> for DnsError {
    fn from(error: NetError) -> Self {
        match error {
            NetError::Timeout => Self::Timeout,
            NetError::Dns(Semantic::NoRecordsFound(none)) => Self::of_code(none.response_code),
            NetError::Dns(Semantic::ResponseCode(code)) => Self::of_code(code),
            other => Self::Network(other.to_string()),
        }
    }
}

impl fmt::Display for DnsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("no such name"),
            Self::NoRecords => f.write_str("the name has no addresses"),
            Self::ServerFailure(code) => write!(f, "the name server answered: {code}"),
            Self::Timeout => f.write_str("no name server answered in time"),
            Self::InvalidName(reason) => write!(f, "not a name: {reason}"),
            Self::Network(reason) => write!(f, "no name server could be asked: {reason}"),
        }
    }
}

impl std::error::Error for DnsError {}

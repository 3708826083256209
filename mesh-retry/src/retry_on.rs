use std::{fmt, ops, str::FromStr};

/// The conditions under which an attempt is repeated: Envoy's `retry_on`, as a set.
///
/// An empty set never retries.
///
/// ```
/// use mesh_retry::RetryOn;
///
/// let (on, unknown) = RetryOn::parse("gateway-error, reset,teapot");
/// assert_eq!(on, RetryOn::GATEWAY_ERROR | RetryOn::RESET);
/// assert_eq!(unknown, ["teapot"]);
/// ```
///
/// # Envoy
/// `RetryPolicy.retry_on`, `x-envoy-retry-on`, `x-envoy-retry-grpc-on`.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryOn(u16);

macro_rules! conditions {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $token:literal;)*) => {
        impl RetryOn {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*

            const TOKENS: &[(&'static str, Self)] = &[$(($token, Self::$name),)*];
        }
    };
}

conditions! {
    /// `5xx`: a status of 500 to 599, or any reset but overflow.
    FIVE_XX = 0, "5xx";
    /// `gateway-error`: 502, 503 or 504, or any reset but overflow.
    GATEWAY_ERROR = 1, "gateway-error";
    /// `reset`: any reset but overflow.
    RESET = 2, "reset";
    /// `reset-before-request`: a reset, while no attempt of this request ever wrote a byte upstream.
    RESET_BEFORE_REQUEST = 3, "reset-before-request";
    /// `connect-failure`: no connection to the endpoint, or none in time.
    CONNECT_FAILURE = 4, "connect-failure";
    /// `refused-stream`: the upstream proved that it did not process the request.
    REFUSED_STREAM = 5, "refused-stream";
    /// `retriable-4xx`: status 409.
    RETRIABLE_4XX = 6, "retriable-4xx";
    /// `retriable-status-codes`: a status of `retriable_status_codes`.
    RETRIABLE_STATUS_CODES = 7, "retriable-status-codes";
    /// `retriable-headers`: a response that `retriable_headers` matches.
    RETRIABLE_HEADERS = 8, "retriable-headers";
    /// `envoy-ratelimited`: a response with `x-envoy-ratelimited`.
    ENVOY_RATELIMITED = 9, "envoy-ratelimited";
    /// `http3-post-connect-failure`: accepted; never met, since there is no HTTP/3 upstream.
    HTTP3_POST_CONNECT_FAILURE = 10, "http3-post-connect-failure";
    /// `cancelled`: `grpc-status: 1` in the response headers.
    CANCELLED = 11, "cancelled";
    /// `deadline-exceeded`: `grpc-status: 4` in the response headers.
    DEADLINE_EXCEEDED = 12, "deadline-exceeded";
    /// `resource-exhausted`: `grpc-status: 8` in the response headers.
    RESOURCE_EXHAUSTED = 13, "resource-exhausted";
    /// `internal`: `grpc-status: 13` in the response headers.
    INTERNAL = 14, "internal";
    /// `unavailable`: `grpc-status: 14` in the response headers.
    UNAVAILABLE = 15, "unavailable";
}

impl RetryOn {
    /// Never.
    pub const NONE: Self = Self(0);
    /// Every condition that reads `grpc-status`.
    pub const GRPC: Self = Self(
        Self::CANCELLED.0
            | Self::DEADLINE_EXCEEDED.0
            | Self::RESOURCE_EXHAUSTED.0
            | Self::INTERNAL.0
            | Self::UNAVAILABLE.0,
    );
    /// The conditions that prove the upstream did not see the request, so that repeating it is safe
    /// whatever its method: `connect-failure`, `refused-stream` and `reset-before-request`.
    pub const PROVEN_SAFE: Self =
        Self(Self::CONNECT_FAILURE.0 | Self::REFUSED_STREAM.0 | Self::RESET_BEFORE_REQUEST.0);

    /// Reads a comma list of HTTP and gRPC tokens, as `RetryPolicy.retry_on` holds it.
    ///
    /// Also returns the tokens that are not known. Envoy ignores those silently; whoever reads a config
    /// should report or refuse them.
    #[must_use]
    pub fn parse(list: &str) -> (Self, Vec<&str>) {
        let mut unknown = Vec::new();
        let on = tokens(list)
            .filter_map(|token| {
                let on = Self::token(token);
                if on.is_none() {
                    unknown.push(token);
                }
                on
            })
            .fold(Self::NONE, ops::BitOr::bitor);
        (on, unknown)
    }

    /// Reads `x-envoy-retry-on`: HTTP tokens only, all else is ignored.
    #[must_use]
    pub fn parse_header(list: &str) -> Self {
        let on = tokens(list)
            .filter_map(Self::token)
            .fold(Self::NONE, ops::BitOr::bitor);
        Self(on.0 & !Self::GRPC.0)
    }

    /// Reads `x-envoy-retry-grpc-on`: gRPC tokens only, all else is ignored.
    #[must_use]
    pub fn parse_grpc_header(list: &str) -> Self {
        let on = tokens(list)
            .filter_map(Self::token)
            .fold(Self::NONE, ops::BitOr::bitor);
        Self(on.0 & Self::GRPC.0)
    }

    fn token(token: &str) -> Option<Self> {
        Self::TOKENS
            .iter()
            .find(|(name, _)| *name == token)
            .map(|(_, on)| *on)
    }

    /// Whether there is no condition.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether at least one condition of `other` is in this set.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The tokens of this set, in Envoy's documentation order.
    pub fn tokens(self) -> impl Iterator<Item = &'static str> {
        Self::TOKENS
            .iter()
            .filter(move |(_, on)| self.intersects(*on))
            .map(|(name, _)| *name)
    }
}

fn tokens(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|t| !t.is_empty())
}

impl ops::BitOr for RetryOn {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl ops::BitOrAssign for RetryOn {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// The tokens joined by commas, `-` for none.
impl fmt::Display for RetryOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        for (i, token) in self.tokens().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            f.write_str(token)?;
        }
        Ok(())
    }
}

impl fmt::Debug for RetryOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RetryOn({self})")
    }
}

/// A token that is no retry condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownCondition(pub String);

impl fmt::Display for UnknownCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown retry condition {:?}", self.0)
    }
}

impl std::error::Error for UnknownCondition {}

/// Refuses unknown tokens.
impl FromStr for RetryOn {
    type Err = UnknownCondition;

    fn from_str(list: &str) -> Result<Self, UnknownCondition> {
        let (on, unknown) = Self::parse(list);
        match unknown.first() {
            Some(token) => Err(UnknownCondition((*token).to_owned())),
            None => Ok(on),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RetryOn;

    #[test]
    fn every_token_is_read_and_printed() {
        let all: Vec<&str> = RetryOn::TOKENS.iter().map(|(name, _)| *name).collect();
        let list = all.join(", ");
        let (on, unknown) = RetryOn::parse(&list);
        assert!(unknown.is_empty());
        assert_eq!(on.to_string(), all.join(","));
        assert_eq!(on.tokens().count(), 16);
    }

    #[test]
    fn unknown_tokens_are_reported_and_the_rest_is_kept() {
        let (on, unknown) = RetryOn::parse(" 5xx ,, 5XX,foo");
        assert_eq!(on, RetryOn::FIVE_XX);
        assert_eq!(unknown, ["5XX", "foo"]);
        assert_eq!(
            "foo".parse::<RetryOn>().unwrap_err().to_string(),
            "unknown retry condition \"foo\""
        );
    }

    #[test]
    fn each_header_accepts_only_its_own_set() {
        let list = "unavailable,5xx,cancelled,reset";
        assert_eq!(
            RetryOn::parse_header(list),
            RetryOn::FIVE_XX | RetryOn::RESET
        );
        assert_eq!(
            RetryOn::parse_grpc_header(list),
            RetryOn::UNAVAILABLE | RetryOn::CANCELLED
        );
    }
}

use std::fmt;

use crate::sync::{AtomicU64, Ordering};

macro_rules! flags {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $short:literal, $long:literal;)*) => {
        /// Why a response is what it is, printed as Envoy's `%RESPONSE_FLAGS%`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum ResponseFlag { $($(#[$doc])* $variant = $code,)* }

        impl ResponseFlag {
            /// Every flag.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As in access logs: `UF`.
            #[must_use]
            pub const fn short(self) -> &'static str {
                match self { $(Self::$variant => $short,)* }
            }

            /// As in `%RESPONSE_FLAGS_LONG%`: `UpstreamConnectionFailure`.
            #[must_use]
            pub const fn long(self) -> &'static str {
                match self { $(Self::$variant => $long,)* }
            }

            const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

flags! {
    /// The health check filter failed locally.
    FailedLocalHealthCheck = 1, "LH", "FailedLocalHealthCheck";
    /// No endpoint could be picked.
    NoHealthyUpstream = 2, "UH", "NoHealthyUpstream";
    /// Route or per-try timeout.
    UpstreamRequestTimeout = 3, "UT", "UpstreamRequestTimeout";
    /// Reset by this proxy.
    LocalReset = 4, "LR", "LocalReset";
    /// Reset by the upstream.
    UpstreamRemoteReset = 5, "UR", "UpstreamRemoteReset";
    /// The upstream could not be reached.
    UpstreamConnectionFailure = 6, "UF", "UpstreamConnectionFailure";
    /// The upstream closed the connection under a request.
    UpstreamConnectionTermination = 7, "UC", "UpstreamConnectionTermination";
    /// A threshold or breaker refused.
    UpstreamOverflow = 8, "UO", "UpstreamOverflow";
    /// No route.
    NoRouteFound = 9, "NR", "NoRouteFound";
    /// The route's cluster does not exist.
    NoClusterFound = 10, "NC", "NoClusterFound";
    /// Retries were used up.
    UpstreamRetryLimitExceeded = 11, "URX", "UpstreamRetryLimitExceeded";
    /// A delay was injected.
    DelayInjected = 12, "DI", "DelayInjected";
    /// An abort was injected.
    FaultInjected = 13, "FI", "FaultInjected";
    /// A rate limit refused.
    RateLimited = 14, "RL", "RateLimited";
    /// The rate limit service failed and the policy denies then.
    RateLimitServiceError = 15, "RLSE", "RateLimitServiceError";
    /// External authorization denied.
    UnauthorizedExternalService = 16, "UAEX", "UnauthorizedExternalService";
    /// The client went away.
    DownstreamConnectionTermination = 17, "DC", "DownstreamConnectionTermination";
    /// The client reset its stream.
    DownstreamRemoteReset = 18, "DR", "DownstreamRemoteReset";
    /// The client broke the protocol.
    DownstreamProtocolError = 19, "DPE", "DownstreamProtocolError";
    /// The upstream broke the protocol.
    UpstreamProtocolError = 20, "UPE", "UpstreamProtocolError";
    /// The stream was idle for too long.
    StreamIdleTimeout = 21, "SI", "StreamIdleTimeout";
    /// The connection or stream lasted for too long.
    DurationTimeout = 22, "DT", "DurationTimeout";
    /// The upstream stream lasted for too long.
    UpstreamMaxStreamDurationReached = 23, "UMSDR", "UpstreamMaxStreamDurationReached";
    /// A control header was malformed.
    InvalidEnvoyRequestHeaders = 24, "IH", "InvalidEnvoyRequestHeaders";
    /// Ended under memory pressure.
    OverloadManagerTerminated = 25, "OM", "OverloadManagerTerminated";
    /// A name could not be resolved.
    DnsResolutionFailed = 26, "DF", "DnsResolutionFailed";
    /// Dropped as the assignment demands.
    DropOverload = 27, "DO", "DropOverload";
}

/// How many different flags one request can carry; a further one is dropped.
pub const FLAGS_MAX: usize = 8;

/// The flags of one request, in the order they were set. Settable through a shared reference.
#[derive(Debug, Default)]
pub struct ResponseFlags(AtomicU64);

impl ResponseFlags {
    /// Adds `flag` behind those already set; setting it again changes nothing.
    pub fn set(&self, flag: ResponseFlag) {
        let mut packed = self.0.load(Ordering::Relaxed);
        loop {
            let bytes = packed.to_le_bytes();
            let Some(free) = bytes.iter().position(|&b| b == 0 || b == flag as u8) else {
                return;
            };
            if bytes[free] != 0 {
                return;
            }
            let next = packed | (u64::from(flag as u8) << (8 * free));
            match self
                .0
                .compare_exchange_weak(packed, next, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(seen) => packed = seen,
            }
        }
    }

    /// Whether `flag` is set.
    #[must_use]
    pub fn has(&self, flag: ResponseFlag) -> bool {
        self.iter().any(|set| set == flag)
    }

    /// Whether none is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// The flags, in the order they were set.
    pub fn iter(&self) -> impl Iterator<Item = ResponseFlag> + use<> {
        self.0
            .load(Ordering::Relaxed)
            .to_le_bytes()
            .into_iter()
            .map_while(ResponseFlag::from_code)
    }
}

/// Short names joined by commas, `-` when there is none.
impl fmt::Display for ResponseFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        for (i, flag) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            f.write_str(flag.short())?;
        }
        Ok(())
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::{ResponseFlag, ResponseFlags};

    #[test]
    fn prints_flags_in_the_order_set_and_once() {
        let flags = ResponseFlags::default();
        assert_eq!(flags.to_string(), "-");
        flags.set(ResponseFlag::UpstreamRetryLimitExceeded);
        flags.set(ResponseFlag::UpstreamConnectionFailure);
        flags.set(ResponseFlag::UpstreamRetryLimitExceeded);
        assert_eq!(flags.to_string(), "URX,UF");
        assert!(flags.has(ResponseFlag::UpstreamConnectionFailure));
    }

    #[test]
    fn codes_and_names_are_unique() {
        for (i, a) in ResponseFlag::ALL.iter().enumerate() {
            for b in &ResponseFlag::ALL[i + 1..] {
                assert_ne!(*a as u8, *b as u8);
                assert_ne!(a.short(), b.short());
            }
        }
    }

    #[test]
    fn a_ninth_flag_is_dropped() {
        let flags = ResponseFlags::default();
        ResponseFlag::ALL.iter().for_each(|&flag| flags.set(flag));
        assert_eq!(flags.iter().count(), super::FLAGS_MAX);
    }
}

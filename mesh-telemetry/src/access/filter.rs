use std::{fmt, sync::Arc};

use mesh_core::{
    Facts, ResponseFlag, RuntimeFraction,
    format::{AccessLogType, Captures, FormatContext, RequestTest},
    runtime::RuntimeKey,
};

/// Which requests are logged.
///
/// # Envoy
/// `AccessLogFilter`.
#[derive(Clone)]
pub enum Filter {
    /// By the response's status; 0 when there is none. Envoy: `status_code_filter`.
    StatusCode(Comparison),
    /// By the milliseconds from the first byte received to the last byte sent; false while the request
    /// goes on. Envoy: `duration_filter`.
    Duration(Comparison),
    /// By any of some response flags, or by any flag when none is named. Envoy: `response_flag_filter`.
    ResponseFlag(Vec<ResponseFlag>),
    /// A share of the requests, drawn once for each request. Envoy: `runtime_filter`.
    Runtime(RuntimeFraction),
    /// Everything but what the health check filter takes for a check. Envoy: `not_health_check_filter`.
    NotHealthCheck,
    /// By the request's headers, as they went upstream. Envoy: `header_filter`, `traceable_filter`.
    Request(RequestTest),
    /// By the gRPC status, which a request that is not gRPC has too: what its HTTP status amounts to. Envoy:
    /// `grpc_status_filter`.
    GrpcStatus {
        /// These pass.
        statuses: Vec<i64>,
        /// All others pass instead. Envoy: `exclude`.
        exclude: bool,
    },
    /// By why the line is written. Envoy: `log_type_filter`.
    LogType {
        /// These pass.
        types: Vec<AccessLogType>,
        /// All others pass instead. Envoy: `exclude`.
        exclude: bool,
    },
    /// All of them; an empty list lets all through. Envoy: `and_filter`.
    And(Vec<Self>),
    /// One of them; an empty list lets none through. Envoy: `or_filter`.
    Or(Vec<Self>),
    /// Whatever a function says.
    Predicate(Predicate),
}

/// A filter of one's own: true logs the request.
pub type Predicate = Arc<dyn Fn(&FormatContext<'_>, &Facts) -> bool + Send + Sync>;

/// How a number is compared with a fixed one.
///
/// # Envoy
/// `ComparisonFilter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// How.
    pub op: ComparisonOp,
    /// With what, when the runtime says nothing. Envoy: `value.default_value`.
    pub value: u32,
    /// The runtime key that overrides it. Envoy: `value.runtime_key`.
    pub runtime_key: Option<RuntimeKey>,
}

/// `op` of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComparisonOp {
    /// `EQ`.
    Equal,
    /// `NE`.
    NotEqual,
    /// `GE`.
    AtLeast,
    /// `LE`.
    AtMost,
}

impl Comparison {
    /// Without a runtime key.
    #[must_use]
    pub const fn new(op: ComparisonOp, value: u32) -> Self {
        Self {
            op,
            value,
            runtime_key: None,
        }
    }

    fn holds(&self, number: u64) -> bool {
        let key = self.runtime_key.as_ref();
        let value = key.and_then(RuntimeKey::integer);
        let value = value.unwrap_or_else(|| u64::from(self.value));
        match self.op {
            ComparisonOp::Equal => number == value,
            ComparisonOp::NotEqual => number != value,
            ComparisonOp::AtLeast => number >= value,
            ComparisonOp::AtMost => number <= value,
        }
    }
}

const GRPC_UNKNOWN: i64 = 2;

impl Filter {
    /// Lets `captures` ask what the filter wants to know of a request.
    pub fn bind(&mut self, captures: &mut Captures) {
        match self {
            Self::Request(test) => captures.bind_test(test),
            Self::And(filters) | Self::Or(filters) => {
                filters.iter_mut().for_each(|filter| filter.bind(captures));
            }
            _ => {}
        }
    }

    /// Whether the request is logged.
    #[must_use]
    pub fn lets_through(&self, context: &FormatContext<'_>, facts: &Facts) -> bool {
        match self {
            Self::StatusCode(comparison) => {
                let status = context.response.map_or(0, |(status, _)| status.as_u16());
                comparison.holds(status.into())
            }
            Self::Duration(comparison) => context.end.is_some_and(|end| {
                let elapsed = end.saturating_duration_since(context.info.start);
                comparison.holds(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
            }),
            Self::ResponseFlag(flags) if flags.is_empty() => !context.info.flags.is_empty(),
            Self::ResponseFlag(flags) => flags.iter().any(|&flag| context.info.flags.has(flag)),
            Self::Runtime(share) => share.includes(context.info.random),
            Self::NotHealthCheck => !facts.health_check,
            Self::Request(test) => test.passes(context, facts),
            Self::GrpcStatus { statuses, exclude } => {
                // What cannot be read, or is not there, is UNKNOWN.
                let status = context.grpc_status().filter(|&status| status >= 0);
                statuses.contains(&status.unwrap_or(GRPC_UNKNOWN)) != *exclude
            }
            Self::LogType { types, exclude } => types.contains(&context.log_type) != *exclude,
            Self::And(filters) => filters.iter().all(|f| f.lets_through(context, facts)),
            Self::Or(filters) => filters.iter().any(|f| f.lets_through(context, facts)),
            Self::Predicate(predicate) => predicate(context, facts),
        }
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StatusCode(comparison) => f.debug_tuple("StatusCode").field(comparison).finish(),
            Self::Duration(comparison) => f.debug_tuple("Duration").field(comparison).finish(),
            Self::ResponseFlag(flags) => f.debug_tuple("ResponseFlag").field(flags).finish(),
            Self::Runtime(share) => f.debug_tuple("Runtime").field(share).finish(),
            Self::NotHealthCheck => f.write_str("NotHealthCheck"),
            Self::Request(test) => test.fmt(f),
            Self::GrpcStatus { statuses, exclude } => f
                .debug_struct("GrpcStatus")
                .field("statuses", statuses)
                .field("exclude", exclude)
                .finish(),
            Self::LogType { types, exclude } => f
                .debug_struct("LogType")
                .field("types", types)
                .field("exclude", exclude)
                .finish(),
            Self::And(filters) => f.debug_tuple("And").field(filters).finish(),
            Self::Or(filters) => f.debug_tuple("Or").field(filters).finish(),
            Self::Predicate(_) => f.write_str("Predicate"),
        }
    }
}

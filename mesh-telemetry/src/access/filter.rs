use std::{fmt, sync::Arc};

use mesh_core::{Facts, ResponseFlag, RuntimeFraction, format::FormatContext};

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
    /// Everything but health checks. Envoy: `not_health_check_filter`. No filter marks requests as
    /// health checks yet, so that it lets all through.
    NotHealthCheck,
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
    /// The runtime key that would override it; kept for reports. Envoy: `value.runtime_key`.
    pub runtime_key: Option<Arc<str>>,
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
        let value = u64::from(self.value);
        match self.op {
            ComparisonOp::Equal => number == value,
            ComparisonOp::NotEqual => number != value,
            ComparisonOp::AtLeast => number >= value,
            ComparisonOp::AtMost => number <= value,
        }
    }
}

impl Filter {
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
            Self::NotHealthCheck => true,
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
            Self::And(filters) => f.debug_tuple("And").field(filters).finish(),
            Self::Or(filters) => f.debug_tuple("Or").field(filters).finish(),
            Self::Predicate(_) => f.write_str("Predicate"),
        }
    }
}

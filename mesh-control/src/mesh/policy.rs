use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{Cluster, OutlierDetection, circuit_breakers::Thresholds},
            core::v3::HealthCheck,
            route::v3::RetryPolicy,
        },
        extensions::filters::http::{fault::v3::HttpFault, local_ratelimit::v3::LocalRateLimit},
        r#type::v3::TokenBucket,
    },
    google::protobuf::Duration,
};
use mesh_config::language::{Fields, Part, Problems};
use prost::Message;

/// What a service's `cluster` may not say, since it follows from the rest.
const OWN_FIELDS: [&str; 6] = [
    "name",
    "type",
    "cluster_type",
    "eds_cluster_config",
    "load_assignment",
    "circuit_breakers",
];

/// A value, and where it stands.
#[derive(Debug, Clone)]
pub struct Placed<T> {
    /// The value.
    pub value: T,
    /// Its path in the mesh file.
    pub path: String,
}

/// How a service is called. Each value is the message of Envoy's with that name, with all its fields.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    /// For a request with all its attempts; Envoy's default is 15 s.
    pub timeout: Option<Placed<Duration>>,
    /// `RetryPolicy`.
    pub retry_policy: Option<Placed<RetryPolicy>>,
    /// For a connection; 5 s by default.
    pub connect_timeout: Option<Placed<Duration>>,
    /// `OutlierDetection`.
    pub outlier_detection: Option<Placed<OutlierDetection>>,
    /// `CircuitBreakers.Thresholds`, of the default priority.
    pub thresholds: Option<Placed<Thresholds>>,
    /// `HealthCheck`s.
    pub health_checks: Option<Placed<Vec<HealthCheck>>>,
    /// `TokenBucket`, at the service's own sidecar, before its application.
    pub rate_limit: Option<Placed<TokenBucket>>,
    /// `HTTPFault`, at the service's own sidecar.
    pub fault: Option<Placed<HttpFault>>,
    /// Any other field of `Cluster`.
    pub cluster: Option<Placed<Box<Cluster>>>,
}

impl Policies {
    /// Takes what is there of them; the rest is as in `defaults`.
    pub(super) fn take(fields: &mut Fields<'_>, defaults: &Self, problems: &mut Problems) -> Self {
        let own = Self {
            timeout: take(fields, "timeout", "google.protobuf.Duration", problems),
            retry_policy: take(
                fields,
                "retry_policy",
                "envoy.config.route.v3.RetryPolicy",
                problems,
            ),
            connect_timeout: take(
                fields,
                "connect_timeout",
                "google.protobuf.Duration",
                problems,
            ),
            outlier_detection: take(
                fields,
                "outlier_detection",
                "envoy.config.cluster.v3.OutlierDetection",
                problems,
            ),
            thresholds: take(
                fields,
                "thresholds",
                "envoy.config.cluster.v3.CircuitBreakers.Thresholds",
                problems,
            ),
            health_checks: fields.take("health_checks").map(|part| Placed {
                value: health_checks(&part, problems),
                path: part.path().to_owned(),
            }),
            rate_limit: take(fields, "rate_limit", "envoy.type.v3.TokenBucket", problems),
            fault: take(
                fields,
                "fault",
                "envoy.extensions.filters.http.fault.v3.HTTPFault",
                problems,
            ),
            cluster: fields
                .take("cluster")
                .and_then(|part| cluster(&part, problems)),
        };
        own.or(defaults)
    }

    fn or(self, defaults: &Self) -> Self {
        let Self {
            timeout,
            retry_policy,
            connect_timeout,
            outlier_detection,
            thresholds,
            health_checks,
            rate_limit,
            fault,
            cluster,
        } = self;
        Self {
            timeout: timeout.or_else(|| defaults.timeout.clone()),
            retry_policy: retry_policy.or_else(|| defaults.retry_policy.clone()),
            connect_timeout: connect_timeout.or_else(|| defaults.connect_timeout.clone()),
            outlier_detection: outlier_detection.or_else(|| defaults.outlier_detection.clone()),
            thresholds: thresholds.or_else(|| defaults.thresholds.clone()),
            health_checks: health_checks.or_else(|| defaults.health_checks.clone()),
            rate_limit: rate_limit.or_else(|| defaults.rate_limit.clone()),
            fault: fault.or_else(|| defaults.fault.clone()),
            cluster: cluster.or_else(|| defaults.cluster.clone()),
        }
    }

    /// The filter that a rate limit amounts to.
    pub(crate) fn local_rate_limit(bucket: &TokenBucket) -> LocalRateLimit {
        use envoy_types::pb::envoy::{
            config::core::v3::RuntimeFractionalPercent, r#type::v3::FractionalPercent,
        };
        let always = RuntimeFractionalPercent {
            default_value: Some(FractionalPercent {
                numerator: 100,
                denominator: 0,
            }),
            ..RuntimeFractionalPercent::default()
        };
        LocalRateLimit {
            stat_prefix: "inbound".to_owned(),
            token_bucket: Some(*bucket),
            filter_enabled: Some(always.clone()),
            filter_enforced: Some(always),
            ..LocalRateLimit::default()
        }
    }
}

fn take<M: Message + Default>(
    fields: &mut Fields<'_>,
    field: &'static str,
    message: &str,
    problems: &mut Problems,
) -> Option<Placed<M>> {
    let part = fields.take(field)?;
    Some(Placed {
        value: part.decode(message, problems)?,
        path: part.path().to_owned(),
    })
}

fn health_checks(part: &Part<'_>, problems: &mut Problems) -> Vec<HealthCheck> {
    let checks = part.items().into_iter();
    checks
        .filter_map(|check| check.decode("envoy.config.core.v3.HealthCheck", problems))
        .collect()
}

fn cluster(part: &Part<'_>, problems: &mut Problems) -> Option<Placed<Box<Cluster>>> {
    let entries = part.entries(problems)?;
    for (key, entry) in &entries {
        if OWN_FIELDS.contains(key) {
            let reason = match *key {
                "circuit_breakers" => "write `thresholds` of the service instead",
                _ => "follows from the service, and cannot be set here",
            };
            entry.invalid(problems, reason);
        }
    }
    let value = part.decode_fields("envoy.config.cluster.v3.Cluster", &[], problems)?;
    Some(Placed {
        value: Box::new(value),
        path: part.path().to_owned(),
    })
}

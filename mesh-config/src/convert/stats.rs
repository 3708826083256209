//! Which stats are shown, how, and to whom they are sent.

use std::time::Duration;

use envoy_types::pb::envoy::config::{
    bootstrap::v3::{self as bootstrap, bootstrap::StatsFlush as FlushMode},
    core::v3 as core,
    metrics::v3::{
        self as pb, dog_statsd_sink::DogStatsdSpecifier, stats_matcher::StatsMatcher as Matcher,
        stats_sink::ConfigType, statsd_sink::StatsdSpecifier, tag_specifier::TagValue,
    },
};
use envoy_types::pb::envoy::r#type::matcher::v3::ListStringMatcher;
use mesh_core::Address;
use mesh_telemetry::{
    Buckets, Dialect, ExportConfig, NameTest, Statsd, StatsdConfig, TagSpecifier, Tags,
};

use super::{context::Context, matcher, value};
use crate::{
    language::{
        At, MessageSupport,
        Support::{Enforced, Meaningless},
    },
    model::{StatsConfig, StatsFlush, StatsSink, StatsTarget},
};

pub(super) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: "envoy.config.metrics.v3.StatsConfig",
        fields: &[
            ("stats_tags", Enforced),
            ("use_all_default_tags", Enforced),
            ("stats_matcher", Enforced),
            ("histogram_bucket_settings", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.metrics.v3.TagSpecifier",
        fields: &[
            ("tag_name", Enforced),
            ("regex", Enforced),
            ("fixed_value", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.metrics.v3.StatsMatcher",
        fields: &[
            ("reject_all", Enforced),
            ("exclusion_list", Enforced),
            ("inclusion_list", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.type.matcher.v3.ListStringMatcher",
        fields: &[("patterns", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.metrics.v3.HistogramBucketSettings",
        fields: &[
            ("match", Enforced),
            ("buckets", Enforced),
            // How a histogram is kept: ours holds two significant digits of everything.
            ("bins", Meaningless),
        ],
    },
    MessageSupport {
        message: "envoy.config.metrics.v3.StatsSink",
        fields: &[("name", Meaningless), ("typed_config", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.metrics.v3.StatsdSink",
        fields: &[
            ("address", Enforced),
            ("tcp_cluster_name", Enforced),
            ("prefix", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.metrics.v3.DogStatsdSink",
        fields: &[
            ("address", Enforced),
            ("prefix", Enforced),
            ("max_bytes_per_datagram", Enforced),
        ],
    },
];

/// Envoy's `stats_flush_interval` when the config gives none.
const FLUSH_INTERVAL: Duration = Duration::from_secs(5);

pub(super) fn convert(cx: &Context<'_>, at: &At<'_>, from: &bootstrap::Bootstrap) -> StatsConfig {
    let export = from.stats_config.as_ref();
    let export = export.and_then(|from| export_config(cx, &at.field("stats_config"), from));
    let interval = from.stats_flush_interval.as_ref();
    let interval = value::duration(cx, &at.field("stats_flush_interval"), interval);
    let list = at.field("stats_sinks");
    let sinks = from.stats_sinks.iter().enumerate();
    StatsConfig {
        export: export.unwrap_or_default(),
        flush: match from.stats_flush {
            Some(FlushMode::StatsFlushOnAdmin(true)) => StatsFlush::OnAdmin,
            _ => StatsFlush::Every(interval.unwrap_or(FLUSH_INTERVAL)),
        },
        sinks: sinks
            .filter_map(|(index, sink)| {
                let at = list.index(index);
                statsd(cx, &at, from, sink)
            })
            .collect(),
        dispatcher: from.enable_dispatcher_stats,
    }
}

fn export_config(cx: &Context<'_>, at: &At<'_>, from: &pb::StatsConfig) -> Option<ExportConfig> {
    let list = at.field("stats_tags");
    let tags = from
        .stats_tags
        .iter()
        .enumerate()
        .filter_map(|(index, from)| {
            let at = list.index(index);
            let name = from.tag_name.as_str();
            match &from.tag_value {
                Some(TagValue::FixedValue(value)) => Some(TagSpecifier::fixed(name, value)),
                Some(TagValue::Regex(regex)) => {
                    cx.ok(&at.field("regex"), TagSpecifier::regex(name, regex))
                }
                None => cx.ok(&at.field("tag_name"), TagSpecifier::envoy_default(name)),
            }
        });
    let tags: Vec<TagSpecifier> = tags.collect();
    let all = from.use_all_default_tags.is_none_or(|all| all.value);
    // With all of Envoy's own, naming one of them says nothing more.
    let tags = tags
        .into_iter()
        .filter(|tag| !(all && matches!(tag, TagSpecifier::Default { .. })));
    let tags = cx.ok(&list, Tags::new(all, tags.collect()))?;
    let matcher = from.stats_matcher.as_ref();
    let matcher = matcher.and_then(|from| from.stats_matcher.as_ref());
    Some(ExportConfig {
        tags,
        only: matcher.and_then(|from| only(cx, &at.field("stats_matcher"), from)),
        buckets: buckets(cx, at, &from.histogram_bucket_settings),
    })
}

fn only(cx: &Context<'_>, at: &At<'_>, from: &Matcher) -> Option<NameTest> {
    match from {
        Matcher::RejectAll(all) => {
            let all = *all;
            Some(NameTest::new(move |_| !all))
        }
        Matcher::ExclusionList(list) => {
            let any = any(cx, &at.field("exclusion_list"), list);
            Some(NameTest::new(move |name| !any(name)))
        }
        Matcher::InclusionList(list) => {
            Some(NameTest::new(any(cx, &at.field("inclusion_list"), list)))
        }
    }
}

fn any(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &ListStringMatcher,
) -> impl Fn(&str) -> bool + Send + Sync + 'static + use<> {
    let list = at.field("patterns");
    let patterns = from.patterns.iter().enumerate();
    let patterns: Vec<_> = patterns
        .filter_map(|(index, from)| matcher::string(cx, &list.index(index), from))
        .collect();
    move |name| {
        patterns
            .iter()
            .any(|pattern| pattern.matches(name.as_bytes()))
    }
}

fn buckets(cx: &Context<'_>, at: &At<'_>, from: &[pb::HistogramBucketSettings]) -> Buckets {
    let list = at.field("histogram_bucket_settings");
    let mut buckets = Buckets::default();
    for (index, from) in from.iter().enumerate() {
        let at = list.index(index);
        let Some(test) = from.r#match.as_ref() else {
            continue;
        };
        let Some(test) = matcher::string(cx, &at.field("match"), test) else {
            continue;
        };
        let test = NameTest::new(move |name| test.matches(name.as_bytes()));
        cx.ok(&at.field("buckets"), buckets.add(test, &from.buckets));
    }
    buckets
}

/// The sinks that there are; others are reported by the table.
fn statsd(
    cx: &Context<'_>,
    at: &At<'_>,
    bootstrap: &bootstrap::Bootstrap,
    from: &pb::StatsSink,
) -> Option<StatsSink> {
    let Some(ConfigType::TypedConfig(any)) = &from.config_type else {
        cx.unsupported(at, "envoy.config.metrics.v3.StatsSink", None);
        return None;
    };
    let at = at.field("typed_config");
    let prefix = |prefix: &str| value::nonempty(prefix).unwrap_or("envoy").to_owned();
    if let Some(from) = cx.unpack::<pb::StatsdSink>(any) {
        let target = match from.statsd_specifier.as_ref()? {
            StatsdSpecifier::Address(address) => {
                StatsTarget::Datagrams(datagrams(cx, &at.field("address"), address)?)
            }
            StatsdSpecifier::TcpClusterName(name) => {
                stream(cx, &at.field("tcp_cluster_name"), bootstrap, name)?
            }
        };
        return Some(StatsSink {
            statsd: StatsdConfig {
                prefix: prefix(&from.prefix),
                ..StatsdConfig::default()
            },
            target,
        });
    }
    let from = cx.unpack::<pb::DogStatsdSink>(any)?;
    let DogStatsdSpecifier::Address(address) = from.dog_statsd_specifier.as_ref()?;
    let address = datagrams(cx, &at.field("address"), address)?;
    let mut statsd = StatsdConfig {
        prefix: prefix(&from.prefix),
        dialect: Dialect::DogStatsd,
        ..StatsdConfig::default()
    };
    if let Some(max) = &from.max_bytes_per_datagram {
        statsd.datagram_bytes_max = usize::try_from(max.value).unwrap_or(usize::MAX);
        let at = at.field("max_bytes_per_datagram");
        cx.ok(&at, Statsd::new(statsd.clone()))?;
    }
    Some(StatsSink {
        statsd,
        target: StatsTarget::Datagrams(address),
    })
}

fn datagrams(cx: &Context<'_>, at: &At<'_>, from: &core::Address) -> Option<Address> {
    // Datagrams are sent whatever it says, as in Envoy.
    cx.ignored(&at.field("socket_address").field("protocol"));
    let mut from = from.clone();
    if let Some(core::address::Address::SocketAddress(socket)) = &mut from.address {
        socket.protocol = core::socket_address::Protocol::Tcp.into();
    }
    value::address(cx, at, &from)
}

fn stream(
    cx: &Context<'_>,
    at: &At<'_>,
    bootstrap: &bootstrap::Bootstrap,
    name: &str,
) -> Option<StatsTarget> {
    let clusters = bootstrap.static_resources.as_ref();
    let mut clusters = clusters.iter().flat_map(|resources| &resources.clusters);
    // One that is not there may come later; whoever sends looks again.
    let cluster = clusters.find(|cluster| cluster.name == name);
    if cluster.is_some_and(|cluster| {
        cluster.transport_socket.is_some() || !cluster.transport_socket_matches.is_empty()
    }) {
        // In the clear to where the config wants TLS: rather not at all.
        let field = "envoy.config.metrics.v3.StatsdSink.tcp_cluster_name";
        cx.insecure(at, field, Some(name));
        return None;
    }
    Some(StatsTarget::Stream(name.into()))
}

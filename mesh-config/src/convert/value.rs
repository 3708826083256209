//! Values that many messages share.

use std::{io::Read as _, net::IpAddr, net::SocketAddr, sync::Arc, time::Duration};

use envoy_types::pb::{
    envoy::{
        config::core::v3 as core,
        r#type::v3::{self as ty, fractional_percent::DenominatorType},
    },
    google::protobuf::{self, BoolValue, Struct, UInt32Value, Value, value::Kind},
};
use http::{HeaderName, HeaderValue};
use mesh_core::{
    Address, Cidr, FractionalPercent, Metadata, MetadataValue, Percent, RuntimeFraction,
};

use super::context::Context;
use crate::language::{
    At, MessageSupport,
    Support::{Enforced, EnforcedFor, Meaningless, Security},
};

pub(super) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: "envoy.config.core.v3.Address",
        fields: &[("socket_address", Enforced), ("pipe", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.core.v3.SocketAddress",
        fields: &[
            ("protocol", EnforcedFor(&["TCP"])),
            ("address", Enforced),
            ("port_value", Enforced),
            ("ipv4_compat", Enforced),
            ("network_namespace_filepath", Security),
        ],
    },
    MessageSupport {
        message: "envoy.config.core.v3.Pipe",
        fields: &[("path", Enforced), ("mode", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.core.v3.CidrRange",
        fields: &[("address_prefix", Enforced), ("prefix_len", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.core.v3.Locality",
        fields: &[
            ("region", Enforced),
            ("zone", Enforced),
            ("sub_zone", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.core.v3.RuntimeFractionalPercent",
        fields: &[("default_value", Enforced), ("runtime_key", Enforced)],
    },
    // A key is not read, and reported where it is named if a layer has it.
    MessageSupport {
        message: "envoy.config.core.v3.RuntimeDouble",
        fields: &[("default_value", Enforced), ("runtime_key", Meaningless)],
    },
    MessageSupport {
        message: "envoy.config.core.v3.RuntimeUInt32",
        fields: &[("default_value", Enforced), ("runtime_key", Enforced)],
    },
    MessageSupport {
        message: "envoy.type.v3.FractionalPercent",
        fields: &[("numerator", Enforced), ("denominator", Enforced)],
    },
    MessageSupport {
        message: "envoy.type.v3.Percent",
        fields: &[("value", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.core.v3.DataSource",
        fields: &[
            ("filename", Enforced),
            ("inline_bytes", Enforced),
            ("inline_string", Enforced),
            ("environment_variable", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.core.v3.TypedExtensionConfig",
        fields: &[("name", Meaningless), ("typed_config", Enforced)],
    },
    // Metadata is for whoever reads it; those who do look for their own key.
    MessageSupport {
        message: "envoy.config.core.v3.Metadata",
        fields: &[
            ("filter_metadata", Enforced),
            ("typed_filter_metadata", Meaningless),
        ],
    },
    // A transport socket that adds nothing is the one that there is.
    MessageSupport {
        message: "envoy.config.core.v3.TransportSocket",
        fields: &[("name", Meaningless), ("typed_config", Enforced)],
    },
    MessageSupport {
        message: "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
        fields: &[],
    },
];

/// The longest text that a config may take from a file or an environment variable; a longer one is a
/// config error.
pub const DATA_SOURCE_BYTES_MAX: usize = 1 << 20;

/// All texts together that a config holds or takes from elsewhere for bodies and formats; more is a config
/// error.
pub const DATA_SOURCES_BYTES_MAX: usize = 32 << 20;

/// The longest duration, as in Envoy: what fits into 64 bits of nanoseconds, 292 years. A longer one is a
/// config error.
const DURATION_SECONDS_MAX: u64 = 9_223_372_036;

/// A duration, if it is set and makes sense.
pub(crate) fn duration(
    cx: &Context<'_>,
    at: &At<'_>,
    from: Option<&protobuf::Duration>,
) -> Option<Duration> {
    let from = from?;
    let seconds = u64::try_from(from.seconds).ok();
    let Some((seconds, nanos)) = seconds.zip(u32::try_from(from.nanos).ok()) else {
        cx.invalid(at, "a duration must not be negative");
        return None;
    };
    if seconds > DURATION_SECONDS_MAX {
        let reason = format!("a duration must be at most {DURATION_SECONDS_MAX}s");
        cx.invalid(at, reason);
        return None;
    }
    Some(Duration::new(seconds, nanos))
}

/// A duration of which zero means "off".
pub(crate) fn timeout(
    cx: &Context<'_>,
    at: &At<'_>,
    from: Option<&protobuf::Duration>,
    default: Option<Duration>,
) -> Option<Duration> {
    match from {
        None => default,
        Some(_) => duration(cx, at, from).filter(|duration| !duration.is_zero()),
    }
}

/// A flag that is not false when unset.
pub(crate) fn flag(from: Option<BoolValue>, default: bool) -> bool {
    from.map_or(default, |flag| flag.value)
}

/// A number that is not zero when unset.
pub(crate) fn number(from: Option<UInt32Value>) -> Option<u32> {
    from.map(|number| number.value)
}

/// A text, unless it is empty.
pub(crate) fn nonempty(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

pub(crate) fn percent(
    cx: &Context<'_>,
    at: &At<'_>,
    from: Option<&ty::Percent>,
) -> Option<Percent> {
    cx.ok(at, Percent::new(from?.value))
}

pub(crate) fn fractional_percent(from: &ty::FractionalPercent) -> FractionalPercent {
    match from.denominator() {
        DenominatorType::Hundred => FractionalPercent::percent(from.numerator),
        DenominatorType::TenThousand => FractionalPercent::ten_thousandth(from.numerator),
        DenominatorType::Million => FractionalPercent::millionth(from.numerator),
    }
}

pub(crate) fn runtime_fraction(
    cx: &Context<'_>,
    from: &core::RuntimeFractionalPercent,
) -> RuntimeFraction {
    let default = from.default_value.as_ref();
    RuntimeFraction {
        default: default.map_or(FractionalPercent::ZERO, fractional_percent),
        runtime_key: cx.runtime_key(&from.runtime_key),
    }
}

/// An address that needs no look-up: an IP address, or a Unix socket.
pub(crate) fn address(cx: &Context<'_>, at: &At<'_>, from: &core::Address) -> Option<Address> {
    use core::address::Address as Kind;
    match from.address.as_ref() {
        Some(Kind::SocketAddress(socket)) => {
            let at = at.field("socket_address");
            let (host, port) = host_and_port(cx, &at, socket)?;
            let Ok(ip) = host.parse::<IpAddr>() else {
                let reason = format!(
                    "{host:?} is not an IP address; names are looked up for clusters of type STRICT_DNS and \
                     LOGICAL_DNS only"
                );
                cx.invalid(&at.field("address"), reason);
                return None;
            };
            Some(Address::Socket(SocketAddr::new(ip, port)))
        }
        Some(Kind::Pipe(pipe)) => {
            if pipe.path.starts_with('@') && pipe.mode != 0 {
                let at = at.field("pipe");
                cx.invalid(&at.field("mode"), "an abstract socket has no mode");
            }
            Some(Address::Unix(pipe.path.clone().into()))
        }
        Some(Kind::EnvoyInternalAddress(_)) => {
            cx.invalid(
                &at.field("envoy_internal_address"),
                "internal listeners are not supported",
            );
            None
        }
        // The protos' own rules have refused this already.
        None => None,
    }
}

/// A range of addresses.
pub(crate) fn cidr(cx: &Context<'_>, at: &At<'_>, from: &core::CidrRange) -> Option<Cidr> {
    let Ok(network) = from.address_prefix.parse::<IpAddr>() else {
        let reason = format!("{:?} is not an IP address", from.address_prefix);
        cx.invalid(&at.field("address_prefix"), reason);
        return None;
    };
    let length = number(from.prefix_len).unwrap_or(0);
    // More than there is counts as all of it, as in Envoy.
    let all = if network.is_ipv4() { 32 } else { 128 };
    let length = u8::try_from(length).map_or(all, |length| length.min(all));
    cx.ok(&at.field("prefix_len"), Cidr::new(network, length))
}

/// Host and port of a TCP address, whatever the host is.
pub(crate) fn host_and_port<'a>(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &'a core::SocketAddress,
) -> Option<(&'a str, u16)> {
    use core::socket_address::PortSpecifier;
    if from.protocol() == core::socket_address::Protocol::Udp {
        cx.invalid(&at.field("protocol"), "UDP is not supported");
        return None;
    }
    if let Some(name) = nonempty(&from.resolver_name) {
        let reason = format!("there is no resolver named {name:?}");
        cx.invalid(&at.field("resolver_name"), reason);
        return None;
    }
    let port = match from.port_specifier.as_ref() {
        Some(PortSpecifier::PortValue(port)) => *port,
        Some(PortSpecifier::NamedPort(_)) => {
            cx.invalid(
                &at.field("named_port"),
                "named ports are not supported: write port_value",
            );
            return None;
        }
        None => 0,
    };
    let port = cx.ok(&at.field("port_value"), u16::try_from(port))?;
    Some((&from.address, port))
}

/// What is stated about something, by namespace; `None` for nothing.
pub(crate) fn metadata(from: Option<&core::Metadata>) -> Option<Arc<Metadata>> {
    let namespaces = &from?.filter_metadata;
    let values = namespaces
        .iter()
        .map(|(name, fields)| (name.as_str().into(), structure(fields)));
    (!namespaces.is_empty()).then(|| Arc::new(Metadata::new(values.collect())))
}

pub(crate) fn structure(from: &Struct) -> MetadataValue {
    let fields = from.fields.iter();
    MetadataValue::Struct(
        fields
            .map(|(key, value)| (key.as_str().into(), any_value(value)))
            .collect(),
    )
}

fn any_value(from: &Value) -> MetadataValue {
    match &from.kind {
        None | Some(Kind::NullValue(_)) => MetadataValue::Null,
        Some(Kind::BoolValue(value)) => MetadataValue::Bool(*value),
        Some(Kind::NumberValue(number)) => MetadataValue::Number(*number),
        Some(Kind::StringValue(text)) => MetadataValue::Text(text.as_str().into()),
        Some(Kind::ListValue(list)) => {
            MetadataValue::List(list.values.iter().map(any_value).collect())
        }
        Some(Kind::StructValue(fields)) => structure(fields),
    }
}

pub(crate) fn header_name(cx: &Context<'_>, at: &At<'_>, name: &str) -> Option<HeaderName> {
    let parsed = HeaderName::from_bytes(name.as_bytes()).ok();
    if parsed.is_none() {
        cx.invalid(at, format!("{name:?} is not a header name"));
    }
    parsed
}

pub(crate) fn header_value(cx: &Context<'_>, at: &At<'_>, value: &str) -> Option<HeaderValue> {
    let parsed = HeaderValue::from_str(value).ok();
    if parsed.is_none() {
        cx.invalid(at, "holds characters that a header must not");
    }
    parsed
}

/// The bytes that a config holds itself or names.
pub(crate) fn data_source(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &core::DataSource,
) -> Option<Vec<u8>> {
    use core::data_source::Specifier;
    let bytes = match from.specifier.as_ref()? {
        Specifier::InlineString(text) => text.clone().into_bytes(),
        Specifier::InlineBytes(bytes) => bytes.to_vec(),
        Specifier::Filename(path) => {
            let read = cx.file(path, || read_file(path));
            let read = read.map_err(|error| format!("cannot read {path:?}: {error}"));
            cx.ok(&at.field("filename"), read)?
        }
        Specifier::EnvironmentVariable(name) => {
            let Some(value) = std::env::var_os(name) else {
                let reason = format!("the environment variable {name:?} is not set");
                cx.invalid(&at.field("environment_variable"), reason);
                return None;
            };
            value.into_encoded_bytes()
        }
    };
    if bytes.len() > DATA_SOURCE_BYTES_MAX {
        cx.invalid(at, format!("is longer than {DATA_SOURCE_BYTES_MAX} bytes"));
        return None;
    }
    if cx.take_in(bytes.len()) > DATA_SOURCES_BYTES_MAX {
        let reason = format!(
            "files and texts that the config names have more than {DATA_SOURCES_BYTES_MAX} bytes"
        );
        cx.invalid(at, reason);
        return None;
    }
    Some(bytes)
}

/// At most one byte more than is allowed, and never waits as a pipe would.
fn read_file(path: &str) -> std::io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(DATA_SOURCE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}
